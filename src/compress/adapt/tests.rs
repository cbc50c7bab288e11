//! Calibrated compressions from a model and samples to an artifact.

#[cfg(feature = "finetune")]
mod finetuned;

use super::*;
use crate::artifact::Artifact;
use crate::calibrate::{LIMITS, Limits};
use crate::compress::pipeline::plan;
use crate::compress::{Recipe, Report, compress_with, estimate};
use crate::evaluate::{DataMap, Dataset, Evaluation, Metric};
use crate::infer::{Predictor, Residency};
use crate::model::fixture;
use crate::progress::Silent;

/// Numbers from -1 to 1.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| number()).collect()
}

fn weights(name: &str, dims: &[i64], seed: u64) -> tract_onnx::pb::TensorProto {
    fixture::floats(name, dims, &noise(seed, dims.iter().product::<i64>() as usize))
}

/// A grouped convolution, a dense layer with a bias of its own, and one whose bias is added behind.
fn network() -> Model {
    network_with(1.0)
}

/// The same with the weights of the last layer times `scale`.
fn network_with(scale: f32) -> Model {
    // Adding zero makes +0.0 of -0.0.
    let last: Vec<f32> = noise(5, 400).iter().map(|value| value * scale + 0.0).collect();
    let nodes = vec![
        fixture::with_int(fixture::node("Conv", "image conv.weight conv.bias", "features"), "group", 2),
        fixture::node("Relu", "features", "active"),
        fixture::node("Flatten", "active", "flat"),
        fixture::with_int(fixture::node("Gemm", "flat fc1.weight fc1.bias", "hidden"), "transB", 1),
        fixture::node("Relu", "hidden", "rectified"),
        fixture::node("MatMul", "rectified fc2.weight", "products"),
        fixture::node("Add", "fc2.bias products", "logits"),
    ];
    let tensors = vec![
        weights("conv.weight", &[8, 2, 3, 3], 1),
        weights("conv.bias", &[8], 2),
        weights("fc1.weight", &[40, 128], 3),
        weights("fc1.bias", &[40], 4),
        fixture::floats("fc2.weight", &[40, 10], &last),
        weights("fc2.bias", &[10], 6),
    ];
    let mut graph = fixture::graph(nodes, tensors);
    graph.input = vec![fixture::port("image", &[-1, 4, 6, 6])];
    graph.output = vec![fixture::port("logits", &[-1, 10])];
    fixture::open(graph).unwrap()
}

/// Images of slowly varying noise.
fn dataset(samples: usize) -> Dataset {
    let mut values = noise(9, samples * 144);
    for i in 1..values.len() {
        values[i] += 0.8 * values[i - 1];
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let array = fixture::npy("<f4", false, &format!("({samples}, 4, 6, 6)"), &bytes);
    Dataset::from_bytes(fixture::npz(&[("image", array)], false).into()).unwrap()
}

fn run(model: &Model, dataset: &Dataset, recipe: &str) -> Result<(Report, Vec<u8>), CompressError> {
    run_telling(model, dataset, recipe, &Silent)
}

fn run_telling(
    model: &Model,
    dataset: &Dataset,
    recipe: &str,
    progress: &dyn Progress,
) -> Result<(Report, Vec<u8>), CompressError> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let train = Samples::open(dataset, &DataMap::default(), (model.inputs(), model.outputs())).unwrap();
    let data = TrainingData { train, validation: None, folder: None, start: None, store: TrainingStore::default() };
    let report = compress_with(model, &Recipe::from_json(recipe).unwrap(), Some(&data), &out, progress)?;
    Ok((report, std::fs::read(&out).unwrap()))
}

/// Signal to noise of the outputs against the model's.
fn output_snr_db(model: &Model, artifact: &[u8], dataset: &Dataset) -> f64 {
    let artifact = Artifact::from_bytes(artifact.to_vec().into()).unwrap();
    let predictor = Predictor::from_artifact(&artifact, Residency::Coded).unwrap();
    let reference = Predictor::from_model(model).unwrap();
    let metrics = &[Metric::OutputSnrDb];
    let map = &DataMap::default();
    let evaluation = Evaluation { predictor: &predictor, reference: Some(&reference), dataset, map, metrics };
    evaluation.run(&Silent).unwrap().value(Metric::OutputSnrDb).unwrap()
}

const OBS: &str = r#""prune": {"criterion": "obs", "sparsity": 0.7, "scope": "global"}"#;

#[test]
fn a_budget_is_met_exactly_and_beats_magnitude() {
    let (model, dataset) = (network(), dataset(200));
    let (report, file) = run(&model, &dataset, &format!(r#"{{{OBS}, "encode": {{"remove": false}}}}"#)).unwrap();
    let weights = 8 * 18 + 40 * 128 + 400;
    let zeros = (report.sparsity * weights as f64).round() as usize;
    assert_eq!(zeros, (0.7 * weights as f64).round() as usize);
    let calibration = report.calibration.unwrap();
    let names: Vec<&str> = calibration.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!((calibration.samples, names), (200, vec!["conv.weight", "fc1.weight", "fc2.weight"]));
    let biases: Vec<_> = calibration.layers.iter().map(|layer| layer.corrected_bias.as_deref()).collect();
    assert_eq!(biases, [Some("conv.bias"), Some("fc1.bias"), Some("fc2.bias")]);
    assert!(calibration.layers.iter().all(|layer| layer.curve.len() == crate::calibrate::CURVE.len()));
    let global = r#"{"prune": {"sparsity": 0.7, "scope": "global"}}"#;
    let (_, by_magnitude) = run(&model, &dataset, global).unwrap();
    let (calibrated, plain) = (output_snr_db(&model, &file, &dataset), output_snr_db(&model, &by_magnitude, &dataset));
    assert!(calibrated > plain + 3.0, "{calibrated} dB against {plain} dB");
}

/// A convolution without a bias and an activation, whose normalisation cannot be folded: with it, and up to it.
fn normalised_network() -> [Model; 2] {
    let whole = vec![
        fixture::node("Conv", "image conv.weight", "features"),
        fixture::node("Relu", "features", "active"),
        fixture::with_int(
            fixture::node("BatchNormalization", "active scale shift mean variance", "normal"),
            "training_mode",
            0,
        ),
    ];
    let eight = |name: &str, value: f32| fixture::floats(name, &[8], &[value; 8]);
    let conv = weights("conv.weight", &[8, 4, 3, 3], 1);
    let statistics = [eight("scale", 1.0), eight("shift", 0.0), eight("mean", 0.3), eight("variance", 0.2)];
    let tensors = [&[conv.clone()][..], &statistics].concat();
    [(whole.clone(), tensors, "normal"), (whole[..2].to_vec(), vec![conv], "active")].map(|(nodes, tensors, output)| {
        let mut graph = fixture::graph(nodes, tensors);
        graph.input = vec![fixture::port("image", &[-1, 4, 6, 6])];
        graph.output = vec![fixture::port(output, &[-1, 8, 4, 4])];
        fixture::open(graph).unwrap()
    })
}

/// Mean and variance of the first channel of the outputs, over all samples.
fn first_channel(predictor: &Predictor, model: &Model, dataset: &Dataset) -> (f64, f64) {
    let samples = Samples::open(dataset, &DataMap::default(), (model.inputs(), model.outputs())).unwrap();
    let inputs = samples.read(&(0..samples.len()).collect::<Vec<_>>()).unwrap().inputs;
    let data = predictor.run(inputs).unwrap().remove(0).1.data;
    let values = (0..data.len()).filter(|i| i / 16 % 8 == 0).map(|i| data.get_f64(i));
    let values: Vec<f64> = values.collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
}

#[test]
fn statistics_of_a_normalisation_that_stays_follow_the_layers_in_front() {
    let ([model, front], dataset) = (normalised_network(), dataset(200));
    let compressed = |model: &Model, corrects: bool| {
        let prune = r#"{"criterion": "wanda", "sparsity": 0.8}"#;
        let recipe = format!(r#"{{"prune": {prune}, "calibrate": {{"bias_correction": {corrects}}}}}"#);
        let (report, file) = run(model, &dataset, &recipe).unwrap();
        let artifact = Artifact::from_bytes(file.into()).unwrap();
        let predictor = Predictor::from_artifact(&artifact, Residency::Coded).unwrap();
        let note = "mean, variance: estimated again behind the compressed layers";
        (first_channel(&predictor, model, &dataset), report.notes.iter().any(|found| found == note))
    };
    let original = first_channel(&Predictor::from_model(&front).unwrap(), &front, &dataset);
    let (pruned, _) = compressed(&front, true);
    let mean = 0.3 + pruned.0 - original.0;
    let variance = 0.2 * pruned.1 / original.1;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    let (found, is_noted) = compressed(&model, true);
    assert!(is_noted);
    assert!((found.0 - (pruned.0 - mean) * scale).abs() < 1e-3, "{found:?}");
    assert!((found.1 / (pruned.1 * scale * scale) - 1.0).abs() < 1e-3, "{found:?}");
    let (fixed, is_noted) = compressed(&model, false);
    assert!(!is_noted && (fixed.0 - found.0).abs() > 0.01, "{fixed:?} {found:?}");
}

#[test]
fn every_criterion_and_pattern_reaches_what_it_was_asked_for() {
    let (model, dataset) = (network(), dataset(100));
    for prune in [
        r#"{"criterion": "wanda", "sparsity": 0.5, "scope": "row"}"#,
        r#"{"criterion": "obs", "sparsity": 0.5, "scope": "row"}"#,
        r#"{"criterion": "wanda", "pattern": "2:4"}"#,
        r#"{"criterion": "obs", "pattern": "2:4"}"#,
        r#"{"pattern": "2:4"}"#,
    ] {
        let (report, _) =
            run(&model, &dataset, &format!(r#"{{"prune": {prune}, "encode": {{"remove": false}}}}"#)).unwrap();
        let sparsities: Vec<f64> = report.layers.iter().map(|layer| layer.sparsity).collect();
        // Rows of 18 weights: the last two neighbours of a pattern both stay.
        let conv = if prune.contains("pattern") { 8.0 / 18.0 } else { 0.5 };
        let expected = [conv, 0.5, 0.5];
        assert!(sparsities.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.02), "{prune}: {sparsities:?}");
    }
}

#[test]
fn rounding_with_feedback_is_nearer_to_the_outputs() {
    let (model, dataset) = (network(), dataset(150));
    let snr = |rounding: &str| {
        let recipe = format!(r#"{{{OBS}, "quantize": {{"method": "uq", "levels": 7, "rounding": "{rounding}"}}}}"#);
        let (report, file) = run(&model, &dataset, &recipe).unwrap();
        assert!(report.layers.iter().all(|layer| layer.distinct_values <= 8));
        output_snr_db(&model, &file, &dataset)
    };
    let (nearest, feedback) = (snr("nearest"), snr("feedback"));
    assert!(feedback > nearest, "{feedback} dB against {nearest} dB");
}

#[test]
fn values_weighted_by_the_hessian_are_nearer_to_the_outputs() {
    let (model, dataset) = (network(), dataset(150));
    for method in ["cws", "ecsq"] {
        let error = |weighting: &str| {
            let quantize =
                format!(r#"{{"method": "{method}", "levels": 7, "rounding": "feedback", "weighting": "{weighting}"}}"#);
            let (report, _) = run(&model, &dataset, &format!(r#"{{"quantize": {quantize}}}"#)).unwrap();
            report.calibration.unwrap().layers.iter().map(|layer| layer.output_error).sum::<f64>()
        };
        let (alike, weighted) = (error("none"), error("hessian"));
        assert!(weighted != alike && weighted < 1.1 * alike, "{method}: {weighted} against {alike}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let (model, dataset) = (network(), dataset(130));
    for unified in ["", r#", "codebook": "unified", "weighting": "hessian""#] {
        let recipe = format!(r#"{{{OBS}, "quantize": {{"levels": 15, "rounding": "feedback"{unified}}}}}"#);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&model, &dataset, &recipe).unwrap().1)
        };
        assert!(on(1) == on(3), "{unified}");
    }
}

#[test]
fn codebooks_may_be_unified_after_pruning() {
    let (model, dataset) = (network(), dataset(64));
    let snr = |rounding: &str| {
        let quantize = format!(r#"{{"levels": 15, "codebook": "unified", "rounding": "{rounding}"}}"#);
        let (report, file) = run(&model, &dataset, &format!(r#"{{{OBS}, "quantize": {quantize}}}"#)).unwrap();
        assert_eq!(report.codebooks.len(), 1);
        assert!((report.sparsity - 0.7).abs() < 0.001, "{}", report.sparsity);
        output_snr_db(&model, &file, &dataset)
    };
    let (nearest, feedback) = (snr("nearest"), snr("feedback"));
    assert!(nearest > 5.0 && feedback > nearest, "{feedback} dB against {nearest} dB");
}

#[test]
fn layers_are_pruned_alike_whoever_shares_their_codebook() {
    let nodes = vec![
        fixture::node("MatMul", "x a.weight", "hidden"),
        fixture::node("Relu", "hidden", "active"),
        fixture::node("BatchNormalization", "active scale shift mean variance", "normal"),
        fixture::node("MatMul", "normal b.weight", "logits"),
    ];
    let of_channels = |name: &str, value: f32| fixture::floats(name, &[24], &[value; 24]);
    let statistics = [("scale", 1.0), ("shift", 0.0), ("mean", 0.3), ("variance", 0.2)];
    let mut tensors: Vec<_> = statistics.iter().map(|(name, value)| of_channels(name, *value)).collect();
    tensors.extend([weights("a.weight", &[144, 24], 1), weights("b.weight", &[24, 10], 2)]);
    let mut graph = fixture::graph(nodes, tensors);
    graph.input = vec![fixture::port("x", &[-1, 144])];
    graph.output = vec![fixture::port("logits", &[-1, 10])];
    let model = fixture::open(graph).unwrap();
    let array = fixture::npy(
        "<f4",
        false,
        "(200, 144)",
        &noise(9, 200 * 144).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(),
    );
    let dataset = Dataset::from_bytes(fixture::npz(&[("x", array)], false).into()).unwrap();
    let snr = |codebook: &str| {
        // More values than weights: sharing loses nothing.
        let recipe = format!(r#"{{{OBS}, "quantize": {{"levels": 5000, "codebook": "{codebook}"}}}}"#);
        let (report, file) = run(&model, &dataset, &recipe).unwrap();
        assert!(report.notes.iter().any(|note| note.contains("estimated again")), "{:?}", report.notes);
        output_snr_db(&model, &file, &dataset)
    };
    let (own, unified) = (snr("per_layer"), snr("unified"));
    assert!((own - unified).abs() < 1e-6, "{own} dB against {unified} dB");
}

#[test]
fn unified_values_weighted_by_the_hessian_heed_a_layer_of_small_weights() {
    let (model, dataset) = (network_with(0.1), dataset(150));
    for rounding in ["nearest", "feedback"] {
        let snr = |weighting: &str| {
            let scope = format!(r#""codebook": "unified", "rounding": "{rounding}", "weighting": "{weighting}""#);
            let (report, file) =
                run(&model, &dataset, &format!(r#"{{"quantize": {{"levels": 7, {scope}}}}}"#)).unwrap();
            assert_eq!(report.codebooks.len(), 1);
            output_snr_db(&model, &file, &dataset)
        };
        let (alike, weighted) = (snr("none"), snr("hessian"));
        assert!(weighted > alike + 1.0, "{rounding}: {weighted} dB against {alike} dB");
    }
}

#[test]
fn more_weights_than_fit_are_refused_before_they_are_read() {
    let model = network();
    let recipe = Recipe::from_json(r#"{"quantize": {"codebook": "unified", "weighting": "hessian"}}"#).unwrap();
    let tasks = plan(&model, &recipe).tasks;
    let memory = |limits| memory_bytes(&model, &recipe, &tasks, limits).map_err(|error| error.to_string());
    let weights = 8 * 18 + 40 * 128 + 400;
    let shared_bytes = 44 * weights;
    let layer_bytes = memory(LIMITS).unwrap() - shared_bytes - 20 * weights;
    assert!(memory(Limits { shared_bytes, layer_bytes, ..LIMITS }).is_ok());
    let error = memory(Limits { shared_bytes: shared_bytes - 1, ..LIMITS }).unwrap_err();
    assert!(error.contains(&format!("5664 weights that count by their inputs takes {shared_bytes} bytes")), "{error}");
    let error = memory(Limits { layer_bytes: layer_bytes - 1, ..LIMITS }).unwrap_err();
    assert!(error.contains(&format!("calibrating \"fc1.weight\" takes {layer_bytes} bytes")), "{error}");
}

/// Notes what it is told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Progress for Told {
    fn report(&self, _fraction: f64, _stage: &str, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

#[test]
fn memory_is_told_before_the_first_sample_is_run() {
    let (model, dataset) = (network(), dataset(100));
    let recipe = Recipe::from_json(&format!("{{{OBS}}}")).unwrap();
    let dry = estimate(&model, &recipe).unwrap().calibration_bytes.unwrap();
    let told = Told::default();
    let (report, _) = run_telling(&model, &dataset, &recipe.to_json(), &told).unwrap();
    let first = told.0.into_inner().unwrap().swap_remove(0);
    assert!(first.starts_with("100 samples; takes ") && first.ends_with(" MiB of memory at most"), "{first}");
    // At least the outputs of the convolution, 8 x 4 x 4 floats of each sample, come on top.
    assert!(report.calibration.unwrap().memory_bytes >= dry + 100 * 8 * 4 * 4 * 4);
    assert_eq!(estimate(&model, &Recipe::default()).unwrap().calibration_bytes, None);
    let groups = |name: &str| model.groups(model.weights().iter().find(|weight| weight.name == name).unwrap());
    assert_eq!((groups("conv.weight"), groups("fc1.weight")), (2, 1));
}

/// One dense layer of 9,000 inputs, whose Hessian and the work on it take more than is allowed, and one of few.
#[cfg(feature = "finetune")]
#[test]
fn what_would_not_fit_is_found_before_the_training() {
    let nodes = vec![
        fixture::with_int(fixture::node("Gemm", "x wide.weight", "hidden"), "transB", 1),
        fixture::with_int(fixture::node("Gemm", "hidden small.weight", "y"), "transB", 1),
    ];
    let tensors = vec![weights("wide.weight", &[4, 9_000], 1), weights("small.weight", &[3, 4], 2)];
    let mut graph = fixture::graph(nodes, tensors);
    graph.input = vec![fixture::port("x", &[-1, 9_000])];
    graph.output = vec![fixture::port("y", &[-1, 3])];
    let model = fixture::open(graph).unwrap();
    let bytes: Vec<u8> = noise(3, 8 * 9_000).iter().flat_map(|value| value.to_le_bytes()).collect();
    let array = fixture::npy("<f4", false, "(8, 9000)", &bytes);
    let dataset = Dataset::from_bytes(fixture::npz(&[("x", array)], false).into()).unwrap();
    let training = r#""finetune": {"epochs": 1, "sharing_epochs": 0, "batch": 4}"#;
    let recipe = |small: &str, wide: &str| {
        format!(r#"{{"layers": [{{"match": "small*", {small}}}, {{"match": "wide*", {wide}}}], {training}}}"#)
    };
    let (obs, shared) = (r#""prune": {"criterion": "obs", "sparsity": 0.5}"#, r#""quantize": {"levels": 3}"#);
    let told = Told::default();
    let error = run_telling(&model, &dataset, &recipe(obs, obs), &told).unwrap_err().to_string();
    assert!(error.contains(r#"calibrating "wide.weight" takes"#), "{error}");
    assert!(told.0.into_inner().unwrap().is_empty());
    // What is shared without its inputs in view is none of the calibration's business.
    let (report, _) = run(&model, &dataset, &recipe(obs, shared)).unwrap();
    assert_eq!(report.calibration.unwrap().layers.len(), 1);
}

#[test]
fn samples_that_are_not_finite_are_refused_by_every_method() {
    let model = network();
    let mut values = noise(9, 100 * 144);
    values[7_777] = f32::NAN;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let array = fixture::npy("<f4", false, "(100, 4, 6, 6)", &bytes);
    let dataset = Dataset::from_bytes(fixture::npz(&[("image", array)], false).into()).unwrap();
    for recipe in [
        r#"{"quantize": {"levels": 15, "rounding": "feedback"}}"#,
        r#"{"quantize": {"levels": 15, "weighting": "hessian"}}"#,
        r#"{"prune": {"criterion": "wanda"}}"#,
        r#"{"prune": {"criterion": "obs"}}"#,
        r#"{"target": {"ratio": 6}}"#,
    ] {
        let error = run(&model, &dataset, recipe).unwrap_err().to_string();
        assert!(error.contains(r#"what "conv.weight" is multiplied by is not finite"#), "{recipe}: {error}");
    }
}

#[test]
fn a_layer_of_zeros_has_no_setting_and_takes_none_of_another() {
    let (model, dataset) = (network_with(0.0), dataset(100));
    let recipe = r#"{"target": {"ratio": 6}, "quantize": {"codebook": "unified", "levels": 7}}"#;
    let (report, _) = run(&model, &dataset, recipe).unwrap();
    assert!(report.artifact_bytes <= model.size_bytes() / 6);
    let steps: Vec<bool> = report.calibration.unwrap().layers.iter().map(|layer| layer.step.is_some()).collect();
    assert_eq!(steps, [true, true, false]);
    assert_eq!(report.layers[2].sparsity, 1.0);
}

#[test]
fn a_target_is_met_by_the_file_and_not_by_much() {
    let (model, dataset) = (network(), dataset(100));
    for (target, bytes) in [("{\"size_bytes\": 6000}", 6000), ("{\"ratio\": 6}", model.size_bytes() / 6)] {
        let recipe = format!(r#"{{"target": {target}, "quantize": {{"levels": 1}}}}"#);
        let expected = estimate(&model, &Recipe::from_json(&recipe).unwrap()).unwrap();
        assert_eq!((expected.artifact_bytes_at_most, expected.layers[0].levels), (bytes, None));
        let (report, file) = run(&model, &dataset, &recipe).unwrap();
        assert_eq!(report.artifact_bytes, file.len() as u64);
        assert!((bytes * 9 / 10..=bytes).contains(&report.artifact_bytes), "{} of {bytes}", report.artifact_bytes);
        let layers = report.calibration.unwrap().layers;
        assert!(layers.iter().all(|layer| layer.step.is_some() && layer.points.len() > 100));
        assert!(output_snr_db(&model, &file, &dataset) > 5.0);
    }
    let unified = r#"{"target": {"ratio": 6}, "quantize": {"codebook": "unified", "levels": 7}}"#;
    let (report, file) = run(&model, &dataset, unified).unwrap();
    assert!(report.codebooks.is_empty() && output_snr_db(&model, &file, &dataset) > 5.0);
    let error = run(&model, &dataset, r#"{"target": {"size_bytes": 100}}"#).unwrap_err();
    assert!(matches!(error, CompressError::Target { target_bytes: 100, .. }), "{error}");
}

#[test]
fn without_data_there_is_no_calibration() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    for recipe in
        [format!("{{{OBS}}}"), r#"{"layers": [{"match": "fc*", "quantize": {"rounding": "feedback"}}]}"#.into()]
    {
        let recipe = Recipe::from_json(&recipe).unwrap();
        let error = compress_with(&network(), &recipe, None, &out, &Silent).unwrap_err();
        assert!(matches!(error, CompressError::NeedsData), "{error}");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn a_layer_that_no_product_reaches_is_pruned_by_magnitude_and_named() {
    let nodes = vec![
        fixture::node("Gather", "entries ids", "embedded"),
        fixture::node("MatMul", "embedded fc.weight", "logits"),
    ];
    let small: Vec<f32> = noise(1, 800).iter().map(|value| 0.01 * value).collect();
    let tensors = vec![fixture::floats("entries", &[50, 16], &small), weights("fc.weight", &[16, 4], 2)];
    let mut graph = fixture::graph(nodes, tensors);
    let mut ids = fixture::port("ids", &[-1]);
    if let Some(tract_onnx::pb::type_proto::Value::TensorType(tensor)) =
        ids.r#type.as_mut().and_then(|t| t.value.as_mut())
    {
        tensor.elem_type = tract_onnx::pb::tensor_proto::DataType::Int64 as i32;
    }
    graph.input = vec![ids];
    graph.output = vec![fixture::port("logits", &[-1, 4])];
    let model = fixture::open(graph).unwrap();
    let ids: Vec<u8> = (0..100i64).flat_map(|i| (i * 7 % 50).to_le_bytes()).collect();
    let array = fixture::npy("<i8", false, "(100,)", &ids);
    let dataset = Dataset::from_bytes(fixture::npz(&[("ids", array)], false).into()).unwrap();
    let unified =
        r#", "quantize": {"levels": 7, "codebook": "unified", "rounding": "feedback", "weighting": "hessian"}"#;
    for (scope, quantize) in [("tensor", ""), ("tensor", unified), ("global", ""), ("global", unified)] {
        let prune = format!(r#""prune": {{"criterion": "obs", "sparsity": 0.5, "scope": "{scope}"}}"#);
        let (report, _) =
            run(&model, &dataset, &format!(r#"{{{prune}, "encode": {{"remove": false}}{quantize}}}"#)).unwrap();
        assert!(report.layers.iter().all(|layer| (layer.sparsity - 0.5).abs() < 0.01), "{scope}{quantize}");
        assert_eq!(report.notes.iter().filter(|note| note.starts_with("entries: ")).count(), 1, "{:?}", report.notes);
        assert_eq!(report.calibration.unwrap().layers.len(), 1);
        assert_eq!(report.codebooks.len(), usize::from(!quantize.is_empty()));
    }
}
