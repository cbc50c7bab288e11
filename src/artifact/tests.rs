//! Whole artifacts: round trips, the container as other programs see it, damage of every kind.
//!
//! Damage is tested by risk: every truncation, every flipped bit of the file, and, behind a checksum made good again,
//! every flipped bit of a record's header and body. None may panic, none may pass for another network unnoticed.

use std::sync::Arc;

use bytes::Bytes;
use safetensors::SafeTensors;
use tract_onnx::pb;

use super::*;
use crate::codec::{encode, rows_per_block};
use crate::tensor::{FloatData, Matrix};

const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const RECIPE: &str = r#"{"prune":{"sparsity":0.95}}"#;

/// A 4 x 3 matrix of three values.
fn matrix(codebook: &Arc<Codebook>) -> Matrix {
    Matrix::shared(4, 3, codebook.clone(), vec![1, 1, 0, 1, 2, 1, 1, 1, 1, 0, 0, 2]).unwrap()
}

fn codebook(dtype: FloatType) -> Arc<Codebook> {
    Arc::new(Codebook::new(dtype, vec![-0.5, 0.0, 0.25]).unwrap())
}

fn tensor_proto(name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) -> pb::TensorProto {
    pb::TensorProto { name: name.into(), dims: dims.to_vec(), data_type, raw_data, ..Default::default() }
}

/// A graph with two emptied initializers, an emptied Constant node and a bias of its own.
fn skeleton() -> pb::ModelProto {
    let constant = pb::NodeProto {
        op_type: "Constant".into(),
        name: "a constant".into(),
        output: vec!["folded".into()],
        attribute: vec![pb::AttributeProto {
            name: "value".into(),
            r#type: 4,
            t: Some(tensor_proto("", &[4, 3], 1, Vec::new())),
            ..Default::default()
        }],
        ..Default::default()
    };
    let graph = pb::GraphProto {
        name: "main".into(),
        node: vec![constant],
        initializer: vec![
            tensor_proto("w", &[3, 4], 1, Vec::new()),
            tensor_proto("ids", &[600], 7, Vec::new()),
            tensor_proto("bias", &[2], 1, [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect()),
        ],
        ..Default::default()
    };
    pb::ModelProto { ir_version: 8, graph: Some(graph), ..Default::default() }
}

fn ids() -> Vec<u8> {
    (0..600i64).flat_map(|v| (v / 7).to_le_bytes()).collect()
}

/// An artifact with a record of every kind.
fn sample() -> (Bytes, Sizes) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sample.safetensors");
    let mut writer = ArtifactWriter::new(&out);
    let (own, shared) = (codebook(FloatType::F32), codebook(FloatType::F32));
    let index = writer.add_codebook(&shared).unwrap();
    let weight = |name, dims, layout, codebook| EncodedWeight {
        name,
        dims,
        dtype: FloatType::F32,
        layout,
        codec: CodecId::Sham,
        rows_per_block: 2,
        codebook,
        payload: &[],
    };
    let payload = encode(&matrix(&own), CodecId::Sham, 2).unwrap();
    // Out of order, as threads would.
    let folded = weight("folded", &[4, 3], Layout::RowsFirst, CodebookRef::Shared(index));
    writer.add_weight(1, &EncodedWeight { payload: &payload, ..folded }).unwrap();
    let w = weight("w", &[3, 4], Layout::Transposed, CodebookRef::Own(own));
    writer.add_weight(0, &EncodedWeight { payload: &payload, ..w }).unwrap();
    let plain = PlainTensor { name: "ids", dims: &[600], dtype: "int64", bytes: &ids(), halve: true };
    writer.add_plain(&plain).unwrap();
    writer.set_graph(&skeleton(), false).unwrap();
    let sizes = writer.finish(&Provenance { source_sha256: SHA256, recipe: RECIPE }).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the artifact is left");
    (std::fs::read(&out).unwrap().into(), sizes)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The matrix of [`matrix`] as (inputs, outputs).
const TRANSPOSED: [f32; 12] = [0.0, 0.0, 0.0, -0.5, 0.0, 0.25, 0.0, -0.5, -0.5, 0.0, 0.0, 0.25];
const STRAIGHT: [f32; 12] = [0.0, 0.0, -0.5, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0, -0.5, -0.5, 0.25];

/// Reads everything that an artifact holds: what a hostile file must survive.
fn read_all(bytes: Bytes) -> Result<usize, ArtifactError> {
    let artifact = Artifact::from_bytes(bytes)?;
    let mut total = 0;
    for tensor in artifact.tensors() {
        total += artifact.raw_data(tensor)?.len();
    }
    for format in [ExportFormat::Onnx, ExportFormat::Safetensors] {
        let mut out = Vec::new();
        artifact.export(format, &mut out)?;
        total += out.len();
    }
    Ok(total)
}

#[test]
fn every_kind_of_record_comes_back() {
    let artifact = Artifact::from_bytes(sample().0).unwrap();
    assert_eq!((artifact.recipe(), artifact.source_sha256()), (RECIPE, SHA256));
    let names: Vec<&str> = artifact.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["w", "folded", "ids"], "weights in the order of the model, then plain tensors");
    let raw = |i: usize| artifact.raw_data(&artifact.tensors()[i]).unwrap();
    assert_eq!(floats(&raw(0)), TRANSPOSED);
    assert_eq!(floats(&raw(1)), STRAIGHT);
    assert_eq!(raw(2), ids());
    assert_eq!(artifact.graph().unwrap().unwrap(), skeleton());
    assert_eq!(artifact.shared_codebooks().len(), 1);
}

#[test]
fn the_file_is_deterministic_and_every_byte_is_accounted_for() {
    let (bytes, sizes) = sample();
    assert_eq!(bytes, sample().0);
    let parts = sizes.graph_bytes
        + sizes.plain_bytes
        + sizes.container_bytes
        + sizes.weight_bytes.iter().chain(&sizes.codebook_bytes).sum::<u64>();
    assert_eq!((sizes.artifact_bytes, parts), (bytes.len() as u64, bytes.len() as u64));
    let stored = Artifact::from_bytes(bytes).unwrap();
    let records: u64 = stored.tensors().iter().map(|t| t.size_bytes).sum();
    assert_eq!(records, sizes.plain_bytes + sizes.weight_bytes.iter().sum::<u64>());
}

#[test]
fn other_programs_read_the_container() {
    let (bytes, _) = sample();
    let container = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(container.len(), 5);
    assert!(container.tensors().iter().all(|(_, view)| view.dtype() == safetensors::Dtype::U8));
}

#[test]
fn a_file_saved_again_by_another_program_is_still_an_artifact() {
    let (bytes, _) = sample();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let container = SafeTensors::deserialize(&bytes).unwrap();
    let again = safetensors::serialize(container.tensors(), metadata.metadata().clone()).unwrap();
    assert_ne!(again, bytes, "padded, and in another order");
    assert_eq!(read_all(again.into()).unwrap(), read_all(bytes).unwrap());
}

#[test]
fn export_restores_initializers_and_constants_in_place() {
    use prost::Message;

    let mut out = Vec::new();
    Artifact::from_bytes(sample().0).unwrap().export(ExportFormat::Onnx, &mut out).unwrap();
    let model = pb::ModelProto::decode(&out[..]).unwrap();
    let mut expected = skeleton();
    let graph = expected.graph.as_mut().unwrap();
    graph.initializer[0].raw_data = TRANSPOSED.iter().flat_map(|v| v.to_le_bytes()).collect();
    graph.initializer[1].raw_data = ids();
    let value = graph.node[0].attribute[0].t.as_mut().unwrap();
    value.raw_data = STRAIGHT.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(model, expected);
}

#[test]
fn export_to_safetensors_holds_the_small_constants_too() {
    let mut out = Vec::new();
    Artifact::from_bytes(sample().0).unwrap().export(ExportFormat::Safetensors, &mut out).unwrap();
    let container = SafeTensors::deserialize(&out).unwrap();
    let mut names = container.names();
    names.sort_unstable();
    assert_eq!(names, ["bias", "folded", "ids", "w"]);
    assert_eq!(floats(container.tensor("w").unwrap().data()), TRANSPOSED);
    assert_eq!(floats(container.tensor("bias").unwrap().data()), [1.5, -2.0]);
}

#[test]
fn raw_values_and_every_float_type_survive() {
    for dtype in [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("raw.safetensors");
        let values: Vec<f64> = (0..24).map(|i| dtype.round(-0.37 * f64::from(i))).collect();
        let data = match dtype {
            FloatType::F64 => FloatData::F64(values.clone()),
            _ => FloatData::F32(values.iter().map(|&v| v as f32).collect()),
        };
        let matrix = Matrix::raw(4, 6, dtype, data.clone()).unwrap();
        let rows_per_block = rows_per_block(4, 6);
        let payload = encode(&matrix, CodecId::Dense, rows_per_block).unwrap();
        let writer = ArtifactWriter::new(&out);
        let weight = EncodedWeight {
            name: "w",
            dims: &[4, 3, 2],
            dtype,
            layout: Layout::ConvTranspose { groups: 1 },
            codec: CodecId::Dense,
            rows_per_block,
            codebook: CodebookRef::Raw,
            payload: &payload,
        };
        // 4 inputs, 3 outputs, 2 taps: a matrix of 3 x 8.
        let reshaped = Matrix::raw(3, 8, dtype, data).unwrap();
        let payload = encode(&reshaped, CodecId::Dense, rows_per_block).unwrap();
        writer.add_weight(0, &EncodedWeight { payload: &payload, ..weight }).unwrap();
        writer.finish(&Provenance { source_sha256: SHA256, recipe: "{}" }).unwrap();
        let artifact = Artifact::open(&out).unwrap();
        let restored = FloatData::from_le_bytes(dtype, &artifact.raw_data(&artifact.tensors()[0]).unwrap());
        let expected = Layout::ConvTranspose { groups: 1 }.to_tensor(&[4, 3, 2], values);
        assert!((0..24).all(|i| restored.get(i).to_bits() == expected[i].to_bits()), "{dtype:?}");
    }
}

#[test]
fn what_binary16_cannot_hold_stays_plain() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("plain.safetensors");
    let mut writer = ArtifactWriter::new(&out);
    let (small, large) = ([0.1f32; 100], [1e6f32; 100]);
    for (name, values) in [("small", small), ("large", large)] {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = PlainTensor { name, dims: &[100], dtype: "float32", bytes: &bytes, halve: true };
        writer.add_plain(&tensor).unwrap();
    }
    writer.finish(&Provenance { source_sha256: SHA256, recipe: "{}" }).unwrap();
    let artifact = Artifact::open(&out).unwrap();
    let values = |i: usize| floats(&artifact.raw_data(&artifact.tensors()[i]).unwrap());
    assert_eq!(values(0), [half::f16::from_f32(0.1).to_f32(); 100]);
    assert_eq!(values(1), large);
}

#[test]
fn every_truncation_is_an_error() {
    let (bytes, _) = sample();
    for length in 0..bytes.len() {
        assert!(Artifact::from_bytes(bytes.slice(..length)).is_err(), "{length} bytes");
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_an_error_that_names_it() {
    let (bytes, sizes) = sample();
    for byte in sizes.container_bytes as usize..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[byte] ^= 1 << bit;
            let error = Artifact::from_bytes(damaged.into()).unwrap_err();
            let ArtifactError::Record { offset, source: RecordError::Checksum { .. }, .. } = error else {
                panic!("byte {byte}, bit {bit}: {error}")
            };
            assert!(offset <= byte as u64);
        }
    }
}

#[test]
fn a_flipped_bit_of_the_container_is_an_error_or_a_value() {
    let (bytes, sizes) = sample();
    for byte in 0..sizes.container_bytes as usize {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[byte] ^= 1 << bit;
            let _ = read_all(damaged.into());
        }
    }
}

/// Flips every bit of every record and makes its checksum good: the parsers behind the checksum must hold by themselves.
#[test]
fn damage_behind_a_valid_checksum_is_an_error_or_a_value() {
    let (bytes, _) = sample();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut survived = 0;
    for info in metadata.tensors().values() {
        let (start, end) = (info.data_offsets.0 + header + 8, info.data_offsets.1 + header + 8);
        for bit in 0..(end - start - 4) * 8 {
            let mut damaged = bytes.to_vec();
            damaged[start + bit / 8] ^= 1 << (bit % 8);
            let checksum = crc32c::crc32c(&damaged[start..end - 4]);
            damaged[end - 4..end].copy_from_slice(&checksum.to_le_bytes());
            survived += usize::from(read_all(damaged.into()).is_ok());
        }
    }
    assert!(survived > 0, "some bits are values, such as those of a codebook");
}

/// What flips of single bits do not reach: several bytes of a record overwritten, behind a checksum made good.
#[test]
fn mutations_behind_a_valid_checksum_are_an_error_or_a_value() {
    let (bytes, _) = sample();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut state = 1u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let records: Vec<_> = metadata.tensors().values().map(|info| info.data_offsets).collect();
    for _ in 0..3000 {
        let (start, end) = records[below(records.len())];
        let (start, end) = (start + header + 8, end + header + 8);
        let mut damaged = bytes.to_vec();
        for _ in 0..=below(4) {
            let at = start + below(end - start - 4);
            damaged[at] = [0x00, 0x01, 0x7f, 0x80, 0xff, below(256) as u8][below(6)];
        }
        let checksum = crc32c::crc32c(&damaged[start..end - 4]);
        damaged[end - 4..end].copy_from_slice(&checksum.to_le_bytes());
        let _ = read_all(damaged.into());
    }
}

#[test]
fn names_must_be_unique() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("twice.safetensors");
    let mut writer = ArtifactWriter::new(&out);
    let tensor = |name| PlainTensor { name, dims: &[1], dtype: "uint8", bytes: &[7], halve: false };
    writer.add_plain(&tensor("a")).unwrap();
    writer.add_plain(&tensor("b")).unwrap();
    let refused = writer.add_plain(&tensor("a")).unwrap_err();
    assert!(matches!(refused, ArtifactError::Duplicate { tensor } if tensor == "a"));
    writer.finish(&Provenance { source_sha256: SHA256, recipe: "{}" }).unwrap();
    // A file of another writer: the last record renamed. Kind, name "b", rank 1, extent 1, uint8, the 7, the checksum.
    let mut bytes = std::fs::read(&out).unwrap();
    let record = bytes.len() - 11;
    assert_eq!(bytes[record..record + 7], [4, 1, b'b', 1, 1, 2, 7]);
    bytes[record + 2] = b'a';
    let checksum = crc32c::crc32c(&bytes[record..record + 7]);
    bytes[record + 7..].copy_from_slice(&checksum.to_le_bytes());
    let refused = Artifact::from_bytes(bytes.into()).unwrap_err();
    assert!(matches!(refused, ArtifactError::Duplicate { tensor } if tensor == "a"));
}

#[test]
fn other_files_are_told_apart() {
    let open = |bytes: &[u8]| Artifact::from_bytes(Bytes::copy_from_slice(bytes)).unwrap_err();
    assert!(matches!(open(b"not a container"), ArtifactError::Container(_)));
    assert!(matches!(open(b"\x02\0\0\0\0\0\0\0{}"), ArtifactError::NotAnArtifact));
    let with_metadata = |text: &str| {
        let header = format!(r#"{{"__metadata__":{{"weightpress":"{text}"}}}}"#);
        open(&[&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat())
    };
    let version = with_metadata(&format!("2 {SHA256} {{}}"));
    assert!(matches!(version, ArtifactError::Version { found: 2, supported: 1 }));
    assert!(matches!(with_metadata("1 abc {}"), ArtifactError::Metadata { part: "sha256" }));
    assert!(matches!(with_metadata(&format!("1 {SHA256} {{")), ArtifactError::Metadata { part: "recipe" }));
}

/// A file of each version that was ever released. It is never written again: what it holds must be read for ever.
#[test]
fn golden_files_are_read_for_ever() {
    use sha2::{Digest, Sha256};

    // The same network, its constant deflated and binned.
    for name in ["artifact_v1", "artifact_v1_binned"] {
        let golden = format!("{}/tests/fixtures/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        if !std::path::Path::new(&golden).exists() && std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, sample().0).unwrap();
        }
        let artifact = Artifact::open(golden.as_ref()).unwrap();
        let mut digest = Sha256::new();
        for tensor in artifact.tensors() {
            digest.update(&tensor.name);
            digest.update(artifact.raw_data(tensor).unwrap());
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, include_str!("../../tests/fixtures/golden/artifact_v1.sha256").trim(), "{name}");
        assert_eq!(artifact.graph().unwrap().unwrap(), skeleton(), "{name}");
    }
}
