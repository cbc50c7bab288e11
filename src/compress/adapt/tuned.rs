//! Fine-tuned weights and checkpoints in the folder of a compression: what a restart and later compressions go on from.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::artifact::staged::Staged;

/// Values by the names of their tensors.
pub(super) type TensorValues = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Writes the weights before they are shared, whole or not at all.
pub(super) fn save(folder: &Path, tensors: &TensorValues) -> io::Result<()> {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let view = |(name, (dims, _)): (&String, &(Vec<usize>, Vec<f32>))| {
        let view = TensorView::new(Dtype::F32, dims.clone(), &bytes[name]).map_err(io::Error::other)?;
        Ok((name.clone(), view))
    };
    let views: HashMap<String, TensorView> = tensors.iter().map(view).collect::<io::Result<_>>()?;
    let bytes = serialize(views, None).map_err(io::Error::other)?;
    save_checkpoint(folder, super::TUNED, &bytes)
}

/// Reads the weights of an earlier compression.
pub(super) fn load(file: &Path) -> io::Result<TensorValues> {
    let bytes = std::fs::read(file)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(io::Error::other)?;
    let values = |(name, view): (String, TensorView)| {
        let floats = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (name, (view.shape().to_vec(), floats))
    };
    Ok(tensors.tensors().into_iter().map(values).collect())
}

/// Writes a checkpoint, whole or not at all.
pub(super) fn save_checkpoint(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut staged = Staged::new(&folder.join(name))?;
    staged.write_all(bytes)?;
    staged.publish()
}

/// Reads a checkpoint; `None` where there is none.
pub(super) fn load_checkpoint(folder: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(folder.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_checkpoints_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made");
        let tensors: TensorValues =
            [("b".to_owned(), (vec![2], vec![1.0, -0.0])), ("w".to_owned(), (vec![1, 3], vec![0.5, f32::MIN, 0.0]))]
                .into();
        save(&folder, &tensors).unwrap();
        assert_eq!(load(&super::super::tuned_file(&folder)).unwrap(), tensors);
        assert_eq!(load_checkpoint(&folder, "pruned").unwrap(), None);
        save_checkpoint(&folder, "pruned", b"state").unwrap();
        assert_eq!(load_checkpoint(&folder, "pruned").unwrap().as_deref(), Some(&b"state"[..]));
    }
}
