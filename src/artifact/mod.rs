//! The compressed file: container, reader, writer and exports. `docs/format.md` is normative.
//!
//! An artifact is a safetensors file whose tensors are *records*: byte strings with a compact header of their own and a
//! CRC-32C. It is self-contained (graph, encoded weights, recipe) and deterministic (no times, ids or metrics).

mod body;
mod error;
mod export;
mod graph;
mod inflate;
mod reader;
mod record;
pub(crate) mod staged;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::CodecId;
use crate::tensor::{Codebook, FloatType, Layout};

pub use error::{ArtifactError, RecordError};
pub use export::ExportFormat;
pub use reader::Artifact;
pub use record::CodebookRef;
pub(crate) use staged::folder_of;
pub use writer::{ArtifactWriter, EncodedWeight, PlainTensor, Provenance, Sizes};

/// The version of the format that this program writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The one key of the safetensors metadata.
const METADATA_KEY: &str = "weightpress";

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

/// ONNX's lower-case name of a float type, as [`Body::Plain`] has it.
pub fn onnx_name(dtype: FloatType) -> &'static str {
    match dtype {
        FloatType::F16 => "float16",
        FloatType::Bf16 => "bfloat16",
        FloatType::F32 => "float32",
        FloatType::F64 => "float64",
    }
}
