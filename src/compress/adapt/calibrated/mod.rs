//! A network pruned and shared layer by layer, each layer seeing what the layers before it have become. Where several share a
//! codebook that their inputs have a say in, all of them are pruned before it is fitted, and shared in another pass.

mod pruning;
mod shaping;
mod survey;

use std::collections::HashMap;

use pruning::Pruning;
use shaping::Shaping;
use survey::{Before, RatesOf};

use super::{Adapted, Job, MeasuredLayer, Rates, TrainingData};
use crate::calibrate::{self, CalibrateError, ChannelMoments, Curve, LIMITS, Limits, Problem};
use crate::compress::layer::{self, Loaded, Task};
use crate::compress::meter::Meter;
use crate::compress::report::{CalibratedLayer, Calibration, CurvePoint};
use crate::compress::{Calibrate, CodebookScope, CompressError, Recipe, Weighting, joint};
use crate::evaluate::Samples;
use crate::infer::{Array, Layerwise, Moments, Normalized, Reached};
use crate::model::{Model, Role};
use crate::progress::{Part, Progress};
use crate::prune::{Criterion, Prune, Scope, Sparsity};
use crate::tensor::{FloatType, Statistics};

/// Samples of a batch, where the graph does not say.
const BATCH: usize = 64;

/// How much of the progress is the pass that finds each layer's sparsity, where there is one.
const CURVES_SHARE: f64 = 0.4;

/// Prunes and shares every layer of `model` by `recipe`.
///
/// # Errors
/// A [`CompressError`]; [`CompressError::Calibrate`] where the graph, its layers or the samples do not allow it.
pub(super) fn calibrate(
    job: &Job<'_>,
    tasks: &mut [Task],
    data: &TrainingData,
    progress: &dyn Progress,
) -> Result<Adapted, CompressError> {
    let Job { model, recipe, rates, .. } = *job;
    let settings = recipe.calibrate();
    let prepared = Prepared::new(job, tasks, data)?;
    prepared.announce(progress);
    let (graph, batches) = (&prepared.graph, prepared.read()?);
    let mut walk = Walk::new(model, &settings, rates, tasks);
    let trains = recipe.finetune().is_some_and(|finetune| finetune.epochs > 0 || finetune.sharing_epochs > 0);
    // Where scale and shift of a normalisation are trained, its statistics may stay.
    let moves_statistics = settings.bias_correction && !trains && graph.normalizes();
    let looks_first = walk.is_global() || moves_statistics;
    let from = if looks_first { CURVES_SHARE } else { 0.0 };
    if looks_first {
        let part = Part { whole: progress, from: 0.0, to: from };
        let mut before = walk.before(moves_statistics, &part);
        graph.run(batches.clone(), progress, &mut before)?;
        let Before { curves, moments, .. } = before;
        walk.moments = moments;
        walk.share_out(curves);
    }
    // Criteria that look at no data keep their passes over all layers, and unified codebooks theirs.
    let part = Part { whole: progress, from, to: 1.0 };
    let codebook_work = |task| if rates.is_none() { joint::codebook_work(task) } else { 0 };
    let work = tasks.iter().map(|task| task.shaping_work() + joint::threshold_work(task) + codebook_work(task)).sum();
    let meter = Meter::new(&part, work);
    joint::find_thresholds(model, tasks, &meter)?;
    let mut seen = HashMap::new();
    if rates.is_none() {
        if tasks.iter().any(|task| is_unified(task) && (prunes_by_data(task) || is_weighted(task))) {
            let mut pruning = Pruning { walk: &walk, tasks, meter: &meter, seen };
            graph.run(batches.clone(), progress, &mut pruning)?;
            seen = pruning.seen;
            walk.fall_back(tasks, |at| seen.contains_key(&at));
        }
        joint::fit_codebooks(model, tasks, &seen, &meter)?;
    }
    let mut shaping =
        Shaping { walk: &mut walk, tasks, meter: &meter, seen, layers: HashMap::new(), changed: HashMap::new() };
    graph.run(batches, progress, &mut shaping)?;
    let Shaping { layers, changed, .. } = shaping;
    walk.finish(tasks, (layers, changed), &prepared, &meter)
}

/// Says how much memory calibration will take, for a compression that trains first.
///
/// # Errors
/// As [`calibrate()`], where that is more than is allowed.
pub(super) fn announce(
    job: &Job<'_>,
    tasks: &[Task],
    data: &TrainingData,
    progress: &dyn Progress,
) -> Result<(), CompressError> {
    Prepared::new(job, tasks, data)?.announce(progress);
    Ok(())
}

/// Bytes that calibrating `tasks` by `recipe` takes at most beside the model, samples and activations apart: copies of all weights
/// that are looked at, the largest of these layers, and the weights that unified codebooks are fitted to.
///
/// # Errors
/// [`CalibrateError::LayerTooLarge`], [`CalibrateError::CodebookTooLarge`].
pub(in crate::compress) fn memory_bytes(
    model: &Model,
    recipe: &Recipe,
    tasks: &[Task],
    limits: Limits,
) -> Result<u64, CalibrateError> {
    let is_calibrated = is_calibrated(recipe, tasks);
    let (mut largest, mut weights) = (0, 0u64);
    for task in tasks.iter().filter(|task| is_calibrated(task)) {
        let shape = task.weight.layout.shape(&task.weight.dims).unwrap_or_default();
        let groups = model.groups(task.weight);
        largest = largest.max(calibrate::check_layer(&task.weight.name, shape, groups, limits)?);
        weights += task.elements();
    }
    let shared = if recipe.target().is_none() { check_shared(tasks, limits)? } else { 0 };
    Ok(weights.saturating_mul(COPIES_BYTES).saturating_add(largest).saturating_add(shared))
}

/// Which layers are looked at with their inputs. A recipe that trains first has calibration do no more than what needs data.
fn is_calibrated(recipe: &Recipe, tasks: &[Task]) -> impl Fn(&Task) -> bool {
    let trains_first = recipe.finetune().is_some() && recipe.target().is_none();
    let prunes = !trains_first || tasks.iter().any(prunes_by_data);
    let needs_data = |task: &Task| task.settings.quantize.is_some_and(|quantize| quantize.needs_data());
    let shares = !trains_first || tasks.iter().any(needs_data);
    move |task| {
        let is_product = task.weight.role == Role::Product && task.weight.dtype != FloatType::F64;
        let is_changed = prunes && task.settings.prune.is_some() || shares && task.settings.quantize.is_some();
        is_product && is_changed
    }
}

/// Bytes of the copies of a weight that are alive at once: as it was, pruned, as symbols or values, and as the graph goes on with it.
const COPIES_BYTES: u64 = 20;

/// Bytes that a weight takes until a codebook is fitted to it and others, where they count by their inputs.
const SHARED_BYTES: u64 = 44;

/// Bytes of the weights that are gathered for unified codebooks; fails where they are more than `limits` allow.
fn check_shared(tasks: &[Task], limits: Limits) -> Result<u64, CalibrateError> {
    let gathered = tasks.iter().filter(|task| is_unified(task) && is_weighted(task));
    let weights = gathered.map(Task::elements).sum::<u64>();
    let needed_bytes = weights.saturating_mul(SHARED_BYTES);
    if needed_bytes > limits.shared_bytes {
        return Err(CalibrateError::CodebookTooLarge { weights, needed_bytes, limit_bytes: limits.shared_bytes });
    }
    Ok(needed_bytes)
}

/// Whether a layer is pruned by what it reads.
fn prunes_by_data(task: &Task) -> bool {
    task.settings.prune.is_some_and(|prune| prune.criterion.needs_data())
}

/// Whether a layer shares the codebook of others.
fn is_unified(task: &Task) -> bool {
    task.settings.quantize.is_some_and(|quantize| quantize.codebook == CodebookScope::Unified)
}

/// Whether a layer's weights count by what it reads.
fn is_weighted(task: &Task) -> bool {
    task.settings.quantize.is_some_and(|quantize| quantize.weighting == Weighting::Hessian)
}

/// Measures every setting of every layer in the uncompressed network.
///
/// # Errors
/// As [`calibrate()`].
pub(super) fn measure_rates(
    job: &Job<'_>,
    tasks: &[Task],
    data: &TrainingData,
    progress: &dyn Progress,
) -> Result<Vec<MeasuredLayer>, CompressError> {
    let settings = job.recipe.calibrate();
    let prepared = Prepared::new(job, tasks, data)?;
    prepared.announce(progress);
    let walk = Walk::new(job.model, &settings, None, tasks);
    let mut rates = RatesOf { walk: &walk, progress, found: Vec::new() };
    prepared.graph.run(prepared.read()?, progress, &mut rates)?;
    Ok(rates.found)
}

/// A graph, and the samples that it is to be run on.
struct Prepared<'a> {
    graph: Layerwise,
    samples: &'a Samples<'a>,
    /// The numbers of the samples of each batch.
    numbers: Vec<Vec<usize>>,
    /// Memory that it takes at most, beside the model.
    memory_bytes: u64,
}

impl<'a> Prepared<'a> {
    /// Reads one batch, and works out what all of them will take.
    fn new(job: &Job<'_>, tasks: &[Task], data: &'a TrainingData) -> Result<Self, CompressError> {
        let Job { model, recipe, .. } = *job;
        let layer_bytes = memory_bytes(model, recipe, tasks, LIMITS)?;
        let samples = &data.train;
        let numbers = batches(samples, model, recipe.calibrate().samples as usize);
        let first = samples.read(&numbers[0]).map_err(CompressError::Data)?.inputs;
        let graph = Layerwise::new(model, &first).map_err(CalibrateError::from)?;
        // Each pass over the samples has a copy of them, beside the one that is kept.
        let kept_bytes =
            first.iter().map(|(_, array)| array.data.size_bytes() as u64).sum::<u64>() * numbers.len() as u64;
        let needed_bytes = graph.peak_bytes(numbers.len()).saturating_add(kept_bytes);
        if needed_bytes > LIMITS.activation_bytes {
            let (samples, limit_bytes) = (numbers.len() * numbers[0].len(), LIMITS.activation_bytes);
            return Err(CalibrateError::TooManySamples { samples, needed_bytes, limit_bytes }.into());
        }
        Ok(Self { graph, samples, numbers, memory_bytes: needed_bytes.saturating_add(layer_bytes) })
    }

    fn count(&self) -> usize {
        self.numbers.iter().map(Vec::len).sum()
    }

    fn announce(&self, progress: &dyn Progress) {
        let mebibytes = self.memory_bytes.div_ceil(1 << 20);
        let message = format!("{} samples; takes {mebibytes} MiB of memory at most", self.count());
        progress.report(0.0, "calibrate", &message);
    }

    /// The batches, each as the graph takes it.
    fn read(&self) -> Result<Vec<Vec<(String, Array)>>, CompressError> {
        let read = |numbers: &Vec<usize>| Ok(self.samples.read(numbers).map_err(CompressError::Data)?.inputs);
        self.numbers.iter().map(read).collect()
    }
}

/// The numbers of about `wanted` samples, spread evenly, in batches of one size; the last few that would not fill one are left out.
fn batches(samples: &Samples, model: &Model, wanted: usize) -> Vec<Vec<usize>> {
    let fixed = model.inputs().iter().find_map(|input| input.dims.first().copied().flatten());
    let wanted = wanted.min(samples.len());
    let (count, size) = match fixed {
        Some(_) => ((wanted / samples.batch()).max(1), samples.batch().min(samples.len())),
        None => {
            let count = wanted.div_ceil(BATCH.min(samples.batch())).max(1);
            (count, (wanted / count).max(1))
        }
    };
    let total = count * size;
    let number = |i: usize| (i as u128 * samples.len() as u128 / total as u128) as usize;
    (0..count).map(|batch| (batch * size..(batch + 1) * size).map(number).collect()).collect()
}

/// What is known of all layers.
struct Walk<'a> {
    model: &'a Model,
    settings: &'a Calibrate,
    /// Positions of the tasks by the name of their weight.
    positions: HashMap<String, usize>,
    /// For each task, its survivors, where a budget over many layers gave it some.
    survivors: Vec<Option<usize>>,
    /// The shape of each task's matrix.
    shapes: Vec<(usize, usize)>,
    prunes: Vec<Option<Prune>>,
    report: Vec<CalibratedLayer>,
    curves: HashMap<usize, Vec<CurvePoint>>,
    /// What normalisations read in the uncompressed network, by the name of their mean.
    moments: HashMap<String, ChannelMoments>,
    notes: Vec<String>,
    /// Settings that were chosen before.
    rates: Option<&'a Rates>,
}

impl<'a> Walk<'a> {
    fn new(model: &'a Model, settings: &'a Calibrate, rates: Option<&'a Rates>, tasks: &[Task]) -> Self {
        // Whose rows are looked up has more to answer for than the products by it.
        let products = tasks.iter().enumerate().filter(|(_, task)| task.weight.role == Role::Product);
        let positions = products.map(|(position, task)| (task.weight.name.clone(), position)).collect();
        let shape = |task: &Task| task.weight.layout.shape(&task.weight.dims).unwrap_or_default();
        Self {
            model,
            settings,
            positions,
            survivors: vec![None; tasks.len()],
            shapes: tasks.iter().map(shape).collect(),
            prunes: tasks.iter().map(|task| task.settings.prune).collect(),
            report: Vec::new(),
            curves: HashMap::new(),
            moments: HashMap::new(),
            notes: Vec::new(),
            rates,
        }
    }

    /// Whether the sparsities of some layers are to be found together.
    fn is_global(&self) -> bool {
        self.rates.is_none() && self.prunes.iter().any(|prune| prune.is_some_and(is_budgeted))
    }

    /// The weights of a layer that was reached, as uploaded.
    fn original(&self, reached: &Reached<'_>) -> Result<Loaded, CompressError> {
        let weight = self.model.weights().iter().find(|weight| weight.name == reached.name);
        Loaded::read(self.model, weight.expect("a layer that was reached is a weight"))
    }

    /// The problem of a layer that was reached, whose weights are `original`, and the statistics of its inputs.
    fn problem(
        &self,
        at: usize,
        reached: &Reached<'_>,
        original: &Loaded,
        progress: &dyn Progress,
    ) -> Result<(Problem, Statistics), CompressError> {
        let statistics = calibrate::collect(reached, self.shapes[at], LIMITS, progress)?;
        let (damping, is_centred) = (self.settings.damping, self.is_centred(reached));
        let problem = original.show(reached.name, |layer| Problem::new(layer, &statistics, damping, is_centred));
        Ok((problem, statistics))
    }

    /// Whether a bias takes up what changes in the mean.
    fn is_centred(&self, reached: &Reached<'_>) -> bool {
        self.settings.bias_correction && reached.bias.is_some()
    }

    fn before<'b>(&'b self, measures_moments: bool, progress: &'b dyn Progress) -> Before<'b> {
        let total = self.prunes.iter().filter(|prune| prune.is_some_and(is_budgeted)).count();
        Before { walk: self, progress, total, measures_moments, curves: Vec::new(), moments: HashMap::new() }
    }

    /// Gives the layers of each budget their survivors. Those that no product reaches are no part of one.
    fn share_out(&mut self, found: Vec<(usize, Curve)>) {
        let mut budgets: Vec<Prune> = Vec::new();
        for (position, _) in &found {
            let prune = self.prunes[*position].expect("curves are those of layers that are pruned");
            if !budgets.contains(&prune) {
                budgets.push(prune);
            }
        }
        for budget in budgets {
            let of_budget: Vec<_> = found.iter().filter(|(at, _)| self.prunes[*at] == Some(budget)).collect();
            let size = |at: usize| self.shapes[at].0 * self.shapes[at].1;
            let layers: Vec<_> = of_budget.iter().map(|(at, curve)| (curve, size(*at))).collect();
            for ((at, _), survivors) in of_budget.iter().zip(calibrate::share_out(&layers, budget.sparsity.get())) {
                self.survivors[*at] = Some(survivors);
            }
        }
        for (at, curve) in found {
            let points = calibrate::CURVE.iter().zip(curve.errors());
            let point = |(&sparsity, &output_error): (&f64, &f64)| CurvePoint { sparsity, output_error };
            self.curves.insert(at, points.map(point).collect());
        }
    }

    /// Prunes layers by magnitude that no product reaches, by criteria that look at the inputs of one.
    fn fall_back(&mut self, tasks: &mut [Task], is_reached: impl Fn(usize) -> bool) {
        for (_, task) in tasks.iter_mut().enumerate().filter(|(at, _)| !is_reached(*at)) {
            let Some(prune) = task.settings.prune.as_mut().filter(|prune| prune.criterion.needs_data()) else {
                continue;
            };
            if prune.sparsity != Sparsity::NONE {
                self.notes.push(format!(
                    "{}: no product of single precision alone reads it, so it is pruned by magnitude",
                    task.weight.name
                ));
            }
            prune.criterion = Criterion::Magnitude;
            prune.scope = if prune.scope == Scope::Global { Scope::Tensor } else { prune.scope };
        }
    }

    /// The name of the bias that takes up by how much the outputs of a layer change in the mean, and its values.
    fn corrected_bias<'b>(
        &self,
        reached: &Reached<'b>,
        original: &Loaded,
        weights: &[f32],
        statistics: &Statistics,
    ) -> Option<(&'b str, Vec<f32>)> {
        let (name, bias) = reached.bias.filter(|_| self.is_centred(reached))?;
        let original = original.to_f32();
        let rows = bias.len();
        let cols = weights.len() / rows.max(1);
        let correct = |(row, bias): (usize, &f32)| {
            let cells = row * cols..(row + 1) * cols;
            let mean = statistics.group_of(row, rows).mean();
            let changes = original[cells.clone()].iter().zip(&weights[cells]).zip(mean);
            let change: f64 = changes.map(|((old, new), mean)| (f64::from(*old) - f64::from(*new)) * mean).sum();
            (f64::from(*bias) + change) as f32
        };
        Some((name, bias.iter().enumerate().map(correct).collect()))
    }

    /// The statistics that a normalisation has behind the layers as they are by now; `None` where they stay.
    fn moved_statistics(&self, reached: &Normalized<'_>) -> Result<Option<Moments>, CompressError> {
        let ((name, mean), (_, variance)) = (reached.mean, reached.variance);
        let Some(before) = self.moments.get(name) else { return Ok(None) };
        Ok(calibrate::moved((mean, variance), before, &ChannelMoments::of(reached)?))
    }

    /// Takes the layers that no product reached, and draws up the result.
    fn finish(
        mut self,
        tasks: &mut [Task],
        (mut layers, changed): (HashMap<usize, layer::Prepared>, HashMap<String, Vec<u8>>),
        prepared: &Prepared,
        meter: &Meter,
    ) -> Result<Adapted, CompressError> {
        self.fall_back(tasks, |at| layers.contains_key(&at));
        let in_order = tasks.iter().enumerate().map(|(at, task)| match layers.remove(&at) {
            Some(layer) => Ok(layer),
            None => layer::prepare(self.model, task, meter),
        });
        let layers = in_order.collect::<Result<_, _>>()?;
        let mut report = self.report;
        for layer in &mut report {
            layer.curve =
                self.positions.get(&layer.name).and_then(|at| self.curves.get(at)).cloned().unwrap_or_default();
        }
        let Prepared { memory_bytes, .. } = *prepared;
        let calibration = Some(Calibration { samples: prepared.count() as u64, memory_bytes, layers: report });
        let (model, notes) = (self.model.with_tensors(changed)?, self.notes);
        Ok(Adapted { model, layers, notes, calibration, training: Vec::new() })
    }
}

fn is_budgeted(prune: Prune) -> bool {
    prune.criterion == Criterion::Obs && prune.scope == Scope::Global && prune.pattern.is_none()
}
