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

/// The positions at which one tap falls on the input: a rectangle of the output, and of the input with steps between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tap {
    /// The first position, and how many further on the next row begins.
    output: usize,
    output_step: usize,
    /// The element under it, and how many further on that of the next row lies.
    input: usize,
    input_step: usize,
    rows: usize,
    /// Positions of a row.
    len: usize,
    /// Elements from one position's to the next one's.
    stride: usize,
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

    /// Calls `each` with every tap that falls on the input somewhere, in row-major order, and its number.
    pub(super) fn each_tap(&self, mut each: impl FnMut(usize, Tap)) {
        for number in 0..self.taps() {
            let (columns, x) = self.reach(1, number % self.kernel[1]);
            let (rows, y) = self.reach(0, number / self.kernel[1]);
            if columns.is_empty() || rows.is_empty() {
                continue;
            }
            let tap = Tap {
                output: rows.start * self.output[1] + columns.start,
                output_step: self.output[1],
                input: y * self.input[1] + x,
                input_step: self.strides[0] * self.input[1],
                rows: rows.len(),
                len: columns.len(),
                stride: self.strides[1],
            };
            each(number, tap);
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

impl Tap {
    /// Puts inputs in the place of the outputs.
    #[inline]
    pub fn copy<T: Scalar>(self, x: &[T], out: &mut [T]) {
        if self.stride != 1 {
            return self.forward(x, out, |out, x| *out = x);
        }
        for (x, out) in self.rows(x, self.input, self.input_step).zip(self.rows_mut(out, self.output, self.output_step))
        {
            let (x, out) = (&x[..self.len], &mut out[..self.len]);
            // Rows are too short for a call.
            let ((x, x_rest), (out, out_rest)) = (x.as_chunks::<8>(), out.as_chunks_mut::<8>());
            out.iter_mut().zip(x).for_each(|(out, x)| *out = *x);
            out_rest.iter_mut().zip(x_rest).for_each(|(out, x)| *out = *x);
        }
    }

    /// Puts inputs in the place of smaller outputs, and notes in `from` which they are.
    pub fn choose<T: Scalar>(self, x: &[T], out: &mut [T], from: &mut [u32]) {
        let outputs = self.rows_mut(out, self.output, self.output_step);
        let outputs = outputs.zip(self.rows_mut(from, self.output, self.output_step));
        for (row, ((out, from), x)) in outputs.zip(self.rows(x, self.input, self.input_step)).enumerate() {
            let (first, stride) = ((self.input + row * self.input_step) as u32, self.stride as u32);
            let x = &x[..(self.len - 1) * self.stride + 1];
            let choose = |((i, (out, from)), &x): ((u32, (&mut T, &mut u32)), &T)| {
                // Written as two selections, which vector instructions have, and not as a branch.
                let is_kept = x <= *out;
                *out = if is_kept { *out } else { x };
                *from = if is_kept { *from } else { first + i * stride };
            };
            let outputs = (0..).zip(out[..self.len].iter_mut().zip(from));
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
    }

    /// Calls `each` with every output and the input under it.
    #[inline]
    pub fn forward<T: Copy, O>(self, x: &[T], out: &mut [O], mut each: impl FnMut(&mut O, T)) {
        for (x, out) in self.rows(x, self.input, self.input_step).zip(self.rows_mut(out, self.output, self.output_step))
        {
            let out = &mut out[..self.len];
            match self.stride {
                1 => out.iter_mut().zip(&x[..self.len]).for_each(|(out, &x)| each(out, x)),
                stride => out.iter_mut().zip(x.iter().step_by(stride)).for_each(|(out, &x)| each(out, x)),
            }
        }
    }

    /// Calls `each` with every input and the output that it is under.
    #[inline]
    pub fn backward<T: Copy, O>(self, dy: &[T], dx: &mut [O], mut each: impl FnMut(&mut O, T)) {
        for (dy, dx) in self.rows(dy, self.output, self.output_step).zip(self.rows_mut(dx, self.input, self.input_step))
        {
            let dy = &dy[..self.len];
            match self.stride {
                1 => dx[..self.len].iter_mut().zip(dy).for_each(|(dx, &dy)| each(dx, dy)),
                stride => dx.iter_mut().step_by(stride).zip(dy).for_each(|(dx, &dy)| each(dx, dy)),
            }
        }
    }

    /// The sum of products of the outputs and the inputs under them.
    pub fn dot<T: Scalar>(self, x: &[T], dy: &[T]) -> T {
        let mut sum = T::ZERO;
        for (x, dy) in self.rows(x, self.input, self.input_step).zip(self.rows(dy, self.output, self.output_step)) {
            let pairs = dy[..self.len].iter().zip(x.iter().step_by(self.stride));
            sum = pairs.fold(sum, |sum, (&dy, &x)| sum + dy * x);
        }
        sum
    }

    fn rows<T>(self, plane: &[T], start: usize, step: usize) -> impl Iterator<Item = &[T]> {
        plane[start..].chunks(step).take(self.rows)
    }

    fn rows_mut<T>(self, plane: &mut [T], start: usize, step: usize) -> impl Iterator<Item = &mut [T]> {
        plane[start..].chunks_mut(step).take(self.rows)
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
            let places: Vec<usize> = (0..slide.input[1]).collect();
            slide.each_tap(|number, tap| {
                let mut seen = vec![None; slide.output[1]];
                tap.forward(&places, &mut seen, |seen, place| *seen = Some(place));
                let seen = seen.into_iter().enumerate();
                met.extend(seen.filter_map(|(position, place)| Some((number, position, place?))));
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
