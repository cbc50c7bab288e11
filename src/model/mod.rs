//! Trained networks as they are uploaded: which tensors are weights, how each is seen as a matrix, and where its bytes
//! lie. Nothing is read until it is asked for.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tract_onnx::pb;

use crate::tensor::{FloatData, FloatType, Layout};

/// An opened model file: graph and index of tensors; the tensors' bytes stay in the file.
pub struct Model {
    format: Format,
    weights: Vec<Weight>,
    kept: Vec<Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Format {
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
    pub dtype: FloatType,
    pub layout: Layout,
    /// Which unified codebook it belongs to.
    pub family: Family,
    /// How predictions use it.
    pub role: Role,
    /// The operator inputs that multiply by it, in node order; empty unless the role is [`Role::Product`].
    pub uses: Vec<Use>,
    /// Indices of the Identity, Transpose and Cast nodes that stand between a [`Role::Product`] weight and its uses;
    /// nothing else reads them, so a rewrite that replaces every use may drop them (and a Constant node that holds the
    /// weight itself, listed here too). Ascending.
    pub chain: Vec<usize>,
}

/// An operator input that multiplies by a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Index into the graph's nodes.
    pub node: usize,
    /// Index into that node's inputs.
    pub slot: usize,
    /// The operator multiplies by the TRANSPOSE of the stored matrix. [`Weight::layout`] is chosen so that this is
    /// false for the first use; true only where a shared weight is used both ways (or a later use differs).
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
    /// Compressed in the file and expanded at load, because of the reader named here (e.g. `Gather`, or `MatMul of rank 3`).
    Expanded { reason: String },
}

/// A tensor that stays as it is, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Kept {
    pub name: String,
    pub dims: Vec<usize>,
    /// ONNX / NumPy type name in lower case, e.g. `int8`, `float32`.
    pub dtype: String,
    pub size_bytes: u64,
    /// For people, e.g. `read by Add as a bias`, `int8 tensor`, `inside an If branch`.
    pub reason: String,
}

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Port {
    pub name: String,
    /// Open Inference Protocol datatype: `FP32`, `INT64`, ...
    pub datatype: String,
    /// `None`: any extent.
    pub dims: Vec<Option<usize>>,
}

/// Tensors of at least this many bytes that are no weights leave the graph too ([`Model::detached`]); smaller ones stay
/// inside it.
pub const INLINE_LIMIT: u64 = 4096;

/// Finds the weights and the kept tensors of a graph from its names, dims and types alone: a skeleton or the graph of
/// an artifact gives the same answer as the full model.
pub fn analyze(model: &pb::ModelProto) -> (Vec<Weight>, Vec<Kept>) {
    todo!()
}

/// Every tensor that may have been emptied or detached, by the name that [`Weight::name`] and [`Kept::name`] use: each
/// top-level initializer, and the value of each top-level Constant node under the node's output name. Fill in
/// `raw_data` to restore one.
pub fn constants_mut(model: &mut pb::ModelProto) -> impl Iterator<Item = (String, &mut pb::TensorProto)> {
    model.graph.as_mut().into_iter().flat_map(|graph| {
        let initializers = graph.initializer.iter_mut().map(|t| (t.name.clone(), t));
        initializers.chain(graph.node.iter_mut().filter(|n| n.op_type == "Constant").filter_map(|node| {
            let name = node.output.first()?.clone();
            let value = node.attribute.iter_mut().find(|a| a.name == "value")?;
            Some((name, value.t.as_mut()?))
        }))
    })
}

impl Model {
    /// Opens a model held in memory; otherwise as [`Model::open`].
    pub fn from_bytes(bytes: bytes::Bytes) -> Result<Self, ModelError> {
        todo!()
    }

    /// Opens the file at `path`, whose format is told from its bytes. Checks the structure of the file completely (sizes against bytes
    /// present, dimension products, external data), reads no weight.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        todo!()
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// What can be compressed, in file order.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// What cannot, in file order.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Empty for a weights-only file.
    pub fn inputs(&self) -> &[Port] {
        todo!()
    }

    pub fn outputs(&self) -> &[Port] {
        todo!()
    }

    /// The graph without the bytes of its large tensors: every weight's, and every other top-level initializer's of
    /// `INLINE_LIMIT` bytes or more, is emptied (names, dims and types stay). `None` for a weights-only file.
    pub fn skeleton(&self) -> Option<&pb::ModelProto> {
        todo!()
    }

    /// Reads a weight, in tensor order (not yet matrix order).
    pub fn read(&self, weight: &Weight) -> Result<FloatData, ModelError> {
        todo!()
    }

    /// Kept tensors whose bytes are NOT in the skeleton: ONNX initializers of `INLINE_LIMIT` bytes or more; all of them in a weights-only file.
    pub fn detached(&self) -> impl Iterator<Item = &Kept> {
        std::iter::empty()
    }

    /// Bytes of a detached tensor: little-endian elements as ONNX `raw_data` would hold them.
    pub fn read_detached(&self, kept: &Kept) -> Result<Vec<u8>, ModelError> {
        todo!()
    }

    /// Bytes of the uploaded file.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// SHA-256 of the file, hex.
    pub fn sha256(&self) -> Result<String, ModelError> {
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    #[error("the file could not be read: {0}")]
    Io(#[from] std::io::Error),
}
