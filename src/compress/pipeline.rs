//! The compression of a whole model: tasks, passes, workers, assembly.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::adapt::{Adapted, Rates, TrainingData, adapt};
use super::layer::{self, LayerMeasures, Prepared, Task};
use super::meter::Meter;
use super::report::{self, Measured};
use super::spool::{Spool, Spooled};
use super::units::{FreeGroups, Layers, Rearranged};
use super::{CompressError, Encode, Plain, Recipe, Report, Target, joint, target};
use crate::artifact::{ArtifactError, ArtifactWriter, EncodedWeight, PlainTensor, Provenance, onnx_name};
use crate::calibrate;
use crate::codec::MAX_CELLS;
use crate::model::{Kept, Model};
use crate::progress::{Part, Progress};

/// Operators that may hold weights. A rule for one of these fits many models, so that this one has none is worth a note;
/// a rule for any other operator that the model does not have is a typing error.
const WEIGHT_OPERATORS: [&str; 12] = [
    "Attention",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "Gather",
    "Gemm",
    "GRU",
    "LSTM",
    "MatMul",
    "MultiHeadAttention",
    "RNN",
    "Tensor",
];

/// How much of the progress is calibration and fine-tuning, where there are any.
const ADAPTING_SHARE: f64 = 0.9;

/// Compresses `model` by `recipe` into a file at `out`, which is created or replaced whole; on failure nothing is left
/// there. Runs on the current rayon pool. The same model and recipe give the same bytes.
///
/// # Errors
/// A [`CompressError`]; [`CompressError::Cancelled`] soon after `progress` asks for it.
pub fn compress(model: &Model, recipe: &Recipe, out: &Path, progress: &dyn Progress) -> Result<Report, CompressError> {
    compress_with(model, recipe, None, out, progress)
}

/// The same for recipes that calibrate or fine-tune, which need `data`. The same model, recipe and data give the same bytes
/// on the same kind of processor, with any number of threads.
///
/// # Errors
/// As [`compress`].
pub fn compress_with(
    model: &Model,
    recipe: &Recipe,
    data: Option<&TrainingData>,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Report, CompressError> {
    let mut notes = check_rules(model, recipe)?;
    let trains_weights = recipe.finetune().is_some() && recipe.target().is_none();
    let folded = match recipe.calibrates() && !trains_weights && data.is_some() {
        true => calibrate::fold_normalisations(model)?,
        false => None,
    };
    notes.extend(folded.iter().flat_map(|folded| folded.notes.iter().cloned()));
    for (array, input) in data.iter().filter(|_| recipe.needs_data()).flat_map(|data| data.train.unscaled()) {
        notes.push(format!(
            "{array:?}, bytes, goes into {input:?} as it is: pixels from 0 to 255 may want a scale of 1/255"
        ));
    }
    let model = folded.as_ref().map_or(model, |folded| &folded.model);
    let job = Job { model, recipe, data, rates: None, trains: true };
    let mut report = match recipe.target() {
        None => compress_planned(job, out, progress)?,
        Some(target) => target::compress_to(job, target_bytes(target, model), out, progress)?,
    };
    report.notes.splice(0..0, notes);
    Ok(report)
}

/// The bytes that `target` allows a file of `model`.
pub(super) fn target_bytes(target: Target, model: &Model) -> u64 {
    let weights = model.weights().iter().map(|weight| weight.dims.iter().product::<usize>() as u64).sum();
    target.bytes(model.size_bytes(), weights)
}

/// What is to be compressed, and how.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub model: &'a Model,
    pub recipe: &'a Recipe,
    pub data: Option<&'a TrainingData<'a>>,
    /// The settings of layers for which they were chosen.
    pub rates: Option<&'a Rates>,
    /// Whether fine-tuning is done where the recipe asks for it.
    pub trains: bool,
}

/// Compresses with settings that are known.
///
/// # Errors
/// As [`compress`].
pub(super) fn compress_planned(job: Job<'_>, out: &Path, progress: &dyn Progress) -> Result<Report, CompressError> {
    let Job { model, recipe, .. } = job;
    let started = Instant::now();
    let mut notes = Vec::new();
    let Plan { mut tasks, skipped } = plan(model, recipe);
    let groups = FreeGroups::find(model, recipe, &tasks);
    let adapted = adapt(&job, &mut tasks, &Part { whole: progress, from: 0.0, to: ADAPTING_SHARE })?;
    let from = if adapted.is_some() { ADAPTING_SHARE } else { 0.0 };
    let rest = Part { whole: progress, from, to: 1.0 };
    // What several layers decide together is known once they are adapted.
    let together = |task| if adapted.is_some() { 0 } else { joint::threshold_work(task) + joint::codebook_work(task) };
    let work = tasks.iter().map(|task| task.work() + together(task)).sum::<u64>() + groups.work(&tasks);
    let meter = Meter::new(&rest, work);
    let (adapted, shaped, training, calibration) = match adapted {
        Some(Adapted { model, layers, training, calibration, notes: remarks }) => {
            notes.extend(remarks);
            (Some(model), Some(layers), training, calibration)
        }
        None => (None, None, Vec::new(), None),
    };
    let mut writer = ArtifactWriter::new(out);
    let spool = Spool::new(out);
    let model = adapted.as_ref().unwrap_or(model);
    if shaped.is_none() {
        joint::find_thresholds(model, &mut tasks, &meter)?;
        joint::fit_codebooks(model, &mut tasks, &HashMap::new(), &meter)?;
    }
    joint::store_codebooks(&tasks, &mut writer)?;
    let source = Source { model, tasks: &tasks, spool: &spool, meter: &meter };
    let waiting = match shaped {
        Some(layers) => source.set_aside_shaped(layers)?,
        None => source.set_aside(&groups)?,
    };
    let mut layers = Layers { model, tasks: &tasks, waiting, spool: &spool };
    let rearranged = groups.rearrange(&mut layers, &meter)?;
    let layers = source.encode_all(&layers.waiting, &rearranged, &writer)?;
    let kept = add_plain(model, recipe, &skipped, &rearranged, &mut writer)?;
    if let Some(skeleton) = model.skeleton() {
        writer.set_graph(&rearranged.graph(skeleton), halves(&recipe.resolve("", "").encode))?;
    }
    progress.check()?;
    let provenance = Provenance { source_sha256: &model.sha256()?, recipe: &recipe.to_json() };
    let sizes = writer.finish(&provenance)?;
    progress.report(1.0, "write", "artifact written");
    let unit_groups = rearranged.reports;
    let (tasks, layers, sizes) = (&tasks, &layers, &sizes);
    let measured = Measured { tasks, layers, sizes, kept, notes, calibration, training, unit_groups };
    Ok(report::build(model, measured, started.elapsed().as_secs_f64()))
}

/// What a recipe comes to for a model.
pub(super) struct Plan<'a> {
    pub tasks: Vec<Task<'a>>,
    /// Weights that stay as they are, and why.
    pub skipped: Vec<(usize, &'static str)>,
}

/// Resolves the settings of every weight.
pub(super) fn plan<'a>(model: &'a Model, recipe: &Recipe) -> Plan<'a> {
    let mut plan = Plan { tasks: Vec::new(), skipped: Vec::new() };
    for (index, weight) in model.weights().iter().enumerate() {
        let settings = recipe.resolve(&weight.name, &weight.op);
        if settings.skip {
            plan.skipped.push((index, "skipped by the recipe"));
        } else if weight.dims.contains(&0) {
            plan.skipped.push((index, "without elements"));
        } else if weight.dims.iter().product::<usize>() > MAX_CELLS {
            plan.skipped.push((index, "more weights than a codec takes"));
        } else {
            plan.tasks.push(Task { index, weight, settings, threshold: None, unified: None });
        }
    }
    plan
}

/// Checks that every rule of the recipe applies to something; returns notes for people on those that may well not.
pub(super) fn check_rules(model: &Model, recipe: &Recipe) -> Result<Vec<String>, CompressError> {
    let weights = model.weights().iter().map(|w| (w.name.as_str(), w.op.as_str()));
    // A glob may be for what is not compressed alone, such as biases to be stored as halves.
    let kept = model.kept().iter().map(|kept| (kept.name.as_str(), ""));
    let is_known = |entry: &String| entry.strip_prefix("by_op.").is_some_and(|op| WEIGHT_OPERATORS.contains(&op));
    let (known, unknown): (Vec<_>, Vec<_>) = recipe.unmatched(weights.chain(kept)).into_iter().partition(is_known);
    if !unknown.is_empty() {
        let layers = model.weights().iter().map(|weight| format!("{} ({})", weight.name, weight.op)).collect();
        return Err(CompressError::Unmatched { entries: unknown, layers });
    }
    Ok(known.into_iter().map(|entry| format!("{entry} applies to no layer of this model")).collect())
}

/// Where layers come from.
#[derive(Clone, Copy)]
struct Source<'a> {
    model: &'a Model,
    tasks: &'a [Task<'a>],
    /// Layers that wait for the order of their units.
    spool: &'a Spool,
    meter: &'a Meter<'a>,
}

impl Source<'_> {
    /// Prunes and shares the layers whose units may change places.
    fn set_aside(self, groups: &FreeGroups) -> Result<Vec<Option<Spooled>>, CompressError> {
        run_all(self.tasks, |_, task| {
            if !groups.contain(task) {
                return Ok(None);
            }
            let prepared = layer::prepare(self.model, task, self.meter)?;
            Ok(Some(self.spool.put(prepared).map_err(ArtifactError::from)?))
        })
    }

    /// Sets layers aside that are pruned and shared.
    fn set_aside_shaped(self, layers: Vec<Prepared>) -> Result<Vec<Option<Spooled>>, CompressError> {
        let put = |(layer, task): (Prepared, &Task)| {
            self.meter.advance(task.shaping_work(), "quantize", &task.weight.name)?;
            Ok(Some(self.spool.put(layer).map_err(ArtifactError::from)?))
        };
        layers.into_iter().zip(self.tasks).map(put).collect()
    }

    /// Encodes every layer. What was measured comes back in the order of the tasks.
    fn encode_all(
        self,
        waiting: &[Option<Spooled>],
        rearranged: &Rearranged,
        writer: &ArtifactWriter,
    ) -> Result<Vec<LayerMeasures>, CompressError> {
        run_all(self.tasks, |position, task| {
            let prepared = match &waiting[position] {
                Some(spooled) => self.spool.get(spooled).map_err(ArtifactError::from)?,
                None => layer::prepare(self.model, task, self.meter)?,
            };
            let prepared = Prepared { matrix: rearranged.matrix(task.weight, prepared.matrix), ..prepared };
            let encoded = layer::encode(task, prepared, self.meter)?;
            let weight = EncodedWeight {
                name: &task.weight.name,
                dims: &rearranged.dims(&task.weight.name, &task.weight.dims),
                dtype: task.weight.dtype,
                layout: task.weight.layout,
                codec: encoded.measured.codec,
                rows_per_block: encoded.rows_per_block,
                codebook: encoded.codebook,
                payload: &encoded.payload,
            };
            writer.add_weight(task.index, &weight)?;
            Ok(encoded.measured)
        })
    }
}

/// Runs `work` for every task, as many at a time as the pool has threads. Results come back in the order of the tasks.
///
/// The workers are rayon jobs of their own that draw tasks from a counter, and not a parallel iterator: a thread that
/// waits inside one layer for a block that another thread took would start a further layer meanwhile, and hold its
/// memory too.
fn run_all<T: Send>(
    tasks: &[Task],
    work: impl Fn(usize, &Task) -> Result<T, CompressError> + Sync,
) -> Result<Vec<T>, CompressError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(tasks.len()));
    let failed = Mutex::new(None::<(usize, CompressError)>);
    rayon::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(tasks.len()) {
            scope.spawn(|_| {
                while failed.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(position) else { break };
                    match work(position, task) {
                        Ok(result) => {
                            results.lock().unwrap_or_else(PoisonError::into_inner).push((position, result));
                        }
                        Err(error) => keep_first(&failed, position, error),
                    }
                }
            });
        }
    });
    if let Some((_, error)) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(position, _)| *position);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// Of several layers that fail, the first in the model is reported, whatever the threads did.
fn keep_first(failed: &Mutex<Option<(usize, CompressError)>>, position: usize, error: CompressError) {
    let mut first = failed.lock().unwrap_or_else(PoisonError::into_inner);
    if first.as_ref().is_none_or(|(known, _)| position < *known) {
        *first = Some((position, error));
    }
}

/// Stores what is not compressed and not in the graph; returns the list of everything that stays as it is.
fn add_plain(
    model: &Model,
    recipe: &Recipe,
    skipped: &[(usize, &'static str)],
    rearranged: &Rearranged,
    writer: &mut ArtifactWriter,
) -> Result<Vec<Kept>, CompressError> {
    let mut kept = Vec::with_capacity(skipped.len() + model.kept().len());
    for &(index, reason) in skipped {
        let weight = &model.weights()[index];
        let mut bytes = Vec::new();
        model.read(weight)?.write_le_bytes(weight.dtype, &mut bytes);
        let bytes = rearranged.bytes(&weight.name, &weight.dims, bytes);
        let row = kept_row(model, index, reason);
        writer.add_plain(&plain_tensor(&row, &rearranged.dims(&row.name, &row.dims), &bytes, false))?;
        kept.push(row);
    }
    for tensor in model.detached() {
        let bytes = rearranged.bytes(&tensor.name, &tensor.dims, model.read_detached(tensor)?);
        let halve = halves(&recipe.resolve(&tensor.name, "").encode);
        let dims = rearranged.dims(&tensor.name, &tensor.dims);
        writer.add_plain(&plain_tensor(tensor, &dims, &bytes, halve))?;
    }
    kept.extend_from_slice(model.kept());
    Ok(kept)
}

/// The row of a weight that stays as it is.
pub(super) fn kept_row(model: &Model, index: usize, reason: &str) -> Kept {
    let weight = &model.weights()[index];
    let elements = weight.dims.iter().product::<usize>();
    Kept {
        name: weight.name.clone(),
        dims: weight.dims.clone(),
        dtype: onnx_name(weight.dtype).to_owned(),
        size_bytes: (elements * weight.dtype.size_bytes()) as u64,
        reason: reason.to_owned(),
    }
}

fn plain_tensor<'a>(tensor: &'a Kept, dims: &'a [usize], bytes: &'a [u8], halve: bool) -> PlainTensor<'a> {
    PlainTensor { name: &tensor.name, dims, dtype: &tensor.dtype, bytes, halve }
}

fn halves(encode: &Encode) -> bool {
    encode.plain == Plain::F16
}
