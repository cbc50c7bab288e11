//! The survivors of a mask at the optimum, each row on its own.

use rayon::prelude::*;

use super::problem::Group;
use super::{CalibrateError, Problem};
use crate::algebra::{factor, solve_factored};
use crate::progress::Progress;

/// Most survivors of a row for which their equations are solved by a factor; more by conjugate gradients.
const MOST_FACTORED: usize = 384;

/// Most steps of conjugate gradients, and the residual, relative to the right side, at which they end.
const MOST_STEPS: usize = 100;
const RESIDUAL: f64 = 1e-7;

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
            let cells = group.cells(self.cols);
            let rows = weights[cells.clone()].par_chunks_mut(cols).zip(kept[cells.clone()].par_chunks(cols));
            let rows =
                rows.zip(start[cells.clone()].par_chunks(cols)).zip(self.gradient[cells.clone()].par_chunks(cols));
            let rows = rows.zip(self.target[cells].par_chunks(cols));
            rows.try_for_each(|((((weights, kept), start), gradient), target)| -> Result<(), CalibrateError> {
                progress.check()?;
                let support: Vec<usize> = (0..cols).filter(|&col| kept[col]).collect();
                // Nothing went: nothing is to be made up for.
                let values = match support.len() == cols {
                    true => target.iter().map(|&value| f64::from(value)).collect(),
                    false => solve_row(group, &support, start, gradient)?,
                };
                for (&col, value) in support.iter().zip(values) {
                    weights[col] = (value / group.scale[col]) as f32;
                }
                Ok(())
            })?;
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
        factor(&mut matrix, n)?;
        solve_factored(&matrix, &mut right);
        return Ok(right);
    }
    let start = support.iter().map(|&col| f64::from(start[col])).collect();
    Ok(conjugate_gradients(&matrix, &right, start))
}

fn conjugate_gradients(matrix: &[f64], right: &[f64], mut x: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    let times = |x: &[f64]| -> Vec<f64> { matrix.chunks_exact(n).map(|row| dot(row, x)).collect() };
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
