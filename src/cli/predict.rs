//! `weightpress predict`: a model or an artifact run on the arrays of a file.

use std::path::PathBuf;

use super::inspect::{Opened, open};
use super::{CliError, at, npz, unwritable};
use crate::evaluate::Dataset;
use crate::infer::{Array, Predictor, Residency};

/// What to run, on what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model or an artifact.
    file: PathBuf,
    /// Arrays named as the graph's inputs (.npz or .safetensors).
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The .npz file to write the outputs to.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How an artifact's weights are held: `coded` runs on the compressed form, `dense` expands it first.
    #[arg(long, value_enum, default_value = "coded")]
    residency: Residency,
}

/// Runs one batch: the whole file.
pub fn run(args: Args) -> Result<(), CliError> {
    let predictor = load(&open(&args.file)?, args.residency)?;
    let data = Dataset::open(&args.input).map_err(|error| at(&args.input, error))?;
    let inputs: Result<Vec<(String, Array)>, CliError> = predictor
        .inputs()
        .iter()
        .map(|port| {
            let array = data.read_all(&port.name).map_err(CliError::input)?;
            Ok((port.name.clone(), array))
        })
        .collect();
    let outputs = predictor.run(inputs?).map_err(CliError::input)?;
    npz::write(&args.output, &outputs).map_err(|error| unwritable(&args.output, error))
}

/// A predictor for what was opened.
pub fn load(opened: &Opened, residency: Residency) -> Result<Predictor, CliError> {
    match opened {
        Opened::Artifact(artifact) => Predictor::from_artifact(artifact, residency),
        Opened::Model(model) => Predictor::from_model(model),
    }
    .map_err(CliError::input)
}
