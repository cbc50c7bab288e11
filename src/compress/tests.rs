//! The pipeline from a model to an artifact: what comes out, what is left behind, and how it fails.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::artifact::{Artifact, Body, ExportFormat};
use crate::codec::CodecId;
use crate::model::{Family, Model, fixture};
use crate::progress::{Progress, Silent};
use crate::tensor::FloatData;

/// Weights of a layer that looks like a trained one: a bell curve of distinct values.
fn bell(name: &str, dims: &[i64]) -> tract_onnx::pb::TensorProto {
    let wave = |i: i64| libm::sin(i as f64 * 12.9898) * 43758.5453;
    let noise = |i: i64| wave(i) - libm::floor(wave(i)) - 0.5;
    let values: Vec<f32> =
        (0..dims.iter().product()).map(|i| (0..6).map(|k| noise(6 * i + k + 1)).sum::<f64>() as f32).collect();
    fixture::floats(name, dims, &values)
}

/// A convolution, two dense layers the second of which is stored transposed, a bias and an embedding-sized constant.
fn network() -> Model {
    let conv = fixture::node("Conv", "image conv.weight", "features");
    let nodes = vec![
        conv,
        fixture::node("Gemm", "input fc1.weight fc1.bias", "hidden"),
        fixture::node("MatMul", "hidden fc2.weight", "logits"),
    ];
    let weights = vec![
        bell("conv.weight", &[8, 4, 3, 3]),
        bell("fc1.weight", &[60, 40]),
        bell("fc1.bias", &[40]),
        bell("fc2.weight", &[40, 30]),
    ];
    fixture::open(fixture::graph(nodes, weights)).unwrap()
}

fn recipe(json: &str) -> Recipe {
    Recipe::from_json(json).unwrap()
}

/// A folder and the place of an artifact in it.
struct Out {
    folder: tempfile::TempDir,
}

impl Out {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("out.safetensors")
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn compressed(model: &Model, json: &str) -> (Report, Vec<u8>) {
    let out = Out::new();
    let report = compress(model, &recipe(json), &out.path(), &Silent).unwrap();
    (report, std::fs::read(out.path()).unwrap())
}

const PRUNED_AND_SHARED: &str = r#"{"prune":{"sparsity":0.8,"scope":"global"},
    "quantize":{"method":"cws","levels":7,"codebook":"unified"}}"#;

#[test]
fn every_byte_of_the_artifact_is_in_the_report() {
    for json in ["{}", PRUNED_AND_SHARED, r#"{"layers":[{"match":"fc1.*","skip":true}],"encode":{"plain":"f16"}}"#] {
        let (report, bytes) = compressed(&network(), json);
        let layers: u64 = report.layers.iter().map(|layer| layer.compressed_bytes).sum();
        let codebooks: u64 = report.codebooks.iter().map(|codebook| codebook.size_bytes).sum();
        let parts = layers + codebooks + report.plain_bytes + report.graph_bytes + report.container_bytes;
        assert_eq!((report.artifact_bytes, parts), (bytes.len() as u64, bytes.len() as u64), "{json}");
        assert!(report.layers.iter().all(|l| l.stream_bytes + l.codebook_bytes < l.compressed_bytes));
    }
}

#[test]
fn the_report_describes_what_the_file_holds() {
    let (report, bytes) = compressed(&network(), PRUNED_AND_SHARED);
    assert_eq!(report.weights, 288 + 2400 + 1200);
    assert!((report.sparsity - 0.8).abs() < 0.001, "{}", report.sparsity);
    let artifact = Artifact::from_bytes(bytes.into()).unwrap();
    for (layer, tensor) in report.layers.iter().zip(artifact.tensors()) {
        let Body::Encoded { codec, dtype, .. } = &tensor.body else { panic!("{} is plain", tensor.name) };
        assert_eq!((&layer.name, layer.codec, layer.compressed_bytes), (&tensor.name, *codec, tensor.size_bytes));
        let values = FloatData::from_le_bytes(*dtype, &artifact.raw_data(tensor).unwrap());
        let mut bits: Vec<u64> = (0..values.len()).map(|i| values.get(i).to_bits()).collect();
        let zeros = bits.iter().filter(|&&b| b == 0).count();
        assert_eq!(layer.sparsity, zeros as f64 / values.len() as f64);
        bits.sort_unstable();
        bits.dedup();
        assert_eq!(layer.distinct_values, bits.len());
        assert!(layer.distinct_values <= 8, "7 levels and zero");
    }
}

#[test]
fn unified_codebooks_are_stored_once_for_each_family() {
    let (report, bytes) = compressed(&network(), PRUNED_AND_SHARED);
    // The only convolution shares with nobody: it holds its codebook itself.
    let families: Vec<_> = report.codebooks.iter().map(|codebook| codebook.family).collect();
    assert_eq!(families, [Family::Dense]);
    let owners: Vec<_> = report.layers.iter().map(|layer| layer.codebook_bytes > 0).collect();
    assert_eq!(owners, [true, false, false]);
    assert_eq!(Artifact::from_bytes(bytes.into()).unwrap().shared_codebooks().len(), 1);
}

#[test]
fn without_pruning_and_sharing_every_bit_survives() {
    let model = network();
    let (report, bytes) = compressed(&model, "{}");
    assert!(report.layers.iter().all(|layer| layer.weight_snr_db.is_none()));
    let mut exported = Vec::new();
    Artifact::from_bytes(bytes.into()).unwrap().export(ExportFormat::Onnx, &mut exported).unwrap();
    let exported = Model::from_bytes(exported.into()).unwrap();
    assert_eq!(exported.weights(), model.weights());
    for weight in model.weights() {
        let bits = |model: &Model| {
            let data = model.read(weight).unwrap();
            (0..data.len()).map(|i| data.get(i).to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&exported), bits(&model), "{}", weight.name);
    }
}

#[test]
fn the_signal_to_noise_ratio_follows_its_definition() {
    let model = network();
    let (report, bytes) = compressed(&model, r#"{"prune":{"sparsity":0.5},"quantize":{"levels":4}}"#);
    let artifact = Artifact::from_bytes(bytes.into()).unwrap();
    for ((layer, tensor), weight) in report.layers.iter().zip(artifact.tensors()).zip(model.weights()) {
        let before = model.read(weight).unwrap();
        let after = FloatData::from_le_bytes(weight.dtype, &artifact.raw_data(tensor).unwrap());
        let sum = |f: &dyn Fn(usize) -> f64| (0..before.len()).map(|i| f(i) * f(i)).sum::<f64>();
        let expected = 10.0 * (sum(&|i| before.get(i)) / sum(&|i| before.get(i) - after.get(i))).log10();
        assert!((layer.weight_snr_db.unwrap() - expected).abs() < 1e-6, "{}", layer.name);
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let json = r#"{"prune":{"sparsity":0.7,"scope":"global"},"quantize":{"method":"pws","levels":9},"seed":3}"#;
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compressed(&network(), json).1)
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}

#[test]
fn what_is_skipped_stays_and_is_named() {
    let json = r#"{"quantize":{"levels":2},"layers":[{"match":"fc1.*","skip":true}]}"#;
    let model = network();
    let (report, bytes) = compressed(&model, json);
    let kept: Vec<_> = report.kept.iter().map(|kept| (kept.name.as_str(), kept.reason.as_str())).collect();
    assert!(kept.contains(&("fc1.weight", "skipped by the recipe")), "{kept:?}");
    assert!(report.layers.iter().all(|layer| layer.name != "fc1.weight"));
    let artifact = Artifact::from_bytes(bytes.into()).unwrap();
    let tensor = artifact.tensors().iter().find(|t| t.name == "fc1.weight").unwrap();
    let mut original = Vec::new();
    let weight = model.weights().iter().find(|w| w.name == "fc1.weight").unwrap();
    model.read(weight).unwrap().write_le_bytes(weight.dtype, &mut original);
    assert_eq!(artifact.raw_data(tensor).unwrap(), original);
}

#[test]
fn rules_that_apply_to_nothing_do_not_pass_in_silence() {
    let run = |json: &str| compress(&network(), &recipe(json), &Out::new().path(), &Silent);
    let entries = |json: &str| match run(json) {
        Err(CompressError::Unmatched { entries, .. }) => entries.join(";"),
        other => panic!("{json}: {other:?}"),
    };
    assert!(entries(r#"{"layers":[{"match":"fc9.*","skip":true}]}"#).contains("fc9.*"));
    assert!(entries(r#"{"by_op":{"Covn":{"skip":true}}}"#).contains("Covn"));
    assert!(run(r#"{"layers":[{"match":"*.bias","encode":{"plain":"f16"}}]}"#).is_ok(), "biases are stored");
    let report = run(r#"{"by_op":{"LSTM":{"skip":true}}}"#).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("LSTM")), "{:?}", report.notes);
}

#[test]
fn a_weight_that_is_not_finite_is_named_with_its_place() {
    let mut values = vec![1.0; 12];
    values[7] = f32::NAN;
    let node = fixture::node("MatMul", "x w", "y");
    let model = fixture::open(fixture::graph(vec![node], vec![fixture::floats("w", &[4, 3], &values)])).unwrap();
    let out = Out::new();
    let error = compress(&model, &recipe("{}"), &out.path(), &Silent).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"w\" is not finite at element 7");
    assert_eq!(out.files(), [] as [PathBuf; 0]);
    let skipped = recipe(r#"{"layers":[{"match":"w","skip":true}]}"#);
    assert!(compress(&model, &skipped, &out.path(), &Silent).is_ok(), "it was not chosen for compression");
}

#[test]
fn too_many_distinct_values_are_stored_raw_and_named() {
    let values: Vec<f32> = (0..70_000).map(|i| i as f32).collect();
    let node = fixture::node("MatMul", "x w", "y");
    let model = fixture::open(fixture::graph(vec![node], vec![fixture::floats("w", &[700, 100], &values)])).unwrap();
    let (report, _) = compressed(&model, r#"{"encode":{"codec":"ham"}}"#);
    let layer = &report.layers[0];
    assert_eq!((layer.codec, layer.distinct_values), (CodecId::Pco, 70_000));
    assert!(layer.stream_bytes < 3 * 70_000, "{} bytes", layer.stream_bytes);
    assert!(layer.note.as_ref().unwrap().contains("65536 distinct values"), "{:?}", layer.note);
}

#[test]
fn a_codec_of_raw_values_takes_a_layer_of_few_values_too() {
    let of = |codec: &str| {
        let json = format!(r#"{{"quantize":{{"levels":15}},"encode":{{"codec":"{codec}"}}}}"#);
        let (report, bytes) = compressed(&network(), &json);
        (report, Artifact::from_bytes(bytes.into()).unwrap())
    };
    let ((report, binned), (_, shared)) = (of("pco"), of("dense"));
    for layer in &report.layers {
        assert_eq!((layer.codec, layer.codebook_bytes, &layer.note), (CodecId::Pco, 0, &None), "{}", layer.name);
        assert!(layer.distinct_values <= 16, "{}", layer.name);
    }
    for (a, b) in binned.tensors().iter().zip(shared.tensors()) {
        assert_eq!(binned.raw_data(a).unwrap(), shared.raw_data(b).unwrap(), "{}", a.name);
    }
}

#[test]
fn a_dry_run_says_what_the_real_one_does() {
    let model = network();
    let json = r#"{"prune":{"sparsity":0.9},"quantize":{"levels":15},"layers":[{"match":"conv*","skip":true}]}"#;
    let estimate = estimate(&model, &recipe(json)).unwrap();
    let (report, _) = compressed(&model, json);
    assert_eq!(estimate.weights, report.weights);
    for (layer, real) in estimate.layers.iter().zip(&report.layers) {
        assert_eq!((&layer.name, layer.sparsity, layer.levels), (&real.name, 0.9, Some(15)));
    }
    assert_eq!(estimate.kept, report.kept);
}

#[test]
fn a_dry_run_bounds_the_real_one_whatever_the_settings() {
    let model = network();
    let prunes =
        [r#"{"sparsity":0.0}"#, r#"{"sparsity":0.6}"#, r#"{"sparsity":0.95}"#, r#"{"sparsity":0.9,"scope":"global"}"#];
    let quantizes = [
        "null",
        r#"{"method":"uq","levels":1}"#,
        r#"{"levels":15}"#,
        r#"{"levels":300,"codebook":"unified"}"#,
        r#"{"method":"ecsq","bits":3}"#,
    ];
    let codecs = CodecId::ALL.iter().map(|codec| codec.name()).chain(["auto"]);
    for codec in codecs {
        for (prune, quantize) in prunes.iter().flat_map(|prune| quantizes.map(|quantize| (prune, quantize))) {
            let json = format!(r#"{{"prune":{prune},"quantize":{quantize},"encode":{{"codec":"{codec}"}}}}"#);
            let estimate = estimate(&model, &recipe(&json)).unwrap();
            let (report, _) = compressed(&model, &json);
            for (layer, real) in estimate.layers.iter().zip(&report.layers) {
                let (real, most) = (real.compressed_bytes, layer.compressed_bytes_at_most);
                assert!(real <= most, "{json}: {} takes {real} of {most} bytes", layer.name);
            }
            assert!(report.artifact_bytes <= estimate.artifact_bytes_at_most, "{json}");
        }
    }
}

/// Asks to stop after a number of reports, and keeps the fractions it was told.
struct Countdown {
    left: AtomicUsize,
    fractions: Mutex<Vec<f64>>,
}

impl Countdown {
    fn from(left: usize) -> Self {
        Self { left: AtomicUsize::new(left), fractions: Mutex::default() }
    }
}

impl Progress for Countdown {
    fn report(&self, fraction: f64, _stage: &str, _message: &str) {
        self.fractions.lock().unwrap().push(fraction);
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(1)));
    }

    fn is_cancelled(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn progress_rises_to_one() {
    let progress = Countdown::from(usize::MAX);
    compress(&network(), &recipe(PRUNED_AND_SHARED), &Out::new().path(), &progress).unwrap();
    let fractions = progress.fractions.into_inner().unwrap();
    assert!(fractions.is_sorted() && fractions.len() > 9, "{fractions:?}");
    assert_eq!(fractions.last(), Some(&1.0));
}

#[test]
fn a_cancelled_compression_leaves_what_was_there() {
    let model = network();
    let mut cancelled = 0;
    for reports in 0.. {
        let out = Out::new();
        std::fs::write(out.path(), b"an older artifact").unwrap();
        match compress(&model, &recipe(PRUNED_AND_SHARED), &out.path(), &Countdown::from(reports)) {
            Ok(_) => break,
            Err(CompressError::Cancelled) => cancelled += 1,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(out.files(), [out.path()]);
        assert_eq!(std::fs::read(out.path()).unwrap(), b"an older artifact");
    }
    assert!(cancelled > 9, "{cancelled}");
}

#[test]
fn a_place_that_cannot_be_written_is_an_error() {
    let nowhere = Path::new("/nonexistent/folder/out.safetensors");
    let error = compress(&network(), &recipe("{}"), nowhere, &Silent).unwrap_err();
    assert!(matches!(error, CompressError::Artifact(_)), "{error}");
}
