//! Request bodies, read with a limit and without endless patience.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::Error;

/// Time that may pass between two chunks of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a refused body is still read, so that a client that is writing gets to see why it was refused instead
/// of a reset connection.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The chunks of `body`.
pub fn chunks(body: Body) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin {
    body.into_data_stream().map(|chunk| chunk.map_err(|error| Error::BodyAborted(error.to_string())))
}

/// The next chunk of `stream`.
///
/// # Errors
/// Those of the stream; [`Error::BodyStalled`] when nothing arrives for too long.
pub async fn next_chunk(
    stream: &mut (impl Stream<Item = Result<Bytes, Error>> + Unpin),
) -> Result<Option<Bytes>, Error> {
    let stalled = |_| Error::BodyStalled { idle_seconds: IDLE_TIMEOUT.as_secs() };
    tokio::time::timeout(IDLE_TIMEOUT, stream.next()).await.map_err(stalled)?.transpose()
}

/// All of `body`, in memory.
///
/// # Errors
/// [`Error::TooLarge`] beyond `limit_bytes`; [`Error::BodyAborted`], [`Error::BodyStalled`].
pub async fn collect(body: Body, limit_bytes: usize) -> Result<Vec<u8>, Error> {
    let mut stream = chunks(body);
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(&mut stream).await? {
        if chunk.len() > limit_bytes - bytes.len() {
            drain(&mut stream).await;
            return Err(Error::TooLarge { limit_bytes: limit_bytes as u64 });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads and forgets the rest of a body that is about to be refused, within bounds.
pub async fn drain(stream: &mut (impl Stream<Item = Result<Bytes, Error>> + Unpin)) {
    let read = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, read).await;
}
