//! Benchmarks: versions of a model run side by side, for their latency, throughput and time per layer.
//!
//! The machine is never quiet, so the versions take turns of a few milliseconds each and share its noise; a time is
//! then compared with the baseline's in the same round. Every setting (batch and threads) runs on a thread pool of that
//! width, made for it.

mod error;
mod report;
mod run;
mod samples;
mod settings;

pub use error::BenchmarkError;
pub use report::{BenchmarkReport, ContenderReport, LayerTime, Timing};
pub use run::{Benchmark, Contender};
pub use samples::Samples;
pub use settings::{Settings, check};
