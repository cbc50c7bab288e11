//! Why a graph cannot be loaded or run.

use serde::{Deserialize, Serialize};

use super::allowance::Excess;
use super::array::{ArrayError, Datatype};
use super::product::OutOfRange;
use crate::artifact::ArtifactError;
use crate::model::ModelError;

/// Why a graph cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// Predictions lack these operators.
    #[error("predictions do not support {}", operators.join(", "))]
    UnsupportedOperators { operators: Vec<String> },
    /// Weights or activations of a type that predictions do not compute in.
    #[error("predictions do not compute in {datatype}, the type of {name}")]
    UnsupportedType { name: String, datatype: String },
    /// A weights-only file has nothing to run.
    #[error("the file holds weights only, no graph to run")]
    NoGraph,
    /// A stored tensor does not fit the graph it belongs to.
    #[error("tensor {name} does not fit the graph: {reason}")]
    Misfit { name: String, reason: String },
    /// The graph engine refuses the graph.
    #[error("the graph cannot be loaded: {reason}")]
    Load { reason: String },
    /// The artifact cannot be read.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The uploaded model cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// An input of the graph was not given.
    #[error("input {name} is missing")]
    MissingInput { name: String },
    /// An array was given for which the graph has no input.
    #[error("the graph has no input {name}; it has {}", known.join(", "))]
    UnknownInput { name: String, known: Vec<String> },
    /// An input was given twice.
    #[error("input {name} is given twice")]
    DuplicateInput { name: String },
    /// An input has another element type than the graph's.
    #[error("input {name} is {expected}, found {found}")]
    WrongDatatype { name: String, expected: Datatype, found: Datatype },
    /// An input has more or fewer dimensions than the graph's.
    #[error("input {name} has {expected} dimensions, found {found}")]
    WrongRank { name: String, expected: usize, found: usize },
    /// An input has another extent than the graph's.
    #[error("dimension {axis} of input {name} is {expected}, found {found}")]
    WrongExtent { name: String, axis: usize, expected: usize, found: usize },
    /// Extents that the graph calls by one name differ.
    #[error("inputs {first} and {name} share {symbol}, but have {expected} and {found}")]
    ExtentMismatch { symbol: String, first: String, expected: usize, name: String, found: usize },
    /// An array does not hold what its shape says, or is of a type the engine lacks.
    #[error("array {name}: {source}")]
    Array { name: String, source: ArrayError },
    /// An index of a Gather is below or beyond the entries of the weight that it names.
    #[error("index {index} is outside the {entries} entries of {name}")]
    IndexOutOfRange { name: String, index: i64, entries: usize },
    /// The graph would take more memory, or more iterations of a loop, than it is granted.
    #[error(transparent)]
    TooLarge(#[from] Excess),
    /// The graph failed on these inputs.
    #[error("the graph failed: {reason}")]
    Run { reason: String },
    /// It failed in another process, which told no more than this.
    #[error("{detail}")]
    Elsewhere { fault: Fault, detail: String },
}

/// What is at fault when a graph cannot be loaded or run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The caller's inputs.
    Input,
    /// The graph, which cannot be run at all.
    Graph,
    /// The graph, on these inputs.
    Run,
    /// The graph, which would make more than it may on these inputs.
    Size,
    /// The file, which was whole once.
    File,
    /// What a load or a prediction took.
    Limits,
    /// The machine; it may work another time.
    Machine,
}

impl InferError {
    /// What is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::MissingInput { .. }
            | Self::UnknownInput { .. }
            | Self::DuplicateInput { .. }
            | Self::WrongDatatype { .. }
            | Self::WrongRank { .. }
            | Self::WrongExtent { .. }
            | Self::ExtentMismatch { .. }
            | Self::Array { .. }
            | Self::IndexOutOfRange { .. } => Fault::Input,
            Self::UnsupportedOperators { .. }
            | Self::UnsupportedType { .. }
            | Self::NoGraph
            | Self::Misfit { .. }
            | Self::Load { .. } => Fault::Graph,
            Self::Run { .. } => Fault::Run,
            Self::TooLarge(_) => Fault::Size,
            Self::Artifact(_) | Self::Model(_) => Fault::File,
            Self::Elsewhere { fault, .. } => *fault,
        }
    }

    /// Whether the caller's inputs are at fault, not the graph.
    pub fn is_bad_input(&self) -> bool {
        self.fault() == Fault::Input
    }
}

impl From<OutOfRange> for InferError {
    fn from(OutOfRange { name, index, rows }: OutOfRange) -> Self {
        Self::IndexOutOfRange { name, index, entries: rows }
    }
}
