//! Progress of many layers at once, weighted by the weights that were worked on.

use std::sync::{Mutex, PoisonError};

use crate::progress::{Cancelled, Progress};

/// Counts work done by several threads and reports it in order.
pub(super) struct Meter<'a> {
    progress: &'a dyn Progress,
    total: u64,
    done: Mutex<u64>,
}

impl<'a> Meter<'a> {
    /// `total` is the work of the whole compression, in any unit.
    pub(super) fn new(progress: &'a dyn Progress, total: u64) -> Self {
        Self { progress, total: total.max(1), done: Mutex::new(0) }
    }

    /// Reports that `work` more is done. Fails when the caller asked to stop.
    pub(super) fn advance(&self, work: u64, stage: &str, message: &str) -> Result<(), Cancelled> {
        {
            // Reported under the lock, so that no thread reports an older fraction after a newer one.
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            *done = (*done + work).min(self.total);
            self.progress.report(*done as f64 / self.total as f64, stage, message);
        }
        self.progress.check()
    }

    /// For the methods inside a layer: they may ask whether to stop, but what they report is not the whole's progress.
    pub(super) fn inner(&self) -> impl Progress + '_ {
        CancelOnly(self.progress)
    }
}

struct CancelOnly<'a>(&'a dyn Progress);

impl Progress for CancelOnly<'_> {
    fn report(&self, _fraction: f64, _stage: &str, _message: &str) {}

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
