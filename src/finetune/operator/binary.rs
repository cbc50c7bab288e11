//! Operators of two values, element by element, with broadcasting.

use burn_backend::Shape;
use burn_flex::{Flex, FlexTensor};

use super::integer;
use super::{Inputs, Kind, Operator, OperatorError};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{IntTensor, Tape, Tensor, Value, count, on_tape, tensor_of, to_f64};

/// What is done to two elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
    PRelu,
    Mod,
    Equal,
    Less,
    Greater,
}

/// An operator of two values, or of a list that is taken two by two.
#[derive(Debug)]
struct Elementwise(Binary);

/// Chooses between its second and third input.
#[derive(Debug)]
struct Where;

/// Reads an element by element operator.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    if node.has("broadcast") || node.has("axis") {
        return Err(node.unsupported("axis", node.int("axis", 0)));
    }
    Ok(Box::new(Elementwise(match node.operator() {
        "Add" | "Sum" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        "PRelu" => Binary::PRelu,
        "Mod" => Binary::Mod,
        "Equal" => Binary::Equal,
        "Less" => Binary::Less,
        "Greater" => Binary::Greater,
        _ => return Ok(Box::new(Where)),
    })))
}

impl Operator for Elementwise {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let mut result = inputs.value(0)?.clone();
        for index in 1..inputs.0.len() {
            result = self.0.apply(&result, inputs.value(index)?)?;
        }
        Ok(vec![result])
    }

    fn kind(&self, inputs: &[Kind]) -> Kind {
        match self.0 {
            Binary::Equal | Binary::Less | Binary::Greater => Kind::Int,
            _ => inputs.first().copied().unwrap_or(Kind::Float),
        }
    }

    fn differentiable(&self) -> usize {
        if self.0 == Binary::Pow { 1 } else { usize::MAX }
    }
}

impl Operator for Where {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let condition = inputs.int(0)?;
        if let (Value::Int(a), Value::Int(b)) = (inputs.value(1)?, inputs.value(2)?) {
            return Ok(vec![Value::Int(integer::choose(condition, a, b)?)]);
        }
        let (a, b) = (inputs.float(1)?, inputs.float(2)?);
        let dims = broadcast(&broadcast(&condition.dims, &a.dims())?, &b.dims())?;
        let condition = integer::expand(condition, &dims)?.data;
        let (a, b) = (expand(a, &dims)?, expand(b, &dims)?);
        let (left, right) = (a.contiguous(), b.contiguous());
        let output = by_type!(left, T => {
            let chosen = condition.iter().zip(T::view(&left).iter().zip(T::view(&right)));
            T::tensor(&dims, chosen.map(|(&c, (&a, &b))| if c != 0 { a } else { b }).collect())
        });
        let gradients = move |dy: &FlexTensor, _: [bool; 2]| {
            by_type!(dy, T => {
                let part = |wanted: bool| {
                    let dy = condition.iter().zip(T::view(dy));
                    T::tensor(&dims, dy.map(|(&c, &dy)| if (c != 0) == wanted { dy } else { T::ZERO }).collect())
                };
                [Some(part(true)), Some(part(false))]
            })
        };
        Ok(vec![Value::Float(record([&a, &b], output, gradients))])
    }

    fn kind(&self, inputs: &[Kind]) -> Kind {
        inputs.get(1).copied().unwrap_or(Kind::Float)
    }
}

impl Binary {
    /// What it makes of two values, broadcast to each other.
    pub(super) fn apply(self, a: &Value, b: &Value) -> Result<Value, OperatorError> {
        match (a, b) {
            (Value::Float(a), Value::Float(b)) if matches!(self, Self::Equal | Self::Less | Self::Greater) => {
                let dims = broadcast(&a.dims(), &b.dims())?;
                let [a, b] = [expand(a, &dims)?, expand(b, &dims)?].map(|tensor| to_f64(&tensor.contiguous()));
                let holds = |(a, b): (&f64, &f64)| match self {
                    Self::Equal => a == b,
                    Self::Less => a < b,
                    _ => a > b,
                };
                let data: Vec<i64> = a.iter().zip(&b).map(|pair| i64::from(holds(pair))).collect();
                Ok(Value::Int(IntTensor { dims, data: data.into() }))
            }
            (Value::Int(a), Value::Int(b)) => Ok(Value::Int(integer::apply(self, a, b)?)),
            (Value::Float(a), Value::Int(b)) if self == Self::Pow => {
                let numbers = b.data.iter().map(|&value| value as f64);
                let b = Tensor::Plain(tensor_of(a.inner().dtype(), &b.dims, numbers));
                Ok(Value::Float(self.apply_floats(a, &b)?))
            }
            (a, b) => Ok(Value::Float(self.apply_floats(a.float()?, b.float()?)?)),
        }
    }

    fn apply_floats(self, a: &Tensor, b: &Tensor) -> Result<Tensor, OperatorError> {
        let dims = broadcast(&a.dims(), &b.dims())?;
        count(&dims)?;
        let (a, b) = (spread(a, dims.len()), spread(b, dims.len()));
        Ok(match self {
            Self::Add => on_tape!(float_add(a, b)),
            Self::Sub => on_tape!(float_sub(a, b)),
            Self::Mul => on_tape!(float_mul(a, b)),
            Self::Div => on_tape!(float_div(a, b)),
            Self::Pow => pairs(Power, &expand(&a, &dims)?, &expand(&b, &dims)?),
            Self::Max => pairs(Larger, &expand(&a, &dims)?, &expand(&b, &dims)?),
            Self::Min => pairs(Smaller, &expand(&a, &dims)?, &expand(&b, &dims)?),
            Self::PRelu => pairs(Leaky, &expand(&a, &dims)?, &expand(&b, &dims)?),
            Self::Mod | Self::Equal | Self::Less | Self::Greater => {
                return Err(OperatorError::WrongType { expected: "integers", found: "reals" });
            }
        })
    }
}

/// A function of two reals.
trait Pair: Copy + Send + Sync + 'static {
    fn value<T: Scalar>(self, a: T, b: T) -> T;
    /// Its derivatives by both.
    fn slopes<T: Scalar>(self, a: T, b: T) -> (T, T);
}

#[derive(Clone, Copy)]
struct Power;
#[derive(Clone, Copy)]
struct Larger;
#[derive(Clone, Copy)]
struct Smaller;
#[derive(Clone, Copy)]
struct Leaky;

impl Pair for Power {
    fn value<T: Scalar>(self, a: T, b: T) -> T {
        if b == T::of(2.0) { a * a } else { a.powf(b) }
    }

    fn slopes<T: Scalar>(self, a: T, b: T) -> (T, T) {
        let by_base = if b == T::ZERO { T::ZERO } else { b * a.powf(b - T::ONE) };
        let by_exponent = if a > T::ZERO { a.powf(b) * a.ln() } else { T::ZERO };
        (by_base, by_exponent)
    }
}

impl Pair for Larger {
    fn value<T: Scalar>(self, a: T, b: T) -> T {
        if b > a { b } else { a }
    }

    fn slopes<T: Scalar>(self, a: T, b: T) -> (T, T) {
        if b > a { (T::ZERO, T::ONE) } else { (T::ONE, T::ZERO) }
    }
}

impl Pair for Smaller {
    fn value<T: Scalar>(self, a: T, b: T) -> T {
        if b < a { b } else { a }
    }

    fn slopes<T: Scalar>(self, a: T, b: T) -> (T, T) {
        if b < a { (T::ZERO, T::ONE) } else { (T::ONE, T::ZERO) }
    }
}

impl Pair for Leaky {
    fn value<T: Scalar>(self, a: T, b: T) -> T {
        if a < T::ZERO { a * b } else { a }
    }

    fn slopes<T: Scalar>(self, a: T, b: T) -> (T, T) {
        if a < T::ZERO { (b, a) } else { (T::ONE, T::ZERO) }
    }
}

/// Applies a function to tensors of one shape.
fn pairs(function: impl Pair, a: &Tensor, b: &Tensor) -> Tensor {
    let (dims, left, right) = (a.dims(), a.contiguous(), b.contiguous());
    let output = by_type!(left, T => {
        let pairs = T::view(&left).iter().zip(T::view(&right));
        T::tensor(&dims, pairs.map(|(&a, &b)| function.value(a, b)).collect())
    });
    record([a, b], output, move |dy: &FlexTensor, _| {
        by_type!(dy, T => {
            let pairs = T::view(&left).iter().zip(T::view(&right)).zip(T::view(dy));
            let slopes = pairs.map(|((&a, &b), &dy)| {
                let (by_a, by_b) = function.slopes(a, b);
                (by_a * dy, by_b * dy)
            });
            let (by_a, by_b) = slopes.unzip();
            [Some(T::tensor(&dims, by_a)), Some(T::tensor(&dims, by_b))]
        })
    })
}

/// The shape to which two shapes are broadcast.
pub(super) fn broadcast(left: &[usize], right: &[usize]) -> Result<Vec<usize>, OperatorError> {
    let rank = left.len().max(right.len());
    let at = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis]);
    let dims = (0..rank).map(|axis| match (at(left, axis), at(right, axis)) {
        (a, b) if a == b => Ok(a),
        (1, b) => Ok(b),
        (a, 1) => Ok(a),
        _ => Err(OperatorError::Mismatch { left: left.to_vec(), right: right.to_vec() }),
    });
    dims.collect()
}

/// The tensor with leading axes of extent 1, up to `rank` in all.
pub(super) fn spread(tensor: &Tensor, rank: usize) -> Tensor {
    let dims = tensor.dims();
    let leading = vec![1; rank.saturating_sub(dims.len())];
    tensor.clone().reshape(&[leading, dims].concat())
}

/// The tensor repeated along axes of extent 1 to fill `dims`.
pub(super) fn expand(tensor: &Tensor, dims: &[usize]) -> Result<Tensor, OperatorError> {
    count(dims)?;
    let tensor = spread(tensor, dims.len());
    if tensor.dims() == dims {
        return Ok(tensor);
    }
    let shape = Shape::from(dims.to_vec());
    Ok(on_tape!(float_expand(tensor; shape)))
}

/// The tensor times a number.
pub(super) fn scale(tensor: Tensor, factor: f64) -> Tensor {
    if factor == 1.0 {
        return tensor;
    }
    let factor = burn_backend::Scalar::from(factor);
    on_tape!(float_mul_scalar(tensor; factor))
}
