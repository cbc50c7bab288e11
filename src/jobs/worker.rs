//! Workers: each claims a job, runs it, and keeps its lease alive until it is done, lost, cancelled or handed back.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::storage::{Failure, JobRecord, JobState, Lease, Storage, StoreError};
use crate::trace::TraceParent;

use super::progress::JobProgress;
use super::work::{self, Done};
use super::{ExecuteError, Jobs, listening, spread};

/// Progress is written at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// The longest silence between heartbeats: how long a cancel by another process goes unnoticed.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// How workers work.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSettings {
    /// Jobs that run at the same time.
    pub(crate) workers: usize,
    /// A worker that is silent for this long loses its job.
    pub(crate) lease: Duration,
    /// Delay before a second attempt; doubles with each.
    pub(crate) backoff: Duration,
    /// How often an idle worker looks for jobs whose delay is over, or that it did not hear of.
    pub(crate) idle_poll: Duration,
}

/// The workers of this process, the reaper, and who listens to other processes.
pub(crate) struct Workers {
    stop: CancellationToken,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Workers {
    /// Starts them all.
    pub(crate) fn start(jobs: &Jobs, settings: &WorkerSettings) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for index in 0..settings.workers {
            let worker = Worker {
                name: format!("{}-{index}", std::process::id()),
                jobs: jobs.clone(),
                settings: settings.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(async move {
                // Work that panics is caught where it is done; this is for what surrounds it.
                while AssertUnwindSafe(worker.run()).catch_unwind().await.is_err() {
                    tracing::error!(
                        worker = worker.name,
                        "a worker panicked; its job is taken up when the lease is over"
                    );
                    sleep_or_stop(worker.settings.lease, &worker.stop).await;
                }
            });
        }
        tasks.spawn(reap(jobs.clone(), settings.clone(), stop.clone()));
        tasks.spawn(listening::listen(jobs.clone(), stop.clone()));
        Self { stop, tasks: tokio::sync::Mutex::new(tasks) }
    }

    /// Stops claiming and asks running work to stop.
    pub(crate) fn begin_shutdown(&self) {
        self.stop.cancel();
    }

    /// Whether [`Workers::begin_shutdown`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Returns once every job that was running is finished or back in the queue.
    pub(crate) async fn join(&self) {
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

/// Takes jobs from workers that fell silent, until `stop`.
async fn reap(jobs: Jobs, settings: WorkerSettings, stop: CancellationToken) {
    let interval = (settings.lease / 2).min(Duration::from_secs(5));
    loop {
        match jobs.storage.store.reap(settings.backoff).await {
            Ok(reaped) => {
                for job in reaped {
                    tracing::warn!(job = %job.id, attempt = job.attempt, state = ?job.state, "a worker was lost");
                    count_finished(&job);
                    jobs.changes.announce(&job.id);
                    if job.state.is_final() {
                        jobs.end_trials(&job).await;
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the reaper failed"),
        }
        if sleep_or_stop(interval, &stop).await {
            return;
        }
    }
}

/// The span of a job, in the trace of the request that asked for it.
fn span_of(job: &JobRecord) -> Span {
    let span = tracing::info_span!(
        "job",
        id = %job.id,
        kind = job.kind.as_str(),
        attempt = job.attempt,
        trace_id = tracing::field::Empty
    );
    if let Some(context) = job.traceparent.as_deref().and_then(|text| text.parse::<TraceParent>().ok()) {
        context.continue_in(&span);
    }
    span
}

/// A search beside a worker panicked: its lease runs out, and somebody goes on with it.
fn tell_of_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a search panicked; it is taken up when the lease is over");
    }
}

/// True when `stop` came first.
async fn sleep_or_stop(duration: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(duration, stop.cancelled()).await.is_ok()
}

/// Why the lease is kept no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Somebody asked the job to stop.
    Cancelled,
    /// The process shuts down.
    Stopping,
    /// Another worker has the job, or it is finished.
    Lost,
}

#[derive(Clone)]
struct Worker {
    /// For people who look at the queue.
    name: String,
    jobs: Jobs,
    settings: WorkerSettings,
    stop: CancellationToken,
}

impl Worker {
    async fn run(&self) {
        let mut searches = JoinSet::new();
        while !self.stop.is_cancelled() {
            match self.jobs.storage.store.claim(&self.name, self.settings.lease).await {
                Ok(Some(job)) => {
                    let span = span_of(&job);
                    // It waits for others, who need this worker.
                    if spread::is_spread(&job) {
                        let worker = self.clone();
                        searches.spawn(async move { worker.work_on(job).await }.instrument(span));
                    } else {
                        self.work_on(job).instrument(span).await;
                    }
                }
                Ok(None) => self.idle().await,
                Err(error) => {
                    tracing::error!(%error, "no job could be claimed");
                    sleep_or_stop(self.settings.idle_poll, &self.stop).await;
                }
            }
            while let Some(ended) = searches.try_join_next() {
                tell_of_panic(ended);
            }
        }
        while let Some(ended) = searches.join_next().await {
            tell_of_panic(ended);
        }
    }

    async fn idle(&self) {
        tokio::select! {
            () = self.jobs.changes.queued.notified() => {}
            () = tokio::time::sleep(self.settings.idle_poll) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Runs a claimed job to one of its ends.
    async fn work_on(&self, job: JobRecord) {
        // Others may be waiting behind it.
        self.jobs.changes.queued.notify_one();
        self.jobs.changes.announce(&job.id);
        tracing::info!(job = %job.id, kind = job.kind.as_str(), attempt = job.attempt, "job started");
        let lease = job.lease();
        let storage = self.jobs.storage.for_tenant(&job.tenant_id);
        let progress = Arc::new(JobProgress::new());
        let work = async {
            match spread::is_spread(&job) {
                true => spread::run(&self.jobs.for_tenant(&job.tenant_id), &job, progress.clone()).await,
                false => work::execute(&storage, &self.jobs.executor, &job, progress.clone()).await,
            }
        };
        let mut work = std::pin::pin!(work.instrument(tracing::info_span!("work")));
        let (outcome, end) = tokio::select! {
            outcome = &mut work => (outcome, None),
            end = self.keep(&lease, &progress) => {
                // CPU work stops at its next look at the flag; it must, before the job is anybody else's.
                progress.stop();
                (self.while_alive(&lease, Some(end), work).await, Some(end))
            }
        };
        progress.count_stages();
        let settled = self.settle(&storage, &lease, (outcome, end)).instrument(tracing::info_span!("settle"));
        match self.while_alive(&lease, end, settled).await {
            Ok(job) => {
                tracing::info!(job = %job.id, state = ?job.state, attempt = job.attempt, "job left its worker");
                count_finished(&job);
                if job.state.is_final() {
                    storage.blobs.remove_work_folder(&job.id).await;
                    self.jobs.end_trials(&job).await;
                }
            }
            Err(StoreError::LeaseLost { .. }) => tracing::warn!(job = %job.id, attempt = job.attempt, "lease lost"),
            // The lease runs out, and the reaper decides.
            Err(error) => tracing::error!(job = %job.id, %error, "the end of a job could not be stored"),
        }
        self.jobs.changes.announce(&job.id);
        if let Some(search) = &job.parent_id {
            self.jobs.changes.announce(search);
        }
        if storage.store.job(&job.id).await.is_ok_and(|job| job.state == JobState::Queued) {
            self.jobs.changes.queued.notify_one();
        }
    }

    /// Awaits work that cannot be cut short, and keeps the lease meanwhile unless it is lost.
    async fn while_alive<T>(&self, lease: &Lease, end: Option<End>, work: impl Future<Output = T>) -> T {
        if end == Some(End::Lost) {
            return work.await;
        }
        // Side by side: a heartbeat may wait for the job's row, which the work has locked.
        tokio::select! {
            outcome = work => outcome,
            never = self.beat(lease) => match never {},
        }
    }

    /// Extends a lease for as long as this is awaited.
    async fn beat(&self, lease: &Lease) -> Infallible {
        loop {
            tokio::time::sleep(self.heartbeat_interval()).await;
            // Whoever works finds out by itself that the lease is lost.
            let _ = self.jobs.storage.store.heartbeat(lease, self.settings.lease, None).await;
        }
    }

    /// Stores how the job ended.
    async fn settle(
        &self,
        storage: &Storage,
        lease: &Lease,
        (outcome, end): (Result<Done, ExecuteError>, Option<End>),
    ) -> Result<JobRecord, StoreError> {
        let store = &storage.store;
        match (outcome, end) {
            (_, Some(End::Lost)) => Err(StoreError::LeaseLost { job: lease.job.to_string(), attempt: lease.attempt }),
            // What is found so far stays in the job's folder, for the worker that goes on.
            (Ok(done), Some(End::Stopping)) if done.is_partial() => store.release(lease).await,
            (Ok(done), _) => match done.store(storage, lease).await {
                // Succeeding needs a job that nobody cancelled.
                Err(StoreError::LeaseLost { .. }) => store.acknowledge_cancel(lease).await,
                Err(error @ StoreError::StorageQuota { .. }) => {
                    let failure = Failure { code: "quota_exceeded".to_owned(), detail: error.to_string() };
                    store.fail(lease, &failure).await
                }
                stored => stored,
            },
            (Err(ExecuteError::Cancelled), Some(End::Stopping)) => store.release(lease).await,
            (Err(ExecuteError::Cancelled), _) => store.acknowledge_cancel(lease).await,
            (Err(ExecuteError::Failed { detail }), _) => {
                tracing::error!(job = %lease.job, attempt = lease.attempt, error = detail, "the machine failed");
                let failure = failure_of(&ExecuteError::Failed { detail });
                store.retry(lease, self.settings.backoff, &failure).await
            }
            (Err(error), _) => store.fail(lease, &failure_of(&error)).await,
        }
    }

    /// Keeps the lease and writes progress, until somebody wants the work to stop.
    async fn keep(&self, lease: &Lease, progress: &JobProgress) -> End {
        let mut cancelled = self.jobs.changes.watch_cancel(&lease.job);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.heartbeat_interval()) => {}
                () = cancelled.announced() => {}
                () = progress.reported.notified() => {
                    // Gather what else is reported before the next write.
                    if sleep_or_stop(PROGRESS_INTERVAL.min(self.heartbeat_interval()), &self.stop).await {
                        return End::Stopping;
                    }
                }
                () = self.stop.cancelled() => return End::Stopping,
            }
            let note = progress.take();
            match self.jobs.storage.store.heartbeat(lease, self.settings.lease, note.as_ref()).await {
                Ok(JobState::Cancelling) => return End::Cancelled,
                Ok(_) => heard = Instant::now(),
                Err(StoreError::LeaseLost { .. }) => return End::Lost,
                Err(error) => {
                    tracing::error!(job = %lease.job, %error, "a heartbeat failed");
                    if heard.elapsed() > self.settings.lease {
                        return End::Lost;
                    }
                }
            }
            if note.is_some() {
                self.jobs.changes.announce(&lease.job);
            }
        }
    }

    fn heartbeat_interval(&self) -> Duration {
        (self.settings.lease / 3).min(HEARTBEAT_INTERVAL)
    }
}

/// What is shown of an error that ends a job.
fn failure_of(error: &ExecuteError) -> Failure {
    let code = match error {
        ExecuteError::Refused { refusal, .. } => refusal.as_str(),
        ExecuteError::Cancelled => "cancelled",
        ExecuteError::Failed { .. } | ExecuteError::Busy => "machine",
        ExecuteError::Panicked => "internal",
    };
    // The words of a machine are full of paths and SQL: they are for the log.
    let detail = match error {
        ExecuteError::Failed { .. } => "the service failed; its log says more under the id of this job".to_owned(),
        error => error.to_string(),
    };
    Failure { code: code.to_owned(), detail }
}

/// Counts a job that reached its end, and how long its last attempt took.
fn count_finished(job: &JobRecord) {
    if !job.state.is_final() {
        return;
    }
    let labels = [("kind", job.kind.as_str()), ("state", job.state.as_str())];
    metrics::counter!("weightpress_jobs_finished_total", &labels).increment(1);
    if let (Some(started), Some(finished)) = (job.started_at, job.finished_at) {
        metrics::histogram!("weightpress_job_duration_seconds", &labels).record(finished.since(started));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::tests::{compression, config, spec, start, with_mnist};

    #[tokio::test]
    async fn work_that_locks_its_job_for_longer_than_a_heartbeat_comes_to_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let app = start(crate::config::Config { workers: 0, ..config(&folder) }).await;
        with_mnist(&app).await;
        app.jobs.submit(&spec(compression())).await.expect("a job");
        let (brief, soon) = (Duration::from_millis(60), Duration::from_secs(20));
        let settings = WorkerSettings { workers: 1, lease: brief, backoff: brief, idle_poll: brief };
        let worker = Worker { name: "w".into(), jobs: app.jobs.clone(), settings, stop: CancellationToken::new() };
        let store = &app.storage.store;
        let lease = store.claim("w", soon).await.expect("a queue").expect("a job").lease();
        let work = worker.while_alive(&lease, None, store.lock_job(&lease, 5 * brief));
        tokio::time::timeout(soon, work).await.expect("no deadlock").expect("a transaction");
        app.shutdown().await;
    }
}
