//! The service without its HTTP face: storage, queue, workers, webhooks and predictors, started and stopped together.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::infer;
use crate::jobs::{
    BatchSettings, Batching, ExecuteError, Executor, InspectDataset, InspectModel, Jobs, PredictorSettings, Predictors,
    WorkerSettings, Workers,
};
use crate::storage::{
    DatasetRecord, Metadata, ModelRecord, NewDataset, NewModel, StagedBlob, Storage, StoreError, TenantId,
};
use crate::telemetry::PrometheusHandle;
use crate::webhooks::Dispatcher;

/// A database that takes longer to say the time is as good as gone.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// How often gauges are set and histograms are emptied into their buckets.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);
/// Delay before the second attempt of a job.
const RETRY_BACKOFF: Duration = Duration::from_millis(500);
/// How often an idle worker looks for jobs that it did not hear of.
const IDLE_POLL: Duration = Duration::from_secs(1);

/// The service as one tenant sees it: rows and jobs are the tenant's, the rest is everybody's. Clones share it all.
#[derive(Clone)]
pub struct App {
    pub config: Arc<Config>,
    pub storage: Storage,
    pub jobs: Jobs,
    pub executor: Executor,
    pub predictors: Predictors,
    /// Runs predictions that come together as one.
    pub batching: Batching,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    workers: Arc<Workers>,
    dispatcher: Arc<Dispatcher>,
    closed: CancellationToken,
}

impl App {
    /// Opens the storage, brings the database up to date, sweeps what crashes left, and starts the workers and the
    /// dispatcher of webhooks. The service is seen by the default tenant.
    ///
    /// # Errors
    /// [`StoreError`] when the database or the folder cannot be opened.
    pub async fn start(config: Config, metrics: PrometheusHandle) -> Result<Self, StoreError> {
        std::fs::create_dir_all(&config.data_dir)?;
        infer::set_max_tensor_bytes(config.max_prediction_bytes);
        let storage = Storage::open(&config.database_url, &config.blobs).await?;
        let executor = Executor::start(config.threads)?.isolated(config.isolation_limits());
        let jobs = Jobs::new(storage.clone(), executor.clone(), config.max_attempts);
        let batches =
            BatchSettings { max_batch: config.max_batch, max_delay: Duration::from_micros(config.max_delay_us) };
        let kept = PredictorSettings {
            budget_bytes: config.predictor_memory_bytes,
            residency: config.residency,
            batches: batches.is_on(),
            version_budget_bytes: config.memory_budget_bytes,
        };
        let predictors = Predictors::new(storage.clone(), executor.clone(), kept);
        let batching = Batching::new(executor.clone(), batches);
        let settings = WorkerSettings {
            workers: config.workers,
            lease: Duration::from_millis(config.lease_ms),
            backoff: RETRY_BACKOFF,
            idle_poll: IDLE_POLL,
        };
        let workers = Workers::start(&jobs, &settings);
        let dispatcher = Arc::new(Dispatcher::start(storage.store.clone(), config.webhook_allow.clone()));
        let closed = CancellationToken::new();
        tokio::spawn(observe(storage.clone(), metrics.clone(), closed.clone()));
        let (config, workers) = (Arc::new(config), Arc::new(workers));
        tokio::spawn(sweep(storage.clone(), config.clone(), closed.clone()));
        Ok(Self { config, storage, jobs, executor, predictors, batching, metrics, workers, dispatcher, closed })
    }

    /// The same service, seen by `tenant`.
    #[must_use]
    pub fn for_tenant(&self, tenant: &TenantId) -> Self {
        Self { storage: self.storage.for_tenant(tenant), jobs: self.jobs.for_tenant(tenant), ..self.clone() }
    }

    /// Inspects a finished upload and stores it as model `name`, with `metadata`. Returns the model, and false if it was there
    /// already with the same bytes, which then stays as it is. On any error nothing is left behind.
    ///
    /// # Errors
    /// [`AddError`].
    pub async fn add_model(
        &self,
        name: &str,
        metadata: Metadata,
        file: StagedBlob,
    ) -> Result<(ModelRecord, bool), AddError> {
        let found = self.executor.execute(InspectModel { path: file.path().to_owned() }).await?;
        let model = NewModel {
            name: name.to_owned(),
            format: found.format,
            inputs: found.inputs,
            outputs: found.outputs,
            weights: found.weights,
            kept: found.kept,
            unsupported_operators: found.unsupported_operators,
            metadata,
        };
        Ok(self.storage.add_model(file, &model).await?)
    }

    /// Inspects a finished upload and stores it as dataset `name`, as [`App::add_model`] does.
    ///
    /// # Errors
    /// [`AddError`].
    pub async fn add_dataset(&self, name: &str, file: StagedBlob) -> Result<(DatasetRecord, bool), AddError> {
        let found = self.executor.execute(InspectDataset { path: file.path().to_owned() }).await?;
        let dataset = NewDataset {
            name: name.to_owned(),
            format: found.format,
            samples: i64::try_from(found.samples).unwrap_or(i64::MAX),
            arrays: found.arrays,
        };
        Ok(self.storage.add_dataset(file, &dataset).await?)
    }

    /// Deletes a model, and what is loaded of it.
    ///
    /// # Errors
    /// As [`Storage::delete_model`].
    pub async fn delete_model(&self, name: &str) -> Result<(), StoreError> {
        let model = self.storage.store.model(name).await?;
        self.storage.delete_model(name).await?;
        self.predictors.forget(&model, None);
        Ok(())
    }

    /// Deletes a compressed version, and what is loaded of it.
    ///
    /// # Errors
    /// As [`Storage::delete_version`].
    pub async fn delete_version(&self, name: &str, version: i64) -> Result<(), StoreError> {
        let model = self.storage.store.model(name).await?;
        self.storage.delete_version(name, version).await?;
        self.predictors.forget(&model, Some(version));
        Ok(())
    }

    /// Whether requests should be sent here: the database answers and nobody asked to stop.
    pub async fn is_ready(&self) -> bool {
        let now = tokio::time::timeout(READY_TIMEOUT, self.storage.store.now());
        !self.workers.is_stopping() && now.await.is_ok_and(|now| now.is_ok())
    }

    /// Makes [`App::is_ready`] false, stops claiming jobs and deliveries, and asks the running ones to stop; the first step of a
    /// shutdown.
    pub fn begin_shutdown(&self) {
        self.workers.begin_shutdown();
        self.dispatcher.begin_shutdown();
    }

    /// Waits until unfinished jobs are back in the queue and closes the database; the last step of a shutdown.
    pub async fn shutdown(&self) {
        self.begin_shutdown();
        self.workers.join().await;
        self.dispatcher.join().await;
        self.closed.cancel();
        self.storage.store.close().await;
    }
}

/// Clears away what killed processes left and what is too old, every [`Config::sweep_seconds`], until `closed`.
async fn sweep(storage: Storage, config: Arc<Config>, closed: CancellationToken) {
    let interval = Duration::from_secs(config.sweep_seconds);
    while tokio::time::timeout(interval, closed.cancelled()).await.is_err() {
        if let Err(error) = storage.sweep().await {
            tracing::warn!(%error, "what killed processes left could not be cleared away");
        }
        if let Err(error) = storage.store.forget_old_names().await {
            tracing::warn!(%error, "old names of requests could not be forgotten");
        }
        if let Err(error) = storage.store.forget_old_deliveries().await {
            tracing::warn!(%error, "old deliveries could not be forgotten");
        }
        // There may be many at first; what is left is for the next process.
        closed.run_until_cancelled(forget_jobs(&storage, &config)).await;
    }
}

/// Deletes what is told of finished jobs and is older than the settings say.
async fn forget_jobs(storage: &Storage, config: &Config) {
    let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    if let Some(kept) = config.keep_events_days.map(days) {
        match storage.store.forget_old_events(kept).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "old events were deleted"),
            Err(error) => tracing::warn!(%error, "old events could not be deleted"),
        }
    }
    if let Some(kept) = config.keep_jobs_days.map(days) {
        match storage.store.forget_old_jobs(kept).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "old jobs were deleted"),
            Err(error) => tracing::warn!(%error, "old jobs could not be deleted"),
        }
    }
}

/// Sets what the database knows as gauges, until `closed`.
async fn observe(storage: Storage, metrics: PrometheusHandle, closed: CancellationToken) {
    loop {
        metrics.run_upkeep();
        match storage.store.job_counts().await {
            Ok(counts) => {
                for (state, jobs) in counts {
                    metrics::gauge!("weightpress_jobs", "state" => state.as_str()).set(jobs as f64);
                }
            }
            Err(error) => tracing::warn!(%error, "jobs could not be counted"),
        }
        if tokio::time::timeout(METRICS_INTERVAL, closed.cancelled()).await.is_ok() {
            return;
        }
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
