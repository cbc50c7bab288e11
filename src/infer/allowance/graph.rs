//! A typed graph looked over before tract goes on with it.

use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::tract_core::ops::logic::IfThenElse;
use tract_onnx::tract_hir::tract_core::ops::scan::{OptScan, Scan};

use super::Allowance;
use super::size::{buffer_bytes, fact_bytes, least_bytes};

/// Fails where a tensor is larger than it may be, whatever the inputs, or where the constants that tract would make of others
/// are too many. `is_lowered` says that the graph will run as it is.
///
/// # Errors
/// An [`Excess`](super::Excess).
pub(super) fn check(model: &TypedModel, is_lowered: bool, allowance: &Allowance) -> TractResult<()> {
    visit(model, is_lowered, allowance, &mut 0)
}

/// `made` are bytes of constants that come of others.
fn visit(model: &TypedModel, is_lowered: bool, allowance: &Allowance, made: &mut u64) -> TractResult<()> {
    let none = SymbolValues::default();
    let mut is_constant = vec![false; model.nodes().len()];
    for id in model.eval_order()? {
        let node = model.node(id);
        let (name, operator) = (node.name.as_str(), node.op.name());
        let mut output_bytes = 0u64;
        for output in &node.outputs {
            output_bytes = output_bytes.saturating_add(fact_bytes(&output.fact, &none).unwrap_or(0));
            if !node.op_is::<Const>() {
                allowance.admit(name, &operator, least_bytes(&output.fact))?;
            }
        }
        let inputs = model.node_input_facts(id)?;
        is_constant[id] = match node.inputs.is_empty() {
            true => node.op_is::<Const>(),
            false => node.inputs.iter().all(|input| is_constant[input.node]),
        };
        // tract evaluates constants before it lowers what they go through.
        let runs = is_lowered || is_constant[id];
        if let Some(bytes) = buffer_bytes(node.op.as_ref(), &inputs, &node.outputs, &none, runs) {
            allowance.admit_buffers(name, &operator, bytes)?;
        }
        if is_constant[id] && !node.inputs.is_empty() {
            *made = made.saturating_add(added_bytes(model, node, &inputs, output_bytes));
            allowance.admit_constants(name, &operator, *made)?;
        }
        for body in bodies(node) {
            // Branches run as they are typed.
            visit(body, is_lowered || node.op_is::<IfThenElse>(), allowance, made)?;
        }
    }
    Ok(())
}

/// What the output of a constant node adds: all of it, but for what its inputs took that nothing else reads.
fn added_bytes(model: &TypedModel, node: &TypedNode, inputs: &[&TypedFact], output_bytes: u64) -> u64 {
    let readers = |input: &OutletId| model.node(input.node).outputs[input.slot].successors.len();
    if node.inputs.iter().any(|input| readers(input) > 1) {
        return output_bytes;
    }
    let freed = inputs.iter().filter_map(|fact| fact_bytes(fact, &SymbolValues::default()));
    output_bytes.saturating_sub(freed.fold(0, u64::saturating_add))
}

/// The graphs inside a node.
pub(super) fn bodies(node: &TypedNode) -> Vec<&TypedModel> {
    if let Some(scan) = node.op_as::<Scan>() {
        return vec![&scan.body];
    }
    if let Some(scan) = node.op_as::<OptScan>() {
        return vec![scan.plan.model()];
    }
    node.op_as::<IfThenElse>().map(|branches| vec![&branches.then_body, &branches.else_body]).unwrap_or_default()
}
