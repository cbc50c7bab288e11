//! Pooling over one or two spatial axes.

use super::slide::Slide;
use crate::finetune::scalar::Scalar;

/// Says of an output that no element was chosen: its window lies in the padding alone.
const NONE: u32 = u32::MAX;

/// The extents of a pooling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::finetune) struct Pool {
    /// Batch times channels.
    pub planes: usize,
    pub slide: Slide,
    /// Padding below and to the right.
    pub end_pads: [usize; 2],
}

impl Pool {
    /// The largest element of each window, of several the first, and which element of its plane it is. A window that lies
    /// in the padding alone gives the lowest number. NaN counts as the largest.
    pub fn max<T: Scalar>(&self, x: &[T]) -> (Vec<T>, Vec<u32>) {
        let (area, positions) = (self.slide.area(), self.slide.positions());
        let lowest = T::of(f64::NEG_INFINITY);
        let (mut out, mut from) = (vec![lowest; self.planes * positions], vec![NONE; self.planes * positions]);
        let planes = out.chunks_exact_mut(positions).zip(from.chunks_exact_mut(positions)).zip(x.chunks_exact(area));
        for ((out, from), x) in planes {
            self.slide.each_tap(|_, tap| tap.choose(x, out, from));
        }
        (out, from)
    }

    /// The gradient by the input of [`Pool::max`], whose choices are `from`.
    pub fn max_gradient<T: Scalar>(&self, dy: &[T], from: &[u32]) -> Vec<T> {
        let (area, positions) = (self.slide.area(), self.slide.positions());
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
        let (area, positions, shares) = (self.slide.area(), self.slide.positions(), self.shares::<T>(include_pad));
        let mut out = vec![T::ZERO; self.planes * positions];
        for (out, x) in out.chunks_exact_mut(positions).zip(x.chunks_exact(area)) {
            self.slide.each_tap(|_, tap| tap.forward(x, out, |out, x| *out += x));
            out.iter_mut().zip(&shares).for_each(|(out, &share)| *out = *out * share);
        }
        out
    }

    /// The gradient by the input of [`Pool::mean`].
    pub fn mean_gradient<T: Scalar>(&self, dy: &[T], include_pad: bool) -> Vec<T> {
        let (area, positions, shares) = (self.slide.area(), self.slide.positions(), self.shares::<T>(include_pad));
        let mut dx = vec![T::ZERO; self.planes * area];
        for (dx, dy) in dx.chunks_exact_mut(area).zip(dy.chunks_exact(positions)) {
            let dy: Vec<T> = dy.iter().zip(&shares).map(|(&dy, &share)| dy * share).collect();
            self.slide.each_tap(|_, tap| tap.backward(&dy, dx, |dx, dy| *dx += dy));
        }
        dx
    }

    /// The share of each element of a window in its mean.
    fn shares<T: Scalar>(&self, include_pad: bool) -> Vec<T> {
        let mut cells = vec![0usize; self.slide.positions()];
        if include_pad {
            let width = self.slide.output[1];
            cells.iter_mut().enumerate().for_each(|(place, cells)| {
                *cells = self.padded_cells(0, place / width) * self.padded_cells(1, place % width);
            });
        } else {
            self.slide
                .each_tap(|_, tap| tap.forward(&vec![(); self.slide.area()], &mut cells, |cells, ()| *cells += 1));
        }
        cells.into_iter().map(|cells| T::of(1.0 / cells.max(1) as f64)).collect()
    }

    /// How many cells along `axis`, padding included, the window at `position` covers.
    fn padded_cells(&self, axis: usize, position: usize) -> usize {
        let slide = &self.slide;
        let end = slide.pads[axis] + slide.input[axis] + self.end_pads[axis];
        let room = end.saturating_sub(position * slide.strides[axis]).div_ceil(slide.dilations[axis]);
        room.min(slide.kernel[axis])
    }
}
