//! Opening an artifact.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tract_onnx::pb;

use super::StoredTensor;
use crate::codec::CompressedMatrix;
use crate::tensor::Codebook;

/// An artifact whose structure was checked; payloads are checked when a tensor is opened.
pub struct Artifact {}

/// The files an artifact can be turned back into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A plain ONNX file; needs a graph.
    Onnx,
    /// A plain safetensors file of the weights and detached tensors.
    Safetensors,
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
    /// Codebooks shared by several tensors.
    pub fn shared_codebooks(&self) -> &[Arc<Codebook>] {
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
    /// The recipe as JSON.
    pub fn recipe(&self) -> &str {
        todo!()
    }
    /// SHA-256 of the uploaded file, hex.
    pub fn source_sha256(&self) -> &str {
        todo!()
    }
    /// Bytes of the file.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }
    /// Writes the network with its weights restored in their original types, order and names, one tensor at a time.
    pub fn export(&self, format: ExportFormat, out: &mut dyn Write) -> Result<(), ArtifactError> {
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    #[error("the file could not be read: {0}")]
    Io(#[from] std::io::Error),
}
