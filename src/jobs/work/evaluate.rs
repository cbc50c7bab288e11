//! Measures a version on a dataset.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::jobs::{EvaluationSpec, ExecuteError, Work};
use crate::model::Model;
use crate::progress::Progress;
use crate::storage::NewMetric;

/// The file of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum VersionFile {
    /// Version 0.
    Upload(PathBuf),
    Artifact(PathBuf),
}

/// What to measure, on which file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measurement {
    pub(super) dataset: PathBuf,
    pub(super) spec: EvaluationSpec,
}

/// Measures `version`, beside the upload it came from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Evaluate {
    pub(super) upload: PathBuf,
    pub(super) version: VersionFile,
    pub(super) number: i64,
    pub(super) measurement: Measurement,
}

impl Work for Evaluate {
    type Answer = Vec<NewMetric>;

    fn run(&self, progress: &dyn Progress) -> Result<Vec<NewMetric>, ExecuteError> {
        let reference = match self.version {
            VersionFile::Upload(_) => None,
            VersionFile::Artifact(_) => Some(VersionFile::Upload(self.upload.clone())),
        };
        let found = self.measurement.measure(&self.version, reference.as_ref(), progress)?;
        Ok(self.measurement.metrics(self.number, &found))
    }
}

impl Measurement {
    /// Whether the dataset and its mapping fit `model`.
    pub(super) fn check(&self, _model: &Model) -> Result<(), ExecuteError> {
        todo!("waits for the evaluation of the core")
    }

    /// Measures the version in `file`, and compares its outputs with those of `reference`.
    pub(super) fn measure(
        &self,
        _file: &VersionFile,
        _reference: Option<&VersionFile>,
        _progress: &dyn Progress,
    ) -> Result<Vec<(String, f64)>, ExecuteError> {
        todo!("waits for the evaluation of the core")
    }

    /// The rows for what was found about version `number`.
    pub(super) fn metrics(&self, number: i64, found: &[(String, f64)]) -> Vec<NewMetric> {
        let row = |(name, value): &(String, f64)| NewMetric {
            version: number,
            name: name.clone(),
            value: *value,
            dataset: self.spec.data.dataset.clone(),
            split: self.spec.data.split.clone(),
            samples: 0,
        };
        found.iter().map(row).collect()
    }
}
