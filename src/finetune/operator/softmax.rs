//! Softmax and LogSoftmax.

use burn_flex::FlexTensor;

use super::{Inputs, Operator, OperatorError, axis};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{Tensor, Value};

#[derive(Debug)]
struct Softmax {
    axis: i64,
    log: bool,
    /// Before version 13, over all axes from this one on.
    flattened: bool,
}

/// Reads a Softmax or a LogSoftmax.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let flattened = node.opset < 13;
    let axis = node.int("axis", if flattened { 1 } else { -1 });
    Ok(Box::new(Softmax { axis, log: node.operator() == "LogSoftmax", flattened }))
}

impl Operator for Softmax {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let x = inputs.float(0)?;
        let dims = x.dims();
        let axis = axis(self.axis, dims.len())?;
        if self.flattened || axis + 1 == dims.len() {
            let rows = dims[if self.flattened { axis } else { dims.len() - 1 }..].iter().product();
            return Ok(vec![Value::Float(softmax(x, rows, self.log))]);
        }
        let mut axes: Vec<usize> = (0..dims.len()).collect();
        axes.swap(axis, dims.len() - 1);
        let turned = x.clone().permute(&axes);
        Ok(vec![Value::Float(softmax(&turned, dims[axis], self.log).permute(&axes))])
    }

    fn is_softmax(&self) -> bool {
        matches!(self.axis, -1 | 1)
    }
}

/// Softmax, or its logarithm, over runs of `run` elements.
fn softmax(x: &Tensor, run: usize, log: bool) -> Tensor {
    let (dims, values, run) = (x.dims(), x.contiguous(), run.max(1));
    let output = by_type!(values, T => {
        let mut out = T::view(&values).to_vec();
        for row in out.chunks_exact_mut(run) {
            let max = row.iter().fold(row[0], |max, &x| if x > max { x } else { max });
            let sum = row.iter().fold(T::ZERO, |sum, &x| sum + (x - max).exp());
            match log {
                true => row.iter_mut().for_each(|x| *x = *x - max - sum.ln()),
                false => row.iter_mut().for_each(|x| *x = (*x - max).exp() / sum),
            }
        }
        T::tensor(&dims, out)
    });
    let result = output.clone();
    record([x], output, move |dy: &FlexTensor, _| {
        [Some(by_type!(dy, T => {
            let mut out = T::view(dy).to_vec();
            for (dx, y) in out.chunks_exact_mut(run).zip(T::view(&result).chunks_exact(run)) {
                if log {
                    let sum = dx.iter().fold(T::ZERO, |sum, &dy| sum + dy);
                    dx.iter_mut().zip(y).for_each(|(dx, &y)| *dx -= y.exp() * sum);
                } else {
                    let sum = dx.iter().zip(y).fold(T::ZERO, |sum, (&dy, &y)| sum + dy * y);
                    dx.iter_mut().zip(y).for_each(|(dx, &y)| *dx = y * (*dx - sum));
                }
            }
            T::tensor(&dims, out)
        }))]
    })
}
