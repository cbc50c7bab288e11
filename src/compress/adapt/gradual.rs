//! Pruning while training: the masks of a network whose sparsity grows from step to step.

use std::collections::HashMap;

use super::super::layer::Task;
use crate::finetune::{Parameters, TuneError, Values, cubic_sparsity};
use crate::prune::{Mask, Prune, Scope, Sparsity, Threshold, ThresholdSearch};
use crate::tensor::LayerContext;

/// How often masks change while the sparsity grows.
const CHANGES: u64 = 100;

/// The layers that are pruned while the network is trained.
pub(super) struct Gradual<'a> {
    layers: Vec<Layer<'a>>,
}

/// A layer, and what becomes of it.
struct Layer<'a> {
    task: &'a Task<'a>,
    prune: Prune,
    /// Zeros that it has from the start, as a fraction.
    start: f64,
}

impl<'a> Gradual<'a> {
    /// The layers among `tasks` that are pruned and trained.
    pub(super) fn new(tasks: &'a [Task<'a>], parameters: &Parameters) -> Self {
        let layer = |task: &'a Task<'a>| {
            let prune = task.settings.prune?;
            let is_trained = parameters.get(&task.weight.name).is_some_and(|parameter| !parameter.is_frozen);
            let values = parameters.dense(&task.weight.name).filter(|_| is_trained)?;
            let start = values.iter().filter(|value| **value == 0.0).count() as f64 / values.len().max(1) as f64;
            Some(Layer { task, prune, start })
        };
        let mut layers: Vec<Layer> = tasks.iter().filter_map(layer).collect();
        // Layers that are ranked together have their zeros together.
        let sizes = |prune: Prune, layers: &[Layer]| {
            let of = layers.iter().filter(|layer| layer.prune == prune);
            of.fold((0.0, 0.0), |(zeros, all), layer| {
                let size = layer.task.elements() as f64;
                (zeros + layer.start * size, all + size)
            })
        };
        let starts: Vec<f64> = layers.iter().map(|layer| sizes(layer.prune, &layers)).map(|(z, all)| z / all).collect();
        for (layer, start) in layers.iter_mut().zip(starts).filter(|(layer, _)| layer.prune.scope == Scope::Global) {
            layer.start = start;
        }
        Self { layers }
    }

    /// Whether nothing is pruned.
    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Prunes as far as is due after `step` of the `steps` over which the sparsity grows; nothing between changes.
    pub(super) fn advance(&self, step: u64, steps: u64, parameters: &mut Parameters) -> Result<(), TuneError> {
        let stride = steps.div_ceil(CHANGES).max(1);
        if step > steps || !step.is_multiple_of(stride) && step != steps {
            return Ok(());
        }
        self.prune(parameters, |layer| cubic_sparsity(step, 0, steps, layer.start, layer.prune.sparsity.get()))
    }

    /// Prunes as far as the recipe says.
    pub(super) fn finish(&self, parameters: &mut Parameters) -> Result<(), TuneError> {
        self.prune(parameters, |layer| layer.prune.sparsity.get())
    }

    fn prune(&self, parameters: &mut Parameters, sparsity: impl Fn(&Layer) -> f64) -> Result<(), TuneError> {
        let mut thresholds: Vec<(Prune, Threshold)> = Vec::new();
        let due = |layer: &Layer| {
            let sparsity = Sparsity::new(sparsity(layer).clamp(0.0, layer.prune.sparsity.get())).unwrap_or_default();
            Prune { sparsity, ..layer.prune }
        };
        let matrices: HashMap<&str, Vec<f32>> = self.matrices(parameters);
        for layer in self.layers.iter().filter(|layer| layer.prune.scope == Scope::Global) {
            if thresholds.iter().any(|(prune, _)| *prune == layer.prune) {
                continue;
            }
            let together = self.layers.iter().filter(|other| other.prune == layer.prune);
            let mut search = due(layer).search();
            let threshold = loop {
                together.clone().for_each(|layer| observe(&mut search, layer, &matrices));
                if let Some(threshold) = search.end_pass() {
                    break threshold;
                }
            };
            thresholds.push((layer.prune, threshold));
        }
        for layer in &self.layers {
            let name = layer.task.weight.name.as_str();
            let context = layer.context(&matrices[name]);
            let known = thresholds.iter().find(|(prune, _)| *prune == layer.prune).map(|(_, threshold)| *threshold);
            let due = due(layer);
            let mask = match due.ranks_rows() {
                true => due.mask_rows(&context),
                false => due.mask(&context, known.unwrap_or_else(|| due.threshold(&context))),
            };
            let kept: Vec<bool> = (0..mask.len()).map(|cell| mask.is_kept(cell)).collect();
            let kept = layer.task.weight.layout.to_tensor(&layer.task.weight.dims, kept);
            let values = parameters.dense(name).unwrap_or_default();
            parameters.set(name, Values::Free { values, mask: Some(Mask::new(kept.into_iter())) })?;
        }
        Ok(())
    }

    /// The layers as the criteria see them, by name.
    fn matrices(&self, parameters: &Parameters) -> HashMap<&'a str, Vec<f32>> {
        let matrix = |layer: &Layer<'a>| {
            let weight = layer.task.weight;
            let values = parameters.dense(&weight.name).unwrap_or_default();
            (weight.name.as_str(), weight.layout.to_matrix(&weight.dims, values))
        };
        self.layers.iter().map(matrix).collect()
    }
}

fn observe(search: &mut ThresholdSearch, layer: &Layer, matrices: &HashMap<&str, Vec<f32>>) {
    search.observe(&layer.context(&matrices[layer.task.weight.name.as_str()]));
}

impl Layer<'_> {
    fn context<'b>(&self, matrix: &'b [f32]) -> LayerContext<'b>
    where
        Self: 'b,
    {
        let weight = self.task.weight;
        let (rows, cols) = weight.layout.shape(&weight.dims).expect("a model's layouts fit its tensors");
        LayerContext::new("", rows, cols, matrix)
    }
}
