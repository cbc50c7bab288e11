//! Logs and metrics of the process.

pub use metrics_exporter_prometheus::PrometheusHandle;
