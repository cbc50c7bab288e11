//! Fine-tuned compressions of a real network on its data.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::super::*;
use crate::artifact::Artifact;
use crate::compress::{Recipe, Report, TrainingStage, compress_with};
use crate::evaluate::{DataMap, Dataset, Evaluation, InputMap, Metric, TargetKind, TargetMap};
use crate::infer::{Predictor, Residency};
use crate::model::fixture;
use crate::progress::Silent;

const MODEL: &[u8] = include_bytes!("../../../../tests/fixtures/digits_mlp.onnx");
const DATA: &[u8] = include_bytes!("../../../../tests/fixtures/digits_val.npz");

/// 450 digits: 300 to train on, 150 to select by.
struct Digits {
    model: Model,
    dataset: Dataset,
}

impl Digits {
    fn open() -> Self {
        let model = Model::from_bytes(Bytes::from_static(MODEL)).unwrap();
        Self { model, dataset: Dataset::from_bytes(Bytes::from_static(DATA)).unwrap() }
    }

    /// The same with samples of 8 x 8 pixels, not of 64 numbers.
    fn as_images() -> Self {
        let Self { model, dataset } = Self::open();
        let samples = Samples::open(&dataset, &Self::map((0, 450)), (model.inputs(), model.outputs())).unwrap();
        let batch = samples.read(&(0..450).collect::<Vec<_>>()).unwrap();
        let (x, y) = (&batch.inputs[0].1.data, batch.target.unwrap().data);
        let pixels: Vec<u8> = (0..450 * 64).flat_map(|i| (x.get_f64(i) as f32).to_le_bytes()).collect();
        let classes: Vec<u8> = (0..450).map(|i| y.get_f64(i) as u8).collect();
        let arrays = [
            ("x", fixture::npy("<f4", false, "(450, 8, 8)", &pixels)),
            ("y", fixture::npy("|u1", false, "(450,)", &classes)),
        ];
        Self { model, dataset: Dataset::from_bytes(fixture::npz(&arrays, false).into()).unwrap() }
    }

    fn map(range: (usize, usize)) -> DataMap {
        let inputs = [("input".to_owned(), InputMap::new("x"))].into();
        let target = Some(TargetMap { array: "y".into(), kind: TargetKind::Class });
        DataMap { range: Some(range), inputs, target, ..DataMap::default() }
    }

    fn data(&self, folder: Option<&Path>, start: Option<&Path>) -> TrainingData<'_> {
        let samples = |range| {
            let ports = (self.model.inputs(), self.model.outputs());
            Samples::open(&self.dataset, &Self::map(range), ports).unwrap()
        };
        TrainingData {
            train: samples((0, 300)),
            validation: Some(samples((300, 450))),
            folder: folder.map(Path::to_owned),
            start: start.map(Path::to_owned),
            store: TrainingStore::default(),
        }
    }

    fn compress(&self, recipe: &str, data: &TrainingData) -> Result<(Report, Vec<u8>), CompressError> {
        self.compress_telling(recipe, data, &Silent)
    }

    fn compress_telling(
        &self,
        recipe: &str,
        data: &TrainingData,
        progress: &dyn Progress,
    ) -> Result<(Report, Vec<u8>), CompressError> {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let recipe = Recipe::from_json(recipe).unwrap();
        let report = compress_with(&self.model, &recipe, Some(data), &out, progress)?;
        Ok((report, std::fs::read(out).unwrap()))
    }

    /// Accuracy of an artifact on the validation split.
    fn accuracy(&self, artifact: &[u8]) -> f64 {
        let artifact = Artifact::from_bytes(artifact.to_vec().into()).unwrap();
        let predictor = &Predictor::from_artifact(&artifact, Residency::Coded).unwrap();
        let (map, dataset, metrics) = (&Self::map((300, 450)), &self.dataset, &[Metric::Accuracy][..]);
        let evaluation = Evaluation { predictor, reference: None, dataset, map, metrics };
        evaluation.run(&Silent).unwrap().value(Metric::Accuracy).unwrap()
    }
}

const PRUNED: &str = r#"{"prune": {"sparsity": 0.85, "scope": "global"}, "encode": {"remove": false}}"#;
const TUNED: &str = r#"{"prune": {"sparsity": 0.85, "scope": "global"}, "encode": {"remove": false},
    "finetune": {"epochs": 12, "sharing_epochs": 0, "batch": 32, "learning_rate": 0.005}}"#;
const SHARED: &str = r#"{"prune": {"sparsity": 0.8, "scope": "global"}, "quantize": {"levels": 3},
    "encode": {"remove": false, "merge": false},
    "finetune": {"epochs": 4, "sharing_epochs": 8, "batch": 32, "learning_rate": 0.005}}"#;

#[test]
fn training_repairs_what_pruning_broke_and_keeps_the_zeros() {
    let digits = Digits::open();
    let data = digits.data(None, None);
    let (_, pruned) = digits.compress(PRUNED, &data).unwrap();
    let (report, tuned) = digits.compress(TUNED, &data).unwrap();
    let (before, after) = (digits.accuracy(&pruned), digits.accuracy(&tuned));
    assert!(after > before + 0.1 && after > 0.9, "{before} became {after}");
    assert!((report.sparsity - 0.85).abs() < 1e-3, "{}", report.sparsity);
    assert_eq!(report.training.len(), 12);
    assert!(report.training[11].loss < report.training[6].loss);
    assert!(report.training.is_sorted_by(|a, b| a.sparsity <= b.sparsity + 1e-9), "sparsity grows");
    // The best epoch of those at the final sparsity is what was written.
    let best = report.training[6..].iter().filter_map(|epoch| epoch.accuracy).fold(0.0, f64::max);
    assert!((best - after).abs() < 1e-9, "{best} against {after}");
}

#[test]
fn shared_values_are_trained_and_stay_as_few() {
    let digits = Digits::open();
    let data = digits.data(None, None);
    let (report, tuned) = digits.compress(SHARED, &data).unwrap();
    assert!(report.layers.iter().all(|layer| layer.distinct_values <= 4), "three values and zero");
    let shared: Vec<_> = report.training.iter().filter(|epoch| epoch.stage == TrainingStage::Shared).collect();
    assert_eq!(shared.len(), 8);
    let without = SHARED.replace(r#""sharing_epochs": 8"#, r#""sharing_epochs": 0"#);
    let (_, untrained) = digits.compress(&without, &data).unwrap();
    assert!(digits.accuracy(&tuned) > digits.accuracy(&untrained), "training the values helps");
    let unified = SHARED.replace(r#""levels": 3"#, r#""levels": 5, "codebook": "unified""#);
    let (report, _) = digits.compress(&unified, &data).unwrap();
    assert_eq!(report.codebooks.len(), 1, "layers go on sharing a codebook whose values moved");
    let by_inputs = unified.replace(r#""unified""#, r#""unified", "rounding": "feedback", "weighting": "hessian""#);
    let (report, calibrated) = digits.compress(&by_inputs, &data).unwrap();
    assert_eq!(report.codebooks.len(), 1);
    assert!(digits.accuracy(&calibrated) > digits.accuracy(&untrained));
    let reassigned = SHARED.replace(r#""batch": 32"#, r#""batch": 32, "reassign": true"#);
    let (report, _) = digits.compress(&reassigned, &data).unwrap();
    assert!(report.layers.iter().all(|layer| layer.distinct_values <= 4));
}

#[test]
fn images_are_changed_by_chance_and_alike_on_any_number_of_threads() {
    let digits = Digits::as_images();
    let data = digits.data(None, None);
    let changed = |augment: &str| {
        let recipe = SHARED.replace(r#""batch": 32"#, &format!(r#""batch": 32, "augment": {augment}"#));
        digits.compress(&recipe, &data).unwrap().1
    };
    let moved = changed(r#"{"shift": 1}"#);
    assert!(digits.accuracy(&moved) > 0.7, "{}", digits.accuracy(&moved));
    assert!(moved != changed(r#"{"shift": 0}"#));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert!(moved == pool.install(|| changed(r#"{"shift": 1}"#)));

    let mixed = SHARED.replace(r#""batch": 32"#, r#""batch": 32, "mixup": true, "loss": "cross_entropy""#);
    let error = digits.compress(&mixed, &data).unwrap_err();
    assert!(matches!(error, CompressError::MixupNeedsTeacher), "{error}");

    let vectors = Digits::open();
    let recipe = SHARED.replace(r#""batch": 32"#, r#""batch": 32, "augment": {"flip": true}"#);
    let error = vectors.compress(&recipe, &vectors.data(None, None)).unwrap_err();
    assert!(matches!(error, CompressError::NoImages), "{error}");
}

#[test]
fn values_calibrated_to_a_size_are_trained_within_it() {
    let digits = Digits::open();
    let data = digits.data(None, None);
    let recipe = r#"{"target": {"size_bytes": 1900}, "finetune": {"epochs": 0, "sharing_epochs": 10, "batch": 32}}"#;
    let (report, tuned) = digits.compress(recipe, &data).unwrap();
    assert_eq!(report.artifact_bytes, tuned.len() as u64);
    assert!(report.artifact_bytes <= 1900, "{}", report.artifact_bytes);
    assert_eq!(report.training.len(), 10);
    let losses: Vec<f64> = report.training.iter().filter_map(|epoch| epoch.validation_loss).collect();
    assert!(losses[9] < losses[0] && report.training[9].loss < report.training[0].loss, "{losses:?}");
    let best = report.training.iter().filter_map(|epoch| epoch.accuracy).fold(0.0, f64::max);
    assert!((best - digits.accuracy(&tuned)).abs() < 1e-9 && best > 0.9, "{best}");
    // What is frozen is in the file as it was trained around: calibrated.
    let frozen = recipe.replace(r#""batch": 32"#, r#""batch": 32, "freeze": ["*0", "*1"]"#);
    let (report, tuned) = digits.compress(&frozen, &data).unwrap();
    let best = report.training.iter().filter_map(|epoch| epoch.accuracy).fold(0.0, f64::max);
    assert!((best - digits.accuracy(&tuned)).abs() < 1e-9, "{best} {}", digits.accuracy(&tuned));
    let error = Recipe::from_json(r#"{"target": {"size_bytes": 1900}, "finetune": {"epochs": 1}}"#).unwrap_err();
    assert!(error.to_string().contains("finetune.epochs must be 0"), "{error}");
}

#[test]
fn training_that_only_makes_it_worse_is_not_kept() {
    let digits = Digits::open();
    let data = digits.data(None, None);
    let (_, calibrated) = digits.compress(r#"{"target": {"size_bytes": 2500}}"#, &data).unwrap();
    let recipe = r#"{"target": {"size_bytes": 2500},
        "finetune": {"epochs": 0, "sharing_epochs": 3, "batch": 32, "sharing_learning_rate": 0.5}}"#;
    let (report, tuned) = digits.compress(recipe, &data).unwrap();
    let (before, after) = (digits.accuracy(&calibrated), digits.accuracy(&tuned));
    assert!(report.training.iter().all(|epoch| epoch.accuracy.unwrap() < before - 0.05), "{:?}", report.training);
    // The size that is calibrated to leaves training some room.
    assert!(after >= before - 0.02, "{after} against {before}");
}

#[test]
fn what_frozen_layers_give_is_mixed() {
    let digits = Digits::open();
    let data = digits.data(None, None);
    let frozen = |mixup: &str| {
        let settings = format!(r#""batch": 32, "freeze": ["w0"], "loss": "distillation", "mixup": {mixup}"#);
        digits.compress(&SHARED.replace(r#""batch": 32"#, &settings), &data).unwrap().1
    };
    let mixed = frozen("true");
    assert!(mixed != frozen("false"));
    assert!(digits.accuracy(&mixed) > 0.6, "{}", digits.accuracy(&mixed));
}

#[test]
fn a_freeze_that_means_no_tensor_is_named() {
    let digits = Digits::open();
    let recipe = r#"{"finetune": {"epochs": 1, "freeze": ["conv*", "w0"]}}"#;
    let error = digits.compress(recipe, &digits.data(None, None)).unwrap_err();
    assert!(error.to_string().contains("finetune.freeze: conv*"), "{error}");
}

#[test]
fn layers_that_share_nothing_are_written_as_trained() {
    let digits = Digits::open();
    let data = digits.data(None, None);
    let recipe = r#"{"prune": {"sparsity": 0.5}, "quantize": {"levels": 3}, "layers": [{"match": "w1", "quantize": null}],
        "encode": {"remove": false, "merge": false, "reorder": false},
        "finetune": {"epochs": 1, "sharing_epochs": 6, "batch": 32, "learning_rate": 0.01}}"#;
    let (report, file) = digits.compress(recipe, &data).unwrap();
    let shared = report.training.iter().filter(|epoch| epoch.stage == TrainingStage::Shared);
    let best = shared.filter_map(|epoch| epoch.accuracy).fold(0.0, f64::max);
    assert!((best - digits.accuracy(&file)).abs() < 1e-9, "{best} {}", digits.accuracy(&file));
}

#[test]
fn calibration_goes_before_and_after_training() {
    let digits = Digits::open();
    let data = digits.data(None, None);
    let recipe = r#"{"prune": {"criterion": "obs", "sparsity": 0.8, "scope": "global"},
        "quantize": {"method": "uq", "levels": 15, "rounding": "feedback"}, "encode": {"remove": false, "merge": false},
        "finetune": {"epochs": 3, "sharing_epochs": 2, "batch": 32}}"#;
    let (report, file) = digits.compress(recipe, &data).unwrap();
    assert!(report.calibration.unwrap().layers.iter().all(|layer| !layer.curve.is_empty()));
    assert!((report.sparsity - 0.8).abs() < 0.02, "{}", report.sparsity);
    assert!(digits.accuracy(&file) > 0.9);
    let shared =
        r#"{"quantize": {"rounding": "feedback"}, "finetune": {"epochs": 1, "sharing_epochs": 0, "batch": 32}}"#;
    assert!(digits.compress(shared, &data).unwrap().0.calibration.is_some());
}

#[test]
fn frozen_and_skipped_tensors_stay_as_they_were() {
    let digits = Digits::open();
    let data = digits.data(None, None);
    let recipe = r#"{"prune": {"sparsity": 0.5}, "layers": [{"match": "w0", "skip": true}],
        "encode": {"reorder": false, "remove": false, "merge": false},
        "finetune": {"epochs": 1, "sharing_epochs": 0, "freeze": ["w1"]}}"#;
    let (report, file) = digits.compress(recipe, &data).unwrap();
    assert_eq!(report.layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["w1", "w2"]);
    let artifact = Artifact::from_bytes(file.into()).unwrap();
    let stored = artifact.tensors().iter().find(|tensor| tensor.name == "w1").unwrap();
    let frozen = artifact.matrix(stored).unwrap().unwrap().decode();
    let upload = digits.model.weights().iter().find(|weight| weight.name == "w1").unwrap();
    let (dims, layout) = (&upload.dims, upload.layout);
    let crate::tensor::FloatData::F32(values) = digits.model.read(upload).unwrap() else { panic!("float32") };
    let values = layout.to_matrix(dims, values);
    let is_pruned_only = (0..values.len()).all(|i| [0.0, f64::from(values[i])].contains(&frozen.value(i)));
    assert!(is_pruned_only, "a frozen layer is pruned, and not trained");
    assert!((report.layers[0].sparsity - 0.5).abs() < 0.01);
    let none = r#"{"prune": {"sparsity": 0.5}, "finetune": {"epochs": 1, "sharing_epochs": 0, "freeze": ["*"]}}"#;
    let error = digits.compress(none, &data).unwrap_err();
    assert!(error.to_string().contains("no tensor is trained"), "{error}");
}

#[test]
fn rows_and_patterns_are_kept_while_training() {
    let digits = Digits::open();
    for (prune, kept) in [(r#""sparsity": 0.75, "scope": "row""#, 16), (r#""pattern": "2:4""#, 32)] {
        let recipe = format!(
            r#"{{"prune": {{{prune}}}, "encode": {{"reorder": false, "remove": false, "merge": false}},
                "finetune": {{"epochs": 2, "sharing_epochs": 0, "batch": 32}}}}"#
        );
        let (_, file) = digits.compress(&recipe, &digits.data(None, None)).unwrap();
        let artifact = Artifact::from_bytes(file.into()).unwrap();
        let stored = artifact.tensors().iter().find(|tensor| tensor.name == "w1").unwrap();
        let matrix = artifact.matrix(stored).unwrap().unwrap().decode();
        for row in 0..matrix.rows() {
            let cells = row * matrix.cols()..(row + 1) * matrix.cols();
            assert_eq!(cells.filter(|cell| matrix.value(*cell) != 0.0).count(), kept, "row {row} of {prune}");
        }
    }
}

/// Cancels after some reports of training.
struct Impatient {
    reports: AtomicU32,
    patience: u32,
}

impl Progress for Impatient {
    fn report(&self, _fraction: f64, stage: &str, _message: &str) {
        self.reports.fetch_add(u32::from(stage == "finetune"), Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.reports.load(Ordering::Relaxed) > self.patience
    }
}

#[test]
fn a_training_that_was_cut_off_goes_on_to_the_same_bytes() {
    let digits = Digits::open();
    let (folder, undisturbed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, expected) = digits.compress(SHARED, &digits.data(Some(undisturbed.path()), None)).unwrap();
    // Cut off in either stage: some ten reports an epoch.
    let mut cuts = 0;
    let file = loop {
        let progress = Impatient { reports: AtomicU32::new(0), patience: 25 };
        match digits.compress_telling(SHARED, &digits.data(Some(folder.path()), None), &progress) {
            Ok((_, file)) => break file,
            Err(CompressError::Cancelled) => cuts += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(cuts < 100, "every run brings it an epoch further");
    };
    assert!(cuts >= 3, "{cuts}");
    assert!(file == expected, "the same bytes after {cuts} cuts");
}

#[test]
fn a_later_compression_starts_from_the_weights_of_an_earlier_one() {
    let digits = Digits::open();
    let folder = tempfile::tempdir().unwrap();
    digits.compress(TUNED, &digits.data(Some(folder.path()), None)).unwrap();
    let more = r#"{"prune": {"sparsity": 0.9, "scope": "global"}, "encode": {"remove": false},
        "finetune": {"epochs": 2, "sharing_epochs": 0, "batch": 32}}"#;
    let (report, _) = digits.compress(more, &digits.data(None, Some(&tuned_file(folder.path())))).unwrap();
    assert!(report.training[0].sparsity >= 0.85, "it begins where the other ended: {}", report.training[0].sparsity);
    assert!((report.sparsity - 0.9).abs() < 1e-3);
}

#[test]
fn losses_that_do_not_fit_the_targets_are_refused() {
    let digits = Digits::open();
    let recipe = r#"{"finetune": {"epochs": 1, "sharing_epochs": 0, "loss": "mse"}}"#;
    let error = digits.compress(recipe, &digits.data(None, None)).unwrap_err();
    assert_eq!(error.to_string(), "the loss mse does not fit targets of kind class");
}
