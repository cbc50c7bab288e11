//! Passes on what other processes do to jobs, where the database tells it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::storage::{Listener, StoreError};

use super::Jobs;
use super::changes::Changes;

/// Between a lost connection and the next; doubles with each that fails.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Listens until `stop`, and again whenever the connection is lost. Returns at once where nobody tells anything.
pub(super) async fn listen(jobs: Jobs, stop: CancellationToken) {
    stop.run_until_cancelled(listen_again_and_again(&jobs)).await;
}

async fn listen_again_and_again(jobs: &Jobs) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let error = match jobs.storage.store.listen().await {
            Ok(None) => return,
            Ok(Some(listener)) => {
                pause = SHORTEST_PAUSE;
                // What happened before was not heard.
                jobs.changes.queued.notify_one();
                pass_on(listener, &jobs.changes).await.err()
            }
            Err(error) => Some(error),
        };
        let error = error.map_or_else(|| "the connection was lost".to_owned(), |error| error.to_string());
        tracing::warn!(error, pause_ms = pause.as_millis(), "other processes are not heard for a while");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Passes on what is heard until the connection is lost.
async fn pass_on(mut listener: Listener, changes: &Changes) -> Result<(), StoreError> {
    while let Some(heard) = listener.next().await? {
        changes.pass_on(&heard);
    }
    Ok(())
}
