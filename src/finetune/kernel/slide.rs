//! A window that slides over one or two spatial axes, walked tap by tap, so that inner loops run along rows.

use std::ops::Range;

use crate::finetune::scalar::Scalar;

/// The extents of a sliding window; one of a single spatial axis has a height of 1.
///
/// Invariant: no stride, dilation or extent is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::finetune) struct Slide {
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Padding above and to the left; that below and to the right follows from `output`.
    pub pads: [usize; 2],
}

/// Consecutive positions of a row of the output, and the elements of the input under one tap at them, which lie a stride
/// apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Run {
    /// The first position, counted over the plane.
    pub output: usize,
    /// The element under it, counted over the plane.
    pub input: usize,
    pub len: usize,
    pub stride: usize,
}

impl Slide {
    /// Elements of a plane of the input.
    pub fn area(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Elements of a plane of the output.
    pub fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether every position sees the element of its own place and no other.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0, 0] && self.input == self.output
    }

    /// Calls `each` with every tap, in row-major order, and the runs of positions for which it falls on the input.
    pub(super) fn each_tap(&self, mut each: impl FnMut(usize, Run)) {
        for tap in 0..self.taps() {
            let (columns, x) = self.reach(1, tap % self.kernel[1]);
            let (rows, y) = self.reach(0, tap / self.kernel[1]);
            let (len, stride) = (columns.len(), self.strides[1]);
            if len == 0 {
                continue;
            }
            for (step, row) in rows.enumerate() {
                let input = (y + step * self.strides[0]) * self.input[1] + x;
                each(tap, Run { output: row * self.output[1] + columns.start, input, len, stride });
            }
        }
    }

    /// The positions along `axis` for which offset `tap` of the kernel falls on the input, and where the first one does.
    fn reach(&self, axis: usize, tap: usize) -> (Range<usize>, usize) {
        let (offset, pad, stride) = (tap * self.dilations[axis], self.pads[axis], self.strides[axis]);
        let start = pad.saturating_sub(offset).div_ceil(stride);
        let end = (self.input[axis] + pad).saturating_sub(offset).div_ceil(stride).min(self.output[axis]);
        if start >= end {
            return (0..0, 0);
        }
        (start..end, start * stride + offset - pad)
    }
}

impl Run {
    /// Puts inputs in the place of smaller outputs, and notes in `from` which they are.
    pub fn choose<T: Scalar>(self, x: &[T], out: &mut [T], from: &mut [u32]) {
        let (out, from) = (&mut out[self.output..][..self.len], &mut from[self.output..][..self.len]);
        let (x, stride) = (&x[self.input..][..(self.len - 1) * self.stride + 1], self.stride as u32);
        let choose = |((i, (out, from)), &x): ((u32, (&mut T, &mut u32)), &T)| {
            // Written as two selections, which vector instructions have, and not as a branch.
            let is_kept = x <= *out;
            *out = if is_kept { *out } else { x };
            *from = if is_kept { *from } else { self.input as u32 + i * stride };
        };
        let outputs = (0..).zip(out.iter_mut().zip(from));
        match self.stride {
            1 => outputs.zip(x).for_each(choose),
            2 => {
                // The last element has no neighbour to make a pair with.
                let (pairs, last) = x.as_chunks::<2>();
                outputs.zip(pairs.iter().map(|pair| &pair[0]).chain(last)).for_each(choose);
            }
            stride => outputs.zip(x.iter().step_by(stride)).for_each(choose),
        }
    }

    /// Calls `each` with every output and the input under it.
    #[inline]
    pub fn forward<T: Copy, O>(self, x: &[T], out: &mut [O], mut each: impl FnMut(&mut O, T)) {
        let out = &mut out[self.output..][..self.len];
        match self.stride {
            1 => out.iter_mut().zip(&x[self.input..][..self.len]).for_each(|(out, &x)| each(out, x)),
            stride => out.iter_mut().zip(x[self.input..].iter().step_by(stride)).for_each(|(out, &x)| each(out, x)),
        }
    }

    /// Calls `each` with every input and the output that it is under.
    #[inline]
    pub fn backward<T: Copy, O>(self, dy: &[T], dx: &mut [O], mut each: impl FnMut(&mut O, T)) {
        let dy = &dy[self.output..][..self.len];
        match self.stride {
            1 => dx[self.input..][..self.len].iter_mut().zip(dy).for_each(|(dx, &dy)| each(dx, dy)),
            stride => dx[self.input..].iter_mut().step_by(stride).zip(dy).for_each(|(dx, &dy)| each(dx, dy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_meet_the_input_where_a_naive_walk_does() {
        let shape = |input, output, kernel, stride, dilation, pad| Slide {
            input: [1, input],
            output: [1, output],
            kernel: [1, kernel],
            strides: [1, stride],
            dilations: [1, dilation],
            pads: [0, pad],
        };
        for slide in
            [shape(5, 3, 3, 1, 1, 0), shape(5, 5, 3, 1, 1, 1), shape(7, 3, 3, 3, 2, 2), shape(2, 4, 5, 1, 2, 5)]
        {
            let mut met = Vec::new();
            slide.each_tap(|tap, run| {
                met.extend((0..run.len).map(|i| (tap, run.output + i, run.input + i * run.stride)));
            });
            let mut expected = Vec::new();
            for tap in 0..slide.kernel[1] {
                for position in 0..slide.output[1] {
                    let at = (position * slide.strides[1] + tap * slide.dilations[1]).checked_sub(slide.pads[1]);
                    expected.extend(at.filter(|&at| at < slide.input[1]).map(|at| (tap, position, at)));
                }
            }
            assert_eq!(met, expected, "{slide:?}");
        }
    }
}
