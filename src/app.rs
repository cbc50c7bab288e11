//! The service without its HTTP face: storage, queue, workers and predictors, started and stopped together.

use std::sync::Arc;

use crate::config::Config;
use crate::jobs::{ExecuteError, Executor, Jobs, Predictors};
use crate::storage::{DatasetRecord, ModelRecord, StagedBlob, Storage, StoreError};
use crate::telemetry::PrometheusHandle;

/// What every request handler is given, in an [`Arc`].
pub struct App {
    pub config: Config,
    pub storage: Storage,
    pub jobs: Jobs,
    pub executor: Executor,
    pub predictors: Predictors,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
}

impl App {
    /// Opens the storage, brings the database up to date, sweeps what crashes left, and starts the workers.
    ///
    /// # Errors
    /// [`StoreError`] when the database or the folder cannot be opened.
    pub async fn start(config: Config, metrics: PrometheusHandle) -> Result<Arc<Self>, StoreError> {
        todo!()
    }

    /// Inspects a finished upload and stores it as model `name`. Returns the model, and false if it was there already
    /// with the same bytes. On any error nothing is left behind.
    ///
    /// # Errors
    /// [`AddError`].
    pub async fn add_model(&self, name: &str, file: StagedBlob) -> Result<(ModelRecord, bool), AddError> {
        todo!()
    }

    /// Inspects a finished upload and stores it as dataset `name`, as [`App::add_model`] does.
    ///
    /// # Errors
    /// [`AddError`].
    pub async fn add_dataset(&self, name: &str, file: StagedBlob) -> Result<(DatasetRecord, bool), AddError> {
        todo!()
    }

    /// Deletes a model, and what is loaded of it.
    ///
    /// # Errors
    /// As [`Storage::delete_model`].
    pub async fn delete_model(&self, name: &str) -> Result<(), StoreError> {
        todo!()
    }

    /// Deletes a compressed version, and what is loaded of it.
    ///
    /// # Errors
    /// As [`Storage::delete_version`].
    pub async fn delete_version(&self, name: &str, version: i64) -> Result<(), StoreError> {
        todo!()
    }

    /// Where the file of a version lies.
    pub fn path_of(&self, sha256: &str) -> std::path::PathBuf {
        self.storage.blobs.path(sha256)
    }

    /// Whether requests should be sent here: the database answers and nobody asked to stop.
    pub async fn is_ready(&self) -> bool {
        todo!()
    }

    /// Makes [`App::is_ready`] false and stops claiming jobs; the first step of a shutdown.
    pub fn begin_shutdown(&self) {
        todo!()
    }

    /// Gives unfinished jobs back to the queue and closes the database; the last step of a shutdown.
    pub async fn shutdown(&self) {
        todo!()
    }
}

/// Why an upload was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The file was refused.
    #[error(transparent)]
    File(#[from] ExecuteError),
    /// The name is taken, or the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
