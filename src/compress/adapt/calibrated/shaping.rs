//! The pass that prunes and shares the layers, each with what the layers before it have become as its inputs.

use std::collections::HashMap;

use super::Walk;
use crate::artifact::onnx_name;
use crate::calibrate::{self, ChannelMoments, Problem};
use crate::compress::CompressError;
use crate::compress::layer::{Loaded, Prepared, Task};
use crate::compress::meter::Meter;
use crate::compress::report::CalibratedLayer;
use crate::infer::{Moments, Normalized, Reached, Renewed, Visitor};
use crate::prune::{Criterion, Keep, survivors};
use crate::tensor::{FloatData, FloatType, Statistics};

/// The pass that changes the layers.
pub(super) struct Shaping<'a, 'b> {
    pub walk: &'a mut Walk<'b>,
    pub tasks: &'a [Task<'a>],
    pub meter: &'a Meter<'a>,
    pub layers: HashMap<usize, Prepared>,
    /// New elements of tensors of the model, biases above all.
    pub changed: HashMap<String, Vec<u8>>,
}

impl Visitor<CompressError> for Shaping<'_, '_> {
    fn product(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, CompressError> {
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
            self.changed.insert((*name).to_owned(), self.bytes_of(name, values));
        }
        Ok(Some(Renewed { weights, bias: bias.map(|(_, values)| values) }))
    }

    fn normalization(&mut self, reached: &Normalized<'_>) -> Result<Option<Moments>, CompressError> {
        let ((mean_name, mean), (variance_name, variance)) = (reached.mean, reached.variance);
        let Some(before) = self.walk.moments.get(mean_name) else { return Ok(None) };
        let Some(moved) = calibrate::moved((mean, variance), before, &ChannelMoments::of(reached)?) else {
            return Ok(None);
        };
        for (name, values) in [(mean_name, &moved.mean), (variance_name, &moved.variance)] {
            self.changed.insert(name.to_owned(), self.bytes_of(name, values));
        }
        self.walk.notes.push(format!("{mean_name}, {variance_name}: estimated again behind the compressed layers"));
        Ok(Some(moved))
    }
}

impl Shaping<'_, '_> {
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

    /// Values in the type of the tensor `name`.
    fn bytes_of(&self, name: &str, values: &[f32]) -> Vec<u8> {
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
