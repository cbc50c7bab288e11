//! Trained networks as they are uploaded: which tensors are weights, how each is seen as a matrix, and where its bytes
//! lie. Nothing is read until it is asked for, so memory does not grow with the file.
//!
//! An ONNX file passes through `wire` (fields), `scan` (the file without its large tensors) and `graph` (who reads
//! what); a weights-only file through `arrays`. [`Model`] joins them.

mod arrays;
mod changed;
mod element;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod graph;
mod limits;
mod nested;
mod npy;
mod npz;
mod open;
mod operators;
mod ports;
mod safetensors;
mod scan;
mod source;
mod tensor_proto;
mod wire;
mod wiring;

use serde::{Deserialize, Serialize};

pub(crate) use arrays::{ArrayEntry, ArrayFile, Body as ArrayBody};
pub(crate) use element::{DataField, ElementType, element_count, shape_of};
pub use error::ModelError;
pub use graph::{analyze, constants_mut};
pub(crate) use graph::{constant_tensors, constant_value};
pub(crate) use limits::check_limits;
pub(crate) use nested::captured_names;
pub use open::Model;
pub(crate) use operators::is_standard;
pub use ports::ports;
pub(crate) use scan::check_decodable;
pub(crate) use source::Source;

use crate::tensor::{FloatType, Layout};

/// The file formats that a model may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Graph and weights.
    Onnx,
    /// Weights only.
    Safetensors,
    /// Weights only.
    Npz,
}

/// A float tensor that can be compressed. A layer is named by its weight tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Unique in the model. For a weight in a Constant node: the node's output name.
    pub name: String,
    /// Operator type of its readers, e.g. `Conv`; the first reader's where they differ; `Tensor` in a weights-only file.
    pub op: String,
    /// As in the file.
    pub dims: Vec<usize>,
    /// Element type, in the file.
    pub dtype: FloatType,
    /// How the tensor is seen as a matrix; [`Layout::shape`] of `dims` is never `None`.
    pub layout: Layout,
    /// Which unified codebook it belongs to.
    pub family: Family,
    /// How predictions use it.
    pub role: Role,
    /// The operator inputs that multiply by it or look up its rows, in node order; empty where it is expanded.
    pub uses: Vec<Use>,
    /// Indices of the Identity, Transpose and Cast nodes that stand between a weight that is not expanded and its uses;
    /// nothing else reads them, so a rewrite that replaces every use may drop them (and a Constant node that holds the
    /// weight itself, listed here too). Ascending.
    pub chain: Vec<usize>,
}

impl Weight {
    /// The dimension that a use sums over.
    pub fn summed_axis(&self, usage: &Use) -> usize {
        let axis = usize::from(self.layout == Layout::RowsFirst);
        if usage.transposed { 1 - axis } else { axis }
    }
}

impl Model {
    /// Groups of outputs, of the first product by `weight`, that read inputs of their own: one, but for grouped convolutions.
    pub fn groups(&self, weight: &Weight) -> usize {
        let node = weight.uses.first().and_then(|usage| self.skeleton()?.graph.as_ref()?.node.get(usage.node));
        node.filter(|node| node.op_type.starts_with("Conv")).and_then(operators::group).unwrap_or(1)
    }
}

/// An operator input that takes a weight in compressed form: a factor of a product, or the data of a Gather.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Index into the graph's nodes.
    pub node: usize,
    /// Index into that node's inputs.
    pub slot: usize,
    /// The operator multiplies by the TRANSPOSE of the stored matrix. [`Weight::layout`] is chosen so that this is
    /// false for the first use, and for every Gather; true only where a shared weight is used both ways.
    pub transposed: bool,
}

/// Unified codebooks are one per family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Gemm, MatMul, and every weight that is not a convolution's.
    Dense,
    /// Convolutions and transposed convolutions.
    Convolution,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Multiplied in compressed form.
    Product,
    /// Its rows are looked up in compressed form, as those of an embedding; products may multiply by it too.
    Lookup,
    /// Compressed in the file and expanded at load, because of the reader named here (e.g. `LSTM`, or `MatMul of rank 3`).
    Expanded { reason: String },
}

impl Role {
    /// Whether predictions use the weight in compressed form.
    pub fn is_compressed(&self) -> bool {
        match self {
            Self::Product | Self::Lookup => true,
            Self::Expanded { .. } => false,
        }
    }
}

/// A tensor that stays as it is, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Kept {
    /// For a tensor in a node: the node's output name. Names inside subgraphs may repeat.
    pub name: String,
    /// As in the file.
    pub dims: Vec<usize>,
    /// ONNX / NumPy type name in lower case, e.g. `int8`, `float32`.
    pub dtype: String,
    /// Bytes of the elements.
    pub size_bytes: u64,
    /// For people, e.g. `read by Add as a bias`, `int8 tensor`, `inside an If branch`.
    pub reason: String,
}

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Port {
    /// Unique among the inputs, or the outputs.
    pub name: String,
    /// Open Inference Protocol datatype: `FP32`, `INT64`, ...; `UNKNOWN` for what the protocol has no name for.
    pub datatype: String,
    /// `None`: any extent.
    pub dims: Vec<Option<usize>>,
}

/// Tensors of at least this many bytes that are no weights leave the graph too ([`Model::detached`]); smaller ones stay
/// inside it.
pub const INLINE_LIMIT: u64 = 4096;
