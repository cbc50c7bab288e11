//! Files that come in: streamed to a staging file and hashed on the way, so that memory does not grow with the file.
//!
//! The body is the file itself, or `multipart/form-data` with one part that has a file name. Whatever fails, and when the
//! client goes away, the staging file vanishes with its handle.

use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use utoipa::ToSchema;

use crate::app::App;
use crate::storage::{StagedBlob, Upload};

use super::{Error, body, digest};

/// The bytes of a file, in the API's description.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct File(#[allow(dead_code, reason = "it only stands for a schema")] Vec<u8>);

/// A file as a part of a form, in the API's description.
#[derive(ToSchema)]
pub struct FileForm {
    /// The file.
    #[allow(dead_code, reason = "it only stands for a schema")]
    pub file: File,
}

/// Receives the file in `request` and verifies its digest where one was declared.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::DigestMismatch`], and whatever is wrong with the body.
pub async fn receive(app: &App, request: Request) -> Result<StagedBlob, Error> {
    let declared = digest::declared_sha256(request.headers())?;
    let mut sink = Sink { upload: app.storage.blobs.upload().await?, limit_bytes: app.config.max_body_bytes };
    let filled = if is_multipart(request.headers()) {
        receive_part(request, &mut sink).await
    } else {
        sink.fill(body::chunks(request.into_body())).await
    };
    if let Err(error) = filled {
        sink.upload.abort().await;
        return Err(error);
    }
    let file = sink.upload.finish().await?;
    match declared {
        Some(expected) if expected != file.sha256() => {
            Err(Error::DigestMismatch { expected, found: file.sha256().to_owned() })
        }
        _ => Ok(file),
    }
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/form-data"))
}

/// Receives the first part that is a file; other parts are ignored.
async fn receive_part(request: Request, sink: &mut Sink) -> Result<(), Error> {
    let refused = |error: axum::extract::multipart::MultipartError| Error::InvalidMultipart(error.body_text());
    let mut form = Multipart::from_request(request.map(|body| Body::from_stream(body::chunks(body))), &())
        .await
        .map_err(|rejection| Error::InvalidMultipart(rejection.body_text()))?;
    while let Some(part) = form.next_field().await.map_err(refused)? {
        if part.file_name().is_some() {
            return sink.fill(part.map(|chunk| chunk.map_err(refused))).await;
        }
    }
    Err(Error::InvalidMultipart("has no part with a file name".to_owned()))
}

/// A staging file that takes no more than so many bytes.
struct Sink {
    upload: Upload,
    limit_bytes: u64,
}

impl Sink {
    async fn fill(&mut self, mut stream: impl Stream<Item = Result<Bytes, Error>> + Unpin) -> Result<(), Error> {
        while let Some(chunk) = stream.try_next().await? {
            if chunk.len() as u64 > self.limit_bytes - self.upload.size_bytes() {
                return Err(Error::TooLarge { limit_bytes: self.limit_bytes });
            }
            self.upload.write(chunk).await?;
        }
        Ok(())
    }
}
