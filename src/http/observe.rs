//! What is known about every request: an id, a span in the log, a line when it is answered, and metrics.

use std::fmt;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument as _, field};
use uuid::Uuid;

use crate::trace::TraceParent;

/// The header that carries the id, in and out.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken from a client.
const MAX_ID_LENGTH: usize = 128;

/// Label of requests that match no route: their paths are without number, and labels must not be.
const UNMATCHED: &str = "unmatched";

/// Identifies a request in logs and problem documents: the client's own, or a fresh UUID.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let sane = |value: &&HeaderValue| {
            !value.is_empty() && value.len() <= MAX_ID_LENGTH && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let fresh = || HeaderValue::try_from(Uuid::now_v7().to_string()).expect("a UUID is ASCII");
        Self(headers.get(&X_REQUEST_ID).filter(sane).cloned().unwrap_or_else(fresh))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// Middleware: gives the request an id and a span, and reports its answer.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str).to_owned();
    let path = request.uri().path();
    let span = tracing::info_span!("request", %method, route, path, request_id = %id, trace_id = field::Empty);
    let context = TraceParent::of(request.headers()).map(|parent| parent.continue_in(&span));
    let answered = next.run(request).instrument(span.clone());
    let mut response = match context {
        Some(context) => context.during(answered).await,
        None => answered.await,
    };

    let latency = started.elapsed();
    let status = response.status().as_u16();
    span.in_scope(|| match route.as_str() {
        // Asked for every few seconds, by machines.
        "/livez" | "/readyz" | "/metrics" => tracing::debug!(status, latency_ms = latency.as_millis(), "answered"),
        _ => tracing::info!(status, latency_ms = latency.as_millis(), "answered"),
    });
    let labels = [("method", method_label(&method).to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("http_requests_total", &labels).increment(1);
    metrics::histogram!("http_request_duration_seconds", &labels).record(latency.as_secs_f64());
    response.headers_mut().insert(X_REQUEST_ID, id.0);
    response
}

/// The method as a label; clients may invent methods, and labels must not be without number.
fn method_label(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_kept_when_they_are_sane() {
        let id = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, value)])).to_string()
        };
        assert_eq!(id(b"abc-1"), "abc-1");
        for odd in [&b""[..], b"a b", b"\xff", &[b'a'; 129]] {
            assert!(Uuid::try_parse(&id(odd)).is_ok());
        }
    }
}
