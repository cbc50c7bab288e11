//! The work of the service, a file per request: what each needs from storage is gathered here first, as paths and
//! values, so that the work itself sees files and nothing else.

mod benchmark;
mod check;
mod compress;
mod data;
mod evaluate;
mod inspect;
mod search;
mod trial;

use std::sync::Arc;

use serde_json::Value;
use tempfile::TempPath;

use crate::progress::Progress;
use crate::search::SearchEnd;
use crate::storage::{Checkout, Compression, JobRecord, Lease, Storage, StoreError};

pub use inspect::{InspectDataset, InspectModel};

pub(super) use check::Check;
pub(super) use data::SplitFiles;
pub(super) use search::refused_or_failed as search_failed;
pub(super) use trial::{ConcludeSearch, PlanSearch};

use super::progress::JobProgress;
use super::{BenchmarkSpec, EvaluationSpec, ExecuteError, Executor, JobResult, JobSpec, Refusal, TrialResult, Work};
use benchmark::{Benchmark, VersionFile};
use compress::Compress;
use evaluate::{Evaluate, Measurement};
use search::SearchWork;
use trial::MakeTrial;

/// What there is to check of a job before it is queued, with its files in `files`, on a machine that gives it so many threads.
pub(super) async fn check(
    storage: &Storage,
    files: &Checkout,
    spec: &JobSpec,
    threads: usize,
) -> Result<Check, StoreError> {
    let model = storage.store.model(spec.model()).await?;
    let versions = match spec {
        JobSpec::Compress(_) | JobSpec::Search(_) | JobSpec::Trial(_) => vec![],
        JobSpec::Evaluate(spec) => vec![spec.version.unwrap_or(model.default_version)],
        JobSpec::Benchmark(spec) => vec![spec.baseline, spec.version.unwrap_or(model.default_version)],
    };
    for version in versions {
        storage.store.version(&model, version).await?;
    }
    let measurement = match spec.evaluation() {
        Some(evaluation) => Some(measurement(storage, files, evaluation).await?),
        None => None,
    };
    let data = match spec.data() {
        Some(splits) => Some(SplitFiles::find(storage, files, splits).await?),
        None => None,
    };
    let path = files.path(&model.sha256).await?;
    let mut check = Check { model: path, data, measurement, threads, ..Check::default() };
    match spec {
        JobSpec::Compress(spec) => check.recipe = Some(spec.recipe.clone()),
        JobSpec::Evaluate(_) | JobSpec::Trial(_) => {}
        JobSpec::Benchmark(spec) => {
            let version = Some(spec.version.unwrap_or(model.default_version));
            check.benchmark = Some(BenchmarkSpec { version, ..spec.clone() });
        }
        JobSpec::Search(spec) => check.search = Some(spec.search.clone()),
    }
    Ok(check)
}

/// Does the work of a claimed job.
pub(super) async fn execute(
    storage: &Storage,
    executor: &Executor,
    job: &JobRecord,
    progress: Arc<JobProgress>,
) -> Result<Done, ExecuteError> {
    // Specs are checked when they are queued; one that cannot be read now is from another release.
    let spec: JobSpec = serde_json::from_value(job.spec.clone()).map_err(ExecuteError::failed)?;
    let model = storage.store.model(spec.model()).await.map_err(gone_or_failed)?;
    let files = storage.blobs.checkout();
    let upload = files.path(&model.sha256).await.map_err(ExecuteError::failed)?;
    match spec {
        JobSpec::Compress(spec) => {
            let out = storage.blobs.staging_file().map_err(ExecuteError::failed)?;
            let measurement = match &spec.evaluation {
                Some(evaluation) => Some(measurement(storage, &files, evaluation).await.map_err(gone_or_failed)?),
                None => None,
            };
            let work = Compress {
                model: upload,
                recipe: spec.recipe.clone(),
                data: match &spec.data {
                    Some(splits) => Some(SplitFiles::find(storage, &files, splits).await.map_err(gone_or_failed)?),
                    None => None,
                },
                folder: storage.blobs.work_folder(&job.id),
                out: out.to_path_buf(),
                measurement,
            };
            let (report, metrics) = executor.execute_job(work, progress).await?;
            let (recipe, make_default) = (spec.recipe, spec.make_default);
            let compression = Compression { recipe, report, search: None, metrics, make_default };
            Ok(Done::Compressed { file: out, compression: Box::new(compression) })
        }
        JobSpec::Evaluate(spec) => {
            let number = spec.version.unwrap_or(model.default_version);
            let version = storage.store.version(&model, number).await.map_err(gone_or_failed)?;
            let artifact = match number {
                0 => None,
                _ => Some(files.path(&version.sha256).await.map_err(ExecuteError::failed)?),
            };
            let work = Evaluate {
                upload,
                artifact,
                number,
                measurement: measurement(storage, &files, &spec.evaluation).await.map_err(gone_or_failed)?,
            };
            let metrics = executor.execute_job(work, progress).await?;
            Ok(Done::Measured(Box::new(JobResult { version: Some(number), metrics, ..JobResult::default() })))
        }
        JobSpec::Benchmark(spec) => {
            let number = spec.version.unwrap_or(model.default_version);
            let file = async |number| -> Result<VersionFile, ExecuteError> {
                let version = storage.store.version(&model, number).await.map_err(gone_or_failed)?;
                Ok(VersionFile { number, path: files.path(&version.sha256).await.map_err(ExecuteError::failed)? })
            };
            let measurement = match &spec.evaluation {
                Some(evaluation) => Some(measurement(storage, &files, evaluation).await.map_err(gone_or_failed)?),
                None => None,
            };
            let work =
                Benchmark { baseline: file(spec.baseline).await?, version: file(number).await?, measurement, spec };
            let (benchmark, metrics) = executor.execute_job(work, progress).await?;
            Ok(Done::Measured(Box::new(JobResult {
                version: Some(number),
                benchmark: Some(benchmark),
                metrics,
                ..JobResult::default()
            })))
        }
        JobSpec::Search(spec) => {
            let out = storage.blobs.staging_file().map_err(ExecuteError::failed)?;
            let work = SearchWork {
                model: upload,
                search: spec.search,
                data: SplitFiles::find(storage, &files, &spec.job.data).await.map_err(gone_or_failed)?,
                folder: storage.blobs.work_folder(&job.id),
                out: out.to_path_buf(),
            };
            let (search, report, metrics) = executor.execute_job(work, progress).await?;
            let chosen = search.trials.iter().find(|trial| trial.number == search.chosen);
            let recipe = chosen.map(|trial| trial.recipe.clone()).unwrap_or_default();
            let make_default = spec.job.make_default && search.is_within_bound;
            let compression = Compression { recipe, report, search: Some(search), metrics, make_default };
            Ok(Done::Compressed { file: out, compression: Box::new(compression) })
        }
        JobSpec::Trial(spec) => trial::execute(storage, executor, (job, &spec), (upload, &files), progress).await,
    }
}

/// Does the work that is called `name`, in a child process: requests and answers are JSON there.
///
/// # Errors
/// Those of the work; [`ExecuteError::Failed`] for what is not known.
pub(super) fn run_named(name: &str, work: Value, progress: &dyn Progress) -> Result<Value, ExecuteError> {
    fn run<W: Work>(work: Value, progress: &dyn Progress) -> Result<Value, ExecuteError> {
        let work: W = serde_json::from_value(work).map_err(ExecuteError::failed)?;
        serde_json::to_value(work.run(progress)?).map_err(ExecuteError::failed)
    }
    macro_rules! of_these {
        ($($work:ty),*) => {
            match name {
                $(<$work>::NAME => run::<$work>(work, progress),)*
                _ => Err(ExecuteError::failed(format!("no work is called {name}"))),
            }
        };
    }
    of_these!(
        Benchmark,
        Check,
        Compress,
        Evaluate,
        ConcludeSearch,
        InspectDataset,
        InspectModel,
        MakeTrial,
        PlanSearch,
        SearchWork
    )
}

/// The work of a job that is done, not stored yet.
pub(super) enum Done {
    Compressed {
        file: TempPath,
        compression: Box<Compression>,
    },
    Measured(Box<JobResult>),
    /// A trial, with its artifact and its fine-tuned weights.
    Tried {
        artifact: Option<TempPath>,
        tuned: Option<TempPath>,
        result: Box<JobResult>,
    },
}

impl Done {
    /// Whether it is what a search had found when it was told to stop.
    pub(super) fn is_partial(&self) -> bool {
        match self {
            Self::Compressed { compression, .. } => {
                compression.search.as_ref().is_some_and(|search| search.ended == SearchEnd::Cancelled)
            }
            Self::Measured(_) | Self::Tried { .. } => false,
        }
    }

    /// Stores it, and ends the job as succeeded.
    pub(super) async fn store(self, storage: &Storage, lease: &Lease) -> Result<JobRecord, StoreError> {
        match self {
            Self::Compressed { file, compression } => {
                let file = storage.blobs.adopt(file).await?;
                let finished = storage.finish_compression(lease, file, &compression).await?;
                let report = &compression.report;
                metrics::histogram!("weightpress_artifact_bytes").record(report.artifact_bytes as f64);
                metrics::histogram!("weightpress_compression_ratio").record(report.ratio);
                Ok(finished)
            }
            Self::Measured(result) => storage.store.finish_evaluation(lease, &result).await,
            Self::Tried { artifact, tuned, mut result } => {
                let mut files = Vec::new();
                let mut adopt = async |file: Option<TempPath>| -> Result<Option<String>, StoreError> {
                    let Some(file) = file else { return Ok(None) };
                    let file = storage.blobs.adopt(file).await?;
                    let sha256 = file.sha256().to_owned();
                    files.push(file);
                    Ok(Some(sha256))
                };
                let (artifact, tuned) = (adopt(artifact).await?, adopt(tuned).await?);
                result.trial = result.trial.map(|trial| TrialResult { artifact, tuned, ..trial });
                storage.finish_trial(lease, files, &result).await
            }
        }
    }
}

async fn measurement(storage: &Storage, files: &Checkout, spec: &EvaluationSpec) -> Result<Measurement, StoreError> {
    let name = spec.data.dataset.as_deref().unwrap_or_default();
    let dataset = storage.store.dataset(name).await?;
    Ok(Measurement { dataset: files.path(&dataset.sha256).await?, spec: spec.clone() })
}

/// What was named may have been deleted since the job was queued: that is final. Any other failure may pass.
pub(super) fn gone_or_failed(error: StoreError) -> ExecuteError {
    match error {
        StoreError::NotFound { .. } => Refusal::NotFound.because(error),
        error => ExecuteError::failed(error),
    }
}
