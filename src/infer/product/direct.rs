//! Direct sparse convolution: the input is laid out once so that each kernel tap sees it as a run of consecutive floats,
//! and each output channel is the weighted sum of the runs of its terms. No patches are gathered.
//!
//! **Layout.** Of every channel the buffer holds the zero-padded samples one below the other, each line `stride` floats
//! after the one before, so output position (sample, a, b, c) and tap (i, j, k) meet at the sum of two numbers, one of
//! the position and one of the tap. Lines overlap in the zeros between them: those after one are those before the next.
//! A strided convolution reads every s-th input, so its input is split into one such plane per phase (residue modulo s)
//! that some tap reads. Positions between the end of an output line and the start of the next are computed and dropped.

use std::ops::Range;

use super::window::{Axis, Windows};

/// Most floats of a staged group of samples: what u32 offsets and a sane amount of memory allow.
const MOST_STAGED: usize = 1 << 28;

/// Positions from which on a tile of the kernel is well filled.
const WELL_FILLED: usize = 96;

/// One spatial axis, laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    axis: Axis,
    /// Residues modulo the stride that some tap reads, ascending.
    phases: Vec<usize>,
    /// Elements of a phase from the start of one line to the start of the next.
    stride: usize,
    /// Elements of a phase that a line's outputs read, zeros at both ends included.
    extent: usize,
}

impl Line {
    fn new(axis: Axis) -> Self {
        let residue = |tap: usize| tap.saturating_mul(axis.dilation) % axis.stride;
        let mut phases: Vec<_> = (0..axis.taps.min(axis.stride)).map(residue).collect();
        phases.sort_unstable();
        phases.dedup();
        let reach = (axis.taps - 1).saturating_mul(axis.dilation) / axis.stride;
        let mut line = Self { axis, phases, stride: 0, extent: axis.output.saturating_add(reach) };
        let zeros = |phase: &usize| {
            let (inside, _) = line.inside(*phase);
            inside.start.min(line.extent - inside.end)
        };
        let overlap = line.phases.iter().map(zeros).min().unwrap_or_default().min(reach);
        line.stride = line.extent - overlap;
        line
    }

    /// Which elements of a line of `phase` are inputs, and the first of these inputs.
    fn inside(&self, phase: usize) -> (Range<usize>, usize) {
        let Axis { input, stride, pad, .. } = self.axis;
        let start = pad.saturating_sub(phase).div_ceil(stride);
        let first = (start * stride + phase).saturating_sub(pad);
        let start = start.min(self.extent);
        let count = input.saturating_sub(first).div_ceil(stride).min(self.extent - start);
        (start..start + count, first)
    }

    /// Of `tap`: the index of its phase, and how far into the line it looks.
    fn tap(&self, tap: usize) -> (usize, usize) {
        let at = tap * self.axis.dilation;
        let phase = self.phases.binary_search(&(at % self.axis.stride)).expect("phases hold those of all taps");
        (phase, at / self.axis.stride)
    }
}

/// Inputs of one size laid out for one convolution, a group of samples at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    channels: usize,
    lines: [Line; 3],
    /// Elements of a phase from the start of one sample to the start of the next.
    sample: usize,
}

impl Layout {
    /// `None` where laying the input out would take far more memory than the input and output together.
    pub(super) fn new(windows: &Windows) -> Option<Self> {
        let lines = windows.axes.map(Line::new);
        let product = |count: fn(&Line) -> usize| lines.iter().map(count).fold(1usize, usize::saturating_mul);
        let sample = product(|line| line.stride);
        let (phases, extent) = (product(|line| line.phases.len()), product(|line| line.extent));
        let staged = windows.channels.checked_mul(phases)?.checked_mul(extent)?;
        let usual = windows.channels * product(|line| line.axis.input) + product(|line| line.axis.output);
        let is_sound = staged <= MOST_STAGED && staged / 16 <= usual.max(1 << 16);
        is_sound.then_some(Self { channels: windows.channels, lines, sample })
    }

    /// Samples that are laid out together: as many as fill a tile.
    pub(super) fn samples_per_group(&self) -> usize {
        let most = MOST_STAGED / (self.channels * self.channel(1)).max(1);
        (WELL_FILLED / self.sample.max(1)).min(most).max(1)
    }

    /// Inputs of one channel and sample.
    pub(super) fn inputs(&self) -> usize {
        self.lines.iter().map(|line| line.axis.input).product()
    }

    fn phases(&self) -> usize {
        self.lines.iter().map(|line| line.phases.len()).product()
    }

    /// Floats from the start of one channel to the start of the next, in a group of `samples`.
    pub(super) fn channel(&self, samples: usize) -> usize {
        self.phases() * samples * self.sample
    }

    /// Positions to be computed for a group of `samples`: from the first output of the first to the last of the last.
    pub(super) fn positions(&self, samples: usize) -> usize {
        let [a, b, c] = self.lines.each_ref().map(|line| line.axis.output - 1);
        (samples - 1) * self.sample + self.at([a, b, c]) + 1
    }

    /// Where the element (a, b, c) of a plane lies.
    fn at(&self, [a, b, c]: [usize; 3]) -> usize {
        (a * self.lines[1].stride + b) * self.lines[2].stride + c
    }

    /// Where the run of each column of the weight begins, for `channels` of them: those of one group.
    pub(super) fn offsets(&self, channels: usize, samples: usize) -> Vec<u32> {
        let [first, middle, last] = &self.lines;
        let mut taps = Vec::with_capacity(first.axis.taps * middle.axis.taps * last.axis.taps);
        for (pa, a) in (0..first.axis.taps).map(|tap| first.tap(tap)) {
            for (pb, b) in (0..middle.axis.taps).map(|tap| middle.tap(tap)) {
                for (pc, c) in (0..last.axis.taps).map(|tap| last.tap(tap)) {
                    let phase = (pa * middle.phases.len() + pb) * last.phases.len() + pc;
                    taps.push(phase * samples * self.sample + self.at([a, b, c]));
                }
            }
        }
        let starts = (0..channels).map(|channel| channel * self.channel(samples));
        starts.flat_map(|start| taps.iter().map(move |tap| (start + tap) as u32)).collect()
    }

    /// Lays `samples` samples out in `staged`, which is made as long as the last run needs.
    pub(super) fn stage(&self, x: &[f32], samples: usize, staged: &mut Vec<f32>) {
        let [first, middle, last] = &self.lines;
        staged.clear();
        // The last line of the last channel ends in zeros that no other line begins with.
        let [a, b, c] = self.lines.each_ref().map(|line| line.extent - 1);
        let end = (samples - 1) * self.sample + self.at([a, b, c]) + 1;
        let planes = self.channels * self.phases();
        staged.resize((planes - 1) * samples * self.sample + end, 0.0);
        let inputs = self.inputs();
        for (sample, x) in x.chunks_exact(inputs * self.channels).enumerate() {
            for (channel, x) in x.chunks_exact(inputs).enumerate() {
                let mut plane = channel * self.phases() * samples + sample;
                for &pa in &first.phases {
                    for &pb in &middle.phases {
                        for &pc in &last.phases {
                            self.stage_plane([pa, pb, pc], x, &mut staged[plane * self.sample..]);
                            plane += samples;
                        }
                    }
                }
            }
        }
    }

    /// Lays one phase of one channel of one sample out.
    fn stage_plane(&self, [pa, pb, pc]: [usize; 3], x: &[f32], plane: &mut [f32]) {
        let [first, middle, last] = &self.lines;
        let (first_inside, first_input) = first.inside(pa);
        let (middle_inside, middle_input) = middle.inside(pb);
        let (inside, input) = last.inside(pc);
        if inside.is_empty() {
            return;
        }
        for (i, a) in first_inside.enumerate() {
            for (j, b) in middle_inside.clone().enumerate() {
                let line = (first_input + i * first.axis.stride) * middle.axis.input;
                let line = (line + middle_input + j * middle.axis.stride) * last.axis.input;
                let x = &x[line..line + last.axis.input];
                let to = &mut plane[self.at([a, b, inside.start])..][..inside.len()];
                match last.axis.stride {
                    1 => to.copy_from_slice(&x[input..input + to.len()]),
                    stride => to.iter_mut().zip(x[input..].iter().step_by(stride)).for_each(|(to, x)| *to = *x),
                }
            }
        }
    }

    /// Copies the outputs among the `positions` of a group to `plane` of each sample: `out` begins with that of the first
    /// and `step` floats lie between two.
    pub(super) fn crop(&self, sums: &[f32], samples: usize, step: usize, out: &mut [f32]) {
        let [first, middle, last] = self.lines.each_ref().map(|line| line.axis.output);
        for sample in 0..samples {
            let sums = &sums[sample * self.sample..];
            let out = &mut out[sample * step..][..first * middle * last];
            if self.lines[1].stride == middle && self.lines[2].stride == last {
                out.copy_from_slice(&sums[..out.len()]);
                continue;
            }
            for (line, out) in out.chunks_exact_mut(last).enumerate() {
                let at = self.at([line / middle, line % middle, 0]);
                out.copy_from_slice(&sums[at..at + last]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::window::Direction;
    use super::*;

    /// An axis and what it reads: input extent, kernel, stride, dilation, pads before and after. No output without a
    /// whole window.
    fn axis() -> impl Strategy<Value = Axis> {
        (1usize..9, 1usize..5, 1usize..4, 1usize..4, 0usize..4, 0usize..4).prop_filter_map(
            "no window fits",
            |(input, taps, stride, dilation, pad, after)| {
                let outputs = (input + pad + after).checked_sub((taps - 1) * dilation + 1)?;
                Some(Axis { input, output: outputs / stride + 1, taps, stride, dilation, pad })
            },
        )
    }

    /// The input that position `output` reads through `tap`, if it is not padding.
    fn source(axis: Axis, output: usize, tap: usize) -> Option<usize> {
        let input = (output * axis.stride + tap * axis.dilation).checked_sub(axis.pad)?;
        (input < axis.input).then_some(input)
    }

    proptest! {
        #[test]
        fn every_tap_finds_its_input_and_every_output_its_place(
            axes in [axis(), axis(), axis()],
            channels in 1usize..4,
            samples in 1usize..4,
        ) {
            let windows = Windows { direction: Direction::Forward, channels, axes };
            let layout = Layout::new(&windows).expect("a small convolution");
            let inputs = layout.inputs();
            let x: Vec<f32> = (1..=samples * channels * inputs).map(|i| i as f32).collect();
            let mut staged = vec![f32::NAN; 3];
            layout.stage(&x, samples, &mut staged);
            let offsets = layout.offsets(channels, samples);
            let taps: usize = axes.iter().map(|axis| axis.taps).product();
            let positions = layout.positions(samples);
            let outputs: usize = axes.iter().map(|axis| axis.output).product();
            for (column, &offset) in offsets.iter().enumerate() {
                let (channel, tap) = (column / taps, column % taps);
                let tap = [tap / (axes[1].taps * axes[2].taps), tap / axes[2].taps % axes[1].taps, tap % axes[2].taps];
                let run = &staged[offset as usize..][..positions];
                let mut found = vec![f32::NAN; samples * outputs];
                layout.crop(run, samples, outputs, &mut found);
                for (at, found) in found.into_iter().enumerate() {
                    let (sample, at) = (at / outputs, at % outputs);
                    let output =
                        [at / (axes[1].output * axes[2].output), at / axes[2].output % axes[1].output, at % axes[2].output];
                    let input: Option<Vec<usize>> = (0..3).map(|i| source(axes[i], output[i], tap[i])).collect();
                    let expected = input.map_or(0.0, |i| {
                        let plane = (i[0] * axes[1].input + i[1]) * axes[2].input + i[2];
                        x[(sample * channels + channel) * inputs + plane]
                    });
                    prop_assert_eq!(found, expected, "column {} position {}", column, at);
                }
            }
        }
    }

    #[test]
    fn lines_overlap_in_their_padding() {
        let axis = Axis { input: 4, output: 4, taps: 3, stride: 1, dilation: 1, pad: 1 };
        let layout =
            Layout::new(&Windows { direction: Direction::Forward, channels: 1, axes: [Axis::UNIT, axis, axis] });
        assert_eq!(layout.map(|layout| layout.sample), Some(5 * 5));
    }

    #[test]
    fn a_layout_of_mostly_padding_is_refused() {
        let far = Axis { input: 1, output: 1, taps: 2, stride: 1, dilation: 1 << 40, pad: 1 << 39 };
        let windows =
            |axis| Windows { direction: Direction::Forward, channels: 3, axes: [Axis::UNIT, Axis::UNIT, axis] };
        assert_eq!(Layout::new(&windows(far)), None);
        assert_eq!(Layout::new(&windows(Axis { dilation: usize::MAX, ..far })), None);
    }
}
