//! Jobs: the queue, the workers that empty it, and the executor that does all CPU work on uploaded models.
//!
//! ```text
//! Jobs (submit, cancel, wait) -> storage's queue <- Workers (claim, keep the lease) -> Executor -> work/ -> the core
//! ```

mod batching;
mod changes;
mod error;
mod executor;
mod isolation;
mod listening;
mod predictors;
mod progress;
mod serving;
mod shown;
mod spec;
mod spread;
mod stages;
mod statistics;
#[cfg(test)]
mod tests;
mod work;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::compress::Estimate;
use crate::evaluate::DataSplits;
use crate::storage::{JobId, JobRecord, NamedRequest, NewJob, Storage, StoreError, TenantId};
use crate::trace::TraceParent;

pub(crate) use batching::BatchSettings;
pub use batching::Batching;
pub use changes::Watch;
pub use error::{ExecuteError, Refusal};
pub use executor::{Executor, PoolState, Work};
pub(crate) use isolation::{Limits, serve_child};
pub(crate) use predictors::PredictorSettings;
pub use predictors::{Holding, LoadError, Loaded, Predictors};
pub use serving::Serving;
pub use shown::Job;
pub use spec::{
    BenchmarkSpec, CompressSpec, EvaluateSpec, EvaluationSpec, JobKind, JobResult, JobSpec, SearchJob, SearchSpec,
    TrialResult, TrialSpec,
};
pub use stages::STAGES;
pub use statistics::{Statistics, Stopwatch, Tallies, Times};
pub use work::{InspectDataset, InspectModel};
pub(crate) use worker::{WorkerSettings, Workers};

use changes::Changes;

/// The queue as its clients see it. Clones share it.
#[derive(Debug, Clone)]
pub struct Jobs {
    storage: Storage,
    executor: Executor,
    changes: Arc<Changes>,
    max_attempts: u32,
}

impl Jobs {
    /// The queue in `storage`, whose jobs are started at most `max_attempts` times.
    pub(crate) fn new(storage: Storage, executor: Executor, max_attempts: u32) -> Self {
        Self { storage, executor, changes: Arc::new(Changes::new()), max_attempts }
    }

    /// The same queue, seen by `tenant`.
    #[must_use]
    pub(crate) fn for_tenant(&self, tenant: &TenantId) -> Self {
        Self { storage: self.storage.for_tenant(tenant), ..self.clone() }
    }

    /// Checks `spec` against what is stored and queues it. Once this returns, the job survives a crash.
    ///
    /// # Errors
    /// [`SubmitError`] names what is wrong with the spec.
    pub async fn submit(&self, spec: &JobSpec) -> Result<JobRecord, SubmitError> {
        self.queue(spec, None).await
    }

    /// [`Jobs::submit`] of a request that calls itself `key` at `operation`, a method and a path. Sent again, it gets the job
    /// that it has, and true.
    ///
    /// # Errors
    /// As [`Jobs::submit`]; [`StoreError::NameReused`].
    pub async fn submit_once(
        &self,
        spec: &JobSpec,
        operation: &'static str,
        key: String,
    ) -> Result<(JobRecord, bool), SubmitError> {
        let body_sha256 = hex::encode(Sha256::digest(to_json(spec).to_string()));
        let request = NamedRequest { operation, key, body_sha256 };
        if let Some(job) = self.storage.store.made_by(&request).await? {
            return Ok((job, true));
        }
        match self.queue(spec, Some(request.clone())).await {
            // Another process was faster.
            Err(SubmitError::Store(error)) if error.is_unique_violation() => {
                let job = self.storage.store.made_by(&request).await?;
                job.map(|job| (job, true)).ok_or(SubmitError::Store(error))
            }
            queued => Ok((queued?, false)),
        }
    }

    async fn queue(&self, spec: &JobSpec, request: Option<NamedRequest>) -> Result<JobRecord, SubmitError> {
        let spec = &self.resolved(spec).await?;
        self.dry_run(spec).await?;
        let job = NewJob {
            kind: spec.kind(),
            priority: spec.priority().into(),
            spec: to_json(spec),
            metadata: spec.metadata().clone(),
            model: spec.model().to_owned(),
            datasets: spec.maps().filter_map(|(_, map)| map.dataset.clone()).collect(),
            max_attempts: self.max_attempts.into(),
            request,
            traceparent: TraceParent::current().map(|context| context.to_string()),
            parent: None,
        };
        Ok(self.enqueue(&job).await?)
    }

    /// Queues a job that is checked.
    async fn enqueue(&self, job: &NewJob) -> Result<JobRecord, StoreError> {
        let queued = self.storage.store.enqueue(job).await?;
        metrics::counter!("weightpress_jobs_submitted_total", "kind" => job.kind.as_str()).increment(1);
        tracing::info!(job = %queued.id, kind = job.kind.as_str(), model = job.model, "job queued");
        self.changes.announce(&queued.id);
        self.changes.queued.notify_one();
        Ok(queued)
    }

    /// Checks `spec` as [`Jobs::submit`] does and estimates what a compression would produce; queues nothing. `None` for
    /// other kinds, which have nothing to estimate.
    ///
    /// # Errors
    /// As [`Jobs::submit`].
    pub async fn dry_run(&self, spec: &JobSpec) -> Result<Option<Estimate>, SubmitError> {
        if let Some((place, _)) = spec.maps().find(|(_, map)| map.dataset.is_none()) {
            let detail = format!("{place}.dataset is missing");
            return Err(SubmitError::Invalid { refusal: Refusal::DataMismatch, detail });
        }
        if holds_nul(&to_json(spec)) {
            let detail = "the job holds the character NUL, which no name has".to_owned();
            return Err(SubmitError::Invalid { refusal: Refusal::InvalidText, detail });
        }
        if let Some(Err(error)) = spec.data().map(DataSplits::check) {
            let detail = format!("data: {error}");
            return Err(SubmitError::Invalid { refusal: Refusal::DataMismatch, detail });
        }
        match spec {
            JobSpec::Trial(_) => {
                let detail =
                    "kind: a trial is queued by its search, whose `parallel` says how many at a time".to_owned();
                return Err(SubmitError::Invalid { refusal: Refusal::InvalidSettings, detail });
            }
            JobSpec::Search(search) => search
                .job
                .check()
                .map_err(|detail| SubmitError::Invalid { refusal: Refusal::InvalidSettings, detail })?,
            _ => {}
        }
        let files = self.storage.blobs.checkout();
        let check = work::check(&self.storage, &files, spec, self.executor.threads()).await?;
        Ok(self.executor.execute(check).await?)
    }

    /// The spec with the version that it means now: the default may be another once the job runs.
    async fn resolved(&self, spec: &JobSpec) -> Result<JobSpec, StoreError> {
        let mut spec = spec.clone();
        if let JobSpec::Evaluate(EvaluateSpec { model, version: version @ None, .. })
        | JobSpec::Benchmark(BenchmarkSpec { model, version: version @ None, .. }) = &mut spec
        {
            *version = Some(self.storage.store.model(model).await?.default_version);
        }
        Ok(spec)
    }

    /// Asks a job to stop. A queued one is cancelled at once, a running one soon; a finished one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn cancel(&self, id: &JobId) -> Result<JobRecord, StoreError> {
        let job = self.storage.store.cancel(id).await?;
        self.changes.announce(id);
        self.changes.announce_cancel(id);
        if job.state.is_final() {
            self.end_trials(&job).await;
        }
        Ok(job)
    }

    /// Stops what a job that is over, a search, has had queued, and clears it away.
    async fn end_trials(&self, job: &JobRecord) {
        if !spread::is_spread(job) {
            return;
        }
        match self.storage.for_tenant(&job.tenant_id).end_trials(&job.id).await {
            Ok(stopped) => stopped.iter().for_each(|trial| self.changes.announce_cancel(trial)),
            Err(error) => tracing::warn!(job = %job.id, %error, "what its trials left stays until the next sweep"),
        }
    }

    /// Returns the job once it is finished, or as it stands after `timeout`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn wait(&self, id: &JobId, timeout: Duration) -> Result<JobRecord, StoreError> {
        let deadline = Instant::now() + timeout;
        let mut watch = self.watch(id);
        loop {
            let job = self.storage.store.job(id).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if job.state.is_final() || left.is_zero() {
                return Ok(job);
            }
            let _elapsed = tokio::time::timeout(left, watch.changed()).await;
        }
    }

    /// Watches a job for changes. Made before the job is read, it misses none.
    pub fn watch(&self, id: &JobId) -> Watch {
        self.changes.watch(id)
    }
}

/// The JSON of a value whose keys are strings and whose numbers are finite, as all of ours are.
fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Whether a text in `value` holds the character NUL, which Postgres cannot store.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(members) => members.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Why a job was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The spec contradicts itself, or what it names does not fit together.
    #[error("{detail}")]
    Invalid { refusal: Refusal, detail: String },
    /// A model, version or dataset does not exist, or the database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The executor failed.
    #[error(transparent)]
    Execute(ExecuteError),
}

impl From<ExecuteError> for SubmitError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Refused { refusal, detail } => Self::Invalid { refusal, detail },
            error => Self::Execute(error),
        }
    }
}
