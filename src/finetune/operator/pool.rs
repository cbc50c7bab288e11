//! MaxPool, AveragePool and their global forms, over one or two spatial axes.

use burn_flex::FlexTensor;

use super::window::{Placed, Window};
use super::{Inputs, Operator, OperatorError};
use crate::finetune::error::TuneError;
use crate::finetune::kernel::pool::Pool;
use crate::finetune::kernel::slide::Slide;
use crate::finetune::node::Node;
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{Tensor, Value, count};

#[derive(Debug)]
struct Pooling {
    /// None for the whole input.
    window: Option<Window>,
    /// Of means, whether the padding counts; none for the largest element.
    mean: Option<bool>,
}

/// Reads a pool.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let operator = node.operator();
    let window = if operator.starts_with("Global") { None } else { Some(Window::parse(node)?) };
    let mean = operator.ends_with("AveragePool").then(|| node.int("count_include_pad", 0) != 0);
    let outputs = node.proto.output.iter().filter(|name| !name.is_empty()).count();
    if outputs > 1 {
        return Err(node.unsupported("outputs", outputs));
    }
    Ok(Box::new(Pooling { window, mean }))
}

impl Operator for Pooling {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let x = inputs.float(0)?;
        let dims = x.dims();
        if dims.len() < 3 {
            return Err(OperatorError::WrongRank { expected: "at least 3", found: dims });
        }
        let Some(window) = &self.window else {
            let spatial = count(&dims[2..])?;
            if spatial == 0 {
                return Err(OperatorError::Window { kernel: Vec::new(), input: dims });
            }
            let pool = Pool {
                planes: count(&dims[..2])?,
                slide: Slide {
                    input: [1, spatial],
                    output: [1, 1],
                    kernel: [1, spatial],
                    strides: [1, 1],
                    dilations: [1, 1],
                    pads: [0, 0],
                },
                end_pads: [0, 0],
            };
            let out = [&dims[..2], &vec![1; dims.len() - 2]].concat();
            return Ok(vec![Value::Float(self.apply(pool, x, &out))]);
        };
        let placed = window.place(&dims[2..], None)?;
        let out = [&dims[..2], placed.output_dims(dims.len() - 2)].concat();
        count(&out)?;
        let Placed { input, output, kernel, strides, dilations, pads, end_pads } = placed;
        let planes = count(&dims[..2])?;
        let pool = Pool { planes, slide: Slide { input, output, kernel, strides, dilations, pads }, end_pads };
        Ok(vec![Value::Float(self.apply(pool, x, &out))])
    }
}

impl Pooling {
    fn apply(&self, pool: Pool, x: &Tensor, dims: &[usize]) -> Tensor {
        let (values, of_x) = (x.contiguous(), x.dims());
        if let Some(include_pad) = self.mean {
            let output = by_type!(values, T => T::tensor(dims, pool.mean(T::view(&values), include_pad)));
            return record([x], output, move |dy: &FlexTensor, _| {
                [Some(by_type!(dy, T => T::tensor(&of_x, pool.mean_gradient(T::view(dy), include_pad))))]
            });
        }
        let (output, from) = by_type!(values, T => {
            let (out, from) = pool.max(T::view(&values));
            (T::tensor(dims, out), from)
        });
        record([x], output, move |dy: &FlexTensor, _| {
            [Some(by_type!(dy, T => T::tensor(&of_x, pool.max_gradient(T::view(dy), &from))))]
        })
    }
}
