//! The columns that a product multiplies its weight by: what calibration takes its statistics of.

use std::ops::Range;

use tract_onnx::tract_hir::internal::*;

use super::convolution::channels_first;
use super::{Kernel, View};

impl Kernel {
    /// Groups of outputs that read inputs of their own.
    pub(crate) fn groups(&self) -> usize {
        match self {
            Self::Linear(_) => 1,
            Self::Convolution(convolution) => convolution.groups,
        }
    }

    /// Whether it multiplies by the transpose of the stored matrix.
    pub(crate) fn is_transposed(&self) -> bool {
        match self {
            Self::Linear(linear) => linear.weight.is_transposed(),
            Self::Convolution(convolution) => convolution.weight.is_transposed(),
        }
    }

    /// Factors of the product and of the bias.
    pub(crate) fn factors(&self) -> (f32, f32) {
        match self {
            Self::Linear(linear) => (linear.alpha, linear.beta),
            Self::Convolution(_) => (1.0, 1.0),
        }
    }

    /// Columns of an activation: samples, or samples times positions.
    pub(crate) fn columns(&self, x: &TValue) -> TractResult<usize> {
        match self {
            Self::Linear(linear) => Ok(x.len() / linear.weight.inputs().max(1)),
            Self::Convolution(convolution) => {
                let output = convolution.output_shape(x.shape())?;
                Ok(output[0] * output[2..].iter().product::<usize>())
            }
        }
    }

    /// Gathers every column of `ranges`, which rise, side by side: (groups x inputs) x columns, row-major.
    pub(crate) fn gather(&self, x: &TValue, ranges: &[Range<usize>]) -> TractResult<Vec<f32>> {
        let x = View::of(x)?;
        let count: usize = ranges.iter().map(ExactSizeIterator::len).sum();
        match self {
            Self::Linear(linear) => {
                let features = linear.weight.inputs();
                let samples = match x.shape {
                    [.., _, samples] if !linear.features_last => *samples,
                    _ => 1,
                };
                let mut out = vec![0.0; features * count];
                for (at, column) in ranges.iter().cloned().flatten().enumerate() {
                    // Features lie side by side, or `samples` apart.
                    let start = column / samples * samples * features + column % samples;
                    for feature in 0..features {
                        out[feature * count + at] = x.data[start + feature * samples];
                    }
                }
                Ok(out)
            }
            Self::Convolution(convolution) => {
                let shape_of_x = convolution.channels_first(x.shape);
                let output = convolution.output_shape(x.shape)?;
                let windows = convolution.windows(&shape_of_x, &output);
                let turned = convolution.channels_last.then(|| channels_first(x.data, shape_of_x[1], shape_of_x[2]));
                let (data, depth) = (turned.as_deref().unwrap_or(x.data), windows.depth());
                let mut out = vec![0.0; depth * count];
                let (mut part, mut at) = (Vec::new(), 0);
                for range in ranges {
                    part.resize(depth * range.len(), 0.0);
                    windows.gather(data, range.clone(), &mut part);
                    for (out, part) in out.chunks_exact_mut(count).zip(part.chunks_exact(range.len().max(1))) {
                        out[at..at + range.len()].copy_from_slice(part);
                    }
                    at += range.len();
                }
                Ok(out)
            }
        }
    }
}
