//! `weightpress keys`: who may do what, written to the database of a service, which may be running.

use serde_json::json;

use super::table::Align::Left;
use super::table::Table;
use super::{CliError, print_json, print_stdout, serve};
use crate::access::{ApiKey, KeyId, Scope};
use crate::config::ConfigArgs;
use crate::storage::{KeyRecord, NewKey, Store, Timestamp};

/// What to do with keys.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key and print it. It is not stored: this is the only time that it is shown.
    Create(Create),
    /// List the keys of all tenants, or of one.
    List(List),
    /// End a key. A running service lets it in for a few seconds more at most.
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// What the key is for, for people.
    #[arg(long)]
    name: String,
    /// Whose models and jobs it opens; a tenant that is not there yet is made.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// What it allows.
    #[arg(long, value_delimiter = ',', default_value = "read,write,predict", value_enum)]
    scopes: Vec<Scope>,
    /// Days until it expires [default: never].
    #[arg(long, value_name = "DAYS")]
    valid_days: Option<i64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// The public part of the key: what stands between `wp_` and the secret.
    id: String,
    /// Whose key it is.
    #[arg(long, default_value = "default")]
    tenant: String,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Makes, lists or revokes.
pub fn run(args: Args) -> Result<(), CliError> {
    match args.action {
        Action::Create(args) => serve::block_on(create(args)),
        Action::List(args) => serve::block_on(list(args)),
        Action::Revoke(args) => serve::block_on(revoke(args)),
    }
}

async fn create(args: Create) -> Result<(), CliError> {
    let new = NewKey { name: args.name, scopes: args.scopes.into(), valid_days: args.valid_days };
    new.check().map_err(CliError::Input)?;
    let tenant: crate::http::Name = args.tenant.parse().map_err(CliError::input)?;
    let store = open(args.config).await?;
    let tenant = store.tenant_or_new(tenant.as_str()).await.map_err(CliError::failed)?;
    let key = ApiKey::generate().map_err(CliError::failed)?;
    let record = store.for_tenant(&tenant.id).insert_key(&key, &new).await.map_err(CliError::failed)?;
    match args.json {
        true => print_json(&json!({ "tenant": tenant.name, "id": record.id, "key": key.reveal() })),
        false => print_stdout(&format!("{}\n", key.reveal())),
    }
}

async fn list(args: List) -> Result<(), CliError> {
    let store = open(args.config).await?;
    let tenants = match &args.tenant {
        Some(name) => vec![store.tenant(name).await.map_err(CliError::input)?],
        None => store.tenants().await.map_err(CliError::failed)?,
    };
    let (mut table, mut items) = (Table::new(&HEADINGS.map(|heading| (heading, Left))), Vec::new());
    for tenant in tenants {
        for key in store.for_tenant(&tenant.id).keys().await.map_err(CliError::failed)? {
            items.push(json!({
                "tenant": tenant.name, "id": key.id, "name": key.name, "scopes": key.scopes, "created_at": key.created_at,
                "expires_at": key.expires_at, "revoked_at": key.revoked_at,
            }));
            table.row(row(&tenant.name, &key));
        }
    }
    match args.json {
        true => print_json(&items),
        false => print_stdout(&table.render()),
    }
}

const HEADINGS: [&str; 7] = ["tenant", "id", "name", "scopes", "made", "expires", "revoked"];

fn row(tenant: &str, key: &KeyRecord) -> Vec<String> {
    let moment = |moment: Option<Timestamp>| moment.map_or_else(|| "-".to_owned(), Timestamp::to_rfc3339);
    vec![
        tenant.to_owned(),
        key.id.to_string(),
        key.name.clone(),
        key.scopes.to_string(),
        key.created_at.to_rfc3339(),
        moment(key.expires_at),
        moment(key.revoked_at),
    ]
}

async fn revoke(args: Revoke) -> Result<(), CliError> {
    let store = open(args.config).await?;
    let tenant = store.tenant(&args.tenant).await.map_err(CliError::input)?;
    let id = KeyId::from(args.id);
    store.for_tenant(&tenant.id).revoke_key(&id).await.map_err(CliError::input)?;
    print_stdout(&format!("{id} is revoked\n"))
}

/// The database that `config` names, without the rest of the service.
pub async fn open(config: ConfigArgs) -> Result<Store, CliError> {
    let config = config.resolve().map_err(CliError::input)?;
    std::fs::create_dir_all(&config.data_dir)?;
    Store::connect(&config.database_url).await.map_err(CliError::failed)
}
