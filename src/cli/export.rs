//! `weightpress export`: an artifact back into a plain model that any runtime reads.

use std::io::BufWriter;
use std::path::PathBuf;

use super::{CliError, at, unwritable};
use crate::artifact::staged::Staged;
use crate::artifact::{Artifact, ArtifactError, ExportFormat};

/// What to export and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact.
    artifact: PathBuf,
    /// onnx or safetensors.
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Decodes every weight and writes the model; a file that is there is replaced only by a whole one.
pub fn run(args: Args) -> Result<(), CliError> {
    let artifact = Artifact::open(&args.artifact).map_err(|error| at(&args.artifact, error))?;
    let written = |error| unwritable(&args.output, error);
    let mut out = BufWriter::new(Staged::new(&args.output).map_err(written)?);
    artifact.export(args.format, &mut out).map_err(|error| match error {
        ArtifactError::Io(_) => unwritable(&args.output, error),
        _ => at(&args.artifact, error),
    })?;
    let staged = out.into_inner().map_err(|error| written(error.into_error()))?;
    staged.publish().map_err(written)
}
