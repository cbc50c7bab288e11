//! An evaluation: a version run over a dataset, with its outputs measured, and version 0 beside it where that is asked
//! for, so that one pass gives the quality before and after.

use std::collections::HashSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::feed::{Batch, Feed};
use super::metrics::{ClassScore, ReferenceScore, ValueScore};
use super::paired::{Drop, Paired, class_losses, value_losses};
use super::{Against, DataMap, Dataset, EvaluateError, Metric, TargetKind};
use crate::infer::{Array, Predictor};
use crate::model::Port;
use crate::progress::Progress;

/// What to evaluate, and on what.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    /// The version under test.
    pub predictor: &'a Predictor,
    /// Version 0, to compare with; it gets its own metrics.
    pub reference: Option<&'a Predictor>,
    /// The samples.
    pub dataset: &'a Dataset,
    /// How they map to the graph.
    pub map: &'a DataMap,
    /// What to measure; empty for every metric that applies to the targets, and to the reference.
    pub metrics: &'a [Metric],
}

/// What an evaluation measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Measured {
    /// Samples gone through.
    pub samples: u64,
    /// Of the version under test.
    pub metrics: Vec<MetricValue>,
    /// Of version 0 on the same samples: the metrics that compare with targets. Empty without a reference.
    pub reference: Vec<MetricValue>,
    /// By how much the version is worse than version 0, for the metrics that are means over samples; empty without a reference.
    #[serde(default)]
    pub drops: Vec<Drop>,
}

/// A metric and its value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct MetricValue {
    /// What was measured.
    pub metric: Metric,
    /// `null` where it is undefined: the signal to noise ratio of equal outputs, R2 of constant targets.
    pub value: Option<f64>,
}

impl Measured {
    /// The value of `metric` of the version under test, where it was measured and is defined.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.metrics.iter().find(|m| m.metric == metric)?.value
    }
}

/// Checks, without running anything, that a graph with these ports can be evaluated on `dataset`: names, lengths, shapes
/// and types of the arrays, and that `metrics` have what they compare with (a reference can be had). Returns the number
/// of samples.
///
/// # Errors
/// An [`EvaluateError`] that names the first fault.
pub fn check(
    dataset: &Dataset,
    map: &DataMap,
    ports: (&[Port], &[Port]),
    metrics: &[Metric],
) -> Result<usize, EvaluateError> {
    let (inputs, outputs) = ports;
    let map = map.complete(dataset, inputs, outputs.first())?;
    let feed = Feed::new(dataset, &map, inputs)?;
    choose(metrics, &map, true)?;
    Ok(feed.samples)
}

impl Evaluation<'_> {
    /// Runs every batch and measures. Batches run in parallel on the current rayon pool and are measured in their order,
    /// so the result does not depend on the threads.
    ///
    /// # Errors
    /// An [`EvaluateError`]; [`EvaluateError::Cancelled`] once `progress` says so.
    pub fn run(&self, progress: &dyn Progress) -> Result<Measured, EvaluateError> {
        let output = self.predictor.outputs().first().ok_or(EvaluateError::NoOutput)?;
        let map = self.map.complete(self.dataset, self.predictor.inputs(), Some(output))?;
        let metrics = choose(self.metrics, &map, self.reference.is_some())?;
        let feed = Feed::new(self.dataset, &map, self.predictor.inputs())?;
        let kind = map.target.as_ref().map(|target| target.kind);
        let mut scores = Scores::new(kind);
        // A wave of batches at a time bounds the memory.
        let wave = rayon::current_num_threads().max(1);
        for start in (0..feed.batches()).step_by(wave) {
            progress.check()?;
            let done = (start * feed.batch).min(feed.samples);
            let message = format!("{done} of {} samples", feed.samples);
            progress.report(done as f64 / feed.samples as f64, "evaluate", &message);
            let batches = (start..feed.batches().min(start + wave)).into_par_iter();
            let outputs: Vec<_> = batches.map(|index| self.predict(feed.read(index)?)).collect();
            for predicted in outputs {
                scores.add(&predicted?)?;
            }
        }
        progress.report(1.0, "evaluate", &format!("{} samples", feed.samples));
        Ok(scores.finish(feed.samples, &metrics, self.reference.is_some()))
    }

    fn predict(&self, batch: Batch) -> Result<Predicted, EvaluateError> {
        let reference = match self.reference {
            Some(reference) => Some(first_output(reference, &batch)?),
            None => None,
        };
        Ok(Predicted { outputs: first_output(self.predictor, &batch)?, reference, batch })
    }
}

/// A batch and what came out.
struct Predicted {
    batch: Batch,
    outputs: Outputs,
    reference: Option<Outputs>,
}

/// The first output of a graph.
struct Outputs {
    name: String,
    dims: Vec<usize>,
    values: Vec<f32>,
    /// Samples in the batch, those that fill it up included.
    batch: usize,
}

fn first_output(predictor: &Predictor, batch: &Batch) -> Result<Outputs, EvaluateError> {
    let count = batch.inputs.first().map_or(0, |(_, array)| array.dims[0]);
    let (name, Array { dims, data }) =
        predictor.run(batch.inputs.clone())?.into_iter().next().ok_or(EvaluateError::NoOutput)?;
    let values = (0..data.len()).map(|i| data.get_f64(i) as f32).collect();
    Ok(Outputs { name, dims, values, batch: count })
}

impl Outputs {
    /// The values of each sample.
    fn per_sample(&self) -> Result<impl Iterator<Item = &[f32]>, EvaluateError> {
        match self.values.len().checked_div(self.batch) {
            Some(width) if width > 0 && width * self.batch == self.values.len() => Ok(self.values.chunks_exact(width)),
            _ => Err(self.mismatch(0)),
        }
    }

    fn mismatch(&self, per_sample: usize) -> EvaluateError {
        let (output, shape) = (self.name.clone(), self.dims.clone());
        EvaluateError::OutputShape { output, shape, per_sample, batch: self.batch }
    }
}

/// The metrics asked for, each once, or those that apply; each must have what it compares with.
fn choose(metrics: &[Metric], map: &DataMap, has_reference: bool) -> Result<Vec<Metric>, EvaluateError> {
    let kind = map.target.as_ref().map(|target| target.kind);
    let needs = |metric: &Metric| metric.needs(kind, has_reference);
    if metrics.is_empty() {
        return Ok(Metric::ALL.into_iter().filter(|metric| needs(metric).is_none()).collect());
    }
    match metrics.iter().find_map(|&metric| Some((metric, needs(&metric)?))) {
        Some((metric, needs)) => Err(EvaluateError::MetricNeeds { metric, needs }),
        None => Ok(each_once(metrics)),
    }
}

fn each_once(metrics: &[Metric]) -> Vec<Metric> {
    let mut seen = HashSet::new();
    metrics.iter().copied().filter(|metric| seen.insert(*metric)).collect()
}

/// Outputs compared with targets, of either kind or none.
enum Score {
    Class(ClassScore),
    Value(ValueScore),
    None,
}

impl Score {
    fn new(kind: Option<TargetKind>) -> Self {
        match kind {
            Some(TargetKind::Class) => Self::Class(ClassScore::default()),
            Some(TargetKind::Value) => Self::Value(ValueScore::default()),
            None => Self::None,
        }
    }

    fn add(&mut self, outputs: &Outputs, batch: &Batch) -> Result<(), EvaluateError> {
        let Some(target) = &batch.target else { return Ok(()) };
        let targets = target.len() / batch.samples.len();
        for (i, (own, &sample)) in outputs.per_sample()?.zip(&batch.samples).enumerate() {
            let of_sample = (i * targets..(i + 1) * targets).map(|i| target.data.get_f64(i));
            match self {
                // A sample may have a class for each of its positions: the last dimension is then the classes'.
                Self::Class(score) => {
                    let classes = own.len().checked_div(targets).unwrap_or(0);
                    let shape_fits = targets == 1 || outputs.dims.last() == Some(&classes);
                    if classes == 0 || classes * targets != own.len() || !shape_fits {
                        return Err(outputs.mismatch(targets));
                    }
                    for (own, label) in own.chunks_exact(classes).zip(of_sample) {
                        score.add(own, class(sample, label, classes)?);
                    }
                }
                Self::Value(score) => {
                    if targets != own.len() {
                        return Err(outputs.mismatch(targets));
                    }
                    own.iter().zip(of_sample).for_each(|(&own, target)| score.add(own, target as f32));
                }
                Self::None => {}
            }
        }
        Ok(())
    }

    fn value(&self, metric: Metric) -> Option<f64> {
        match self {
            Self::Class(score) => score.value(metric),
            Self::Value(score) => score.value(metric),
            Self::None => None,
        }
    }
}

/// `label` as one of `classes`.
pub(super) fn class(sample: usize, label: f64, classes: usize) -> Result<usize, EvaluateError> {
    if label.fract() != 0.0 {
        return Err(EvaluateError::FractionalLabel { sample, label });
    }
    if !(0.0..classes as f64).contains(&label) {
        return Err(EvaluateError::LabelOutOfRange { sample, label, classes });
    }
    Ok(label as usize)
}

/// All that is counted on the way.
struct Scores {
    kind: Option<TargetKind>,
    version: Score,
    original: Score,
    between: ReferenceScore,
    paired: Paired,
}

impl Scores {
    fn new(kind: Option<TargetKind>) -> Self {
        let (version, original) = (Score::new(kind), Score::new(kind));
        Self { kind, version, original, between: ReferenceScore::default(), paired: Paired::default() }
    }

    fn add(&mut self, predicted: &Predicted) -> Result<(), EvaluateError> {
        let Predicted { batch, outputs, reference } = predicted;
        self.version.add(outputs, batch)?;
        let Some(reference) = reference else { return Ok(()) };
        self.original.add(reference, batch)?;
        if outputs.values.len() != reference.values.len() {
            return Err(reference.mismatch(outputs.values.len() / batch.samples.len()));
        }
        let pairs = outputs.per_sample()?.zip(reference.per_sample()?);
        for (own, original) in pairs.take(batch.samples.len()) {
            self.between.add(own, original);
        }
        self.add_pairs(predicted, reference)
    }

    /// What each sample costs both versions. The shapes fit: both were compared with the targets.
    fn add_pairs(&mut self, predicted: &Predicted, reference: &Outputs) -> Result<(), EvaluateError> {
        let Predicted { batch, outputs, .. } = predicted;
        let (Some(kind), Some(target)) = (self.kind, &batch.target) else { return Ok(()) };
        let losses = match kind {
            TargetKind::Class => class_losses,
            TargetKind::Value => value_losses,
        };
        let targets = target.len() / batch.samples.len();
        let pairs = outputs.per_sample()?.zip(reference.per_sample()?).take(batch.samples.len());
        for (i, (own, original)) in pairs.enumerate() {
            let of_sample: Vec<f64> = (i * targets..(i + 1) * targets).map(|i| target.data.get_f64(i)).collect();
            self.paired.add(losses(own, &of_sample), losses(original, &of_sample));
        }
        Ok(())
    }

    fn finish(&self, samples: usize, metrics: &[Metric], has_reference: bool) -> Measured {
        let value = |&metric: &Metric| match metric.against() {
            Against::Reference => MetricValue { metric, value: self.between.value(metric) },
            _ => MetricValue { metric, value: self.version.value(metric) },
        };
        let original = |&metric: &Metric| MetricValue { metric, value: self.original.value(metric) };
        let with_targets = metrics.iter().filter(|m| has_reference && m.against() != Against::Reference);
        let reference = with_targets.map(original).collect();
        let drop = |&metric: &Metric| self.paired.drop(self.kind?, metric);
        let drops = metrics.iter().filter_map(drop).collect();
        Measured { samples: samples as u64, metrics: metrics.iter().map(value).collect(), reference, drops }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{InputMap, TargetMap};
    use crate::model::Model;
    use crate::model::fixture::{floats, graph, model, node, npy, npz, port};
    use crate::progress::{CancelFlag, Silent};
    use prost::Message;

    /// Two scores per sample: x . w.
    fn predictor(w: &[f32; 4]) -> Predictor {
        let mut graph = graph(vec![node("MatMul", "x w", "y")], vec![floats("w", &[2, 2], w)]);
        graph.input = vec![port("x", &[-1, 2])];
        graph.output = vec![port("y", &[-1, 2])];
        Predictor::from_model(&Model::from_bytes(model(graph).encode_to_vec().into()).unwrap()).unwrap()
    }

    /// Four samples with two values each, their classes, and two real targets each.
    fn dataset(labels: &[u8; 4]) -> Dataset {
        let values: Vec<u8> =
            [1.0f32, 0.0, 0.0, 1.0, 3.0, 1.0, 1.0, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let members = [
            ("x", npy("<f4", false, "(4, 2)", &values)),
            ("y", npy("|u1", false, "(4,)", labels)),
            ("half", npy("<f4", false, "(4,)", &0.5f32.to_le_bytes().repeat(4))),
        ];
        Dataset::from_bytes(npz(&members, true).into()).unwrap()
    }

    fn map(target: &str, kind: TargetKind) -> DataMap {
        let target = Some(TargetMap { array: target.into(), kind });
        DataMap { inputs: [("x".into(), InputMap::new("x"))].into(), target, ..DataMap::default() }
    }

    #[test]
    fn a_version_and_version_0_are_measured_in_one_pass() {
        let (identity, swapped) = (predictor(&[1.0, 0.0, 0.0, 1.0]), predictor(&[0.0, 1.0, 1.0, 0.0]));
        let (dataset, map) = (dataset(&[0, 1, 0, 0]), map("y", TargetKind::Class));
        let evaluation =
            Evaluation { predictor: &swapped, reference: Some(&identity), dataset: &dataset, map: &map, metrics: &[] };
        let measured = evaluation.run(&Silent).unwrap();
        assert_eq!(measured.samples, 4);
        // Identity is right on the first three samples, swapped on the last one; they never agree.
        assert_eq!(measured.value(Metric::Accuracy), Some(0.25));
        assert_eq!(measured.reference[0], MetricValue { metric: Metric::Accuracy, value: Some(0.75) });
        assert_eq!(measured.value(Metric::Agreement), Some(0.0));
        // Signal 1 + 1 + 10 + 5 = 17, noise 2 + 2 + 8 + 2 = 14.
        let snr = measured.value(Metric::OutputSnrDb).unwrap();
        assert!((snr - 10.0 * (17.0f64 / 14.0).log10()).abs() < 1e-12);
    }

    #[test]
    fn a_metric_asked_for_twice_is_measured_once() {
        assert_eq!(each_once(&[Metric::Mse, Metric::Mae, Metric::Mse]), [Metric::Mse, Metric::Mae]);
    }

    #[test]
    fn real_targets_are_compared_value_by_value() {
        let identity = predictor(&[1.0, 0.0, 0.0, 1.0]);
        let (dataset, map) = (dataset(&[0; 4]), map("x", TargetKind::Value));
        let metrics = [Metric::Mse, Metric::Mae];
        let evaluation =
            Evaluation { predictor: &identity, reference: None, dataset: &dataset, map: &map, metrics: &metrics };
        let measured = evaluation.run(&Silent).unwrap();
        assert_eq!((measured.value(Metric::Mse), measured.value(Metric::Mae)), (Some(0.0), Some(0.0)));
        assert_eq!(measured.reference, []);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let identity = predictor(&[1.0, 0.0, 0.0, 1.0]);
        let fails = |labels: &[u8; 4], map: &DataMap, metrics: &[Metric]| {
            let dataset = dataset(labels);
            let evaluation = Evaluation { predictor: &identity, reference: None, dataset: &dataset, map, metrics };
            evaluation.run(&Silent).unwrap_err().to_string()
        };
        let classes = map("y", TargetKind::Class);
        assert_eq!(fails(&[0, 1, 2, 0], &classes, &[]), "sample 2: label 2 is outside the 2 classes of the output");
        assert_eq!(
            fails(&[0; 4], &map("half", TargetKind::Class), &[]),
            "sample 0: label 0.5 is not a whole number, as a class must be"
        );
        assert_eq!(fails(&[0; 4], &classes, &[Metric::Mse]), "mse needs a target of kind value");
        assert_eq!(fails(&[0; 4], &classes, &[Metric::Agreement]), "agreement needs version 0 to compare with");
        assert_eq!(
            fails(&[0; 4], &map("y", TargetKind::Value), &[]),
            r#"output "y" of shape [4, 2] does not match 1 targets for each of 4 samples"#
        );
    }

    #[test]
    fn a_cancelled_evaluation_stops() {
        let identity = predictor(&[1.0, 0.0, 0.0, 1.0]);
        let (dataset, map, flag) = (dataset(&[0; 4]), map("y", TargetKind::Class), CancelFlag::default());
        flag.cancel();
        let evaluation =
            Evaluation { predictor: &identity, reference: None, dataset: &dataset, map: &map, metrics: &[] };
        assert!(matches!(evaluation.run(&flag), Err(EvaluateError::Cancelled(_))));
    }
}
