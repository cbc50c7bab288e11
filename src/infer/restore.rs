//! Dense constants put back into a graph whose tensors were emptied.

use std::collections::HashMap;

use bytes::Bytes;
use tract_onnx::pb;

use super::InferError;
use crate::artifact::Artifact;
use crate::codec::{self, CodecId, CompressedMatrix, Head, Words};
use crate::model::{self, Model, Weight};
use crate::tensor::{FloatData, Matrix};

/// Fills every constant of `graph` that `read` knows by name, with little-endian elements of the type that the graph
/// declares; the others are in the graph already. tract checks the lengths against the dimensions before it allocates.
///
/// # Errors
/// Those of `read`.
pub(super) fn restore(
    graph: &mut pb::ModelProto,
    mut read: impl FnMut(&str) -> Result<Option<Bytes>, InferError>,
) -> Result<(), InferError> {
    for (name, tensor) in model::constants_mut(graph) {
        if let Some(bytes) = read(&name)? {
            *tensor = pb::TensorProto {
                name: std::mem::take(&mut tensor.name),
                dims: std::mem::take(&mut tensor.dims),
                data_type: tensor.data_type,
                raw_data: bytes.into(),
                ..Default::default()
            };
        }
    }
    Ok(())
}

/// Reads the constants of an uploaded model.
pub(super) fn from_model(model: &Model) -> impl FnMut(&str) -> Result<Option<Bytes>, InferError> {
    let weights: HashMap<_, _> = model.weights().iter().map(|weight| (weight.name.as_str(), weight)).collect();
    let detached: HashMap<_, _> = model.detached().map(|kept| (kept.name.as_str(), kept)).collect();
    move |name| {
        if let Some(weight) = weights.get(name) {
            let mut bytes = Vec::new();
            model.read(weight)?.write_le_bytes(weight.dtype, &mut bytes);
            return Ok(Some(bytes.into()));
        }
        Ok(detached.get(name).map(|kept| model.read_detached(kept)).transpose()?.map(Bytes::from))
    }
}

/// Reads, and decodes, the constants of an artifact.
pub(super) fn from_artifact(artifact: &Artifact) -> impl FnMut(&str) -> Result<Option<Bytes>, InferError> {
    let tensors: HashMap<_, _> = artifact.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    move |name| Ok(tensors.get(name).map(|tensor| artifact.raw_data(tensor)).transpose()?)
}

/// A weight of an uploaded model as a matrix to multiply by, its values as they are.
///
/// # Errors
/// [`InferError::Model`] when it cannot be read; [`InferError::Misfit`] when it is no matrix of finite values.
pub(super) fn matrix_of(model: &Model, weight: &Weight) -> Result<CompressedMatrix, InferError> {
    let misfit = |reason: String| InferError::Misfit { name: weight.name.clone(), reason };
    let shape = weight.layout.shape(&weight.dims).ok_or_else(|| misfit("it is no matrix".into()))?;
    let (rows, cols) = shape;
    let values = match model.read(weight)? {
        FloatData::F32(values) => FloatData::F32(weight.layout.to_matrix(&weight.dims, values)),
        FloatData::F64(values) => FloatData::F64(weight.layout.to_matrix(&weight.dims, values)),
    };
    let rows_per_block = codec::rows_per_block(rows, cols);
    let matrix = Matrix::raw(rows, cols, weight.dtype, values).map_err(|error| misfit(error.to_string()))?;
    let payload = codec::encode(&matrix, CodecId::Dense, rows_per_block).map_err(|error| misfit(error.to_string()))?;
    let head = Head { rows, cols, rows_per_block, words: Words::Values(weight.dtype) };
    CompressedMatrix::open(CodecId::Dense, head, payload.into()).map_err(|error| misfit(error.to_string()))
}
