//! Failures of requests, and the one table of their status codes.
//!
//! A 4xx explains itself. A 5xx is logged here, once, and is opaque to the client: the request id leads from one to the
//! other.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::app::AddError;
use crate::artifact::ArtifactError;
use crate::infer::{Fault as InferFault, InferError};
use crate::jobs::{ExecuteError, LoadError, Refusal, SubmitError};
use crate::storage::StoreError;
use crate::webhooks::EndpointError;

use super::NameError;
use super::oip::{BinaryError, TensorError};
use super::problem::{self, Fault};

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// 404: no such route.
    #[error("there is nothing at {path}")]
    NoRoute { path: String },
    /// 405: the route has other methods; the header `Allow` lists them. `None`: it is there already.
    #[error("{method} is not allowed at {path}")]
    MethodNotAllowed { method: Method, path: String, allow: Option<String> },
    /// 401: no key, or none that is in force.
    #[error("{reason}")]
    Unauthenticated { reason: &'static str },
    /// 403: a key without the scope that is needed.
    #[error("this needs a key with the scope {needed}; the scopes of this one are {granted}")]
    Forbidden { needed: String, granted: String },
    /// 429: more requests than the tenant may send.
    #[error("too many requests; the next one may come in {retry_seconds} s")]
    TooManyRequests { retry_seconds: u64 },
    /// 409: the same request is being answered.
    #[error("a request with this Idempotency-Key is being answered; send it again later")]
    InFlight,
    /// 421: a `Host` that is not served here.
    #[error("the host {host:?} is not served here")]
    UnknownHost { host: String },
    /// 400: a name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// 400: a query string, a path or a parameter of a prediction that cannot be read.
    #[error("{0}")]
    InvalidParameter(String),
    /// 400: a header that cannot be read.
    #[error("the header {name} {reason}")]
    InvalidHeader { name: &'static str, reason: &'static str },
    /// 400: `Repr-Digest` cannot be read.
    #[error("the header Repr-Digest {reason}")]
    InvalidDigest { reason: &'static str },
    /// 400: the bytes are not those that were announced.
    #[error("the SHA-256 of the body is {found}, Repr-Digest says {expected}")]
    DigestMismatch { expected: String, found: String },
    /// 400: a body that is not JSON.
    #[error("{0}")]
    InvalidJson(String),
    /// 422: JSON that does not say what it should.
    #[error("{0}")]
    InvalidBody(String),
    /// 400: a multipart body that cannot be read, or has no file.
    #[error("the multipart body {0}")]
    InvalidMultipart(String),
    /// 400: the body ended early.
    #[error("the body ended early: {0}")]
    BodyAborted(String),
    /// 408: the client stopped sending.
    #[error("no byte of the body arrived for {idle_seconds} s")]
    BodyStalled { idle_seconds: u64 },
    /// 413: the body is too large.
    #[error("the body is larger than the limit of {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    /// 415: a body in a content coding that is not known here; the header `Accept-Encoding` lists those that are.
    #[error("the Content-Encoding {given} is none of gzip, deflate")]
    UnknownCoding { given: String },
    /// 415: a body of another type than JSON, where JSON alone is read.
    #[error("the Content-Type is {given}, predictions are asked for in application/json, in UTF-8")]
    UnsupportedMediaType { given: String },
    /// 400: a body that is not what its content coding says.
    #[error("the body is no {coding}: {reason}")]
    InvalidCoding { coding: &'static str, reason: String },
    /// 415: a body of another type than the one that is taken here.
    #[error("the Content-Type must be {expected}")]
    WrongMediaType { expected: &'static str },
    /// 412: another version of the protocol of uploads in parts.
    #[error("the header Tus-Resumable must be 1.0.0")]
    UnknownTusVersion,
    /// 409: a part that does not begin where the upload ends.
    #[error("the part begins at {given}, {received_bytes} bytes were received")]
    OffsetMismatch { given: u64, received_bytes: u64 },
    /// 460: a part whose bytes are not those that were announced.
    #[error("the part has another digest than Upload-Checksum says; none of it was kept")]
    ChecksumMismatch,
    /// 416: a range past the end.
    #[error("the range starts past the end of {size_bytes} bytes")]
    RangeNotSatisfiable { size_bytes: u64 },
    /// 400 or 422: a prediction that cannot be made as asked.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// 400: a tensor of a prediction that cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// 400: a prediction whose JSON and binary data cannot be told apart.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// 400: an input without a name, of a model that has several.
    #[error("the model has the inputs {known}: they are given by their names")]
    UnnamedInput { known: String },
    /// 400: an output that the model lacks.
    #[error("the model has no output `{name}`; it has {known}")]
    UnknownOutput { name: String, known: String },
    /// 400: an output that is asked for more than once.
    #[error("the output `{name}` is asked for twice")]
    RepeatedOutput { name: String },
    /// 400: a part of the inference protocol that is not spoken here.
    #[error("{0}")]
    UnsupportedRequest(&'static str),
    /// 422: a model that predictions cannot run.
    #[error("model {model} cannot predict: {reason}")]
    NotPredictable { model: String, reason: String },
    /// 422: a version has no such form.
    #[error("{0}")]
    NotExportable(String),
    /// 422: an upload that is not what it should be, or a job that contradicts itself or its model.
    #[error("{detail}")]
    Refused { code: &'static str, detail: String },
    /// 422: messages cannot be sent there.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// 404, 409 or 500, as the store says.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// 503: the service is starting, stopping or cut off from its database.
    #[error("the service is not ready")]
    NotReady,
    /// 503: others are being served with all that there is.
    #[error("too much is being asked for at the moment; come back in a few seconds")]
    Busy,
    /// 503: the answer took too long.
    #[error("no answer in time")]
    TimedOut,
    /// 422: a version needs more memory than predictions may use.
    #[error("version {version} needs {needed_bytes} bytes of memory, predictions may use {budget_bytes}")]
    OverBudget { version: i64, needed_bytes: u64, budget_bytes: u64 },
    /// 500: a handler panicked.
    #[error("panicked: {message}")]
    Panicked { message: String },
    /// 500: anything else.
    #[error(transparent)]
    Internal(Box<dyn std::error::Error + Send + Sync>),
    /// Another failure of the HTTP layer, under its own status.
    #[error("{}", status.canonical_reason().unwrap_or("failed"))]
    Http { status: StatusCode },
}

impl Error {
    /// A failure that no code path may expect.
    pub(super) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(error))
    }

    /// The error behind a response that failed before or after its handler.
    pub(super) fn unhandled(status: StatusCode, method: &Method, path: &str) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NoRoute { path: path.to_owned() },
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::MethodNotAllowed { method: method.clone(), path: path.to_owned(), allow: None }
            }
            StatusCode::SERVICE_UNAVAILABLE => Self::TimedOut,
            status => Self::Http { status },
        }
    }

    /// The status and the stable code of this failure.
    fn kind(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::NoRoute { .. } => (S::NOT_FOUND, "no_route"),
            Self::MethodNotAllowed { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Unauthenticated { .. } => (S::UNAUTHORIZED, "unauthenticated"),
            Self::Forbidden { .. } => (S::FORBIDDEN, "forbidden"),
            Self::TooManyRequests { .. } => (S::TOO_MANY_REQUESTS, "rate_limited"),
            Self::InFlight => (S::CONFLICT, "in_flight"),
            Self::UnknownHost { .. } => (S::MISDIRECTED_REQUEST, "unknown_host"),
            Self::Name(_) => (S::BAD_REQUEST, "invalid_name"),
            Self::InvalidParameter(_) => (S::BAD_REQUEST, "invalid_parameter"),
            Self::InvalidHeader { .. } => (S::BAD_REQUEST, "invalid_header"),
            Self::InvalidDigest { .. } => (S::BAD_REQUEST, "invalid_digest"),
            Self::DigestMismatch { .. } => (S::BAD_REQUEST, "digest_mismatch"),
            Self::InvalidJson(_) => (S::BAD_REQUEST, "invalid_json"),
            Self::InvalidBody(_) => (S::UNPROCESSABLE_ENTITY, "invalid_body"),
            Self::InvalidMultipart(_) => (S::BAD_REQUEST, "invalid_multipart"),
            Self::BodyAborted(_) => (S::BAD_REQUEST, "body_aborted"),
            Self::BodyStalled { .. } => (S::REQUEST_TIMEOUT, "body_stalled"),
            Self::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "too_large"),
            Self::UnknownCoding { .. } => (S::UNSUPPORTED_MEDIA_TYPE, "unknown_encoding"),
            Self::UnsupportedMediaType { .. } => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::InvalidCoding { .. } => (S::BAD_REQUEST, "invalid_encoding"),
            Self::WrongMediaType { .. } => (S::UNSUPPORTED_MEDIA_TYPE, "wrong_media_type"),
            Self::UnknownTusVersion => (S::PRECONDITION_FAILED, "unknown_tus_version"),
            Self::OffsetMismatch { .. } => (S::CONFLICT, "offset_mismatch"),
            Self::ChecksumMismatch => (checksum_mismatch(), "checksum_mismatch"),
            Self::RangeNotSatisfiable { .. } => (S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable"),
            Self::Infer(error) => infer_kind(error),
            Self::Tensor(_) => (S::BAD_REQUEST, "invalid_tensor"),
            Self::Binary(_) => (S::BAD_REQUEST, "invalid_binary_data"),
            Self::UnnamedInput { .. } => (S::BAD_REQUEST, "invalid_tensor"),
            Self::RepeatedOutput { .. } => (S::BAD_REQUEST, "repeated_output"),
            Self::UnknownOutput { .. } => (S::BAD_REQUEST, "unknown_output"),
            Self::UnsupportedRequest(_) => (S::BAD_REQUEST, "unsupported_request"),
            Self::NotPredictable { .. } => (S::UNPROCESSABLE_ENTITY, "not_predictable"),
            Self::NotExportable(_) => (S::UNPROCESSABLE_ENTITY, "not_exportable"),
            Self::Refused { code, .. } => (S::UNPROCESSABLE_ENTITY, code),
            Self::Endpoint(_) => (S::UNPROCESSABLE_ENTITY, "invalid_endpoint"),
            Self::Store(error) => store_kind(error),
            Self::NotReady => (S::SERVICE_UNAVAILABLE, "not_ready"),
            Self::Busy => (S::SERVICE_UNAVAILABLE, "busy"),
            Self::TimedOut => (S::SERVICE_UNAVAILABLE, "timed_out"),
            Self::OverBudget { .. } => (S::UNPROCESSABLE_ENTITY, "over_memory_budget"),
            Self::Panicked { .. } | Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal"),
            Self::Http { status } => (*status, "http"),
        }
    }

    /// The status of this failure.
    pub(super) fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// What the client is told. Logs a 5xx that hides something.
    pub(super) fn into_fault(self) -> Fault {
        let (status, code) = self.kind();
        if status != StatusCode::INTERNAL_SERVER_ERROR {
            return Fault { code, detail: self.to_string() };
        }
        tracing::error!(error = %Chain(&self), "request failed");
        Fault { code, detail: "the service failed; its log says more under this request id".to_owned() }
    }
}

/// 460, which tus 1.0 defines and nobody else.
fn checksum_mismatch() -> StatusCode {
    StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST)
}

fn infer_kind(error: &InferError) -> (StatusCode, &'static str) {
    match error.fault() {
        InferFault::Input => (StatusCode::BAD_REQUEST, "invalid_tensor"),
        InferFault::File => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        InferFault::Run => (StatusCode::UNPROCESSABLE_ENTITY, "prediction_failed"),
        InferFault::Size => (StatusCode::UNPROCESSABLE_ENTITY, "prediction_too_large"),
        InferFault::Graph => (StatusCode::UNPROCESSABLE_ENTITY, "not_predictable"),
        InferFault::Machine => (StatusCode::SERVICE_UNAVAILABLE, "interrupted"),
        InferFault::Limits => (StatusCode::UNPROCESSABLE_ENTITY, Refusal::LimitsExceeded.as_str()),
    }
}

fn store_kind(error: &StoreError) -> (StatusCode, &'static str) {
    match error {
        StoreError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
        StoreError::NameTaken { .. } => (StatusCode::CONFLICT, "name_taken"),
        StoreError::Metadata(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_metadata"),
        StoreError::NameReused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
        StoreError::StorageQuota { .. } => (StatusCode::FORBIDDEN, "quota_exceeded"),
        StoreError::WebhookQuota { .. } => (StatusCode::FORBIDDEN, "quota_exceeded"),
        StoreError::PartQuota { .. } => (StatusCode::FORBIDDEN, "quota_exceeded"),
        StoreError::UploadQuota { .. } => (StatusCode::FORBIDDEN, "quota_exceeded"),
        StoreError::UploadIncomplete { .. } => (StatusCode::CONFLICT, "upload_incomplete"),
        StoreError::NoObjectStore => (StatusCode::UNPROCESSABLE_ENTITY, "no_object_store"),
        StoreError::ImportTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        StoreError::JobQuota { .. } => (StatusCode::TOO_MANY_REQUESTS, "quota_exceeded"),
        StoreError::WebhookDisabled { .. } => (StatusCode::CONFLICT, "webhook_disabled"),
        StoreError::InUse { .. } => (StatusCode::CONFLICT, "in_use"),
        StoreError::UploadVersion { .. } => (StatusCode::CONFLICT, "upload_version"),
        StoreError::DefaultVersion { .. } => (StatusCode::CONFLICT, "default_version"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

/// An error and its sources, for the log.
struct Chain<'a>(&'a Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error: &dyn std::error::Error = self.0;
        write!(f, "{error}")?;
        std::iter::successors(error.source(), |error| error.source()).try_for_each(|source| write!(f, ": {source}"))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let content_range = match self {
            Self::RangeNotSatisfiable { size_bytes } => HeaderValue::try_from(format!("bytes */{size_bytes}")).ok(),
            _ => None,
        };
        let retry_after = match self {
            Self::NotReady
            | Self::Busy
            | Self::TimedOut
            | Self::InFlight
            | Self::Store(StoreError::JobQuota { .. }) => Some(5.into()),
            Self::TooManyRequests { retry_seconds } => Some(retry_seconds.into()),
            _ => None,
        };
        let challenge = matches!(self, Self::Unauthenticated { .. })
            .then(|| HeaderValue::from_static("Bearer realm=\"weightpress\""));
        let codings = matches!(self, Self::UnknownCoding { .. }).then(|| HeaderValue::from_static("gzip, deflate"));
        let types =
            matches!(self, Self::UnsupportedMediaType { .. }).then(|| HeaderValue::from_static("application/json"));
        let allow = match &self {
            Self::MethodNotAllowed { allow: Some(allow), .. } => HeaderValue::try_from(allow).ok(),
            _ => None,
        };
        let mut response = problem::response(self.status(), self.into_fault());
        let headers = [
            (header::ACCEPT, types),
            (header::ACCEPT_ENCODING, codings),
            (header::ALLOW, allow),
            (header::CONTENT_RANGE, content_range),
            (header::RETRY_AFTER, retry_after),
            (header::WWW_AUTHENTICATE, challenge),
        ];
        response.headers_mut().extend(headers.into_iter().filter_map(|(name, value)| Some((name, value?))));
        response
    }
}

impl From<ExecuteError> for Error {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Refused { refusal, detail } => Self::Refused { code: refusal.as_str(), detail },
            ExecuteError::Busy => Self::Busy,
            failure => Self::internal(failure),
        }
    }
}

impl From<AddError> for Error {
    fn from(error: AddError) -> Self {
        match error {
            AddError::File(error) => error.into(),
            AddError::Store(error) => error.into(),
        }
    }
}

impl From<SubmitError> for Error {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid { refusal, detail } => Self::Refused { code: refusal.as_str(), detail },
            SubmitError::Store(error) => error.into(),
            SubmitError::Execute(error) => error.into(),
        }
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotPredictable { model, reason } => Self::NotPredictable { model, reason },
            LoadError::Store(error) => error.into(),
            LoadError::Execute(error) => error.into(),
            LoadError::OverBudget { version, needed_bytes, budget_bytes } => {
                Self::OverBudget { version, needed_bytes, budget_bytes }
            }
            other => Self::internal(other),
        }
    }
}

impl From<ArtifactError> for Error {
    /// Artifacts are the service's own files: one that cannot be read is its failure, not the client's.
    fn from(error: ArtifactError) -> Self {
        Self::internal(error)
    }
}
