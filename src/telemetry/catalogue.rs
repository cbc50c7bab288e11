//! Every metric of the process, in one table: what it is called, what its labels may say, and what it counts.
//!
//! Names follow the conventions of Prometheus: base units as a suffix (`_seconds`, `_bytes`), `_total` for counters. No label
//! holds what a user may choose freely (a model's name, a key, a path), so the number of series is bounded.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::jobs::STAGES;

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [MetricLabel],
    /// What it counts, in a sentence.
    pub help: &'static str,
}

/// What kind of numbers a metric gives.
#[derive(Debug, Clone, Copy)]
pub enum MetricKind {
    /// Only rises while the process lives.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size, in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// A label of a metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricLabel {
    pub name: &'static str,
    /// All that it may say; empty where the routes of the API and the status codes of HTTP are the bound.
    pub values: &'static [&'static str],
}

/// From a request to a long compression, in seconds.
const DURATIONS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];

/// Of predictions, in seconds: a small network takes a tenth of a millisecond.
const PREDICTIONS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Batches, in samples.
const SAMPLES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0];

/// Files, in bytes: 1 KiB to 4 GiB, by factors of four.
const BYTES: &[f64] = &[
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

/// How many times smaller.
const RATIOS: &[f64] =
    &[1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 400.0];

const HTTP: &[MetricLabel] = &[label("method", &[]), label("route", &[]), label("status", &[])];
const KIND: MetricLabel = label("kind", &["benchmark", "compress", "evaluate", "search"]);
const FINAL: MetricLabel = label("state", &["cancelled", "failed", "succeeded"]);
const STATE: MetricLabel = label("state", &["cancelled", "cancelling", "failed", "queued", "running", "succeeded"]);
const EXECUTOR: MetricLabel = label("pool", &["jobs", "loads", "requests"]);
const DATABASE: MetricLabel = label("pool", &["reader", "shared", "writer"]);
const INFERENCE: &[MetricLabel] = &[
    label("protocol", &["mlflow", "oip", "tensorflow"]),
    label("outcome", &["abandoned", "answered", "busy", "failed", "refused"]),
];

/// Every metric that there is.
pub const METRICS: &[Metric] = &[
    counter("http_requests_total", HTTP, "Requests that were answered"),
    histogram("http_request_duration_seconds", DURATIONS, HTTP, "From the head of a request to the head of its answer"),
    counter("weightpress_inference_requests_total", INFERENCE, "Predictions that were asked for, by what came of them"),
    histogram("weightpress_inference_duration_seconds", PREDICTIONS, INFERENCE, "From the request to the answer"),
    histogram(
        "weightpress_inference_queue_duration_seconds",
        PREDICTIONS,
        &[label("queue", &["batch", "executor"])],
        "How long a prediction waited for a thread, or for its batch",
    ),
    histogram("weightpress_prediction_batch_samples", SAMPLES, &[], "Samples of requests that were run as one batch"),
    gauge("weightpress_predictors_resident_bytes", &[], "Weights of loaded predictors"),
    counter("weightpress_predictors_evicted_total", &[], "Predictors dropped to stay within the memory budget"),
    histogram("weightpress_predictor_load_duration_seconds", DURATIONS, &[], "Loading a predictor"),
    gauge("weightpress_jobs", &[STATE], "Jobs in the database, by state; of all processes alike"),
    counter("weightpress_jobs_submitted_total", &[KIND], "Jobs accepted"),
    counter("weightpress_jobs_finished_total", &[KIND, FINAL], "Jobs that reached their end"),
    histogram("weightpress_job_duration_seconds", DURATIONS, &[KIND, FINAL], "Last attempt of a finished job"),
    histogram(
        "weightpress_job_stage_duration_seconds",
        DURATIONS,
        &[label("stage", STAGES)],
        "Time that one attempt of a job spent in a stage",
    ),
    histogram("weightpress_artifact_bytes", BYTES, &[], "Artifacts of finished compressions and searches"),
    histogram("weightpress_compression_ratio", RATIOS, &[], "Bytes of the upload over bytes of the artifact"),
    counter(
        "weightpress_webhook_deliveries_total",
        &[label("outcome", &["delivered", "failed", "retried"])],
        "Messages to webhooks that were sent, by what came of it",
    ),
    gauge("weightpress_executor_threads", &[EXECUTOR], "Threads of a pool: as much work runs at the same time"),
    gauge(
        "weightpress_executor_tasks",
        &[EXECUTOR, label("state", &["running", "waiting"])],
        "Pieces of CPU work in a pool",
    ),
    gauge(
        "weightpress_database_connections",
        &[DATABASE, label("state", &["idle", "used"])],
        "Open connections to the database",
    ),
    gauge("weightpress_database_connections_max", &[DATABASE], "Most connections to the database that may be open"),
    gauge("process_start_time_seconds", &[], "When the process started, in seconds since the epoch"),
    gauge("process_resident_memory_bytes", &[], "Memory of the process that is in RAM"),
];

const fn label(name: &'static str, values: &'static [&'static str]) -> MetricLabel {
    MetricLabel { name, values }
}

const fn counter(name: &'static str, labels: &'static [MetricLabel], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [MetricLabel], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    buckets: &'static [f64],
    labels: &'static [MetricLabel],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Histogram(buckets), labels, help }
}

impl Metric {
    /// Says what it is, and begins its counters at zero, so that their first rise is seen as one.
    pub(super) fn announce(&self) {
        let (name, help) = (self.name, self.help);
        match self.kind {
            MetricKind::Counter => {
                describe_counter!(name, help);
                self.series().iter().for_each(|labels| counter!(name, labels).increment(0));
            }
            MetricKind::Gauge => {
                describe_gauge!(name, help);
                if self.labels.is_empty() {
                    gauge!(name).set(0.0);
                }
            }
            MetricKind::Histogram(_) => {
                describe_histogram!(name, help);
                if self.labels.is_empty() {
                    drop(histogram!(name));
                }
            }
        }
    }

    /// The labels of each series that there may be; none where a label is bounded elsewhere.
    fn series(&self) -> Vec<Vec<(&'static str, &'static str)>> {
        self.labels.iter().fold(vec![Vec::new()], |series, label| {
            let extended = |labels: &Vec<_>| {
                let with = |value: &&'static str| [&labels[..], &[(label.name, *value)]].concat();
                label.values.iter().map(with).collect::<Vec<_>>()
            };
            series.iter().flat_map(extended).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for Metric { name, kind, help, .. } in METRICS {
            assert!(["http_", "process_", "weightpress_"].iter().any(|prefix| name.starts_with(prefix)), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), matches!(kind, MetricKind::Counter), "{name}");
            for unit in ["_ms", "_us", "_minutes", "_kib", "_mib", "_percent", "_count", "_sum", "_bucket"] {
                assert!(
                    !name.ends_with(unit),
                    "{name}: {unit} is not a base unit, or belongs to a part of a histogram"
                );
            }
            for word in ["gauge", "counter", "histogram"] {
                assert!(!name.split('_').any(|part| part == word), "{name}: its type is no part of the name");
            }
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
            if let MetricKind::Histogram(buckets) = kind {
                assert!(buckets.is_sorted_by(|a, b| a < b) && buckets.len() <= 20, "{name}");
            }
        }
        let names: std::collections::BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len(), "none is there twice");
    }

    #[test]
    fn every_metric_has_a_row_in_the_documents_and_no_other_has() {
        let page = include_str!("../../docs/operations.md");
        let section = page.split("\n## What to watch").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = section.expect("the section").lines().filter(|line| line.starts_with("| `"));
        let first = rows.map(|row| row.split('|').nth(1).unwrap_or_default());
        let named: Vec<_> = first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let mut documented: Vec<_> = named.iter().map(|name| name.split('{').next().unwrap_or_default()).collect();
        let mut known: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        documented.sort_unstable();
        known.sort_unstable();
        assert_eq!(documented, known);
        // And each row names the labels.
        for Metric { name, labels, .. } in METRICS {
            let labels: Vec<_> = labels.iter().map(|label| label.name).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            assert!(named.contains(&format!("{name}{labels}").as_str()), "{name}{labels} is not named so");
        }
    }

    #[test]
    fn series_are_all_combinations_of_what_labels_may_say() {
        let finished = METRICS.iter().find(|metric| metric.name == "weightpress_jobs_finished_total");
        let series = finished.expect("a metric").series();
        assert_eq!(series.len(), 12);
        assert!(series.contains(&vec![("kind", "search"), ("state", "failed")]));
        assert!(METRICS[0].series().is_empty(), "routes are not listed here");
    }
}
