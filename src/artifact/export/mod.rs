//! Artifacts turned back into files that any other program reads.

mod onnx;
mod safetensors;

use std::collections::HashMap;
use std::io::Write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Artifact, ArtifactError, Body, StoredTensor};
use crate::tensor::{FloatType, Layout, Values};

/// Elements that are turned into bytes at a time.
const CHUNK_ELEMENTS: usize = 1 << 14;

/// The files an artifact can be exported to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema, clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// A plain ONNX file, every weight in full under its name and in its type; needs a graph.
    Onnx,
    /// A plain safetensors file: every weight and constant of a fixed-size type.
    Safetensors,
}

impl Artifact {
    /// Writes the network with its weights restored to `out`, one tensor at a time: types, order and names are those of
    /// the uploaded file.
    ///
    /// # Errors
    /// [`ArtifactError::NoGraph`] for ONNX of weights without a graph; [`ArtifactError::Record`] where a record is
    /// damaged; [`ArtifactError::Io`] where `out` fails. What was written so far is then of no use.
    pub fn export(&self, format: ExportFormat, out: &mut dyn Write) -> Result<(), ArtifactError> {
        match format {
            ExportFormat::Onnx => onnx::write(self, out),
            ExportFormat::Safetensors => safetensors::write(self, out),
        }
    }

    /// The values of a tensor in its original type and order, as ONNX `raw_data` would hold them.
    ///
    /// # Errors
    /// [`ArtifactError::Record`] where its record is damaged.
    pub fn raw_data(&self, tensor: &StoredTensor) -> Result<Bytes, ArtifactError> {
        if let Body::Plain { bytes, .. } = &tensor.body {
            return Ok(bytes.clone());
        }
        let mut bytes = Vec::new();
        write_values(self, tensor, &mut bytes)?;
        Ok(bytes.into())
    }
}

/// The stored tensors by name.
fn by_name(artifact: &Artifact) -> HashMap<&str, &StoredTensor> {
    artifact.tensors().iter().map(|t| (t.name.as_str(), t)).collect()
}

/// Bytes of `tensor` in its original type.
fn plain_bytes(tensor: &StoredTensor) -> u64 {
    match &tensor.body {
        Body::Encoded { dtype, .. } => tensor.dims.iter().product::<usize>() as u64 * dtype.size_bytes() as u64,
        Body::Plain { bytes, .. } => bytes.len() as u64,
    }
}

/// Writes the values of `tensor` in its original type and order.
fn write_values(artifact: &Artifact, tensor: &StoredTensor, out: &mut dyn Write) -> Result<(), ArtifactError> {
    let (dtype, layout) = match &tensor.body {
        Body::Plain { bytes, .. } => return Ok(out.write_all(bytes)?),
        Body::Encoded { dtype, layout, .. } => (*dtype, *layout),
    };
    let Some(matrix) = artifact.matrix(tensor)? else { return Ok(()) };
    let values = matrix.decode().into_values();
    drop(matrix);
    let place = Place { dtype, layout, dims: &tensor.dims };
    match values {
        Values::Shared { codebook, indices } => {
            let bits: Vec<u64> = codebook.values().iter().map(|&v| dtype.to_bits(v)).collect();
            place.write(indices, |index| bits[usize::from(index)], out)
        }
        Values::Raw { data: crate::tensor::FloatData::F32(data), .. } => {
            place.write(data, |value| dtype.to_bits(f64::from(value)), out)
        }
        Values::Raw { data: crate::tensor::FloatData::F64(data), .. } => {
            place.write(data, |value| dtype.to_bits(value), out)
        }
    }
}

/// How a matrix goes back into its tensor.
struct Place<'a> {
    dtype: FloatType,
    layout: Layout,
    dims: &'a [usize],
}

impl Place<'_> {
    fn write<T: Copy>(&self, cells: Vec<T>, bits: impl Fn(T) -> u64, out: &mut dyn Write) -> Result<(), ArtifactError> {
        let size = self.dtype.size_bytes();
        let mut bytes = Vec::with_capacity(CHUNK_ELEMENTS * size);
        for chunk in self.layout.to_tensor(self.dims, cells).chunks(CHUNK_ELEMENTS) {
            bytes.clear();
            for &cell in chunk {
                bytes.extend_from_slice(&bits(cell).to_le_bytes()[..size]);
            }
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}
