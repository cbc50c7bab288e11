//! Request bodies, read with a limit and without endless patience.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::Error;
use super::limits::BodyShare;

/// Time that may pass between two chunks of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a refused body is still read, and for how long.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The chunks of `body`; an error when it breaks off, and when nothing arrives for too long.
pub fn chunks(body: Body) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin {
    let chunks = stream::unfold(body.into_data_stream(), async |mut body| {
        let chunk = match tokio::time::timeout(IDLE_TIMEOUT, body.next()).await {
            Ok(chunk) => chunk?.map_err(|error| Error::BodyAborted(error.to_string())),
            Err(_) => Err(Error::BodyStalled { idle_seconds: IDLE_TIMEOUT.as_secs() }),
        };
        Some((chunk, body))
    });
    Box::pin(chunks)
}

/// The length that a body is announced with; `None` when it comes in chunks.
pub fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses a body that announces more than `limit_bytes`, before any of it is read.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn refuse_declared(headers: &HeaderMap, limit_bytes: u64) -> Result<(), Error> {
    match declared_length(headers) {
        Some(length) if length > limit_bytes => Err(Error::TooLarge { limit_bytes }),
        _ => Ok(()),
    }
}

/// All of `body`, in memory; `share` grows with it.
///
/// # Errors
/// [`Error::TooLarge`] beyond `limit_bytes`; [`Error::BodyAborted`], [`Error::BodyStalled`]; those of `share`.
pub async fn collect(body: Body, limit_bytes: usize, mut share: Option<&mut BodyShare>) -> Result<Vec<u8>, Error> {
    let mut stream = chunks(body);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.try_next().await? {
        if chunk.len() > limit_bytes - bytes.len() {
            return Err(Error::TooLarge { limit_bytes: limit_bytes as u64 });
        }
        if let Some(share) = &mut share {
            share.charge(chunk.len()).await?;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Middleware that reads, within bounds, what is left of a request's body when the request is refused.
///
/// A connection that is closed with unread bytes is reset, and a client that is still writing would see that instead of
/// the reason. The reason is sent at once, beside the reading, for clients that look out for it. One that said `Expect: 100-continue` does not write before it is told to.
pub async fn drain_when_refused(request: Request, next: Next) -> Response {
    let waits = request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let body = Lent(Arc::new(Mutex::new(body.into_data_stream())));
    let response = next.run(Request::from_parts(head, Body::from_stream(body.stream()))).await;
    if (response.status().is_client_error() || response.status().is_server_error()) && !waits {
        // Whether the rest was short enough is all the same.
        tokio::spawn(async move { drop(tokio::time::timeout(DRAIN_TIME, body.drain()).await) });
    }
    response
}

/// A body whose unread rest can be had back after it was given away.
struct Lent(Arc<Mutex<BodyDataStream>>);

impl Lent {
    fn stream(&self) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + use<> {
        let body = Arc::clone(&self.0);
        stream::poll_fn(move |context| body.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context))
    }

    async fn drain(&self) {
        let mut rest = self.stream();
        let mut left = DRAIN_BYTES;
        while let Some(Ok(chunk)) = rest.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    }
}
