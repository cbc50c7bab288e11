//! Files that go out: entity tags, ranges, digests and a name to save under.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use crate::storage::{Blobs, StagedBlob};

use super::limits::Share;
use super::range::ByteRange;
use super::{Error, digest, range};

/// Size of the chunks in which a file is sent, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Time in which a client must take a chunk of a file that is kept for it alone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The type of bytes that are no text.
pub const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A file about to be sent, but for its bytes.
pub struct Download {
    /// Hex, of the whole file.
    pub sha256: String,
    pub size_bytes: u64,
    /// Changes whenever the bytes do.
    pub entity_tag: HeaderValue,
    /// Names are safe in a header as they are.
    pub file_name: String,
}

impl Download {
    /// Answers `request` with the blob of this file, or the part of it that was asked for.
    ///
    /// # Errors
    /// [`Error::RangeNotSatisfiable`]; [`Error::Store`] when the blob cannot be read.
    pub async fn send_blob(self, request: &HeaderMap, blobs: &Blobs) -> Result<Response, Error> {
        if digest::none_match(request, &self.entity_tag) {
            return Ok(not_modified(&self.entity_tag));
        }
        let part = range::requested(request, &self.entity_tag, self.size_bytes)?;
        let bytes = part.map_or(0..self.size_bytes, |part| part.first..part.last + 1);
        let body = Body::from_stream(blobs.read(&self.sha256, bytes).await?);
        Ok(self.respond(part, body))
    }

    /// Answers `request` with `file`, which is gone, and `share` given back, once it was sent or nobody reads on.
    ///
    /// # Errors
    /// [`Error::RangeNotSatisfiable`]; [`Error::Internal`] when the file cannot be read.
    pub async fn send_staged(self, request: &HeaderMap, file: StagedBlob, share: Share) -> Result<Response, Error> {
        let part = range::requested(request, &self.entity_tag, self.size_bytes)?;
        let mut reader = tokio::fs::File::open(file.path()).await.map_err(Error::internal)?;
        // An open file can be read without its name, and without one nothing is left whatever happens.
        drop(file);
        reader.seek(std::io::SeekFrom::Start(part.map_or(0, |part| part.first))).await.map_err(Error::internal)?;
        let reader = reader.take(part.map_or(self.size_bytes, ByteRange::len));
        let chunks = ReaderStream::with_capacity(reader, CHUNK_BYTES);
        Ok(self.respond(part, Body::from_stream(sent_within(IDLE_TIMEOUT, chunks, share))))
    }

    fn respond(self, part: Option<ByteRange>, body: Body) -> Response {
        let length = part.map_or(self.size_bytes, ByteRange::len);
        let headers: [(HeaderName, HeaderValue); 6] = [
            (header::CONTENT_TYPE, OCTET_STREAM),
            (header::CONTENT_LENGTH, length.into()),
            (header::CONTENT_DISPOSITION, disposition(&self.file_name)),
            (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
            (header::ETAG, self.entity_tag),
            // Of the whole file, also when a part is sent.
            (digest::REPR_DIGEST, digest::repr_digest(&self.sha256)),
        ];
        match part {
            None => (headers, body).into_response(),
            Some(part) => {
                let content_range = [(header::CONTENT_RANGE, part.content_range(self.size_bytes))];
                (StatusCode::PARTIAL_CONTENT, headers, content_range, body).into_response()
            }
        }
    }
}

/// Hands out `chunks` while somebody takes them, one every `idle_timeout` at least; then lets go of them and of `share`.
///
/// A body is not asked for chunks while its client does not read, so it could not tell the time itself.
fn sent_within<S>(idle_timeout: Duration, chunks: S, share: Share) -> impl Stream<Item = S::Item> + Send
where
    S: Stream<Item: Send> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _share = share;
        let mut chunks = std::pin::pin!(chunks);
        while let Some(chunk) = chunks.next().await {
            // An early end shows: it does not match the length.
            if sender.send_timeout(chunk, idle_timeout).await.is_err() {
                return;
            }
        }
    });
    stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)))
}

fn disposition(file_name: &str) -> HeaderValue {
    HeaderValue::try_from(format!("attachment; filename=\"{file_name}\"")).expect("names are ASCII")
}

/// The head of a file that would have to be made to know its size, which RFC 9110 section 9.3.2 lets a `HEAD` omit.
pub fn head_without_size(file_name: &str, entity_tag: &HeaderValue) -> Response {
    let headers = [
        (header::CONTENT_TYPE, OCTET_STREAM),
        (header::CONTENT_DISPOSITION, disposition(file_name)),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::ETAG, entity_tag.clone()),
    ];
    // A stream has no length, whereas an empty body would have that of zero.
    (headers, Body::from_stream(stream::empty::<Result<Bytes, Infallible>>())).into_response()
}

/// The answer to a client that has the file tagged `entity_tag` already.
pub fn not_modified(entity_tag: &HeaderValue) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, entity_tag.clone())]).into_response()
}
