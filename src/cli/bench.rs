//! `weightpress bench`: how fast a model or an artifact is, beside another or beside its own dense form.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::data::{Data, DataArgs, Quality};
use super::inspect::{Opened, open};
use super::progress::Bar;
use super::table::Align::{Left, Right};
use super::table::{Table, grouped};
use super::{CliError, predict, print_json, print_stdout};
use crate::benchmark::{Benchmark, BenchmarkReport, Contender, ContenderReport, Samples, Settings};
use crate::infer::{Predictor, Residency};

/// What to measure, and beside what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model or an artifact.
    file: PathBuf,
    /// The baseline: another model or artifact, e.g. the model that FILE was compressed from [default: an artifact's own
    /// dense form].
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Samples at a time, separated by commas [default: 1,32, or what the graph takes].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    batch: Vec<usize>,
    /// Threads, separated by commas [default: 1 and all].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// How an artifact's weights are held, separated by commas [default: as the service does].
    #[arg(long, value_enum, value_delimiter = ',')]
    residency: Vec<Residency>,
    /// Seconds of each timing.
    #[arg(long, default_value = "2")]
    seconds: f64,
    /// Extents of one sample of an input that leaves some open, e.g. `image=3,224,224`; may be repeated. Without data,
    /// samples are made up, and an open extent is 1.
    #[arg(long, value_name = "INPUT=EXTENTS", value_parser = parse_shape, conflicts_with = "data")]
    shape: Vec<(String, Vec<usize>)>,
    /// Data to run on, and to measure the quality on.
    #[command(flatten)]
    data: DataArgs,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    #[serde(flatten)]
    report: BenchmarkReport,
    /// Of the file, and of the baseline where it is another one.
    quality: Option<Quality>,
}

/// A file held in memory one way.
struct Loaded {
    name: String,
    residency: Residency,
    size_bytes: u64,
    predictor: Predictor,
}

/// Times the file under each residency, in turns with the baseline.
pub fn run(args: Args) -> Result<(), CliError> {
    let loaded = load_all(&args)?;
    let data = args.data.open()?;
    let quality = quality(&loaded, data.as_ref())?;
    let shapes: BTreeMap<_, _> = args.shape.iter().cloned().collect();
    let samples = match &data {
        Some(Data { dataset, map, .. }) => Samples::Dataset { dataset, map },
        None => Samples::Random { shapes: &shapes },
    };
    let settings = Settings { batches: args.batch, threads: args.threads, seconds: Some(args.seconds) };
    let contenders: Vec<_> = loaded.iter().map(Loaded::contender).collect();
    let bar = Bar::new();
    let report = Benchmark { contenders: &contenders, samples, settings: &settings }.run(&bar);
    bar.finish();
    let measured = Measured { report: report.map_err(CliError::input)?, quality };
    if args.json { print_json(&measured) } else { print_stdout(&measured.render()) }
}

/// The baseline, then the file under each residency that the baseline is not.
fn load_all(args: &Args) -> Result<Vec<Loaded>, CliError> {
    let (path, opened) = (&args.file, open(&args.file)?);
    let wanted = match (&opened, args.residency.as_slice()) {
        (Opened::Model(_), _) => vec![Residency::Dense],
        (Opened::Artifact(_), []) => vec![Residency::default()],
        (Opened::Artifact(_), given) => given.to_vec(),
    };
    let mut loaded = vec![match &args.against {
        Some(other) => Loaded::new(other, &open(other)?, wanted[0])?,
        None => Loaded::new(path, &opened, Residency::Dense)?,
    }];
    for (index, &residency) in wanted.iter().enumerate() {
        let is_baseline = args.against.is_none() && residency == Residency::Dense;
        if !is_baseline && !wanted[..index].contains(&residency) {
            loaded.push(Loaded::new(path, &opened, residency)?);
        }
    }
    Ok(loaded)
}

/// What the data say of the file, and of the baseline; `None` without data.
fn quality(loaded: &[Loaded], data: Option<&Data>) -> Result<Option<Quality>, CliError> {
    let Some(data) = data else { return Ok(None) };
    let (baseline, others) = loaded.split_first().ok_or_else(|| CliError::failed("nothing was loaded"))?;
    let quality = match others.first() {
        Some(file) => data.measure(&file.predictor, Some(&baseline.predictor)),
        None => data.measure(&baseline.predictor, None),
    };
    quality.map(Some)
}

impl Loaded {
    fn new(path: &Path, opened: &Opened, residency: Residency) -> Result<Self, CliError> {
        let (size_bytes, residency) = match opened {
            Opened::Artifact(artifact) => (artifact.size_bytes(), residency),
            Opened::Model(model) => (model.size_bytes(), Residency::Dense),
        };
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, residency, size_bytes, predictor: predict::load(opened, residency, None)? })
    }

    fn contender(&self) -> Contender<'_> {
        let Self { name, residency, size_bytes, predictor } = self;
        Contender { name, residency: *residency, size_bytes: *size_bytes, predictor }
    }
}

impl Measured {
    fn render(&self) -> String {
        let quality = self.quality.as_ref().map(Quality::render).unwrap_or_default();
        format!("{}\n{}{quality}", render_timings(&self.report), render_layers(&self.report))
    }
}

/// A row per timing; those of one setting stand together.
fn render_timings(report: &BenchmarkReport) -> String {
    let mut table = Table::new(&[
        ("batch", Right),
        ("threads", Right),
        ("file", Left),
        ("weights", Left),
        ("bytes", Right),
        ("resident", Right),
        ("p50 ms", Right),
        ("p95 ms", Right),
        ("samples/s", Right),
        ("time", Right),
    ]);
    for setting in 0..report.contenders.first().map_or(0, |baseline| baseline.timings.len()) {
        for contender in &report.contenders {
            let timing = &contender.timings[setting];
            table.row(vec![
                timing.batch.to_string(),
                timing.threads.to_string(),
                contender.name.clone(),
                word(contender.residency),
                grouped(contender.size_bytes),
                grouped(contender.weights_resident_bytes),
                milliseconds(timing.p50_ms),
                milliseconds(timing.p95_ms),
                grouped(timing.samples_per_second.round() as u64),
                format!("{:.2}", timing.time_ratio),
            ]);
        }
    }
    format!("{}(time: as a multiple of the first file's, in turns of a few milliseconds)\n", table.render())
}

/// A row per setting and layer, a column per contender.
fn render_layers(report: &BenchmarkReport) -> String {
    let Some(baseline) = report.contenders.first() else { return String::new() };
    let title = |contender: &ContenderReport| format!("{} ({}) ms", contender.name, word(contender.residency));
    let titles: Vec<_> = report.contenders.iter().map(title).collect();
    let mut columns = vec![("batch", Right), ("threads", Right), ("layer", Left)];
    columns.extend(titles.iter().map(|title| (title.as_str(), Right)));
    let mut table = Table::new(&columns);
    for (setting, timing) in baseline.timings.iter().enumerate() {
        let mut row = |layer: &str, time: &dyn Fn(&ContenderReport) -> f64| {
            let mut cells = vec![timing.batch.to_string(), timing.threads.to_string(), layer.to_owned()];
            cells.extend(report.contenders.iter().map(|contender| milliseconds(time(contender))));
            table.row(cells);
        };
        // Layers of another file may be others: they are found by name.
        for layer in &baseline.timings[setting].layers {
            row(&layer.name, &|contender| {
                let mut layers = contender.timings[setting].layers.iter();
                layers.find(|own| own.name == layer.name).map_or(0.0, |own| own.p50_ms)
            });
        }
        row("(rest of the graph)", &|contender| contender.timings[setting].graph_ms);
    }
    table.render()
}

/// Microseconds matter.
fn milliseconds(time: f64) -> String {
    format!("{time:.3}")
}

fn word(residency: Residency) -> String {
    json!(residency).as_str().unwrap_or_default().to_owned()
}

/// Parses `NAME=A,B,C`; names may hold `=`, extents never do.
fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, extents) = text.rsplit_once('=').ok_or("an input's name, `=` and its extents are expected")?;
    let extents = extents.split(',').filter(|extent| !extent.is_empty()).map(str::parse);
    let extents = extents.collect::<Result<_, std::num::ParseIntError>>();
    Ok((name.to_owned(), extents.map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_from_the_right() {
        assert_eq!(parse_shape("image=3,224,224"), Ok(("image".to_owned(), vec![3, 224, 224])));
        assert_eq!(parse_shape("a=b=7"), Ok(("a=b".to_owned(), vec![7])));
        assert_eq!(parse_shape("scalar="), Ok(("scalar".to_owned(), vec![])));
        for text in ["image", "image=3x224", "image=-1"] {
            assert!(parse_shape(text).is_err(), "{text}");
        }
    }
}
