//! What running an optimized graph takes for the inputs of a request.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::array::{DynSlice, Topk};
use tract_onnx::tract_hir::tract_core::ops::logic::IfThenElse;
use tract_onnx::tract_hir::tract_core::ops::scan::{InputMapping, OptScan, Scan};

use super::graph::bodies;
use super::size::{buffer_bytes, extent, fact_bytes};
use super::{Allowance, Excess, MAX_ITERATIONS};

/// Shapes of inputs that were found to fit; as many are kept.
const RECENT_SHAPES: usize = 16;

/// Operators whose output has as many entries as their inputs hold, at most.
const WITHIN_THEIR_INPUTS: [&str; 2] = ["NonZero", "NonMaxSuppression"];

/// Values of at most this many elements may be what an extent depends on.
const MAX_ARGUMENT_LEN: usize = 64;

/// What an optimized graph takes.
#[derive(Debug)]
pub(in crate::infer) struct Demand {
    order: Vec<usize>,
    /// For each node that is read, the position in the order of the last that does; outputs of the graph are read at the end.
    last_uses: HashMap<usize, usize>,
    /// Nodes whose extents the shapes of the inputs do not tell.
    untold: HashSet<usize>,
    recent: Mutex<Vec<Vec<Vec<usize>>>>,
}

impl Demand {
    /// What `model` takes.
    ///
    /// # Errors
    /// [`Excess::Untold`] for a node inside a loop or a branch whose extents depend on values.
    pub(in crate::infer) fn of(model: &TypedModel, allowance: &Allowance) -> TractResult<Self> {
        let order = model.eval_order()?;
        let mut last_uses = HashMap::new();
        for (position, &id) in order.iter().enumerate() {
            last_uses.extend(model.node(id).inputs.iter().map(|input| (input.node, position)));
        }
        last_uses.extend(model.outputs.iter().map(|output| (output.node, usize::MAX)));
        let told = input_symbols(model)?;
        let mut untold = HashSet::new();
        for &id in &order {
            let node = model.node(id);
            let depends = |fact: &TypedFact| !symbols(fact).is_subset(&told);
            let bodies = bodies(node);
            if node.outputs.iter().any(|output| depends(&output.fact))
                || !bodies.is_empty() && model.node_input_facts(id)?.into_iter().any(depends)
            {
                untold.insert(id);
            }
            for body in bodies {
                let told = told.union(&symbols_of(model.node_input_facts(id)?)).cloned().collect();
                check_body(body, told, allowance)?;
            }
        }
        Ok(Self { order, last_uses, untold, recent: Mutex::default() })
    }

    /// Whether the extents of `node` depend on values, so that [`Demand::check_node`] has to ask before it runs.
    pub(in crate::infer) fn is_untold(&self, node: usize) -> bool {
        self.untold.contains(&node)
    }

    /// Whether those of some node do.
    pub(in crate::infer) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Whether the graph may run on `inputs`, as far as their shapes tell.
    ///
    /// # Errors
    /// An [`Excess`].
    pub(in crate::infer) fn check(
        &self,
        model: &TypedModel,
        inputs: &[TValue],
        allowance: &Allowance,
    ) -> TractResult<()> {
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |known: &Vec<Vec<usize>>| known.iter().map(Vec::as_slice).eq(inputs.iter().map(|i| i.shape()));
        if recent().iter().any(fits) {
            return Ok(());
        }
        let mut values = SymbolValues::default();
        for (ix, input) in inputs.iter().enumerate() {
            bind(model.input_fact(ix)?, input.shape().iter().map(|&extent| extent as u64), &mut values);
        }
        self.add_up(model, &values, allowance)?;
        let mut recent = recent();
        if recent.len() == RECENT_SHAPES {
            recent.remove(0);
        }
        recent.push(inputs.iter().map(|input| input.shape().to_vec()).collect());
        Ok(())
    }

    /// Checks every node, and what is alive while each of them runs.
    fn add_up(&self, model: &TypedModel, values: &SymbolValues, allowance: &Allowance) -> TractResult<()> {
        let max_bytes = allowance.alive_bytes();
        let mut made: HashMap<usize, u64> = HashMap::new();
        let mut alive = 0u64;
        for (position, &id) in self.order.iter().enumerate() {
            let node = model.node(id);
            if self.untold.contains(&id) {
                continue;
            }
            let bytes = node_bytes(model, node, values, allowance, 1)?;
            made.insert(id, bytes);
            alive = alive.saturating_add(bytes);
            if alive > max_bytes {
                let (node, operator) = allowance.label(&node.name, &node.op.name());
                bail!(Excess::Alive { node, operator, bytes: alive, max_bytes });
            }
            let ended = node.inputs.iter().map(|input| input.node);
            for id in ended.filter(|id| self.last_uses.get(id) == Some(&position)) {
                alive -= made.remove(&id).unwrap_or(0).min(alive);
            }
        }
        Ok(())
    }

    /// Whether `node` may run on `inputs`.
    ///
    /// # Errors
    /// An [`Excess`].
    pub(in crate::infer) fn check_node(
        &self,
        node: &TypedNode,
        symbols: &SymbolValues,
        inputs: &[TValue],
        allowance: &Allowance,
    ) -> TractResult<()> {
        let facts: Vec<TypedFact> = inputs.iter().map(fact_of).collect::<TractResult<_>>()?;
        let facts: Vec<&TypedFact> = facts.iter().collect();
        let operator = node.op.name();
        // Asked of the values first: the symbol of an extent is bound only by what comes out.
        let made = node.op.output_facts(&facts).unwrap_or_default();
        for (slot, output) in node.outputs.iter().enumerate() {
            let told = most_bytes(node, inputs).or_else(|| made.get(slot).and_then(|fact| fact_bytes(fact, symbols)));
            let told = told.or_else(|| fact_bytes(&output.fact, symbols)).or_else(|| at_most(node, inputs));
            let bytes = told.ok_or_else(|| allowance.untold(&node.name, &operator))?;
            allowance.admit(&node.name, &operator, bytes)?;
        }
        if let Some(bytes) = buffer_bytes(node.op.as_ref(), &facts, &node.outputs, symbols, true) {
            allowance.admit_buffers(&node.name, &operator, bytes)?;
        }
        let shapes: Vec<_> = inputs.iter().map(|input| input.shape().iter().map(|&e| e as u64).collect()).collect();
        check_bodies(node, &shapes, symbols, allowance, 1)
    }
}

/// Bytes of an output of TopK, whose extent tract reads as i32 where it tells it, and as i64 where it makes it.
fn most_bytes(node: &TypedNode, inputs: &[TValue]) -> Option<u64> {
    let (top, [input, count]) = (node.op_as::<Topk>()?, inputs) else { return None };
    let count = count.cast_to_scalar::<i64>().ok()?;
    let others = input.shape().iter().enumerate().filter(|(axis, _)| *axis != top.axis);
    let others = others.fold(1u64, |product, (_, &extent)| product.saturating_mul(extent as u64));
    // One below 0 is read as one beyond all.
    Some(others.saturating_mul(count as u64).saturating_mul(size_of::<i64>() as u64))
}

/// The most bytes that a node makes of which nothing else is known.
fn at_most(node: &TypedNode, inputs: &[TValue]) -> Option<u64> {
    let entries: u64 = inputs.iter().map(|input| input.len() as u64).sum();
    if WITHIN_THEIR_INPUTS.contains(&&*node.op.name()) {
        let rank = inputs.iter().map(|input| input.rank()).max()?.max(3) as u64;
        return Some(entries.saturating_mul(rank).saturating_mul(size_of::<i64>() as u64));
    }
    // A slice that would leave its input is an error before it is made.
    node.op_as::<DynSlice>().and(inputs.first()).map(|input| (input.len() * input.datum_type().size_of()) as u64)
}

/// What is known of a value, its elements included where an extent may depend on them.
fn fact_of(value: &TValue) -> TractResult<TypedFact> {
    if value.len() <= MAX_ARGUMENT_LEN && value.is_plain_ram() {
        return TypedFact::try_from(value.clone().into_arc_tensor());
    }
    Ok(TypedFact::dt_shape(value.datum_type(), value.shape()))
}

/// Bytes of a node's outputs, admitted one by one together with what it needs beside them, and with its bodies.
fn node_bytes(
    model: &TypedModel,
    node: &TypedNode,
    values: &SymbolValues,
    allowance: &Allowance,
    iterations: u64,
) -> TractResult<u64> {
    let (name, operator) = (node.name.as_str(), node.op.name());
    let mut total = 0u64;
    for output in node.outputs.iter().filter(|output| output.fact.konst.is_none()) {
        let bytes = fact_bytes(&output.fact, values).ok_or_else(|| allowance.untold(name, &operator))?;
        allowance.admit(name, &operator, bytes)?;
        total = total.saturating_add(bytes);
    }
    let inputs = model.node_input_facts(node.id)?;
    if let Some(bytes) = buffer_bytes(node.op.as_ref(), &inputs, &node.outputs, values, true) {
        allowance.admit_buffers(name, &operator, bytes)?;
        total = total.saturating_add(bytes);
    }
    if !bodies(node).is_empty() {
        let shape = |fact: &&TypedFact| fact.shape.iter().map(|dim| extent(dim, values)).collect::<Option<Vec<_>>>();
        let shapes: Option<Vec<_>> = inputs.iter().map(shape).collect();
        let shapes = shapes.ok_or_else(|| allowance.untold(name, &operator))?;
        check_bodies(node, &shapes, values, allowance, iterations)?;
    }
    Ok(total)
}

/// Checks the graphs inside a node that reads inputs of these shapes, when it is itself run `iterations` times.
fn check_bodies(
    node: &TypedNode,
    inputs: &[Vec<u64>],
    values: &SymbolValues,
    allowance: &Allowance,
    iterations: u64,
) -> TractResult<()> {
    let check = |body: &TypedModel, shapes: Vec<Vec<u64>>, iterations: u64| {
        let mut values = values.clone();
        for (ix, shape) in shapes.into_iter().enumerate() {
            bind(body.input_fact(ix)?, shape.into_iter(), &mut values);
        }
        for id in body.eval_order()? {
            node_bytes(body, body.node(id), &values, allowance, iterations)?;
        }
        TractResult::Ok(())
    };
    if let Some(branches) = node.op_as::<IfThenElse>() {
        let shapes = |mapping: &[usize]| mapping.iter().filter_map(|&ix| inputs.get(ix).cloned()).collect();
        check(&branches.then_body, shapes(&branches.then_input_mapping), iterations)?;
        return check(&branches.else_body, shapes(&branches.else_input_mapping), iterations);
    }
    let scan = node.op_as::<Scan>().map(|scan| (&scan.body, &scan.input_mapping));
    let scan = scan.or_else(|| node.op_as::<OptScan>().map(|scan| (scan.plan.model(), &scan.input_mapping)));
    let Some((body, mapping)) = scan else { return Ok(()) };
    let mut shapes = inputs.to_vec();
    let mut count = 1;
    for (shape, mapping) in shapes.iter_mut().zip(mapping) {
        if let InputMapping::Scan(info) = mapping
            && let Some(extent) = shape.get_mut(info.axis)
        {
            let chunk = (info.chunk.unsigned_abs() as u64).max(1);
            count = count.max(extent.div_ceil(chunk));
            *extent = chunk;
        }
    }
    let iterations = iterations.saturating_mul(count);
    if iterations > MAX_ITERATIONS {
        let (node, operator) = allowance.label(&node.name, &node.op.name());
        bail!(Excess::Iterations { node, operator, iterations, max: MAX_ITERATIONS });
    }
    check(body, shapes, iterations)
}

/// Binds the symbols that are extents of `fact` to those of a value of this shape.
fn bind(fact: &TypedFact, shape: impl Iterator<Item = u64>, values: &mut SymbolValues) {
    for (dim, extent) in fact.shape.iter().zip(shape) {
        if let TDim::Sym(symbol) = dim {
            values.set(symbol, i64::try_from(extent).unwrap_or(i64::MAX));
        }
    }
}

/// Fails where the extents of a node depend on other symbols than those of `told` and of the body's own inputs.
fn check_body(body: &TypedModel, mut told: HashSet<Symbol>, allowance: &Allowance) -> TractResult<()> {
    told.extend(input_symbols(body)?);
    for id in body.eval_order()? {
        let node = body.node(id);
        if node.outputs.iter().any(|output| !symbols(&output.fact).is_subset(&told)) {
            bail!(allowance.untold(&node.name, &node.op.name()));
        }
        for inner in bodies(node) {
            check_body(inner, told.clone(), allowance)?;
        }
    }
    Ok(())
}

fn input_symbols(model: &TypedModel) -> TractResult<HashSet<Symbol>> {
    let facts: Vec<&TypedFact> =
        model.input_outlets()?.iter().map(|input| model.outlet_fact(*input)).collect::<TractResult<_>>()?;
    Ok(symbols_of(facts))
}

fn symbols_of<'a>(facts: impl IntoIterator<Item = &'a TypedFact>) -> HashSet<Symbol> {
    facts.into_iter().flat_map(symbols).collect()
}

fn symbols(fact: &TypedFact) -> HashSet<Symbol> {
    fact.shape.iter().flat_map(TDim::symbols).collect()
}
