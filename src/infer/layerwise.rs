//! A graph run layer by layer over many batches: each product is reached with its inputs of all batches, may get another
//! weight, and is then run with it, so that later layers see what the earlier ones have become.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use tract_onnx::pb;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::plan::{EvalContext, eval};

use super::absorb::{absorb, added};
use super::allowance::{Allowance, Demand, optimize};
use super::plan::attempt;
use super::ports::{Ports, ports};
use super::product::{Held, Kernel, Normalization, ProductOp, SharedWeight, channels};
use super::rewrite::{check_indices, install, replace_normalizations, rewrite};
use super::widen::widen_halves;
use super::{Array, InferError, restore};
use crate::codec::{self, CodecId, CompressedMatrix, Head, Words};
use crate::model::{self, Model, Weight};
use crate::progress::Progress;
use crate::tensor::{FloatData, FloatType, Matrix};

/// A graph prepared to be run layer by layer for batches of one shape.
pub(crate) struct Layerwise {
    model: TypedModel,
    order: Vec<usize>,
    inputs: Ports,
    /// By what tells the held matrix from others.
    weights: HashMap<usize, Layer>,
    demand: Demand,
    allowance: Arc<Allowance>,
}

/// A weight that products multiply by.
struct Layer {
    name: String,
    /// The constant that is the bias of its only product, and nothing else's.
    bias: Option<String>,
}

/// A product that the run has reached, by its first use of a weight.
pub(crate) struct Reached<'a> {
    /// The weight's name.
    pub(crate) name: &'a str,
    /// How the activation meets it.
    pub(crate) kernel: &'a Kernel,
    /// The activation, of each batch.
    pub(crate) activations: Vec<&'a TValue>,
    /// Name and values of a constant bias that nothing else reads and that is added as it is, one for each output.
    pub(crate) bias: Option<(&'a str, &'a [f32])>,
}

/// A normalisation that the run has reached, whose statistics are constants of its own.
pub(crate) struct Normalized<'a> {
    /// Name and values of the mean of each channel.
    pub(crate) mean: (&'a str, &'a [f32]),
    /// Those of the variance.
    pub(crate) variance: (&'a str, &'a [f32]),
    /// The activation, of each batch.
    activations: Vec<&'a TValue>,
}

/// A batch of what a normalisation reads.
pub(crate) struct Channels<'a> {
    /// How many there are.
    pub(crate) count: usize,
    /// Values that follow each other in one.
    pub(crate) area: usize,
    /// All values, channel behind channel, sample behind sample.
    pub(crate) values: &'a [f32],
}

/// The statistics that a normalisation goes on with, one of each a channel.
pub(crate) struct Moments {
    pub(crate) mean: Vec<f32>,
    pub(crate) variance: Vec<f32>,
}

impl Normalized<'_> {
    /// What it reads, batch by batch.
    ///
    /// # Errors
    /// [`InferError::Run`] where an activation has no channels.
    pub(crate) fn channels(&self) -> Result<Vec<Channels<'_>>, InferError> {
        let batches = self.activations.iter().map(|activation| {
            let (count, area) = channels(activation.shape())?;
            Ok(Channels { count, area, values: values_of(activation)? })
        });
        let batches: TractResult<_> = batches.collect();
        batches.map_err(|error| InferError::Run { reason: format!("{error:#}") })
    }
}

/// What looks at a run layer by layer, and may change the layers.
pub(crate) trait Visitor<E> {
    /// Called at the first product by each weight; the weight that it returns is used there and wherever else the graph multiplies
    /// by it.
    fn product(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, E>;

    /// Called at each normalisation; the statistics that it returns are used there.
    fn normalization(&mut self, _reached: &Normalized<'_>) -> Result<Option<Moments>, E> {
        Ok(None)
    }
}

/// What a product goes on with.
pub(crate) struct Renewed {
    /// The weight: outputs x inputs, row-major.
    pub(crate) weights: Vec<f32>,
    /// The bias, where [`Reached::bias`] was one.
    pub(crate) bias: Option<Vec<f32>>,
}

impl Layerwise {
    /// Prepares the graph of `model` for batches of the shape of `batch`.
    ///
    /// # Errors
    /// As those of loading a [`Predictor`](super::Predictor).
    pub(crate) fn new(model: &Model, batch: &[(String, Array)]) -> Result<Self, InferError> {
        let mut graph = model.skeleton().ok_or(InferError::NoGraph)?.clone();
        let mut biases = biases(&graph);
        let mut weights = HashMap::new();
        let mut kept = Vec::new();
        let mut operators = rewrite(&mut graph, |weight| {
            let held = Held::Coded(Arc::new(restore::matrix_of(model, weight)?));
            let bias = biases.remove(&weight.name);
            weights.insert(held.address() as usize, Layer { name: weight.name.clone(), bias });
            kept.push(held.clone());
            Ok(Some(held))
        })?;
        restore::restore(&mut graph, restore::from_model(model))?;
        let (inputs, _) = ports(&mut graph)?;
        widen_halves(&mut graph);
        absorb(&mut graph, &mut operators);
        check_indices(&mut graph, &mut operators);
        replace_normalizations(&mut graph, &mut operators);
        let values = values(&inputs, batch.to_vec())?;
        let allowance = Allowance::of(&graph);
        let prepared = attempt(|| {
            let parsed = tract_onnx::onnx().with_ignore_value_info(true).parse(&graph, None)?;
            ensure!(parsed.unresolved_inputs.is_empty(), "nothing produces {}", parsed.unresolved_inputs.join(", "));
            let mut inference = parsed.model;
            install(&mut inference, operators);
            for (ix, value) in values.iter().enumerate() {
                inference.set_input_fact(ix, InferenceFact::dt_shape(value.datum_type(), value.shape()))?;
            }
            let model = optimize(inference, &allowance)?;
            let demand = Demand::of(&model, &allowance)?;
            demand.check(&model, &values, &allowance)?;
            let order = model.eval_order()?;
            Ok((model, order, demand))
        });
        let (model, order, demand) = prepared.map_err(|error| match error {
            InferError::Run { reason } => InferError::Load { reason },
            error => error,
        })?;
        drop(kept);
        Ok(Self { model, order, inputs, weights, demand, allowance })
    }

    /// Bytes of the values that are alive at once, at most, when `batches` batches are run; without what a product needs
    /// beside its output.
    pub(crate) fn peak_bytes(&self, batches: usize) -> u64 {
        let last_uses = self.last_uses();
        let bytes = |node: usize| {
            let facts = self.model.node(node).outputs.iter().filter(|output| output.fact.konst.is_none());
            let sizes = facts.map(|output| output.fact.mem_size().as_i64().and_then(|size| u64::try_from(size).ok()));
            sizes.map(Option::unwrap_or_default).sum::<u64>()
        };
        let (mut alive, mut peak) = (0u64, 0u64);
        for (position, &node) in self.order.iter().enumerate() {
            alive = alive.saturating_add(bytes(node));
            peak = peak.max(alive);
            let inputs = self.model.node(node).inputs.iter().map(|input| input.node);
            let mut ended: Vec<usize> = inputs.filter(|input| last_uses.get(input) == Some(&position)).collect();
            ended.sort_unstable();
            ended.dedup();
            alive -= ended.into_iter().map(bytes).sum::<u64>().min(alive);
        }
        peak.saturating_mul(batches as u64)
    }

    /// Whether normalisations are reached.
    pub(crate) fn normalizes(&self) -> bool {
        self.order.iter().any(|&id| self.model.node(id).op_is::<Normalization>())
    }

    /// Runs all batches, each of the shape that the graph was prepared for, with `visitor` along.
    ///
    /// # Errors
    /// Those of `visitor`; an [`InferError`]; [`Cancelled`](crate::progress::Cancelled).
    pub(crate) fn run<E: From<InferError> + From<crate::progress::Cancelled>>(
        &self,
        batches: Vec<Vec<(String, Array)>>,
        progress: &dyn Progress,
        visitor: &mut dyn Visitor<E>,
    ) -> Result<(), E> {
        let mut given: Vec<TVec<Option<TValue>>> = Vec::with_capacity(batches.len());
        for batch in batches {
            given.push(values(&self.inputs, batch)?.into_iter().map(Some).collect());
        }
        let sources: HashMap<usize, usize> =
            self.model.inputs.iter().enumerate().map(|(ix, outlet)| (outlet.node, ix)).collect();
        let last_uses = self.last_uses();
        let mut alive: HashMap<usize, Vec<TVec<TValue>>> = HashMap::new();
        let mut renewed: HashMap<usize, Option<InPlace>> = HashMap::new();
        for (position, &id) in self.order.iter().enumerate() {
            progress.check()?;
            let node = self.model.node(id);
            let outputs = if let Some(&ix) = sources.get(&id) {
                given.iter_mut().map(|batch| batch[ix].take().into_iter().collect()).collect()
            } else {
                let inputs = self.inputs_of(id, &alive, given.len());
                match (node.op_as::<ProductOp>(), node.op_as::<Normalization>()) {
                    (Some(product), _) => self.product(product, inputs, &mut renewed, visitor)?,
                    (None, Some(normalization)) => normalize(normalization, inputs, visitor)?,
                    (None, None) => {
                        let batches = inputs.into_par_iter().map(|inputs| self.evaluate(node, inputs));
                        batches.collect::<Result<Vec<_>, _>>()?
                    }
                }
            };
            if last_uses.contains_key(&id) {
                alive.insert(id, outputs);
            }
            alive.retain(|id, _| last_uses.get(id).is_some_and(|&last| last > position));
        }
        Ok(())
    }

    /// For each node that is read, the position in the order of the last that does.
    fn last_uses(&self) -> HashMap<usize, usize> {
        let readers = self.order.iter().enumerate();
        readers.flat_map(|(position, &id)| self.model.node(id).inputs.iter().map(move |i| (i.node, position))).collect()
    }

    fn inputs_of(&self, id: usize, alive: &HashMap<usize, Vec<TVec<TValue>>>, batches: usize) -> Vec<TVec<TValue>> {
        let inputs = &self.model.node(id).inputs;
        let of_batch = |batch: usize| inputs.iter().map(|i| alive[&i.node][batch][i.slot].clone()).collect();
        (0..batches).map(of_batch).collect()
    }

    fn evaluate(&self, node: &TypedNode, inputs: TVec<TValue>) -> Result<TVec<TValue>, InferError> {
        attempt(|| {
            let context = EvalContext::out_of_plan();
            if self.demand.is_untold(node.id) {
                self.demand.check_node(node, context.symbols, &inputs, &self.allowance)?;
            }
            let mut state = node.op().state(&context)?;
            eval(&context, state.as_deref_mut(), node, inputs)
        })
    }

    /// Shows a product to `visit` where it is the first by its weight, and runs it with what is known by then.
    fn product<E: From<InferError>>(
        &self,
        product: &ProductOp,
        mut inputs: Vec<TVec<TValue>>,
        renewed: &mut HashMap<usize, Option<InPlace>>,
        visitor: &mut dyn Visitor<E>,
    ) -> Result<Vec<TVec<TValue>>, E> {
        let address = product.kernel.weight().address() as usize;
        if let (Some(layer), false, false) =
            (self.weights.get(&address), renewed.contains_key(&address), product.kernel.is_transposed())
        {
            let own_bias = inputs.first().and_then(|inputs| inputs.get(1)).cloned();
            let bias = own_bias.as_ref().and_then(|bias| own(product, bias, layer));
            let activations = inputs.iter().filter_map(|inputs| inputs.first()).collect();
            let new = visitor.product(&Reached { name: &layer.name, kernel: &product.kernel, activations, bias })?;
            let held = new.map(|new| InPlace::new(&layer.name, product, new, own_bias.as_ref())).transpose()?;
            renewed.insert(address, held);
        }
        let mut product = product.clone();
        if let Some(Some(new)) = renewed.get(&address) {
            product.kernel.replace(new.held.clone());
            if let Some(bias) = &new.bias {
                inputs.iter_mut().for_each(|inputs| inputs[1] = bias.clone());
            }
        }
        let run = |inputs: TVec<TValue>| attempt(|| product.eval(&EvalContext::out_of_plan(), inputs));
        Ok(inputs.into_par_iter().map(run).collect::<Result<Vec<_>, _>>()?)
    }
}

/// Shows a normalisation to `visitor`, and runs it with what that makes of it.
fn normalize<E: From<InferError>>(
    normalization: &Normalization,
    mut inputs: Vec<TVec<TValue>>,
    visitor: &mut dyn Visitor<E>,
) -> Result<Vec<TVec<TValue>>, E> {
    let fail = |error: TractError| InferError::Run { reason: format!("{error:#}") };
    let statistic = |slot: usize| inputs.first().and_then(|inputs| inputs.get(slot)).cloned();
    if let (Some(mean), Some(variance)) = (statistic(3), statistic(4)) {
        let reached = Normalized {
            mean: (&normalization.mean, values_of(&mean).map_err(fail)?),
            variance: (&normalization.variance, values_of(&variance).map_err(fail)?),
            activations: inputs.iter().filter_map(|inputs| inputs.first()).collect(),
        };
        if let Some(Moments { mean, variance }) = visitor.normalization(&reached)? {
            let (mean, variance) = (tensor1(&mean).into_tvalue(), tensor1(&variance).into_tvalue());
            inputs.iter_mut().for_each(|inputs| (inputs[3], inputs[4]) = (mean.clone(), variance.clone()));
        }
    }
    let run = |inputs: TVec<TValue>| attempt(|| normalization.eval(&EvalContext::out_of_plan(), inputs));
    Ok(inputs.into_par_iter().map(run).collect::<Result<Vec<_>, _>>()?)
}

fn values_of(tensor: &TValue) -> TractResult<&[f32]> {
    tensor.try_as_plain_ram()?.as_slice::<f32>()
}

/// A weight in the form that products take.
struct InPlace {
    held: Held,
    bias: Option<TValue>,
}

impl InPlace {
    fn new(name: &str, product: &ProductOp, new: Renewed, bias: Option<&TValue>) -> Result<Self, InferError> {
        let misfit = |reason: String| InferError::Misfit { name: name.to_owned(), reason };
        let weight = product.kernel.weight();
        let (rows, cols) = (weight.outputs(), weight.inputs());
        let matrix = Matrix::raw(rows, cols, FloatType::F32, FloatData::F32(new.weights));
        let matrix = matrix.map_err(|error| misfit(error.to_string()))?;
        let rows_per_block = codec::rows_per_block(rows, cols);
        let payload = codec::encode(&matrix, CodecId::Dense, rows_per_block);
        let payload = payload.map_err(|error| misfit(error.to_string()))?;
        let head = Head { rows, cols, rows_per_block, words: Words::Values(FloatType::F32) };
        let matrix = CompressedMatrix::open(CodecId::Dense, head, payload.into());
        let held = Held::Coded(Arc::new(matrix.map_err(|error| misfit(error.to_string()))?));
        let bias = match (new.bias, bias) {
            (Some(values), Some(old)) => {
                let tensor = Tensor::from_shape(old.shape(), &values).map_err(|error| misfit(error.to_string()))?;
                Some(tensor.into_tvalue())
            }
            _ => None,
        };
        Ok(Self { held, bias })
    }
}

/// The bias of a product where it is a constant of its own that is added to each output as it is.
fn own<'a>(product: &ProductOp, bias: &'a TValue, layer: &'a Layer) -> Option<(&'a str, &'a [f32])> {
    let units = product.kernel.weight().outputs();
    let name = layer.bias.as_deref()?;
    let is_plain = product.kernel.factors() == (1.0, 1.0) && bias.len() == units;
    let is_per_unit = product.kernel.adds_per_unit(bias.shape());
    let values = values_of(bias).ok()?;
    (is_plain && is_per_unit).then_some((name, values))
}

/// The constant that is the bias of the only use of each weight, by the weight's name, where nothing else reads it.
fn biases(model: &pb::ModelProto) -> HashMap<String, String> {
    let (weights, _) = model::analyze(model);
    let Some(graph) = &model.graph else { return HashMap::new() };
    let mut reads: HashMap<&str, usize> = HashMap::new();
    for node in &graph.node {
        node.input.iter().for_each(|name| *reads.entry(name).or_default() += 1);
        model::captured_names(node).into_iter().for_each(|name| *reads.entry(name).or_default() += 1);
    }
    graph.output.iter().for_each(|output| *reads.entry(&output.name).or_default() += 1);
    let is_constant = |name: &str| {
        model::constant_tensors(graph).any(|(constant, tensor, _)| {
            constant == name && model::shape_of(tensor).is_some_and(|(_, element)| element.float().is_some())
        })
    };
    let bias = |weight: &Weight| {
        let [usage] = &weight.uses[..] else { return None };
        let node = graph.node.get(usage.node)?;
        let is_own = |name: &str| !name.is_empty() && reads.get(name) == Some(&1) && is_constant(name);
        let name = match node.op_type.as_str() {
            "Gather" => None,
            "MatMul" => added(graph, node.output.first()?).map(|(_, name)| name),
            _ => node.input.get(2).map(String::as_str),
        };
        name.filter(|name| is_own(name)).map(|name| (weight.name.clone(), name.to_owned()))
    };
    weights.iter().filter_map(bias).collect()
}

/// A batch as the graph reads it, in graph order.
fn values(inputs: &Ports, batch: Vec<(String, Array)>) -> Result<TVec<TValue>, InferError> {
    let checked = inputs.check(batch)?;
    let named = checked.arrays.into_iter().zip(&inputs.ports);
    let value = |(array, port): (Array, &model::Port)| {
        let tensor = super::predictor::widened(array).into_tensor();
        let tensor = tensor.map_err(|source| InferError::Array { name: port.name.clone(), source })?;
        Ok(tensor.into_tvalue())
    };
    named.map(value).collect()
}

impl Kernel {
    /// The weight.
    fn weight(&self) -> &SharedWeight {
        match self {
            Self::Linear(linear) => &linear.weight,
            Self::Convolution(convolution) => &convolution.weight,
        }
    }

    /// Puts another matrix in the place of the weight.
    fn replace(&mut self, held: Held) {
        let weight = match self {
            Self::Linear(linear) => &mut linear.weight,
            Self::Convolution(convolution) => &mut convolution.weight,
        };
        if let Some(new) = SharedWeight::new(held, weight.is_transposed()) {
            *weight = new;
        }
    }

    /// Whether a bias of this shape has one value for each output.
    fn adds_per_unit(&self, shape: &[usize]) -> bool {
        match self {
            Self::Linear(linear) => linear.is_per_unit(shape),
            Self::Convolution(_) => true,
        }
    }
}
