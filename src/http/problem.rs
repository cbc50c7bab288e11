//! Problem details: the one form in which every failure leaves the service.
//!
//! [`Error`] only marks its response with a [`Fault`]; the middleware [`render`] writes the body, since it alone knows
//! the request. Failures that never met a handler (no such route, a wrong method, a time-out) are rendered too.
//!
//! Source: RFC 9457. The member `error` is what clients of the Open Inference Protocol and of TensorFlow Serving read.

use std::any::Any;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, ToSchema};

use super::Error;
use super::observe::RequestId;

/// A failure, explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Identifies the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:weightpress:problem:not_found")]
    pub kind: String,
    /// The HTTP status in words.
    #[schema(example = "Not Found")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// What went wrong, for people.
    #[schema(example = "there is no model lenet")]
    pub detail: String,
    /// What went wrong, for programs; stable.
    #[schema(example = "not_found")]
    pub code: String,
    /// The request's id, as in the header `x-request-id` and in the log.
    pub request_id: String,
    /// The detail again, under `/v1` and `/v2` only, where clients of TensorFlow Serving and of the Open Inference Protocol look
    /// for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The entry for failures in the list of an operation's responses.
#[derive(IntoResponses)]
#[response(status = "default", description = "A failure, explained", content_type = "application/problem+json")]
pub struct Failures(#[allow(dead_code, reason = "it only names the schema")] Problem);

/// What a failed response carries to [`render`].
#[derive(Debug, Clone)]
pub struct Fault {
    pub code: &'static str,
    pub detail: String,
}

/// Middleware that gives every failed response its body.
pub async fn render(request: Request, next: Next) -> Response {
    let request_id = request.extensions().get::<RequestId>().map(ToString::to_string).unwrap_or_default();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let fault = match response.extensions_mut().remove::<Fault>() {
        Some(fault) => fault,
        None if response.status().is_client_error() || response.status().is_server_error() => {
            let error = Error::unhandled(response.status(), &method, &path);
            let (status, fault) = (error.status(), error.into_fault());
            *response.status_mut() = status;
            fault
        }
        None => return response,
    };
    let status = response.status();
    let problem = Problem {
        kind: format!("urn:weightpress:problem:{}", fault.code),
        // 460 is none of HTTP's own.
        title: status.canonical_reason().unwrap_or("Checksum Mismatch").to_owned(),
        status: status.as_u16(),
        error: ["/v1", "/v2"].iter().any(|prefix| path.starts_with(prefix)).then(|| fault.detail.clone()),
        detail: fault.detail,
        code: fault.code.to_owned(),
        request_id,
    };
    with_body(response, &problem)
}

/// Replaces the body of `response`; its status and other headers (`Allow`, `Content-Range`) stay.
fn with_body(response: Response, problem: &Problem) -> Response {
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let json = serde_json::to_vec(problem).expect("a problem holds strings and a number");
    Response::from_parts(head, json.into())
}

/// The answer when a handler panicked.
pub fn of_panic(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)");
    Error::Panicked { message: message.to_owned() }.into_response()
}

/// Marks a response with `fault`, for [`render`].
pub fn response(status: StatusCode, fault: Fault) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(fault);
    response
}
