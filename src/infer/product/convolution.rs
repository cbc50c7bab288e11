//! Conv and ConvTranspose with compressed kernels, of one to three spatial axes.
//!
//! A Conv with a sparse kernel sums runs of the input that lies in place ([`super::direct`]). For a ConvTranspose, and
//! for a kernel of few zeros, patches are gathered: for a block of output positions at a time, a block a thread, so an
//! image costs no more memory than the blocks, and each block multiplies by the weight once for all groups.

use std::ops::Range;

use rayon::prelude::*;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cnn::PaddingSpec;

use super::direct::Layout;
use super::linear::turn;
use super::parts::{for_each_part, threads_for, with_staged};
use super::weight::Rows;
use super::window::{Axis, Windows};
use super::{Bounds, SharedWeight, View};
use crate::kernel::axpy::Planes;

pub(crate) use super::window::Direction;

/// Columns of a block of patches: as many samples as one walk over a compressed matrix multiplies by, so that the walk is
/// shared by many and the patches stay in a second-level cache.
const BLOCK_COLUMNS: usize = 256;
/// Most floats of a block's patches, unless one column is longer.
const BLOCK_FLOATS: usize = 1 << 24;

/// A convolution; the attributes of its spatial axes all have one entry per axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Convolution {
    pub(crate) weight: SharedWeight,
    /// The input is (samples, length, channels); for one spatial axis.
    pub(crate) channels_last: bool,
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

    /// An input of `samples` samples with some hundred output positions.
    pub(super) fn example_shape(&self, samples: usize) -> TVec<usize> {
        let outputs = [256, 16, 8][self.kernel.len() - 1];
        let axes = (0..self.kernel.len()).map(|axis| match self.direction {
            Direction::Forward => {
                (outputs - 1) * self.strides[axis] + (self.kernel[axis] - 1) * self.dilations[axis] + 1
            }
            Direction::Transposed => outputs,
        });
        [samples, self.channels()].into_iter().chain(axes).collect()
    }

    pub(super) fn output_shape<D: DimLike>(&self, input: &[D]) -> TractResult<TVec<D>> {
        let input = self.channels_first(input);
        let [samples, channels, spatial @ ..] = &input[..] else { bail!("a convolution of rank {}", input.len()) };
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

    /// The shape of the input with the channels before the spatial axes.
    pub(super) fn channels_first<D: DimLike>(&self, input: &[D]) -> TVec<D> {
        let mut shape: TVec<D> = input.into();
        if self.channels_last && shape.len() == 3 {
            shape.swap(1, 2);
        }
        shape
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

    pub(super) fn windows(&self, input: &[usize], output: &[usize]) -> Windows {
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
        bounds: Bounds,
        (shape, out): (&[usize], &mut [f32]),
    ) -> TractResult<()> {
        let units = self.weight.outputs();
        if let Some(bias) = bias {
            ensure!(bias.data.len() == units, "a bias of {} values for {units} channels", bias.data.len());
        }
        if out.is_empty() {
            return Ok(());
        }
        let shape_of_x = self.channels_first(x.shape);
        let windows = self.windows(&shape_of_x, shape);
        let positions = windows.positions();
        let direct = self.direction == Direction::Forward && self.weight.walks_rows();
        if let Some(layout) = Layout::new(&windows).filter(|_| direct) {
            let product =
                Direct { convolution: self, layout: &layout, positions, bias: bias.map(|bias| bias.data), bounds };
            self.weight.for_each_rows(|rows| product.run(rows, x.data, out));
            return Ok(());
        }
        let turned = self.channels_last.then(|| channels_first(x.data, shape_of_x[1], shape_of_x[2]));
        self.run_patches(&windows, turned.as_deref().unwrap_or(x.data), shape[0] * positions, out);
        if let Some(bias) = bias {
            for (plane, bias) in out.chunks_exact_mut(positions).zip(bias.data.iter().cycle()) {
                plane.iter_mut().for_each(|v| *v += bias);
            }
        }
        bounds.apply(out);
        Ok(())
    }

    fn run_patches(&self, windows: &Windows, x: &[f32], columns: usize, out: &mut [f32]) {
        let shape = (self.weight.outputs(), windows.positions());
        let width = (BLOCK_FLOATS / windows.depth().max(1)).clamp(1, BLOCK_COLUMNS);
        let starts: Vec<usize> = (0..columns).step_by(width).collect();
        for starts in starts.chunks(rayon::current_num_threads()) {
            let block = |&start: &usize| start..columns.min(start + width);
            let sums: Vec<_> = starts.par_iter().map(|start| self.block(windows, x, block(start))).collect();
            for (start, sums) in starts.iter().zip(sums) {
                spread(&sums, block(start), shape, out);
            }
        }
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

/// A convolution over inputs of one size that are laid out in place.
struct Direct<'a> {
    convolution: &'a Convolution,
    layout: &'a Layout,
    /// Outputs of one channel and sample.
    positions: usize,
    /// One of each output channel.
    bias: Option<&'a [f32]>,
    bounds: Bounds,
}

impl Direct<'_> {
    /// Computes the channels `rows` of all samples.
    fn run(&self, rows: &Rows, x: &[f32], out: &mut [f32]) {
        let per_sample = self.convolution.weight.outputs() * self.positions;
        let samples = out.len() / per_sample;
        let threads = threads_for(self.convolution.weight.visited_cells().saturating_mul(samples * self.positions));
        let group = self.layout.samples_per_group().min(samples.div_ceil(threads));
        let inputs = x.len() / samples * group;
        if threads == 1 || samples <= group {
            out.chunks_mut(group * per_sample)
                .zip(x.chunks(inputs))
                .for_each(|(out, x)| self.run_group(rows, x, threads, out));
        } else {
            // Enough groups for every thread are better than many threads at one.
            let within = if samples / group >= threads { 1 } else { threads };
            let groups = out.par_chunks_mut(group * per_sample).zip(x.par_chunks(inputs));
            groups.for_each(|(out, x)| self.run_group(rows, x, within, out));
        }
    }

    /// The same for samples that are laid out together.
    fn run_group(&self, rows: &Rows, x: &[f32], threads: usize, out: &mut [f32]) {
        let Convolution { weight, groups, .. } = self.convolution;
        let (units, positions) = (weight.outputs(), self.positions);
        let samples = out.len() / (units * positions);
        let channels = self.convolution.channels() / groups;
        let offsets = self.layout.offsets(channels, samples);
        let group_len = channels * self.layout.channel(samples);
        let width = self.layout.positions(samples);
        with_staged(|staged| {
            match self.convolution.channels_last {
                true => self.layout.stage(
                    &channels_first(x, self.convolution.channels(), self.layout.inputs()),
                    samples,
                    staged,
                ),
                false => self.layout.stage(x, samples, staged),
            }
            let staged = &*staged;
            let sum = |unit: usize, sums: &mut [f32]| {
                let planes = Planes::new(&staged[unit / (units / groups) * group_len..], &offsets[..], width);
                let bias = self.bias.map_or(0.0, |bias| bias[unit]);
                rows.sum(unit, planes, 0, self.bounds.after(bias), sums);
            };
            for_each_part(rows.range(), width, threads, sum, |part, sums| {
                for (unit, sums) in part.zip(sums.chunks_exact(width)) {
                    self.layout.crop(sums, samples, units * positions, &mut out[unit * positions..]);
                }
            });
        });
    }
}

/// A batch of samples of `length` x `channels` as channels x `length`.
pub(super) fn channels_first(x: &[f32], channels: usize, length: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for (x, out) in x.chunks_exact(channels * length).zip(out.chunks_exact_mut(channels * length)) {
        turn(x, channels, out, length);
    }
    out
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
