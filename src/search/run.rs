//! A search at work: proposes, compresses, measures, writes down; then chooses, and measures once more.

use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::log::Log;
use super::spec::Bound;
use super::trial::{Outcome, Point, Proposal, Trial};
use super::walk::Facts;
use super::{Search, SearchBudget, SearchEnd, SearchError, SearchReport, grid, report, walk};
use crate::artifact::Artifact;
use crate::compress::{self, CompressError, Report, TrainingData, TrainingStore};
use crate::evaluate::{Against, DataMap, Dataset, EvaluateError, Evaluation, Measured, Metric, Samples, TargetKind};
use crate::infer::{Predictor, Residency};
use crate::model::{Model, Port};
use crate::progress::{Labelled, Part, Progress};

/// How much of a trial's progress is its compression; the rest is its measurement.
const COMPRESSION_SHARE: f64 = 0.9;

/// The samples of one split.
#[derive(Clone, Copy)]
pub struct SplitData<'a> {
    /// Where they are.
    pub dataset: &'a Dataset,
    /// How they are found, and how they map to the graph.
    pub map: &'a DataMap,
}

/// What a search learns from, selects by and reports on.
#[derive(Clone, Copy)]
pub struct SearchData<'a> {
    /// To calibrate and to fine-tune on; without it nothing is trained.
    pub train: Option<SplitData<'a>>,
    /// To select by.
    pub validation: SplitData<'a>,
    /// To report on.
    pub test: Option<SplitData<'a>>,
}

impl SearchData<'_> {
    /// The splits that have samples: without any to train on nothing is trained, without any to report on nothing is reported.
    /// Everything else about the data is checked.
    fn present(self, ports: (&[Port], &[Port])) -> Result<Self, SearchError> {
        let present = |split: SplitData| match Samples::open(split.dataset, split.map, ports) {
            Ok(_) => Ok(true),
            Err(EvaluateError::EmptySplit { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        let train = self.train.map(present).transpose()?.unwrap_or_default();
        let test = self.test.map(present).transpose()?.unwrap_or_default();
        Ok(Self { train: self.train.filter(|_| train), test: self.test.filter(|_| test), ..self })
    }
}

/// What a search leaves.
#[derive(Debug)]
pub struct Found {
    /// Every trial, and the one that was chosen.
    pub search: SearchReport,
    /// The chosen trial's own report.
    pub report: Report,
    /// The chosen trial's artifact, in the folder of the search.
    pub artifact: PathBuf,
}

/// Searches on the current rayon pool. Finished trials are kept in `folder`, from which a search of the same model, data
/// and settings goes on. Once `progress` asks to stop, the best so far is chosen; only a search that has not measured
/// any trial yet is then [`SearchError::Cancelled`]. `finished` is shown each trial that is made.
///
/// # Errors
/// A [`SearchError`].
pub fn run(
    model: &Model,
    search: &Search,
    data: SearchData,
    folder: &Path,
    progress: &dyn Progress,
    finished: &mut dyn FnMut(&Trial),
) -> Result<Found, SearchError> {
    search.check()?;
    let original = Predictor::from_model(model)?;
    let data = data.present((original.inputs(), original.outputs()))?;
    let lab = Lab::new(model, search, data, &original, progress)?;
    let (mut log, mut trials) = Log::open(folder, &fingerprint(model, search, data)?)?;
    let ended = loop {
        let spent: f64 = trials.iter().map(|trial| trial.seconds).sum();
        if search.budget.seconds.is_some_and(|seconds| spent >= seconds) {
            break SearchEnd::Seconds;
        }
        if trials.len() >= search.budget.trials {
            break SearchEnd::Trials;
        }
        let Some(proposal) = lab.next(&trials)? else { break SearchEnd::Complete };
        match lab.make(proposal, &trials, &log, progress) {
            Ok(trial) => {
                log.add(&trial)?;
                finished(&trial);
                trials.push(trial);
            }
            Err(SearchError::Cancelled(_)) => break SearchEnd::Cancelled,
            Err(error) => return Err(error),
        }
    };
    lab.conclude(trials, ended, &log, progress)
}

/// What makes trials, and what they are measured with.
struct Lab<'a> {
    model: &'a Model,
    search: &'a Search,
    data: SearchData<'a>,
    original: &'a Predictor,
    bound: Bound,
    /// Version 0's value of the metric on the validation split.
    value: Option<f64>,
    samples: u64,
    facts: Facts,
    store: TrainingStore,
}

impl<'a> Lab<'a> {
    /// Measures version 0.
    fn new(
        model: &'a Model,
        search: &'a Search,
        data: SearchData<'a>,
        original: &'a Predictor,
        progress: &dyn Progress,
    ) -> Result<Self, SearchError> {
        let ports = (original.inputs(), original.outputs());
        let validation = Samples::open(data.validation.dataset, data.validation.map, ports)?;
        let metric = search.metric.unwrap_or(match validation.target() {
            Some(TargetKind::Class) => Metric::Accuracy,
            Some(TargetKind::Value) => Metric::Mse,
            None => Metric::OutputSnrDb,
        });
        // A metric that was not named is checked now that it is known.
        Search { metric: Some(metric), ..search.clone() }.check()?;
        let value = match metric.against() {
            Against::Reference => None,
            _ => {
                let quiet = Part { whole: progress, from: 0.0, to: 0.0 };
                let measured = measure(original, None, data.validation, &[metric], &quiet)?;
                Some(measured.value(metric).ok_or(SearchError::Undefined { metric })?)
            }
        };
        let finetunes = data.train.is_some() && compress::can_finetune(model);
        let (mut layer_bytes, mut skipped_bytes) = (0, 0);
        for weight in model.weights() {
            let (elements, settings) =
                (weight.dims.iter().product::<usize>() as u64, search.recipe.resolve(&weight.name, &weight.op));
            match settings.skip {
                true => skipped_bytes += elements * weight.dtype.size_bytes() as u64,
                false => layer_bytes += elements * size_of::<f32>() as u64,
            }
        }
        let facts = Facts { calibrates: data.train.is_some(), finetunes, layer_bytes, skipped_bytes };
        let (bound, samples) = (search.bound(metric, value.unwrap_or_default()), validation.len() as u64);
        let store = TrainingStore::default();
        Ok(Self { model, search, data, original, bound, value, samples, facts, store })
    }

    fn next(&self, trials: &[Trial]) -> Result<Option<Proposal>, SearchError> {
        match &self.search.space {
            Some(space) => grid::next(space, &self.search.recipe, (self.bound, self.value.unwrap_or_default()), trials),
            None => walk::next(&self.search.recipe, self.bound, self.facts, trials),
        }
    }

    /// Makes one trial. What is the recipe's fault is the trial's outcome, not the search's.
    fn make(
        &self,
        proposal: Proposal,
        trials: &[Trial],
        log: &Log,
        progress: &dyn Progress,
    ) -> Result<Trial, SearchError> {
        progress.check()?;
        let Proposal { stage, from, recipe } = proposal;
        let (started, number) = (Instant::now(), trials.len() + 1);
        let budget = self.search.budget.trials as f64;
        let whole = Part { whole: progress, from: trials.len() as f64 / budget, to: number as f64 / budget };
        let told = Labelled { progress: &whole, label: self.describe(number, trials) };
        let mut trial =
            Trial { number, stage, from, recipe, outcome: Outcome::Failed { reason: String::new() }, seconds: 0.0 };
        trial.outcome = match self.measure_trial(&trial, log, &told) {
            Ok(point) => Outcome::Measured(point),
            Err(SearchError::Compress(CompressError::Cancelled)) => {
                return Err(SearchError::Cancelled(crate::progress::Cancelled));
            }
            Err(SearchError::Evaluate(EvaluateError::Cancelled(cancelled))) => return Err(cancelled.into()),
            Err(SearchError::Compress(error)) if !error.is_of_the_machine() => {
                Outcome::Failed { reason: error.to_string() }
            }
            Err(error) => return Err(error),
        };
        trial.seconds = started.elapsed().as_secs_f64();
        Ok(trial)
    }

    fn measure_trial(&self, trial: &Trial, log: &Log, progress: &dyn Progress) -> Result<Point, SearchError> {
        let ports = (self.original.inputs(), self.original.outputs());
        let open = |data: SplitData<'a>| Samples::open(data.dataset, data.map, ports);
        let training = match self.data.train {
            Some(train) => Some(TrainingData {
                train: open(train)?,
                validation: Some(open(self.data.validation)?),
                folder: Some(log.training(trial.number)),
                start: trial.from.map(|number| log.training(number)),
                store: self.store.clone(),
            }),
            None => None,
        };
        let out = log.artifact(trial.number);
        let part = Part { whole: progress, from: 0.0, to: COMPRESSION_SHARE };
        let report = compress::compress_with(self.model, &trial.recipe, training.as_ref(), &out, &part)?;
        let predictor =
            Predictor::from_artifact(&Artifact::open(&out).map_err(CompressError::from)?, Residency::Packed)?;
        let metric = self.bound.metric();
        let reference = (metric.against() == Against::Reference).then_some(self.original);
        let part = Part { whole: progress, from: COMPRESSION_SHARE, to: 1.0 };
        let measured = measure(&predictor, reference, self.data.validation, &[metric], &part)?;
        // Equal outputs have no noise at all.
        let value = measured.value(metric).unwrap_or(f64::MAX);
        std::fs::write(log.report(trial.number), serde_json::to_vec(&report).map_err(std::io::Error::from)?)?;
        Ok(Point {
            size_bytes: report.artifact_bytes,
            ratio: report.ratio,
            psi: report.psi,
            sparsity: report.sparsity,
            value,
            is_within_bound: self.bound.is_kept(report.artifact_bytes, value),
        })
    }

    /// What people read while a trial is made: which one it is, and the best so far.
    fn describe(&self, number: usize, trials: &[Trial]) -> String {
        let best = report::choose(self.bound, trials).filter(|trial| trial.is_within_bound());
        let best = best.and_then(Trial::point).map(|point| format!(", best so far {:.1} times", point.ratio));
        format!("trial {number}{}", best.unwrap_or_default())
    }

    /// Chooses, and measures the chosen one on the test split.
    fn conclude(
        &self,
        trials: Vec<Trial>,
        ended: SearchEnd,
        log: &Log,
        progress: &dyn Progress,
    ) -> Result<Found, SearchError> {
        let Some(chosen) = report::choose(self.bound, &trials) else {
            progress.check()?;
            let reason = trials.into_iter().find_map(|trial| match trial.outcome {
                Outcome::Failed { reason } => Some(reason),
                Outcome::Measured(_) => None,
            });
            return Err(SearchError::NoTrial { reason: reason.unwrap_or_default() });
        };
        let artifact = log.artifact(chosen.number);
        // What was found is measured even where the search was cancelled.
        let quiet = crate::progress::Silent;
        let test = match self.data.test {
            Some(test) => {
                let opened = Artifact::open(&artifact).map_err(CompressError::from)?;
                let predictor = Predictor::from_artifact(&opened, Residency::Packed)?;
                Some(measure(&predictor, Some(self.original), test, &[], &quiet)?)
            }
            None => None,
        };
        let report =
            serde_json::from_slice(&std::fs::read(log.report(chosen.number))?).map_err(std::io::Error::from)?;
        let (worst, max_size_bytes) = match self.bound {
            Bound::Quality { worst, .. } => (Some(worst), None),
            Bound::Size { bytes, .. } => (None, Some(bytes)),
        };
        let search = SearchReport {
            metric: self.bound.metric(),
            original: self.value,
            worst,
            max_size_bytes,
            validation_samples: self.samples,
            front: report::front(self.bound.metric(), &trials),
            chosen: chosen.number,
            is_within_bound: chosen.is_within_bound(),
            test,
            ended,
            trials,
        };
        Ok(Found { search, report, artifact })
    }
}

fn measure(
    predictor: &Predictor,
    reference: Option<&Predictor>,
    data: SplitData,
    metrics: &[Metric],
    progress: &dyn Progress,
) -> Result<Measured, SearchError> {
    let SplitData { dataset, map } = data;
    Ok(Evaluation { predictor, reference, dataset, map, metrics }.run(progress)?)
}

/// What tells this search from others: the model's bytes, what is searched for, the data and how they are mapped. When it stops
/// does not.
fn fingerprint(model: &Model, search: &Search, data: SearchData) -> Result<String, SearchError> {
    let search = Search { budget: SearchBudget::default(), ..search.clone() };
    let splits = [data.train, Some(data.validation), data.test].into_iter().flatten();
    let splits = splits.map(|split| Ok((split.dataset.sha256()?, split.map)));
    let splits = splits.collect::<Result<Vec<_>, EvaluateError>>()?;
    let text = serde_json::to_string(&(model.sha256()?, search, splits)).map_err(std::io::Error::from)?;
    Ok(hex::encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::fixture;

    #[test]
    fn other_data_are_another_search_and_more_time_is_not() {
        let model = Bytes::from_static(include_bytes!("../../tests/fixtures/digits_mlp.onnx"));
        let model = Model::from_bytes(model).unwrap();
        let dataset = |value: u8| {
            let array = fixture::npy("|u1", false, "(2,)", &[value, 1]);
            Dataset::from_bytes(fixture::npz(&[("x", array)], false).into()).unwrap()
        };
        let map = DataMap::default();
        let print = |search: &Search, dataset: &Dataset| {
            let validation = SplitData { dataset, map: &map };
            fingerprint(&model, search, SearchData { train: None, validation, test: None }).unwrap()
        };
        let search = Search { max_drop: Some(0.1), ..Search::default() };
        let longer = Search { budget: SearchBudget { trials: 99, seconds: Some(1.0) }, ..search.clone() };
        let (one, other) = (dataset(1), dataset(2));
        assert_eq!(print(&search, &one), print(&longer, &one));
        assert_ne!(print(&search, &one), print(&search, &other));
    }
}
