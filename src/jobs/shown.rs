//! A job as clients see it, in answers and in messages to webhooks.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::storage::{Failure, JobId, JobRecord, JobState, Metadata, NewMetric, Timestamp};

use super::spec::ShownSpec;
use super::{JobKind, JobResult};

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct Job {
    pub id: JobId,
    /// The search that it is a trial of.
    parent: Option<JobId>,
    kind: JobKind,
    status: JobState,
    /// The model's name.
    model: String,
    progress: JobProgress,
    /// What was asked for.
    #[schema(value_type = ShownSpec)]
    spec: Value,
    /// What users note about it.
    metadata: Metadata,
    /// What it measured: a row per metric of version 0 (before) and of the version made or measured (after).
    #[schema(value_type = Vec<NewMetric>)]
    metrics: Value,
    /// What it produced, once it succeeded.
    #[schema(value_type = Option<JobResult>)]
    result: Option<Value>,
    /// Why it failed, once it did.
    failure: Option<Failure>,
    /// Starts so far: more than one when a worker was lost.
    attempt: i64,
    max_attempts: i64,
    priority: i64,
    created_at: Timestamp,
    /// Start of the latest attempt.
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    urls: JobUrls,
}

/// How far a job is.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobProgress {
    /// From 0 to 1.
    fraction: f64,
    /// For programs, e.g. `compress`.
    stage: String,
    /// For people.
    message: String,
    /// While the job runs and enough is done to tell: about how many seconds the rest takes.
    remaining_seconds: Option<f64>,
}

/// Where to go from a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobUrls {
    #[serde(rename = "self")]
    own: String,
    events: String,
    cancel: String,
    /// The version that was made or measured, once there is one.
    version: Option<String>,
    /// The file of that version.
    content: Option<String>,
}

impl From<JobRecord> for Job {
    fn from(job: JobRecord) -> Self {
        Self {
            urls: JobUrls::of(&job),
            progress: JobProgress {
                fraction: job.fraction,
                stage: job.stage,
                message: job.message,
                remaining_seconds: job.remaining_seconds.filter(|_| job.state == JobState::Running),
            },
            id: job.id,
            parent: job.parent_id,
            kind: job.kind,
            status: job.state,
            model: job.model,
            spec: job.spec,
            metadata: job.metadata,
            metrics: metrics_of(job.result.as_ref()),
            result: job.result,
            failure: job.failure,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            priority: job.priority,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        }
    }
}

/// The rows of a result; none before there is one.
fn metrics_of(result: Option<&Value>) -> Value {
    result.map_or_else(|| Value::Array(Vec::new()), |result| result["metrics"].clone())
}

impl JobUrls {
    fn of(job: &JobRecord) -> Self {
        let own = format!("/api/v1/jobs/{}", job.id);
        let number = job.result.as_ref().and_then(|result| result["version"].as_i64());
        let version = number.map(|number| format!("/api/v1/models/{}/versions/{number}", job.model));
        Self {
            events: format!("{own}/events"),
            cancel: format!("{own}/cancel"),
            content: version.as_ref().map(|version| format!("{version}/content")),
            version,
            own,
        }
    }
}
