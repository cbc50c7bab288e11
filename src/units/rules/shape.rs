//! Operators that move positions to other axes, join and cut axes, or look up positions.

use super::{Inputs, Rules, axes, integers, is_given};
use crate::units::families::Segment;
use crate::units::value::{Axis, Node, Number, Value, axis_index};

/// Most elements of a list of integers that the walk follows.
const MAX_NUMBERS: usize = 64;

/// Most copies of a family that one axis may hold side by side.
const MAX_REPEATS: usize = 1024;

pub(super) fn flatten(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let at = node.int("axis", 1);
    let at = if at == x.len() as i64 { x.len() } else { axis_index(at, x.len())? };
    let (front, back) = x.split_at(at);
    Some(vec![Value::of(vec![merge(rules, front), merge(rules, back)])])
}

/// Axes read as one, the last running fastest.
fn merge(rules: &mut Rules, axes: &[Axis]) -> Axis {
    let wide: Vec<&Axis> = axes.iter().filter(|axis| !axis.is_one()).collect();
    let product = |axes: &[&Axis]| axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.len()?));
    let movable: Vec<usize> = (0..wide.len()).filter(|&i| !wide[i].units.is_empty()).collect();
    if let [axis] = wide[..] {
        return axis.clone();
    }
    let total = product(&wide).and_then(|n| i64::try_from(n).ok());
    let extent = total.map_or_else(|| rules.unknown(), Number::Known);
    if let ([i], Some(_)) = (&movable[..], total) {
        let outer = product(&wide[..*i]).filter(|&n| n <= MAX_REPEATS);
        if let (Some(outer @ 1..), Some(inner @ 1..)) = (outer, product(&wide[i + 1..])) {
            let segments = wide[*i].units.iter().map(|s| Segment { len: s.len * inner, ..*s });
            let repeated = std::iter::repeat_n(segments, outer).flatten().collect();
            return Axis { units: rules.families.list(repeated), ..Axis::fixed(extent) };
        }
    }
    for axis in wide {
        rules.pin(axis, "merged with other axes");
    }
    Axis::fixed(extent)
}

/// The inverse of [`merge`]: one axis read as several of known extents, of which the first may move in whole blocks.
fn divide(rules: &mut Rules, axis: &Axis, extents: &[Number]) -> Vec<Axis> {
    let mut out: Vec<Axis> = extents.iter().map(|&extent| Axis::fixed(extent)).collect();
    let known = |n: &Number| match n {
        Number::Known(n) => usize::try_from(*n).ok(),
        Number::Symbol(_) => None,
    };
    let Some(first) = extents.iter().position(|&n| n != Number::Known(1)) else { return out };
    let block = extents[first + 1..].iter().try_fold(1usize, |n, extent| n.checked_mul(known(extent)?));
    match block {
        Some(block @ 1..) if !axis.units.is_empty() && rules.families.coarsen(&axis.units, block) => {
            let segments = axis.units.iter().map(|s| Segment { len: s.len / block, ..*s }).collect();
            out[first].units = rules.families.list(segments);
        }
        _ => rules.pin(axis, "divided by Reshape"),
    }
    out
}

pub(super) fn reshape(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let target = (*inputs.get(1)?)?.numbers.clone()?;
    let copies = node.int("allowzero", 0) == 0;
    let mut extents = Vec::with_capacity(target.len());
    for (i, &number) in target.iter().enumerate() {
        extents.push(match number {
            Number::Known(0) if copies => x.get(i)?.extent,
            Number::Known(..=-2) => return None,
            number => number,
        });
    }
    if let Some(i) = extents.iter().position(|&n| n == Number::Known(-1)) {
        let others: Vec<Number> = extents.iter().copied().filter(|&n| n != Number::Known(-1)).collect();
        extents[i] = quotient(x, &others).unwrap_or_else(|| rules.unknown());
    }
    for (i, &number) in target.iter().enumerate() {
        // Units along an axis whose extent is spelled out cannot become fewer.
        let spelled_out = matches!(number, Number::Known(2..)) || number == Number::Known(0) && !copies;
        if spelled_out && x.get(i).is_none_or(|axis| axis.extent != extents[i] || !axis.units.is_empty()) {
            x.iter().for_each(|axis| rules.hold_size(axis, "its extent stands in a Reshape"));
        }
    }
    let numbers = (*inputs.first()?)?.numbers.clone().filter(|_| extents.len() <= 1);
    Some(vec![Value { axes: Some(regroup(rules, x, &extents)), numbers, ..Value::default() }])
}

/// The product of the extents of `x` over that of `others`, where it is one number.
fn quotient(x: &[Axis], others: &[Number]) -> Option<Number> {
    let mut symbols: Vec<Number> = x.iter().map(|a| a.extent).filter(|n| matches!(n, Number::Symbol(_))).collect();
    for number in others.iter().filter(|n| matches!(n, Number::Symbol(_))) {
        symbols.swap_remove(symbols.iter().position(|symbol| symbol == number)?);
    }
    let extents: Vec<Number> = x.iter().map(|axis| axis.extent).collect();
    let (whole, part) = (known_product(&extents)?, known_product(others)?);
    match (&symbols[..], whole.checked_div(part)?) {
        ([], n) if n.checked_mul(part) == Some(whole) => Some(Number::Known(n)),
        ([symbol], 1) if part == whole => Some(*symbol),
        _ => None,
    }
}

/// Of the known ones among `numbers`; `None` on overflow.
fn known_product(numbers: &[Number]) -> Option<i64> {
    numbers.iter().try_fold(1i64, |product, n| match n {
        Number::Known(n) => product.checked_mul(*n),
        Number::Symbol(_) => Some(product),
    })
}

/// Matches runs of axes with runs of extents of the same product, from the last on.
fn regroup(rules: &mut Rules, x: &[Axis], extents: &[Number]) -> Vec<Axis> {
    let (mut i, mut j) = (x.len(), extents.len());
    let mut out: Vec<Vec<Axis>> = Vec::new();
    while i > 0 || j > 0 {
        let (end_i, end_j) = (i, j);
        loop {
            let before = x[i..end_i].iter().map(|axis| axis.extent);
            let (a, b) = (Extent::of(before), Extent::of(extents[j..end_j].iter().copied()));
            let started = i < end_i && j < end_j;
            if started && a == b || i == 0 && j == 0 {
                break;
            }
            // The side with less in it takes one more axis.
            if j == 0 || i > 0 && (i == end_i || a.product <= b.product && a.symbols.len() <= b.symbols.len()) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        out.push(regroup_run(rules, &x[i..end_i], &extents[j..end_j]));
    }
    out.into_iter().rev().flatten().collect()
}

/// A product of extents.
#[derive(PartialEq)]
struct Extent {
    product: i64,
    symbols: Vec<u32>,
}

impl Extent {
    fn of(numbers: impl Iterator<Item = Number>) -> Self {
        let mut extent = Self { product: 1, symbols: Vec::new() };
        for number in numbers {
            match number {
                Number::Known(n) => extent.product = extent.product.saturating_mul(n),
                Number::Symbol(symbol) => extent.symbols.push(symbol),
            }
        }
        extent.symbols.sort_unstable();
        extent
    }
}

fn regroup_run(rules: &mut Rules, x: &[Axis], extents: &[Number]) -> Vec<Axis> {
    let same = Extent::of(x.iter().map(|axis| axis.extent)) == Extent::of(extents.iter().copied());
    let wide: Vec<&Axis> = x.iter().filter(|axis| !axis.is_one()).collect();
    let targets = extents.iter().filter(|&&n| n != Number::Known(1)).count();
    let fixed = |_: &mut Rules| extents.iter().map(|&extent| Axis::fixed(extent)).collect::<Vec<_>>();
    if !same {
        x.iter().for_each(|axis| rules.pin(axis, "reshaped to extents that are not known"));
        return fixed(rules);
    }
    match (wide.len(), targets) {
        (_, 1) => {
            let merged = merge(rules, x);
            let place = |&extent: &Number| match extent {
                Number::Known(1) => Axis::fixed(extent),
                extent => Axis { units: merged.units.clone(), ..Axis::fixed(extent) },
            };
            extents.iter().map(place).collect()
        }
        (1, _) => divide(rules, wide[0], extents),
        _ => {
            x.iter().for_each(|axis| rules.pin(axis, "reshaped together with other axes"));
            fixed(rules)
        }
    }
}

pub(super) fn transpose(node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let reversed = (0..x.len() as i64).rev().collect();
    let perm: Vec<i64> = node.ints("perm").filter(|perm| !perm.is_empty()).map_or(reversed, <[i64]>::to_vec);
    let mut seen = vec![false; x.len()];
    let take = |&axis: &i64| {
        let axis = axis_index(axis, x.len()).filter(|&axis| !std::mem::replace(&mut seen[axis], true))?;
        Some(x[axis].clone())
    };
    let out = perm.iter().map(take).collect::<Option<Vec<_>>>()?;
    let is_constant = (*inputs.first()?)?.is_constant;
    (out.len() == x.len()).then(|| vec![Value { is_constant, ..Value::of(out) }])
}

/// The `axes` of a node, an attribute or an input.
fn listed_axes(node: Node, inputs: &Inputs, rank: usize) -> Option<Vec<usize>> {
    let listed = node.ints("axes").map(<[i64]>::to_vec).or_else(|| integers(inputs, 1))?;
    listed.iter().map(|&axis| axis_index(axis, rank)).collect()
}

pub(super) fn squeeze(node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let gone = listed_axes(node, inputs, x.len())?;
    let fits = gone.iter().all(|&axis| x[axis].is_one());
    let rest = x.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, axis)| axis.clone()).collect();
    let numbers = (*inputs.first()?)?.numbers.clone();
    fits.then(|| vec![Value { axes: Some(rest), numbers, ..Value::default() }])
}

pub(super) fn unsqueeze(node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let count = node.ints("axes").map(<[i64]>::len).or_else(|| Some(integers(inputs, 1)?.len()))?;
    let mut new = listed_axes(node, inputs, x.len() + count)?;
    new.sort_unstable();
    new.dedup();
    let mut rest = x.iter().cloned();
    let place = |i: usize| if new.contains(&i) { Some(Axis::fixed(Number::Known(1))) } else { rest.next() };
    let out = (0..x.len() + count).map(place).collect::<Option<Vec<_>>>()?;
    let numbers = (*inputs.first()?)?.numbers.clone().filter(|_| out.len() <= 1);
    Some(vec![Value { axes: Some(out), numbers, ..Value::default() }])
}

pub(super) fn concat(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let parts = (0..inputs.len()).map(|i| axes(inputs, i)).collect::<Option<Vec<_>>>()?;
    let rank = parts.first()?.len();
    let at = axis_index(node.0.attribute.iter().find(|a| a.name == "axis")?.i, rank)?;
    if parts.iter().any(|axes| axes.len() != rank) {
        return None;
    }
    let mut out = Vec::with_capacity(rank);
    for i in 0..rank {
        let joined: Vec<&Axis> = parts.iter().map(|axes| &axes[i]).collect();
        out.push(if i == at { append(rules, &joined) } else { together(rules, &joined) });
    }
    let numbers = inputs.iter().map(|value| (*value)?.numbers.clone()).collect::<Option<Vec<_>>>();
    let numbers = numbers.map(|lists| lists.iter().flat_map(|list| list.iter().copied()).collect::<Vec<_>>());
    let numbers = numbers.filter(|list| list.len() <= MAX_NUMBERS).map(Into::into);
    Some(vec![Value { axes: Some(out), numbers, ..Value::default() }])
}

/// Axes of one extent, which move together.
fn together(rules: &mut Rules, axes: &[&Axis]) -> Axis {
    axes[1..].iter().fold(axes[0].clone(), |axis, other| rules.tie(&axis, other))
}

/// Axes one behind the other.
fn append(rules: &mut Rules, axes: &[&Axis]) -> Axis {
    let total = axes.iter().try_fold(0usize, |n, axis| n.checked_add(axis.len()?)).and_then(|n| i64::try_from(n).ok());
    let is_free = axes.iter().any(|axis| !axis.units.is_empty());
    if let (Some(total), true) = (total, is_free) {
        let mut list = Vec::new();
        for axis in axes {
            list.extend(rules.segments(axis).unwrap_or_default());
        }
        return Axis { units: rules.families.list(list), ..Axis::fixed(Number::Known(total)) };
    }
    axes.iter().for_each(|axis| rules.pin(axis, "joined with an unknown extent"));
    Axis::fixed(total.map_or_else(|| rules.unknown(), Number::Known))
}

pub(super) fn split(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let at = axis_index(node.int("axis", 0), x.len())?;
    let len = x[at].len()?;
    let parts = node.0.output.len();
    let sizes = match (node.ints("split"), is_given(inputs, 1)) {
        (Some(sizes), _) => sizes.to_vec(),
        (None, true) => integers(inputs, 1)?,
        (None, false) if parts > 0 && len.is_multiple_of(parts) => vec![(len / parts) as i64; parts],
        (None, false) => return None,
    };
    let sizes = sizes.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>()?;
    if sizes.len() != parts || sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(len) {
        return None;
    }
    rules.hold_size(&x[at], "cut by Split");
    let mut rest = x[at].units.to_vec();
    let mut out = Vec::with_capacity(parts);
    for size in sizes {
        let mut piece = Axis::fixed(Number::Known(size as i64));
        if !rest.is_empty() {
            let (first, others) = rules.families.split(&rest, size)?;
            rest = others;
            // An axis of one position has no units.
            if size > 1 {
                piece.units = rules.families.list(first);
            } else {
                rules.families.pin(&first, "an axis of one position");
            }
        }
        let mut axes = x.to_vec();
        axes[at] = piece;
        out.push(Value::of(axes));
    }
    Some(out)
}

/// Axes that are cut stay where they are.
pub(super) fn slice(rules: &mut Rules, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    let (starts, ends) = (integers(inputs, 1)?, integers(inputs, 2)?);
    let all = (0..starts.len() as i64).collect();
    let listed = if is_given(inputs, 3) { integers(inputs, 3)? } else { all };
    let mut out = x.to_vec();
    for &axis in &listed {
        let axis = axis_index(axis, x.len())?;
        rules.pin(&x[axis], "cut by Slice");
        out[axis] = Axis::fixed(rules.unknown());
    }
    let numbers = (*inputs.first()?)?.numbers.as_ref().filter(|_| !is_given(inputs, 4));
    let numbers = numbers.and_then(|list| {
        let ([start], [end]) = (&starts[..], &ends[..]) else { return None };
        let bound = |n: i64| (if n < 0 { n.saturating_add(list.len() as i64) } else { n }).clamp(0, list.len() as i64);
        list.get(bound(*start) as usize..bound(*end) as usize).map(<[Number]>::to_vec)
    });
    if let Some(list) = &numbers {
        out = vec![Axis::fixed(Number::Known(list.len() as i64))];
    }
    Some(vec![Value { axes: Some(out), numbers: numbers.map(Into::into), ..Value::default() }])
}

pub(super) fn gather(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let (data, indices) = (axes(inputs, 0)?, axes(inputs, 1)?);
    let at = axis_index(node.int("axis", 0), data.len())?;
    rules.pin(&data[at], "looked up by position");
    for axis in indices {
        rules.pin(axis, "holds positions to look up");
    }
    let fixed = indices.iter().map(|axis| Axis::fixed(axis.extent));
    let out = data[..at].iter().cloned().chain(fixed).chain(data[at + 1..].iter().cloned()).collect();
    let numbers = (*inputs.first()?)?.numbers.as_ref().and_then(|list| {
        let take = |&index: &i64| Some(list[axis_index(index, list.len())?]);
        integers(inputs, 1)?.iter().map(take).collect::<Option<Vec<_>>>()
    });
    Some(vec![Value { axes: Some(out), numbers: numbers.map(Into::into), ..Value::default() }])
}

/// The extents of a value, which no order of units changes.
pub(super) fn shape(rules: &mut Rules, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
    let x = axes(inputs, 0)?;
    for axis in x {
        rules.hold_size(axis, "its extent is read by Shape");
    }
    if node.has("start") || node.has("end") || x.len() > MAX_NUMBERS {
        return Some(vec![Value::of(vec![Axis::fixed(rules.unknown())])]);
    }
    let numbers = x.iter().map(|axis| axis.extent).collect();
    Some(vec![Value {
        axes: Some(vec![Axis::fixed(Number::Known(x.len() as i64))]),
        numbers: Some(numbers),
        ..Value::default()
    }])
}
