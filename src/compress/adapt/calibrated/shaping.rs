//! The pass that prunes and shares the layers, each with what the layers before it have become as its inputs.

use std::collections::HashMap;

use super::Walk;
use crate::artifact::onnx_name;
use crate::compress::CompressError;
use crate::compress::joint::Seen;
use crate::compress::layer::{Prepared, Task};
use crate::compress::meter::Meter;
use crate::compress::report::CalibratedLayer;
use crate::infer::{Moments, Normalized, Reached, Renewed, Visitor};
use crate::tensor::{FloatData, FloatType};

/// The pass that changes the layers.
pub(super) struct Shaping<'a, 'b> {
    pub walk: &'a mut Walk<'b>,
    pub tasks: &'a [Task<'a>],
    pub meter: &'a Meter<'a>,
    /// Layers that have their zeros, by the positions of their tasks.
    pub seen: HashMap<usize, Seen>,
    pub layers: HashMap<usize, Prepared>,
    /// New elements of tensors of the model, biases above all.
    pub changed: HashMap<String, Vec<u8>>,
}

impl Visitor<CompressError> for Shaping<'_, '_> {
    fn product(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, CompressError> {
        let Some(&at) = self.walk.positions.get(reached.name) else { return Ok(None) };
        let task = &self.tasks[at];
        let is_lossy = task.settings.prune.is_some() || task.settings.quantize.is_some() || self.walk.rates.is_some();
        if !is_lossy {
            return Ok(None);
        }
        let inner = self.meter.inner();
        let original = self.walk.original(reached)?;
        let (problem, statistics) = self.walk.problem(at, reached, &original, &inner)?;
        let rate = self.walk.rates.and_then(|rates| rates.get(reached.name)).copied();
        let pruned = match self.seen.remove(&at) {
            Some(seen) => seen.weights,
            None => {
                let pruned = self.walk.prune(at, task, &original, &problem, &statistics, self.meter)?;
                self.meter.advance(task.elements(), "prune", reached.name)?;
                pruned
            }
        };
        let matrix = match (self.walk.rates, rate) {
            (_, Some(rate)) => problem.descend(pruned.share_uniformly(task, rate.step, self.meter)?, &inner)?,
            // A layer of zeros: there was nothing to choose.
            (Some(_), None) => pruned.keep(task, self.meter)?,
            (None, None) => pruned.share_calibrated(task, &problem, self.meter)?,
        };
        let weights: Vec<f32> = (0..matrix.rows() * matrix.cols()).map(|i| matrix.value(i) as f32).collect();
        let weight_snr_db = original.snr_db(&matrix);
        self.layers.insert(at, Prepared { matrix, weight_snr_db });
        self.meter.advance(task.elements(), "quantize", reached.name)?;
        let bias = self.walk.corrected_bias(reached, &original, &weights, &statistics);
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
        let Some(moved) = self.walk.moved_statistics(reached)? else { return Ok(None) };
        let (mean_name, variance_name) = (reached.mean.0, reached.variance.0);
        for (name, values) in [(mean_name, &moved.mean), (variance_name, &moved.variance)] {
            self.changed.insert(name.to_owned(), self.bytes_of(name, values));
        }
        self.walk.notes.push(format!("{mean_name}, {variance_name}: estimated again behind the compressed layers"));
        Ok(Some(moved))
    }
}

impl Shaping<'_, '_> {
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
