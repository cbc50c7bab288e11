//! Cholesky factors of symmetric positive definite matrices, and inverses by them.
//!
//! # Source
//! Golub, Van Loan, "Matrix computations", 4th edition, section 4.2; blocked, so that nearly all of the work is products.

use rayon::prelude::*;

use super::product::{Strided, add_product};
use crate::progress::{Cancelled, Progress};

/// Columns that are factored at a time.
const BLOCK: usize = 64;

/// Rows of a product between two looks at whether to stop.
const PRODUCT_ROWS: usize = 512;

/// A matrix that is not positive definite.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("pivot {index} of the matrix is {pivot}, not positive")]
pub(crate) struct NotPositive {
    pub(crate) index: usize,
    pub(crate) pivot: f64,
}

/// Replaces the lower triangle of `matrix`, `n x n`, by its Cholesky factor L; the rest is set to zero.
///
/// # Errors
/// Outer: [`Cancelled`]. Inner: [`NotPositive`] with the first pivot that is not.
pub(crate) fn factor(
    matrix: &mut [f64],
    n: usize,
    progress: &dyn Progress,
) -> Result<Result<(), NotPositive>, Cancelled> {
    assert_eq!(matrix.len(), n * n, "a {n} x {n} matrix");
    for start in (0..n).step_by(BLOCK) {
        progress.check()?;
        let end = n.min(start + BLOCK);
        if let Err(error) = factor_block(matrix, n, start, end) {
            return Ok(Err(error));
        }
        let (top, rest) = matrix.split_at_mut(end * n);
        let top = &*top;
        rest.par_chunks_mut(n).for_each(|row| {
            for j in start..end {
                let sum = dot(&row[start..j], &top[j * n + start..j * n + j]);
                row[j] = (row[j] - sum) / top[j * n + j];
            }
        });
        let count = n - end;
        let panel: Vec<f64> = rest.chunks_exact(n).flat_map(|row| row[start..end].to_vec()).collect();
        let panel = Strided::packed(&panel, count, end - start);
        if count > 0 {
            add_product(-1.0, panel, panel.transposed(), &mut rest[end..], n);
        }
    }
    matrix.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| row[i + 1..].fill(0.0));
    Ok(Ok(()))
}

fn factor_block(matrix: &mut [f64], n: usize, start: usize, end: usize) -> Result<(), NotPositive> {
    for i in start..end {
        for j in start..=i {
            let sum = dot(&matrix[i * n + start..i * n + j], &matrix[j * n + start..j * n + j]);
            let value = matrix[i * n + j] - sum;
            if i > j {
                matrix[i * n + j] = value / matrix[j * n + j];
            } else if value > 0.0 {
                matrix[i * n + i] = value.sqrt();
            } else {
                return Err(NotPositive { index: i, pivot: value });
            }
        }
    }
    Ok(())
}

/// Solves `L L^T x = b` in place; `factor` is the `n x n` factor L.
pub(crate) fn solve_factored(factor: &[f64], b: &mut [f64]) {
    let n = b.len();
    for i in 0..n {
        b[i] = (b[i] - dot(&factor[i * n..i * n + i], &b[..i])) / factor[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] /= factor[i * n + i];
        let value = b[i];
        b[..i].iter_mut().zip(&factor[i * n..i * n + i]).for_each(|(b, l)| *b -= value * l);
    }
}

/// The inverse of `matrix`, symmetric positive definite, `n x n`.
///
/// # Errors
/// Outer: [`Cancelled`]. Inner: [`NotPositive`].
pub(crate) fn invert(
    mut matrix: Vec<f64>,
    n: usize,
    progress: &dyn Progress,
) -> Result<Result<Vec<f64>, NotPositive>, Cancelled> {
    if let Err(error) = factor(&mut matrix, n, progress)? {
        return Ok(Err(error));
    }
    let inverse = invert_lower(&matrix, n, progress)?;
    let inverse = Strided::packed(&inverse, n, n);
    // A block of rows at a time, in the place of the factor, which nobody needs any more.
    matrix.fill(0.0);
    for (block, rows) in matrix.chunks_mut(PRODUCT_ROWS * n.max(1)).enumerate() {
        progress.check()?;
        let columns = inverse.transposed().rows(block * PRODUCT_ROWS, rows.len() / n);
        add_product(1.0, columns, inverse, rows, n);
    }
    Ok(Ok(matrix))
}

/// The inverse of a lower triangular matrix.
fn invert_lower(lower: &[f64], n: usize, progress: &dyn Progress) -> Result<Vec<f64>, Cancelled> {
    let mut inverse = vec![0.0; n * n];
    for start in (0..n).step_by(BLOCK) {
        progress.check()?;
        let end = n.min(start + BLOCK);
        let rows = end - start;
        // Rows of the block: -L[block, before] . inverse[before], and the unit matrix, divided by the block of L.
        let mut block = vec![0.0; rows * n];
        if start > 0 {
            let left = Strided { data: &lower[start * n..], rows, cols: start, row_stride: n, col_stride: 1 };
            let above = Strided { data: &inverse, rows: start, cols: start, row_stride: n, col_stride: 1 };
            add_product(-1.0, left, above, &mut block, n);
        }
        for i in 0..rows {
            block[i * n + start + i] = 1.0;
            let (above, row) = block.split_at_mut(i * n);
            let row = &mut row[..end];
            for (j, above) in above.chunks_exact(n).enumerate() {
                let l = lower[(start + i) * n + start + j];
                row.iter_mut().zip(above).for_each(|(row, above)| *row -= l * above);
            }
            let pivot = lower[(start + i) * n + start + i];
            row.iter_mut().for_each(|value| *value /= pivot);
        }
        inverse[start * n..end * n].copy_from_slice(&block);
    }
    Ok(inverse)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four sums side by side, joined in a fixed order.
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

#[cfg(test)]
mod tests {
    use super::super::product::product;
    use super::*;
    use crate::progress::Silent;

    /// X X^T + I of a matrix of small numbers.
    fn positive(n: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..n * n).map(|i| ((i * 7919) % 101) as f64 / 50.0 - 1.0).collect();
        let x = Strided::packed(&x, n, n);
        let mut matrix = product(x, x.transposed());
        (0..n).for_each(|i| matrix[i * n + i] += 1.0);
        matrix
    }

    #[test]
    fn a_factor_of_three_rows_matches_one_worked_by_hand() {
        let mut matrix = vec![4.0, 12.0, -16.0, 12.0, 37.0, -43.0, -16.0, -43.0, 98.0];
        factor(&mut matrix, 3, &Silent).unwrap().unwrap();
        assert_eq!(matrix, [2.0, 0.0, 0.0, 6.0, 1.0, 0.0, -8.0, 5.0, 3.0]);
    }

    #[test]
    fn a_matrix_times_its_inverse_is_the_unit_matrix() {
        for n in [1, 63, 64, 65, 200, PRODUCT_ROWS + 3] {
            let matrix = positive(n);
            let inverse = invert(matrix.clone(), n, &Silent).unwrap().unwrap();
            let unit = product(Strided::packed(&matrix, n, n), Strided::packed(&inverse, n, n));
            for (i, value) in unit.iter().enumerate() {
                let expected = f64::from(u8::from(i / n == i % n));
                assert!((value - expected).abs() < 1e-8, "{value} at {i} of {n}");
            }
        }
    }

    #[test]
    fn a_solution_satisfies_its_equations() {
        let n = 70;
        let (matrix, mut factored) = (positive(n), positive(n));
        factor(&mut factored, n, &Silent).unwrap().unwrap();
        let b: Vec<f64> = (0..n).map(|i| i as f64 - 30.0).collect();
        let mut x = b.clone();
        solve_factored(&factored, &mut x);
        for (row, b) in matrix.chunks_exact(n).zip(&b) {
            assert!((dot(row, &x) - b).abs() < 1e-8);
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_names_its_pivot() {
        let expected = Ok(Err(NotPositive { index: 1, pivot: -3.0 }));
        assert_eq!(factor(&mut [1.0, 2.0, 2.0, 1.0], 2, &Silent), expected);
    }
}
