//! Why an evaluation cannot be run, in words that say what to change.

use super::Split;
use std::io;

use super::Metric;
use crate::infer::{ArrayError, InferError};
use crate::model::ModelError;
use crate::progress::Cancelled;

/// What is wrong with a dataset, or with how it is mapped onto a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The file is no `.npz` or `.safetensors`, or is damaged.
    #[error("dataset: {0}")]
    File(#[from] ModelError),
    /// Large arrays could not be unpacked to a temporary file.
    #[error("dataset: {0}")]
    Io(#[from] io::Error),
    /// The file is a model with a graph.
    #[error("an ONNX file is no dataset; .npz and .safetensors are")]
    NotADataset,
    /// The mapping names an array that the dataset lacks.
    #[error("the dataset has no array {name:?}; it has {}", list(known))]
    UnknownArray { name: String, known: Vec<String> },
    /// The mapping names an input that the graph lacks.
    #[error("the graph has no input {name:?}; it has {}", list(known))]
    UnknownInput { name: String, known: Vec<String> },
    /// An input of the graph is fed by nothing.
    #[error("input {name:?} is mapped to no array; the dataset has {}", list(arrays))]
    UnmappedInput { name: String, arrays: Vec<String> },
    /// Elements that cannot be computed with.
    #[error("array {name:?} holds {dtype} elements, which cannot be used here")]
    ElementType { name: String, dtype: String },
    /// An array without a first dimension has no samples.
    #[error("array {name:?} is a single number; its first dimension should count samples")]
    NoSampleDimension { name: String },
    /// Arrays count different numbers of samples.
    #[error("array {first:?} has {first_len} samples and array {second:?} has {second_len}")]
    LengthsDiffer { first: String, first_len: usize, second: String, second_len: usize },
    /// The samples of an array do not fill the input.
    #[error("input {input:?} takes {needed} per sample, array {array:?} has {found:?} per sample")]
    SampleShape { input: String, array: String, needed: String, found: Vec<usize> },
    /// Two inputs, or an input and its array, fix different batch sizes.
    #[error("the inputs of the graph fix different batch sizes: {first} and {second}")]
    BatchSizes { first: usize, second: usize },
    /// The batch that the graph declares, or that was asked for, does not fit memory.
    #[error("{batch} samples of {sample_bytes} bytes at a time are more than the {max} bytes allowed")]
    BatchTooLarge { batch: usize, sample_bytes: usize, max: usize },
    /// A split was asked for, and nothing says which samples belong to it.
    #[error("a split was asked for, but the dataset has no array \"split\"")]
    NoSplit,
    /// One mapping for all splits that names one of them.
    #[error(
        "the array \"split\" tells which samples are for what, so the mapping names no split; to choose otherwise, give one for \
         each: train, validation, test"
    )]
    SplitOfAll,
    /// The array `split` is no list of samples, or too long a one.
    #[error("array \"split\" of shape {dims:?} should be one number for each of at most {max} samples")]
    SplitShape { dims: Vec<usize>, max: usize },
    /// The array `split` holds something else than 0, 1 and 2.
    #[error("sample {sample}: split is {value}; 0 is train, 1 validation, 2 test")]
    SplitValue { sample: usize, value: f64 },
    /// A range that is empty, or reaches past the samples that the split leaves.
    #[error("no samples from {start} up to {end}: there are {samples}")]
    SampleRange { start: usize, end: usize, samples: usize },
    /// Nothing to evaluate on.
    #[error("no samples are left to evaluate on")]
    NoSamples,
    /// A split that none of the samples belongs to.
    #[error("no sample belongs to the split {}", format!("{split:?}").to_lowercase())]
    EmptySplit { split: Split },
    /// A label is no class of the output.
    #[error("sample {sample}: label {label} is outside the {classes} classes of the output")]
    LabelOutOfRange { sample: usize, label: f64, classes: usize },
    /// A class label is not a whole number.
    #[error("sample {sample}: label {label} is not a whole number, as a class must be")]
    FractionalLabel { sample: usize, label: f64 },
    /// A target is an infinity or no number.
    #[error("sample {sample}: the target is {value}")]
    TargetNotFinite { sample: usize, value: f64 },
    /// The output cannot be compared with the target.
    #[error("output {output:?} of shape {shape:?} does not match {per_sample} targets for each of {batch} samples")]
    OutputShape { output: String, shape: Vec<usize>, per_sample: usize, batch: usize },
    /// A metric lacks what it compares with.
    #[error("{} needs {needs}", metric.name())]
    MetricNeeds { metric: Metric, needs: &'static str },
    /// The graph has no output.
    #[error("the graph has no output")]
    NoOutput,
    /// A prediction failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The datatype of an input is not one that arrays can be cast to.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// The caller asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    if quoted.is_empty() { "none".into() } else { quoted.join(", ") }
}
