//! Sums, means, extremes, norms and products along axes.

use burn_flex::{Flex, FlexTensor};

use super::binary::{Binary, scale};
use super::{Inputs, Operator, OperatorError, unary};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{IntTensor, Tape, Tensor, Value, on_tape};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Sum,
    Mean,
    Max,
    Min,
    /// Of absolute values.
    L1,
    /// The root of the sum of squares.
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
    Prod,
}

#[derive(Debug)]
struct Reduce {
    kind: Kind,
    axes: Option<Vec<i64>>,
    keep: bool,
    /// Without axes, nothing is reduced rather than everything.
    no_axes_is_identity: bool,
}

/// Reads a reduction.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let kind = match node.operator() {
        "ReduceSum" => Kind::Sum,
        "ReduceMean" => Kind::Mean,
        "ReduceMax" => Kind::Max,
        "ReduceMin" => Kind::Min,
        "ReduceL1" => Kind::L1,
        "ReduceL2" => Kind::L2,
        "ReduceSumSquare" => Kind::SumSquare,
        "ReduceLogSum" => Kind::LogSum,
        "ReduceLogSumExp" => Kind::LogSumExp,
        _ => Kind::Prod,
    };
    let axes = node.ints("axes").map(<[i64]>::to_vec);
    let no_axes_is_identity = node.int("noop_with_empty_axes", 0) != 0;
    Ok(Box::new(Reduce { kind, axes, keep: node.int("keepdims", 1) != 0, no_axes_is_identity }))
}

impl Operator for Reduce {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let value = inputs.value(0)?;
        let dims = value.dims();
        let listed = inputs.ints(1)?.or_else(|| self.axes.clone()).unwrap_or_default();
        let mut axes = match listed.is_empty() {
            true if self.no_axes_is_identity => return Ok(vec![value.clone()]),
            true => (0..dims.len()).collect::<Vec<_>>(),
            false => super::axes(&listed, dims.len())?,
        };
        axes.sort_unstable();
        axes.dedup();
        let kept = dims.iter().enumerate().filter(|(axis, _)| self.keep || !axes.contains(axis));
        let kept: Vec<usize> = kept.map(|(axis, &dim)| if axes.contains(&axis) { 1 } else { dim }).collect();
        match value {
            Value::Float(x) => Ok(vec![Value::Float(self.apply(x.clone(), &axes)?.reshape(&kept))]),
            Value::Int(x) if axes.len() == dims.len() => {
                let reduced = match self.kind {
                    Kind::Sum => x.data.iter().fold(0, |sum: i64, &x| sum.wrapping_add(x)),
                    Kind::Max => x.data.iter().copied().max().unwrap_or(0),
                    Kind::Min => x.data.iter().copied().min().unwrap_or(0),
                    Kind::Prod => x.data.iter().fold(1, |product: i64, &x| product.wrapping_mul(x)),
                    _ => return Err(OperatorError::WrongType { expected: "reals", found: "integers" }),
                };
                Ok(vec![Value::Int(IntTensor { dims: kept, data: vec![reduced].into() })])
            }
            Value::Int(_) => Err(OperatorError::WrongType { expected: "reals", found: "integers" }),
        }
    }
}

impl Reduce {
    fn apply(&self, x: Tensor, axes: &[usize]) -> Result<Tensor, OperatorError> {
        let dims = x.dims();
        let reduced: usize = axes.iter().map(|&axis| dims[axis]).product();
        if reduced == 0 {
            return Err(OperatorError::Window { kernel: Vec::new(), input: dims });
        }
        if let Kind::LogSumExp = self.kind {
            // No exponent is positive, so nothing overflows; what is taken off and added again has no slope.
            let largest = along(&x, axes, |x, axis| on_tape!(float_max_dim(x; axis)));
            let largest = Value::Float(Tensor::Plain(largest.inner().clone()));
            let below = Binary::Sub.apply(&Value::Float(x), &largest)?;
            let powers = unary::apply(unary::Exp, below.float()?);
            let sum = along(&powers, axes, |x, axis| on_tape!(float_sum_dim(x; axis)));
            let result = Binary::Add.apply(&Value::Float(unary::apply(unary::Log, &sum)), &largest)?;
            return Ok(result.float()?.clone());
        }
        let x = match self.kind {
            Kind::L1 => unary::apply(unary::Abs, &x),
            Kind::L2 | Kind::SumSquare => unary::apply(unary::Square, &x),
            _ => x,
        };
        let x = along(&x, axes, |x, axis| match self.kind {
            Kind::Max => on_tape!(float_max_dim(x; axis)),
            Kind::Min => on_tape!(float_min_dim(x; axis)),
            Kind::Prod => product(&x, axis),
            _ => on_tape!(float_sum_dim(x; axis)),
        });
        Ok(match self.kind {
            Kind::Mean => scale(x, 1.0 / reduced as f64),
            Kind::L2 => unary::apply(unary::Sqrt, &x),
            Kind::LogSum => unary::apply(unary::Log, &x),
            _ => x,
        })
    }
}

/// `x` reduced along each of `axes`.
fn along(x: &Tensor, axes: &[usize], reduce: impl Fn(Tensor, usize) -> Tensor) -> Tensor {
    axes.iter().fold(x.clone(), |x, &axis| reduce(x, axis))
}

/// The product along an axis. The slope of each factor is the product of the others, whichever are zero.
fn product(x: &Tensor, axis: usize) -> Tensor {
    let (dims, values) = (x.dims(), x.contiguous());
    let (count, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
    let mut reduced = dims.clone();
    reduced[axis] = 1;
    let cells = move |place: usize| {
        let start = place / inner * inner * count + place % inner;
        (0..count).map(move |i| start + i * inner)
    };
    let places: usize = reduced.iter().product();
    let output = by_type!(values, T => {
        let view = T::view(&values);
        let of = |place| cells(place).fold(T::ONE, |product, cell| product * view[cell]);
        T::tensor(&reduced, (0..places).map(of).collect())
    });
    record([x], output, move |dy: &FlexTensor, _| {
        [Some(by_type!(dy, T => {
            let (view, dy) = (T::view(&values), T::view(dy));
            let mut slopes = vec![T::ONE; view.len()];
            for (place, &dy) in dy.iter().enumerate() {
                let mut before = dy;
                for cell in cells(place) {
                    slopes[cell] = before;
                    before *= view[cell];
                }
                let mut behind = T::ONE;
                for cell in cells(place).rev() {
                    slopes[cell] *= behind;
                    behind *= view[cell];
                }
            }
            T::tensor(&dims, slopes)
        }))]
    })
}
