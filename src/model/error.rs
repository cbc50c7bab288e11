//! Why a file is not a model, or not one that can be compressed.

use std::io;

/// What is wrong with a model file. Each variant names the tensor, or the offset, and the numbers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused.
    #[error("the file could not be read: {0}")]
    Io(#[from] io::Error),
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The first bytes belong to no known format.
    #[error("the file is neither ONNX, nor safetensors, nor npz")]
    UnknownFormat,
    /// A length points past the end of what encloses it.
    #[error("offset {offset}: {needed} bytes announced, {found} present (the file is cut short or damaged)")]
    Truncated { offset: u64, needed: u64, found: u64 },
    /// The bytes break the rules of the protobuf wire format.
    #[error("offset {offset}: {reason}")]
    Malformed { offset: u64, reason: &'static str },
    /// The graph, once pruned of its weights, still does not decode.
    #[error("the graph does not decode: {0}")]
    Graph(#[from] prost::DecodeError),
    /// An ONNX file without a graph.
    #[error("the ONNX file holds no graph")]
    MissingGraph,
    /// An ONNX file that names no operator set; ONNX demands one, and a file that was cut short has lost it.
    #[error("the ONNX file names no operator set (is it cut short?)")]
    MissingOpset,
    /// A file of arrays without any.
    #[error("the file holds no tensor")]
    NoTensors,
    /// A node reads a value that is neither given nor computed.
    #[error("{node} reads {input:?}, which nothing produces")]
    UndefinedInput { node: String, input: String },
    /// An output of the graph that is neither given nor computed.
    #[error("nothing produces the graph's output {output:?}")]
    UndefinedOutput { output: String },
    /// Nodes that wait for each other.
    #[error("{node} waits for its own output")]
    Cycle { node: String },
    /// A convolution whose groups cannot divide its weight.
    #[error("{node} has {groups} groups, its weight {} channels to divide among them", .channels.unwrap_or(0))]
    Groups { node: String, groups: i64, channels: Option<i64> },
    /// Subgraphs nest too deeply.
    #[error("graphs nest more than {max} deep")]
    TooDeep { max: usize },
    /// What must be held in memory (graph and small tensors) is too large.
    #[error("graph, small tensors and tensors inside subgraphs need more than {max_bytes} bytes of memory")]
    GraphTooLarge { max_bytes: usize },
    /// More nodes than any model has.
    #[error("the graph, with those inside it, has more than {max} nodes")]
    TooManyNodes { max: usize },
    /// A tensor of more axes than any model has.
    #[error("{name:?} has {rank} axes, the limit is {max}")]
    Rank { name: String, rank: usize, max: usize },
    /// An attribute that asks for more than can be.
    #[error("{node}: the attribute {attribute:?} asks for {reason}")]
    Attribute { node: String, attribute: String, reason: String },
    /// A weight cannot be referred to.
    #[error("an initializer has no name")]
    Unnamed,
    /// Two tensors or node outputs share a name.
    #[error("{name:?} is defined more than once")]
    DuplicateName { name: String },
    /// A dimension is below zero.
    #[error("tensor {tensor:?}: dimension {index} is {value}")]
    NegativeDimension { tensor: String, index: usize, value: i64 },
    /// The dimensions multiply to more than an address can hold.
    #[error("tensor {tensor:?}: the dimensions {dims:?} overflow")]
    Overflow { tensor: String, dims: Vec<u64> },
    /// The data does not fill the dimensions exactly.
    #[error("tensor {tensor:?}: dimensions {dims:?} of {dtype} need {needed} bytes, found {found}")]
    DataSize { tensor: String, dims: Vec<usize>, dtype: &'static str, needed: u64, found: u64 },
    /// The data lies in another file.
    #[error("tensor {tensor:?} keeps its data in another file; save the model as one file")]
    ExternalData { tensor: String },
    /// The data is cut into segments, which no ONNX writer does.
    #[error("tensor {tensor:?} is stored in segments")]
    Segmented { tensor: String },
    /// Two places hold data, and they may disagree.
    #[error("tensor {tensor:?} holds data in more than one field, or in one that does not fit its type")]
    AmbiguousData { tensor: String },
    /// The element type is unknown.
    #[error("tensor {tensor:?}: element type {code} is unknown")]
    ElementType { tensor: String, code: i64 },
    /// The element type has a name that this program does not know.
    #[error("tensor {tensor:?}: element type {found} is unknown")]
    ElementName { tensor: String, found: String },
    /// The header of a safetensors file is not JSON, or its offsets do not fit its shapes.
    #[error("safetensors header: {0}")]
    Safetensors(#[from] serde_json::Error),
    /// A header announces more bytes, or more members, than this program reads.
    #[error("the header announces {found} bytes or members, the limit is {max}")]
    HeaderTooLarge { found: u64, max: u64 },
    /// A small file that stands for a huge one.
    #[error("{arrays} inflate to {bytes} bytes, the limit is {max}")]
    InflatesTooFar { arrays: &'static str, bytes: u64, max: u64 },
    /// The zip container of an npz is wrong.
    #[error("npz container: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// The header of an array is wrong.
    #[error("array {name:?}: {reason}")]
    Npy { name: String, reason: String },
    /// The model holds no tensor of this name.
    #[error("the model holds no tensor {name:?}")]
    UnknownTensor { name: String },
    /// Other elements for a tensor, but not as many.
    #[error("tensor {name:?} takes {expected} bytes, not {given}")]
    TensorSize { name: String, given: usize, expected: usize },
}
