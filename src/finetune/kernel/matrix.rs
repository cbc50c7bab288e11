//! Products of matrices that may be transposed views.

use crate::finetune::scalar::Scalar;

/// A view of `rows` x `cols` elements with strides.
#[derive(Clone, Copy)]
pub(in crate::finetune) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Scalar> Matrix<'a, T> {
    /// Row-major elements.
    ///
    /// # Panics
    /// If there are fewer than `rows` x `cols`.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "{} elements for {rows} x {cols}", data.len());
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transposed matrix.
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// The matrix, or its transpose.
    pub fn t_if(self, transposed: bool) -> Self {
        if transposed { self.t() } else { self }
    }

    /// Row-major `out` becomes this times `other`, or has it added, scaled by `scale`.
    ///
    /// # Panics
    /// If the extents do not agree.
    pub fn times(self, other: Matrix<'_, T>, scale: f64, add: bool, out: &mut [T]) {
        let (m, k, n) = (self.rows, self.cols, other.cols);
        assert_eq!(k, other.rows, "inner extents");
        assert_eq!(m * n, out.len(), "outer extents");
        if m * n == 0 {
            return;
        }
        if k == 0 {
            if !add {
                out.fill(T::ZERO);
            }
            return;
        }
        // The library copies the right matrix element by element where its rows are not contiguous, the left one where its
        // columns are not. Where the right one is much the larger, the transposed product is cheaper.
        if other.col_stride != 1 && m * (k + 2 * n) < n * k {
            let mut turned = vec![T::ZERO; m * n];
            other.t().times_as_is(self.t(), scale, false, &mut turned);
            return put_transposed(&turned, n, add, out);
        }
        self.times_as_is(other, scale, add, out);
    }

    fn times_as_is(self, other: Matrix<'_, T>, scale: f64, add: bool, out: &mut [T]) {
        let (m, k, n) = (self.rows, self.cols, other.cols);
        // SAFETY: every view lies inside its slice, by construction; `out` is row-major and borrowed mutably.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out.as_mut_ptr(),
                1,
                n as isize,
                add,
                self.data.as_ptr(),
                self.col_stride as isize,
                self.row_stride as isize,
                other.data.as_ptr(),
                other.col_stride as isize,
                other.row_stride as isize,
                T::ONE,
                T::of(scale),
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

/// Puts the transpose of `from`, whose columns are the rows of `out` of `cols` elements, into `out`, or adds it.
fn put_transposed<T: Scalar>(from: &[T], cols: usize, add: bool, out: &mut [T]) {
    let rows = out.len() / cols;
    for (row, out) in out.chunks_exact_mut(cols).enumerate() {
        let from = from[row..].iter().step_by(rows);
        match add {
            true => out.iter_mut().zip(from).for_each(|(out, &from)| *out += from),
            false => out.iter_mut().zip(from).for_each(|(out, &from)| *out = from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_transposed_views_are_those_of_the_matrices() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, 1.0, 0.0, 3.0]);
        let mut out = [1.0; 4];
        Matrix::new(&a, 2, 3).times(Matrix::new(&b, 2, 3).t(), 1.0, false, &mut out);
        assert_eq!(out, [7.0, 10.0, 16.0, 22.0]);
        Matrix::new(&a, 3, 2).t().times(Matrix::new(&b, 3, 2), 2.0, true, &mut out);
        assert_eq!(out, [21.0, 46.0, 36.0, 66.0]);
        Matrix::new(&a, 2, 0).times(Matrix::new(&b, 0, 2), 1.0, false, &mut out);
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn a_large_transposed_matrix_on_the_right_changes_nothing() {
        let a: Vec<f64> = (0..8).map(f64::from).collect();
        let b: Vec<f64> = (0..400).map(|i| f64::from(i % 7)).collect();
        let mut out = vec![1.0; 200];
        Matrix::new(&a, 2, 4).times(Matrix::new(&b, 100, 4).t(), 2.0, true, &mut out);
        for (place, out) in out.iter().enumerate() {
            let (row, col) = (place / 100, place % 100);
            let sum: f64 = (0..4).map(|i| a[row * 4 + i] * b[col * 4 + i]).sum();
            assert_eq!(*out, 1.0 + 2.0 * sum);
        }
    }
}
