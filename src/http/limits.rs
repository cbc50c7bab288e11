//! What requests may hold at a time, all clients together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;

/// Bodies of predictions in memory, in bytes. Their elements take more (up to four times as much), but are read on the
/// executor, few at a time; only those that wait for others to share a batch stay.
const PREDICTION_BYTES: usize = 256 << 20;

/// Weight of one permit, in bytes, so that permits are few.
const GRAIN_BYTES: usize = 1 << 10;

/// Exported files on disk, being written or sent.
const EXPORTS: usize = 4;

/// Time a request waits for its turn before it is sent away.
const PATIENCE: Duration = Duration::from_secs(10);

/// The shares that are left.
#[derive(Clone)]
pub struct Limits {
    predictions: Arc<Semaphore>,
    exports: Arc<Semaphore>,
}

/// A share of a limit, given back when dropped.
pub struct Share(#[allow(dead_code, reason = "it is held, not read")] OwnedSemaphorePermit);

impl Limits {
    pub fn new() -> Self {
        Self {
            predictions: Arc::new(Semaphore::new(PREDICTION_BYTES / GRAIN_BYTES)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
        }
    }

    /// Waits until a prediction may hold a body of `bytes`.
    ///
    /// # Errors
    /// [`Error::Busy`] when that takes too long.
    pub async fn prediction(&self, bytes: usize) -> Result<Share, Error> {
        take(&self.predictions, bytes.min(PREDICTION_BYTES).div_ceil(GRAIN_BYTES)).await
    }

    /// Waits until one more export may be made.
    ///
    /// # Errors
    /// [`Error::Busy`] when that takes too long.
    pub async fn export(&self) -> Result<Share, Error> {
        take(&self.exports, 1).await
    }
}

async fn take(semaphore: &Arc<Semaphore>, permits: usize) -> Result<Share, Error> {
    let permits = u32::try_from(permits).unwrap_or(u32::MAX);
    let taken = Arc::clone(semaphore).acquire_many_owned(permits);
    // The semaphores are never closed, so the only failure is the time.
    let taken = tokio::time::timeout(PATIENCE, taken).await.ok().and_then(Result::ok);
    taken.map(Share).ok_or(Error::Busy)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn bodies_of_predictions_are_bounded_together() {
        let limits = Limits::new();
        let half = limits.prediction(PREDICTION_BYTES / 2).await.unwrap();
        let rest = limits.prediction(PREDICTION_BYTES / 2).await.unwrap();
        assert!(limits.prediction(1).now_or_never().is_none(), "waits for its turn");
        drop(half);
        assert!(limits.prediction(1).await.is_ok());
        drop(rest);
        assert!(limits.prediction(usize::MAX).await.is_ok(), "the largest waits for all, not for ever");
    }

    #[tokio::test]
    async fn exports_are_bounded() {
        let limits = Limits::new();
        let mut held = Vec::new();
        for _ in 0..EXPORTS {
            held.push(limits.export().await.unwrap());
        }
        assert!(limits.export().now_or_never().is_none(), "waits for its turn");
        held.pop();
        assert!(limits.export().await.is_ok());
    }
}
