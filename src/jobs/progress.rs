//! Progress of a job: written by the core from any thread, read by the task that keeps the lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::progress::Progress;
use crate::storage::ProgressNote;

use super::stages::Stages;

/// Less of the work than this says too little of the time that the rest takes.
const LEAST_FRACTION: f64 = 0.01;

/// What a running job has to say, and whether it should stop.
#[derive(Debug)]
pub(super) struct JobProgress {
    started: Instant,
    latest: Mutex<Noted>,
    stages: Mutex<Stages>,
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
    /// Of a job that starts now.
    pub(super) fn new() -> Self {
        let (latest, reported, stopped) = Default::default();
        Self { started: Instant::now(), latest, stages: Mutex::new(Stages::new()), reported, stopped }
    }

    /// The latest report, unless it was taken already.
    pub(super) fn take(&self) -> Option<ProgressNote> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut latest.is_new).then(|| latest.note.clone())
    }

    /// Counts how long each stage took; once, when the work has ended.
    pub(super) fn count_stages(&self) {
        for (stage, spent) in self.stages.lock().unwrap_or_else(PoisonError::into_inner).spent() {
            metrics::histogram!("weightpress_job_stage_duration_seconds", "stage" => stage).record(spent);
        }
    }

    /// Asks the work to stop.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Progress for JobProgress {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).report(stage);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        // Threads race to report: what is shown never goes back.
        let fraction = fraction.clamp(0.0, 1.0).max(latest.note.fraction);
        let remaining_seconds = remaining(self.started.elapsed(), fraction).map(|time| time.as_secs_f64());
        latest.note =
            ProgressNote { fraction, stage: stage.to_owned(), message: message.to_owned(), remaining_seconds };
        latest.is_new = true;
        self.reported.notify_one();
    }

    fn is_cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// The time that is left after `elapsed` for `fraction` of the work, if the rest takes as long as what is done.
fn remaining(elapsed: Duration, fraction: f64) -> Option<Duration> {
    (fraction >= LEAST_FRACTION).then(|| elapsed.mul_f64((1.0 - fraction) / fraction))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Part;

    #[test]
    fn a_report_is_taken_once_and_progress_never_falls() {
        let progress = JobProgress::new();
        assert_eq!(progress.take(), None);
        progress.report(0.5, "compress", "layer 2 of 4");
        progress.report(0.25, "compress", "layer 1 of 4");
        let note = progress.take().expect("a note");
        assert_eq!((note.fraction, note.message.as_str()), (0.5, "layer 1 of 4"));
        assert_eq!(progress.take(), None);
    }

    #[test]
    fn the_rest_takes_as_long_as_what_is_done() {
        let minute = Duration::from_secs(60);
        assert_eq!(remaining(minute, 0.25), Some(3 * minute));
        assert_eq!(remaining(minute, 1.0), Some(Duration::ZERO));
        assert_eq!(remaining(minute, 0.001), None, "too little is done");
    }

    #[test]
    fn a_part_scales_into_the_whole() {
        let progress = JobProgress::new();
        Part { whole: &progress, from: 0.2, to: 0.6 }.report(0.5, "evaluate", "");
        assert_eq!(progress.take().map(|note| note.fraction), Some(0.4));
    }
}
