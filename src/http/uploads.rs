//! `/api/v1/uploads`: files that come in parts, over connections that break.
//!
//! Source: tus 1.0.0, <https://tus.io/protocols/resumable-upload>: the core protocol and its extensions creation, expiration,
//! checksum and termination. A finished upload becomes a model or a dataset by `?upload=ID` of their own routes.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::StreamExt;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::storage::{UploadId, UploadRecord};

use super::problem::Failures;
use super::upload::File;
use super::{Api, Error, body, extract};

/// The version of the protocol.
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const EXTENSIONS: HeaderValue = HeaderValue::from_static("creation,expiration,checksum,termination");
const CHECKSUMS: HeaderValue = HeaderValue::from_static("sha1,sha256");

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");

/// What requests of the protocol have beside the usual headers.
pub const REQUEST_HEADERS: [&str; 5] =
    ["tus-resumable", "upload-length", "upload-metadata", "upload-offset", "upload-checksum"];

/// What its answers have.
pub const RESPONSE_HEADERS: [&str; 9] = [
    "tus-resumable",
    "tus-version",
    "tus-extension",
    "tus-max-size",
    "tus-checksum-algorithm",
    "upload-length",
    "upload-offset",
    "upload-expires",
    "upload-metadata",
];

/// The type of the body of a part.
const PART_TYPE: &str = "application/offset+octet-stream";
/// Longest `Upload-Metadata`, in bytes.
const MAX_METADATA_BYTES: usize = 4096;

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(begin_upload, describe_uploads)).routes(routes!(show_upload, delete_upload))
}

/// Parts take as long as they take, so they stand outside the time limit of the other routes.
pub fn part_router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(append_part))
}

/// The header that all requests of the protocol have, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes parameters")]
struct TusHeaders {
    /// Version of the protocol: `1.0.0`.
    #[param(rename = "Tus-Resumable", pattern = r"^1\.0\.0$")]
    tus_resumable: String,
}

/// Headers of a new upload, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes parameters")]
struct BeginHeaders {
    /// Size of the whole file, in bytes.
    #[param(rename = "Upload-Length")]
    upload_length: u64,
    /// Pairs of a key and the base64 of a value, with commas between them; given back as they came.
    #[param(rename = "Upload-Metadata")]
    upload_metadata: Option<String>,
}

/// Headers of a part, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes parameters")]
struct PartHeaders {
    /// Where the part begins: at what was received so far.
    #[param(rename = "Upload-Offset")]
    upload_offset: u64,
    /// `sha1` or `sha256`, a space, and the base64 of the part's digest.
    #[param(rename = "Upload-Checksum")]
    upload_checksum: Option<String>,
}

/// Says what of the tus protocol is spoken here.
#[utoipa::path(
    options,
    path = "/api/v1/uploads",
    tag = "uploads",
    security(("key" = ["write"])),
    responses((status = NO_CONTENT, description = "`Tus-Version`, `Tus-Extension`, `Tus-Max-Size`, `Tus-Checksum-Algorithm`"), Failures)
)]
async fn describe_uploads(app: App) -> impl IntoResponse {
    let headers = [
        (TUS_RESUMABLE, VERSION),
        (TUS_VERSION, VERSION),
        (TUS_EXTENSION, EXTENSIONS),
        (TUS_MAX_SIZE, app.config.max_body_bytes.into()),
        (TUS_CHECKSUM_ALGORITHM, CHECKSUMS),
    ];
    (StatusCode::NO_CONTENT, headers)
}

/// Begins an upload in parts, by tus 1.0.0.
///
/// The parts follow with `PATCH` to the `Location`; the file is then taken by `POST /api/v1/models?name=NAME&upload=ID` or
/// `/api/v1/datasets?name=NAME&upload=ID`. An upload is forgotten 24 h after its last part.
#[utoipa::path(
    post,
    path = "/api/v1/uploads",
    tag = "uploads",
    security(("key" = ["write"])),
    params(TusHeaders, BeginHeaders),
    responses(
        (status = CREATED, description = "Begun", headers(
            ("location" = String, description = "The upload"),
            ("upload-expires" = String, description = "When it is forgotten"),
        )),
        Failures,
    )
)]
async fn begin_upload(app: App, headers: HeaderMap) -> Result<Response, Error> {
    check_version(&headers)?;
    let size_bytes = required_number(&headers, "Upload-Length")?;
    let limit_bytes = app.config.max_body_bytes;
    if size_bytes > limit_bytes {
        return Err(Error::TooLarge { limit_bytes });
    }
    let metadata = metadata(&headers)?;
    let size_bytes = i64::try_from(size_bytes).map_err(|_| Error::TooLarge { limit_bytes })?;
    let upload = app.storage.store.begin_upload(size_bytes, metadata).await?;
    let location = HeaderValue::try_from(format!("/api/v1/uploads/{}", upload.id)).map_err(Error::internal)?;
    Ok((StatusCode::CREATED, [(TUS_RESUMABLE, VERSION), (header::LOCATION, location), expires(&upload)?])
        .into_response())
}

/// Says how much of an upload was received.
#[utoipa::path(
    head,
    path = "/api/v1/uploads/{id}",
    tag = "uploads",
    security(("key" = ["write"])),
    params(("id" = inline(UploadId), Path, description = "The upload's identifier"), TusHeaders),
    responses(
        (status = OK, description = "It is known", headers(
            ("upload-offset" = u64, description = "Bytes received"),
            ("upload-length" = u64, description = "Bytes of the whole file"),
            ("upload-expires" = String, description = "When it is forgotten"),
        )),
        Failures,
    )
)]
async fn show_upload(
    app: App,
    extract::Path(id): extract::Path<UploadId>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    check_version(&headers)?;
    let upload = app.storage.store.upload(&id).await?;
    let shown = [
        (TUS_RESUMABLE, VERSION),
        (OFFSET, upload.received_bytes.into()),
        (LENGTH, upload.size_bytes.into()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        expires(&upload)?,
    ];
    let mut response = shown.into_response();
    if let Some(metadata) = &upload.metadata {
        response.headers_mut().insert(METADATA, HeaderValue::try_from(metadata).map_err(Error::internal)?);
    }
    Ok(response)
}

/// Appends a part to an upload.
///
/// What came before a connection broke is kept, unless the part has a checksum.
#[utoipa::path(
    patch,
    path = "/api/v1/uploads/{id}",
    tag = "uploads",
    security(("key" = ["write"])),
    params(("id" = inline(UploadId), Path, description = "The upload's identifier"), TusHeaders, PartHeaders),
    request_body(content((File = "application/offset+octet-stream"))),
    responses(
        (status = NO_CONTENT, description = "Appended", headers(
            ("upload-offset" = u64, description = "Bytes received"),
            ("upload-expires" = String, description = "When it is forgotten"),
        )),
        Failures,
    )
)]
async fn append_part(
    app: App,
    extract::Path(id): extract::Path<UploadId>,
    request: Request,
) -> Result<Response, Error> {
    let headers = request.headers();
    check_version(headers)?;
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value.as_bytes() != PART_TYPE.as_bytes()) {
        return Err(Error::WrongMediaType { expected: PART_TYPE });
    }
    let first_byte = required_number(headers, "Upload-Offset")?;
    let checksum = Checksum::of(headers)?;
    let upload = app.storage.store.upload(&id).await?;
    let received_bytes = upload.received_bytes.unsigned_abs();
    if first_byte != received_bytes {
        return Err(Error::OffsetMismatch { given: first_byte, received_bytes });
    }
    let room_bytes = upload.size_bytes.unsigned_abs() - received_bytes;
    body::refuse_declared(headers, room_bytes)?;
    let part = Part { upload, room_bytes, checksum };
    // A task of its own: what came is kept when the client hangs up, which ends this one.
    let appended = tokio::spawn(async move { part.receive(&app, request.into_body()).await });
    let upload = appended.await.map_err(Error::internal)??;
    let told = [(TUS_RESUMABLE, VERSION), (OFFSET, upload.received_bytes.into()), expires(&upload)?];
    Ok((StatusCode::NO_CONTENT, told).into_response())
}

/// Gives an upload up.
#[utoipa::path(
    delete,
    path = "/api/v1/uploads/{id}",
    tag = "uploads",
    security(("key" = ["write"])),
    params(("id" = inline(UploadId), Path, description = "The upload's identifier"), TusHeaders),
    responses((status = NO_CONTENT, description = "Deleted"), Failures)
)]
async fn delete_upload(
    app: App,
    extract::Path(id): extract::Path<UploadId>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    check_version(&headers)?;
    app.storage.delete_upload(&id).await?;
    Ok((StatusCode::NO_CONTENT, [(TUS_RESUMABLE, VERSION)]).into_response())
}

/// A part that is to come.
struct Part {
    upload: UploadRecord,
    /// Bytes that the file still lacks.
    room_bytes: u64,
    checksum: Option<Checksum>,
}

impl Part {
    /// Receives the part and appends it. Returns the upload with it.
    async fn receive(mut self, app: &App, body: Body) -> Result<UploadRecord, Error> {
        let mut file = app.storage.blobs.upload().await?;
        let mut chunks = body::chunks(body);
        let mut broken = None;
        while let Some(chunk) = chunks.next().await {
            let appended = match chunk {
                Ok(chunk) if chunk.len() as u64 > self.room_bytes - file.size_bytes() => {
                    Err(Error::TooLarge { limit_bytes: self.room_bytes })
                }
                Ok(chunk) => {
                    self.checksum.iter_mut().for_each(|checksum| checksum.update(&chunk));
                    file.write(chunk).await.map_err(Error::from)
                }
                Err(error) if self.checksum.is_none() && file.size_bytes() > 0 => {
                    broken = Some(error);
                    break;
                }
                Err(error) => Err(error),
            };
            if let Err(error) = appended {
                file.abort().await;
                return Err(error);
            }
        }
        if let Some(checksum) = self.checksum
            && let Err(error) = checksum.verify()
        {
            file.abort().await;
            return Err(error);
        }
        let first_byte = self.upload.received_bytes;
        let appended = app.storage.append_part(&self.upload.id, file.finish().await?, first_byte).await?;
        match (appended, broken) {
            (_, Some(error)) => Err(error),
            (Some(upload), None) => Ok(upload),
            // Another part was appended meanwhile.
            (None, None) => {
                let upload = app.storage.store.upload(&self.upload.id).await?;
                let received_bytes = upload.received_bytes.unsigned_abs();
                Err(Error::OffsetMismatch { given: first_byte.unsigned_abs(), received_bytes })
            }
        }
    }
}

/// What the bytes of a part should come to.
struct Checksum {
    digest: Digester,
    expected: Vec<u8>,
}

enum Digester {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Checksum {
    /// The one that `headers` announce.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let Some(value) = headers.get(&CHECKSUM) else { return Ok(None) };
        let invalid = |reason| Error::InvalidHeader { name: "Upload-Checksum", reason };
        let value = value.to_str().map_err(|_| invalid("is not text"))?;
        let (algorithm, expected) = value.split_once(' ').ok_or(invalid("is not an algorithm, a space and base64"))?;
        let digest = match algorithm {
            "sha1" => Digester::Sha1(Sha1::new()),
            "sha256" => Digester::Sha256(Sha256::new()),
            _ => return Err(invalid("names another algorithm than sha1 and sha256")),
        };
        let expected = BASE64.decode(expected).map_err(|_| invalid("holds no base64"))?;
        Ok(Some(Self { digest, expected }))
    }

    fn update(&mut self, bytes: &Bytes) {
        match &mut self.digest {
            Digester::Sha1(digest) => digest.update(bytes),
            Digester::Sha256(digest) => digest.update(bytes),
        }
    }

    fn verify(self) -> Result<(), Error> {
        let found = match self.digest {
            Digester::Sha1(digest) => digest.finalize().to_vec(),
            Digester::Sha256(digest) => digest.finalize().to_vec(),
        };
        if found == self.expected { Ok(()) } else { Err(Error::ChecksumMismatch) }
    }
}

/// Refuses what speaks another version of the protocol.
fn check_version(headers: &HeaderMap) -> Result<(), Error> {
    if headers.get(&TUS_RESUMABLE) == Some(&VERSION) { Ok(()) } else { Err(Error::UnknownTusVersion) }
}

/// The number in a header that must be there.
fn required_number(headers: &HeaderMap, name: &'static str) -> Result<u64, Error> {
    let value = headers.get(name).ok_or(Error::InvalidHeader { name, reason: "is missing" })?;
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or(Error::InvalidHeader { name, reason: "is no number of bytes" })
}

/// `Upload-Metadata`, if it is well formed: keys are tokens that differ, values base64.
fn metadata(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(value) = headers.get(&METADATA) else { return Ok(None) };
    let invalid = |reason| Error::InvalidHeader { name: "Upload-Metadata", reason };
    let text = value.to_str().map_err(|_| invalid("is not ASCII"))?;
    if text.len() > MAX_METADATA_BYTES {
        return Err(invalid("is longer than 4096 bytes"));
    }
    let mut keys = std::collections::HashSet::new();
    for pair in text.split(',') {
        let (key, value) = pair.trim().split_once(' ').unwrap_or((pair.trim(), ""));
        if key.is_empty() || !keys.insert(key) {
            return Err(invalid("has a key that is empty or there twice"));
        }
        BASE64.decode(value.trim()).map_err(|_| invalid("has a value that is not base64"))?;
    }
    Ok(Some(text))
}

fn expires(upload: &UploadRecord) -> Result<(HeaderName, HeaderValue), Error> {
    let moment = httpdate::fmt_http_date(upload.expires_at.into());
    Ok((EXPIRES, HeaderValue::try_from(moment).map_err(Error::internal)?))
}
