//! `weightpress compress`: a model file in, an artifact and a report out.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::data::DataArgs;
use super::progress::Bar;
use super::table::{Align, Table, grouped};
use super::{CliError, at, print_json, print_stdout, unwritable};
use crate::artifact::staged::is_special;
use crate::artifact::{ArtifactError, folder_of};
use crate::compress::{CompressError, Recipe, Report, TrainingData, TrainingStore, UnitGroupReport, compress_with};
use crate::evaluate::Split;
use crate::model::Model;

/// What to compress, how, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// ONNX model, or weights in .safetensors or .npz.
    model: PathBuf,
    /// The artifact to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// A recipe from a file, or from flags.
#[derive(Debug, clap::Args)]
struct RecipeArgs {
    /// Recipe as JSON; the flags below are then refused.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["preset", "prune", "scope", "quantize", "levels", "bits", "codebook", "encoding", "reorder", "remove", "merge", "free_units", "seed"])]
    recipe: Option<PathBuf>,
    /// lossless, balanced or smallest; the flags below refine it.
    #[arg(long)]
    preset: Option<String>,
    /// Fraction of weights to prune, 0 to below 1, or `none`.
    #[arg(long, value_name = "SPARSITY", allow_negative_numbers = true)]
    prune: Option<String>,
    /// One pruning threshold per `tensor`, or one `global`.
    #[arg(long)]
    scope: Option<String>,
    /// cws, pws, uq, ecsq or `none`.
    #[arg(long, value_name = "METHOD")]
    quantize: Option<String>,
    /// Distinct non-zero values.
    #[arg(long, value_name = "K", conflicts_with = "bits")]
    levels: Option<u64>,
    /// Bits a weight, instead of levels; `ecsq` keeps the entropy within them.
    #[arg(long)]
    bits: Option<f64>,
    /// A codebook `per_layer`, or `unified` ones.
    #[arg(long)]
    codebook: Option<String>,
    /// auto, or a codec: dense, csr, csc, index_map, ham, sham, cser, rans, mix, delta, pco.
    #[arg(long, value_name = "CODEC")]
    encoding: Option<String>,
    /// Whether hidden units may change places to save bytes.
    #[arg(long, value_name = "true|false")]
    reorder: Option<bool>,
    /// Whether hidden units that nobody reads, or that are constant, are taken out.
    #[arg(long, value_name = "true|false")]
    remove: Option<bool>,
    /// Whether hidden units that are copies of each other are merged to save bytes.
    #[arg(long, value_name = "true|false")]
    merge: Option<bool>,
    /// Which sides of weights without a graph may be reordered: inputs, outputs or both.
    #[arg(long, value_name = "SIDE")]
    free_units: Option<String>,
    /// Seed of every random choice.
    #[arg(long)]
    seed: Option<u64>,
}

/// Refuses, before the work begins, an `output` that cannot be written to, or not be read again where it is `measured`.
pub fn check_output(output: &Path, measured: bool) -> Result<(), CliError> {
    if output.is_dir() {
        return Err(unwritable(output, "it is a folder"));
    }
    if !folder_of(output).is_dir() {
        return Err(unwritable(output, "there is no such folder"));
    }
    if measured && is_special(output) {
        return Err(unwritable(output, "it is no file, and could not be read again to be measured on --data"));
    }
    Ok(())
}

/// Compresses, and measures both versions when there are data.
pub fn run(args: Args) -> Result<(), CliError> {
    let recipe = args.recipe.build()?;
    check_output(&args.output, args.data.is_given())?;
    let model = Model::open(&args.model).map_err(|error| at(&args.model, error))?;
    let (train, validation) = (args.data.of(Split::Train)?, args.data.of(Split::Validation)?);
    let data = match train.as_ref().filter(|_| recipe.needs_data()) {
        Some(train) => Some(TrainingData {
            train: train.samples(&model)?,
            validation: validation.as_ref().map(|part| part.samples_if_any(&model)).transpose()?.flatten(),
            folder: None,
            start: None,
            store: TrainingStore::default(),
        }),
        None => None,
    };
    let bar = Bar::new();
    let report = compress_with(&model, &recipe, data.as_ref(), &args.output, &bar);
    bar.finish();
    let mut report = report.map_err(|error| match error {
        CompressError::Artifact(ArtifactError::Io(_)) => unwritable(&args.output, error),
        _ => CliError::input(error),
    })?;
    if data.is_some() && args.data.measures_on_training()? {
        report.notes.push(Report::MEASURED_ON_TRAINING.to_owned());
    }
    let quality = args.data.measure_both(&model, &args.output)?;
    let document = json!({ "report": report, "quality": quality });
    if let Some(path) = &args.report {
        std::fs::write(path, format!("{document:#}\n")).map_err(|error| unwritable(path, error))?;
    }
    if args.json {
        return print_json(&document);
    }
    print_stdout(&render(&report))?;
    print_stdout(&quality.map(|quality| quality.render()).unwrap_or_default())
}

impl RecipeArgs {
    /// The recipe; flags are turned into its JSON, so that one parser judges both.
    fn build(&self) -> Result<Recipe, CliError> {
        let text = match &self.recipe {
            Some(path) => {
                let read = std::fs::read_to_string(path);
                read.map_err(|error| CliError::Input(format!("{}: {error}", path.display())))?
            }
            None => self.to_json().to_string(),
        };
        Recipe::from_json(&text).map_err(CliError::input)
    }

    fn to_json(&self) -> Value {
        let mut recipe = Map::new();
        let mut set = |stage: Option<&str>, field: &str, value: Option<Value>| {
            let Some(value) = value else { return };
            let target = match stage {
                None => &mut recipe,
                Some(stage) => match recipe.entry(stage).or_insert_with(|| json!({})) {
                    Value::Object(fields) => fields,
                    // The stage was switched off: a field of it contradicts that, and the parser says so.
                    off => {
                        *off = json!({ "none": value });
                        return;
                    }
                },
            };
            target.insert(field.to_owned(), value);
        };
        let text = |value: &Option<String>| value.clone().map(Value::from);
        set(None, "preset", text(&self.preset));
        set(None, "seed", self.seed.map(Value::from));
        match self.prune.as_deref() {
            Some("none") => set(None, "prune", Some(Value::Null)),
            // What is no number is passed on as it is, for the parser to name.
            Some(p) => set(Some("prune"), "sparsity", Some(p.parse::<f64>().map_or_else(|_| p.into(), Value::from))),
            None => {}
        }
        set(Some("prune"), "scope", text(&self.scope));
        match self.quantize.as_deref() {
            Some("none") => set(None, "quantize", Some(Value::Null)),
            method => set(Some("quantize"), "method", method.map(Value::from)),
        }
        set(Some("quantize"), "levels", self.levels.map(Value::from));
        set(Some("quantize"), "bits", self.bits.map(Value::from));
        set(Some("quantize"), "codebook", text(&self.codebook));
        set(Some("encode"), "codec", text(&self.encoding));
        set(Some("encode"), "reorder", self.reorder.map(Value::from));
        set(Some("encode"), "remove", self.remove.map(Value::from));
        set(Some("encode"), "merge", self.merge.map(Value::from));
        set(Some("encode"), "free_units", text(&self.free_units));
        Value::Object(recipe)
    }
}

/// The report as a table: a row per layer, then every other byte of the artifact, then the total.
pub fn render(report: &Report) -> String {
    const COLUMNS: [(&str, Align); 10] = [
        ("layer", Align::Left),
        ("op", Align::Left),
        ("shape", Align::Left),
        ("bytes", Align::Right),
        ("compressed", Align::Right),
        ("ratio", Align::Right),
        ("bits/weight", Align::Right),
        ("sparsity", Align::Right),
        ("values", Align::Right),
        ("codec", Align::Left),
    ];
    let mut table = Table::new(&COLUMNS);
    let codec_name = |id| json!(id).as_str().unwrap_or_default().to_owned();
    for layer in &report.layers {
        table.row(vec![
            layer.name.clone(),
            layer.op.clone(),
            layer.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
            grouped(layer.original_bytes),
            grouped(layer.compressed_bytes),
            format!("{:.1}", layer.ratio),
            format!("{:.2}", layer.bits_per_weight),
            format!("{:.3}", layer.sparsity),
            layer.distinct_values.to_string(),
            codec_name(layer.codec),
        ]);
    }
    let mut other = |name: String, bytes: u64| {
        let mut cells = vec![String::new(); COLUMNS.len()];
        cells[0] = name;
        cells[4] = grouped(bytes);
        table.row(cells);
    };
    for codebook in &report.codebooks {
        let family = json!(codebook.family);
        let name = format!("codebook ({}, {} values)", family.as_str().unwrap_or_default(), codebook.levels);
        other(name, codebook.size_bytes);
    }
    other("graph and small tensors".into(), report.graph_bytes);
    if report.plain_bytes > 0 {
        other("kept tensors".into(), report.plain_bytes);
    }
    other("container".into(), report.container_bytes);
    let mut total = vec![String::new(); COLUMNS.len()];
    total[0] = "total".into();
    total[3] = grouped(report.source_bytes);
    total[4] = grouped(report.artifact_bytes);
    total[5] = format!("{:.1}", report.ratio);
    total[6] = format!("{:.2}", report.bits_per_weight);
    total[7] = format!("{:.3}", report.sparsity);
    table.row(total);
    let remarks = report.layers.iter().filter_map(|layer| Some(format!("{}: {}\n", layer.name, layer.note.as_ref()?)));
    let notes = report.notes.iter().map(|note| format!("{note}\n"));
    table.render() + &remarks.chain(notes).chain(units(report)).collect::<String>()
}

/// What became of hidden units, a line each.
fn units(report: &Report) -> impl Iterator<Item = String> {
    let groups = &report.unit_groups;
    let sum = |count: fn(&UnitGroupReport) -> usize| groups.iter().map(count).sum::<usize>();
    let reordered = |group: &UnitGroupReport| if group.reordered { group.left() } else { 0 };
    let lines = [
        (sum(|group| group.removed), "were taken out: nobody reads them"),
        (sum(|group| group.constant), "were taken out: they are constant, and biases took that in"),
        (sum(|group| group.merged), "were taken out: they are copies of others"),
        (sum(reordered), "stand in another order: similar ones together"),
    ];
    lines.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} hidden units {what}\n"))
}
