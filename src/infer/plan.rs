//! tract's side: a rewritten graph parsed, optimized and run.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tract_onnx::pb;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::tract_core::ops::matmul::optimized::{MatMulOperand, OptMatMul, ProtoFusedSpec};
use tract_onnx::tract_hir::tract_core::ops::scan::OptScan;
use tract_onnx::tract_hir::tract_core::plan::eval;

use super::InferError;
use super::allowance::{Allowance, Demand, Excess, optimize};
use super::guard::guarded;
use super::product::OutOfRange;
use super::rewrite::{Operators, install};

/// A graph that can be run for inputs of any free extents; at least one way is there.
pub(super) struct Plan {
    /// Optimized once, the free extents as symbols. `None` where tract could not reason about them.
    symbolic: Option<Optimized>,
    /// Optimized for each set of input shapes as it is seen. `None` where the symbols allow for all of them.
    per_shape: Option<PerShape>,
}

struct PerShape {
    template: InferenceModel,
    allowance: Arc<Allowance>,
    recent: Mutex<Vec<(Shapes, Arc<Optimized>)>>,
}

/// A graph as tract runs it, and what that takes.
struct Optimized {
    plan: Arc<TypedSimplePlan>,
    demand: Demand,
    allowance: Arc<Allowance>,
}

type Shapes = Vec<Vec<usize>>;

/// Plans that [`PerShape`] keeps.
const RECENT_PLANS: usize = 4;

impl Plan {
    /// Parses and optimizes `model`. With `any_batch`, inputs may later differ in extents that the graph gives one symbol.
    ///
    /// # Errors
    /// [`InferError::TooLarge`]; [`InferError::Load`] with tract's reason.
    pub(super) fn new(model: &pb::ModelProto, operators: Operators, any_batch: bool) -> Result<Self, InferError> {
        let load = |reason| InferError::Load { reason };
        let inference = guarded(|| {
            // Shapes of intermediate values are left to inference: files often hold those of one fixed batch.
            let parsed = tract_onnx::onnx().with_ignore_value_info(true).parse(model, None)?;
            ensure!(parsed.unresolved_inputs.is_empty(), "nothing produces {}", parsed.unresolved_inputs.join(", "));
            let mut inference = parsed.model;
            install(&mut inference, operators);
            Ok(inference)
        })
        .map_err(load)?;
        let allowance = Allowance::of(model);
        let symbolic = match attempt(|| Optimized::new(inference.clone(), &allowance)) {
            Ok(plan) => Some(plan),
            Err(InferError::Run { reason }) if is_concrete(&inference) => return Err(load(reason)),
            Err(InferError::Run { reason }) => {
                tracing::debug!(reason, "the graph is optimized for each input shape");
                None
            }
            Err(error) => return Err(error),
        };
        let keeps_template = any_batch || symbolic.is_none();
        let per_shape = keeps_template.then(|| PerShape { template: inference, allowance, recent: Mutex::default() });
        Ok(Self { symbolic, per_shape })
    }

    /// Whether the graph is optimized once for all shapes.
    pub(super) fn is_symbolic(&self) -> bool {
        self.symbolic.is_some()
    }

    /// Runs the graph on inputs in graph order; those of one symbol agree.
    ///
    /// # Errors
    /// [`InferError::IndexOutOfRange`]; [`InferError::TooLarge`]; [`InferError::Run`] with tract's reason.
    pub(super) fn run(&self, inputs: TVec<TValue>) -> Result<TVec<TValue>, InferError> {
        match &self.symbolic {
            Some(plan) => attempt(|| plan.run(inputs)),
            None => self.run_per_shape(inputs),
        }
    }

    /// Runs the graph on inputs in graph order, as optimized for their shapes alone.
    ///
    /// # Errors
    /// [`InferError::IndexOutOfRange`]; [`InferError::TooLarge`]; [`InferError::Run`] with tract's reason.
    pub(super) fn run_per_shape(&self, inputs: TVec<TValue>) -> Result<TVec<TValue>, InferError> {
        attempt(|| {
            let per_shape = self.per_shape.as_ref().context("the graph was loaded for one batch")?;
            per_shape.specialized(&inputs)?.run(inputs)
        })
    }

    /// Runs the graph and tells `watch` the name of each operator and the time that it took.
    ///
    /// # Errors
    /// [`InferError::IndexOutOfRange`]; [`InferError::TooLarge`]; [`InferError::Run`] with tract's reason.
    pub(super) fn run_watched(
        &self,
        inputs: TVec<TValue>,
        mut watch: impl FnMut(&str, Duration),
    ) -> Result<TVec<TValue>, InferError> {
        attempt(|| {
            let specialized;
            let optimized = match (&self.symbolic, &self.per_shape) {
                (Some(optimized), _) => optimized,
                (None, per_shape) => {
                    specialized = per_shape.as_ref().context("no plan")?.specialized(&inputs)?;
                    &*specialized
                }
            };
            optimized.run_watched(inputs, &mut watch)
        })
    }

    /// Bytes of the constants that the plan holds, each counted once.
    pub(super) fn constant_bytes(&self) -> u64 {
        let mut seen = HashSet::new();
        let symbolic = self.symbolic.as_ref().map_or(0, |optimized| constants(optimized.plan.model(), &mut seen));
        let Some(PerShape { template, recent, .. }) = &self.per_shape else { return symbolic };
        let nodes = template.nodes().iter();
        let own = nodes.filter_map(|node| node.op_as::<Const>()).map(|op| tensor_bytes(op.val(), &mut seen));
        let own = own.sum::<u64>();
        let recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
        symbolic + own + recent.iter().map(|(_, own)| constants(own.plan.model(), &mut seen)).sum::<u64>()
    }
}

impl Optimized {
    fn new(model: InferenceModel, allowance: &Arc<Allowance>) -> TractResult<Self> {
        let model = optimize(model, allowance)?;
        let demand = Demand::of(&model, allowance)?;
        Ok(Self { plan: SimplePlan::new(model)?, demand, allowance: allowance.clone() })
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.demand.check(self.plan.model(), &inputs, &self.allowance)?;
        if !self.demand.has_untold() {
            return self.plan.run(inputs);
        }
        self.plan.spawn()?.run_plan_with_eval(inputs, |context, state, node, inputs| {
            self.check_node(context, node, &inputs)?;
            eval(context, state, node, inputs)
        })
    }

    fn run_watched(&self, inputs: TVec<TValue>, watch: &mut dyn FnMut(&str, Duration)) -> TractResult<TVec<TValue>> {
        self.demand.check(self.plan.model(), &inputs, &self.allowance)?;
        self.plan.spawn()?.run_plan_with_eval(inputs, |context, state, node, inputs| {
            self.check_node(context, node, &inputs)?;
            let started = Instant::now();
            let outputs = eval(context, state, node, inputs);
            watch(&node.name, started.elapsed());
            outputs
        })
    }

    fn check_node(&self, context: &EvalContext, node: &TypedNode, inputs: &[TValue]) -> TractResult<()> {
        if self.demand.is_untold(node.id) {
            self.demand.check_node(node, context.symbols, inputs, &self.allowance)?;
        }
        Ok(())
    }
}

/// Runs the graph. Errors of our own keep their type; tract's become words.
pub(super) fn attempt<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, InferError> {
    let outcome = guarded(|| match work() {
        Ok(value) => Ok(Ok(value)),
        Err(error) => match (error.downcast_ref::<OutOfRange>(), error.downcast_ref::<Excess>()) {
            (Some(error), _) => Ok(Err(error.clone().into())),
            (_, Some(error)) => Ok(Err(error.clone().into())),
            (None, None) => Err(error),
        },
    });
    outcome.map_err(|reason| InferError::Run { reason })?
}

fn is_concrete(model: &InferenceModel) -> bool {
    let facts = model.input_outlets().unwrap_or_default().iter().map(|outlet| model.outlet_fact(*outlet));
    facts.into_iter().flatten().all(|fact| fact.shape.as_concrete_finite().is_ok_and(|shape| shape.is_some()))
}

impl PerShape {
    fn specialized(&self, inputs: &[TValue]) -> TractResult<Arc<Optimized>> {
        let shapes: Shapes = inputs.iter().map(|input| input.shape().to_vec()).collect();
        let lock = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = lock().iter().find(|(known, _)| *known == shapes) {
            return Ok(plan.clone());
        }
        let mut model = self.template.clone();
        for (ix, input) in inputs.iter().enumerate() {
            model.set_input_fact(ix, InferenceFact::dt_shape(input.datum_type(), input.shape()))?;
        }
        let plan = Arc::new(Optimized::new(model, &self.allowance)?);
        let mut recent = lock();
        if recent.len() == RECENT_PLANS {
            recent.remove(0);
        }
        recent.push((shapes, plan.clone()));
        Ok(plan)
    }
}

/// Bytes of the constants of an optimized graph: of its nodes, of those packed into matrix products, and of loop bodies.
fn constants(model: &TypedModel, seen: &mut HashSet<*const Tensor>) -> u64 {
    let size = |size: TDim| size.as_i64().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
    let mut bytes = 0;
    for node in model.nodes() {
        if let Some(constant) = node.op_as::<Const>() {
            if seen.insert(Arc::as_ptr(constant.val())) {
                // The fact knows the size of a packed tensor, which says nothing of it.
                bytes += size(node.outputs[0].fact.mem_size());
            }
        } else if let Some(product) = node.op_as::<OptMatMul>() {
            for spec in &product.micro_ops {
                let ProtoFusedSpec::AddMatMul { a, b, .. } = spec else { continue };
                for operand in [a, b] {
                    if let MatMulOperand::Const(packed) = operand {
                        bytes += size(packed.exotic_fact().mem_size());
                    }
                }
            }
        } else if let Some(scan) = node.op_as::<OptScan>() {
            bytes += constants(scan.plan.model(), seen);
        }
    }
    bytes
}

fn tensor_bytes(tensor: &Arc<Tensor>, seen: &mut HashSet<*const Tensor>) -> u64 {
    let bytes = tensor.len() * tensor.datum_type().size_of();
    if seen.insert(Arc::as_ptr(tensor)) { bytes as u64 } else { 0 }
}
