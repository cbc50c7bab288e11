//! Files that go out: entity tags, ranges, digests and a name to save under.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::storage::{Blobs, StagedBlob};

use super::range::ByteRange;
use super::{Error, digest, range};

/// Size of the chunks in which a file is sent, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

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

    /// Answers `request` with `file`, which is removed once it was sent.
    ///
    /// # Errors
    /// [`Error::RangeNotSatisfiable`]; [`Error::Internal`] when the file cannot be read.
    pub async fn send_staged(self, request: &HeaderMap, file: StagedBlob) -> Result<Response, Error> {
        let part = range::requested(request, &self.entity_tag, self.size_bytes)?;
        let mut reader = tokio::fs::File::open(file.path()).await.map_err(Error::internal)?;
        reader.seek(std::io::SeekFrom::Start(part.map_or(0, |part| part.first))).await.map_err(Error::internal)?;
        let reader = reader.take(part.map_or(self.size_bytes, ByteRange::len));
        let chunks = ReaderStream::with_capacity(reader, CHUNK_BYTES);
        // The stream owns the staging file, so it lives as long as it is being sent.
        let body = Body::from_stream(chunks.inspect(move |_| _ = &file));
        Ok(self.respond(part, body))
    }

    fn respond(self, part: Option<ByteRange>, body: Body) -> Response {
        let length = part.map_or(self.size_bytes, ByteRange::len);
        let disposition = format!("attachment; filename=\"{}\"", self.file_name);
        let headers: [(HeaderName, HeaderValue); 6] = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (header::CONTENT_LENGTH, length.into()),
            (header::CONTENT_DISPOSITION, HeaderValue::try_from(disposition).expect("names are ASCII")),
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

/// The answer to a client that has the file tagged `entity_tag` already.
pub fn not_modified(entity_tag: &HeaderValue) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, entity_tag.clone())]).into_response()
}
