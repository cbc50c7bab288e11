//! Convolution and its two gradients over one or two spatial axes, by unfolding patches into a matrix.
//!
//! A transposed convolution is the gradient by the input, so it needs no kernel of its own. Where a group has one input
//! channel (depthwise), matrices would be slivers, and the taps are walked instead.
//!
//! # Source
//! Chellapilla, Puri, Simard, "High performance convolutional neural networks for document processing", IWFHR 2006.

use super::matrix::Matrix;
use crate::finetune::scalar::Scalar;

/// Patches are unfolded for so many images at a time that a product has about this many columns.
const COLUMNS: usize = 512;
/// An unfolded matrix has at most this many elements, if a single image allows it.
const MAX_UNFOLDED: usize = 1 << 20;

/// The extents of a convolution; one of a single spatial axis has a height of 1.
///
/// Invariant: `groups` divides `inputs` and `outputs`, no extent but `batch` is zero, and the window of every position
/// of `output` overlaps the padded input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::finetune) struct Convolution {
    pub batch: usize,
    pub groups: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Zeros above and to the left; those below and to the right follow from `output`.
    pub pads: [usize; 2],
}

impl Convolution {
    /// `out` (batch, outputs, output) becomes the convolution of `x` (batch, inputs, input) with `w` (outputs, inputs /
    /// groups, kernel), and the bias added.
    pub fn forward<T: Scalar>(&self, x: &[T], w: &[T], bias: Option<&[T]>, out: &mut [T]) {
        if self.is_depthwise() {
            out.fill(T::ZERO);
            self.each_plane(|input, output, row| {
                let (x, out) = (&x[input..][..self.area()], &mut out[output..][..self.positions()]);
                self.each_tap(|tap, run| run.axpy(self.strides[1], w[row * self.taps() + tap], x, out));
            });
        } else {
            let mut columns = Vec::new();
            let mut packed = Vec::new();
            self.each_chunk(|group, images| {
                let (positions, rows) = (images.len() * self.positions(), self.group_outputs());
                let unfolded = self.unfold(x, group, images.clone(), &mut columns);
                let w = Matrix::new(&w[group * rows * self.depth()..], rows, self.depth());
                let unfolded = Matrix::new(unfolded, self.depth(), positions);
                if images.len() == 1 {
                    let out = &mut out[self.output_at(images.start, group)..][..rows * positions];
                    return w.times(unfolded, 1.0, false, out);
                }
                packed.resize(rows * positions, T::ZERO);
                w.times(unfolded, 1.0, false, &mut packed);
                for (place, image) in images.enumerate() {
                    let out = &mut out[self.output_at(image, group)..][..rows * self.positions()];
                    for (row, out) in out.chunks_exact_mut(self.positions()).enumerate() {
                        out.copy_from_slice(&packed[row * positions + place * self.positions()..][..out.len()]);
                    }
                }
            });
        }
        let Some(bias) = bias else { return };
        for (plane, out) in out.chunks_exact_mut(self.positions()).enumerate() {
            let bias = bias[plane % self.outputs];
            out.iter_mut().for_each(|out| *out += bias);
        }
    }

    /// `dx` (batch, inputs, input) becomes the gradient by the input, given `dy`, that by the output.
    pub fn input_gradient<T: Scalar>(&self, dy: &[T], w: &[T], dx: &mut [T]) {
        dx.fill(T::ZERO);
        if self.is_depthwise() {
            return self.each_plane(|input, output, row| {
                let (dx, dy) = (&mut dx[input..][..self.area()], &dy[output..][..self.positions()]);
                self.each_tap(|tap, run| run.axpy_back(self.strides[1], w[row * self.taps() + tap], dy, dx));
            });
        }
        let (mut columns, mut packed) = (Vec::new(), Vec::new());
        self.each_chunk(|group, images| {
            let (positions, rows) = (images.len() * self.positions(), self.group_outputs());
            let w = Matrix::new(&w[group * rows * self.depth()..], rows, self.depth());
            let dy = Matrix::new(self.pack(dy, group, images.clone(), &mut packed), rows, positions);
            if self.is_pointwise() && images.len() == 1 {
                let dx = &mut dx[self.input_at(images.start, group)..][..self.depth() * positions];
                return w.t().times(dy, 1.0, false, dx);
            }
            columns.resize(self.depth() * positions, T::ZERO);
            w.t().times(dy, 1.0, false, &mut columns);
            for (place, image) in images.enumerate() {
                let channels = dx[self.input_at(image, group)..].chunks_exact_mut(self.area());
                for (channel, dx) in channels.take(self.group_inputs()).enumerate() {
                    self.each_tap(|tap, run| {
                        let row = (channel * self.taps() + tap) * positions + place * self.positions();
                        run.add_back(self.strides[1], &columns[row..][..self.positions()], dx);
                    });
                }
            }
        });
    }

    /// `dw` (outputs, inputs / groups, kernel) becomes the gradient by the weights, given `dy`, that by the output.
    pub fn weight_gradient<T: Scalar>(&self, x: &[T], dy: &[T], dw: &mut [T]) {
        dw.fill(T::ZERO);
        if self.is_depthwise() {
            return self.each_plane(|input, output, row| {
                let (x, dy) = (&x[input..][..self.area()], &dy[output..][..self.positions()]);
                self.each_tap(|tap, run| dw[row * self.taps() + tap] += run.dot(self.strides[1], x, dy));
            });
        }
        let (mut columns, mut packed) = (Vec::new(), Vec::new());
        self.each_chunk(|group, images| {
            let (positions, rows) = (images.len() * self.positions(), self.group_outputs());
            let unfolded = Matrix::new(self.unfold(x, group, images.clone(), &mut columns), self.depth(), positions);
            let dy = Matrix::new(self.pack(dy, group, images, &mut packed), rows, positions);
            let dw = &mut dw[group * rows * self.depth()..][..rows * self.depth()];
            dy.times(unfolded.t(), 1.0, true, dw);
        });
    }

    /// `db` (outputs,) becomes the gradient by the bias.
    pub fn bias_gradient<T: Scalar>(&self, dy: &[T], db: &mut [T]) {
        db.fill(T::ZERO);
        for (plane, dy) in dy.chunks_exact(self.positions()).enumerate() {
            db[plane % self.outputs] += sum(dy);
        }
    }

    /// Elements of one channel of the input.
    fn area(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Elements of one channel of the output.
    fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn group_inputs(&self) -> usize {
        self.inputs / self.groups
    }

    fn group_outputs(&self) -> usize {
        self.outputs / self.groups
    }

    /// Products summed for one output.
    fn depth(&self) -> usize {
        self.group_inputs() * self.taps()
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.group_inputs() == 1
    }

    /// Whether an unfolded image is the image itself.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0, 0] && self.input == self.output
    }

    fn input_at(&self, image: usize, group: usize) -> usize {
        (image * self.inputs + group * self.group_inputs()) * self.area()
    }

    fn output_at(&self, image: usize, group: usize) -> usize {
        (image * self.outputs + group * self.group_outputs()) * self.positions()
    }

    /// Calls `each` with every group and the images that are unfolded together.
    fn each_chunk(&self, mut each: impl FnMut(usize, std::ops::Range<usize>)) {
        let room = MAX_UNFOLDED / (self.depth() * self.positions()).max(1);
        let images = COLUMNS.div_ceil(self.positions().max(1)).min(room).max(1);
        for group in 0..self.groups {
            let mut start = 0;
            while start < self.batch {
                let end = (start + images).min(self.batch);
                each(group, start..end);
                start = end;
            }
        }
    }

    /// Calls `each` with where the input and the output plane of every output channel begin, and the channel.
    fn each_plane(&self, mut each: impl FnMut(usize, usize, usize)) {
        for image in 0..self.batch {
            for row in 0..self.outputs {
                let channel = row / self.group_outputs();
                let (input, output) = (image * self.inputs + channel, image * self.outputs + row);
                each(input * self.area(), output * self.positions(), row);
            }
        }
    }

    /// Calls `each` with every tap of the kernel and the runs of positions for which it falls on the input.
    fn each_tap(&self, mut each: impl FnMut(usize, Run)) {
        for tap in 0..self.taps() {
            let (columns, x) = self.reach(1, tap % self.kernel[1]);
            let (rows, y) = self.reach(0, tap / self.kernel[1]);
            let len = columns.len();
            if len == 0 {
                continue;
            }
            for (step, row) in rows.enumerate() {
                let input = (y + step * self.strides[0]) * self.input[1] + x;
                each(tap, Run { output: row * self.output[1] + columns.start, input, len });
            }
        }
    }

    /// The positions along `axis` for which offset `tap` of the kernel falls on the input, and where the first one does.
    fn reach(&self, axis: usize, tap: usize) -> (std::ops::Range<usize>, usize) {
        let (offset, pad, stride) = (tap * self.dilations[axis], self.pads[axis], self.strides[axis]);
        let start = pad.saturating_sub(offset).div_ceil(stride);
        let end = (self.input[axis] + pad).saturating_sub(offset).div_ceil(stride).min(self.output[axis]);
        if start >= end {
            return (0..0, 0);
        }
        (start..end, start * stride + offset - pad)
    }

    /// The patches of `images` as a matrix (depth, images x positions).
    fn unfold<'a, T: Scalar>(
        &self,
        x: &'a [T],
        group: usize,
        images: std::ops::Range<usize>,
        columns: &'a mut Vec<T>,
    ) -> &'a [T] {
        let (positions, total) = (self.positions(), images.len() * self.positions());
        if self.is_pointwise() && images.len() == 1 {
            return &x[self.input_at(images.start, group)..][..self.depth() * positions];
        }
        // What the taps do not reach stays zero; it is the same for every chunk of as many images.
        if columns.len() != self.depth() * total {
            columns.clear();
            columns.resize(self.depth() * total, T::ZERO);
        }
        for (place, image) in images.enumerate() {
            let channels = x[self.input_at(image, group)..].chunks_exact(self.area());
            for (channel, x) in channels.take(self.group_inputs()).enumerate() {
                self.each_tap(|tap, run| {
                    let row = (channel * self.taps() + tap) * total + place * positions;
                    run.copy(self.strides[1], x, &mut columns[row..][..positions]);
                });
            }
        }
        columns
    }

    /// The gradients of `images` as a matrix (outputs of the group, images x positions).
    fn pack<'a, T: Scalar>(
        &self,
        dy: &'a [T],
        group: usize,
        images: std::ops::Range<usize>,
        packed: &'a mut Vec<T>,
    ) -> &'a [T] {
        let (positions, rows) = (self.positions(), self.group_outputs());
        if images.len() == 1 {
            return &dy[self.output_at(images.start, group)..][..rows * positions];
        }
        let total = images.len() * positions;
        packed.resize(rows * total, T::ZERO);
        for (place, image) in images.enumerate() {
            let dy = &dy[self.output_at(image, group)..][..rows * positions];
            for (row, dy) in dy.chunks_exact(positions).enumerate() {
                packed[row * total + place * positions..][..positions].copy_from_slice(dy);
            }
        }
        packed
    }
}

/// Consecutive positions of a row, and the inputs a tap multiplies for them, which lie a stride apart.
#[derive(Clone, Copy)]
struct Run {
    output: usize,
    input: usize,
    len: usize,
}

impl Run {
    fn copy<T: Scalar>(self, stride: usize, x: &[T], out: &mut [T]) {
        let out = &mut out[self.output..][..self.len];
        match stride {
            1 => out.copy_from_slice(&x[self.input..][..self.len]),
            _ => out.iter_mut().zip(x[self.input..].iter().step_by(stride)).for_each(|(out, &x)| *out = x),
        }
    }

    fn add_back<T: Scalar>(self, stride: usize, dy: &[T], dx: &mut [T]) {
        let dy = &dy[self.output..][..self.len];
        match stride {
            1 => dx[self.input..][..self.len].iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy),
            _ => dx[self.input..].iter_mut().step_by(stride).zip(dy).for_each(|(dx, &dy)| *dx += dy),
        }
    }

    fn axpy<T: Scalar>(self, stride: usize, w: T, x: &[T], out: &mut [T]) {
        let out = &mut out[self.output..][..self.len];
        match stride {
            1 => out.iter_mut().zip(&x[self.input..][..self.len]).for_each(|(out, &x)| *out += w * x),
            _ => out.iter_mut().zip(x[self.input..].iter().step_by(stride)).for_each(|(out, &x)| *out += w * x),
        }
    }

    fn axpy_back<T: Scalar>(self, stride: usize, w: T, dy: &[T], dx: &mut [T]) {
        let dy = &dy[self.output..][..self.len];
        match stride {
            1 => dx[self.input..][..self.len].iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += w * dy),
            _ => dx[self.input..].iter_mut().step_by(stride).zip(dy).for_each(|(dx, &dy)| *dx += w * dy),
        }
    }

    fn dot<T: Scalar>(self, stride: usize, x: &[T], dy: &[T]) -> T {
        let dy = &dy[self.output..][..self.len];
        let x = x[self.input..].iter().step_by(stride);
        dy.iter().zip(x).fold(T::ZERO, |sum, (&dy, &x)| sum + dy * x)
    }
}

/// The sum in eight lanes, which compilers turn into vectors.
fn sum<T: Scalar>(values: &[T]) -> T {
    let mut lanes = [T::ZERO; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    chunks.for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += value));
    lanes.iter().chain(rest).fold(T::ZERO, |sum, &value| sum + value)
}
