//! The windows of a convolution: which input each output and kernel tap reads, and the patches made of them.
//!
//! Conv and ConvTranspose are one thing here: for an output position and a tap, at most one input position. So both
//! become a product of the weight with columns of gathered inputs (im2col), a bounded block of columns at a time.

use std::ops::Range;

use rayon::prelude::*;

/// Floats that a thread gathers before another is worth waking.
const FLOATS_PER_TASK: usize = 1 << 15;

/// How output positions and taps find inputs along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Conv: input = output x stride + tap x dilation - pad.
    Forward,
    /// ConvTranspose: output = input x stride + tap x dilation - pad.
    Transposed,
}

/// One spatial axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) taps: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// Zeros before the first input (Forward), or outputs cropped before the first kept (Transposed).
    pub(super) pad: usize,
}

impl Axis {
    /// An axis of extent 1, to fill up to three.
    pub(super) const UNIT: Self = Self { input: 1, output: 1, taps: 1, stride: 1, dilation: 1, pad: 0 };

    /// The input that `output` reads through `tap`; `None` in the padding.
    fn source(&self, direction: Direction, output: usize, tap: usize) -> Option<usize> {
        let input = match direction {
            Direction::Forward => (output * self.stride + tap * self.dilation).checked_sub(self.pad)?,
            Direction::Transposed => {
                let position = (output + self.pad).checked_sub(tap * self.dilation)?;
                if !position.is_multiple_of(self.stride) {
                    return None;
                }
                position / self.stride
            }
        };
        (input < self.input).then_some(input)
    }
}

/// The windows of one convolution over inputs of one size: (samples, channels, three spatial axes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) direction: Direction,
    pub(super) channels: usize,
    pub(super) axes: [Axis; 3],
}

/// Neighbouring columns: outputs of one sample that differ in the last axis only.
struct Run {
    /// First column, counted from the start of the block.
    at: usize,
    len: usize,
    sample: usize,
    /// Position of the first output.
    position: [usize; 3],
}

impl Windows {
    /// Outputs of one channel and sample: columns that a sample takes.
    pub(super) fn positions(&self) -> usize {
        self.axes.iter().map(|axis| axis.output).product()
    }

    /// Inputs of one channel and sample.
    fn input_len(&self) -> usize {
        self.axes.iter().map(|axis| axis.input).product()
    }

    /// Kernel taps.
    fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.taps).product()
    }

    /// Rows of the patches: channels times taps.
    pub(super) fn depth(&self) -> usize {
        self.channels * self.taps()
    }

    /// Gathers the patches of `columns` (sample x positions + position) into `patches`, depth x columns, row-major.
    pub(super) fn gather(&self, x: &[f32], columns: Range<usize>, patches: &mut [f32]) {
        let width = columns.len();
        if width == 0 {
            return;
        }
        let runs = self.runs(columns);
        let taps = self.taps();
        let [_, middle, last] = self.axes;
        let rows_per_task = FLOATS_PER_TASK.div_ceil(width);
        patches.par_chunks_mut(width).with_min_len(rows_per_task).enumerate().for_each(|(row, patch)| {
            let (channel, tap) = (row / taps, row % taps);
            let tap = [tap / (middle.taps * last.taps), tap / last.taps % middle.taps, tap % last.taps];
            for run in &runs {
                self.gather_run(x, channel, tap, run, &mut patch[run.at..run.at + run.len]);
            }
        });
    }

    fn gather_run(&self, x: &[f32], channel: usize, tap: [usize; 3], run: &Run, patch: &mut [f32]) {
        let source = |i: usize| self.axes[i].source(self.direction, run.position[i], tap[i]);
        let (Some(first), Some(middle)) = (source(0), source(1)) else {
            patch.fill(0.0);
            return;
        };
        let last = self.axes[2];
        let row = first * self.axes[1].input + middle;
        let line = (run.sample * self.channels + channel) * self.input_len() + row * last.input;
        let x = &x[line..line + last.input];
        if last.stride == 1 && self.direction == Direction::Forward {
            // Inputs lie side by side: padding, a copy, padding.
            let offset = run.position[2] + tap[2] * last.dilation;
            let before = last.pad.saturating_sub(offset).min(patch.len());
            let start = (offset + before).saturating_sub(last.pad).min(x.len());
            let count = (patch.len() - before).min(x.len() - start);
            patch[..before].fill(0.0);
            patch[before..before + count].copy_from_slice(&x[start..start + count]);
            patch[before + count..].fill(0.0);
        } else {
            for (i, value) in patch.iter_mut().enumerate() {
                let input = last.source(self.direction, run.position[2] + i, tap[2]);
                *value = input.map_or(0.0, |input| x[input]);
            }
        }
    }

    fn runs(&self, columns: Range<usize>) -> Vec<Run> {
        let [_, middle, last] = self.axes;
        let positions = self.positions();
        let mut runs = Vec::new();
        let mut column = columns.start;
        while column < columns.end {
            let (sample, position) = (column / positions, column % positions);
            let w = position % last.output;
            let position = [position / last.output / middle.output, position / last.output % middle.output, w];
            let len = (last.output - w).min(columns.end - column);
            runs.push(Run { at: column - columns.start, len, sample, position });
            column += len;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(axis: Axis, direction: Direction) -> Windows {
        Windows { direction, channels: 1, axes: [Axis::UNIT, Axis::UNIT, axis] }
    }

    #[test]
    fn a_padded_strided_window_reads_what_the_definition_says() {
        // 1 2 3 4, padded by one zero: windows of 3 with stride 2 start at 0, 1, 3.
        let axis = Axis { input: 4, output: 2, taps: 3, stride: 2, dilation: 1, pad: 1 };
        let mut patches = [9.0; 6];
        line(axis, Direction::Forward).gather(&[1., 2., 3., 4.], 0..2, &mut patches);
        assert_eq!(patches, [0., 2., 1., 3., 2., 4.]);
    }

    #[test]
    fn a_window_wider_than_its_input_is_all_padding_at_the_ends() {
        let axis = Axis { input: 1, output: 3, taps: 3, stride: 1, dilation: 1, pad: 2 };
        let mut patches = [9.0; 9];
        line(axis, Direction::Forward).gather(&[5.], 0..3, &mut patches);
        assert_eq!(patches, [0., 0., 5., 0., 5., 0., 5., 0., 0.]);
    }

    #[test]
    fn a_transposed_window_reads_the_inputs_that_reach_it() {
        // Stride 2, two taps: output 2i comes from tap 0, output 2i + 1 from tap 1.
        let axis = Axis { input: 2, output: 4, taps: 2, stride: 2, dilation: 1, pad: 0 };
        let mut patches = [9.0; 8];
        line(axis, Direction::Transposed).gather(&[7., 8.], 0..4, &mut patches);
        assert_eq!(patches, [7., 0., 8., 0., 0., 7., 0., 8.]);
    }

    #[test]
    fn a_block_may_begin_in_one_sample_and_end_in_another() {
        let axis = Axis { input: 3, output: 3, taps: 1, stride: 1, dilation: 1, pad: 0 };
        let mut patches = [9.0; 3];
        line(axis, Direction::Forward).gather(&[1., 2., 3., 4., 5., 6.], 2..5, &mut patches);
        assert_eq!(patches, [3., 4., 5.]);
    }
}
