//! `Prefer: wait=N`: a client that would rather wait for the result than ask again.
//!
//! Source: RFC 7240, section 4.3.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

/// The longest that a request may wait.
const MAX_WAIT: Duration = Duration::from_secs(60);

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long the client prefers to wait, at most 60 s. A preference that cannot be read is ignored, as the RFC asks.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER);
    let preferences = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split([',', ';']));
    let seconds = preferences.filter_map(|preference| preference.trim().strip_prefix("wait=")?.trim().parse().ok());
    seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT)).next()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn waits_are_read_and_capped() {
        let cases = [
            ("wait=5", Some(5)),
            ("respond-async, wait=10", Some(10)),
            ("wait=100000", Some(60)),
            ("wait=-1", None),
            ("wait=soon", None),
            ("handling=lenient", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(PREFER, HeaderValue::from_static(value))]);
            assert_eq!(wait(&headers), expected.map(Duration::from_secs), "{value}");
        }
        assert_eq!(wait(&HeaderMap::new()), None);
    }
}
