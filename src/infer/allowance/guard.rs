//! Operators in front of which somebody asks how much they will make.
//!
//! While it analyses a graph, tract evaluates every operator whose inputs are constants, and throws the result away again where
//! it is larger than a few MiB. A [`Guarded`] operator asks first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tract_onnx::ops::logic::If;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::scan::InferenceScan;
use tract_onnx::tract_hir::ops::source::Source;
use tract_onnx::tract_hir::tract_core::ops::dummy::Dummy;
use tract_onnx::tract_hir::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::tract_core::optim::CONST_FOLD_MEM_BUDGET;

use super::size::elements;
use super::{Allowance, Excess};

/// Operators that are left to the prediction: they take more than their inputs and outputs while they run, or (Compress) may leave
/// elements of the output as they were found in memory.
const NOT_FOLDED: [&str; 14] = [
    "Compress",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "QLinearConv",
    "AveragePool",
    "MaxPool",
    "LSTM",
    "GRU",
    "RNN",
    "Attention",
    "MultiHeadAttention",
    "GroupQueryAttention",
    "NonMaxSuppression",
];

/// Operators with inputs that tell extents. tract reads extents as i32 where it works out a shape, and drops the bits above; some of
/// these operators then make what all bits say.
const TAKE_EXTENTS: [&str; 15] = [
    "ConstantOfShape",
    "Expand",
    "Tile",
    "Pad",
    "Reshape",
    "Resize",
    "OneHot",
    "TopK",
    "Split",
    "DFT",
    "STFT",
    "MelWeightMatrix",
    "BlackmanWindow",
    "HammingWindow",
    "HannWindow",
];
/// Inputs of more elements tell no extents.
const MAX_EXTENTS: usize = 64;

/// Whose constant output tract makes while it only asks for its shape.
const MADE_WHILE_ASKED: [&str; 2] = ["ConstantLike", "EyeLike"];

/// Puts a guard in front of every operator of `model` and of its subgraphs.
pub(super) fn guard(model: &mut InferenceModel, allowance: &Arc<Allowance>) {
    guard_all(model, allowance, &Arc::default());
}

fn guard_all(model: &mut InferenceModel, allowance: &Arc<Allowance>, made_bytes: &Arc<AtomicU64>) {
    for node in model.nodes_mut() {
        if let Some(scan) = node.op_as_mut::<InferenceScan>() {
            guard_all(&mut scan.body, allowance, made_bytes);
        } else if let Some(branches) = node.op_as_mut::<If>() {
            guard_all(&mut branches.then_body, allowance, made_bytes);
            guard_all(&mut branches.else_body, allowance, made_bytes);
        } else if node.op_is::<Source>() || node.op_is::<Const>() {
            continue;
        }
        let op = std::mem::replace(&mut node.op, Box::new(Dummy::new()));
        let (allowance, made_bytes) = (allowance.clone(), made_bytes.clone());
        node.op = Box::new(Guarded { op, node: node.name.clone(), allowance, made_bytes, charged: 0 });
    }
}

/// An operator with its guard. Whoever looks for the operator itself sees no guard.
#[derive(Debug, Clone)]
struct Guarded {
    op: Box<dyn InferenceOp>,
    node: String,
    allowance: Arc<Allowance>,
    /// Bytes of all constants that the graph has made.
    made_bytes: Arc<AtomicU64>,
    /// Those of this node.
    charged: u64,
}

// tract asks for `Eq` to merge equal operators; guarded ones are not merged before they are typed.
impl PartialEq for Guarded {
    fn eq(&self, _other: &Self) -> bool {
        false
    }
}

impl Eq for Guarded {}

impl Guarded {
    fn operator(&self) -> String {
        self.allowance.operator(&self.node, &self.op.name()).to_owned()
    }

    fn admit(&self, bytes: u64) -> Result<(), Excess> {
        self.allowance.admit(&self.node, &self.op.name(), bytes)
    }

    /// # Errors
    /// [`Excess::Tensor`] for an extent beyond those that tract counts with.
    fn check_extents(&self, inputs: &[&InferenceFact]) -> Result<(), Excess> {
        let operator = self.operator();
        if !TAKE_EXTENTS.contains(&operator.as_str()) {
            return Ok(());
        }
        let largest =
            inputs.iter().filter_map(|fact| fact.value.concretize()).filter_map(|value| largest(&value)).max();
        match largest.filter(|&extent| extent > i32::MAX as u64) {
            Some(bytes) => {
                let (node, operator) = self.allowance.label(&self.node, &operator);
                Err(Excess::Tensor { node, operator, bytes, max_bytes: self.allowance.tensor_bytes })
            }
            None => Ok(()),
        }
    }

    /// Counts a constant of this node, once however often it is asked for.
    fn charge(&mut self, bytes: u64) -> Result<(), Excess> {
        let more = bytes.saturating_sub(self.charged);
        self.charged += more;
        let made = self.made_bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.allowance.admit_constants(&self.node, &self.op.name(), made)
    }

    /// Bytes of the outputs together; `None` where that is not known. The largest of them is admitted.
    fn planned(&self, values: Option<&[TValue]>, outputs: &[InferenceFact]) -> Result<Option<u64>, Excess> {
        if self.op.name() == "Range"
            && let Some([start, end, step]) = values
        {
            let bytes = range_bytes(start, end, step);
            bytes.map_or(Ok(()), |bytes| self.admit(bytes))?;
            return Ok(bytes);
        }
        let mut total = Some(0u64);
        for output in outputs {
            let bytes = concrete_bytes(output);
            bytes.map_or(Ok(()), |bytes| self.admit(bytes))?;
            total = total.zip(bytes).map(|(total, bytes)| total.saturating_add(bytes));
        }
        Ok(total)
    }
}

/// Bytes of a fact without symbols.
fn concrete_bytes(fact: &InferenceFact) -> Option<u64> {
    let shape = fact.shape.concretize()?;
    let extents = shape.iter().map(|dim| dim.as_i64().map(|extent| u64::try_from(extent).unwrap_or(0)));
    let datum_type = fact.datum_type.concretize().unwrap_or(DatumType::I64);
    Some(elements(extents)?.saturating_mul(datum_type.size_of() as u64))
}

/// The number of the largest amount in a list of integers; `None` where `value` is something else.
fn largest(value: &Tensor) -> Option<u64> {
    let integers = value.datum_type().is_integer() && value.len() <= MAX_EXTENTS && value.is_plain_ram();
    let wide = integers.then(|| value.cast_to::<i64>().ok()).flatten()?;
    wide.try_as_plain_ram().ok()?.as_slice::<i64>().ok()?.iter().map(|value| value.unsigned_abs()).max()
}

/// Bytes of a Range, whose shape tract tells for whole steps forwards only.
fn range_bytes(start: &TValue, end: &TValue, step: &TValue) -> Option<u64> {
    let number = |value: &TValue| value.cast_to_scalar::<f64>().ok();
    let count = ((number(end)? - number(start)?) / number(step)?).ceil();
    Some((count.max(1.0) as u64).saturating_mul(size_of::<u64>() as u64))
}

/// What tract would evaluate with: constants of a few MiB at most.
fn constant_inputs(inputs: &[InferenceFact]) -> Option<TVec<TValue>> {
    let bytes = |tensor: &Tensor| (tensor.len() * tensor.datum_type().size_of()) as u64;
    let small = |tensor: &Arc<Tensor>| tensor.is_plain_ram() && bytes(tensor) <= CONST_FOLD_MEM_BUDGET;
    let values = inputs.iter().map(|fact| fact.value.concretize().filter(small).map(IntoTValue::into_tvalue));
    values.collect::<Option<TVec<_>>>().filter(|values| !values.is_empty())
}

impl InferenceOp for Guarded {
    fn infer(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        self.check_extents(&inputs)?;
        for bytes in inputs.iter().filter_map(|fact| concrete_bytes(fact)) {
            self.admit(bytes)?;
            if MADE_WHILE_ASKED.contains(&&*self.op.name()) {
                self.charge(bytes)?;
            }
        }
        let (inputs, outputs, observed) = self.op.infer_facts(inputs, outputs, observed).context("inferring facts")?;
        let values = constant_inputs(&inputs);
        let planned = self.planned(values.as_deref(), &outputs)?;
        let (Some(values), Some(planned)) = (values, planned) else { return Ok((inputs, outputs, observed)) };
        let given: u64 = values.iter().map(|value| (value.len() * value.datum_type().size_of()) as u64).sum();
        // tract would throw a larger result away.
        if planned > given.max(CONST_FOLD_MEM_BUDGET) || NOT_FOLDED.contains(&&*self.operator()) {
            return Ok((inputs, outputs, observed));
        }
        self.charge(planned)?;
        let made = match self.op.eval_out_of_plan(values) {
            Ok(Some(made)) => made,
            Ok(None) => return Ok((inputs, outputs, observed)),
            Err(error) if error.root_cause().is::<tract_data::TooEarly>() => return Ok((inputs, outputs, observed)),
            Err(error) => return Err(error).context("evaluating a constant"),
        };
        let facts = made.into_iter().map(|value| value.into_arc_tensor().try_into());
        Ok((inputs, facts.collect::<TractResult<_>>()?, observed))
    }

    fn observe_outlets(&self, model: &InferenceModel, node: &InferenceNode) -> TractResult<Vec<OutletId>> {
        self.op.observe_outlets(model, node)
    }

    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        self.op.infer_facts(inputs, outputs, observed)
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.op.nboutputs()
    }

    fn as_op(&self) -> &dyn Op {
        self.op.as_op()
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self.op.as_op_mut()
    }

    fn to_typed(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        self.op.to_typed(source, node, target, mapping)
    }
}

impl Op for Guarded {
    fn name(&self) -> StaticName {
        self.op.name()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        self.op.info()
    }

    not_a_typed_op!();
}

impl EvalOp for Guarded {
    // Evaluated by `infer` alone, once it was asked.
    not_out_of_plan!();

    fn state(&self, context: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        self.op.state(context)
    }
}
