//! Pooling over one or two spatial axes.

use crate::finetune::scalar::Scalar;

/// The extents of a pooling; one of a single spatial axis has a height of 1.
///
/// Invariant: no extent but `planes` is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::finetune) struct Pool {
    /// Batch times channels.
    pub planes: usize,
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Padding above and to the left.
    pub pads: [usize; 2],
    /// Padding below and to the right.
    pub end_pads: [usize; 2],
}

impl Pool {
    /// The largest element of each window, of several the first, and which element of its plane it is. A window that lies
    /// in the padding alone gives the lowest number and no element (`u32::MAX`).
    pub fn max<T: Scalar>(&self, x: &[T]) -> (Vec<T>, Vec<u32>) {
        let (area, positions) = (self.input[0] * self.input[1], self.output[0] * self.output[1]);
        let (mut out, mut from) =
            (Vec::with_capacity(self.planes * positions), Vec::with_capacity(self.planes * positions));
        for plane in 0..self.planes {
            let x = &x[plane * area..][..area];
            for row in 0..self.output[0] {
                let rows = self.reach(0, row);
                for column in 0..self.output[1] {
                    let (mut best, mut at) = (T::of(f64::NEG_INFINITY), u32::MAX);
                    for y in rows.clone() {
                        for i in self.reach(1, column).map(|i| y * self.input[1] + i) {
                            if at == u32::MAX || x[i] > best {
                                (best, at) = (x[i], i as u32);
                            }
                        }
                    }
                    out.push(best);
                    from.push(at);
                }
            }
        }
        (out, from)
    }

    /// The gradient by the input of [`Pool::max`], whose choices are `from`.
    pub fn max_gradient<T: Scalar>(&self, dy: &[T], from: &[u32]) -> Vec<T> {
        let (area, positions) = (self.input[0] * self.input[1], self.output[0] * self.output[1]);
        let mut dx = vec![T::ZERO; self.planes * area];
        let planes = dx.chunks_exact_mut(area).zip(dy.chunks_exact(positions)).zip(from.chunks_exact(positions));
        for ((dx, dy), from) in planes {
            for (&dy, &from) in dy.iter().zip(from) {
                if let Some(dx) = dx.get_mut(from as usize) {
                    *dx += dy;
                }
            }
        }
        dx
    }

    /// The mean of each window; the padding counts as zeros where `include_pad`, and not at all otherwise.
    pub fn mean<T: Scalar>(&self, x: &[T], include_pad: bool) -> Vec<T> {
        let (area, positions) = (self.input[0] * self.input[1], self.output[0] * self.output[1]);
        let mut out = Vec::with_capacity(self.planes * positions);
        for plane in 0..self.planes {
            let x = &x[plane * area..][..area];
            self.each_window(include_pad, |rows, columns, share| {
                let mut sum = T::ZERO;
                for y in rows {
                    columns.clone().for_each(|i| sum += x[y * self.input[1] + i]);
                }
                out.push(sum * T::of(share));
            });
        }
        out
    }

    /// The gradient by the input of [`Pool::mean`].
    pub fn mean_gradient<T: Scalar>(&self, dy: &[T], include_pad: bool) -> Vec<T> {
        let (area, positions) = (self.input[0] * self.input[1], self.output[0] * self.output[1]);
        let mut dx = vec![T::ZERO; self.planes * area];
        for (dx, dy) in dx.chunks_exact_mut(area).zip(dy.chunks_exact(positions)) {
            let mut dy = dy.iter();
            self.each_window(include_pad, |rows, columns, share| {
                let dy = dy.next().copied().unwrap_or_default() * T::of(share);
                for y in rows {
                    columns.clone().for_each(|i| dx[y * self.input[1] + i] += dy);
                }
            });
        }
        dx
    }

    /// Calls `each` with the rows and columns of every window that lie on the input, and the share of each in the mean.
    fn each_window(&self, include_pad: bool, mut each: impl FnMut(Reach, Reach, f64)) {
        for row in 0..self.output[0] {
            for column in 0..self.output[1] {
                let (rows, columns) = (self.reach(0, row), self.reach(1, column));
                let cells = match include_pad {
                    true => self.padded_reach(0, row) * self.padded_reach(1, column),
                    false => rows.len() * columns.len(),
                };
                each(rows, columns, 1.0 / cells.max(1) as f64);
            }
        }
    }

    /// The elements along `axis` that the window at `position` covers.
    fn reach(&self, axis: usize, position: usize) -> Reach {
        let (start, pad) = (position * self.strides[axis], self.pads[axis]);
        let dilation = self.dilations[axis];
        let skipped = pad.saturating_sub(start).div_ceil(dilation);
        let end =
            (start + self.kernel[axis].saturating_sub(1) * dilation + 1).saturating_sub(pad).min(self.input[axis]);
        (start + skipped * dilation - pad..end).step_by(dilation)
    }

    /// How many cells along `axis`, padding included, the window at `position` covers.
    fn padded_reach(&self, axis: usize, position: usize) -> usize {
        let end = self.pads[axis] + self.input[axis] + self.end_pads[axis];
        let room = end.saturating_sub(position * self.strides[axis]).div_ceil(self.dilations[axis]);
        room.min(self.kernel[axis])
    }
}

type Reach = std::iter::StepBy<std::ops::Range<usize>>;
