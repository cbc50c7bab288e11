//! Why a benchmark cannot be run.

use crate::evaluate::EvaluateError;
use crate::infer::InferError;
use crate::progress::Cancelled;

/// Why a benchmark cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchmarkError {
    /// A setting outside its range.
    #[error("{setting} must be {expected}, not {found}")]
    OutOfRange { setting: &'static str, expected: String, found: String },
    /// All settings together take too long.
    #[error("{timings} timings of {seconds} s are more than the {max_seconds} s of a benchmark")]
    TooLong { timings: usize, seconds: f64, max_seconds: f64 },
    /// The graph says how many samples it takes.
    #[error("the graph takes {fixed} samples at a time, not {asked}")]
    FixedBatch { fixed: usize, asked: usize },
    /// A shape is given for an input that the graph does not have.
    #[error("the graph has no input {name}; it has {}", known.join(", "))]
    UnknownInput { name: String, known: Vec<String> },
    /// A shape is given that the input does not allow.
    #[error("a sample of input {name} has the shape {needed}, found {found:?}")]
    Shape { name: String, needed: String, found: Vec<usize> },
    /// Shapes are given beside data, which have their own.
    #[error("shapes are for made-up samples; those of a dataset have their own")]
    ShapesOfDataset,
    /// The inputs of one batch would not fit the memory that they may take.
    #[error("{batch} samples of the inputs take more than the {max_bytes} bytes allowed")]
    TooLarge { batch: usize, max_bytes: usize },
    /// The benchmark was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The system refused a thread.
    #[error("the system refused a thread: {reason}")]
    Threads { reason: String },
    /// The samples of the dataset do not fit the graph.
    #[error(transparent)]
    Samples(#[from] EvaluateError),
    /// The graph cannot be run.
    #[error(transparent)]
    Infer(#[from] InferError),
}
