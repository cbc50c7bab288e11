//! Datasets on the command line, and the table of what was measured on them.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::progress::Bar;
use super::table::Align::{Left, Right};
use super::table::{Table, grouped};
use super::{CliError, at};
use crate::artifact::Artifact;
use crate::evaluate::{DataMap, Dataset, Drop, Evaluation, Measured, Metric, MetricValue, Split};
use crate::infer::{Predictor, Residency};
use crate::model::Model;

/// Which data, and how they map to the graph.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// Dataset to measure on: named arrays in .npz or .safetensors.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// How its arrays map to the graph, as JSON: {"split", "inputs": {NAME: {"array", "scale", "offset"}}, "target":
    /// {"array", "kind"}}. By default arrays are matched by name.
    #[arg(long, value_name = "JSON", requires = "data")]
    data_map: Option<String>,
    /// train, validation or test; takes the place of the split in --data-map.
    #[arg(long, requires = "data", value_parser = parse_word::<Split>)]
    split: Option<Split>,
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

    /// Measures `predictor`, beside `reference` where there is one.
    pub fn measure(&self, predictor: &Predictor, reference: Option<&Predictor>) -> Result<Quality, CliError> {
        let data = self.open()?.ok_or_else(|| CliError::Input("--data is missing".to_owned()))?;
        data.measure(predictor, reference)
    }

    /// The dataset and its mapping; `None` without data.
    pub fn open(&self) -> Result<Option<Data>, CliError> {
        let Some(path) = self.data.as_deref() else { return Ok(None) };
        let dataset = Dataset::open(path).map_err(|error| at(path, error))?;
        let mut map: DataMap = match &self.data_map {
            Some(json) => {
                serde_json::from_str(json).map_err(|error| CliError::Input(format!("--data-map: {error}")))?
            }
            None => DataMap::default(),
        };
        map.split = self.split.or(map.split);
        Ok(Some(Data { dataset, map, metrics: self.metrics.clone() }))
    }
}

/// A dataset that was opened, and what is asked of it.
pub struct Data {
    pub dataset: Dataset,
    pub map: DataMap,
    metrics: Vec<Metric>,
}

impl Data {
    /// Measures `predictor`, beside `reference` where there is one.
    pub fn measure(&self, predictor: &Predictor, reference: Option<&Predictor>) -> Result<Quality, CliError> {
        let Self { dataset, map, metrics } = self;
        let bar = Bar::new();
        let measured = Evaluation { predictor, reference, dataset, map, metrics }.run(&bar);
        bar.finish();
        Ok(Quality { split: map.split, measured: measured.map_err(CliError::input)? })
    }
}

impl Quality {
    /// A row per metric; with the original's values beside, where they were measured.
    pub fn render(&self) -> String {
        let mut table = Table::new(&[("metric", Left), ("original", Right), ("this file", Right)]);
        for MetricValue { metric, value } in &self.measured.metrics {
            let original = self.measured.reference.iter().find(|of| of.metric == *metric).and_then(|of| of.value);
            table.row(vec![metric.name().to_owned(), number(original), number(*value)]);
        }
        let drop = |drop: &Drop| {
            let Drop { metric, drop, low, high } = drop;
            format!("{} worse by {drop:.4} (95 %: {low:.4} to {high:.4})\n", metric.name())
        };
        let drops: String = self.measured.drops.iter().map(drop).collect();
        let split = self.split.map_or("all".to_owned(), |split| format!("{split:?}").to_lowercase());
        format!("\n{}{drops}({split} samples: {})\n", table.render(), grouped(self.measured.samples))
    }
}

/// Four decimals, or a dash where nothing is defined.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// Parses a word that JSON would also take, by the same type.
fn parse_word<T: serde::de::DeserializeOwned>(word: &str) -> Result<T, String> {
    serde_json::from_value(word.into()).map_err(|error| error.to_string())
}
