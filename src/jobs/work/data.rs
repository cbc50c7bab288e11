//! Datasets by what they are for, as files: what calibration, fine-tuning and searches read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::evaluate::{DataMap, DataSplits, Dataset, Samples, Split};
use crate::jobs::{ExecuteError, Refusal};
use crate::model::Model;
use crate::search::SplitData;
use crate::storage::{Checkout, Storage, StoreError};

use super::evaluate::refused_or_failed;

/// The files of the datasets that a job names, by what they are for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::jobs) struct SplitFiles {
    splits: DataSplits,
    /// By the name of the dataset.
    files: BTreeMap<String, PathBuf>,
}

/// The samples of one split.
pub(super) struct SplitFile {
    dataset: Dataset,
    map: DataMap,
}

impl SplitFiles {
    /// Has them in `checkout`.
    pub(in crate::jobs) async fn find(
        storage: &Storage,
        checkout: &Checkout,
        splits: &DataSplits,
    ) -> Result<Self, StoreError> {
        let mut files = BTreeMap::new();
        for name in splits.maps().map(|map| map.dataset.clone().unwrap_or_default()) {
            let dataset = storage.store.dataset(&name).await?;
            files.insert(name, checkout.path(&dataset.sha256).await?);
        }
        Ok(Self { splits: splits.clone(), files })
    }

    /// The samples of `split`; `None` where there are none.
    pub(super) fn open(&self, split: Split) -> Result<Option<SplitFile>, ExecuteError> {
        let given = match &self.splits {
            DataSplits::Together(map) => Some(map.clone()),
            DataSplits::Apart(_) => self.splits.of(split, false),
        };
        let Some(file) = given.and_then(|map| self.files.get(&map.dataset.unwrap_or_default())) else {
            return Ok(None);
        };
        let dataset = Dataset::open(file).map_err(refused_or_failed)?;
        let map = self.splits.of(split, dataset.has_splits());
        Ok(map.map(|map| SplitFile { dataset, map }))
    }

    /// Whether every split that has samples fits `model`; `needed` must be there.
    pub(super) fn check(&self, model: &Model, needed: Split) -> Result<(), ExecuteError> {
        for split in [Split::Train, Split::Validation, Split::Test] {
            match self.open(split)? {
                Some(file) if split == needed => drop(file.samples(model)?),
                Some(file) => drop(file.samples_if_any(model)?),
                None if split == needed => {
                    let split = serde_json::to_value(split).unwrap_or_default();
                    let detail = format!(
                        "data: there is no {} split: give the dataset an array `split` (0 train, 1 validation, 2 test), or a \
                         mapping for each split",
                        split.as_str().unwrap_or_default()
                    );
                    return Err(Refusal::DataMismatch.because(detail));
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl SplitFile {
    /// As `model` takes them.
    pub(super) fn samples(&self, model: &Model) -> Result<Samples<'_>, ExecuteError> {
        Samples::open(&self.dataset, &self.map, (model.inputs(), model.outputs())).map_err(refused_or_failed)
    }

    /// The same, or `None` where the split has no samples.
    pub(super) fn samples_if_any(&self, model: &Model) -> Result<Option<Samples<'_>>, ExecuteError> {
        Samples::open_if_any(&self.dataset, &self.map, (model.inputs(), model.outputs())).map_err(refused_or_failed)
    }

    /// For a search.
    pub(super) fn data(&self) -> SplitData<'_> {
        SplitData { dataset: &self.dataset, map: &self.map }
    }

    /// Name of the dataset.
    pub(super) fn name(&self) -> String {
        self.map.dataset.clone().unwrap_or_default()
    }
}
