//! The executor: all CPU work on uploaded models goes through it, on one rayon pool, never on a thread of tokio.

use std::path::PathBuf;

use crate::infer::InferError;
use crate::model::ModelError;
use crate::storage::{NewDataset, NewModel};

/// Runs CPU work. Clones share the pool.
#[derive(Debug, Clone)]
pub struct Executor {}

impl Executor {
    /// Runs `work` on the pool and waits without holding a thread of tokio. A panic in it is an error of the work, not
    /// of the service.
    ///
    /// # Errors
    /// [`ExecuteError::Panicked`].
    pub async fn run<T, F>(&self, work: F) -> Result<T, ExecuteError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        todo!()
    }

    /// Opens an uploaded model and describes it under `name`. Reads no weight.
    ///
    /// # Errors
    /// [`ExecuteError::Model`] names what is wrong with the file.
    pub async fn inspect_model(&self, name: String, path: PathBuf) -> Result<NewModel, ExecuteError> {
        todo!()
    }

    /// Opens an uploaded dataset and describes it under `name`.
    ///
    /// # Errors
    /// [`ExecuteError::Dataset`] names what is wrong with the file.
    pub async fn inspect_dataset(&self, name: String, path: PathBuf) -> Result<NewDataset, ExecuteError> {
        todo!()
    }
}

/// Why work on an uploaded file failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// The work panicked: a bug, logged where it happened.
    #[error("the work stopped unexpectedly")]
    Panicked,
    /// The file is not a model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The file is not a dataset.
    #[error("the file is not a dataset: {0}")]
    Dataset(String),
    /// The graph cannot be run.
    #[error(transparent)]
    Infer(#[from] InferError),
}
