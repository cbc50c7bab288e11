//! Searches for the smallest version within an allowed loss.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::artifact::staged;
use crate::compress::Report;
use crate::evaluate::{MetricValue, Split};
use crate::jobs::{ExecuteError, Refusal, Work};
use crate::progress::Progress;
use crate::search::{self, Found, Search, SearchData, SearchError, SearchReport};
use crate::storage::{Compression, NewMetric};

use super::data::{SplitFile, SplitFiles};
use super::inspect::open_model;
use super::{compress, evaluate};

/// Searches in `model`, and writes the artifact of the chosen trial to `out`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SearchWork {
    pub(super) model: PathBuf,
    pub(super) search: Search,
    pub(super) data: SplitFiles,
    /// Where the trials are kept until the job is over.
    pub(super) folder: PathBuf,
    pub(super) out: PathBuf,
}

impl Work for SearchWork {
    const NAME: &'static str = "search";

    type Answer = (SearchReport, Report, Vec<NewMetric>);

    fn run(&self, progress: &dyn Progress) -> Result<Self::Answer, ExecuteError> {
        progress.check().map_err(|_| ExecuteError::Cancelled)?;
        let model = open_model(&self.model)?;
        let splits = Splits::open(&self.data)?;
        let found = search::run(&model, &self.search, splits.data(), &self.folder, progress, &mut |_| {});
        let Found { search, report, artifact } = found.map_err(refused_or_failed)?;
        staged::copy(&artifact, &self.out).map_err(ExecuteError::failed)?;
        let metrics = splits.metrics(&search);
        Ok((search, report, metrics))
    }
}

/// The splits of a search, as open files.
pub(super) struct Splits {
    train: Option<SplitFile>,
    validation: SplitFile,
    test: Option<SplitFile>,
}

impl Splits {
    pub(super) fn open(files: &SplitFiles) -> Result<Self, ExecuteError> {
        let none = || Refusal::DataMismatch.because(SearchError::NoValidation);
        Ok(Self {
            train: files.open(Split::Train)?,
            validation: files.open(Split::Validation)?.ok_or_else(none)?,
            test: files.open(Split::Test)?,
        })
    }

    pub(super) fn data(&self) -> SearchData<'_> {
        SearchData {
            train: self.train.as_ref().map(SplitFile::data),
            validation: self.validation.data(),
            test: self.test.as_ref().map(SplitFile::data),
        }
    }

    /// What the search measured of version 0 and of the version it chose.
    pub(super) fn metrics(&self, search: &SearchReport) -> Vec<NewMetric> {
        match (&search.test, &self.test) {
            (Some(measured), Some(file)) => {
                let row = |version, value: &MetricValue| NewMetric {
                    version,
                    name: value.metric.name().to_owned(),
                    value: value.value,
                    dataset: file.name(),
                    split: Some("test".to_owned()),
                    samples: i64::try_from(measured.samples).unwrap_or(i64::MAX),
                };
                let original = measured.reference.iter().map(|value| row(0, value));
                original.chain(measured.metrics.iter().map(|value| row(Compression::NEW, value))).collect()
            }
            // Without a test split, what was selected by is all there is, and is called what it is.
            _ => {
                let row = |version, value| NewMetric {
                    version,
                    name: search.metric.name().to_owned(),
                    value,
                    dataset: self.validation.name(),
                    split: Some("validation".to_owned()),
                    samples: i64::try_from(search.validation_samples).unwrap_or(i64::MAX),
                };
                let chosen = search.trials.iter().find(|trial| trial.number == search.chosen);
                let chosen = chosen.and_then(|trial| Some(trial.point()?.value));
                vec![row(0, search.original), row(Compression::NEW, chosen)]
            }
        }
    }
}

/// Tells the user's faults from the machine's.
pub(in crate::jobs) fn refused_or_failed(error: SearchError) -> ExecuteError {
    match error {
        SearchError::Cancelled(_) => ExecuteError::Cancelled,
        SearchError::Io(_) => ExecuteError::failed(error),
        SearchError::Evaluate(error) => evaluate::refused_or_failed(error),
        SearchError::Compress(error) => compress::refused_or_failed(error),
        SearchError::Infer(error) => Refusal::NotPredictable.because(error),
        SearchError::Model(error) => Refusal::InvalidModel.because(error),
        SearchError::NoValidation | SearchError::SameSamples { .. } => Refusal::DataMismatch.because(error),
        SearchError::NoTrial { .. } => Refusal::NotCompressible.because(error),
        error => Refusal::InvalidSettings.because(error),
    }
}
