//! Artifacts: an error, or a file whose every tensor and graph can be read and exported.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weightpress::artifact::{Artifact, ExportFormat};

fuzz_target!(|bytes: &[u8]| {
    let Ok(artifact) = Artifact::from_bytes(bytes.to_vec().into()) else { return };
    for format in [ExportFormat::Onnx, ExportFormat::Safetensors] {
        let _ = artifact.export(format, &mut std::io::sink());
    }
});
