//! The zeros of a layer by its inputs; and the pass that gives all layers theirs before a codebook is fitted to several of them.

use std::collections::HashMap;

use super::{Walk, is_unified, is_weighted};
use crate::calibrate::Problem;
use crate::compress::CompressError;
use crate::compress::joint::Seen;
use crate::compress::layer::{Loaded, Task};
use crate::compress::meter::Meter;
use crate::infer::{Moments, Normalized, Reached, Renewed, Visitor};
use crate::prune::{Criterion, Keep, survivors};
use crate::tensor::{FloatData, Statistics};

/// The pass that prunes the layers, each with what pruning has made of the layers before it as its inputs, and notes what their
/// weights count.
pub(super) struct Pruning<'a, 'b> {
    pub walk: &'a Walk<'b>,
    pub tasks: &'a [Task<'a>],
    pub meter: &'a Meter<'a>,
    /// The layers that it reached, by the positions of their tasks.
    pub seen: HashMap<usize, Seen>,
}

impl Visitor<CompressError> for Pruning<'_, '_> {
    fn product(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, CompressError> {
        let Some(&at) = self.walk.positions.get(reached.name) else { return Ok(None) };
        let task = &self.tasks[at];
        let counts = is_unified(task) && is_weighted(task);
        if task.settings.prune.is_none() && !counts {
            return Ok(None);
        }
        let original = self.walk.original(reached)?;
        let (problem, statistics) = self.walk.problem(at, reached, &original, &self.meter.inner())?;
        let pruned = self.walk.prune(at, task, &original, &problem, &statistics, self.meter)?;
        self.meter.advance(task.elements(), "prune", reached.name)?;
        let weights = pruned.to_f32();
        let bias = self.walk.corrected_bias(reached, &original, &weights, &statistics);
        let importances = counts.then(|| problem.importances());
        self.seen.insert(at, Seen { weights: pruned, importances });
        Ok(Some(Renewed { weights, bias: bias.map(|(_, values)| values) }))
    }

    fn normalization(&mut self, reached: &Normalized<'_>) -> Result<Option<Moments>, CompressError> {
        self.walk.moved_statistics(reached)
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
        if let Some(rates) = self.rates {
            if let Some(rate) = rates.get(&task.weight.name) {
                let keep = Keep::Layer(survivors(rows * cols, rate.sparsity));
                pruned.replace(FloatData::F32(problem.solve(keep, &meter.inner())?));
            }
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
}
