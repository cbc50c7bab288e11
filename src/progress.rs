//! Progress and cancellation, carried into every long loop of the core.
//!
//! A caller that wants neither passes [`Silent`]. The service stores what it is told in the job's row; the command
//! line draws a bar.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Receives the progress of a long operation and may ask it to stop. Called from several threads at once.
pub trait Progress: Sync {
    /// Reports that `fraction` (0 to 1, never falling) of the work is done. `stage` is a machine-readable word such as
    /// `compress`; `message` is for people.
    fn report(&self, fraction: f64, stage: &str, message: &str);

    /// Returns true once the operation should stop. Cheap enough to ask in a loop.
    fn is_cancelled(&self) -> bool;

    /// Fails when the operation should stop.
    ///
    /// # Errors
    /// [`Cancelled`] once [`Progress::is_cancelled`] is true.
    fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

/// The operation was stopped by its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Listens to nothing and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _fraction: f64, _stage: &str, _message: &str) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A flag that one thread raises and others read: the plainest cancellable [`Progress`].
#[derive(Debug, Default)]
pub struct CancelFlag(AtomicBool);

impl CancelFlag {
    /// Asks every operation that carries this flag to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Progress for CancelFlag {
    fn report(&self, _fraction: f64, _stage: &str, _message: &str) {}

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stretch of a longer operation: what is reported here moves the whole from one fraction to another.
pub struct Part<'a> {
    /// What listens to the whole.
    pub whole: &'a dyn Progress,
    /// Where it stands before this part, 0 to 1.
    pub from: f64,
    /// Where it stands behind it.
    pub to: f64,
}

impl Progress for Part<'_> {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        self.whole.report(self.from + fraction.clamp(0.0, 1.0) * (self.to - self.from), stage, message);
    }

    fn is_cancelled(&self) -> bool {
        self.whole.is_cancelled()
    }
}

/// Lets an operation be stopped, and keeps what it reports from the whole's progress.
pub struct CancelOnly<'a>(pub &'a dyn Progress);

impl Progress for CancelOnly<'_> {
    fn report(&self, _fraction: f64, _stage: &str, _message: &str) {}

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Puts a label in front of what is told to people.
pub struct Labelled<'a> {
    /// What listens.
    pub progress: &'a dyn Progress,
    /// Set off from the message by a colon.
    pub label: String,
}

impl Progress for Labelled<'_> {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        self.progress.report(fraction, stage, &format!("{}: {message}", self.label));
    }

    fn is_cancelled(&self) -> bool {
        self.progress.is_cancelled()
    }
}

/// Work in several shares, side by side or one after the other, whose progress is told as one.
pub struct Whole<'a> {
    progress: &'a dyn Progress,
    total: f64,
    done: Mutex<f64>,
}

impl<'a> Whole<'a> {
    /// `total` is all of the work, in any unit.
    pub fn new(progress: &'a dyn Progress, total: u64) -> Self {
        Self { progress, total: total.max(1) as f64, done: Mutex::new(0.0) }
    }

    /// Reports that `work` more is done.
    pub fn add(&self, work: f64, stage: &str, message: &str) {
        // Reported under the lock, so that no thread reports an older fraction after a newer one.
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = (*done + work).min(self.total);
        self.progress.report(*done / self.total, stage, message);
    }

    /// A share that is `work` of the total.
    pub fn share(&self, work: u64) -> Share<'_> {
        Share { whole: self, work: work as f64, told: Mutex::new(0.0) }
    }

    /// What listens.
    pub fn progress(&self) -> &dyn Progress {
        self.progress
    }
}

/// A share of a [`Whole`]; its reports move the whole's progress.
pub struct Share<'a> {
    whole: &'a Whole<'a>,
    work: f64,
    /// The largest fraction reported.
    told: Mutex<f64>,
}

impl Progress for Share<'_> {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let more = fraction.min(1.0) - *told;
        if more > 0.0 {
            *told += more;
            self.whole.add(more * self.work, stage, message);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.whole.progress.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it is told.
    #[derive(Default)]
    struct Told(Mutex<Vec<f64>>);

    impl Progress for Told {
        fn report(&self, fraction: f64, _stage: &str, _message: &str) {
            self.0.lock().unwrap().push(fraction);
        }

        fn is_cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn shares_move_the_whole_by_their_work_and_never_back() {
        let told = Told::default();
        let whole = Whole::new(&told, 8);
        let (small, large) = (whole.share(2), whole.share(6));
        small.report(0.5, "", "");
        large.report(0.5, "", "");
        large.report(0.25, "", "");
        small.report(2.0, "", "");
        large.report(1.0, "", "");
        assert_eq!(*told.0.lock().unwrap(), [0.125, 0.5, 0.625, 1.0]);
    }
}
