//! Measures a version on a dataset.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::evaluate::{self, Dataset, EvaluateError, Evaluation, Measured, MetricValue};
use crate::infer::{InferError, Predictor, Residency};
use crate::jobs::{EvaluationSpec, ExecuteError, Refusal, Work};
use crate::model::{Model, ModelError};
use crate::progress::Progress;
use crate::storage::NewMetric;

/// What to measure, on which file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measurement {
    /// The file of the dataset.
    pub(super) dataset: PathBuf,
    pub(super) spec: EvaluationSpec,
}

/// Measures one version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Evaluate {
    /// Version 0.
    pub(super) upload: PathBuf,
    /// The artifact of the version; version 0 itself when absent.
    pub(super) artifact: Option<PathBuf>,
    /// Number of the version.
    pub(super) number: i64,
    pub(super) measurement: Measurement,
}

impl Work for Evaluate {
    const NAME: &'static str = "evaluate";

    type Answer = Vec<NewMetric>;

    fn run(&self, progress: &dyn Progress) -> Result<Vec<NewMetric>, ExecuteError> {
        let measured = self.measurement.run(&self.upload, self.artifact.as_deref(), progress)?;
        Ok(self.measurement.rows(self.number, &measured, &measured.metrics))
    }
}

impl Measurement {
    /// Whether the dataset and its mapping fit `model`, without running it.
    pub(super) fn check(&self, model: &Model) -> Result<(), ExecuteError> {
        let dataset = Dataset::open(&self.dataset).map_err(refused_or_failed)?;
        let ports = (model.inputs(), model.outputs());
        evaluate::check(&dataset, &self.spec.data, ports, &self.spec.metrics).map_err(refused_or_failed)?;
        Ok(())
    }

    /// Runs the artifact with the upload beside it, or the upload alone, over the samples.
    pub(super) fn run(
        &self,
        upload: &Path,
        artifact: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Measured, ExecuteError> {
        let original = load_upload(upload).map_err(|error| refused_or_failed(error.into()))?;
        let compressed = match artifact {
            Some(path) => Some(load_artifact(path).map_err(|error| refused_or_failed(error.into()))?),
            None => None,
        };
        match &compressed {
            Some(compressed) => self.measure(compressed, Some(&original), progress),
            None => self.measure(&original, None, progress),
        }
    }

    /// Runs `predictor`, with `reference` beside it where there is one, over the samples.
    pub(super) fn measure(
        &self,
        predictor: &Predictor,
        reference: Option<&Predictor>,
        progress: &dyn Progress,
    ) -> Result<Measured, ExecuteError> {
        let dataset = Dataset::open(&self.dataset).map_err(refused_or_failed)?;
        let (map, metrics) = (&self.spec.data, self.spec.metrics.as_slice());
        let evaluation = Evaluation { predictor, reference, dataset: &dataset, map, metrics };
        evaluation.run(progress).map_err(refused_or_failed)
    }

    /// The rows for what was found about version `number`.
    pub(super) fn rows(&self, number: i64, measured: &Measured, values: &[MetricValue]) -> Vec<NewMetric> {
        let split =
            self.spec.data.split.and_then(|split| serde_json::to_value(split).ok()?.as_str().map(str::to_owned));
        let row = |found: &MetricValue| NewMetric {
            version: number,
            name: found.metric.name().to_owned(),
            value: found.value,
            dataset: self.spec.data.dataset.clone().unwrap_or_default(),
            split: split.clone(),
            samples: i64::try_from(measured.samples).unwrap_or(i64::MAX),
        };
        values.iter().map(row).collect()
    }
}

fn load_upload(path: &Path) -> Result<Predictor, InferError> {
    Predictor::from_model(&Model::open(path)?)
}

/// Evaluated as it is served by default.
fn load_artifact(path: &Path) -> Result<Predictor, InferError> {
    Predictor::from_artifact(&Artifact::open(path)?, Residency::Packed)
}

/// Tells the user's faults from the machine's.
pub(super) fn refused_or_failed(error: EvaluateError) -> ExecuteError {
    match error {
        EvaluateError::Cancelled(_) => ExecuteError::Cancelled,
        EvaluateError::Io(_) | EvaluateError::File(ModelError::Io(_)) => ExecuteError::failed(error),
        EvaluateError::File(_) | EvaluateError::NotADataset => Refusal::InvalidDataset.because(error),
        EvaluateError::NoOutput => Refusal::NotPredictable.because(error),
        EvaluateError::Infer(infer) if !infer.is_bad_input() => Refusal::NotPredictable.because(infer),
        error => Refusal::DataMismatch.because(error),
    }
}
