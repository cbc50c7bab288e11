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
}
