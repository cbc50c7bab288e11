//! Operators that look at several positions of a spatial axis: pools, padding, reductions, and the extents they leave.

use super::{Inputs, Rules, axes, integers, is_given};
use crate::units::value::{Axis, Node, Number, Value, axis_index};

/// How a kernel slides.
pub(super) struct Window<'a> {
    node: Node<'a>,
    kernel: Vec<Option<i64>>,
}

impl<'a> Window<'a> {
    /// With the extents of a weight.
    pub(super) fn of(node: Node<'a>, kernel: &[Axis]) -> Self {
        let extent = |axis: &Axis| axis.len().and_then(|len| i64::try_from(len).ok());
        Self { node, kernel: kernel.iter().map(extent).collect() }
    }
}

/// The spatial axes behind a window; positions on them stay where they are.
pub(super) fn extents(rules: &mut Rules, window: &Window, space: &[Axis]) -> Option<Vec<Axis>> {
    let extent = |(i, axis): (usize, &Axis)| {
        rules.pin(axis, "slid over by a window");
        let known = slide(window, i, space.len(), axis.len()).map(Number::Known);
        Axis::fixed(known.unwrap_or_else(|| rules.unknown()))
    };
    (window.kernel.len() == space.len()).then(|| space.iter().enumerate().map(extent).collect())
}

/// The extent of spatial axis `i` of `rank` behind a window; `None` where it is not plain.
fn slide(window: &Window, i: usize, rank: usize, len: Option<usize>) -> Option<i64> {
    let node = window.node;
    let at = |name: &str, index: usize, default: i64| match node.ints(name) {
        Some(values) => values.get(index).copied(),
        None => Some(default),
    };
    let len = i64::try_from(len?).ok()?;
    let (stride, dilation) = (at("strides", i, 1)?, at("dilations", i, 1)?);
    if stride < 1 || dilation < 1 || node.int("ceil_mode", 0) != 0 {
        return None;
    }
    let span = window.kernel[i]?.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
    let pads = match node.text("auto_pad") {
        b"" | b"NOTSET" => at("pads", i, 0)?.checked_add(at("pads", rank + i, 0)?)?,
        b"VALID" => 0,
        b"SAME_UPPER" | b"SAME_LOWER" => return Some(len.checked_add(stride - 1)? / stride),
        _ => return None,
    };
    let steps = len.checked_add(pads)?.checked_sub(span)?;
    (steps >= 0).then(|| steps / stride + 1)
}

pub(super) fn pool(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let [batch, channels, space @ ..] = axes(inputs, 0)? else { return None };
    // A second output numbers the positions of the whole tensor.
    if node.outputs() != 1 {
        return None;
    }
    let kernel = node.ints("kernel_shape")?.iter().copied().map(Some).collect();
    let mut out = vec![batch.clone(), channels.clone()];
    out.extend(extents(rules, &Window { node, kernel }, space)?);
    Some(vec![Value::of(out)])
}

pub(super) fn global_pool(rules: &mut Rules, inputs: &Inputs) -> Option<Vec<Value>> {
    let [batch, channels, space @ ..] = axes(inputs, 0)? else { return None };
    let mut out = vec![batch.clone(), channels.clone()];
    for axis in space {
        rules.hold_size(axis, "pooled over");
        out.push(Axis::fixed(Number::Known(1)));
    }
    Some(vec![Value::of(out)])
}

pub(super) fn pad(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let pads = node.ints("pads").map(<[i64]>::to_vec).or_else(|| integers(inputs, 1))?;
    // With `axes`, the pads are of some axes only.
    let is_number = !is_given(inputs, 2) || axes(inputs, 2)?.iter().all(Axis::is_one);
    if is_given(inputs, 3) || !is_number || pads.len() != 2 * x.len() {
        return None;
    }
    let padded = |(i, axis): (usize, &Axis)| {
        let (before, after) = (pads[i], pads[x.len() + i]);
        if (before, after) == (0, 0) {
            return axis.clone();
        }
        rules.pin(axis, "padded");
        let len = axis.len().and_then(|len| i64::try_from(len).ok()?.checked_add(before)?.checked_add(after));
        Axis::fixed(len.map_or_else(|| rules.unknown(), Number::Known))
    };
    Some(vec![Value::of(x.iter().enumerate().map(padded).collect())])
}

/// What is reduced over may come in any order.
pub(super) fn reduce(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let listed = match (node.ints("axes"), is_given(inputs, 1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, true) => integers(inputs, 1)?,
        (None, false) => Vec::new(),
    };
    if listed.is_empty() && node.int("noop_with_empty_axes", 0) != 0 {
        return Some(vec![Value::of(x.to_vec())]);
    }
    let reduced = listed.iter().map(|&axis| axis_index(axis, x.len())).collect::<Option<Vec<_>>>()?;
    let mut out = Vec::with_capacity(x.len());
    for (i, axis) in x.iter().enumerate() {
        if !listed.is_empty() && !reduced.contains(&i) {
            out.push(axis.clone());
            continue;
        }
        rules.hold_size(axis, "reduced over");
        if node.int("keepdims", 1) != 0 {
            out.push(Axis::fixed(Number::Known(1)));
        }
    }
    Some(vec![Value::of(out)])
}
