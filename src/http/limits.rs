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
pub struct Share(OwnedSemaphorePermit);

/// The share of a body that grows while it arrives, given back when dropped.
pub struct BodyShare {
    limit: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl BodyShare {
    /// Waits until `bytes` more may be held.
    ///
    /// # Errors
    /// [`Error::Busy`] when that takes too long.
    pub async fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.bytes.min(PREDICTION_BYTES).div_ceil(GRAIN_BYTES).saturating_sub(held);
        if more > 0 {
            let Share(permit) = take(&self.limit, more).await?;
            match &mut self.held {
                Some(held) => held.merge(permit),
                None => self.held = Some(permit),
            }
        }
        Ok(())
    }
}

impl Limits {
    pub fn new() -> Self {
        Self {
            predictions: Arc::new(Semaphore::new(PREDICTION_BYTES / GRAIN_BYTES)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
        }
    }

    /// The share of a prediction's body, of which nothing has arrived yet: what a client only announces holds up nobody.
    pub fn prediction(&self) -> BodyShare {
        BodyShare { limit: Arc::clone(&self.predictions), held: None, bytes: 0 }
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
        let (mut half, mut rest, mut other) = (limits.prediction(), limits.prediction(), limits.prediction());
        half.charge(PREDICTION_BYTES / 2).await.unwrap();
        for _ in 0..2 {
            rest.charge(PREDICTION_BYTES / 4).await.unwrap();
        }
        assert!(other.charge(1).now_or_never().is_none(), "waits for its turn");
        drop(half);
        assert!(other.charge(1).await.is_ok());
        drop((rest, other));
        assert!(limits.prediction().charge(usize::MAX).await.is_ok(), "the largest waits for all, not for ever");
    }

    #[tokio::test]
    async fn bodies_of_which_nothing_arrived_hold_nothing() {
        let limits = Limits::new();
        let _waiting: Vec<BodyShare> = (0..1000).map(|_| limits.prediction()).collect();
        assert!(limits.prediction().charge(PREDICTION_BYTES).now_or_never().is_some());
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
