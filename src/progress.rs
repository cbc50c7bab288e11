//! Progress and cancellation, carried into every long loop of the core.
//!
//! A caller that wants neither passes [`Silent`]. The service stores what it is told in the job's row; the command
//! line draws a bar.

use std::sync::atomic::{AtomicBool, Ordering};

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
