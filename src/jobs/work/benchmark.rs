//! Times a version beside another, and measures both if asked to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::benchmark::{self, BenchmarkError, BenchmarkReport, Contender, Samples};
use crate::evaluate::Dataset;
use crate::infer::{InferError, Predictor, Residency, unsupported_operators};
use crate::jobs::{BenchmarkSpec, ExecuteError, Refusal, Work};
use crate::model::Model;
use crate::progress::{Part, Progress};
use crate::storage::NewMetric;

use super::evaluate::{Measurement, refused_or_failed as of_evaluation};

/// How much of the progress bar is the evaluation, when there is one.
const EVALUATION_SHARE: f64 = 0.2;

/// Times `version` beside `baseline`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Benchmark {
    pub(super) baseline: VersionFile,
    pub(super) version: VersionFile,
    pub(super) measurement: Option<Measurement>,
    pub(super) spec: BenchmarkSpec,
}

/// The file of a version: the upload for version 0, else an artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct VersionFile {
    pub(super) number: i64,
    pub(super) path: PathBuf,
}

/// A version in memory.
struct Loaded {
    name: String,
    residency: Residency,
    size_bytes: u64,
    predictor: Predictor,
}

impl Work for Benchmark {
    const NAME: &'static str = "benchmark";

    type Answer = (BenchmarkReport, Vec<NewMetric>);

    fn run(&self, progress: &dyn Progress) -> Result<Self::Answer, ExecuteError> {
        progress.check().map_err(|_| ExecuteError::Cancelled)?;
        let loaded = self.load().map_err(|error| refused_or_failed(error.into()))?;
        let mut metrics = Vec::new();
        let mut done = 0.0;
        if let Some(measurement) = &self.measurement {
            done = EVALUATION_SHARE;
            metrics = self.measure(measurement, &loaded, &Part { whole: progress, from: 0.0, to: done })?;
        }
        let report = self.time(&loaded, &Part { whole: progress, from: done, to: 1.0 })?;
        Ok((report, metrics))
    }
}

impl Benchmark {
    /// The baseline, then the version under each residency; once where both are the same.
    fn load(&self) -> Result<Vec<Loaded>, InferError> {
        let residencies = |version: &VersionFile| self.spec.residencies(version.number);
        let mut loaded = Vec::new();
        if self.baseline.number != self.version.number {
            loaded.push(self.baseline.load(residencies(&self.baseline)[0])?);
        }
        for residency in residencies(&self.version) {
            loaded.push(self.version.load(residency)?);
        }
        Ok(loaded)
    }

    fn measure(
        &self,
        measurement: &Measurement,
        loaded: &[Loaded],
        progress: &dyn Progress,
    ) -> Result<Vec<NewMetric>, ExecuteError> {
        let (baseline, version) = match loaded {
            [baseline, version, ..] if self.baseline.number != self.version.number => {
                (Some(&baseline.predictor), &version.predictor)
            }
            _ => (None, &loaded[0].predictor),
        };
        let measured = measurement.measure(version, baseline, progress)?;
        let mut rows = measurement.rows(self.baseline.number, &measured, &measured.reference);
        rows.extend(measurement.rows(self.version.number, &measured, &measured.metrics));
        Ok(rows)
    }

    fn time(&self, loaded: &[Loaded], progress: &dyn Progress) -> Result<BenchmarkReport, ExecuteError> {
        let dataset = self.measurement.as_ref().map(|measurement| Dataset::open(&measurement.dataset));
        let dataset = dataset.transpose().map_err(of_evaluation)?;
        let samples = match (&dataset, &self.measurement) {
            (Some(dataset), Some(Measurement { spec, .. })) => Samples::Dataset { dataset, map: &spec.data },
            _ => Samples::Random { shapes: &self.spec.shapes },
        };
        let contenders: Vec<_> = loaded.iter().map(Loaded::contender).collect();
        let settings = &self.spec.settings();
        let benchmark = benchmark::Benchmark { contenders: &contenders, samples, settings };
        benchmark.run(progress).map_err(refused_or_failed)
    }
}

impl VersionFile {
    fn load(&self, residency: Residency) -> Result<Loaded, InferError> {
        let (size_bytes, predictor) = if self.number == 0 {
            let model = Model::open(&self.path)?;
            (model.size_bytes(), Predictor::from_model(&model)?)
        } else {
            let artifact = Artifact::open(&self.path)?;
            (artifact.size_bytes(), Predictor::from_artifact(&artifact, residency)?)
        };
        Ok(Loaded { name: format!("version {}", self.number), residency, size_bytes, predictor })
    }
}

impl Loaded {
    fn contender(&self) -> Contender<'_> {
        let Self { name, residency, size_bytes, predictor } = self;
        Contender { name, residency: *residency, size_bytes: *size_bytes, predictor }
    }
}

/// Whether `model` can be timed as `spec` says, on at most `threads` threads, without running it.
pub(super) fn check_benchmark(spec: &BenchmarkSpec, model: &Model, threads: usize) -> Result<(), ExecuteError> {
    let operators = unsupported_operators(model);
    if model.skeleton().is_none() {
        return Err(refused_or_failed(InferError::NoGraph.into()));
    }
    if !operators.is_empty() {
        return Err(refused_or_failed(InferError::UnsupportedOperators { operators }.into()));
    }
    let version = spec.version.unwrap_or_default();
    let contenders = usize::from(spec.baseline != version) + spec.residencies(version).len();
    let check = || {
        let batches = benchmark::check(&spec.settings(), model.inputs(), contenders, threads)?;
        if spec.evaluation.is_none() {
            let samples = Samples::Random { shapes: &spec.shapes };
            batches.into_iter().try_for_each(|batch| samples.check(model.inputs(), batch))?;
        } else if !spec.shapes.is_empty() {
            return Err(BenchmarkError::ShapesOfDataset);
        }
        Ok(())
    };
    check().map_err(refused_or_failed)
}

/// Tells the user's faults from the machine's.
fn refused_or_failed(error: BenchmarkError) -> ExecuteError {
    match error {
        BenchmarkError::Cancelled(_) => ExecuteError::Cancelled,
        BenchmarkError::Threads { .. } => ExecuteError::failed(error),
        BenchmarkError::Samples(error) => of_evaluation(error),
        BenchmarkError::Infer(error) => of_evaluation(error.into()),
        error => Refusal::InvalidSettings.because(error),
    }
}
