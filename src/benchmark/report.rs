//! What a benchmark measured.

use serde::{Deserialize, Serialize};

use crate::infer::Residency;

/// What a benchmark measured: the baseline first, then what was compared with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct BenchmarkReport {
    pub contenders: Vec<ContenderReport>,
}

/// A version under one residency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct ContenderReport {
    /// Which version, or which file.
    pub name: String,
    /// How its weights are held; an upload is always dense.
    pub residency: Residency,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// Bytes of its weights in memory.
    pub weights_resident_bytes: u64,
    /// One for each batch and number of threads, in that order.
    pub timings: Vec<Timing>,
}

/// How fast predictions are with one batch and number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Timing {
    /// Samples at a time.
    pub batch: usize,
    /// Threads of the products.
    pub threads: usize,
    /// Predictions that were timed.
    pub runs: u64,
    /// Milliseconds that half of the predictions do not exceed.
    pub p50_ms: f64,
    /// Milliseconds that 95 % of the predictions do not exceed.
    pub p95_ms: f64,
    /// Throughput of one prediction after another.
    pub samples_per_second: f64,
    /// Time of the turns as a multiple of the baseline's in the same round: the median. 1 for the baseline.
    pub time_ratio: f64,
    /// The time of each layer that is multiplied or looked up, in file order.
    pub layers: Vec<LayerTime>,
    /// Median milliseconds of the rest of the graph.
    pub graph_ms: f64,
}

/// Where a part of the time goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct LayerTime {
    /// The layer's weight.
    pub name: String,
    /// Median milliseconds, by predictions that are timed operator by operator.
    pub p50_ms: f64,
}
