//! Normalisation: by fixed statistics (BatchNormalization), or by those of the values (LayerNormalization and
//! InstanceNormalization), then a scale and a bias that can be trained.

use burn_flex::FlexTensor;

use super::{Inputs, Operator, OperatorError, axis};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{Tensor, Value, count, to_f64};

#[derive(Debug)]
struct BatchNorm {
    epsilon: f64,
}

#[derive(Debug)]
struct LayerNorm {
    epsilon: f64,
    axis: i64,
}

#[derive(Debug)]
struct InstanceNorm {
    epsilon: f64,
}

/// Reads a normalisation.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let epsilon = node.float("epsilon", 1e-5);
    let outputs = node.proto.output.iter().filter(|name| !name.is_empty()).count();
    let is_training = node.int("training_mode", 0) != 0;
    if outputs > 1 || is_training {
        return Err(node.unsupported(if is_training { "training_mode" } else { "outputs" }, outputs));
    }
    if node.int("spatial", 1) != 1 {
        return Err(node.unsupported("spatial", 0));
    }
    Ok(match node.operator() {
        "BatchNormalization" => Box::new(BatchNorm { epsilon }),
        "InstanceNormalization" => Box::new(InstanceNorm { epsilon }),
        _ => Box::new(LayerNorm { epsilon, axis: node.int("axis", -1) }),
    })
}

impl Operator for BatchNorm {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let (x, scale, bias) = (inputs.float(0)?, inputs.float(1)?, inputs.float(2)?);
        let (mean, variance) = (to_f64(inputs.float(3)?.inner()), to_f64(inputs.float(4)?.inner()));
        let dims = x.dims();
        let &[_, channels, ..] = &dims[..] else {
            return Err(OperatorError::WrongRank { expected: "at least 2", found: dims });
        };
        for dims in [scale.dims(), bias.dims(), vec![mean.len()], vec![variance.len()]] {
            if dims != [channels] {
                return Err(OperatorError::Mismatch { left: dims, right: vec![channels] });
            }
        }
        let shifts: Vec<(f64, f64)> = mean
            .iter()
            .zip(&variance)
            .map(|(&mean, &variance)| (mean, (variance + self.epsilon).sqrt().recip()))
            .collect();
        let area = count(&dims[2..])?.max(1);
        Ok(vec![Value::Float(by_channel(x, scale, bias, shifts, area))])
    }

    fn differentiable(&self) -> usize {
        3
    }
}

/// (x - mean) factor scale + bias, with one of each for every channel of `area` elements.
fn by_channel(x: &Tensor, scale: &Tensor, bias: &Tensor, shifts: Vec<(f64, f64)>, area: usize) -> Tensor {
    let (dims, values, scales, offsets) = (x.dims(), x.contiguous(), scale.contiguous(), bias.contiguous());
    let channels = shifts.len();
    let output = by_type!(values, T => {
        let mut out = T::view(&values).to_vec();
        for (plane, out) in out.chunks_exact_mut(area).enumerate() {
            let channel = plane % channels;
            let (mean, factor) = shifts[channel];
            let (scale, bias) = (T::view(&scales)[channel], T::view(&offsets)[channel]);
            out.iter_mut().for_each(|x| *x = (*x - T::of(mean)) * T::of(factor) * scale + bias);
        }
        T::tensor(&dims, out)
    });
    record([x, scale, bias], output, move |dy: &FlexTensor, _| {
        by_type!(dy, T => {
            let mut dx = T::view(dy).to_vec();
            let (mut by_scale, mut by_bias) = (vec![T::ZERO; channels], vec![T::ZERO; channels]);
            let planes = dx.chunks_exact_mut(area).zip(T::view(&values).chunks_exact(area));
            for (plane, (dx, x)) in planes.enumerate() {
                let channel = plane % channels;
                let (mean, factor) = shifts[channel];
                let slope = T::view(&scales)[channel] * T::of(factor);
                for (dx, &x) in dx.iter_mut().zip(x) {
                    by_scale[channel] += *dx * (x - T::of(mean)) * T::of(factor);
                    by_bias[channel] += *dx;
                    *dx *= slope;
                }
            }
            let lists = [by_scale, by_bias].map(|list| Some(T::tensor(&[channels], list)));
            let [by_scale, by_bias] = lists;
            [Some(T::tensor(&dims, dx)), by_scale, by_bias]
        })
    })
}

impl Operator for LayerNorm {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let (x, scale) = (inputs.float(0)?, inputs.float(1)?);
        let dims = x.dims();
        let run = &dims[axis(self.axis, dims.len())?..];
        let scales = super::binary::expand(scale, run)?;
        let bias = inputs.optional(2).map(Value::float).transpose()?;
        let bias = bias.map(|bias| super::binary::expand(bias, run)).transpose()?;
        let y = standardize(x, count(run)?, self.epsilon);
        Ok(vec![Value::Float(affine(y, scales, bias))])
    }

    fn differentiable(&self) -> usize {
        3
    }
}

impl Operator for InstanceNorm {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let (x, scale, bias) = (inputs.float(0)?, inputs.float(1)?, inputs.float(2)?);
        let dims = x.dims();
        if dims.len() < 3 || scale.dims() != [dims[1]] || bias.dims() != [dims[1]] {
            return Err(OperatorError::Mismatch { left: dims, right: scale.dims() });
        }
        let channels = [&[dims[1]], &vec![1; dims.len() - 2][..]].concat();
        let y = standardize(x, count(&dims[2..])?, self.epsilon);
        let (scale, bias) = (scale.clone().reshape(&channels), bias.clone().reshape(&channels));
        Ok(vec![Value::Float(affine(y, scale, Some(bias)))])
    }

    fn differentiable(&self) -> usize {
        3
    }
}

fn affine(y: Tensor, scale: Tensor, bias: Option<Tensor>) -> Tensor {
    use super::binary::spread;
    use crate::finetune::value::{Tape, on_tape};
    use burn_flex::Flex;

    let rank = y.dims().len();
    let scale = spread(&scale, rank);
    let y = on_tape!(float_mul(y, scale));
    let Some(bias) = bias else { return y };
    let bias = spread(&bias, rank);
    on_tape!(float_add(y, bias))
}

/// Runs of `run` elements shifted and scaled to mean 0 and variance 1.
fn standardize(x: &Tensor, run: usize, epsilon: f64) -> Tensor {
    let (dims, values, run) = (x.dims(), x.contiguous(), run.max(1));
    let (output, factors) = by_type!(values, T => {
        let mut out = T::view(&values).to_vec();
        let mut factors = Vec::with_capacity(out.len() / run);
        for row in out.chunks_exact_mut(run) {
            let mean = row.iter().map(|x| x.f64()).sum::<f64>() / run as f64;
            let variance = row.iter().map(|x| (x.f64() - mean).powi(2)).sum::<f64>() / run as f64;
            let factor = (variance + epsilon).sqrt().recip();
            row.iter_mut().for_each(|x| *x = (*x - T::of(mean)) * T::of(factor));
            factors.push(factor);
        }
        (T::tensor(&dims, out), factors)
    });
    let result = output.clone();
    record([x], output, move |dy: &FlexTensor, _| {
        [Some(by_type!(dy, T => {
            let mut out = T::view(dy).to_vec();
            let rows = out.chunks_exact_mut(run).zip(T::view(&result).chunks_exact(run));
            for ((dx, y), &factor) in rows.zip(&factors) {
                let mean = dx.iter().map(|dy| dy.f64()).sum::<f64>() / run as f64;
                let along = dx.iter().zip(y).map(|(dy, y)| dy.f64() * y.f64()).sum::<f64>() / run as f64;
                for (dx, &y) in dx.iter_mut().zip(y) {
                    *dx = (*dx - T::of(mean) - y * T::of(along)) * T::of(factor);
                }
            }
            T::tensor(&dims, out)
        }))]
    })
}
