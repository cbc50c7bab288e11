//! A network pruned and shared layer by layer, each layer seeing what the layers before it have become.

use std::collections::HashMap;

use super::{Adapted, Job, Rates, TrainingData};
use crate::artifact::onnx_name;
use crate::calibrate::{self, CalibrateError, Curve, LIMITS, Limits, Problem, RatePoint};
use crate::compress::layer::{self, Loaded, Prepared, Task};
use crate::compress::meter::Meter;
use crate::compress::report::{CalibratedLayer, Calibration, CurvePoint};
use crate::compress::{Calibrate, CodebookScope, CompressError, joint};
use crate::evaluate::Samples;
use crate::infer::{Array, Layerwise, Reached, Renewed};
use crate::model::{Model, Role};
use crate::progress::{Part, Progress};
use crate::prune::{Criterion, Keep, Prune, Scope, Sparsity, survivors};
use crate::tensor::{FloatData, FloatType, Statistics};

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
    let Run { graph, batches, samples } = Run::new(model, &settings, data)?;
    let mut walk = Walk::new(model, &settings, rates, tasks);
    let from = if walk.is_global() { CURVES_SHARE } else { 0.0 };
    if walk.is_global() {
        let part = Part { whole: progress, from: 0.0, to: from };
        let mut curves = walk.curves(&part);
        graph.run(batches.clone(), progress, |reached| curves.visit(&reached))?;
        let curves = curves.found;
        walk.share_out(curves);
    }
    // Criteria that look at no data keep their passes over all layers, and unified codebooks theirs.
    let part = Part { whole: progress, from, to: 1.0 };
    let work = tasks.iter().map(|task| task.shaping_work() + joint::work(task)).sum();
    let meter = Meter::new(&part, work);
    joint::find_thresholds(model, tasks, &meter)?;
    if !walk.leaves_sharing {
        joint::fit_codebooks(model, tasks, &meter)?;
    }
    let mut shaping =
        Shaping { walk: &mut walk, tasks, meter: &meter, layers: HashMap::new(), changed: HashMap::new() };
    graph.run(batches, progress, |reached| shaping.visit(&reached))?;
    let Shaping { layers, changed, .. } = shaping;
    walk.finish(tasks, layers, changed, samples, &meter)
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
) -> Result<Vec<(String, Vec<RatePoint>)>, CompressError> {
    let settings = job.recipe.calibrate();
    let Run { graph, batches, .. } = Run::new(job.model, &settings, data)?;
    let walk = Walk::new(job.model, &settings, None, tasks);
    let mut found = Vec::new();
    graph.run(batches, progress, |reached| {
        if let Some(&at) = walk.positions.get(reached.name) {
            let (problem, _) = walk.problem(at, &reached, progress)?;
            found.push((reached.name.to_owned(), problem.rate_points(progress)?));
            progress.report(found.len() as f64 / tasks.len() as f64, "calibrate", reached.name);
        }
        Ok::<_, CompressError>(None)
    })?;
    Ok(found)
}

/// A graph and what it is run on.
struct Run {
    graph: Layerwise,
    batches: Vec<Vec<(String, Array)>>,
    samples: usize,
}

impl Run {
    fn new(model: &Model, settings: &Calibrate, data: &TrainingData) -> Result<Self, CompressError> {
        let batches = read_batches(&data.train, model, settings.samples as usize)?;
        let samples = batches.iter().map(|batch| batch.first().map_or(0, |(_, array)| array.dims[0])).sum();
        let first = batches.first().map(Vec::as_slice).unwrap_or_default();
        let graph = Layerwise::new(model, first).map_err(CalibrateError::from)?;
        let needed_bytes = graph.peak_bytes(batches.len());
        if needed_bytes > LIMITS.activation_bytes {
            let limit_bytes = LIMITS.activation_bytes;
            return Err(CalibrateError::TooManySamples { samples, needed_bytes, limit_bytes }.into());
        }
        Ok(Self { graph, batches, samples })
    }
}

/// Batches of one size, their samples spread evenly; the last few that would not fill one are left out.
fn read_batches(samples: &Samples, model: &Model, wanted: usize) -> Result<Vec<Vec<(String, Array)>>, CompressError> {
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
    let batch = |batch: usize| {
        let numbers: Vec<usize> = (batch * size..(batch + 1) * size).map(number).collect();
        Ok(samples.read(&numbers).map_err(CompressError::Data)?.inputs)
    };
    (0..count).map(batch).collect()
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
    /// A codebook is unified over layers that are pruned here: sharing is left to the pipeline.
    leaves_sharing: bool,
    report: Vec<CalibratedLayer>,
    curves: HashMap<usize, Vec<CurvePoint>>,
    /// Settings that were chosen before.
    rates: Option<&'a Rates>,
    limits: Limits,
}

impl<'a> Walk<'a> {
    fn new(model: &'a Model, settings: &'a Calibrate, rates: Option<&'a Rates>, tasks: &[Task]) -> Self {
        // Whose rows are looked up has more to answer for than the products by it.
        let products = tasks.iter().enumerate().filter(|(_, task)| task.weight.role == Role::Product);
        let positions = products.map(|(position, task)| (task.weight.name.clone(), position)).collect();
        let shape = |task: &Task| task.weight.layout.shape(&task.weight.dims).unwrap_or_default();
        let is_unified = |task: &Task| {
            let by_data = task.settings.prune.is_some_and(|prune| prune.criterion.needs_data());
            rates.is_none()
                && by_data
                && task.settings.quantize.is_some_and(|quantize| quantize.codebook == CodebookScope::Unified)
        };
        Self {
            model,
            settings,
            positions,
            survivors: vec![None; tasks.len()],
            shapes: tasks.iter().map(shape).collect(),
            prunes: tasks.iter().map(|task| task.settings.prune).collect(),
            leaves_sharing: tasks.iter().any(is_unified),
            report: Vec::new(),
            curves: HashMap::new(),
            rates,
            limits: LIMITS,
        }
    }

    /// Whether the sparsities of some layers are to be found together.
    fn is_global(&self) -> bool {
        self.rates.is_none() && self.prunes.iter().any(|prune| prune.is_some_and(is_budgeted))
    }

    /// The problem of a layer that was reached, and the statistics of its inputs.
    fn problem(
        &self,
        at: usize,
        reached: &Reached<'_>,
        progress: &dyn Progress,
    ) -> Result<(Problem, Statistics), CompressError> {
        let statistics = calibrate::collect(reached, self.shapes[at], self.limits, progress)?;
        let weight = self.model.weights().iter().find(|weight| weight.name == reached.name);
        let loaded = Loaded::read_weight(self.model, weight.expect("a layer that was reached is a weight"))?;
        let (damping, is_centred) = (self.settings.damping, self.is_centred(reached));
        let problem = loaded.show(reached.name, |layer| Problem::new(layer, &statistics, damping, is_centred));
        Ok((problem, statistics))
    }

    /// Whether a bias takes up what changes in the mean.
    fn is_centred(&self, reached: &Reached<'_>) -> bool {
        self.settings.bias_correction && reached.bias.is_some()
    }

    fn curves<'b>(&'b self, progress: &'b dyn Progress) -> Curves<'b> {
        let total = self.prunes.iter().filter(|prune| prune.is_some_and(is_budgeted)).count();
        Curves { walk: self, progress, total, found: Vec::new() }
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

    /// Takes the layers that no product reached, and draws up the result.
    fn finish(
        self,
        tasks: &mut [Task],
        mut layers: HashMap<usize, Prepared>,
        changed: HashMap<String, Vec<u8>>,
        samples: usize,
        meter: &Meter,
    ) -> Result<Adapted, CompressError> {
        let mut notes = Vec::new();
        for (position, task) in tasks.iter_mut().enumerate() {
            let name = &task.weight.name;
            let asks = task.settings.prune.is_some_and(|prune| prune.criterion.needs_data());
            let is_reached = self.report.iter().any(|layer| layer.name == *name);
            if asks && !is_reached && task.settings.prune.is_some_and(|prune| prune.sparsity != Sparsity::NONE) {
                notes.push(format!(
                    "{name}: no product of single precision alone reads it, so it is pruned by magnitude"
                ));
                if let Some(prune) = &mut task.settings.prune {
                    prune.criterion = Criterion::Magnitude;
                    prune.scope = if prune.scope == Scope::Global { Scope::Tensor } else { prune.scope };
                }
            }
            if !self.leaves_sharing && !layers.contains_key(&position) {
                layers.insert(position, layer::prepare(self.model, task, meter)?);
            }
            if self.leaves_sharing && asks && is_reached {
                task.settings.prune = None;
            }
        }
        let layers = (!self.leaves_sharing).then(|| (0..tasks.len()).filter_map(|at| layers.remove(&at)).collect());
        let mut report = self.report;
        for layer in &mut report {
            layer.curve =
                self.positions.get(&layer.name).and_then(|at| self.curves.get(at)).cloned().unwrap_or_default();
        }
        let calibration = Some(Calibration { samples: samples as u64, layers: report });
        Ok(Adapted { model: self.model.with_tensors(changed)?, layers, notes, calibration, training: Vec::new() })
    }
}

fn is_budgeted(prune: Prune) -> bool {
    prune.criterion == Criterion::Obs && prune.scope == Scope::Global && prune.pattern.is_none()
}

/// The pass over the uncompressed network that measures what each layer loses.
struct Curves<'a> {
    walk: &'a Walk<'a>,
    progress: &'a dyn Progress,
    total: usize,
    found: Vec<(usize, Curve)>,
}

impl Curves<'_> {
    fn visit(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, CompressError> {
        let Some(&at) = self.walk.positions.get(reached.name) else { return Ok(None) };
        if !self.walk.prunes[at].is_some_and(is_budgeted) {
            return Ok(None);
        }
        let (problem, _) = self.walk.problem(at, reached, self.progress)?;
        self.found.push((at, problem.curve(self.progress)?));
        let done = self.found.len() as f64 / self.total.max(1) as f64;
        self.progress.report(done, "calibrate", reached.name);
        Ok(None)
    }
}

/// The pass that changes the layers.
struct Shaping<'a, 'b> {
    walk: &'a mut Walk<'b>,
    tasks: &'a [Task<'a>],
    meter: &'a Meter<'a>,
    layers: HashMap<usize, Prepared>,
    /// New elements of tensors of the model, biases above all.
    changed: HashMap<String, Vec<u8>>,
}

impl Shaping<'_, '_> {
    fn visit(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, CompressError> {
        let Some(&at) = self.walk.positions.get(reached.name) else { return Ok(None) };
        let task = &self.tasks[at];
        let by_data = task.settings.prune.is_some_and(|prune| prune.criterion.needs_data());
        if self.walk.leaves_sharing && !by_data {
            return Ok(None);
        }
        let quantize = task.settings.quantize.filter(|_| !self.walk.leaves_sharing);
        let is_lossy = task.settings.prune.is_some() || quantize.is_some() || self.walk.rates.is_some();
        if !is_lossy {
            return Ok(None);
        }
        let inner = self.meter.inner();
        let (problem, statistics) = self.walk.problem(at, reached, &inner)?;
        let (original, is_centred) = (Loaded::read(self.walk.model, task)?, self.walk.is_centred(reached));
        let rate = self.walk.rates.and_then(|rates| rates.get(reached.name)).copied();
        let pruned = self.prune(at, &original, &problem, &statistics)?;
        self.meter.advance(task.elements(), "prune", reached.name)?;
        let weights = match self.walk.leaves_sharing {
            true => {
                let (dims, layout, mut bytes) = (&task.weight.dims, task.weight.layout, Vec::new());
                let tensor = FloatData::F32(layout.to_tensor(dims, pruned.to_f32()));
                tensor.write_le_bytes(task.weight.dtype, &mut bytes);
                self.changed.insert(reached.name.to_owned(), bytes);
                pruned.to_f32()
            }
            false => {
                let matrix = match rate {
                    Some(rate) => problem.descend(pruned.share_uniformly(task, rate.step, self.meter)?, &inner)?,
                    None => pruned.share_calibrated(task, &problem, self.meter)?,
                };
                let weights = (0..matrix.rows() * matrix.cols()).map(|i| matrix.value(i) as f32).collect();
                let weight_snr_db = original.snr_db(&matrix);
                self.layers.insert(at, Prepared { matrix, weight_snr_db });
                weights
            }
        };
        self.meter.advance(task.elements(), "quantize", reached.name)?;
        let bias = reached.bias.filter(|_| is_centred);
        let bias = bias.map(|(name, old)| (name, corrected(old, &original.to_f32(), &weights, &statistics)));
        self.walk.report.push(CalibratedLayer {
            name: reached.name.to_owned(),
            columns: statistics.columns(),
            output_error: problem.relative_error(&weights),
            sparsity: weights.iter().filter(|&&weight| weight == 0.0).count() as f64 / weights.len().max(1) as f64,
            corrected_bias: bias.as_ref().map(|(name, _)| (*name).to_owned()),
            step: rate.map(|rate| rate.step),
            curve: Vec::new(),
            points: Vec::new(),
        });
        if let Some((name, values)) = &bias {
            self.changed.insert((*name).to_owned(), self.bias_bytes(name, values));
        }
        Ok(Some(Renewed { weights, bias: bias.map(|(_, values)| values) }))
    }

    /// The weights of a layer with its zeros.
    fn prune(
        &self,
        at: usize,
        original: &Loaded,
        problem: &Problem,
        statistics: &Statistics,
    ) -> Result<Loaded, CompressError> {
        let task = &self.tasks[at];
        let mut pruned = original.clone();
        let (rows, cols) = self.walk.shapes[at];
        let rate = self.walk.rates.and_then(|rates| rates.get(&task.weight.name));
        let keep = rate.map(|rate| Keep::Layer(survivors(rows * cols, rate.sparsity)));
        if let Some(keep) = keep {
            pruned.replace(FloatData::F32(problem.solve(keep, &self.meter.inner())?));
            return Ok(pruned);
        }
        let Some(prune) = task.settings.prune else { return Ok(pruned) };
        if prune.criterion != Criterion::Obs {
            pruned.prune_with(task, Some(statistics));
            return Ok(pruned);
        }
        let keep = match self.walk.survivors[at] {
            Some(survivors) => Keep::Layer(survivors),
            None => prune.keep(rows, cols).unwrap_or(Keep::Layer(rows * cols)),
        };
        let weights = problem.solve(keep, &self.meter.inner())?;
        let dtype = task.weight.dtype;
        let rounded = weights.into_iter().map(|weight| dtype.round(f64::from(weight)) as f32).collect();
        pruned.replace(FloatData::F32(rounded));
        Ok(pruned)
    }

    /// A bias in the type of its tensor.
    fn bias_bytes(&self, name: &str, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kept = self.walk.model.kept().iter().find(|kept| kept.name == name);
        let types = [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64];
        let named = types.into_iter().find(|dtype| kept.is_some_and(|kept| kept.dtype == onnx_name(*dtype)));
        let dtype = named.unwrap_or(FloatType::F32);
        FloatData::F32(values.to_vec()).write_le_bytes(dtype, &mut bytes);
        bytes
    }
}

/// The bias that takes up by how much the outputs change in the mean.
fn corrected(bias: &[f32], original: &[f32], weights: &[f32], statistics: &Statistics) -> Vec<f32> {
    let rows = bias.len();
    let cols = weights.len() / rows.max(1);
    let correct = |(row, bias): (usize, &f32)| {
        let cells = row * cols..(row + 1) * cols;
        let mean = statistics.group_of(row, rows).mean();
        let changes = original[cells.clone()].iter().zip(&weights[cells]).zip(mean);
        let change: f64 = changes.map(|((old, new), mean)| (f64::from(*old) - f64::from(*new)) * mean).sum();
        (f64::from(*bias) + change) as f32
    };
    bias.iter().enumerate().map(correct).collect()
}
