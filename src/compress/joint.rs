//! What several layers decide together, found in passes over them before any is encoded: thresholds of global pruning
//! and codebooks that are unified.

use std::collections::HashMap;
use std::sync::Arc;

use super::layer::{Loaded, Task};
use super::meter::Meter;
use super::{CodebookScope, CompressError, Quantize, Weighting};
use crate::artifact::ArtifactWriter;
use crate::calibrate::Importances;
use crate::model::{Family, Model};
use crate::prune::{Criterion, Prune, Scope, Threshold, ThresholdSearch};
use crate::quantize::{Distribution, DistributionBuilder, Fitted, Quantizer};
use crate::tensor::{Codebook, FloatType};

/// Passes over the weights that a global threshold takes: two, by the construction of [`ThresholdSearch`].
const THRESHOLD_PASSES: u64 = 2;

/// A codebook that several layers share.
#[derive(Debug, Clone)]
pub(super) struct Unified {
    /// What assigns symbols to weights.
    pub fitted: Fitted,
    /// The values, as they are stored.
    pub codebook: Arc<Codebook>,
    pub family: Family,
    /// Index among the artifact's codebooks; `None` where one layer alone came to it, which then holds it itself.
    pub index: Option<usize>,
}

/// A layer that was seen with its inputs before the codebooks are fitted.
pub(super) struct Seen {
    /// With the zeros that pruning leaves.
    pub weights: Loaded,
    /// What the square of each weight costs the layer's outputs, where that is to count.
    pub importances: Option<Importances>,
}

/// Layers that share a codebook: one family, one element type, one quantiser, one weighting.
#[derive(Debug, Clone, Copy, PartialEq)]
struct CodebookKey {
    family: Family,
    dtype: FloatType,
    quantizer: Quantizer,
    weighting: Weighting,
}

/// The weights of several layers, gathered for a codebook.
enum Gathered {
    Alike(DistributionBuilder),
    /// Each with its importance.
    Weighted(Vec<(f32, f64)>),
}

impl Gathered {
    fn new(weighting: Weighting) -> Self {
        match weighting {
            Weighting::None => Self::Alike(DistributionBuilder::default()),
            Weighting::Hessian => Self::Weighted(Vec::new()),
        }
    }

    /// Adds a layer. Where nobody saw its inputs, its weights count as if these were all alike.
    fn observe(&mut self, weights: &[f32], importances: Option<&Importances>) {
        match (self, importances) {
            (Self::Alike(builder), _) => builder.observe(weights),
            (Self::Weighted(pairs), Some(importances)) => pairs.extend(importances.pair(weights)),
            (Self::Weighted(pairs), None) => {
                let energy: f64 = weights.iter().map(|&weight| f64::from(weight) * f64::from(weight)).sum();
                let importance = if energy > 0.0 { 1.0 / energy } else { 0.0 };
                pairs.extend(weights.iter().map(|&weight| (weight, importance)));
            }
        }
    }

    fn finish(self) -> Distribution {
        match self {
            Self::Alike(builder) => builder.finish(),
            Self::Weighted(pairs) => Distribution::weighted(pairs),
        }
    }
}

/// Work of [`find_thresholds`] over one task, in weights read.
pub(super) fn threshold_work(task: &Task) -> u64 {
    if global(task).is_some() { THRESHOLD_PASSES * task.elements() } else { 0 }
}

/// Work of [`fit_codebooks`] over one task, in weights read.
pub(super) fn codebook_work(task: &Task) -> u64 {
    if codebook_key(task).is_some() { task.elements() } else { 0 }
}

/// Gives every task of a [`Scope::Global`] its threshold.
pub(super) fn find_thresholds(model: &Model, tasks: &mut [Task], meter: &Meter) -> Result<(), CompressError> {
    let mut searches: Vec<(Prune, ThresholdSearch, Option<Threshold>)> = Vec::new();
    for prune in tasks.iter().filter_map(global) {
        if !searches.iter().any(|(key, ..)| *key == prune) {
            searches.push((prune, prune.search(), None));
        }
    }
    while searches.iter().any(|(.., threshold)| threshold.is_none()) {
        for task in tasks.iter() {
            let Some(prune) = global(task) else { continue };
            let search = searches.iter_mut().find(|(key, ..)| *key == prune);
            let Some((_, search, None)) = search else { continue };
            Loaded::read(model, task.weight)?.show(&task.weight.name, |layer| search.observe(layer));
            meter.advance(task.elements(), "threshold", &task.weight.name)?;
        }
        for (_, search, threshold) in searches.iter_mut().filter(|(.., threshold)| threshold.is_none()) {
            *threshold = search.end_pass();
        }
    }
    for task in tasks {
        let prune = global(task);
        task.threshold = searches.iter().find(|(key, ..)| Some(*key) == prune).and_then(|(.., threshold)| *threshold);
    }
    Ok(())
}

/// Fits the unified codebooks, and gives each task its own. `seen` are layers as they are once pruned, by the positions of their
/// tasks; the others are pruned here.
pub(super) fn fit_codebooks(
    model: &Model,
    tasks: &mut [Task],
    seen: &HashMap<usize, Seen>,
    meter: &Meter,
) -> Result<(), CompressError> {
    let mut shared = 0..;
    let mut keys: Vec<CodebookKey> = Vec::new();
    for key in tasks.iter().filter_map(codebook_key) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    for key in keys {
        let mut gathered = Gathered::new(key.weighting);
        let (mut layers, mut last) = (0, "");
        for (at, task) in tasks.iter().enumerate().filter(|(_, task)| codebook_key(task) == Some(key)) {
            let name = &task.weight.name;
            match seen.get(&at) {
                Some(Seen { weights, importances }) => {
                    weights.show(name, |layer| gathered.observe(layer.weights, importances.as_ref()));
                }
                None => {
                    let mut loaded = Loaded::read(model, task.weight)?;
                    loaded.prune(task);
                    loaded.show(name, |layer| gathered.observe(layer.weights, None));
                }
            }
            meter.advance(task.elements(), "codebook", name)?;
            (layers, last) = (layers + 1, name);
        }
        let fitted = key.quantizer.fit(&gathered.finish(), key.dtype, &meter.inner());
        let fitted = fitted.map_err(|e| CompressError::quantize(last, e))?;
        let index = if layers > 1 { shared.next() } else { None };
        let codebook = fitted.codebook().clone();
        let unified = Arc::new(Unified { fitted, codebook, family: key.family, index });
        for task in tasks.iter_mut().filter(|task| codebook_key(task) == Some(key)) {
            task.unified = Some(unified.clone());
        }
    }
    Ok(())
}

/// Stores the codebooks that several layers share, in the order of their indices.
pub(super) fn store_codebooks(tasks: &[Task], writer: &mut ArtifactWriter) -> Result<(), CompressError> {
    for expected in 0.. {
        let mut unified = tasks.iter().filter_map(|task| task.unified.as_ref());
        let Some(unified) = unified.find(|unified| unified.index == Some(expected)) else { break };
        writer.add_codebook(&unified.codebook)?;
    }
    Ok(())
}

fn global(task: &Task) -> Option<Prune> {
    let is_global = |prune: &Prune| prune.scope == Scope::Global && prune.pattern.is_none();
    // Whose sparsities are shared out by the inputs of the layers has no threshold.
    task.settings.prune.filter(|prune| is_global(prune) && prune.criterion != Criterion::Obs)
}

fn codebook_key(task: &Task) -> Option<CodebookKey> {
    let quantize = task.settings.quantize.filter(|quantize| quantize.codebook == CodebookScope::Unified)?;
    let Quantize { quantizer, weighting, .. } = quantize;
    Some(CodebookKey { family: task.weight.family, dtype: task.weight.dtype, quantizer, weighting })
}
