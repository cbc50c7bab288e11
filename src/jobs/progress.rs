//! Progress of a job: written by the core from any thread, read by the task that keeps the lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::progress::Progress;
use crate::storage::ProgressNote;

/// What a running job has to say, and whether it should stop.
#[derive(Debug, Default)]
pub(super) struct JobProgress {
    latest: Mutex<Noted>,
    /// Woken by each report.
    pub(super) reported: Notify,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Noted {
    note: ProgressNote,
    is_new: bool,
}

impl JobProgress {
    /// The latest report, unless it was taken already.
    pub(super) fn take(&self) -> Option<ProgressNote> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut latest.is_new).then(|| latest.note.clone())
    }

    /// Asks the work to stop.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Progress for JobProgress {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        // Threads race to report: what is shown never goes back.
        let fraction = fraction.clamp(0.0, 1.0).max(latest.note.fraction);
        latest.note = ProgressNote { fraction, stage: stage.to_owned(), message: message.to_owned() };
        latest.is_new = true;
        self.reported.notify_one();
    }

    fn is_cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A part of a longer operation, whose own 0 to 1 is `from` to `to` of the whole.
pub(super) struct Part<'a> {
    pub(super) whole: &'a dyn Progress,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Progress for Part<'_> {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        self.whole.report(self.from + fraction.clamp(0.0, 1.0) * (self.to - self.from), stage, message);
    }

    fn is_cancelled(&self) -> bool {
        self.whole.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_taken_once_and_progress_never_falls() {
        let progress = JobProgress::default();
        assert_eq!(progress.take(), None);
        progress.report(0.5, "compress", "layer 2 of 4");
        progress.report(0.25, "compress", "layer 1 of 4");
        let note = progress.take().expect("a note");
        assert_eq!((note.fraction, note.message.as_str()), (0.5, "layer 1 of 4"));
        assert_eq!(progress.take(), None);
    }

    #[test]
    fn a_part_scales_into_the_whole() {
        let progress = JobProgress::default();
        Part { whole: &progress, from: 0.2, to: 0.6 }.report(0.5, "evaluate", "");
        assert_eq!(progress.take().map(|note| note.fraction), Some(0.4));
    }
}
