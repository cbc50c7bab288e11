//! Logs and metrics of the process.
//!
//! Metrics are recorded where things happen and listed in [`METRICS`]. The process has one recorder, installed by whoever asks
//! first.

mod catalogue;
mod process;

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::config::LogFormat;

pub use catalogue::{METRICS, Metric, MetricKind, MetricLabel};
pub use metrics_exporter_prometheus::PrometheusHandle;

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
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let MetricKind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    METRICS.iter().for_each(Metric::announce);
    process::started();
    Ok(installed.insert(handle).clone())
}

/// Sets the metrics of what is full and what waits in `app`, and of the process, to what they are now.
pub fn sample(app: &App) {
    for pool in app.executor.pools() {
        let tasks = |state, count: usize| {
            metrics::gauge!("weightpress_executor_tasks", "pool" => pool.name, "state" => state).set(count as f64);
        };
        tasks("running", pool.running);
        tasks("waiting", pool.waiting);
        metrics::gauge!("weightpress_executor_threads", "pool" => pool.name).set(pool.threads as f64);
    }
    for pool in app.storage.store.connections() {
        let connections = |state, count: u32| {
            metrics::gauge!("weightpress_database_connections", "pool" => pool.name, "state" => state).set(count);
        };
        connections("idle", pool.idle);
        connections("used", pool.used);
        metrics::gauge!("weightpress_database_connections_max", "pool" => pool.name).set(pool.max);
    }
    process::sample();
}
