//! Operators that work position by position, and normalisations.

use super::{Inputs, Rules, axes, is_given};
use crate::units::value::{Axis, Node, Number, Value, axis_index};

/// One output position from one input position; further inputs are single numbers.
pub(super) fn unary(node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = (*inputs.first()?)?;
    let scalars = (1..inputs.len()).filter(|&i| is_given(inputs, i)).map(|i| axes(inputs, i));
    let keeps_numbers = matches!(node.0.op_type.as_str(), "Identity" | "Cast");
    let numbers = x.numbers.clone().filter(|_| keeps_numbers);
    let all = scalars.map(|a| a.filter(|a| a.iter().all(Axis::is_one))).collect::<Option<Vec<_>>>();
    all.map(|_| {
        vec![Value { axes: x.axes.clone(), numbers, is_constant: x.is_constant && keeps_numbers }; node.0.output.len()]
    })
}

/// One output position from one position of each input, with NumPy's broadcasting.
pub(super) fn broadcast(rules: &mut Rules, inputs: &Inputs) -> Option<Vec<Value>> {
    let operands = (0..inputs.len()).map(|i| axes(inputs, i)).collect::<Option<Vec<_>>>()?;
    Some(vec![Value::of(broadcast_axes(rules, &operands))])
}

/// The axes that `operands` broadcast to, aligned at the last.
pub(super) fn broadcast_axes(rules: &mut Rules, operands: &[&[Axis]]) -> Vec<Axis> {
    let rank = operands.iter().map(|axes| axes.len()).max().unwrap_or(0);
    let at = |from_end: usize| operands.iter().filter_map(move |axes| axes.iter().rev().nth(from_end));
    (0..rank).rev().map(|from_end| broadcast_axis(rules, &at(from_end).collect::<Vec<_>>())).collect()
}

fn broadcast_axis(rules: &mut Rules, operands: &[&Axis]) -> Axis {
    let wide: Vec<&Axis> = operands.iter().copied().filter(|axis| !axis.is_one()).collect();
    let Some((first, others)) = wide.split_first() else { return Axis::fixed(Number::Known(1)) };
    if others.iter().all(|axis| axis.extent == first.extent) {
        return others.iter().fold((*first).clone(), |axis, other| rules.tie(&axis, other));
    }
    // An unknown extent may be 1, or that of another operand.
    for axis in &wide {
        rules.pin(axis, "broadcast against an unknown extent");
    }
    let known = wide.iter().find(|axis| axis.len().is_some());
    Axis::fixed(known.map_or_else(|| rules.unknown(), |axis| axis.extent))
}

/// Parameters, a number a channel, on axis 1.
pub(super) fn per_channel(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let channels = x.get(1)?;
    // In training there are more outputs, and one pass over the batch for all of them.
    if node.outputs() != 1 || node.int("training_mode", 0) != 0 || node.int("spatial", 1) != 1 {
        return None;
    }
    for i in 1..inputs.len() {
        let [parameter] = axes(inputs, i)? else { return None };
        rules.tie(channels, parameter);
    }
    Some(vec![Value::of(x.to_vec())])
}

/// Mean and variance of the normalised axes are those of any order; scale and bias move along.
pub(super) fn layer_normalization(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    if node.outputs() != 1 {
        return None;
    }
    let first = axis_index(node.int("axis", -1), x.len())?;
    for axis in &x[first..] {
        rules.hold_size(axis, "normalised over by LayerNormalization");
    }
    for i in (1..inputs.len()).filter(|&i| is_given(inputs, i)) {
        let parameter = axes(inputs, i)?;
        let same_rank = parameter.len() <= x.len();
        same_rank.then(|| broadcast_axes(rules, &[x, parameter]))?;
    }
    Some(vec![Value::of(x.to_vec())])
}

/// Each output position is the input's over a sum, whose terms may come in any order.
pub(super) fn softmax(rules: &mut Rules, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    for axis in x {
        rules.hold_size(axis, "normalised over by Softmax");
    }
    Some(vec![Value::of(x.to_vec())])
}
