//! What may be wrong with an artifact: always the tensor and the place in the file.

use crate::codec::DecodeError;
use crate::tensor::{CodebookError, FloatType};

/// Why a file is not an artifact, or could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The file system failed.
    #[error("the file could not be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// The safetensors header is damaged, or the file is cut short.
    #[error("not a whole safetensors file: {0}")]
    Container(#[from] safetensors::SafeTensorError),
    /// A safetensors file without our metadata.
    #[error("a safetensors file, but not a Weightpress artifact: the metadata has no `weightpress` entry")]
    NotAnArtifact,
    /// The metadata entry does not read `version sha256 recipe`.
    #[error("the metadata entry `weightpress` has no valid {part}")]
    Metadata { part: &'static str },
    /// Written by another version of the format.
    #[error("format version {found} is not supported, this program reads version {supported}")]
    Version { found: u32, supported: u32 },
    /// The entries are not one-dimensional U8 tensors named 0, 1, 2, ...
    #[error("entry {id:?} is not one of {entries} records named 0, 1, 2, ...")]
    Entry { id: String, entries: usize },
    /// A record is damaged.
    #[error("tensor {tensor:?}, byte {offset}: {source}")]
    Record {
        /// The stored name, or the record's id where the damage precedes it.
        tensor: String,
        /// From the start of the file.
        offset: u64,
        /// What is wrong there.
        source: RecordError,
    },
    /// Two records of one name, or two graphs.
    #[error("tensor {tensor:?} is stored twice")]
    Duplicate { tensor: String },
    /// The graph names a tensor whose data is nowhere.
    #[error("the graph needs tensor {tensor:?}, and no record holds it")]
    MissingTensor { tensor: String },
    /// An export to ONNX of weights without a graph.
    #[error("this artifact holds weights without a graph, so it cannot be exported as ONNX")]
    NoGraph,
    /// The target format of an export has no such type.
    #[error("tensor {tensor:?} of type {dtype} cannot be exported as safetensors")]
    Unrepresentable { tensor: String, dtype: String },
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record ended early.
    #[error("need {needed} bytes, found {found}")]
    Truncated { needed: u64, found: usize },
    /// A varint of more than 64 bits, or one that is longer than it has to be.
    #[error("a number is not a varint in its shortest form")]
    Varint,
    /// The bytes are not those that were written.
    #[error("checksum {computed:08x} computed, {stored:08x} stored")]
    Checksum { stored: u32, computed: u32 },
    /// A value that this version of the format does not define.
    #[error("{field} {value} is not defined")]
    Reserved { field: &'static str, value: u64 },
    /// A name that is not UTF-8.
    #[error("the name is not UTF-8")]
    Name,
    /// The layout does not fit the dimensions, or their product overflows.
    #[error("dimensions {dims:?} overflow or do not fit the layout")]
    Shape { dims: Vec<usize> },
    /// More elements than a record of this size, in a file that has spent some of its allowance, may stand for.
    #[error("{elements} elements in a record of {found} bytes, at most {limit} are left to it")]
    Elements { elements: u64, limit: u64, found: usize },
    /// A codebook that is not in the file.
    #[error("codebook {index} of {codebooks} does not exist")]
    UnknownCodebook { index: u64, codebooks: usize },
    /// Weight and codebook differ in type.
    #[error("a tensor of {} with a codebook of {}", .tensor.name(), .codebook.name())]
    CodebookType { tensor: FloatType, codebook: FloatType },
    /// The codebook is damaged.
    #[error(transparent)]
    Codebook(#[from] CodebookError),
    /// The encoded matrix is damaged.
    #[error(transparent)]
    Payload(#[from] DecodeError),
    /// Data of another length than dimensions and type ask for.
    #[error("{needed} bytes of data expected, found {found}")]
    DataLength { needed: u64, found: u64 },
    /// The deflated bytes are damaged, or inflate to another length than they claim.
    #[error("the data do not inflate to the {needed} bytes they claim")]
    Inflate { needed: u64 },
    /// Records that inflate to more than a reader is willing to hold.
    #[error("inflates to {needed} bytes, and {left} are left of what a file may inflate to")]
    InflateLimit { needed: u64, left: u64 },
    /// Decoding the graph would take too much memory.
    #[error("the graph needs more than {max_bytes} bytes of memory")]
    GraphTooLarge { max_bytes: usize },
    /// Subgraphs nest too deeply.
    #[error("graphs nest more than {max} deep")]
    GraphTooDeep { max: usize },
    /// The graph breaks the rules of the protobuf wire format.
    #[error("the graph is no protobuf: {reason}")]
    GraphMalformed { reason: &'static str },
    /// The graph is not a ModelProto.
    #[error("the graph is not a ModelProto: {0}")]
    Graph(#[from] prost::DecodeError),
}
