//! Jobs as rows, and what happened to each.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use utoipa::ToSchema;

use crate::jobs::JobKind;

use super::database::{Database, read};
use super::{JobId, Kind, Metadata, ModelId, Page, Store, StoreError, TenantId, Timestamp};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// A worker holds its lease.
    Running,
    /// A worker holds its lease and was asked to stop.
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Cancelling, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The word for it, in JSON, in the database and in labels of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct JobRecord {
    pub id: JobId,
    pub tenant_id: TenantId,
    /// The search that it is a trial of.
    pub parent_id: Option<JobId>,
    pub kind: JobKind,
    pub state: JobState,
    /// A higher one is claimed first.
    pub priority: i64,
    /// What was asked for: a [`crate::jobs::JobSpec`].
    #[sqlx(json)]
    pub spec: Value,
    /// What users note about it.
    #[sqlx(json)]
    pub metadata: Metadata,
    /// `None` once the model is deleted.
    pub model_id: Option<ModelId>,
    /// The model's name.
    pub model: String,
    /// Progress from 0 to 1; never falls within an attempt.
    pub fraction: f64,
    /// A word for programs, e.g. `compress`.
    pub stage: String,
    /// For people.
    pub message: String,
    /// Estimate at the latest progress; `None` before there is one.
    pub remaining_seconds: Option<f64>,
    /// Starts so far; also the fencing token of the lease.
    pub attempt: i64,
    pub max_attempts: i64,
    /// What it produced: a [`crate::jobs::JobResult`], once it succeeded; of a search that was cancelled, what it had found.
    #[sqlx(json(nullable))]
    pub result: Option<Value>,
    /// Why it failed, once it did.
    #[sqlx(json(nullable))]
    pub failure: Option<Failure>,
    /// Not claimed before this moment.
    pub run_at: Timestamp,
    /// The worker must be heard of by then.
    pub lease_until: Option<Timestamp>,
    pub created_at: Timestamp,
    /// Start of the latest attempt.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// The trace of the request that asked for it, as a W3C `traceparent`.
    pub traceparent: Option<String>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// For programs: `invalid_recipe`, `data_mismatch`, `worker_lost`, `internal`, ...
    pub code: String,
    /// For people.
    pub detail: String,
}

impl Failure {
    /// The failure as both databases can hold it: Postgres has no NUL in text.
    pub(super) fn storable(&self) -> Self {
        Self { code: self.code.clone(), detail: self.detail.replace('\0', "\u{fffd}") }
    }
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow, ToSchema)]
pub struct JobEvent {
    /// Counts up from 1 without gaps; the id of a server-sent event.
    pub seq: i64,
    pub kind: EventKind,
    pub attempt: i64,
    /// What there is to say: `{fraction, stage, message, remaining_seconds}` of a progress, the failure of a `failed`, ...
    #[sqlx(json)]
    #[schema(value_type = Object)]
    pub data: Value,
    pub at: Timestamp,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It entered the queue.
    Queued,
    /// A worker took it.
    Started,
    Progress,
    /// Its worker gave it back or was lost; it waits again.
    Requeued,
    /// Someone asked it to stop.
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobFilter {
    pub state: Option<JobState>,
    pub kind: Option<JobKind>,
    /// Jobs that are parts of this one; without it, and without a kind, those that are parts of none.
    pub parent: Option<JobId>,
    /// A model's name.
    pub model: Option<String>,
    /// Pairs that they all have.
    pub metadata: Metadata,
}

/// Jobs of a page, with `$result` for their results.
macro_rules! list_jobs {
    ($result:literal) => {
        concat!(
            "SELECT id, tenant_id, parent_id, kind, state, priority, spec, metadata, model_id, model, fraction, stage, message, ",
            "remaining_seconds, attempt, ",
            "max_attempts, failure, run_at, lease_until, created_at, started_at, finished_at, traceparent, ",
            $result,
            " AS result FROM jobs WHERE tenant_id = $1 AND ($2 IS NULL OR id < $2) ",
            "AND ($3 IS NULL OR state = $3) AND ($4 IS NULL OR kind = $4) AND ($5 IS NULL OR model = $5) ",
            "AND (parent_id = $6 OR $6 IS NULL AND (parent_id IS NULL OR $4 IS NOT NULL))"
        )
    };
}

impl Store {
    /// Whether the job of any tenant is there and not over.
    pub(super) async fn is_unfinished(&self, id: &JobId) -> Result<bool, StoreError> {
        const SQL: &str = "SELECT COUNT(*) FROM jobs WHERE id = $1 AND state IN ('queued', 'running', 'cancelling')";
        let jobs: i64 = read!(self, |pool| { sqlx::query_scalar(SQL).bind(id).fetch_one(pool).await? });
        Ok(jobs > 0)
    }

    /// The job `id`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job(&self, id: &JobId) -> Result<JobRecord, StoreError> {
        const SQL: &str = "SELECT * FROM jobs WHERE tenant_id = $1 AND id = $2";
        let found = read!(self, |pool| { sqlx::query_as(SQL).bind(&self.tenant).bind(id).fetch_optional(pool).await? });
        found.ok_or_else(|| Kind::Job.not_found(id.as_str()))
    }

    /// Jobs, newest first, those before `page.after` (an id); their results without the report.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn jobs(&self, filter: &JobFilter, page: &Page) -> Result<Vec<JobRecord>, StoreError> {
        const PAIRS: &str = "AND id IN (SELECT job_id FROM job_metadata WHERE tenant_id = $1";
        let jobs = match &self.database {
            Database::Sqlite { .. } => list_jobs!("json_remove(result, '$.report')"),
            Database::Postgres(_) => list_jobs!("result - 'report'"),
        };
        let sql = format!("{jobs}{} ORDER BY id DESC LIMIT $7", filter.metadata.condition(PAIRS, 8));
        Ok(read!(self, |pool| {
            let listed = sqlx::query_as(AssertSqlSafe(sql))
                .bind(&self.tenant)
                .bind(&page.after)
                .bind(filter.state)
                .bind(filter.kind)
                .bind(&filter.model)
                .bind(&filter.parent)
                .bind(page.limit);
            let pairs = filter.metadata.iter();
            pairs.fold(listed, |listed, (key, value)| listed.bind(key).bind(value)).fetch_all(pool).await?
        }))
    }

    /// Events of a job in order, those with a `seq` above `after`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn events(&self, job: &JobId, after: i64, limit: i64) -> Result<Vec<JobEvent>, StoreError> {
        const SQL: &str =
            "SELECT * FROM job_events WHERE tenant_id = $1 AND job_id = $2 AND seq > $3 ORDER BY seq LIMIT $4";
        Ok(read!(self, |pool| {
            sqlx::query_as(SQL).bind(&self.tenant).bind(job).bind(after).bind(limit).fetch_all(pool).await?
        }))
    }

    /// Counts jobs by state, all tenants; every state is there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn job_counts(&self) -> Result<Vec<(JobState, i64)>, StoreError> {
        const SQL: &str = "SELECT state, COUNT(*) FROM jobs GROUP BY state";
        let found: Vec<(JobState, i64)> = read!(self, |pool| { sqlx::query_as(SQL).fetch_all(pool).await? });
        let count = |state| found.iter().find(|(other, _)| *other == state).map_or(0, |(_, jobs)| *jobs);
        Ok(JobState::ALL.map(|state| (state, count(state))).to_vec())
    }
}
