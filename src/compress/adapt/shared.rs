//! Shared values as what is trained: matrices become symbols into codebooks that move, and come back.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::CompressError;
use super::super::joint::Unified;
use super::super::layer::{Loaded, Prepared, Task};
use crate::finetune::{Codebook as Trained, Parameter, Parameters, Values as Numbers};
use crate::model::Model;
use crate::quantize::QuantizeError;
use crate::tensor::{Codebook, Matrix, Values};

/// Codebooks among the parameters, by where they came from.
#[derive(Default)]
pub(super) struct Codebooks(HashMap<*const Codebook, usize>);

impl Codebooks {
    /// Gives every layer that shares values, as `shares` tells of its task, its symbols among `parameters`; the others keep what
    /// they have.
    pub(super) fn share(
        layers: &[Prepared],
        tasks: &[Task],
        parameters: &mut Parameters,
        shares: impl Fn(&Task) -> bool,
    ) -> Self {
        let mut known = Self::default();
        for (layer, task) in layers.iter().zip(tasks) {
            let weight = task.weight;
            let Some(parameter) = parameters.get(&weight.name).cloned() else { continue };
            let (Values::Shared { codebook, indices }, true) = (layer.matrix.values(), shares(task)) else {
                continue;
            };
            let id = *known.0.entry(Arc::as_ptr(codebook)).or_insert_with(|| {
                let values = codebook.values().iter().map(|value| *value as f32).collect();
                parameters.add_codebook(Trained { values, zero: codebook.zero() })
            });
            let symbols = weight.layout.to_tensor(&weight.dims, indices.clone());
            let values = Numbers::Shared { codebook: id, symbols };
            parameters.insert(&weight.name, Parameter { values, ..parameter });
        }
        known
    }

    /// Whether no layer shares values.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The layers with the values and symbols of `parameters`. Layers that share a codebook go on sharing it.
    pub(super) fn layers(
        &self,
        layers: Vec<Prepared>,
        tasks: &mut [Task],
        parameters: &Parameters,
    ) -> Result<Vec<Prepared>, CompressError> {
        let mut moved: HashMap<*const Codebook, (Arc<Codebook>, Vec<u16>)> = HashMap::new();
        let mut done = Vec::with_capacity(layers.len());
        for (layer, task) in layers.into_iter().zip(tasks) {
            let (rows, cols) = (layer.matrix.rows(), layer.matrix.cols());
            let dtype = layer.matrix.dtype();
            let fail = |error: QuantizeError| CompressError::quantize(&task.weight.name, error);
            let key = match layer.matrix.values() {
                Values::Shared { codebook, .. } => Arc::as_ptr(codebook),
                Values::Raw { .. } => std::ptr::null(),
            };
            let (Some(&id), Some(parameter)) = (self.0.get(&key), parameters.get(&task.weight.name)) else {
                done.push(trained_alone(layer, task, parameters)?);
                continue;
            };
            if let std::collections::hash_map::Entry::Vacant(vacant) = moved.entry(key) {
                let trained = &parameters.codebooks()[id];
                // Adding zero makes a value that came to -0.0 the zero that pruned weights have.
                let values: Vec<f64> =
                    trained.values.iter().map(|value| dtype.round(f64::from(*value)) + 0.0).collect();
                let codebook = Codebook::from_unsorted(dtype, values.iter().copied()).map_err(|e| fail(e.into()))?;
                let symbols = values.iter().map(|value| codebook.symbol(*value).unwrap_or_default()).collect();
                vacant.insert((Arc::new(codebook), symbols));
            }
            let (codebook, symbols) = &moved[&key];
            let Numbers::Shared { symbols: of_tensor, .. } = &parameter.values else {
                done.push(layer);
                continue;
            };
            let of_tensor = of_tensor.iter().map(|symbol| symbols[usize::from(*symbol)]).collect();
            let indices = task.weight.layout.to_matrix(&task.weight.dims, of_tensor);
            let matrix = Matrix::shared(rows, cols, codebook.clone(), indices).map_err(|error| fail(error.into()))?;
            if let Some(unified) = &task.unified {
                let Unified { fitted, family, index, .. } = (**unified).clone();
                task.unified = Some(Arc::new(Unified { fitted, codebook: codebook.clone(), family, index }));
            }
            done.push(Prepared { matrix, ..layer });
        }
        Ok(done)
    }
}

/// A layer that shares no values, with those that it has by now.
fn trained_alone(layer: Prepared, task: &Task, parameters: &Parameters) -> Result<Prepared, CompressError> {
    let weight = task.weight;
    let is_trained = parameters.get(&weight.name).is_some_and(|parameter| !parameter.is_frozen);
    let Some(values) = parameters.dense(&weight.name).filter(|_| is_trained) else { return Ok(layer) };
    Prepared::of_tensor(task, values)
}

/// Gives every weight the nearest of the values that its layer shares now. `dense` holds the weights before they were shared.
pub(super) fn reassign(parameters: &mut Parameters, dense: &Parameters) -> Result<(), crate::finetune::TuneError> {
    let names: Vec<String> = parameters.tensors().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let Some(Parameter { values: Numbers::Shared { codebook, symbols }, is_frozen: false, .. }) =
            parameters.get(&name).cloned()
        else {
            continue;
        };
        let (book, Some(weights)) = (&parameters.codebooks()[codebook], dense.dense(&name)) else { continue };
        let mut ranked: Vec<u16> = (0..book.values.len() as u16).filter(|symbol| Some(*symbol) != book.zero).collect();
        ranked.sort_by(|a, b| book.values[usize::from(*a)].total_cmp(&book.values[usize::from(*b)]));
        let value = |at: usize| book.values[usize::from(ranked[at])];
        let nearest = |weight: f32| {
            let above = ranked.partition_point(|symbol| book.values[usize::from(*symbol)] < weight);
            match above {
                0 => ranked[0],
                above if above == ranked.len() => ranked[above - 1],
                above if weight - value(above - 1) <= value(above) - weight => ranked[above - 1],
                above => ranked[above],
            }
        };
        let symbols = symbols.iter().zip(weights).map(|(&symbol, weight)| match Some(symbol) == book.zero {
            true => symbol,
            false if ranked.is_empty() => symbol,
            false => nearest(weight),
        });
        let values = Numbers::Shared { codebook, symbols: symbols.collect() };
        parameters.set(&name, values)?;
    }
    Ok(())
}

/// The layers with their signal to noise ratio against the upload.
pub(super) fn against(model: &Model, tasks: &[Task], layers: Vec<Prepared>) -> Result<Vec<Prepared>, CompressError> {
    let compared = |(layer, task): (Prepared, &Task)| {
        let weight_snr_db = Loaded::read(model, task.weight)?.snr_db(&layer.matrix);
        Ok(Prepared { weight_snr_db, ..layer })
    };
    layers.into_iter().zip(tasks).map(compared).collect()
}
