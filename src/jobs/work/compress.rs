//! Compresses a model, and measures it before and after if asked to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::compress::{self, CompressError, Recipe, Report, TrainingData, TrainingStore};
use crate::evaluate::Split;
use crate::jobs::{ExecuteError, Refusal, Work};
use crate::progress::{Part, Progress};
use crate::storage::{Compression, NewMetric};

use super::data::{SplitFile, SplitFiles};
use super::evaluate::Measurement;
use super::inspect::open_model;

/// How much of the progress bar is the compression, when an evaluation follows.
const COMPRESSION_SHARE: f64 = 0.7;

/// Compresses `model` by `recipe` into the file `out`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Compress {
    pub(super) model: PathBuf,
    pub(super) recipe: Recipe,
    pub(super) data: Option<SplitFiles>,
    /// Where checkpoints are kept until the job is over.
    pub(super) folder: PathBuf,
    pub(super) out: PathBuf,
    pub(super) measurement: Option<Measurement>,
}

impl Work for Compress {
    const NAME: &'static str = "compress";

    type Answer = (Report, Vec<NewMetric>);

    fn run(&self, progress: &dyn Progress) -> Result<Self::Answer, ExecuteError> {
        progress.check().map_err(|_| ExecuteError::Cancelled)?;
        let model = open_model(&self.model)?;
        let open = |split| match &self.data {
            Some(data) if self.recipe.needs_data() => data.open(split),
            _ => Ok(None),
        };
        let (train, validation) = (open(Split::Train)?, open(Split::Validation)?);
        let training = match &train {
            Some(train) => Some(TrainingData {
                train: train.samples(&model)?,
                validation: validation.as_ref().map(|file| file.samples_if_any(&model)).transpose()?.flatten(),
                folder: Some(self.folder.clone()),
                start: None,
                store: TrainingStore::default(),
            }),
            None => None,
        };
        let compress = |progress: &dyn Progress| {
            compress::compress_with(&model, &self.recipe, training.as_ref(), &self.out, progress)
                .map_err(refused_or_failed)
        };
        let Some(measurement) = &self.measurement else {
            return Ok((compress(progress)?, Vec::new()));
        };
        // Data that do not fit are found before the long work.
        measurement.check(&model)?;
        let mut report = compress(&Part { whole: progress, from: 0.0, to: COMPRESSION_SHARE })?;
        let names = |train: &SplitFile| train.name() == measurement.spec.data.dataset.clone().unwrap_or_default();
        if measurement.spec.data.is_whole() && train.as_ref().is_some_and(names) {
            report.notes.push(Report::MEASURED_ON_TRAINING.to_owned());
        }
        let evaluation = Part { whole: progress, from: COMPRESSION_SHARE, to: 1.0 };
        let measured = measurement.run(&self.model, Some(&self.out), &evaluation)?;
        let mut metrics = measurement.rows(0, &measured, &measured.reference);
        metrics.extend(measurement.rows(Compression::NEW, &measured, &measured.metrics));
        Ok((report, metrics))
    }
}

/// Tells the user's faults from the machine's.
pub(super) fn refused_or_failed(error: CompressError) -> ExecuteError {
    match error {
        CompressError::Cancelled => ExecuteError::Cancelled,
        error if error.is_of_the_machine() => ExecuteError::failed(error),
        CompressError::Unmatched { .. } | CompressError::NeedsData => Refusal::InvalidRecipe.because(error),
        CompressError::Model(_) => Refusal::InvalidModel.because(error),
        error => Refusal::NotCompressible.because(error),
    }
}
