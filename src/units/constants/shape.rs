//! Operators that move positions to other axes, join axes, or look at several positions of the others.

use super::{Known, Walk};
use crate::units::value::{Node, Number, axis_index};

/// Every window holds the same number, as long as each holds one at all and padding does not count.
pub(super) fn pool(node: Node, x: &Known) -> Option<Known> {
    let kernel = node.ints("kernel_shape")?;
    let pads = node.ints("pads").unwrap_or_default();
    let is_dense = node.ints("dilations").unwrap_or_default().iter().all(|&dilation| dilation == 1);
    let is_small = |(i, &pad): (usize, &i64)| kernel.get(i % kernel.len().max(1)).is_some_and(|&k| pad < k);
    let mut ignores = pads.iter().all(|&pad| pad == 0);
    // A largest value is never one of padding, unless there is nothing else.
    ignores |= node.0.op_type == "MaxPool" && is_dense && pads.iter().enumerate().all(is_small);
    let is_plain = matches!(node.text("auto_pad"), b"" | b"NOTSET" | b"VALID") && node.int("ceil_mode", 0) == 0;
    (ignores && is_plain && x.axis == 1).then(|| x.clone())
}

/// The mean, largest and smallest of equal numbers. `listed` are the axes where an input names them.
pub(super) fn reduce(node: Node, x: &Known, from: Option<&[Number]>, listed: Option<Vec<i64>>) -> Option<Known> {
    let rank = from?.len();
    let axes = node.ints("axes").map(<[i64]>::to_vec).or(listed).filter(|axes| !axes.is_empty())?;
    let mut axes = axes.iter().map(|&axis| axis_index(axis, rank)).collect::<Option<Vec<_>>>()?;
    axes.sort_unstable();
    axes.dedup();
    if axes.contains(&x.axis) {
        return None;
    }
    let before = if node.int("keepdims", 1) != 0 { 0 } else { axes.partition_point(|&axis| axis < x.axis) };
    Some(Known { axis: x.axis - before, values: x.values.clone() })
}

/// The same elements in the same order, under other extents: the positions, each perhaps a block, lie on the axis that has as many
/// elements before and behind it. At most `room` numbers.
pub(super) fn regroup(x: &Known, from: Option<&[Number]>, to: Option<&[Number]>, room: usize) -> Option<Known> {
    let (from, to) = (from?, to?);
    let (before, behind) = (product(&from[..x.axis])?, product(&from[x.axis + 1..])?);
    let fits = |axis: &usize| {
        let Number::Known(len) = to[*axis] else { return None };
        let block = usize::try_from(len).ok()?.checked_div(x.values.len())?;
        let mut inside = product(&to[axis + 1..])?;
        inside.0 = inside.0.checked_mul(i64::try_from(block).ok()?)?;
        let whole = block.checked_mul(x.values.len())? as i64 == len && block > 0;
        (whole && product(&to[..*axis])? == before && inside == behind).then_some((*axis, block))
    };
    let (axis, block) = (0..to.len()).find_map(|axis| fits(&axis))?;
    let repeated = || x.values.iter().flat_map(|value| std::iter::repeat_n(*value, block)).collect();
    (block.checked_mul(x.values.len())? <= room).then(|| Known { axis, values: repeated() })
}

/// The known factors of a product of extents, and the symbols.
fn product(extents: &[Number]) -> Option<(i64, Vec<u32>)> {
    let (mut known, mut symbols) = (1i64, Vec::new());
    for extent in extents {
        match extent {
            Number::Known(n) => known = known.checked_mul(*n)?,
            Number::Symbol(symbol) => symbols.push(*symbol),
        }
    }
    symbols.sort_unstable();
    Some((known, symbols))
}

pub(super) fn transpose(node: Node, x: &Known, from: Option<&[Number]>) -> Option<Known> {
    let rank = from?.len();
    let axis = match node.ints("perm").filter(|perm| !perm.is_empty()) {
        Some(perm) => perm.iter().position(|&axis| axis_index(axis, rank) == Some(x.axis))?,
        None => rank.checked_sub(x.axis + 1)?,
    };
    Some(Known { axis, values: x.values.clone() })
}

impl<'a, E> Walk<'_, 'a, E> {
    /// Positions one behind the other, along the axis that is joined.
    pub(super) fn concat(&mut self, node: Node<'a>) -> Option<Known> {
        let rank = self.extents(node, 0)?.len();
        let axis = axis_index(node.int("axis", 0), rank)?;
        let slots = 0..node.0.input.len();
        let lens = slots.map(|slot| match self.extents(node, slot)?.get(axis)? {
            Number::Known(len) => usize::try_from(*len).ok(),
            Number::Symbol(_) => None,
        });
        let lens = lens.collect::<Option<Vec<_>>>()?;
        let total = lens.iter().try_fold(0usize, |sum, len| sum.checked_add(*len))?;
        let is_known = (0..lens.len()).any(|slot| self.input(node, slot).is_some());
        if !is_known || !self.afford(total) {
            return None;
        }
        let mut values = Vec::with_capacity(total);
        for (slot, len) in lens.into_iter().enumerate() {
            let known = self.input(node, slot).filter(|known| known.axis == axis && known.values.len() == len);
            match known {
                Some(known) => values.extend_from_slice(&known.values),
                None => values.resize(values.len() + len, None),
            }
        }
        Some(Known::new(axis, values))
    }
}
