//! Convolution and its two gradients over one or two spatial axes, by unfolding patches into a matrix.
//!
//! A transposed convolution is the gradient by the input, so it needs no kernel of its own. Where a group has one input
//! channel (depthwise), matrices would be slivers, and the taps are walked instead.
//!
//! # Source
//! Chellapilla, Puri, Simard, "High performance convolutional neural networks for document processing", IWFHR 2006.

use super::matrix::Matrix;
use super::slide::Slide;
use crate::finetune::scalar::Scalar;

/// Patches are unfolded for so many images at a time that a product has about this many columns.
const COLUMNS: usize = 256;
/// An unfolded matrix has at most this many elements, if a single image allows it.
const MAX_UNFOLDED: usize = 1 << 20;

/// The extents of a convolution.
///
/// Invariant: `groups` divides `inputs` and `outputs`, and no extent but `batch` is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::finetune) struct Convolution {
    pub batch: usize,
    pub groups: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    pub slide: Slide,
}

impl Convolution {
    /// `out` (batch, outputs, output) becomes the convolution of `x` (batch, inputs, input) with `w` (outputs, inputs /
    /// groups, kernel), and the bias added.
    pub fn forward<T: Scalar>(&self, x: &[T], w: &[T], bias: Option<&[T]>, out: &mut [T]) {
        if self.is_depthwise() {
            out.fill(T::ZERO);
            self.each_plane(|input, output, row| {
                let (x, out) = (&x[input..][..self.slide.area()], &mut out[output..][..self.slide.positions()]);
                self.slide.each_tap(|number, tap| {
                    let w = w[row * self.slide.taps() + number];
                    tap.forward(x, out, |out, x| *out += w * x);
                });
            });
        } else {
            let mut columns = Vec::new();
            let mut packed = Vec::new();
            self.each_chunk(|group, images| {
                let (positions, rows) = (images.len() * self.slide.positions(), self.group_outputs());
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
                    let out = &mut out[self.output_at(image, group)..][..rows * self.slide.positions()];
                    for (row, out) in out.chunks_exact_mut(self.slide.positions()).enumerate() {
                        out.copy_from_slice(&packed[row * positions + place * self.slide.positions()..][..out.len()]);
                    }
                }
            });
        }
        let Some(bias) = bias else { return };
        for (plane, out) in out.chunks_exact_mut(self.slide.positions()).enumerate() {
            let bias = bias[plane % self.outputs];
            out.iter_mut().for_each(|out| *out += bias);
        }
    }

    /// `dx` (batch, inputs, input) becomes the gradient by the input, given `dy`, that by the output.
    pub fn input_gradient<T: Scalar>(&self, dy: &[T], w: &[T], dx: &mut [T]) {
        dx.fill(T::ZERO);
        if self.is_depthwise() {
            return self.each_plane(|input, output, row| {
                let (dx, dy) = (&mut dx[input..][..self.slide.area()], &dy[output..][..self.slide.positions()]);
                self.slide.each_tap(|number, tap| {
                    let w = w[row * self.slide.taps() + number];
                    tap.backward(dy, dx, |dx, dy| *dx += w * dy);
                });
            });
        }
        let (mut columns, mut packed) = (Vec::new(), Vec::new());
        self.each_chunk(|group, images| {
            let (positions, rows) = (images.len() * self.slide.positions(), self.group_outputs());
            let w = Matrix::new(&w[group * rows * self.depth()..], rows, self.depth());
            let dy = Matrix::new(self.pack(dy, group, images.clone(), &mut packed), rows, positions);
            if self.slide.is_pointwise() && images.len() == 1 {
                let dx = &mut dx[self.input_at(images.start, group)..][..self.depth() * positions];
                return w.t().times(dy, 1.0, false, dx);
            }
            columns.resize(self.depth() * positions, T::ZERO);
            w.t().times(dy, 1.0, false, &mut columns);
            for (place, image) in images.enumerate() {
                let channels = dx[self.input_at(image, group)..].chunks_exact_mut(self.slide.area());
                for (channel, dx) in channels.take(self.group_inputs()).enumerate() {
                    self.slide.each_tap(|number, tap| {
                        let row = (channel * self.slide.taps() + number) * positions + place * self.slide.positions();
                        tap.backward(&columns[row..][..self.slide.positions()], dx, |dx, dy| *dx += dy);
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
                let (x, dy) = (&x[input..][..self.slide.area()], &dy[output..][..self.slide.positions()]);
                self.slide.each_tap(|number, tap| dw[row * self.slide.taps() + number] += tap.dot(x, dy));
            });
        }
        let (mut columns, mut packed) = (Vec::new(), Vec::new());
        self.each_chunk(|group, images| {
            let (positions, rows) = (images.len() * self.slide.positions(), self.group_outputs());
            let unfolded = Matrix::new(self.unfold(x, group, images.clone(), &mut columns), self.depth(), positions);
            let dy = Matrix::new(self.pack(dy, group, images, &mut packed), rows, positions);
            let dw = &mut dw[group * rows * self.depth()..][..rows * self.depth()];
            dy.times(unfolded.t(), 1.0, true, dw);
        });
    }

    /// `db` (outputs,) becomes the gradient by the bias.
    pub fn bias_gradient<T: Scalar>(&self, dy: &[T], db: &mut [T]) {
        db.fill(T::ZERO);
        for (plane, dy) in dy.chunks_exact(self.slide.positions()).enumerate() {
            db[plane % self.outputs] += sum(dy);
        }
    }

    fn group_inputs(&self) -> usize {
        self.inputs / self.groups
    }

    fn group_outputs(&self) -> usize {
        self.outputs / self.groups
    }

    /// Products summed for one output.
    fn depth(&self) -> usize {
        self.group_inputs() * self.slide.taps()
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.group_inputs() == 1
    }

    fn input_at(&self, image: usize, group: usize) -> usize {
        (image * self.inputs + group * self.group_inputs()) * self.slide.area()
    }

    fn output_at(&self, image: usize, group: usize) -> usize {
        (image * self.outputs + group * self.group_outputs()) * self.slide.positions()
    }

    /// Calls `each` with every group and the images that are unfolded together.
    fn each_chunk(&self, mut each: impl FnMut(usize, std::ops::Range<usize>)) {
        let room = MAX_UNFOLDED / (self.depth() * self.slide.positions()).max(1);
        let images = COLUMNS.div_ceil(self.slide.positions().max(1)).min(room).max(1);
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
                each(input * self.slide.area(), output * self.slide.positions(), row);
            }
        }
    }

    /// The patches of `images` as a matrix (depth, images x positions).
    fn unfold<'a, T: Scalar>(
        &self,
        x: &'a [T],
        group: usize,
        images: std::ops::Range<usize>,
        columns: &'a mut Vec<T>,
    ) -> &'a [T] {
        let (positions, total) = (self.slide.positions(), images.len() * self.slide.positions());
        if self.slide.is_pointwise() && images.len() == 1 {
            return &x[self.input_at(images.start, group)..][..self.depth() * positions];
        }
        // What the taps do not reach stays zero; it is the same for every chunk of as many images.
        if columns.len() != self.depth() * total {
            columns.clear();
            columns.resize(self.depth() * total, T::ZERO);
        }
        for (place, image) in images.enumerate() {
            let channels = x[self.input_at(image, group)..].chunks_exact(self.slide.area());
            for (channel, x) in channels.take(self.group_inputs()).enumerate() {
                self.slide.each_tap(|number, tap| {
                    let row = (channel * self.slide.taps() + number) * total + place * positions;
                    tap.copy(x, &mut columns[row..][..positions]);
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
        let (positions, rows) = (self.slide.positions(), self.group_outputs());
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

/// The sum in eight lanes, which compilers turn into vectors.
fn sum<T: Scalar>(values: &[T]) -> T {
    let mut lanes = [T::ZERO; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    chunks.for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += value));
    lanes.iter().chain(rest).fold(T::ZERO, |sum, &value| sum + value)
}
