//! The zeros of a layer by its inputs; and the pass that gives all layers theirs before any is shared.

use std::collections::HashMap;

use super::Walk;
use crate::calibrate::Problem;
use crate::compress::joint::Surviving;
use crate::compress::layer::{Loaded, Task};
use crate::compress::meter::Meter;
use crate::compress::{CompressError, Weighting};
use crate::infer::{Reached, Renewed, Visitor};
use crate::prune::{Criterion, Keep, survivors};
use crate::tensor::{FloatData, Statistics};

/// The pass that prunes the layers, each with what pruning has made of the layers before it as its inputs, for codebooks that
/// several of them share.
pub(super) struct Pruning<'a, 'b> {
    pub walk: &'a Walk<'b>,
    pub tasks: &'a [Task<'a>],
    pub meter: &'a Meter<'a>,
    /// The layers that it reached, by the positions of their tasks.
    pub seen: HashMap<usize, Surviving>,
}

impl Visitor<CompressError> for Pruning<'_, '_> {
    fn product(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, CompressError> {
        let Some(&at) = self.walk.positions.get(reached.name) else { return Ok(None) };
        let task = &self.tasks[at];
        let is_weighted = task.settings.quantize.is_some_and(|quantize| quantize.weighting == Weighting::Hessian);
        if task.settings.prune.is_none() && !is_weighted {
            return Ok(None);
        }
        let (problem, statistics) = self.walk.problem(at, reached, &self.meter.inner())?;
        let original = Loaded::read(self.walk.model, task)?;
        let pruned = self.walk.prune(at, task, &original, &problem, &statistics, self.meter)?;
        self.meter.advance(task.elements(), "prune", reached.name)?;
        let weights = pruned.to_f32();
        let bias = self.walk.corrected_bias(reached, &original, &weights, &statistics);
        let importances = is_weighted.then(|| problem.importances());
        self.seen.insert(at, Surviving { weights: pruned, importances });
        Ok(Some(Renewed { weights, bias: bias.map(|(_, values)| values) }))
    }
}

impl Walk<'_> {
    /// The weights of a layer with its zeros.
    pub(super) fn prune(
        &self,
        at: usize,
        task: &Task,
        original: &Loaded,
        problem: &Problem,
        statistics: &Statistics,
        meter: &Meter,
    ) -> Result<Loaded, CompressError> {
        let mut pruned = original.clone();
        let (rows, cols) = self.shapes[at];
        let rate = self.rates.and_then(|rates| rates.get(&task.weight.name));
        let keep = rate.map(|rate| Keep::Layer(survivors(rows * cols, rate.sparsity)));
        if let Some(keep) = keep {
            pruned.replace(FloatData::F32(problem.solve(keep, &meter.inner())?));
            return Ok(pruned);
        }
        let Some(prune) = task.settings.prune else { return Ok(pruned) };
        if prune.criterion != Criterion::Obs {
            pruned.prune_with(task, Some(statistics));
            return Ok(pruned);
        }
        let keep = match self.survivors[at] {
            Some(survivors) => Keep::Layer(survivors),
            None => prune.keep(rows, cols).unwrap_or(Keep::Layer(rows * cols)),
        };
        let weights = problem.solve(keep, &meter.inner())?;
        let dtype = task.weight.dtype;
        let rounded = weights.into_iter().map(|weight| dtype.round(f64::from(weight)) as f32).collect();
        pruned.replace(FloatData::F32(rounded));
        Ok(pruned)
    }

    /// The name of the bias that takes up by how much the outputs of a layer change in the mean, and its values.
    pub(super) fn corrected_bias<'a>(
        &self,
        reached: &Reached<'a>,
        original: &Loaded,
        weights: &[f32],
        statistics: &Statistics,
    ) -> Option<(&'a str, Vec<f32>)> {
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
}
