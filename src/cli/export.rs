//! `weightpress export`: an artifact back into a plain model that any runtime reads.

use std::fs::Permissions;
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{CliError, at, unwritable};
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
    let folder = args.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    let mut out = BufWriter::new(file.map_err(|error| unwritable(&args.output, error))?);
    artifact.export(args.format, &mut out).map_err(|error| match error {
        ArtifactError::Io(_) => unwritable(&args.output, error),
        _ => at(&args.artifact, error),
    })?;
    let written = |error| unwritable(&args.output, error);
    let file = out.into_inner().map_err(|error| written(error.into_error()))?;
    file.as_file().sync_all().map_err(written)?;
    file.persist(&args.output).map_err(|error| unwritable(&args.output, error))?;
    Ok(())
}
