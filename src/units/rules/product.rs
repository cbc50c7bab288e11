//! Operators that multiply by a weight: the inputs that are summed over are tied to the weight's, and the output has its rows.

use super::arithmetic::broadcast_axes;
use super::window::{self, Window};
use super::{Inputs, Rules, axes, is_given};
use crate::units::families::Segment;
use crate::units::value::{Axis, Node, Number, Value};

pub(super) fn gemm(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let sides = |index: usize, flag: &str| match axes(inputs, index)? {
        [a, b] => Some(if node.int(flag, 0) != 0 { (b, a) } else { (a, b) }),
        _ => None,
    };
    let (rows, summed) = sides(0, "transA")?;
    let (other, cols) = sides(1, "transB")?;
    contract(rules, inputs, summed, other);
    let mut out = vec![rows.clone(), cols.clone()];
    if is_given(inputs, 2) {
        out = broadcast_axes(rules, &[&out, axes(inputs, 2)?]);
    }
    (out.len() == 2).then(|| vec![Value::of(out)])
}

pub(super) fn matmul(rules: &mut Rules, inputs: &Inputs) -> Option<Vec<Value>> {
    let ([a_batch @ .., rows, summed], [b_batch @ .., other, cols]) = (axes(inputs, 0)?, axes(inputs, 1)?) else {
        return None;
    };
    contract(rules, inputs, summed, other);
    let mut out = broadcast_axes(rules, &[a_batch, b_batch]);
    out.extend([rows.clone(), cols.clone()]);
    Some(vec![Value::of(out)])
}

pub(super) fn convolution(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let [batch, channels, space @ ..] = axes(inputs, 0)? else { return None };
    let [outputs, inputs_of_group, kernel @ ..] = axes(inputs, 1)? else { return None };
    if kernel.len() != space.len() {
        return None;
    }
    kernel.iter().for_each(|axis| rules.pin(axis, "a kernel"));
    match usize::try_from(node.int("group", 1)).ok()? {
        1 => contract(rules, inputs, channels, inputs_of_group),
        groups => {
            rules.pin(inputs_of_group, "inputs of a group");
            tie_groups(rules, groups, channels, outputs)?;
        }
    }
    let extents = window::extents(rules, &Window::of(node, kernel), space)?;
    product(rules, inputs, [batch, outputs], extents)
}

pub(super) fn transposed_convolution(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let [batch, channels, space @ ..] = axes(inputs, 0)? else { return None };
    let [rows, outputs, kernel @ ..] = axes(inputs, 1)? else { return None };
    if kernel.len() != space.len() {
        return None;
    }
    kernel.iter().for_each(|axis| rules.pin(axis, "a kernel"));
    contract(rules, inputs, channels, rows);
    let groups = usize::try_from(node.int("group", 1)).ok()?;
    let outputs = match groups {
        1 => outputs.clone(),
        _ => {
            rules.pin(outputs, "outputs of a group");
            let len = outputs.len()?.checked_mul(groups)?;
            let units = if len > 1 { rules.families.axis(len) } else { Default::default() };
            let all = Axis { units, ..Axis::fixed(Number::Known(i64::try_from(len).ok()?)) };
            tie_groups(rules, groups, channels, &all)?;
            all
        }
    };
    space.iter().for_each(|axis| rules.pin(axis, "slid over by a window"));
    let extents = space.iter().map(|_| Axis::fixed(rules.unknown())).collect();
    product(rules, inputs, [batch, &outputs], extents)
}

/// Ties the axes of inputs 0 and 1 that are summed over. Where one input is a constant, its zeros say which units nobody
/// reads here.
fn contract(rules: &mut Rules, inputs: &Inputs, a: &Axis, b: &Axis) {
    let is_constant = |index: usize| inputs.get(index).copied().flatten().is_some_and(|value| value.is_constant);
    match (is_constant(0), is_constant(1)) {
        (true, false) => rules.summed.extend(a.origin),
        (false, true) => rules.summed.extend(b.origin),
        _ => rules.hold_size(a, "multiplied by another value"),
    }
    rules.tie(a, b);
}

/// The output of a convolution, whose bias is tied to its channels.
fn product(rules: &mut Rules, inputs: &Inputs, front: [&Axis; 2], space: Vec<Axis>) -> Option<Vec<Value>> {
    if is_given(inputs, 2) {
        let [bias] = axes(inputs, 2)? else { return None };
        rules.tie(front[1], bias);
    }
    let mut out = front.map(Axis::clone).to_vec();
    out.extend(space);
    Some(vec![Value::of(out)])
}

/// Inputs and outputs of a group move together, in whole groups. A depthwise convolution's groups are its channels.
fn tie_groups(rules: &mut Rules, groups: usize, channels: &Axis, outputs: &Axis) -> Option<()> {
    let block = |axis: &Axis| axis.len().filter(|len| groups > 0 && *len > 0 && len.is_multiple_of(groups));
    let (inputs, rows) = (block(channels)? / groups, block(outputs)? / groups);
    let movable = !channels.units.is_empty() && !outputs.units.is_empty();
    let fits =
        movable && rules.families.coarsen(&channels.units, inputs) && rules.families.coarsen(&outputs.units, rows);
    if !fits {
        rules.pin(channels, "read by a convolution with groups");
        rules.pin(outputs, "outputs of a convolution with groups");
        return Some(());
    }
    rules.hold_size(channels, "as many as a convolution has groups");
    let scaled = |axis: &Axis, from: usize, to: usize| -> Vec<_> {
        axis.units.iter().map(|&s| Segment { len: s.len / from * to, ..s }).collect()
    };
    // Both at the length of one position a group.
    rules.families.tie(&scaled(channels, inputs, 1), &scaled(outputs, rows, 1));
    Some(())
}
