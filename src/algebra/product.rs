//! Matrix products in blocks of rows, each on the kernels of `matrixmultiply` that `ndarray` brings along.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar, ShapeBuilder};
use rayon::prelude::*;

/// Rows of a result that one task computes.
const ROWS_PER_TASK: usize = 64;

/// Elements that products are made for.
pub(crate) trait Scalar: LinalgScalar + Send + Sync {}
impl Scalar for f32 {}
impl Scalar for f64 {}

/// A matrix inside a slice: `rows x cols`, its elements `row_stride` and `col_stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a, T> Strided<'a, T> {
    /// A matrix that lies row by row, without gaps.
    pub(crate) fn packed(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Rows for columns.
    pub(crate) fn transposed(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// `count` rows from `start` on.
    pub(crate) fn rows(self, start: usize, count: usize) -> Self {
        Self { data: &self.data[(start * self.row_stride).min(self.data.len())..], rows: count, ..self }
    }

    fn view(&self) -> ArrayView2<'a, T> {
        let shape = (self.rows, self.cols).strides((self.row_stride, self.col_stride));
        ArrayView2::from_shape(shape, self.data).expect("the slice holds the matrix")
    }
}

/// `a . b`, row by row.
pub(crate) fn product<T: Scalar>(a: Strided<T>, b: Strided<T>) -> Vec<T> {
    let mut out = vec![T::zero(); a.rows * b.cols];
    add_product(T::one(), a, b, &mut out, b.cols);
    out
}

/// `out += factor a . b`, where row `i` of the result begins at `out[i * stride]`.
///
/// # Panics
/// Where the shapes do not fit.
pub(crate) fn add_product<T: Scalar>(factor: T, a: Strided<T>, b: Strided<T>, out: &mut [T], stride: usize) {
    assert_eq!(a.cols, b.rows, "a {} x {} matrix times a {} x {} one", a.rows, a.cols, b.rows, b.cols);
    assert!(b.cols <= stride && (a.rows == 0 || (a.rows - 1) * stride + b.cols <= out.len()));
    if a.rows == 0 || b.cols == 0 || a.cols == 0 {
        return;
    }
    out.par_chunks_mut(ROWS_PER_TASK * stride).enumerate().for_each(|(task, out)| {
        let start = task * ROWS_PER_TASK;
        if start >= a.rows {
            return;
        }
        let rows = ROWS_PER_TASK.min(a.rows - start);
        let shape = (rows, b.cols).strides((stride, 1));
        let mut out = ArrayViewMut2::from_shape(shape, out).expect("the slice holds the block");
        general_mat_mul(factor, &a.rows(start, rows).view(), &b.view(), T::one(), &mut out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_strided_matrices_match_the_definition() {
        let (m, k, n) = (130, 7, 5);
        let a: Vec<f64> = (0..m * k).map(|i| (i % 13) as f64 - 6.0).collect();
        let b: Vec<f64> = (0..n * k).map(|i| (i % 11) as f64 - 5.0).collect();
        let found = product(Strided::packed(&a, m, k), Strided::packed(&b, n, k).transposed());
        for i in 0..m {
            for j in 0..n {
                let expected: f64 = (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum();
                assert_eq!(found[i * n + j], expected);
            }
        }
    }
}
