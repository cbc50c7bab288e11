//! `weightpress evaluate`: the quality of a model or an artifact on a dataset.

use std::path::PathBuf;

use super::data::DataArgs;
use super::inspect::open;
use super::{CliError, predict, print_json, print_stdout};

/// What to measure, on which data.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model or an artifact.
    file: PathBuf,
    /// The model it was compressed from: adds output SNR, agreement, and its own metrics.
    #[arg(long, value_name = "MODEL")]
    reference: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    residency: predict::ResidencyArgs,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the file over the samples.
pub fn run(args: Args) -> Result<(), CliError> {
    let predictor = args.residency.load(&open(&args.file)?)?;
    let reference = match &args.reference {
        Some(path) => Some(args.residency.load(&open(path)?)?),
        None => None,
    };
    let quality = args.data.measure(&predictor, reference.as_ref())?;
    if args.json { print_json(&quality) } else { print_stdout(&quality.render()) }
}
