//! Compresses a model, and measures it before and after if asked to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::compress::{self, CompressError, Recipe, Report};
use crate::jobs::progress::Part;
use crate::jobs::{ExecuteError, Refusal, Work};
use crate::progress::Progress;
use crate::storage::{Compression, NewMetric};

use super::evaluate::{Measurement, VersionFile};
use super::inspect::open_model;

/// Compresses `model` by `recipe` into the file `out`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Compress {
    pub(super) model: PathBuf,
    pub(super) recipe: Recipe,
    pub(super) out: PathBuf,
    pub(super) measurement: Option<Measurement>,
}

impl Work for Compress {
    type Answer = (Report, Vec<NewMetric>);

    fn run(&self, progress: &dyn Progress) -> Result<Self::Answer, ExecuteError> {
        let model = open_model(&self.model)?;
        let Some(measurement) = &self.measurement else {
            return Ok((self.compress(&model, progress)?, Vec::new()));
        };
        // Version 0 is measured first: data that do not fit are found before the long work.
        let part = |from, to| Part { whole: progress, from, to };
        let upload = VersionFile::Upload(self.model.clone());
        let before = measurement.measure(&upload, None, &part(0.0, 0.2))?;
        let report = self.compress(&model, &part(0.2, 0.8))?;
        let artifact = VersionFile::Artifact(self.out.clone());
        let after = measurement.measure(&artifact, Some(&upload), &part(0.8, 1.0))?;
        let mut metrics = measurement.metrics(0, &before);
        metrics.extend(measurement.metrics(Compression::NEW, &after));
        Ok((report, metrics))
    }
}

impl Compress {
    fn compress(&self, model: &crate::model::Model, progress: &dyn Progress) -> Result<Report, ExecuteError> {
        compress::compress(model, &self.recipe, &self.out, progress).map_err(refused_or_failed)
    }
}

/// Tells the user's faults from the machine's.
pub(super) fn refused_or_failed(error: CompressError) -> ExecuteError {
    match error {
        CompressError::Cancelled => ExecuteError::Cancelled,
        error => Refusal::NotCompressible.because(error),
    }
}
