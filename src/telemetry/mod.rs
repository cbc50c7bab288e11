//! Logs and metrics of the process.
//!
//! Metrics are recorded where things happen and listed in [`METRICS`]. The process has one recorder, installed by whoever asks
//! first.

mod catalogue;
mod process;

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::app::App;
use crate::config::LogFormat;
use crate::trace;

pub use catalogue::{METRICS, Metric, MetricKind, MetricLabel};
pub use metrics_exporter_prometheus::PrometheusHandle;

/// Sends the log to standard error in `format`, and spans to a collector if the environment names one. `filter` is `level` or `module=level,...`.
///
/// # Errors
/// When `filter` cannot be parsed, spans cannot be sent, or a log is set up already.
pub fn init_log(filter: &str, format: LogFormat) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(filter)?;
    // Colours are for terminals; a file or a collector would keep the codes.
    let log = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let log = match format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).boxed(),
    };
    Ok(tracing_subscriber::registry().with(log).with(trace::layer()?).with(filter).try_init()?)
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
