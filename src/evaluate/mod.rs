//! Datasets, their mapping onto a graph's inputs, and the metrics of an evaluation.

mod dataset;
mod error;
mod feed;
mod mapping;
mod metrics;
mod run;

pub use dataset::{ArrayInfo, Dataset};
pub use error::EvaluateError;
pub use feed::first_samples;
pub use mapping::{DataMap, InputMap, Split, TargetKind, TargetMap};
pub use metrics::{Against, Metric};
pub use run::{Evaluation, Measured, MetricValue, check};
