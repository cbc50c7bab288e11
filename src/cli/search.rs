//! `weightpress search`: the smallest artifact within an allowed loss, or the best one within a size.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::compress::{check_output, render};
use super::data::{DataArgs, Part, render_measured};
use super::progress::{Bar, Interruptible};
use super::table::Align::{Left, Right};
use super::table::{Table, grouped};
use super::{CliError, at, print_json, print_stdout, unwritable};
use crate::artifact::staged;
use crate::evaluate::Split;
use crate::model::Model;
use crate::search::{self, Found, Search, SearchData, SearchError, SearchReport, Trial};

/// What to search for, in which model, on which data.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// ONNX model.
    model: PathBuf,
    /// The artifact to write: the smallest that keeps the bound, or the nearest to it.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    bounds: BoundArgs,
    /// Settings to try: `paper`, or JSON: {"sparsity": [..], "levels": [..], "methods": [..]} [default: a walk from cheap to
    /// dear].
    #[arg(long, value_name = "JSON")]
    space: Option<String>,
    /// What all trials have in common: a recipe as JSON, in a file.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Trials at most [default: 24].
    #[arg(long)]
    trials: Option<u64>,
    /// No trial begins after this many seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Folder for the trials: a search that is cut off goes on from it. It stays; by default a temporary one is used.
    #[arg(long, value_name = "FOLDER")]
    work: Option<PathBuf>,
    /// Write every trial, the front and the report of the chosen one as JSON to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// The bound; exactly one.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct BoundArgs {
    /// By how much the metric may be worse than the model's, in its own unit.
    #[arg(long)]
    max_drop: Option<f64>,
    /// By which fraction of the model's the metric may be worse.
    #[arg(long)]
    max_relative_drop: Option<f64>,
    /// The least that the metric must reach.
    #[arg(long)]
    min_metric: Option<f64>,
    /// The most that the metric may come to.
    #[arg(long)]
    max_metric: Option<f64>,
    /// The most bytes that the artifact may have.
    #[arg(long)]
    max_size_bytes: Option<u64>,
}

/// Searches, and writes what was chosen.
pub fn run(args: Args) -> Result<(), CliError> {
    check_output(&args.output, false)?;
    let search = args.search()?;
    if !args.data.is_given() {
        return Err(CliError::Input("--data is missing: a search selects by its validation split".to_owned()));
    }
    args.data.check_all_splits()?;
    let model = Model::open(&args.model).map_err(|error| at(&args.model, error))?;
    let none = || CliError::input(SearchError::NoValidation);
    let (train, test) = (args.data.of(Split::Train)?, args.data.of(Split::Test)?);
    let validation = args.data.of(Split::Validation)?.ok_or_else(none)?;
    let data = SearchData {
        train: train.as_ref().map(Part::data),
        validation: validation.data(),
        test: test.as_ref().map(Part::data),
    };
    let temporary = match &args.work {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(CliError::failed)?),
    };
    let folder = args.work.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path)).unwrap_or(Path::new("."));
    let _lock = lock(folder)?;
    let bar = Bar::new();
    let progress = Interruptible::new(&bar)?;
    let found = search::run(&model, &search, data, folder, &progress, &mut |trial| bar.line(&line(trial, &search)));
    bar.finish();
    let found = found.map_err(|error| match error {
        SearchError::Io(error) => unwritable(folder, error),
        error => CliError::input(error),
    })?;
    staged::copy(&found.artifact, &args.output).map_err(|error| unwritable(&args.output, error))?;
    let document = json!({ "search": found.search, "report": found.report });
    if let Some(path) = &args.report {
        std::fs::write(path, format!("{document:#}\n")).map_err(|error| unwritable(path, error))?;
    }
    if args.json {
        print_json(&document)?
    } else {
        print_stdout(&describe(&found))?
    }
    match found.search.is_within_bound {
        true => Ok(()),
        false => Err(CliError::Unmet("nothing kept the bound: the nearest was written".to_owned())),
    }
}

/// Keeps other searches out of `folder`, until the file is closed.
fn lock(folder: &Path) -> Result<File, CliError> {
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| unwritable(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(CliError::Input(format!("another search is at work in {}", folder.display())))
        }
        Err(TryLockError::Error(error)) => Err(unwritable(&path, error)),
    }
}

impl Args {
    /// The search; flags are turned into its JSON, so that one parser judges all.
    fn search(&self) -> Result<Search, CliError> {
        let mut search = Map::new();
        let BoundArgs { max_drop, max_relative_drop, min_metric, max_metric, max_size_bytes } = &self.bounds;
        for (name, value) in [
            ("max_drop", max_drop),
            ("max_relative_drop", max_relative_drop),
            ("min_metric", min_metric),
            ("max_metric", max_metric),
        ] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                return Err(CliError::Input(format!("{name} cannot be {value}")));
            }
            search.extend(value.map(|value| (name.to_owned(), json!(value))));
        }
        search.extend(max_size_bytes.map(|bytes| ("max_size_bytes".to_owned(), json!(bytes))));
        if let Some(space) = &self.space {
            let value = serde_json::from_str(space).unwrap_or_else(|_| Value::from(space.as_str()));
            search.insert("space".to_owned(), value);
        }
        if let Some(path) = &self.recipe {
            let text = std::fs::read_to_string(path).map_err(|error| at(path, error))?;
            search.insert("recipe".to_owned(), serde_json::from_str(&text).map_err(|error| at(path, error))?);
        }
        let mut budget = Map::new();
        budget.extend(self.trials.map(|trials| ("trials".to_owned(), json!(trials))));
        budget.extend(self.seconds.map(|seconds| ("seconds".to_owned(), json!(seconds))));
        search.insert("budget".to_owned(), budget.into());
        match self.data.metrics() {
            [] => {}
            [metric] => drop(search.insert("metric".to_owned(), json!(metric))),
            _ => return Err(CliError::Input("a search is about one metric".to_owned())),
        }
        let search: Search = serde_path_to_error::deserialize(Value::Object(search)).map_err(CliError::input)?;
        search.check().map_err(CliError::input)?;
        Ok(search)
    }
}

/// A finished trial in one line.
fn line(trial: &Trial, search: &Search) -> String {
    let metric = search.metric.map_or("the metric", |metric| metric.name());
    let what = match trial.point() {
        Some(point) => {
            let kept = if point.is_within_bound { "within the bound" } else { "beyond the bound" };
            let bytes = grouped(point.size_bytes);
            format!("{bytes} bytes, {:.1} times, {metric} {:.5}, {kept}", point.ratio, point.value)
        }
        None => "failed".to_owned(),
    };
    format!("trial {}: {what} ({:.0} s)", trial.number, trial.seconds)
}

/// The trials as a table, what was chosen, and what it is made of.
fn describe(found: &Found) -> String {
    let Found { search, report, .. } = found;
    let SearchReport { metric, original, worst, chosen, is_within_bound, test, .. } = search;
    let columns = [("trial", Right), ("stage", Left), ("from", Right), ("bytes", Right), ("ratio", Right)];
    let more =
        [("psi", Right), ("sparsity", Right), (metric.name(), Right), ("bound", Left), ("seconds", Right), ("", Left)];
    let mut table = Table::new(&[&columns[..], &more[..]].concat());
    for trial in &search.trials {
        let mut cells = vec![trial.number.to_string(), json!(trial.stage).as_str().unwrap_or_default().to_owned()];
        cells.push(trial.from.map_or_else(String::new, |from| from.to_string()));
        match &trial.outcome {
            search::Outcome::Measured(point) => cells.extend([
                grouped(point.size_bytes),
                format!("{:.1}", point.ratio),
                format!("{:.4}", point.psi),
                format!("{:.3}", point.sparsity),
                format!("{:.5}", point.value),
                if point.is_within_bound { "kept" } else { "broken" }.to_owned(),
            ]),
            search::Outcome::Failed { reason } => {
                cells.extend(vec![String::new(); 5]);
                cells.push(reason.clone());
            }
        }
        let marks = [(trial.number == *chosen, "chosen"), (search.front.contains(&trial.number), "front")];
        let marks: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        cells.extend([format!("{:.0}", trial.seconds), marks.join(", ")]);
        table.row(cells);
    }
    let original = original.map_or_else(String::new, |value| format!("the model's {} is {value:.5}", metric.name()));
    let bound = worst.map_or_else(String::new, |worst| format!(", the bound {worst:.5}"));
    let verdict = match is_within_bound {
        true => format!("trial {chosen} was chosen"),
        false => format!("nothing kept the bound; trial {chosen} is the nearest"),
    };
    let samples = grouped(search.validation_samples);
    let head = format!("{}\non {samples} validation samples {original}{bound}; {verdict}\n", table.render());
    let test = test.as_ref().map(|test| render_measured(test, "test")).unwrap_or_default();
    format!("{head}\n{}{test}", render(report))
}
