//! Operators that pick entries along an axis: Gather, Slice, Split, Pad, Expand and Tile are all one kernel.

use burn_flex::FlexTensor;

use super::{Inputs, Kind, Operator, OperatorError, axis};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{IntTensor, Tensor, Value, count, to_f64};

/// In a list of entries, one that is filled rather than taken.
const FILLED: usize = usize::MAX;

#[derive(Debug)]
enum Take {
    Gather { axis: i64 },
    Slice { starts: Option<Vec<i64>>, ends: Option<Vec<i64>>, axes: Option<Vec<i64>> },
    Split { axis: i64, sizes: Option<Vec<i64>>, parts: usize },
    Pad { mode: Mode, pads: Option<Vec<i64>>, fill: f64 },
    Expand,
    Tile,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Constant,
    Reflect,
    Edge,
}

/// Reads an operator of this file.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let listed = |name: &str| node.ints(name).map(<[i64]>::to_vec);
    let axis = node.int("axis", 0);
    Ok(Box::new(match node.operator() {
        "Gather" => Take::Gather { axis },
        "Slice" => Take::Slice { starts: listed("starts"), ends: listed("ends"), axes: listed("axes") },
        "Split" => Take::Split { axis, sizes: listed("split"), parts: node.proto.output.len() },
        "Pad" => {
            let mode = match node.word("mode").as_deref() {
                None | Some("constant") => Mode::Constant,
                Some("reflect") => Mode::Reflect,
                Some("edge") => Mode::Edge,
                Some(other) => return Err(node.unsupported("mode", other)),
            };
            Take::Pad { mode, pads: listed("pads"), fill: node.float("value", 0.0) }
        }
        "Expand" => Take::Expand,
        _ => Take::Tile,
    }))
}

impl Operator for Take {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let value = inputs.value(0)?;
        Ok(match self {
            Self::Gather { axis } => vec![gather(value, inputs.int(1)?, *axis)?],
            Self::Slice { starts, ends, axes } => {
                let list = |index, own: &Option<Vec<i64>>| Ok(inputs.ints(index)?.or_else(|| own.clone()));
                let missing = |index| OperatorError::MissingInput { index };
                let starts = list(1, starts)?.ok_or_else(|| missing(1))?;
                let ends = list(2, ends)?.ok_or_else(|| missing(2))?;
                vec![slice(value, &starts, &ends, list(3, axes)?, inputs.ints(4)?)?]
            }
            Self::Split { axis, sizes, parts } => {
                split(value, *axis, inputs.ints(1)?.or_else(|| sizes.clone()), *parts)?
            }
            Self::Pad { mode, pads, fill } => {
                let pads = inputs.ints(1)?.or_else(|| pads.clone()).ok_or(OperatorError::MissingInput { index: 1 })?;
                let fill = match inputs.optional(2) {
                    Some(Value::Float(fill)) => to_f64(fill.inner()).first().copied().unwrap_or(0.0),
                    Some(Value::Int(fill)) => fill.scalar()? as f64,
                    None => *fill,
                };
                vec![pad(value, *mode, &pads, fill, inputs.ints(3)?)?]
            }
            Self::Expand => vec![expand(value, &inputs.int(1)?.data)?],
            Self::Tile => vec![tile(value, &inputs.int(1)?.data)?],
        })
    }

    fn kind(&self, inputs: &[Kind]) -> Kind {
        inputs.first().copied().unwrap_or(Kind::Float)
    }

    fn differentiable(&self) -> usize {
        1
    }
}

/// The entries of `axis` that `entries` lists; a [`FILLED`] one holds `fill`. Entries are inside the axis.
///
/// # Errors
/// [`OperatorError::TooLarge`].
pub(super) fn take(value: &Value, axis: usize, entries: Vec<usize>, fill: f64) -> Result<Value, OperatorError> {
    let dims = value.dims();
    let (outer, extent) = (count(&dims[..axis])?, dims[axis]);
    let inner = count(&dims[axis + 1..])?;
    if entries.iter().copied().eq(0..extent) {
        return Ok(value.clone());
    }
    let mut taken = dims.clone();
    taken[axis] = entries.len();
    count(&taken)?;
    match value {
        Value::Int(tensor) => {
            let data = picked(&tensor.data, outer, &entries, inner, fill as i64);
            Ok(Value::Int(IntTensor { dims: taken, data: data.into() }))
        }
        Value::Float(tensor) => Ok(Value::Float(take_floats(tensor, [outer, extent, inner], &taken, entries, fill))),
    }
}

fn take_floats(x: &Tensor, extents: [usize; 3], dims: &[usize], entries: Vec<usize>, fill: f64) -> Tensor {
    let [outer, extent, inner] = extents;
    let (values, of_x) = (x.contiguous(), x.dims());
    let output = by_type!(values, T => {
        T::tensor(dims, picked(T::view(&values), outer, &entries, inner, T::of(fill)))
    });
    record([x], output, move |dy: &FlexTensor, _| {
        [Some(by_type!(dy, T => {
            let mut dx = vec![T::ZERO; outer * extent * inner];
            if !dx.is_empty() {
                let blocks = dx.chunks_exact_mut(extent * inner);
                for (dx, dy) in blocks.zip(T::view(dy).chunks_exact((entries.len() * inner).max(1))) {
                    for (&entry, dy) in entries.iter().zip(dy.chunks_exact(inner)).filter(|(entry, _)| **entry != FILLED) {
                        dx[entry * inner..][..inner].iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy);
                    }
                }
            }
            T::tensor(&of_x, dx)
        }))]
    })
}

fn picked<T: Copy>(data: &[T], outer: usize, entries: &[usize], inner: usize, fill: T) -> Vec<T> {
    let mut out = Vec::with_capacity(outer * entries.len() * inner);
    let extent = data.len() / (outer * inner).max(1);
    for block in 0..outer {
        for &entry in entries {
            match entry {
                FILLED => out.extend(std::iter::repeat_n(fill, inner)),
                entry => out.extend_from_slice(&data[(block * extent + entry) * inner..][..inner]),
            }
        }
    }
    out
}

fn gather(value: &Value, indices: &IntTensor, at: i64) -> Result<Value, OperatorError> {
    let dims = value.dims();
    let at = axis(at, dims.len())?;
    let extent = dims[at];
    let entries = indices.data.iter().map(|&index| {
        let place = if index < 0 { index + extent as i64 } else { index };
        let place = usize::try_from(place).ok().filter(|&place| place < extent);
        place.ok_or(OperatorError::Index { index, extent })
    });
    let taken = take(value, at, entries.collect::<Result<_, _>>()?, 0.0)?;
    let dims = [&dims[..at], &indices.dims, &dims[at + 1..]].concat();
    Ok(match taken {
        Value::Float(tensor) => Value::Float(tensor.reshape(&dims)),
        Value::Int(tensor) => Value::Int(IntTensor { dims, data: tensor.data }),
    })
}

fn slice(
    value: &Value,
    starts: &[i64],
    ends: &[i64],
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Result<Value, OperatorError> {
    let rank = value.dims().len();
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    for list in [ends, &axes, &steps] {
        if list.len() != starts.len() {
            return Err(OperatorError::WrongLength { expected: starts.len(), found: list.len() });
        }
    }
    let mut result = value.clone();
    for (place, &at) in axes.iter().enumerate() {
        let at = axis(at, rank)?;
        let (extent, step) = (result.dims()[at] as i64, steps[place]);
        if step == 0 {
            return Err(OperatorError::Range { what: "a step", found: 0 });
        }
        // Backwards, the first entry is at most the last one, and the end may lie before the first.
        let (low, high) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
        let from_end = |bound: i64| if bound < 0 { bound.saturating_add(extent) } else { bound };
        let start = from_end(starts[place]).clamp(low.max(0), high.max(0));
        let end = from_end(ends[place]).clamp(low, high);
        let mut entries = Vec::new();
        let mut entry = start;
        while extent > 0 && (step > 0 && entry < end || step < 0 && entry > end) {
            entries.push(entry as usize);
            entry = entry.saturating_add(step);
        }
        result = take(&result, at, entries, 0.0)?;
    }
    Ok(result)
}

fn split(value: &Value, at: i64, sizes: Option<Vec<i64>>, parts: usize) -> Result<Vec<Value>, OperatorError> {
    let dims = value.dims();
    let at = axis(at, dims.len())?;
    let extent = dims[at];
    let sizes = match sizes {
        Some(sizes) => sizes,
        None => {
            let each = extent.div_ceil(parts.max(1));
            (0..parts).map(|part| each.min(extent.saturating_sub(part * each)) as i64).collect()
        }
    };
    let sum = sizes.iter().try_fold(0i64, |sum, &size| if size < 0 { None } else { sum.checked_add(size) });
    if sum != Some(extent as i64) {
        return Err(OperatorError::Reshape { from: dims, to: sizes });
    }
    let mut start = 0;
    let mut part = |size: &i64| {
        let range = start..start + *size as usize;
        start = range.end;
        take(value, at, range.collect(), 0.0)
    };
    sizes.iter().map(&mut part).collect()
}

fn pad(value: &Value, mode: Mode, pads: &[i64], fill: f64, axes: Option<Vec<i64>>) -> Result<Value, OperatorError> {
    let rank = value.dims().len();
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    if pads.len() != 2 * axes.len() {
        return Err(OperatorError::WrongLength { expected: 2 * axes.len(), found: pads.len() });
    }
    let mut result = value.clone();
    for (place, &at) in axes.iter().enumerate() {
        let at = axis(at, rank)?;
        let (before, after) = (pads[place], pads[axes.len() + place]);
        let mut dims = result.dims();
        let extent = dims[at] as i64;
        let total = before.checked_add(after).and_then(|sum| sum.checked_add(extent)).filter(|&total| total >= 0);
        let total = total.ok_or(OperatorError::Range { what: "a padding", found: before.min(after) })?;
        dims[at] = total as usize;
        count(&dims)?;
        let entries = (0..total).map(|position| {
            let entry = position - before;
            let inside = (0..extent).contains(&entry);
            let entry = match mode {
                _ if inside => Some(entry),
                Mode::Constant => return Ok(FILLED),
                Mode::Edge => (extent > 0).then(|| entry.clamp(0, extent - 1)),
                Mode::Reflect => Some(if entry < 0 { -entry } else { 2 * (extent - 1) - entry }),
            };
            let entry = entry.filter(|entry| (0..extent).contains(entry));
            entry
                .map(|entry| entry as usize)
                .ok_or(OperatorError::Range { what: "a padding", found: before.max(after) })
        });
        result = take(&result, at, entries.collect::<Result<_, _>>()?, fill)?;
    }
    Ok(result)
}

fn expand(value: &Value, shape: &[i64]) -> Result<Value, OperatorError> {
    let negative = |&&dim: &&i64| dim < 0;
    if let Some(&found) = shape.iter().find(negative) {
        return Err(OperatorError::Range { what: "an extent", found });
    }
    let shape: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
    let dims = super::binary::broadcast(&value.dims(), &shape)?;
    match value {
        Value::Float(tensor) => Ok(Value::Float(super::binary::expand(tensor, &dims)?)),
        Value::Int(tensor) => Ok(Value::Int(super::integer::expand(tensor, &dims)?)),
    }
}

fn tile(value: &Value, repeats: &[i64]) -> Result<Value, OperatorError> {
    let dims = value.dims();
    if repeats.len() != dims.len() {
        return Err(OperatorError::WrongLength { expected: dims.len(), found: repeats.len() });
    }
    let mut result = value.clone();
    for (at, &found) in repeats.iter().enumerate() {
        let repeats = usize::try_from(found).map_err(|_| OperatorError::Range { what: "a repeat", found })?;
        let mut tiled = result.dims();
        tiled[at] = tiled[at].saturating_mul(repeats);
        count(&tiled)?;
        let entries = (0..tiled[at]).map(|entry| entry % dims[at].max(1)).collect();
        result = take(&result, at, entries, 0.0)?;
    }
    Ok(result)
}
