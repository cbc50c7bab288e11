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

impl Model {
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
