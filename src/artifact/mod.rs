//! The compressed file: container, reader, writer and exports. `docs/format.md` is normative.
//!
//! An artifact is a safetensors file whose tensors are *records*: byte strings with a compact header of their own and a
//! CRC-32C. It is self-contained (graph, encoded weights, recipe) and deterministic (no times, ids or metrics).

mod reader;

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::CodecId;
use crate::tensor::{Codebook, FloatType, Layout};

pub use reader::{Artifact, ArtifactError, ExportFormat};

/// The version of the format that this program writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// One stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    /// The name of the weight or constant in the model.
    pub name: String,
    /// Dimensions in the model (not those of the matrix).
    pub dims: Vec<usize>,
    /// What is stored of it.
    pub body: Body,
    /// Bytes of its record in the file: header, own codebook, payload and checksum.
    pub size_bytes: u64,
}

/// What is stored of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// An encoded weight.
    Encoded {
        /// Type of the weight in the model.
        dtype: FloatType,
        /// How the tensor is seen as a matrix.
        layout: Layout,
        /// The representation of `payload`.
        codec: CodecId,
        /// Rows in every block but the last.
        rows_per_block: usize,
        /// The distinct values; `None` where the payload holds raw values.
        codebook: Option<Arc<Codebook>>,
        /// The encoded matrix: a view of the file's bytes.
        payload: Bytes,
    },
    /// Bytes as ONNX `raw_data` would hold them, in the original type.
    Plain {
        /// ONNX's type name in lower case, e.g. `int64`.
        dtype: String,
        /// Little-endian elements.
        bytes: Bytes,
    },
}
