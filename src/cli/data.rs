//! Datasets on the command line, and the table of what was measured on them.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::progress::Bar;
use super::table::Align::{Left, Right};
use super::table::{Table, grouped};
use super::{CliError, at};
use crate::artifact::Artifact;
use crate::evaluate::{DataMap, DataSplits, Dataset, Drop, Evaluation, Measured, Metric, MetricValue, Samples, Split};
use crate::infer::{Predictor, Residency};
use crate::model::Model;
use crate::search::SplitData;

/// Which data, and how they map to the graph.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// Dataset to measure on: named arrays in .npz or .safetensors.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// How its arrays map to the graph, as JSON: {"split", "range", "inputs": {NAME: {"array", "scale", "offset"}}, "target":
    /// {"array", "kind"}}, or {"train": ..., "validation": ..., "test": ...} with such a mapping for each. By default arrays
    /// are matched by name, the only one to the only input, values as they are (pixels of 0 to 255 may want a scale), and an
    /// array `split` (0, 1, 2) tells which samples are for what.
    #[arg(long, value_name = "JSON", requires = "data")]
    data_map: Option<String>,
    /// What to measure on: train, validation or test; takes the place of the split in --data-map. A search uses all.
    #[arg(long, requires = "data", value_parser = parse_word::<Split>)]
    split: Option<Split>,
    /// Dataset to select by, where it is another file than --data.
    #[arg(long, value_name = "FILE", requires = "data")]
    validation: Option<PathBuf>,
    /// Dataset to report on, where it is another file than --data.
    #[arg(long, value_name = "FILE", requires = "data")]
    test: Option<PathBuf>,
    /// Metrics, separated by commas [default: all that apply].
    #[arg(long, requires = "data", value_delimiter = ',', value_parser = parse_word::<Metric>)]
    metrics: Vec<Metric>,
}

/// What was measured of a file, and of the model that it was compressed from.
#[derive(Debug, Serialize)]
pub struct Quality {
    split: Option<Split>,
    #[serde(flatten)]
    measured: Measured,
}

impl DataArgs {
    /// The metrics that were asked for.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// Checks that no split is asked for, where each has its purpose.
    pub fn check_all_splits(&self) -> Result<(), CliError> {
        let splits = self.splits()?;
        match self.split {
            Some(_) => Err(CliError::Input("--split is for what measures one: a search uses all splits".to_owned())),
            None => splits.check().map_err(|error| CliError::Input(format!("--data-map: {error}"))),
        }
    }

    /// Whether there are data to measure on.
    pub fn is_given(&self) -> bool {
        self.data.is_some()
    }

    /// Measures `model` and the artifact at `compressed` on the same samples; `None` without data.
    pub fn measure_both(&self, model: &Model, compressed: &Path) -> Result<Option<Quality>, CliError> {
        if !self.is_given() {
            return Ok(None);
        }
        let artifact = Artifact::open(compressed).map_err(|error| at(compressed, error))?;
        let after = Predictor::from_artifact(&artifact, Residency::Packed).map_err(CliError::input)?;
        let before = Predictor::from_model(model).map_err(CliError::input)?;
        self.measure(&after, Some(&before)).map(Some)
    }

    /// Whether what is measured on holds what is learned from.
    pub fn measures_on_training(&self) -> Result<bool, CliError> {
        let is_whole = matches!(self.splits()?, DataSplits::Together(map) if map.is_whole());
        Ok(is_whole && self.split.is_none() && self.test.is_none())
    }

    /// Measures `predictor`, beside `reference` where there is one.
    pub fn measure(&self, predictor: &Predictor, reference: Option<&Predictor>) -> Result<Quality, CliError> {
        let data = self.open()?.ok_or_else(|| CliError::Input("--data is missing".to_owned()))?;
        data.measure(predictor, reference)
    }

    /// The dataset and its mapping; `None` without data. What is measured on is the split that was asked for, else what is given
    /// for the test split, else everything.
    pub fn open(&self) -> Result<Option<Data>, CliError> {
        let Some(path) = self.data.as_deref() else { return Ok(None) };
        let wanted = self.split.unwrap_or(Split::Test);
        let (Part { dataset, map }, split) = match (self.splits()?, &self.test) {
            (DataSplits::Together(map), None) => {
                let map = DataMap { split: self.split.or(map.split), ..map };
                let split = map.split;
                (Part { dataset: open(path)?, map }, split)
            }
            _ => {
                let missing = || CliError::Input(format!("there is no {} split to measure on", word(&wanted)));
                (self.of(wanted)?.ok_or_else(missing)?, Some(wanted))
            }
        };
        Ok(Some(Data { dataset, map, split, metrics: self.metrics.clone() }))
    }

    /// The data of one split, with their mapping; `None` where there are none.
    pub fn of(&self, split: Split) -> Result<Option<Part>, CliError> {
        let own = match split {
            Split::Train => None,
            Split::Validation => self.validation.as_deref(),
            Split::Test => self.test.as_deref(),
        };
        let Some(path) = own.or(self.data.as_deref()) else { return Ok(None) };
        let dataset = open(path)?;
        let map = match (self.splits()?, own) {
            // A file of its own is all for that split, unless it says otherwise.
            (DataSplits::Together(map), Some(_)) if !dataset.has_splits() => Some(map),
            (splits, _) => splits.of(split, dataset.has_splits()),
        };
        Ok(map.map(|map| Part { dataset, map }))
    }

    fn splits(&self) -> Result<DataSplits, CliError> {
        match &self.data_map {
            Some(json) => serde_json::from_str(json).map_err(|error| CliError::Input(format!("--data-map: {error}"))),
            None => Ok(DataSplits::Together(DataMap::default())),
        }
    }
}

/// A dataset that was opened, and what is asked of it.
pub struct Data {
    pub dataset: Dataset,
    pub map: DataMap,
    /// What the samples are for; none: all that there are.
    split: Option<Split>,
    metrics: Vec<Metric>,
}

/// The data of one split.
pub struct Part {
    dataset: Dataset,
    map: DataMap,
}

impl Part {
    /// For a search.
    pub fn data(&self) -> SplitData<'_> {
        SplitData { dataset: &self.dataset, map: &self.map }
    }

    /// As `model` takes them.
    pub fn samples(&self, model: &Model) -> Result<Samples<'_>, CliError> {
        Samples::open(&self.dataset, &self.map, (model.inputs(), model.outputs())).map_err(CliError::input)
    }

    /// The same, or `None` where the split has no samples.
    pub fn samples_if_any(&self, model: &Model) -> Result<Option<Samples<'_>>, CliError> {
        Samples::open_if_any(&self.dataset, &self.map, (model.inputs(), model.outputs())).map_err(CliError::input)
    }
}

fn open(path: &Path) -> Result<Dataset, CliError> {
    Dataset::open(path).map_err(|error| at(path, error))
}

/// The word for a split, as in JSON.
fn word(split: &Split) -> String {
    format!("{split:?}").to_lowercase()
}

impl Data {
    /// Measures `predictor`, beside `reference` where there is one.
    pub fn measure(&self, predictor: &Predictor, reference: Option<&Predictor>) -> Result<Quality, CliError> {
        let Self { dataset, map, split, metrics } = self;
        let bar = Bar::new();
        let measured = Evaluation { predictor, reference, dataset, map, metrics }.run(&bar);
        bar.finish();
        Ok(Quality { split: *split, measured: measured.map_err(CliError::input)? })
    }
}

impl Quality {
    /// A row per metric; with the original's values beside, where they were measured.
    pub fn render(&self) -> String {
        render_measured(&self.measured, &self.split.as_ref().map_or("all".to_owned(), word))
    }
}

/// A row per metric; with the original's values beside, where they were measured. `split` is the word for what was measured on.
pub fn render_measured(measured: &Measured, split: &str) -> String {
    let mut table = Table::new(&[("metric", Left), ("original", Right), ("this file", Right)]);
    for MetricValue { metric, value } in &measured.metrics {
        let original = measured.reference.iter().find(|of| of.metric == *metric).and_then(|of| of.value);
        table.row(vec![metric.name().to_owned(), number(original), number(*value)]);
    }
    let drop = |drop: &Drop| {
        let Drop { metric, drop, low, high } = drop;
        // Adding zero makes +0.0 of -0.0, once what rounds to it is zero.
        let [drop, low, high] = [drop, low, high].map(|value| (value * 1e4).round_ties_even() / 1e4 + 0.0);
        format!("{} worse by {drop:.4} (95 %: {low:.4} to {high:.4})\n", metric.name())
    };
    let drops: String = measured.drops.iter().map(drop).collect();
    format!("\n{}{drops}({split} samples: {})\n", table.render(), grouped(measured.samples))
}

/// Four decimals, or a dash where nothing is defined.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// Parses a word that JSON would also take, by the same type.
fn parse_word<T: serde::de::DeserializeOwned>(word: &str) -> Result<T, String> {
    serde_json::from_value(word.into()).map_err(|error| error.to_string())
}
