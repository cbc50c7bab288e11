//! What is deleted of finished jobs once they are old: their events, or all of them; of all tenants.
//!
//! With a job go its events, its metadata, the names of requests that made it, and the messages that told of it; one that is
//! still to be sent keeps it. What it made and measured stays: versions and metrics name a job that is no more.
//!
//! Each transaction is bounded, and others get their turn before the next: SQLite has one writer.

use std::time::Duration;

use super::database::{skip_locked, write};
use super::queue::millis;
use super::{JobId, Store, StoreError};

/// Most jobs that one transaction looks at.
const JOBS: i64 = 100;
/// Most events that one transaction deletes.
const EVENTS: i64 = 1000;
/// Between two transactions.
const PAUSE: Duration = Duration::from_millis(100);

impl Store {
    /// Deletes jobs that were over for longer than `kept`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Database`]; what is left is deleted the next time.
    pub async fn forget_old_jobs(&self, kept: Duration) -> Result<u64, StoreError> {
        let sql = skip_locked!(
            self,
            "DELETE FROM jobs WHERE id IN (SELECT j.id FROM jobs j WHERE j.has_events = false \
             AND j.finished_at < (SELECT now_ms FROM clock) - $1 \
             AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.job_id = j.id AND d.state = 'pending') \
             AND NOT EXISTS (SELECT 1 FROM job_blobs b WHERE b.job_id = j.id) \
             AND NOT EXISTS (SELECT 1 FROM jobs p WHERE p.id = j.parent_id \
             AND p.state IN ('queued', 'running', 'cancelling')) \
             ORDER BY j.finished_at LIMIT $2",
            ")"
        );
        // Of events a job may have any number.
        self.forget_old_events(kept).await?;
        let mut forgotten = 0;
        loop {
            let deleted: Result<u64, StoreError> = write!(self, |tx| {
                sqlx::query(sql).bind(millis(kept)).bind(JOBS).execute(&mut *tx).await?.rows_affected()
            });
            let deleted = deleted?;
            forgotten += deleted;
            if deleted < JOBS as u64 {
                return Ok(forgotten);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Deletes the events of jobs that were over for longer than `kept`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Database`]; what is left is deleted the next time.
    pub async fn forget_old_events(&self, kept: Duration) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let (deleted, is_last) = self.forget_some_events(kept).await?;
            forgotten += deleted;
            if is_last {
                return Ok(forgotten);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One transaction of [`Store::forget_old_events`]: how many it deleted, and whether none is left.
    async fn forget_some_events(&self, kept: Duration) -> Result<(u64, bool), StoreError> {
        let due = skip_locked!(
            self,
            "SELECT id FROM jobs WHERE has_events = true AND finished_at < (SELECT now_ms FROM clock) - $1 \
             ORDER BY finished_at LIMIT $2",
            ""
        );
        const DELETE: &str = "DELETE FROM job_events WHERE job_id = $1 \
             AND seq IN (SELECT seq FROM job_events WHERE job_id = $1 ORDER BY seq LIMIT $2)";
        const NOTE: &str = "UPDATE jobs SET has_events = false WHERE id = $1";
        write!(self, |tx| {
            let jobs: Vec<JobId> = sqlx::query_scalar(due).bind(millis(kept)).bind(JOBS).fetch_all(&mut *tx).await?;
            let mut room = EVENTS;
            for job in &jobs {
                let deleted = sqlx::query(DELETE).bind(job).bind(room).execute(&mut *tx).await?.rows_affected();
                room -= deleted as i64;
                if room == 0 {
                    // It may have more.
                    break;
                }
                sqlx::query(NOTE).bind(job).execute(&mut *tx).await?;
            }
            ((EVENTS - room) as u64, room > 0 && (jobs.len() as i64) < JOBS)
        })
    }
}
