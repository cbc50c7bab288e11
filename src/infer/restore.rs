//! Dense constants put back into a graph whose tensors were emptied.

use std::collections::HashMap;

use bytes::Bytes;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

use super::InferError;
use crate::artifact::{Artifact, Body, StoredTensor};
use crate::codec::CompressedMatrix;
use crate::model::{self, Model};
use crate::tensor::{FloatData, FloatType, Layout};

/// The values of a constant.
pub(super) enum Constant {
    /// Floats, to be widened to at least f32.
    Floats(FloatData),
    /// Little-endian elements of the type that the graph declares.
    Bytes(Bytes),
}

/// Fills every constant of `graph` that `read` knows by name; the others are in the graph already.
///
/// # Errors
/// Those of `read`; [`InferError::Misfit`] where the values are not as many as the dimensions say.
pub(super) fn restore(
    graph: &mut pb::ModelProto,
    mut read: impl FnMut(&str) -> Result<Option<Constant>, InferError>,
) -> Result<(), InferError> {
    for (name, tensor) in model::constants_mut(graph) {
        let Some(constant) = read(&name)? else { continue };
        let count = tensor.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        if let Constant::Floats(floats) = &constant
            && count != Some(floats.len())
        {
            let reason = format!("{} values for the shape {:?}", floats.len(), tensor.dims);
            return Err(InferError::Misfit { name, reason });
        }
        *tensor = pb::TensorProto {
            name: std::mem::take(&mut tensor.name),
            dims: std::mem::take(&mut tensor.dims),
            data_type: tensor.data_type,
            ..Default::default()
        };
        match constant {
            Constant::Bytes(bytes) => tensor.raw_data = bytes.into(),
            Constant::Floats(FloatData::F32(values)) => {
                tensor.data_type = DataType::Float.into();
                tensor.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            }
            Constant::Floats(FloatData::F64(values)) => {
                tensor.data_type = DataType::Double.into();
                tensor.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            }
        }
    }
    Ok(())
}

/// Reads the constants of an uploaded model.
pub(super) fn from_model(model: &Model) -> impl FnMut(&str) -> Result<Option<Constant>, InferError> {
    let weights: HashMap<_, _> = model.weights().iter().map(|weight| (weight.name.as_str(), weight)).collect();
    let detached: HashMap<_, _> = model.detached().map(|kept| (kept.name.as_str(), kept)).collect();
    move |name| {
        Ok(match (weights.get(name), detached.get(name)) {
            (Some(weight), _) => Some(Constant::Floats(model.read(weight)?)),
            (_, Some(kept)) => Some(Constant::Bytes(model.read_detached(kept)?.into())),
            _ => None,
        })
    }
}

/// Reads, and decodes, the constants of an artifact.
pub(super) fn from_artifact(artifact: &Artifact) -> impl FnMut(&str) -> Result<Option<Constant>, InferError> {
    let tensors: HashMap<_, _> = artifact.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    move |name| {
        let Some(tensor) = tensors.get(name) else { return Ok(None) };
        Ok(Some(match &tensor.body {
            Body::Plain { bytes, .. } => Constant::Bytes(bytes.clone()),
            Body::Encoded { dtype, layout, .. } => {
                let matrix = open(artifact, tensor)?;
                Constant::Floats(expand(&matrix, &tensor.dims, (*dtype, *layout)))
            }
        }))
    }
}

/// Opens an encoded tensor and checks its matrix against its dimensions.
///
/// # Errors
/// [`InferError::Artifact`]; [`InferError::Misfit`].
pub(super) fn open(artifact: &Artifact, tensor: &StoredTensor) -> Result<CompressedMatrix, InferError> {
    let misfit = |reason: String| InferError::Misfit { name: tensor.name.clone(), reason };
    let Body::Encoded { layout, .. } = &tensor.body else { return Err(misfit("it is not encoded".into())) };
    let matrix = artifact.matrix(tensor)?.ok_or_else(|| misfit("it is not encoded".into()))?;
    let head = matrix.head();
    if layout.shape(&tensor.dims) != Some((head.rows, head.cols)) {
        return Err(misfit(format!("a {} x {} matrix for the shape {:?}", head.rows, head.cols, tensor.dims)));
    }
    Ok(matrix)
}

/// The whole tensor, in tensor order.
fn expand(matrix: &CompressedMatrix, dims: &[usize], (dtype, layout): (FloatType, Layout)) -> FloatData {
    let head = matrix.head();
    if dtype == FloatType::F64 {
        let decoded = matrix.decode();
        let values = (0..head.rows * head.cols).map(|i| decoded.value(i)).collect();
        return FloatData::F64(layout.to_tensor(dims, values));
    }
    let mut values = vec![0.0; head.rows * head.cols];
    matrix.decode_rows(0..head.rows, &mut values);
    FloatData::F32(layout.to_tensor(dims, values))
}
