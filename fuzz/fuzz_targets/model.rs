//! Uploads, whatever their format (ONNX, npz, safetensors): an error, or a model whose every tensor can be read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weightpress::model::Model;

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = Model::from_bytes(bytes.to_vec().into()) else { return };
    model.weights().iter().for_each(|weight| drop(model.read(weight)));
    model.detached().for_each(|kept| drop(model.read_detached(kept)));
});
