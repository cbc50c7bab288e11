//! The tensors of a model as they will be stored, but for their units: layers that wait for them, and constants of the graph.

use std::collections::HashMap;

use tract_onnx::pb::TensorProto;

use super::super::CompressError;
use super::super::layer::Task;
use super::super::spool::{Spool, Spooled};
use crate::artifact::ArtifactError;
use crate::model::{Kept, Model, Weight, constant_tensors, shape_of};
use crate::tensor::{FloatData, FloatType, Matrix, Values};

/// Pruned and shared layers on their way to be encoded.
pub(in crate::compress) struct Layers<'a> {
    pub model: &'a Model,
    pub tasks: &'a [Task<'a>],
    /// In the order of the tasks; those whose units may not change are not there.
    pub waiting: Vec<Option<Spooled>>,
    pub spool: &'a Spool,
}

impl Layers<'_> {
    /// The layer of task `at`; `None` where its units may not change.
    pub(super) fn matrix(&self, at: usize) -> Result<Option<Matrix>, CompressError> {
        let Some(spooled) = &self.waiting[at] else { return Ok(None) };
        Ok(Some(self.spool.get(spooled).map_err(ArtifactError::from)?.matrix))
    }

    /// The layer of task `at` in the order of its tensor, a byte for each element: 0 for zero, and for other values bytes that
    /// differ as far as bytes can.
    pub(super) fn bytes(&self, at: usize) -> Result<Option<Vec<u8>>, CompressError> {
        let Weight { dims, layout, .. } = self.tasks[at].weight;
        Ok(self.matrix(at)?.map(|matrix| layout.to_tensor(dims, bytes_of(&matrix))))
    }
}

/// The dims, the type and the little-endian elements of a tensor.
pub(super) type Floats = (Vec<usize>, FloatType, Vec<u8>);

/// Constants of the main graph that are not compressed.
pub(super) struct Plain<'a> {
    model: &'a Model,
    inline: HashMap<&'a str, &'a TensorProto>,
    detached: HashMap<&'a str, &'a Kept>,
}

impl<'a> Plain<'a> {
    pub(super) fn of(model: &'a Model) -> Self {
        let graph = model.skeleton().and_then(|skeleton| skeleton.graph.as_ref());
        Self {
            model,
            inline: graph.into_iter().flat_map(constant_tensors).map(|(name, tensor, _)| (name, tensor)).collect(),
            detached: model.detached().map(|kept| (kept.name.as_str(), kept)).collect(),
        }
    }

    /// A tensor of floats as one row; `None` where it is none, or not finite.
    pub(super) fn row(&self, name: &str) -> Result<Option<Matrix>, CompressError> {
        let Some((dims, dtype, bytes)) = self.floats(name)? else { return Ok(None) };
        let elements = dims.iter().product();
        Ok(Matrix::raw(1, elements, dtype, FloatData::from_le_bytes(dtype, &bytes)).ok())
    }

    /// Dims, type and bytes of a tensor of floats.
    pub(super) fn floats(&self, name: &str) -> Result<Option<Floats>, CompressError> {
        let Some(tensor) = self.inline.get(name) else { return Ok(None) };
        let Some((dims, element)) = shape_of(tensor) else { return Ok(None) };
        let Some(dtype) = element.float() else { return Ok(None) };
        let bytes = match self.detached.get(name) {
            Some(kept) => self.model.read_detached(kept)?,
            None => element_bytes(tensor),
        };
        // The elements of what is skipped are elsewhere.
        let is_here = bytes.len() == dims.iter().product::<usize>() * dtype.size_bytes();
        Ok(is_here.then_some((dims, dtype, bytes)))
    }
}

/// A byte for each cell, row-major, as [`Layers::bytes`] has them.
fn bytes_of(matrix: &Matrix) -> Vec<u8> {
    let other = |bits: u64| 1 + (bits % 255) as u8;
    match matrix.values() {
        Values::Shared { codebook, indices } => {
            let zero = codebook.zero();
            indices.iter().map(|&s| if Some(s) == zero { 0 } else { other(s.into()) }).collect()
        }
        Values::Raw { data, .. } => {
            let byte = |bits: u64| if bits == 0 { 0 } else { other(bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) };
            (0..data.len()).map(|i| byte(data.get(i).to_bits())).collect()
        }
    }
}

/// The elements of a float tensor as `raw_data` holds them; none where they are stored elsewhere.
pub(super) fn element_bytes(tensor: &TensorProto) -> Vec<u8> {
    let mut bytes = tensor.raw_data.to_vec();
    bytes.extend(tensor.float_data.iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend(tensor.double_data.iter().flat_map(|v| v.to_le_bytes()));
    // Half-width floats are the low two bytes of an entry.
    bytes.extend(tensor.int32_data.iter().flat_map(|v| (*v as u16).to_le_bytes()));
    bytes
}
