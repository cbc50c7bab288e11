//! What the service remembers: rows in a database (SQLite or Postgres) and blobs in a folder.
//!
//! The files of this module hold queries and nothing else. A [`Store`] speaks to the database, for one tenant;
//! [`Storage`] joins it with [`Blobs`] where a row and a file must appear or vanish together.

mod blobs;
mod datasets;
mod error;
mod id;
mod jobs;
mod models;
mod timestamp;
mod versions;
mod word;

pub use blobs::{Blobs, DatasetFormat, StagedBlob, Upload};
pub use datasets::{ArraySummary, DatasetRecord, NewDataset};
pub use error::{Kind, StoreError};
pub use id::{DatasetId, InvalidId, JobId, ModelId, TenantId};
pub use jobs::{EventKind, Failure, JobCount, JobEvent, JobFilter, JobRecord, JobState};
pub use models::{ModelRecord, NewModel, WeightSummary};
pub use timestamp::Timestamp;
pub use versions::{LayerRecord, MetricRecord, NewMetric, VersionRecord};

/// A part of a list: at most `limit` entries, those that follow `after` (the key of the last entry seen).
///
/// Ask for one more than will be shown to learn whether there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub after: Option<String>,
    pub limit: i64,
}

/// Rows of one tenant in the database. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    tenant: TenantId,
}

/// The database and the blobs together. Clones share both.
#[derive(Debug, Clone)]
pub struct Storage {
    pub store: Store,
    pub blobs: Blobs,
}

impl Storage {
    /// Publishes an upload as version 0 of a new model. Returns the model, and false if it was there already with the
    /// same bytes.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] by other bytes.
    pub async fn add_model(&self, file: StagedBlob, model: &NewModel) -> Result<(ModelRecord, bool), StoreError> {
        todo!()
    }

    /// Publishes an upload as a new dataset. Returns it, and false if it was there already with the same bytes.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] by other bytes.
    pub async fn add_dataset(
        &self,
        file: StagedBlob,
        dataset: &NewDataset,
    ) -> Result<(DatasetRecord, bool), StoreError> {
        todo!()
    }

    /// Deletes a model, its versions and their blobs. Its jobs stay as history.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while a job of it is queued or running.
    pub async fn delete_model(&self, name: &str) -> Result<(), StoreError> {
        todo!()
    }

    /// Deletes a compressed version and its blob.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while a job of the model is queued or running;
    /// [`StoreError::UploadVersion`]; [`StoreError::DefaultVersion`].
    pub async fn delete_version(&self, name: &str, version: i64) -> Result<(), StoreError> {
        todo!()
    }

    /// Deletes a dataset and its blob.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while a queued or running job reads it.
    pub async fn delete_dataset(&self, name: &str) -> Result<(), StoreError> {
        todo!()
    }
}
