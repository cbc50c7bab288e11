//! Operators that change extents, order or type of elements, and none of their values.

use burn_backend::DType;
use burn_flex::Flex;

use super::{Inputs, Kind, Operator, OperatorError, axes, axis};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::value::{IntTensor, Tape, Tensor, Value, count, tensor_of, to_f64};

#[derive(Debug)]
enum Change {
    /// To a listed shape, or one given as input; a 0 stands for the input's extent unless `allow_zero`.
    Reshape {
        shape: Option<Vec<i64>>,
        allow_zero: bool,
    },
    Flatten {
        axis: i64,
    },
    Squeeze {
        axes: Option<Vec<i64>>,
    },
    Unsqueeze {
        axes: Option<Vec<i64>>,
    },
    Transpose {
        order: Option<Vec<usize>>,
    },
    Concat {
        axis: i64,
    },
    Identity,
    Cast {
        to: Kind,
    },
    Shape {
        start: i64,
        end: Option<i64>,
    },
}

/// Reads an operator of this file.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let listed = |name: &str| node.ints(name).map(<[i64]>::to_vec);
    Ok(Box::new(match node.operator() {
        "Reshape" => Change::Reshape { shape: listed("shape"), allow_zero: node.int("allowzero", 0) != 0 },
        "Flatten" => Change::Flatten { axis: node.int("axis", 1) },
        "Squeeze" => Change::Squeeze { axes: listed("axes") },
        "Unsqueeze" => Change::Unsqueeze { axes: listed("axes") },
        "Transpose" => {
            let order = listed("perm");
            let places =
                |order: Vec<i64>| order.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>();
            let order = order.map(|order| places(order).ok_or_else(|| node.missing("perm"))).transpose()?;
            Change::Transpose { order }
        }
        "Concat" => {
            Change::Concat { axis: node.ints("axis").map(|_| node.int("axis", 0)).ok_or(node.missing("axis"))? }
        }
        "Cast" => Change::Cast { to: kind_of(node, node.int("to", 0))? },
        "Shape" => Change::Shape { start: node.int("start", 0), end: node.has("end").then(|| node.int("end", 0)) },
        _ => Change::Identity,
    }))
}

fn kind_of(node: &Node<'_>, to: i64) -> Result<Kind, TuneError> {
    use tract_onnx::pb::tensor_proto::DataType as T;
    match T::try_from(to as i32) {
        Ok(T::Float | T::Double | T::Float16 | T::Bfloat16) => Ok(Kind::Float),
        Ok(T::Int64 | T::Int32 | T::Int16 | T::Int8 | T::Uint8 | T::Uint16 | T::Uint32 | T::Uint64 | T::Bool) => {
            Ok(Kind::Int)
        }
        _ => Err(node.unsupported("to", to)),
    }
}

impl Operator for Change {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let value = inputs.value(0)?;
        let dims = value.dims();
        let listed = |own: &Option<Vec<i64>>| Ok(inputs.ints(1)?.or_else(|| own.clone()));
        Ok(vec![match self {
            Self::Reshape { shape, allow_zero } => {
                let shape = listed(shape)?.ok_or(OperatorError::MissingInput { index: 1 })?;
                reshaped(value, &resolve(&dims, &shape, *allow_zero)?)
            }
            Self::Flatten { axis } => {
                let at = if *axis == dims.len() as i64 { dims.len() } else { super::axis(*axis, dims.len())? };
                reshaped(value, &[count(&dims[..at])?, count(&dims[at..])?])
            }
            Self::Squeeze { axes } => reshaped(value, &squeezed(&dims, listed(axes)?)?),
            Self::Unsqueeze { axes } => {
                let axes = listed(axes)?.ok_or(OperatorError::MissingInput { index: 1 })?;
                reshaped(value, &unsqueezed(&dims, &axes)?)
            }
            Self::Transpose { order } => transpose(value, &dims, order.as_deref())?,
            Self::Concat { axis } => concat(inputs, *axis)?,
            Self::Identity => value.clone(),
            Self::Cast { to } => cast(value, *to),
            Self::Shape { start, end } => {
                let clamp = |place: i64| {
                    let place = if place < 0 { place + dims.len() as i64 } else { place };
                    place.clamp(0, dims.len() as i64) as usize
                };
                let (start, end) = (clamp(*start), end.map_or(dims.len(), clamp));
                let extents = dims[start..end.max(start)].iter().map(|&dim| dim as i64);
                Value::Int(IntTensor::list(extents.collect()))
            }
        }])
    }

    fn kind(&self, inputs: &[Kind]) -> Kind {
        match self {
            Self::Cast { to } => *to,
            Self::Shape { .. } => Kind::Int,
            _ => inputs.first().copied().unwrap_or(Kind::Float),
        }
    }
}

/// The value with other extents, which hold as many elements.
fn reshaped(value: &Value, dims: &[usize]) -> Value {
    match value {
        Value::Float(tensor) => Value::Float(tensor.clone().reshape(dims)),
        Value::Int(tensor) => Value::Int(IntTensor { dims: dims.to_vec(), data: tensor.data.clone() }),
    }
}

/// The extents that `shape` asks for: -1 is what is left, 0 the input's extent.
fn resolve(dims: &[usize], shape: &[i64], allow_zero: bool) -> Result<Vec<usize>, OperatorError> {
    let misfit = || OperatorError::Reshape { from: dims.to_vec(), to: shape.to_vec() };
    let mut resolved = Vec::with_capacity(shape.len());
    let mut open = None;
    for (place, &extent) in shape.iter().enumerate() {
        resolved.push(match extent {
            0 if !allow_zero => *dims.get(place).ok_or_else(misfit)?,
            -1 if open.is_none() => {
                open = Some(place);
                1
            }
            extent => usize::try_from(extent).map_err(|_| misfit())?,
        });
    }
    let (total, known) = (count(dims)?, count(&resolved)?);
    if let Some(place) = open {
        resolved[place] = total.checked_div(known).ok_or_else(misfit)?;
    }
    if count(&resolved)? == total { Ok(resolved) } else { Err(misfit()) }
}

fn squeezed(dims: &[usize], listed: Option<Vec<i64>>) -> Result<Vec<usize>, OperatorError> {
    let Some(listed) = listed else { return Ok(dims.iter().copied().filter(|&dim| dim != 1).collect()) };
    let dropped = axes(&listed, dims.len())?;
    let to = || dims.iter().enumerate().filter(|(axis, _)| !dropped.contains(axis)).map(|(_, &dim)| dim);
    match dropped.iter().all(|&axis| dims[axis] == 1) {
        true => Ok(to().collect()),
        false => Err(OperatorError::Reshape { from: dims.to_vec(), to: to().map(|dim| dim as i64).collect() }),
    }
}

fn unsqueezed(dims: &[usize], listed: &[i64]) -> Result<Vec<usize>, OperatorError> {
    let rank = dims.len() + listed.len();
    let mut added = axes(listed, rank)?;
    added.sort_unstable();
    if let Some(pair) = added.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(OperatorError::Axis { axis: pair[0] as i64, rank });
    }
    let mut rest = dims.iter().copied();
    Ok((0..rank).filter_map(|axis| if added.contains(&axis) { Some(1) } else { rest.next() }).collect())
}

fn transpose(value: &Value, dims: &[usize], order: Option<&[usize]>) -> Result<Value, OperatorError> {
    let reversed: Vec<usize> = (0..dims.len()).rev().collect();
    let order = order.unwrap_or(&reversed);
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..dims.len()) {
        return Err(OperatorError::Mismatch { left: dims.to_vec(), right: order.to_vec() });
    }
    match value {
        Value::Float(tensor) => Ok(Value::Float(tensor.clone().permute(order))),
        Value::Int(tensor) => {
            let strides: Vec<usize> = (0..dims.len()).map(|axis| dims[axis + 1..].iter().product()).collect();
            let turned: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
            let data = (0..tensor.data.len()).map(|place| {
                let mut rest = place;
                let mut from = 0;
                for &axis in order.iter().rev() {
                    from += rest % dims[axis] * strides[axis];
                    rest /= dims[axis];
                }
                tensor.data[from]
            });
            Ok(Value::Int(IntTensor { data: data.collect(), dims: turned }))
        }
    }
}

fn concat(inputs: &Inputs<'_>, at: i64) -> Result<Value, OperatorError> {
    let first = inputs.value(0)?.dims();
    let at = axis(at, first.len())?;
    let mut dims = first.clone();
    for index in 1..inputs.0.len() {
        let other = inputs.value(index)?.dims();
        let fits = other.len() == first.len() && (0..first.len()).all(|axis| axis == at || other[axis] == first[axis]);
        if !fits {
            return Err(OperatorError::Mismatch { left: first, right: other });
        }
        dims[at] = dims[at].saturating_add(other[at]);
    }
    count(&dims)?;
    if let Value::Int(_) = inputs.value(0)? {
        let parts: Vec<&IntTensor> = (0..inputs.0.len()).map(|index| inputs.int(index)).collect::<Result<_, _>>()?;
        let outer: usize = dims[..at].iter().product();
        let mut data = Vec::with_capacity(count(&dims)?);
        for block in 0..outer {
            for part in &parts {
                let run = part.data.len() / outer.max(1);
                data.extend_from_slice(&part.data[block * run..][..run]);
            }
        }
        return Ok(Value::Int(IntTensor { dims, data: data.into() }));
    }
    use burn_backend::ops::FloatTensorOps;
    let parts = (0..inputs.0.len()).map(|index| inputs.float(index).cloned()).collect::<Result<Vec<_>, _>>()?;
    if parts.iter().any(|part| matches!(part, Tensor::Traced(_))) {
        let parts = parts.into_iter().map(Tensor::traced).collect();
        return Ok(Value::Float(Tensor::Traced(<Tape as FloatTensorOps<Tape>>::float_cat(parts, at))));
    }
    let parts = parts.iter().map(|part| part.inner().clone()).collect();
    Ok(Value::Float(Tensor::Plain(<Flex as FloatTensorOps<Flex>>::float_cat(parts, at))))
}

fn cast(value: &Value, to: Kind) -> Value {
    match (value, to) {
        (Value::Float(tensor), Kind::Int) => {
            let data = to_f64(tensor.inner()).into_iter().map(|value| value as i64).collect();
            Value::Int(IntTensor { dims: tensor.dims(), data })
        }
        (Value::Int(tensor), Kind::Float) => Value::Float(Tensor::Plain(reals(tensor, DType::F32))),
        _ => value.clone(),
    }
}

fn reals(tensor: &IntTensor, dtype: DType) -> burn_flex::FlexTensor {
    tensor_of(dtype, &tensor.dims, tensor.data.iter().map(|&value| value as f64))
}
