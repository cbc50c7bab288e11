//! A model with other elements in some of its tensors: what calibration and fine-tuning make of an upload.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

use super::open::{Content, empty};
use super::{Model, ModelError, constants_mut};

impl Model {
    /// This model with other elements in some of its tensors: weights and kept tensors of the main graph by name, each the
    /// little-endian elements of the tensor, row-major. Size and digest stay those of the file.
    ///
    /// # Errors
    /// [`ModelError::UnknownTensor`] for a name that the model does not have, [`ModelError::TensorSize`] for another number
    /// of bytes than the tensor's.
    pub(crate) fn with_tensors(&self, tensors: HashMap<String, Vec<u8>>) -> Result<Self, ModelError> {
        self.check_sizes(&tensors)?;
        let weights = self.weights.iter().map(|weight| weight.name.as_str());
        let stored: HashSet<&str> = weights.chain(self.detached().map(|kept| kept.name.as_str())).collect();
        let mut content = self.content.clone();
        if let Content::Onnx { skeleton, .. } = &mut content {
            for (name, tensor) in constants_mut(skeleton).filter(|(name, _)| !stored.contains(name.as_str())) {
                if let Some(bytes) = tensors.get(&name) {
                    empty(tensor);
                    tensor.raw_data.clone_from(bytes);
                }
            }
        }
        let mut changed = self.changed.clone();
        let apart = tensors.into_iter().filter(|(name, _)| stored.contains(name.as_str()));
        changed.extend(apart.map(|(name, bytes)| (name, bytes.into())));
        Ok(Self {
            content,
            changed,
            weights: self.weights.clone(),
            kept: self.kept.clone(),
            detached: self.detached.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
        })
    }

    /// This model with another graph, over the same stored tensors and none besides. Size and digest stay those of the file.
    ///
    /// # Errors
    /// [`ModelError::MissingGraph`] for a weights-only file; those of opening for values that nothing produces.
    pub(crate) fn with_graph(&self, skeleton: pb::ModelProto) -> Result<Self, ModelError> {
        match &self.content {
            Content::Onnx { source, tensors, .. } => {
                Self::index(source.clone(), skeleton, tensors.clone(), self.changed.clone())
            }
            Content::Arrays(_) => Err(ModelError::MissingGraph),
        }
    }

    fn check_sizes(&self, tensors: &HashMap<String, Vec<u8>>) -> Result<(), ModelError> {
        let bytes = |dims: &[usize], width: usize| dims.iter().product::<usize>() * width;
        let weights = self.weights.iter().map(|w| (w.name.as_str(), bytes(&w.dims, w.dtype.size_bytes())));
        let kept = self.kept.iter().map(|kept| (kept.name.as_str(), kept.size_bytes as usize));
        // Weights last: a tensor in a subgraph may bear the name of one of them.
        let sizes: HashMap<&str, usize> = kept.chain(weights).collect();
        for (name, bytes) in tensors {
            match sizes.get(name.as_str()) {
                None => return Err(ModelError::UnknownTensor { name: name.clone() }),
                Some(&expected) if expected != bytes.len() => {
                    return Err(ModelError::TensorSize { name: name.clone(), given: bytes.len(), expected });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture;
    use crate::tensor::FloatData;

    #[test]
    fn elements_change_wherever_they_are_stored_and_nothing_else_does() {
        let npz = fixture::npz(
            &[("w", fixture::npy("<f4", true, "(2, 2)", &[0; 16])), ("b", fixture::npy("<f4", false, "(2,)", &[0; 8]))],
            true,
        );
        let model = Model::from_bytes(npz.into()).unwrap();
        let values = [1.0f32, 2.0, 3.0, 4.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bias = bytes[..8].to_vec();
        let changed = model.with_tensors([("w".to_owned(), bytes), ("b".to_owned(), bias.clone())].into()).unwrap();
        assert_eq!(changed.read(&changed.weights()[0]).unwrap(), FloatData::F32(values.to_vec()));
        assert_eq!(changed.read_detached(&changed.kept()[0]).unwrap(), bias);
        assert_eq!(changed.sha256().unwrap(), model.sha256().unwrap());
        assert_eq!(model.read_detached(&model.kept()[0]).unwrap(), [0; 8]);
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_named() {
        let npz = fixture::npz(&[("w", fixture::npy("<f4", false, "(2, 2)", &[0; 16]))], false);
        let model = Model::from_bytes(npz.into()).unwrap();
        let error = |name: &str, len| model.with_tensors([(name.to_owned(), vec![0; len])].into()).unwrap_err();
        assert_eq!(error("w", 8).to_string(), r#"tensor "w" takes 16 bytes, not 8"#);
        assert!(matches!(error("v", 16), ModelError::UnknownTensor { .. }));
    }
}
