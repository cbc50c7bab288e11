//! The queue: a table with leases.
//!
//! A worker claims a job for a while and extends the lease as long as it lives. `attempt` counts the claims and is the
//! fencing token: whoever reports with an older one has lost the job, and changes nothing. Every change of state and
//! its event are one transaction, in which the job's row is locked, so events count up without gaps. All moments are
//! the database's.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::types::Json;

use crate::jobs::JobKind;

use super::database::{Database, read, skip_locked, write};
use super::datasets::LOCK_DATASET;
use super::idempotency::insert_name;
use super::metadata::{INSERT_OF_JOB, insert_pairs};
use super::models::LOCK_MODEL;
use super::{
    DatasetId, EventKind, Failure, JobId, JobRecord, JobState, Kind, Metadata, ModelId, NamedRequest, Store,
    StoreError, TenantId,
};

/// A job about to be queued.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    pub kind: JobKind,
    /// A higher one is claimed first.
    pub priority: i64,
    /// What is asked for.
    pub spec: Value,
    /// What users note about it.
    pub metadata: Metadata,
    /// The model's name.
    pub model: String,
    /// The names of the datasets it reads.
    pub datasets: BTreeSet<String>,
    /// Starts before it is given up.
    pub max_attempts: i64,
    /// The request that asks for it, where it named itself.
    pub request: Option<NamedRequest>,
    /// The trace of that request, as a W3C `traceparent`.
    pub traceparent: Option<String>,
    /// Of a trial, the lease of its search, which must be held.
    pub parent: Option<Lease>,
}

/// The right to work on a job, until it runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub job: JobId,
    /// The fencing token.
    pub attempt: i64,
}

/// How far a job has come.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProgressNote {
    /// 0 to 1.
    pub fraction: f64,
    /// A word for programs.
    pub stage: String,
    /// For people.
    pub message: String,
    /// Estimate of the time that the rest takes.
    pub remaining_seconds: Option<f64>,
}

/// Appends an event inside the transaction that changed the job, queues the messages that tell of it, and has other processes
/// hear of it.
macro_rules! append_event {
    ($store:expr, $tx:ident, $job:expr, $kind:expr, $data:expr) => {{
        let (job, kind) = ($job, $kind);
        sqlx::query($crate::storage::queue::APPEND_EVENT)
            .bind(job)
            .bind(kind)
            .bind(sqlx::types::Json($data))
            .execute(&mut *$tx)
            .await?;
        $crate::storage::deliveries::insert_deliveries!($tx, job, kind);
        $crate::storage::listener::tell_others!($store, $tx, job, kind);
    }};
}

/// Fails a transaction unless the lease is held, and the job not asked to stop; until it ends, it stays so.
macro_rules! hold {
    ($store:expr, $tx:ident, $lease:expr) => {
        let held = sqlx::query($crate::storage::queue::HOLD).bind(&$lease.job).bind($lease.attempt);
        if held.execute(&mut *$tx).await?.rows_affected() == 0 {
            return Err($lease.lost());
        }
    };
}

pub(super) use {append_event, hold};

pub(super) const HOLD: &str = "UPDATE jobs SET attempt = attempt WHERE id = $1 AND attempt = $2 AND state = 'running'";

pub(super) const APPEND_EVENT: &str = "INSERT INTO job_events (tenant_id, job_id, seq, kind, attempt, data, at) \
     SELECT tenant_id, id, (SELECT COALESCE(MAX(seq), 0) + 1 FROM job_events WHERE job_id = $1), $2, attempt, $3, \
     (SELECT now_ms FROM clock) FROM jobs WHERE id = $1";

impl JobRecord {
    /// The lease that its latest claim gave.
    pub fn lease(&self) -> Lease {
        Lease { job: self.id.clone(), attempt: self.attempt }
    }
}

impl Store {
    /// Queues a job. Once this returns it survives a crash.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the model or a dataset; [`StoreError::JobQuota`]. A request that was stored before violates
    /// uniqueness: [`Store::made_by`] has what it made.
    pub async fn enqueue(&self, job: &NewJob) -> Result<JobRecord, StoreError> {
        const SQL: &str = "INSERT INTO jobs (id, tenant_id, kind, state, priority, spec, model_id, model, dataset_id, \
             max_attempts, metadata, traceparent, parent_id, run_at, created_at) \
             SELECT $1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $11, $12, now_ms, now_ms FROM clock RETURNING *";
        const INSERT_DATASET: &str = "INSERT INTO job_datasets (tenant_id, job_id, dataset_id) VALUES ($1, $2, $3)";
        // Locks the tenant's row, so that no two jobs take the last place.
        const BOUND: &str = "UPDATE tenants SET name = name WHERE id = $1 AND max_unfinished_jobs IS NOT NULL \
             RETURNING max_unfinished_jobs";
        const UNFINISHED: &str = "SELECT COUNT(*) FROM jobs WHERE tenant_id = $1 AND state IN ('queued', 'running', 'cancelling') \
             AND parent_id IS NULL";
        write!(self, |tx| {
            let bound: Option<i64> = sqlx::query_scalar(BOUND).bind(&self.tenant).fetch_optional(&mut *tx).await?;
            if let (Some(max_jobs), None) = (bound, &job.parent) {
                let jobs: i64 = sqlx::query_scalar(UNFINISHED).bind(&self.tenant).fetch_one(&mut *tx).await?;
                if jobs >= max_jobs {
                    return Err(StoreError::JobQuota { max_jobs });
                }
            }
            let model: Option<ModelId> =
                sqlx::query_scalar(LOCK_MODEL).bind(&self.tenant).bind(&job.model).fetch_optional(&mut *tx).await?;
            let model = model.ok_or_else(|| Kind::Model.not_found(&job.model))?;
            if let Some(parent) = &job.parent {
                hold!(self, tx, parent);
            }
            let mut datasets: Vec<DatasetId> = Vec::new();
            // By name, so that two jobs which read the same datasets lock them in the same order.
            for name in &job.datasets {
                let dataset: Option<DatasetId> =
                    sqlx::query_scalar(LOCK_DATASET).bind(&self.tenant).bind(name).fetch_optional(&mut *tx).await?;
                datasets.push(dataset.ok_or_else(|| Kind::Dataset.not_found(name))?);
            }
            let queued: JobRecord = sqlx::query_as(SQL)
                .bind(JobId::new())
                .bind(&self.tenant)
                .bind(job.kind)
                .bind(job.priority)
                .bind(Json(&job.spec))
                .bind(model)
                .bind(&job.model)
                .bind(datasets.first())
                .bind(job.max_attempts)
                .bind(Json(&job.metadata))
                .bind(&job.traceparent)
                .bind(job.parent.as_ref().map(|parent| &parent.job))
                .fetch_one(&mut *tx)
                .await?;
            insert_pairs!(self, tx, INSERT_OF_JOB, &queued.id, &job.metadata);
            for dataset in &datasets {
                sqlx::query(INSERT_DATASET).bind(&self.tenant).bind(&queued.id).bind(dataset).execute(&mut *tx).await?;
            }
            if let Some(request) = &job.request {
                insert_name!(self, tx, request, &queued.id);
            }
            append_event!(self, tx, &queued.id, EventKind::Queued, json!({}));
            queued
        })
    }

    /// Gives `worker` a job for `lease`, if one is due. Tenants take turns: the one with the fewest jobs running (but for searches
    /// that only wait for their trials) comes first, then the one whose latest start is the longest ago. Of a tenant's jobs it is the one of the highest
    /// priority, then the oldest.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<JobRecord>, StoreError> {
        let sql = skip_locked!(
            self,
            "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker = $1, fraction = 0, stage = '', \
             message = '', remaining_seconds = NULL, started_at = (SELECT now_ms FROM clock), lease_until = (SELECT now_ms FROM clock) + $2 \
             WHERE id = (SELECT id FROM jobs WHERE tenant_id = $3 AND state = 'queued' \
             AND run_at <= (SELECT now_ms FROM clock) ORDER BY priority DESC, run_at, id LIMIT 1",
            ") RETURNING *"
        );
        // Idle workers ask often: look before taking the write lock.
        const TENANTS: &str = "SELECT t.id FROM tenants t WHERE EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = t.id \
             AND j.state = 'queued' AND j.run_at <= (SELECT now_ms FROM clock)) \
             ORDER BY (SELECT COUNT(*) FROM jobs j WHERE j.tenant_id = t.id AND j.state IN ('running', 'cancelling') \
             AND j.plan IS NULL), \
             (SELECT COALESCE(MAX(j.started_at), 0) FROM jobs j WHERE j.tenant_id = t.id), t.id";
        let tenants: Vec<TenantId> = read!(self, |pool| { sqlx::query_scalar(TENANTS).fetch_all(pool).await? });
        for tenant in tenants {
            let claimed: Result<Option<JobRecord>, StoreError> = write!(self, |tx| {
                let claimed: Option<JobRecord> =
                    sqlx::query_as(sql).bind(worker).bind(millis(lease)).bind(&tenant).fetch_optional(&mut *tx).await?;
                if let Some(job) = &claimed {
                    append_event!(self, tx, &job.id, EventKind::Started, json!({ "worker": worker }));
                }
                claimed
            });
            // Other workers may have been there first.
            if let Some(job) = claimed? {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// Extends a lease by `lease` from now, and notes progress if there is any. Returns whether the job is still
    /// [`JobState::Running`] or already [`JobState::Cancelling`].
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn heartbeat(
        &self,
        held: &Lease,
        lease: Duration,
        progress: Option<&ProgressNote>,
    ) -> Result<JobState, StoreError> {
        const EXTEND: &str = "UPDATE jobs SET lease_until = (SELECT now_ms FROM clock) + $3 \
             WHERE id = $1 AND attempt = $2 AND state IN ('running', 'cancelling') RETURNING state";
        const NOTE: &str =
            "UPDATE jobs SET fraction = $2, stage = $3, message = $4, remaining_seconds = $5 WHERE id = $1";
        write!(self, |tx| {
            let state: Option<JobState> = sqlx::query_scalar(EXTEND)
                .bind(&held.job)
                .bind(held.attempt)
                .bind(millis(lease))
                .fetch_optional(&mut *tx)
                .await?;
            let state = state.ok_or_else(|| held.lost())?;
            if let Some(note) = progress {
                sqlx::query(NOTE)
                    .bind(&held.job)
                    .bind(note.fraction)
                    .bind(&note.stage)
                    .bind(&note.message)
                    .bind(note.remaining_seconds)
                    .execute(&mut *tx)
                    .await?;
                let data = json!({
                    "fraction": note.fraction,
                    "stage": note.stage,
                    "message": note.message,
                    "remaining_seconds": note.remaining_seconds,
                });
                append_event!(self, tx, &held.job, EventKind::Progress, data);
            }
            state
        })
    }

    /// Ends a job as failed.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn fail(&self, held: &Lease, failure: &Failure) -> Result<JobRecord, StoreError> {
        const SQL: &str = "UPDATE jobs SET state = 'failed', failure = $3, lease_until = NULL, \
             finished_at = (SELECT now_ms FROM clock) \
             WHERE id = $1 AND attempt = $2 AND state IN ('running', 'cancelling') RETURNING *";
        let failure = &failure.storable();
        write!(self, |tx| {
            let failed: Option<JobRecord> = sqlx::query_as(SQL)
                .bind(&held.job)
                .bind(held.attempt)
                .bind(Json(failure))
                .fetch_optional(&mut *tx)
                .await?;
            let failed = failed.ok_or_else(|| held.lost())?;
            append_event!(self, tx, &failed.id, EventKind::Failed, failure);
            failed
        })
    }

    /// Ends a job whose worker stopped because it was asked to.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn acknowledge_cancel(&self, held: &Lease) -> Result<JobRecord, StoreError> {
        const SQL: &str = "UPDATE jobs SET state = 'cancelled', lease_until = NULL, \
             finished_at = (SELECT now_ms FROM clock) \
             WHERE id = $1 AND attempt = $2 AND state = 'cancelling' RETURNING *";
        write!(self, |tx| {
            let cancelled: Option<JobRecord> =
                sqlx::query_as(SQL).bind(&held.job).bind(held.attempt).fetch_optional(&mut *tx).await?;
            let cancelled = cancelled.ok_or_else(|| held.lost())?;
            append_event!(self, tx, &cancelled.id, EventKind::Cancelled, json!({}));
            cancelled
        })
    }

    /// Gives an unfinished job back, untouched: it can be claimed at once, and this start does not count against it.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn release(&self, held: &Lease) -> Result<JobRecord, StoreError> {
        // `attempt` must not fall, for it is the fencing token; so the limit rises instead.
        const SQL: &str = "UPDATE jobs SET lease_until = NULL, worker = NULL, max_attempts = max_attempts + 1, \
             state = CASE WHEN state = 'cancelling' THEN 'cancelled' ELSE 'queued' END, \
             finished_at = CASE WHEN state = 'cancelling' THEN (SELECT now_ms FROM clock) END \
             WHERE id = $1 AND attempt = $2 AND state IN ('running', 'cancelling') RETURNING *";
        write!(self, |tx| {
            let released: Option<JobRecord> =
                sqlx::query_as(SQL).bind(&held.job).bind(held.attempt).fetch_optional(&mut *tx).await?;
            let released = released.ok_or_else(|| held.lost())?;
            append_event!(self, tx, &released.id, event_after(&released), json!({ "reason": "released" }));
            released
        })
    }

    /// Asks a job to stop: a queued one is cancelled at once, a running one is told at its next heartbeat, a finished
    /// one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn cancel(&self, id: &JobId) -> Result<JobRecord, StoreError> {
        const SQL: &str = "UPDATE jobs SET state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE 'cancelling' END, \
             finished_at = CASE WHEN state = 'queued' THEN (SELECT now_ms FROM clock) END \
             WHERE tenant_id = $1 AND id = $2 AND state IN ('queued', 'running') RETURNING *";
        let changed: Result<Option<JobRecord>, StoreError> = write!(self, |tx| {
            let changed: Option<JobRecord> =
                sqlx::query_as(SQL).bind(&self.tenant).bind(id).fetch_optional(&mut *tx).await?;
            if let Some(job) = &changed {
                append_event!(self, tx, &job.id, event_after(job), json!({}));
            }
            changed
        });
        match changed? {
            Some(job) => Ok(job),
            None => self.job(id).await,
        }
    }

    /// Takes jobs from workers that were not heard of in time, of all tenants: requeues them with a delay that starts at
    /// `backoff` and doubles with each attempt, or ends them when they were started too often or asked to stop.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn reap(&self, backoff: Duration) -> Result<Vec<JobRecord>, StoreError> {
        let sql = skip_locked!(
            self,
            "UPDATE jobs SET lease_until = NULL, worker = NULL, \
             state = CASE WHEN state = 'cancelling' THEN 'cancelled' WHEN attempt >= max_attempts THEN 'failed' \
             ELSE 'queued' END, \
             finished_at = CASE WHEN state = 'cancelling' OR attempt >= max_attempts \
             THEN (SELECT now_ms FROM clock) END, \
             failure = CASE WHEN state = 'running' AND attempt >= max_attempts THEN $2 ELSE failure END, \
             run_at = (SELECT now_ms FROM clock) + ($1 << CASE WHEN attempt < 8 THEN CAST(attempt AS INTEGER) - 1 \
             ELSE 7 END) WHERE id IN (SELECT id FROM jobs WHERE state IN ('running', 'cancelling') \
             AND lease_until < (SELECT now_ms FROM clock)",
            ") RETURNING *"
        );
        let lost = Failure {
            code: "worker_lost".to_owned(),
            detail: "its worker was lost each time it was started".to_owned(),
        };
        write!(self, |tx| {
            let reaped: Vec<JobRecord> =
                sqlx::query_as(sql).bind(millis(backoff)).bind(Json(&lost)).fetch_all(&mut *tx).await?;
            for job in &reaped {
                append_event!(self, tx, &job.id, event_after(job), json!({ "reason": lost.code }));
            }
            reaped
        })
    }

    /// Ends all leases, if the database is a file of this machine. For a process that knows that it is the only one: the
    /// reaper need not wait for workers that died with the last one.
    pub(super) async fn expire_leases_of_this_machine(&self) -> Result<(), StoreError> {
        const JOBS: &str = "UPDATE jobs SET lease_until = 0 WHERE lease_until IS NOT NULL";
        const DELIVERIES: &str = "UPDATE webhook_deliveries SET lease_until = NULL WHERE lease_until IS NOT NULL";
        match &self.database {
            Database::Sqlite { writer, .. } => {
                sqlx::query(JOBS).execute(writer).await?;
                sqlx::query(DELIVERIES).execute(writer).await?;
            }
            Database::Postgres(_) => {}
        }
        Ok(())
    }

    /// Gives a job back after a failure that may pass (a full disk, a lost connection), to be started again after
    /// `backoff`; ends it with `failure` when it was started too often or asked to stop.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn retry(&self, held: &Lease, backoff: Duration, failure: &Failure) -> Result<JobRecord, StoreError> {
        const SQL: &str = "UPDATE jobs SET lease_until = NULL, worker = NULL, \
             state = CASE WHEN state = 'cancelling' THEN 'cancelled' WHEN attempt >= max_attempts THEN 'failed' \
             ELSE 'queued' END, \
             finished_at = CASE WHEN state = 'cancelling' OR attempt >= max_attempts \
             THEN (SELECT now_ms FROM clock) END, \
             failure = CASE WHEN state = 'running' AND attempt >= max_attempts THEN $4 ELSE failure END, \
             run_at = (SELECT now_ms FROM clock) + ($3 << CASE WHEN attempt < 8 THEN CAST(attempt AS INTEGER) - 1 \
             ELSE 7 END) WHERE id = $1 AND attempt = $2 AND state IN ('running', 'cancelling') RETURNING *";
        let failure = &failure.storable();
        write!(self, |tx| {
            let job: Option<JobRecord> = sqlx::query_as(SQL)
                .bind(&held.job)
                .bind(held.attempt)
                .bind(millis(backoff))
                .bind(Json(failure))
                .fetch_optional(&mut *tx)
                .await?;
            let job = job.ok_or_else(|| held.lost())?;
            append_event!(self, tx, &job.id, event_after(&job), failure);
            job
        })
    }
}

#[cfg(test)]
impl Store {
    /// Keeps a job's row locked for a while, as those do who end it.
    pub(crate) async fn lock_job(&self, held: &Lease, time: Duration) -> Result<(), StoreError> {
        write!(self, |tx| {
            hold!(self, tx, held);
            tokio::time::sleep(time).await;
        })
    }
}

impl Lease {
    /// The error of one who reports with a lease that is over.
    pub(super) fn lost(&self) -> StoreError {
        StoreError::LeaseLost { job: self.job.to_string(), attempt: self.attempt }
    }
}

/// The event that tells of the state a job was just put in.
fn event_after(job: &JobRecord) -> EventKind {
    match job.state {
        JobState::Queued => EventKind::Requeued,
        JobState::Running => EventKind::Started,
        JobState::Cancelling => EventKind::Cancelling,
        JobState::Succeeded => EventKind::Succeeded,
        JobState::Failed => EventKind::Failed,
        JobState::Cancelled => EventKind::Cancelled,
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
