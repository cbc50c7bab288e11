//! The survivors of a mask at the optimum, each row on its own.

use std::ops::Range;

use rayon::prelude::*;

use super::problem::Group;
use super::{CalibrateError, Problem};
use crate::algebra::{factor, solve_factored};
use crate::progress::{Progress, Silent};

/// Most survivors of a row for which their equations are solved by a factor; more by conjugate gradients.
const MOST_FACTORED: usize = 384;

/// Bytes of the equations that are at work at the same time, unless those of one row are more.
const EQUATIONS_BYTES: u64 = 128 << 20;

/// Most steps of conjugate gradients, and the residual, relative to the right side, at which they end.
const MOST_STEPS: usize = 100;
const RESIDUAL: f64 = 1e-7;

/// Bytes of the equations of a row with so many survivors, without overflow.
fn row_bytes(survivors: usize) -> u64 {
    (survivors as u64).saturating_mul(survivors as u64).saturating_mul(size_of::<f64>() as u64)
}

/// Bytes of the equations at work, at most, of a layer of `rows x cols`, without overflow.
pub(super) fn equations_bytes(rows: usize, cols: usize) -> u64 {
    let row = row_bytes(cols);
    row.max(EQUATIONS_BYTES.min(row.saturating_mul(rows as u64)))
}

/// The rows from `start` on, of which `survivors` are given, whose equations are at work at the same time.
fn batch(survivors: &[usize], start: usize) -> Range<usize> {
    let (mut end, mut bytes) = (start, 0);
    while end < survivors.len() && (end == start || bytes + row_bytes(survivors[end]) <= EQUATIONS_BYTES) {
        bytes += row_bytes(survivors[end]);
        end += 1;
    }
    start..end
}

impl Problem {
    /// Minimises the error over the survivors, from `start` (scaled) on; returns weights as the layer has them.
    pub(super) fn refit(
        &self,
        kept: &[bool],
        start: &[f32],
        progress: &dyn Progress,
    ) -> Result<Vec<f32>, CalibrateError> {
        let cols = self.cols.max(1);
        let mut weights = vec![0.0f32; self.target.len()];
        for group in &self.groups {
            let first = group.cells(self.cols).start;
            let solve = |(row, weights): (usize, &mut [f32])| -> Result<(), CalibrateError> {
                progress.check()?;
                let cells = first + row * cols..first + (row + 1) * cols;
                let support: Vec<usize> = (0..cols).filter(|&col| kept[cells.start + col]).collect();
                // Nothing went: nothing is to be made up for.
                let values = match support.len() == cols {
                    true => self.target[cells].iter().map(|&value| f64::from(value)).collect(),
                    false => solve_row(group, &support, &start[cells.clone()], &self.gradient[cells])?,
                };
                for (&col, value) in support.iter().zip(values) {
                    weights[col] = (value / group.scale[col]) as f32;
                }
                Ok(())
            };
            let count = |kept: &[bool]| kept.iter().filter(|&&kept| kept).count();
            let survivors: Vec<usize> = kept[group.cells(self.cols)].chunks(cols).map(count).collect();
            let weights = &mut weights[group.cells(self.cols)];
            let mut rows = 0..0;
            while rows.end < survivors.len() {
                rows = batch(&survivors, rows.end);
                let cells = weights[rows.start * cols..rows.end * cols].par_chunks_mut(cols);
                rows.clone().into_par_iter().zip(cells).try_for_each(solve)?;
            }
        }
        Ok(weights)
    }
}

/// The values of the survivors of one row.
fn solve_row(group: &Group, support: &[usize], start: &[f32], gradient: &[f64]) -> Result<Vec<f64>, CalibrateError> {
    let (cols, n) = (group.scale.len(), support.len());
    let mut matrix = Vec::with_capacity(n * n);
    for &row in support {
        let row = &group.hessian[row * cols..(row + 1) * cols];
        matrix.extend(support.iter().map(|&col| row[col]));
    }
    let mut right: Vec<f64> = support.iter().map(|&col| gradient[col]).collect();
    if n <= MOST_FACTORED {
        factor(&mut matrix, n, &Silent)??;
        solve_factored(&matrix, &mut right);
        return Ok(right);
    }
    let start = support.iter().map(|&col| f64::from(start[col])).collect();
    Ok(conjugate_gradients(&matrix, &right, start))
}

fn conjugate_gradients(matrix: &[f64], right: &[f64], mut x: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    let times = |x: &[f64]| -> Vec<f64> { matrix.par_chunks_exact(n).map(|row| dot(row, x)).collect() };
    let mut residual: Vec<f64> = right.iter().zip(times(&x)).map(|(b, ax)| b - ax).collect();
    let mut direction = residual.clone();
    let mut square = dot(&residual, &residual);
    let enough = RESIDUAL * RESIDUAL * dot(right, right);
    for _ in 0..MOST_STEPS {
        if square <= enough {
            break;
        }
        let through = times(&direction);
        let step = square / dot(&direction, &through);
        if !step.is_finite() {
            break;
        }
        x.iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
        residual.iter_mut().zip(&through).for_each(|(r, t)| *r -= step * t);
        let next = dot(&residual, &residual);
        let factor = next / square;
        direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + factor * *d);
        square = next;
    }
    x
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_whose_equations_fit_are_at_work_together_and_none_waits_for_ever() {
        // 8 MiB, 32 MiB and 512 MiB.
        let survivors = [1 << 10, 1 << 11, 1 << 11, 1 << 11, 1 << 11, 1 << 13, 0, 1 << 10];
        let mut batches = vec![batch(&survivors, 0)];
        while let Some(last) = batches.last().filter(|last| last.end < survivors.len()) {
            batches.push(batch(&survivors, last.end));
        }
        assert_eq!(batches, [0..4, 4..5, 5..6, 6..8]);
        assert_eq!(equations_bytes(3, 1 << 10), 3 << 23);
        assert_eq!(equations_bytes(100, 1 << 10), EQUATIONS_BYTES);
        assert_eq!(equations_bytes(100, 1 << 13), 1 << 29);
    }
}
