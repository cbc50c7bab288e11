//! Why a network cannot be fine-tuned.

use crate::progress::Cancelled;

/// Why a network cannot be fine-tuned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// A weights-only file has nothing to train.
    #[error("the file holds weights only, no graph to train")]
    NoGraph,
    /// An operator that has no gradient here.
    #[error("fine-tuning does not support the operator {operator}, of node {node}")]
    UnsupportedOperator { operator: String, node: String },
    /// An attribute with a value that fine-tuning does not support.
    #[error("fine-tuning does not support {attribute} = {value} of the {operator} {node}")]
    UnsupportedAttribute { node: String, operator: String, attribute: &'static str, value: String },
    /// A node lacks an attribute that its operator demands, or has one of another type.
    #[error("the {operator} {node} has no attribute {attribute} of the right type")]
    MissingAttribute { node: String, operator: String, attribute: &'static str },
    /// A node reads a value that nothing before it produces.
    #[error("node {node} reads {name}, which nothing before it produces")]
    Undefined { node: String, name: String },
    /// Two nodes, inputs or tensors produce one name.
    #[error("{name} is produced twice")]
    ProducedTwice { name: String },
    /// The graph has no output of this name.
    #[error("the graph has no output {name}")]
    NoOutput { name: String },
    /// A tensor or input of an element type that fine-tuning does not compute in.
    #[error("fine-tuning does not compute in element type {code} of {name}")]
    UnsupportedType { name: String, code: i32 },
    /// A tensor whose data do not fill its dimensions.
    #[error("tensor {name} of shape {dims:?} needs {expected} elements, found {found}")]
    ElementCount { name: String, dims: Vec<i64>, expected: u64, found: usize },
    /// A node failed on these inputs.
    #[error("the {operator} {node} failed: {source}")]
    Node { node: String, operator: String, source: OperatorError },
    /// The arithmetic library stopped.
    #[error("the arithmetic stopped: {reason}")]
    Panicked { reason: String },

    /// A parameter that is no real tensor of the graph that gradients reach.
    #[error("the graph has no tensor {name} that can be trained")]
    UnknownParameter { name: String },
    /// A parameter of another shape than the graph's tensor.
    #[error("tensor {name} has the shape {expected:?}, its parameter {found:?}")]
    ParameterShape { name: String, expected: Vec<usize>, found: Vec<usize> },
    /// A parameter with more or fewer values, symbols or mask bits than its shape says.
    #[error("{what} of {name} are {found}, not {expected}")]
    ParameterLength { name: String, what: &'static str, expected: usize, found: usize },
    /// A symbol beyond the codebook, or a codebook that does not exist.
    #[error("{name} refers to {what} {found} of {count}")]
    ParameterIndex { name: String, what: &'static str, found: usize, count: usize },
    /// A codebook whose zero symbol does not stand for 0.
    #[error("symbol {symbol} of codebook {codebook} is to be zero, but is {value}")]
    ZeroSymbol { codebook: usize, symbol: u16, value: f32 },
    /// A frozen tensor was to be changed: what depends on it may be cached.
    #[error("tensor {name} is frozen")]
    Frozen { name: String },
    /// Nothing is trained.
    #[error("no tensor is trained")]
    NothingToTrain,
    /// A setting out of its range.
    #[error("{setting} must be {expected}, not {found}")]
    Setting { setting: &'static str, expected: &'static str, found: String },

    /// An input of the graph was not given.
    #[error("input {name} is missing")]
    MissingInput { name: String },
    /// An input has another element type than the graph's.
    #[error("input {name} holds {found}, not {expected}")]
    InputType { name: String, expected: &'static str, found: &'static str },
    /// An array, an output or a target does not have one row for each sample.
    #[error("{name} has the shape {dims:?}, not a row for each of {samples} samples")]
    Rows { name: String, dims: Vec<usize>, samples: usize },
    /// The loss needs targets, and the samples have none.
    #[error("the samples have no targets, which the loss needs")]
    NoTarget,
    /// Targets that do not fit the outputs.
    #[error("{found} target values a sample for {expected} outputs")]
    TargetLength { expected: usize, found: usize },
    /// A class label outside the outputs.
    #[error("label {label} is outside the {classes} classes")]
    Label { label: f64, classes: usize },
    /// There are no samples.
    #[error("there are no samples")]
    NoSamples,
    /// The samples could not be read.
    #[error("samples could not be read: {0}")]
    Samples(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The loss is no longer a number.
    #[error("the loss is {loss} in step {step}: the learning rate may be too large")]
    Diverged { step: u64, loss: f64 },

    /// A checkpoint that is damaged, or of another version.
    #[error("the checkpoint is unreadable: {reason}")]
    Checkpoint { reason: &'static str },
    /// A checkpoint of a run with other settings, tensors or samples.
    #[error("the checkpoint belongs to a run with other {what}")]
    OtherRun { what: &'static str },
    /// The caller stopped the run.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Why an operator cannot be applied to its inputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// A required input is absent.
    #[error("input {index} is missing")]
    MissingInput { index: usize },
    /// Reals in the place of integers or the reverse.
    #[error("{expected} expected, found {found}")]
    WrongType { expected: &'static str, found: &'static str },
    /// More or fewer dimensions than the operator takes.
    #[error("{expected} dimensions expected, found the shape {found:?}")]
    WrongRank { expected: &'static str, found: Vec<usize> },
    /// A list of another length.
    #[error("{expected} values expected, found {found}")]
    WrongLength { expected: usize, found: usize },
    /// Shapes that do not go together.
    #[error("the shapes {left:?} and {right:?} do not go together")]
    Mismatch { left: Vec<usize>, right: Vec<usize> },
    /// An axis outside the tensor.
    #[error("axis {axis} of {rank} dimensions")]
    Axis { axis: i64, rank: usize },
    /// An index outside an axis.
    #[error("index {index} is outside the {extent} entries")]
    Index { index: i64, extent: usize },
    /// A shape that the elements cannot take.
    #[error("the shape {from:?} cannot become {to:?}")]
    Reshape { from: Vec<usize>, to: Vec<i64> },
    /// A kernel that is larger than the padded input, or has no extent or stride.
    #[error("a kernel of {kernel:?} does not fit an input of {input:?}")]
    Window { kernel: Vec<usize>, input: Vec<usize> },
    /// A value too large to hold.
    #[error("the shape {dims:?} is too large")]
    TooLarge { dims: Vec<usize> },
    /// A number out of the operator's range.
    #[error("{what} is {found}")]
    Range { what: &'static str, found: i64 },
}
