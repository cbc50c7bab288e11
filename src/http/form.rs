//! `multipart/form-data`: the one part that has a file name, read within bounds.
//!
//! The parser buffers the heads of parts without a limit, skips parts uncounted, and takes whatever is ready at once. So
//! the stream below it counts, hands out one chunk at a time, and breaks off once too much has passed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::upload::Sink;
use super::{Error, body};

/// What a form may hold before its file, in bytes, and besides its file altogether.
pub const OVERHEAD_BYTES: u64 = 64 << 10;

/// Receives the first part that is a file; other parts are ignored.
///
/// # Errors
/// [`Error::TooLarge`] when the file, or the form around it, is; [`Error::InvalidMultipart`]; and whatever is wrong with
/// the body.
pub async fn receive_file(request: Request, sink: &mut Sink) -> Result<(), Error> {
    let gate = Gate::new(OVERHEAD_BYTES);
    let refused = |error: MultipartError| gate.failure().unwrap_or_else(|| Error::InvalidMultipart(error.body_text()));
    let request = request.map(|body| Body::from_stream(gate.guard(body::chunks(body))));
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|rejection| Error::InvalidMultipart(rejection.body_text()))?;
    while let Some(part) = form.next_field().await.map_err(refused)? {
        if part.file_name().is_some() {
            gate.widen(sink.limit_bytes().saturating_add(OVERHEAD_BYTES));
            return sink.fill(part.map(|chunk| chunk.map_err(refused))).await;
        }
    }
    Err(Error::InvalidMultipart("has no part with a file name".to_owned()))
}

/// Bounds what passes from a body to the parser of its form, and keeps why it broke off: the parser has errors of its own.
#[derive(Clone)]
struct Gate(Arc<Mutex<Passage>>);

struct Passage {
    passed_bytes: u64,
    limit_bytes: u64,
    failure: Option<Error>,
}

/// The chunks ended in an error, which the gate keeps.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
struct Broken;

impl Gate {
    fn new(limit_bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Passage { passed_bytes: 0, limit_bytes, failure: None })))
    }

    fn passage(&self) -> MutexGuard<'_, Passage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn widen(&self, limit_bytes: u64) {
        self.passage().limit_bytes = limit_bytes;
    }

    fn failure(&self) -> Option<Error> {
        self.passage().failure.take()
    }

    /// The `chunks`, until more than the limit has passed. Looks only before it asks for another chunk: the last one may
    /// hold what widens the limit.
    fn guard(
        &self,
        mut chunks: impl Stream<Item = Result<Bytes, Error>> + Unpin + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, Broken>> + Send + 'static {
        let gate = self.clone();
        let mut rests = false;
        stream::poll_fn(move |context: &mut Context<'_>| {
            // A parser that is told to come back first works off what it has.
            if std::mem::take(&mut rests) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut passage = gate.passage();
            if passage.passed_bytes > passage.limit_bytes {
                passage.failure = Some(Error::TooLarge { limit_bytes: passage.limit_bytes });
                return Poll::Ready(Some(Err(Broken)));
            }
            let chunk = std::task::ready!(chunks.poll_next_unpin(context));
            rests = true;
            Poll::Ready(chunk.map(|chunk| match chunk {
                Ok(chunk) => {
                    passage.passed_bytes += chunk.len() as u64;
                    Ok(chunk)
                }
                Err(error) => {
                    passage.failure = Some(error);
                    Err(Broken)
                }
            }))
        })
    }
}
