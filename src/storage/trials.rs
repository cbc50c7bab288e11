//! Trials of a search that are jobs of their own: its parts, and the files that they keep until it is over.

use serde_json::{Value, json};
use sqlx::types::Json;

use crate::jobs::JobResult;

use super::blob_rows::{INSERT, free_blobs, lock_blobs};
use super::database::{Database, read, write};
use super::outcome::SUCCEED;
use super::queue::{append_event, hold};
use super::{EventKind, JobFilter, JobId, JobRecord, JobState, Lease, Page, Published, Store, StoreError, TenantId};

impl Store {
    /// What a search noted before its first trial.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn plan(&self, search: &JobId) -> Result<Option<Value>, StoreError> {
        const SQL: &str = "SELECT plan FROM jobs WHERE tenant_id = $1 AND id = $2 AND plan IS NOT NULL";
        let plan: Option<Json<Value>> =
            read!(self, |pool| sqlx::query_scalar(SQL).bind(&self.tenant).bind(search).fetch_optional(pool).await?);
        Ok(plan.map(|Json(plan)| plan))
    }

    /// Notes it.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn note_plan(&self, held: &Lease, plan: &Value) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE jobs SET plan = $2 WHERE id = $1";
        write!(self, |tx| {
            hold!(self, tx, held);
            sqlx::query(SQL).bind(&held.job).bind(Json(plan)).execute(&mut *tx).await?;
        })
    }

    /// The trials of a search, in the order in which they were queued, without their reports.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn trials(&self, search: &JobId) -> Result<Vec<JobRecord>, StoreError> {
        let filter = JobFilter { parent: Some(search.clone()), ..JobFilter::default() };
        let mut trials = self.jobs(&filter, &Page { after: None, limit: i64::MAX }).await?;
        trials.reverse();
        Ok(trials)
    }

    /// How many trials of a search are in each state that any is in.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn trial_counts(&self, search: &JobId) -> Result<Vec<(JobState, i64)>, StoreError> {
        const SQL: &str = "SELECT state, COUNT(*) FROM jobs WHERE tenant_id = $1 AND parent_id = $2 \
             GROUP BY state ORDER BY state";
        Ok(read!(self, |pool| sqlx::query_as(SQL).bind(&self.tenant).bind(search).fetch_all(pool).await?))
    }

    /// Asks the unfinished trials of a search to stop. Returns which.
    pub(super) async fn cancel_trials(&self, search: &JobId) -> Result<Vec<JobId>, StoreError> {
        const SQL: &str = "SELECT id FROM jobs WHERE tenant_id = $1 AND parent_id = $2 \
             AND state IN ('queued', 'running')";
        let trials: Vec<JobId> =
            read!(self, |pool| sqlx::query_scalar(SQL).bind(&self.tenant).bind(search).fetch_all(pool).await?);
        for trial in &trials {
            self.cancel(trial).await?;
        }
        Ok(trials)
    }

    /// Ends a trial whose search is not over.
    pub(super) async fn finish_trial(
        &self,
        held: &Lease,
        result: &JobResult,
        blobs: &[Published<'_>],
    ) -> Result<JobRecord, StoreError> {
        const SEARCH: &str = "SELECT COUNT(*) FROM jobs p WHERE p.id = (SELECT parent_id FROM jobs WHERE id = $1) \
             AND p.state IN ('queued', 'running', 'cancelling')";
        const KEEP: &str = "INSERT INTO job_blobs (tenant_id, job_id, sha256) VALUES ($1, $2, $3) \
             ON CONFLICT (job_id, sha256) DO NOTHING";
        write!(self, |tx| {
            lock_blobs!(self, tx);
            let is_wanted: i64 = sqlx::query_scalar(SEARCH).bind(&held.job).fetch_one(&mut *tx).await?;
            let job: Option<JobRecord> = match is_wanted {
                0 => None,
                _ => {
                    let ended = sqlx::query_as(SUCCEED).bind(&held.job).bind(held.attempt).bind(Json(result));
                    ended.fetch_optional(&mut *tx).await?
                }
            };
            let job = job.ok_or_else(|| held.lost())?;
            for blob in blobs {
                // Not counted against the tenant's bound, as what a search alone keeps is not.
                let insert = sqlx::query(INSERT).bind(&self.tenant).bind(&blob.sha256).bind(blob.size_bytes);
                insert.execute(&mut *tx).await?;
                sqlx::query(KEEP).bind(&self.tenant).bind(&held.job).bind(&blob.sha256).execute(&mut *tx).await?;
            }
            append_event!(self, tx, &held.job, EventKind::Succeeded, json!({}));
            job
        })
    }

    /// Forgets the files of the trials of a search, and their reports. Returns the hashes of the files that nothing else wants.
    pub(super) async fn release_trials(&self, search: &JobId) -> Result<Vec<String>, StoreError> {
        let forget_reports = match &self.database {
            Database::Sqlite { .. } => {
                "UPDATE jobs SET result = json_remove(result, '$.report') WHERE tenant_id = $1 AND parent_id = $2"
            }
            Database::Postgres(_) => {
                "UPDATE jobs SET result = result - 'report' WHERE tenant_id = $1 AND parent_id = $2"
            }
        };
        const SQL: &str = "DELETE FROM job_blobs WHERE tenant_id = $1 \
             AND job_id IN (SELECT id FROM jobs WHERE parent_id = $2) RETURNING sha256";
        write!(self, |tx| {
            lock_blobs!(self, tx);
            let released: Vec<String> =
                sqlx::query_scalar(SQL).bind(&self.tenant).bind(search).fetch_all(&mut *tx).await?;
            sqlx::query(forget_reports).bind(&self.tenant).bind(search).execute(&mut *tx).await?;
            free_blobs!(self, tx, &released)
        })
    }

    /// Searches of all tenants that are over, or gone, and whose trials are at work still or keep files.
    pub(super) async fn searches_to_clear(&self) -> Result<Vec<(TenantId, JobId)>, StoreError> {
        const SQL: &str = "SELECT DISTINCT t.tenant_id, t.parent_id FROM jobs t WHERE t.parent_id IS NOT NULL \
             AND (t.state IN ('queued', 'running') OR EXISTS (SELECT 1 FROM job_blobs b WHERE b.job_id = t.id)) \
             AND NOT EXISTS (SELECT 1 FROM jobs p WHERE p.id = t.parent_id \
             AND p.state IN ('queued', 'running', 'cancelling'))";
        Ok(read!(self, |pool| sqlx::query_as(SQL).fetch_all(pool).await?))
    }
}
