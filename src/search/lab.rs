//! Makes trials, and measures them: what a search does with the model and the data.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::spec::Bound;
use super::trial::{Outcome, Point, Trial};
use super::walk::Facts;
use super::{Search, SearchData, SearchEnd, SearchError, SearchReport, SplitData, report};
use crate::artifact::Artifact;
use crate::compress::{self, CompressError, Report, TrainingData, TrainingStore};
use crate::evaluate::{Against, EvaluateError, Evaluation, Measured, Metric, Samples};
use crate::infer::{Predictor, Residency};
use crate::model::Model;
use crate::progress::{Part, Progress, Silent};

/// How much of a trial's progress is its compression; the rest is its measurement.
const COMPRESSION_SHARE: f64 = 0.9;

/// What makes trials, and what they are measured with. Trials of one lab share what they have in common: what layers lose at each
/// setting, and outputs of frozen layers and of the upload.
pub struct Lab<'a> {
    model: &'a Model,
    data: SearchData<'a>,
    original: Predictor,
    plan: Plan,
    store: TrainingStore,
}

/// Where a trial reads and writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrialFiles {
    /// Its artifact.
    pub artifact: PathBuf,
    /// The folder of its checkpoints and its fine-tuned weights.
    pub training: PathBuf,
    /// The fine-tuned weights of the trial that it starts from.
    pub start: Option<PathBuf>,
}

impl<'a> Lab<'a> {
    /// Checks the data, and measures version 0.
    ///
    /// # Errors
    /// A [`SearchError`].
    pub fn open(
        model: &'a Model,
        search: &Search,
        data: SearchData<'a>,
        progress: &dyn Progress,
    ) -> Result<Self, SearchError> {
        search.check()?;
        let original = Predictor::from_model(model)?;
        let data = data.present((original.inputs(), original.outputs()))?;
        let plan = plan(model, search, data, &original, progress)?;
        Ok(Self { model, data, original, plan, store: TrainingStore::default() })
    }

    /// For a plan that was made of the same model and data.
    ///
    /// # Errors
    /// A [`SearchError`].
    pub fn of(plan: Plan, model: &'a Model, data: SearchData<'a>) -> Result<Self, SearchError> {
        let original = Predictor::from_model(model)?;
        let data = data.present((original.inputs(), original.outputs()))?;
        Ok(Self { model, data, original, plan, store: TrainingStore::default() })
    }

    /// What it goes by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The splits that have samples.
    pub(super) fn data(&self) -> SearchData<'a> {
        self.data
    }

    /// Makes `trial`, whose outcome and seconds are filled in. What is the recipe's fault is the trial's outcome, not an error.
    /// Returns the report of its compression, where it was measured.
    ///
    /// # Errors
    /// [`SearchError::Cancelled`]; faults of the machine and of the data.
    pub fn make(
        &self,
        trial: &mut Trial,
        files: &TrialFiles,
        progress: &dyn Progress,
    ) -> Result<Option<Report>, SearchError> {
        progress.check()?;
        let started = Instant::now();
        let report;
        (trial.outcome, report) = match self.measure_trial(trial, files, progress) {
            Ok((point, report)) => (Outcome::Measured(point), Some(report)),
            Err(SearchError::Compress(CompressError::Cancelled)) => {
                return Err(SearchError::Cancelled(crate::progress::Cancelled));
            }
            Err(SearchError::Evaluate(EvaluateError::Cancelled(cancelled))) => return Err(cancelled.into()),
            Err(SearchError::Compress(error)) if !error.is_of_the_machine() => {
                (Outcome::Failed { reason: error.to_string() }, None)
            }
            Err(error @ SearchError::NotFinite { .. }) => (Outcome::Failed { reason: error.to_string() }, None),
            Err(error) => return Err(error),
        };
        trial.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    fn measure_trial(
        &self,
        trial: &Trial,
        files: &TrialFiles,
        progress: &dyn Progress,
    ) -> Result<(Point, Report), SearchError> {
        let ports = (self.original.inputs(), self.original.outputs());
        let open = |data: SplitData<'a>| Samples::open(data.dataset, data.map, ports);
        let training = match self.data.train {
            Some(train) => Some(TrainingData {
                train: open(train)?,
                validation: Some(open(self.data.validation)?),
                folder: Some(files.training.clone()),
                start: files.start.clone(),
                store: self.store.clone(),
            }),
            None => None,
        };
        let part = Part { whole: progress, from: 0.0, to: COMPRESSION_SHARE };
        let report = compress::compress_with(self.model, &trial.recipe, training.as_ref(), &files.artifact, &part)?;
        let predictor = open_packed(&files.artifact)?;
        let bound = self.plan.bound;
        let metric = bound.metric();
        let reference = (metric.against() == Against::Reference).then_some(&self.original);
        let part = Part { whole: progress, from: COMPRESSION_SHARE, to: 1.0 };
        let measured = measure(&predictor, reference, self.data.validation, &[metric], &part)?;
        // Equal outputs have no noise at all.
        let value = measured.value(metric).unwrap_or(f64::MAX);
        if !value.is_finite() {
            return Err(SearchError::NotFinite { metric });
        }
        let point = Point {
            size_bytes: report.artifact_bytes,
            ratio: report.ratio,
            psi: report.psi,
            sparsity: report.sparsity,
            value,
            is_within_bound: bound.is_kept(report.artifact_bytes, value),
        };
        Ok((point, report))
    }

    /// The report on `trials`, of which `chosen` has this artifact. It is measured on the test split, also where the search was
    /// cancelled.
    ///
    /// # Errors
    /// A [`SearchError`].
    pub fn conclude(
        &self,
        trials: &[Trial],
        chosen: &Trial,
        artifact: &Path,
        ended: SearchEnd,
    ) -> Result<SearchReport, SearchError> {
        let test = match self.data.test {
            Some(test) => Some(measure(&open_packed(artifact)?, Some(&self.original), test, &[], &Silent)?),
            None => None,
        };
        let (worst, max_size_bytes) = match self.plan.bound {
            Bound::Quality { worst, .. } => (Some(worst), None),
            Bound::Size { bytes, .. } => (None, Some(bytes)),
        };
        Ok(SearchReport {
            metric: self.plan.metric(),
            original: self.plan.value,
            worst,
            max_size_bytes,
            validation_samples: self.plan.samples,
            front: report::front(self.plan.metric(), trials),
            chosen: chosen.number,
            is_within_bound: chosen.is_within_bound(),
            test,
            ended,
            trials: trials.to_vec(),
        })
    }
}

/// Measures version 0, and says what a search for less is bound to.
fn plan(
    model: &Model,
    search: &Search,
    data: SearchData,
    original: &Predictor,
    progress: &dyn Progress,
) -> Result<Plan, SearchError> {
    let ports = (original.inputs(), original.outputs());
    let validation = Samples::open(data.validation.dataset, data.validation.map, ports)?;
    let metric = search.metric_on(validation.target())?;
    let value = match metric.against() {
        Against::Reference => None,
        _ => {
            let quiet = Part { whole: progress, from: 0.0, to: 0.0 };
            let measured = measure(original, None, data.validation, &[metric], &quiet)?;
            let value = measured.value(metric).filter(|value| value.is_finite());
            Some(value.ok_or(SearchError::Undefined { metric })?)
        }
    };
    let finetunes = data.train.is_some() && compress::can_finetune(model);
    let (mut layer_bytes, mut other_bytes) = (0, model.size_bytes());
    for weight in model.weights().iter().filter(|weight| !search.recipe.resolve(&weight.name, &weight.op).skip) {
        let elements = weight.dims.iter().product::<usize>() as u64;
        layer_bytes += elements * size_of::<f32>() as u64;
        other_bytes = other_bytes.saturating_sub(elements * weight.dtype.size_bytes() as u64);
    }
    let calibrates = data.train.is_some() && compress::can_calibrate(model, &search.recipe);
    let facts = Facts { calibrates, finetunes, layer_bytes, other_bytes };
    let (bound, samples) = (search.bound(metric, value.unwrap_or_default()), validation.len() as u64);
    Ok(Plan { search: search.clone(), bound, value, samples, facts })
}

fn open_packed(artifact: &Path) -> Result<Predictor, SearchError> {
    let artifact = Artifact::open(artifact).map_err(CompressError::from)?;
    Ok(Predictor::from_artifact(&artifact, Residency::Packed)?)
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
