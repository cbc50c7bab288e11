//! The executor: all CPU work on uploaded files goes through it, on rayon pools that the process owns, never on a
//! thread of tokio.
//!
//! Work is a serialisable request with a serialisable answer, so that a child process can serve it one day; only
//! loaded predictors, which cannot travel, use [`Executor::run`] with a closure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::progress::{Progress, Silent};

/// One piece of CPU work on files, and all it needs to know.
pub trait Work: Serialize + DeserializeOwned + Send + 'static {
    /// What it finds out.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Does the work, on the current rayon pool.
    ///
    /// # Errors
    /// [`ExecuteError`].
    fn run(&self, progress: &dyn Progress) -> Result<Self::Answer, ExecuteError>;
}

/// Runs CPU work. Clones share the pools.
///
/// There are two pools of equal width. Rayon finishes what a thread has started before it takes new work, so on one
/// pool a prediction would wait behind a whole compression; on two, the operating system shares the cores between them.
#[derive(Debug, Clone)]
pub struct Executor {
    /// Work that a request waits for.
    requests: Arc<ThreadPool>,
    /// Work of queued jobs.
    jobs: Arc<ThreadPool>,
}

impl Executor {
    /// Starts the pools, of `threads` threads each.
    ///
    /// # Errors
    /// When the system refuses the threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let pool = |name: &'static str| {
            let builder = ThreadPoolBuilder::new().num_threads(threads);
            builder.thread_name(move |index| format!("{name}-{index}")).build().map_err(std::io::Error::other)
        };
        Ok(Self { requests: Arc::new(pool("request")?), jobs: Arc::new(pool("job")?) })
    }

    /// Runs a closure that a request waits for. A panic in it is an error of the work, not of the service.
    ///
    /// # Errors
    /// [`ExecuteError::Panicked`].
    pub async fn run<T, F>(&self, work: F) -> Result<T, ExecuteError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        run_on(self.requests.clone(), work).await
    }

    /// Does work that a request waits for.
    ///
    /// # Errors
    /// [`ExecuteError`].
    pub async fn execute<W: Work>(&self, work: W) -> Result<W::Answer, ExecuteError> {
        run_on(self.requests.clone(), move || work.run(&Silent)).await?
    }

    /// Does the work of a queued job.
    ///
    /// # Errors
    /// [`ExecuteError`].
    pub async fn execute_job<W: Work>(
        &self,
        work: W,
        progress: Arc<dyn Progress + Send + Sync>,
    ) -> Result<W::Answer, ExecuteError> {
        run_on(self.jobs.clone(), move || work.run(&*progress)).await?
    }
}

#[cfg(test)]
impl Executor {
    /// Keeps the threads of jobs busy until the result is dropped.
    pub(super) fn hold_jobs(&self) -> std::sync::mpsc::Sender<()> {
        use std::sync::{Mutex, mpsc::channel};
        let (hold, held) = channel::<()>();
        let (enter, entered) = channel();
        let (pool, held) = (self.jobs.clone(), Mutex::new(held));
        let wait = move || {
            enter.send(()).expect("somebody waits");
            // Fails once `hold` is dropped.
            _ = held.lock().map(|held| held.recv());
        };
        std::thread::spawn(move || pool.broadcast(|_| wait()));
        (0..self.jobs.current_num_threads()).for_each(|_| entered.recv().expect("a thread"));
        hold
    }
}

/// The one place where CPU work leaves tokio.
async fn run_on<T, F>(pool: Arc<ThreadPool>, work: F) -> Result<T, ExecuteError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let blocking = tokio::task::spawn_blocking(move || pool.install(|| catch_unwind(AssertUnwindSafe(work))));
    match blocking.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) | Err(_) => Err(ExecuteError::Panicked),
    }
}

/// Why work on files failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// What the user gave is at fault; `detail` says how.
    #[error("{detail}")]
    Refused { refusal: Refusal, detail: String },
    /// The work was asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The machine failed, e.g. its disk; it may work another time.
    #[error("{detail}")]
    Failed { detail: String },
    /// The work panicked: a bug. The panic was reported where it happened.
    #[error("the work stopped unexpectedly")]
    Panicked,
}

/// What was wrong with what the user gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The file is not a model.
    InvalidModel,
    /// The file is not a dataset.
    InvalidDataset,
    /// The recipe contradicts itself or the model.
    InvalidRecipe,
    /// A tensor cannot be compressed, e.g. because it holds NaN.
    NotCompressible,
    /// The model has operators that predictions lack, or is weights only.
    NotPredictable,
    /// The dataset, the mapping and the model do not fit together.
    DataMismatch,
    /// What a job names is gone.
    NotFound,
}

impl Refusal {
    /// The word for it, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidModel => "invalid_model",
            Self::InvalidDataset => "invalid_dataset",
            Self::InvalidRecipe => "invalid_recipe",
            Self::NotCompressible => "not_compressible",
            Self::NotPredictable => "not_predictable",
            Self::DataMismatch => "data_mismatch",
            Self::NotFound => "not_found",
        }
    }

    /// The error that `error` is, if it is the user's.
    pub(crate) fn because(self, error: impl std::fmt::Display) -> ExecuteError {
        ExecuteError::Refused { refusal: self, detail: error.to_string() }
    }
}

impl ExecuteError {
    /// The machine failed with `error`.
    pub(crate) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed { detail: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Panics;

    impl Work for Panics {
        type Answer = ();

        fn run(&self, _progress: &dyn Progress) -> Result<(), ExecuteError> {
            panic!("the work fails on purpose");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_work_and_the_pool_lives_on() {
        let executor = Executor::start(1).expect("a pool");
        assert_eq!(executor.execute(Panics).await, Err(ExecuteError::Panicked));
        assert_eq!(executor.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn work_runs_on_the_pools_threads() {
        let executor = Executor::start(2).expect("a pool");
        let name = executor.run(|| std::thread::current().name().map(str::to_owned)).await;
        assert!(name.is_ok_and(|name| name.is_some_and(|name| name.starts_with("request-"))));
    }
}
