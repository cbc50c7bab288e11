//! Counts predictions by what came of them, and how long they took; those too that nobody waited for to the end.

use std::time::Instant;

use axum::http::StatusCode;

use crate::http::Error;

/// A prediction that is being made. Dropped before its end, it counts as abandoned.
pub struct Measured {
    started: Instant,
    protocol: &'static str,
    outcome: &'static str,
}

impl Measured {
    /// Starts now, in the protocol of that name.
    pub fn begin(protocol: &'static str) -> Self {
        Self { started: Instant::now(), protocol, outcome: "abandoned" }
    }

    /// Counts it by its `answer`.
    pub fn end<T>(mut self, answer: &Result<T, Error>) {
        self.outcome = answer.as_ref().map_or_else(|error| outcome(error.status()), |_| "answered");
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let labels = [("protocol", self.protocol), ("outcome", self.outcome)];
        metrics::counter!("weightpress_inference_requests_total", &labels).increment(1);
        metrics::histogram!("weightpress_inference_duration_seconds", &labels).record(self.started.elapsed());
    }
}

/// What came of a prediction that failed with `status`.
fn outcome(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => "busy",
        status if status.is_client_error() => "refused",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_tell_the_users_faults_from_the_services() {
        for (error, expected) in [
            (Error::Busy, "busy"),
            (Error::RepeatedOutput { name: "y".to_owned() }, "refused"),
            (Error::Panicked { message: String::new() }, "failed"),
        ] {
            assert_eq!(outcome(error.status()), expected, "{error}");
        }
    }
}
