//! `weightpress predict`: a model or an artifact run on the arrays of a file.

use std::path::PathBuf;

use super::inspect::{Opened, open};
use super::{CliError, at, npz, unwritable};
use crate::config::ByteSize;
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
    #[command(flatten)]
    residency: ResidencyArgs,
}

/// How an artifact's weights are held in memory.
#[derive(Debug, clap::Args)]
pub struct ResidencyArgs {
    /// How an artifact's weights are held: `packed` and `coded` are multiplied as they are, `dense` is expanded first; `auto`
    /// measures which is fastest, weight by weight.
    #[arg(long, value_enum, default_value = "packed")]
    residency: Residency,
    /// Memory that `auto` may give to the weights, e.g. `64MiB` [default: any].
    #[arg(long, value_name = "BYTES")]
    memory_budget: Option<ByteSize>,
}

/// Runs one batch: the whole file.
pub fn run(args: Args) -> Result<(), CliError> {
    let predictor = args.residency.load(&open(&args.file)?)?;
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

impl ResidencyArgs {
    /// A predictor for what was opened.
    pub fn load(&self, opened: &Opened) -> Result<Predictor, CliError> {
        load(opened, self.residency, self.memory_budget)
    }
}

/// A predictor for what was opened.
pub fn load(opened: &Opened, residency: Residency, budget: Option<ByteSize>) -> Result<Predictor, CliError> {
    match opened {
        Opened::Artifact(artifact) => Predictor::from_artifact_within(artifact, residency, budget.map(|size| size.0)),
        Opened::Model(model) => Predictor::from_model(model),
    }
    .map_err(CliError::input)
}
