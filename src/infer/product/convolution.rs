//! Conv and ConvTranspose with compressed kernels, of one to three spatial axes.
//!
//! Patches are gathered for a block of output positions at a time, a block a thread, so an image costs no more memory
//! than the blocks, and each block multiplies by the weight once for all groups.

use std::ops::Range;

use rayon::prelude::*;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cnn::PaddingSpec;

use super::window::{Axis, Windows};
use super::{SharedWeight, View};

pub(crate) use super::window::Direction;

/// Columns of a block of patches: as many samples as one walk over a compressed matrix multiplies by, so that the walk is
/// shared by many and the patches stay in a second-level cache.
const BLOCK_COLUMNS: usize = 256;

/// A convolution; the attributes of its spatial axes all have one entry per axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Convolution {
    pub(crate) weight: SharedWeight,
    pub(crate) direction: Direction,
    pub(crate) groups: usize,
    /// Kernel extents, each at least 1.
    pub(crate) kernel: TVec<usize>,
    /// Each at least 1.
    pub(crate) strides: TVec<usize>,
    /// Each at least 1.
    pub(crate) dilations: TVec<usize>,
    pub(crate) padding: PaddingSpec,
    /// ConvTranspose: extra outputs at the end of each axis.
    pub(crate) output_padding: TVec<usize>,
    /// ConvTranspose: the extents of the output, which then decide the padding.
    pub(crate) output_shape: Option<TVec<usize>>,
}

impl Convolution {
    /// Input channels: one part per group.
    fn channels(&self) -> usize {
        self.weight.inputs() / self.kernel.iter().product::<usize>() * self.groups
    }

    pub(super) fn output_shape<D: DimLike>(&self, input: &[D]) -> TractResult<TVec<D>> {
        let [samples, channels, spatial @ ..] = input else { bail!("a convolution of rank {}", input.len()) };
        ensure!(spatial.len() == self.kernel.len(), "{} spatial axes, not {}", spatial.len(), self.kernel.len());
        if channels.as_usize().is_some_and(|channels| channels != self.channels()) {
            bail!("the kernel reads {} channels, the input has {channels}", self.channels());
        }
        let mut output = tvec![samples.clone(), D::from(self.weight.outputs())];
        for (axis, input) in spatial.iter().enumerate() {
            output.push(match self.direction {
                Direction::Forward => {
                    let (kernel, dilation, stride) = (self.kernel[axis], self.dilations[axis], self.strides[axis]);
                    self.padding.compute_one(axis, input, kernel, dilation, stride).convoluted
                }
                Direction::Transposed => self.transposed_extent(axis, input)?,
            });
        }
        Ok(output)
    }

    /// Outputs that inputs reach before cropping, beyond the stride of each input but the first.
    fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1 + self.output_padding[axis]
    }

    /// Output extent of a ConvTranspose along `axis`.
    fn transposed_extent<D: DimLike>(&self, axis: usize, input: &D) -> TractResult<D> {
        if let Some(shape) = &self.output_shape {
            return Ok(D::from(shape[axis]));
        }
        let (stride, reach) = (self.strides[axis], self.reach(axis));
        let crop = match &self.padding {
            PaddingSpec::SameUpper | PaddingSpec::SameLower => return Ok(input.clone() * stride),
            PaddingSpec::Explicit(before, after) => before[axis] + after[axis],
            _ => 0,
        };
        if input.as_usize().is_some_and(|input| input == 0 || (input - 1) * stride + reach < crop) {
            bail!("a crop of {crop} outputs leaves nothing of {input} inputs");
        }
        Ok((input.clone() - 1) * stride + reach - crop)
    }

    fn axis(&self, axis: usize, input: usize, output: usize) -> Axis {
        let (taps, stride, dilation) = (self.kernel[axis], self.strides[axis], self.dilations[axis]);
        let pad = match (self.direction, &self.padding) {
            (Direction::Forward, padding) => padding.compute_one(axis, &input, taps, dilation, stride).pad_before,
            (Direction::Transposed, PaddingSpec::Explicit(before, _)) if self.output_shape.is_none() => before[axis],
            // ONNX: what is to be cropped in all follows from the output's extent; the odd one goes to the end with
            // SAME_UPPER, to the beginning otherwise.
            (Direction::Transposed, padding) => {
                let crop = (input.saturating_sub(1) * stride + self.reach(axis)).saturating_sub(output);
                if *padding == PaddingSpec::SameUpper { crop / 2 } else { crop - crop / 2 }
            }
        };
        Axis { input, output, taps, stride, dilation, pad }
    }

    fn windows(&self, input: &[usize], output: &[usize]) -> Windows {
        let mut axes = [Axis::UNIT; 3];
        let offset = axes.len() - self.kernel.len();
        for axis in 0..self.kernel.len() {
            axes[offset + axis] = self.axis(axis, input[2 + axis], output[2 + axis]);
        }
        Windows { direction: self.direction, channels: self.channels(), axes }
    }

    /// Computes into the output, given as its shape and its elements.
    pub(super) fn run(
        &self,
        x: View<'_>,
        bias: Option<View<'_>>,
        (shape, out): (&[usize], &mut [f32]),
    ) -> TractResult<()> {
        let units = self.weight.outputs();
        if let Some(bias) = bias {
            ensure!(bias.data.len() == units, "a bias of {} values for {units} channels", bias.data.len());
        }
        if out.is_empty() {
            return Ok(());
        }
        let windows = self.windows(x.shape, shape);
        let positions = windows.positions();
        let columns = shape[0] * positions;
        let starts: Vec<usize> = (0..columns).step_by(BLOCK_COLUMNS).collect();
        for starts in starts.chunks(rayon::current_num_threads()) {
            let block = |&start: &usize| start..columns.min(start + BLOCK_COLUMNS);
            let sums: Vec<_> = starts.par_iter().map(|start| self.block(&windows, x.data, block(start))).collect();
            for (start, sums) in starts.iter().zip(sums) {
                spread(&sums, block(start), (units, positions), out);
            }
        }
        if let Some(bias) = bias {
            for (plane, bias) in out.chunks_exact_mut(positions).zip(bias.data.iter().cycle()) {
                plane.iter_mut().for_each(|v| *v += bias);
            }
        }
        Ok(())
    }

    /// The results of `columns` (sample x positions + position), units x columns.
    fn block(&self, windows: &Windows, x: &[f32], columns: Range<usize>) -> Vec<f32> {
        let width = columns.len();
        let mut patches = vec![0.0; windows.depth() * width];
        windows.gather(x, columns, &mut patches);
        let mut sums = vec![0.0; self.weight.outputs() * width];
        self.weight.multiply_grouped(self.groups, &patches, width, &mut sums);
        sums
    }
}

/// Writes `sums` (units x columns) to the output (samples, units, positions).
fn spread(sums: &[f32], columns: Range<usize>, (units, positions): (usize, usize), out: &mut [f32]) {
    let width = columns.len();
    let mut column = columns.start;
    while column < columns.end {
        let (sample, position) = (column / positions, column % positions);
        let len = (positions - position).min(columns.end - column);
        let at = column - columns.start;
        for unit in 0..units {
            let to = (sample * units + unit) * positions + position;
            out[to..to + len].copy_from_slice(&sums[unit * width + at..][..len]);
        }
        column += len;
    }
}
