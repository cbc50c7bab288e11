//! Conv and ConvTranspose of one or two spatial axes.

use burn_flex::FlexTensor;

use super::window::{Placed, Window};
use super::{Inputs, Operator, OperatorError};
use crate::finetune::error::TuneError;
use crate::finetune::kernel::convolution::Convolution;
use crate::finetune::kernel::slide::Slide;
use crate::finetune::node::Node;
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{Tensor, Value, count};

#[derive(Debug)]
struct Conv {
    window: Window,
    groups: usize,
}

#[derive(Debug)]
struct ConvTranspose {
    window: Window,
    groups: usize,
    extra: Vec<usize>,
    wanted: Option<Vec<usize>>,
}

/// Reads a Conv.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    Ok(Box::new(Conv { window: Window::parse(node)?, groups: groups(node)? }))
}

/// Reads a ConvTranspose.
pub(super) fn parse_transposed(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let list = |name: &'static str, least: i64| -> Result<Option<Vec<usize>>, TuneError> {
        let Some(values) = node.ints(name) else { return Ok(None) };
        match values.iter().all(|&value| (least..1 << 31).contains(&value)) {
            true => Ok(Some(values.iter().map(|&value| value as usize).collect())),
            false => Err(node.unsupported(name, format!("{values:?}"))),
        }
    };
    Ok(Box::new(ConvTranspose {
        window: Window::parse(node)?,
        groups: groups(node)?,
        extra: list("output_padding", 0)?.unwrap_or_default(),
        wanted: list("output_shape", 1)?,
    }))
}

fn groups(node: &Node<'_>) -> Result<usize, TuneError> {
    let groups = node.int("group", 1);
    usize::try_from(groups).ok().filter(|&groups| groups > 0).ok_or_else(|| node.unsupported("group", groups))
}

impl Operator for Conv {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let (x, w) = (inputs.float(0)?, inputs.float(1)?);
        let (dims, kernel) = (x.dims(), w.dims());
        let mismatch = || OperatorError::Mismatch { left: dims.clone(), right: kernel.clone() };
        if dims.len() < 3 || kernel.len() != dims.len() || kernel.contains(&0) {
            return Err(mismatch());
        }
        if kernel[1].checked_mul(self.groups) != Some(dims[1]) || kernel[0] % self.groups != 0 {
            return Err(mismatch());
        }
        let placed = self.window.place(&dims[2..], Some(&kernel[2..]))?;
        let geometry = geometry(&placed, dims[0], self.groups, dims[1], kernel[0]);
        let out = [&[dims[0], kernel[0]], placed.output_dims(dims.len() - 2)].concat();
        count(&out)?;
        let bias = bias(inputs, kernel[0])?;
        Ok(vec![Value::Float(convolve(geometry, [x, w], bias, &out))])
    }
}

/// The bias, of one value a channel, if there is one.
fn bias<'a>(inputs: &'a Inputs<'_>, channels: usize) -> Result<Option<&'a Tensor>, OperatorError> {
    let Some(value) = inputs.optional(2) else { return Ok(None) };
    let bias = value.float()?;
    match bias.dims()[..] {
        [found] if found == channels => Ok(Some(bias)),
        _ => Err(OperatorError::Mismatch { left: bias.dims(), right: vec![channels] }),
    }
}

fn geometry(placed: &Placed, batch: usize, groups: usize, inputs: usize, outputs: usize) -> Convolution {
    let Placed { input, output, kernel, strides, dilations, pads, .. } = *placed;
    let slide = Slide { input, output, kernel, strides, dilations, pads };
    Convolution { batch, groups, inputs, outputs, slide }
}

fn convolve(geometry: Convolution, [x, w]: [&Tensor; 2], bias: Option<&Tensor>, dims: &[usize]) -> Tensor {
    let (values, weights, offsets) = (x.contiguous(), w.contiguous(), bias.map(Tensor::contiguous));
    let output = by_type!(values, T => {
        let mut out = vec![T::ZERO; dims.iter().product()];
        geometry.forward(T::view(&values), T::view(&weights), offsets.as_ref().map(T::view), &mut out);
        T::tensor(dims, out)
    });
    let (of_x, of_w) = (x.dims(), w.dims());
    let gradients = move |dy: &FlexTensor, wanted: [bool; 3]| {
        by_type!(dy, T => {
            let dy = T::view(dy);
            let fill = |dims: &[usize], fill: &dyn Fn(&mut [T])| {
                let mut out = vec![T::ZERO; dims.iter().product()];
                fill(&mut out);
                T::tensor(dims, out)
            };
            let (x, w) = (T::view(&values), T::view(&weights));
            [
                wanted[0].then(|| fill(&of_x, &|dx| geometry.input_gradient(dy, w, dx))),
                wanted[1].then(|| fill(&of_w, &|dw| geometry.weight_gradient(x, dy, dw))),
                wanted[2].then(|| fill(&[geometry.outputs], &|db| geometry.bias_gradient(dy, db))),
            ]
        })
    };
    record([x, w, bias.unwrap_or(&nothing(&output))], output, gradients)
}

/// A plain tensor in the place of an input that is left out.
fn nothing(like: &FlexTensor) -> Tensor {
    Tensor::Plain(like.clone())
}

impl Operator for ConvTranspose {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let (x, w) = (inputs.float(0)?, inputs.float(1)?);
        let (dims, kernel) = (x.dims(), w.dims());
        let mismatch = || OperatorError::Mismatch { left: dims.clone(), right: kernel.clone() };
        if dims.len() < 3 || kernel.len() != dims.len() || kernel.contains(&0) {
            return Err(mismatch());
        }
        if kernel[0] != dims[1] || kernel[0] % self.groups != 0 {
            return Err(mismatch());
        }
        let rank = dims.len() - 2;
        let placed = self.window.place_transposed(&dims[2..], &kernel[2..], &self.extra, self.wanted.as_deref())?;
        let channels = kernel[1].checked_mul(self.groups).ok_or_else(mismatch)?;
        // The convolution of which this is the gradient by the input: from our output to our input.
        let geometry = geometry(&placed, dims[0], self.groups, channels, dims[1]);
        let out = [&[dims[0], channels], placed.input_dims(rank)].concat();
        count(&out)?;
        let bias = bias(inputs, channels)?;
        Ok(vec![Value::Float(convolve_back(geometry, [x, w], bias, &out))])
    }
}

fn convolve_back(geometry: Convolution, [x, w]: [&Tensor; 2], bias: Option<&Tensor>, dims: &[usize]) -> Tensor {
    let (values, weights, offsets) = (x.contiguous(), w.contiguous(), bias.map(Tensor::contiguous));
    let area: usize = geometry.slide.area();
    let output = by_type!(values, T => {
        let mut out = vec![T::ZERO; dims.iter().product()];
        geometry.input_gradient(T::view(&values), T::view(&weights), &mut out);
        if let Some(bias) = offsets.as_ref().map(T::view) {
            for (plane, out) in out.chunks_exact_mut(area).enumerate() {
                out.iter_mut().for_each(|out| *out += bias[plane % bias.len()]);
            }
        }
        T::tensor(dims, out)
    });
    let (of_x, of_w) = (x.dims(), w.dims());
    let gradients = move |dy: &FlexTensor, wanted: [bool; 3]| {
        by_type!(dy, T => {
            let dy = T::view(dy);
            let fill = |dims: &[usize], fill: &dyn Fn(&mut [T])| {
                let mut out = vec![T::ZERO; dims.iter().product()];
                fill(&mut out);
                T::tensor(dims, out)
            };
            let (x, w) = (T::view(&values), T::view(&weights));
            let by_bias = |db: &mut [T]| {
                for (plane, dy) in dy.chunks_exact(area).enumerate() {
                    db[plane % geometry.inputs] += dy.iter().fold(T::ZERO, |sum, &dy| sum + dy);
                }
            };
            [
                wanted[0].then(|| fill(&of_x, &|dx| geometry.forward(dy, w, None, dx))),
                wanted[1].then(|| fill(&of_w, &|dw| geometry.weight_gradient(dy, x, dw))),
                wanted[2].then(|| fill(&[geometry.inputs], &by_bias)),
            ]
        })
    };
    record([x, w, bias.unwrap_or(&nothing(&output))], output, gradients)
}
