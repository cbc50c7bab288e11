//! The compressed file: container, reader, writer and exports. `docs/format.md` is normative.

use std::path::Path;

use bytes::Bytes;
use tract_onnx::pb;

use crate::codec::{CodecId, CompressedMatrix};
use crate::tensor::{FloatType, Layout};

/// An artifact whose structure was checked; payloads are checked when a tensor is opened.
pub struct Artifact {}

/// One stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    pub name: String,
    pub dims: Vec<usize>,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// An encoded weight.
    Encoded { dtype: FloatType, layout: Layout, codec: CodecId, /// index into the artifact's codebooks; None for raw values
        codebook: Option<usize>, payload: Bytes },
    /// Bytes as ONNX `raw_data` would hold them; `dtype` is ONNX's lower-case type name.
    Plain { dtype: String, bytes: Bytes },
}

impl Artifact {
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        todo!()
    }
    pub fn from_bytes(bytes: Bytes) -> Result<Self, ArtifactError> {
        todo!()
    }
    pub fn tensors(&self) -> &[StoredTensor] {
        todo!()
    }
    /// Opens an encoded tensor; None for a plain one.
    pub fn matrix(&self, tensor: &StoredTensor) -> Result<Option<CompressedMatrix>, ArtifactError> {
        todo!()
    }
    /// The weight-free graph, tensor data emptied; None for weights-only.
    pub fn graph(&self) -> Result<Option<pb::ModelProto>, ArtifactError> {
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    #[error("the file could not be read: {0}")]
    Io(#[from] std::io::Error),
}
