//! Word of changed jobs, so that waiting needs no polling within a process, nor between processes that hear each other.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

use crate::storage::{EventKind, Heard, JobId};

/// Changes that a slow listener may fall behind before it is told to look for itself.
const BACKLOG: usize = 1024;
/// How often to look whether another process changed a job, for it may not have been heard.
const RECHECK: Duration = Duration::from_millis(500);

/// Spreads the word.
#[derive(Debug)]
pub(super) struct Changes {
    changed: broadcast::Sender<JobId>,
    cancelled: broadcast::Sender<JobId>,
    /// Woken when a job can be claimed.
    pub(super) queued: Notify,
}

impl Changes {
    pub(super) fn new() -> Self {
        let (changed, cancelled) = (broadcast::Sender::new(BACKLOG), broadcast::Sender::new(BACKLOG));
        Self { changed, cancelled, queued: Notify::new() }
    }

    /// Tells those who wait for `job`.
    pub(super) fn announce(&self, job: &JobId) {
        // Nobody listening is fine.
        let _ = self.changed.send(job.clone());
    }

    /// Tells the worker that runs `job` to look at it.
    pub(super) fn announce_cancel(&self, job: &JobId) {
        let _ = self.cancelled.send(job.clone());
    }

    /// Passes on what another process did.
    pub(super) fn pass_on(&self, Heard { job, kind }: &Heard) {
        self.announce(job);
        match kind {
            EventKind::Queued | EventKind::Requeued => self.queued.notify_one(),
            EventKind::Cancelling => self.announce_cancel(job),
            _ => {}
        }
    }

    /// Watches a job for any change.
    pub(super) fn watch(&self, job: &JobId) -> Watch {
        Watch { job: job.clone(), changed: self.changed.subscribe() }
    }

    /// Watches a job for being cancelled.
    pub(super) fn watch_cancel(&self, job: &JobId) -> Watch {
        Watch { job: job.clone(), changed: self.cancelled.subscribe() }
    }
}

/// Waits for changes of one job.
#[derive(Debug)]
pub struct Watch {
    job: JobId,
    changed: broadcast::Receiver<JobId>,
}

impl Watch {
    /// Returns once the job may have changed since this watch was made, or since the last call: this process changed
    /// it, or another that it hears, or half a second passed. Safe to drop and call again.
    pub async fn changed(&mut self) {
        let _elapsed = tokio::time::timeout(RECHECK, self.announced()).await;
    }

    /// Returns once it is said that the job changed.
    pub(super) async fn announced(&mut self) {
        loop {
            match self.changed.recv().await {
                Ok(job) if job == self.job => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return,
                // The sender lives as long as the queue: never come back.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
