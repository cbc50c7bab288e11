//! `weightpress inspect`: what is in a model or an artifact.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::table::{Align, Table, grouped};
use super::{CliError, at, print_json, print_stdout};
use crate::artifact::{Artifact, ArtifactError, Body, StoredTensor};
use crate::model::{Model, Role};

/// What to look at.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model (ONNX, .safetensors, .npz) or an artifact.
    file: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// Opens the file as what it is and shows it.
pub fn run(args: Args) -> Result<(), CliError> {
    let (document, text) = match open(&args.file)? {
        Opened::Artifact(artifact) => artifact_summary(&artifact)?,
        Opened::Model(model) => model_summary(&model),
    };
    if args.json { print_json(&document) } else { print_stdout(&text) }
}

/// A file that a command can work on.
pub enum Opened {
    /// A compressed version.
    Artifact(Artifact),
    /// An upload: version 0.
    Model(Model),
}

/// Opens `path` as an artifact if it is one, else as a model.
///
/// # Errors
/// [`CliError::Input`] with the fault of the file.
pub fn open(path: &Path) -> Result<Opened, CliError> {
    if is_safetensors(path)? {
        match Artifact::open(path) {
            Err(ArtifactError::NotAnArtifact) => {}
            opened => return opened.map(Opened::Artifact).map_err(|error| at(path, error)),
        }
    }
    Model::open(path).map(Opened::Model).map_err(|error| at(path, error))
}

/// Whether the file looks like the container of artifacts: eight bytes of length, then a JSON object. Any other model
/// is then not read as a whole just to find out.
fn is_safetensors(path: &Path) -> Result<bool, CliError> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(|error| at(path, error))?;
    file.take(9).read_to_end(&mut start).map_err(|error| at(path, error))?;
    Ok(start.get(8) == Some(&b'{'))
}

fn model_summary(model: &Model) -> (Value, String) {
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("op", Align::Left),
        ("shape", Align::Left),
        ("type", Align::Left),
        ("bytes", Align::Right),
        ("predictions once compressed", Align::Left),
    ]);
    let layers = model.weights().iter().map(|weight| {
        let bytes = weight.dims.iter().product::<usize>() * weight.dtype.size_bytes();
        let role = match &weight.role {
            Role::Product => "on compressed weights".to_owned(),
            Role::Lookup => "looked up on compressed weights".to_owned(),
            Role::Expanded { reason } => format!("expanded at load: {reason}"),
        };
        table.row(vec![
            weight.name.clone(),
            weight.op.clone(),
            shape(&weight.dims),
            weight.dtype.name().to_owned(),
            grouped(bytes as u64),
            role,
        ]);
        json!({
            "name": weight.name, "op": weight.op, "shape": weight.dims, "datatype": weight.dtype, "size_bytes": bytes,
            "role": weight.role,
        })
    });
    let layers: Vec<Value> = layers.collect();
    let mut text = table.render();
    for kept in model.kept() {
        text += &format!("kept: {} {} {} ({})\n", kept.name, kept.dtype, shape(&kept.dims), kept.reason);
    }
    let unsupported = crate::infer::unsupported_operators(model);
    if !unsupported.is_empty() {
        text += &format!("no predictions: {} not supported\n", unsupported.join(", "));
    }
    let document = json!({
        "kind": "model", "format": model.format(), "size_bytes": model.size_bytes(), "inputs": model.inputs(),
        "outputs": model.outputs(), "layers": layers, "kept": model.kept(), "unsupported_operators": unsupported,
    });
    (document, text)
}

fn artifact_summary(artifact: &Artifact) -> Result<(Value, String), CliError> {
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("shape", Align::Left),
        ("type", Align::Left),
        ("bytes", Align::Right),
        ("bits/weight", Align::Right),
        ("values", Align::Right),
        ("codec", Align::Left),
    ]);
    let tensors: Vec<Value> = artifact.tensors().iter().map(|tensor| tensor_summary(tensor, &mut table)).collect();
    let recipe: Value = serde_json::from_str(artifact.recipe()).map_err(CliError::input)?;
    let total = grouped(artifact.size_bytes());
    let text = format!(
        "{}total {total} bytes, compressed from {}\nrecipe {recipe}\n",
        table.render(),
        artifact.source_sha256()
    );
    let document = json!({
        "kind": "artifact", "size_bytes": artifact.size_bytes(), "source_sha256": artifact.source_sha256(),
        "recipe": recipe, "tensors": tensors,
    });
    Ok((document, text))
}

fn tensor_summary(tensor: &StoredTensor, table: &mut Table) -> Value {
    let elements = tensor.dims.iter().product::<usize>();
    let bits = 8.0 * tensor.size_bytes as f64 / elements.max(1) as f64;
    let (dtype, codec, values) = match &tensor.body {
        Body::Encoded { dtype, codec, codebook, .. } => {
            let codec = json!(codec).as_str().unwrap_or_default().to_owned();
            (dtype.name().to_owned(), codec, codebook.as_ref().map(|codebook| codebook.len()))
        }
        Body::Plain { dtype, .. } => (dtype.clone(), "plain".to_owned(), None),
    };
    table.row(vec![
        tensor.name.clone(),
        shape(&tensor.dims),
        dtype.clone(),
        grouped(tensor.size_bytes),
        format!("{bits:.2}"),
        values.map_or_else(|| "-".to_owned(), |n| n.to_string()),
        codec.clone(),
    ]);
    json!({
        "name": tensor.name, "shape": tensor.dims, "datatype": dtype, "size_bytes": tensor.size_bytes,
        "bits_per_weight": bits, "distinct_values": values, "codec": codec,
    })
}

/// `64x3x3x3`.
fn shape(dims: &[usize]) -> String {
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}
