//! Sums, means and extremes along axes.

use burn_flex::Flex;

use super::binary::scale;
use super::{Inputs, Operator, OperatorError};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::value::{IntTensor, Tape, Tensor, Value, on_tape};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Sum,
    Mean,
    Max,
    Min,
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
        _ => Kind::Min,
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
                    Kind::Mean => return Err(OperatorError::WrongType { expected: "reals", found: "integers" }),
                };
                Ok(vec![Value::Int(IntTensor { dims: kept, data: vec![reduced].into() })])
            }
            Value::Int(_) => Err(OperatorError::WrongType { expected: "reals", found: "integers" }),
        }
    }
}

impl Reduce {
    fn apply(&self, mut x: Tensor, axes: &[usize]) -> Result<Tensor, OperatorError> {
        let dims = x.dims();
        let reduced: usize = axes.iter().map(|&axis| dims[axis]).product();
        if reduced == 0 {
            return Err(OperatorError::Window { kernel: Vec::new(), input: dims });
        }
        for &axis in axes {
            x = match self.kind {
                Kind::Sum | Kind::Mean => on_tape!(float_sum_dim(x; axis)),
                Kind::Max => on_tape!(float_max_dim(x; axis)),
                Kind::Min => on_tape!(float_min_dim(x; axis)),
            };
        }
        Ok(if let Kind::Mean = self.kind { scale(x, 1.0 / reduced as f64) } else { x })
    }
}
