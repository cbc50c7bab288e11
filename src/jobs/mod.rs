//! Jobs: the queue, the workers that empty it, and the executor that does all CPU work on uploaded models.

mod executor;
mod predictors;
mod spec;

use std::time::Duration;

use crate::compress::Report;
use crate::storage::{JobId, JobRecord, StoreError};

pub use executor::{ExecuteError, Executor};
pub use predictors::{LoadError, Loaded, Predictors};
pub use spec::{CompressSpec, DataSpec, EvaluateSpec, EvaluationSpec, JobKind, JobResult, JobSpec};

/// The queue as its clients see it. Clones share it.
#[derive(Debug, Clone)]
pub struct Jobs {}

impl Jobs {
    /// Checks `spec` against what is stored and queues it. Once this returns, the job survives a crash.
    ///
    /// # Errors
    /// [`SubmitError`] names what is wrong with the spec.
    pub async fn submit(&self, spec: &JobSpec) -> Result<JobRecord, SubmitError> {
        todo!()
    }

    /// Checks `spec` as [`Jobs::submit`] does and estimates what it would produce; queues nothing. `None` for a kind
    /// that has nothing to estimate.
    ///
    /// # Errors
    /// As [`Jobs::submit`].
    pub async fn dry_run(&self, spec: &JobSpec) -> Result<Option<Report>, SubmitError> {
        todo!()
    }

    /// Asks a job to stop. A queued one is cancelled at once, a running one soon; a finished one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn cancel(&self, id: &JobId) -> Result<JobRecord, StoreError> {
        todo!()
    }

    /// Returns the job once it is finished, or as it stands after `timeout`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn wait(&self, id: &JobId, timeout: Duration) -> Result<JobRecord, StoreError> {
        todo!()
    }

    /// Returns once job `id` may have changed: this process changed it, or half a second passed (another process may
    /// have). What server-sent events wait on between two reads.
    pub async fn changed(&self, id: &JobId) {
        todo!()
    }
}

/// Why a job was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The spec contradicts itself or the model: `code` for programs, `detail` for people. A 422.
    #[error("{detail}")]
    Invalid { code: &'static str, detail: String },
    /// A model, version or dataset does not exist, or the database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The executor failed.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}
