//! Logs and metrics of the process.
//!
//! Names of metrics end in their unit: `_seconds`, `_bytes`; counters in `_total`. The process has one recorder,
//! installed by whoever asks first.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

pub use metrics_exporter_prometheus::PrometheusHandle;

/// Upper bounds of the buckets of durations, in seconds: from a prediction to a long compression.
const DURATION_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];

/// Upper bounds of the buckets of batches, in samples.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0];

/// Sends the log to standard error in `format`. `filter` is `level` or `module=level,...`.
///
/// # Errors
/// When `filter` cannot be parsed, or a log is set up already.
pub fn init_log(filter: &str, format: LogFormat) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours are for terminals; a file or a collector would keep the codes.
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).try_init(),
    }
}

/// The recorder of metrics of this process.
///
/// # Errors
/// When another recorder is installed.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    // Held while the recorder is installed, so that two who ask at once get the same one.
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let buckets = Matcher::Suffix("_seconds".to_owned());
    let batches = Matcher::Full("weightpress_prediction_batch_samples".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(buckets, DURATION_BUCKETS)?;
    let handle = builder.set_buckets_for_metric(batches, BATCH_BUCKETS)?.install_recorder()?;
    describe();
    Ok(installed.insert(handle).clone())
}

fn describe() {
    describe_counter!("weightpress_jobs_submitted_total", "Jobs accepted, by kind");
    describe_counter!("weightpress_jobs_finished_total", "Jobs that reached their end, by kind and state");
    describe_counter!(
        "weightpress_webhook_deliveries_total",
        "Messages to webhooks that were sent, by what came of it"
    );
    describe_histogram!("weightpress_job_duration_seconds", Unit::Seconds, "Last attempt of a finished job");
    describe_gauge!("weightpress_jobs", "Jobs in the database, by state");
    describe_gauge!("weightpress_predictors_resident_bytes", Unit::Bytes, "Weights of loaded predictors");
    describe_histogram!("weightpress_predictor_load_duration_seconds", Unit::Seconds, "Loading a predictor");
    describe_histogram!("weightpress_prediction_batch_samples", "Samples of requests that were run as one batch");
    describe_counter!("weightpress_predictors_evicted_total", "Predictors dropped to stay within the memory budget");
}
