//! Files that come in: streamed to a staging file and hashed on the way, so that memory does not grow with the file.
//!
//! The body is the file itself, or `multipart/form-data` with one part that has a file name. Whatever fails, and when the
//! client goes away, the staging file vanishes with its handle.

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use utoipa::ToSchema;

use crate::app::App;
use crate::storage::{StagedBlob, Upload};

use super::models::UploadQuery;
use super::{Error, body, digest, form};

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

/// The file that `request` brings or names, its digest verified where one was declared.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::DigestMismatch`], and whatever is wrong with the body or with what is named.
pub async fn receive(app: &App, query: &UploadQuery, request: Request) -> Result<StagedBlob, Error> {
    let declared = digest::declared_sha256(request.headers())?;
    let limit_bytes = app.config.max_body_bytes;
    let file = match (&query.upload, &query.import) {
        (None, None) => receive_body(app, request).await?,
        (Some(upload), None) => app.storage.join_upload(upload).await?,
        (None, Some(key)) => app.storage.import(key, limit_bytes).await?,
        (Some(_), Some(_)) => {
            return Err(Error::InvalidParameter("a file comes from an upload or is imported, not both".to_owned()));
        }
    };
    match declared {
        Some(expected) if expected != file.sha256() => {
            Err(Error::DigestMismatch { expected, found: file.sha256().to_owned() })
        }
        _ => Ok(file),
    }
}

/// Forgets the upload that `query` names: its file was taken.
pub async fn took(app: &App, query: &UploadQuery) {
    if let Some(upload) = &query.upload
        && let Err(error) = app.storage.delete_upload(upload).await
    {
        // It is forgotten a day later.
        tracing::warn!(%upload, %error, "an upload whose file was taken could not be forgotten");
    }
}

async fn receive_body(app: &App, request: Request) -> Result<StagedBlob, Error> {
    let limit_bytes = app.config.max_body_bytes;
    let is_form = is_multipart(request.headers());
    let overhead_bytes = if is_form { form::OVERHEAD_BYTES } else { 0 };
    body::refuse_declared(request.headers(), limit_bytes.saturating_add(overhead_bytes))?;
    let mut sink = Sink { upload: app.storage.blobs.upload().await?, limit_bytes };
    let filled = if is_form {
        form::receive_file(request, &mut sink).await
    } else {
        sink.fill(body::chunks(request.into_body())).await
    };
    if let Err(error) = filled {
        sink.upload.abort().await;
        return Err(error);
    }
    Ok(sink.upload.finish().await?)
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/form-data"))
}

/// A staging file that takes no more than so many bytes.
pub struct Sink {
    upload: Upload,
    limit_bytes: u64,
}

impl Sink {
    /// Bytes that the file may have.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Appends what `stream` yields.
    ///
    /// # Errors
    /// [`Error::TooLarge`], and those of the stream and the store.
    pub async fn fill(&mut self, mut stream: impl Stream<Item = Result<Bytes, Error>> + Unpin) -> Result<(), Error> {
        while let Some(chunk) = stream.try_next().await? {
            if chunk.len() as u64 > self.limit_bytes - self.upload.size_bytes() {
                return Err(Error::TooLarge { limit_bytes: self.limit_bytes });
            }
            self.upload.write(chunk).await?;
        }
        Ok(())
    }
}
