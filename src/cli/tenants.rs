//! `weightpress tenants`: who there is, and how much each may have.

use serde_json::json;

use super::keys::open;
use super::table::Align::{Left, Right};
use super::table::Table;
use super::{CliError, print_json, print_stdout, serve};
use crate::config::{ByteSize, ConfigArgs};
use crate::storage::{Bounds, TenantRecord};

/// What to do with tenants.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all tenants with their bounds. `weightpress keys create --tenant NAME` makes new ones.
    List(List),
    /// Set what a tenant may have. A bound that is not given is lifted.
    Bound(Bound),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
struct Bound {
    /// The tenant.
    name: String,
    /// Of all its files together, each counted once, e.g. `10GiB`.
    #[arg(long, value_name = "BYTES")]
    max_stored_bytes: Option<ByteSize>,
    /// Queued and running jobs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    max_unfinished_jobs: Option<i64>,
    /// Requests with its keys, of each process that serves.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    max_requests_per_minute: Option<i64>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Lists or bounds.
pub fn run(args: Args) -> Result<(), CliError> {
    match args.action {
        Action::List(args) => serve::block_on(list(args)),
        Action::Bound(args) => serve::block_on(bound(args)),
    }
}

async fn list(args: List) -> Result<(), CliError> {
    let tenants = open(args.config).await?.tenants().await.map_err(CliError::failed)?;
    let items = tenants.iter().map(|tenant| {
        json!({ "id": tenant.id, "name": tenant.name, "bounds": tenant.bounds, "created_at": tenant.created_at })
    });
    match args.json {
        true => print_json(&items.collect::<Vec<_>>()),
        false => print_stdout(&render(&tenants)),
    }
}

async fn bound(args: Bound) -> Result<(), CliError> {
    let bounds = Bounds {
        max_stored_bytes: args.max_stored_bytes.map(|size| i64::try_from(size.0).unwrap_or(i64::MAX)),
        max_unfinished_jobs: args.max_unfinished_jobs,
        max_requests_per_minute: args.max_requests_per_minute,
    };
    let changed = open(args.config).await?.set_bounds(&args.name, &bounds).await.map_err(CliError::input)?;
    print_stdout(&render(&[changed]))
}

fn render(tenants: &[TenantRecord]) -> String {
    let headings = ["stored bytes", "unfinished jobs", "requests a minute"].map(|heading| (heading, Right));
    let mut table = Table::new(&[&[("tenant", Left)], headings.as_slice()].concat());
    let number = |bound: Option<i64>| bound.map_or_else(|| "any".to_owned(), |bound| bound.to_string());
    for TenantRecord { name, bounds, .. } in tenants {
        table.row(vec![
            name.clone(),
            number(bounds.max_stored_bytes),
            number(bounds.max_unfinished_jobs),
            number(bounds.max_requests_per_minute),
        ]);
    }
    table.render()
}
