//! Datasets, their mapping onto a graph's inputs, and the metrics of an evaluation.

mod dataset;
mod error;
mod feed;
mod mapping;
mod metrics;
mod paired;
mod run;
mod samples;
mod splits;

pub use dataset::{ArrayInfo, Dataset};
pub use error::EvaluateError;
pub use feed::{Batch, first_samples};
pub use mapping::{DataMap, InputMap, Split, TargetKind, TargetMap};
pub use metrics::{Against, Metric};
pub use paired::Drop;
pub use run::{Evaluation, Measured, MetricValue, check};
pub use samples::Samples;
pub use splits::{DataSplits, SplitMaps};
