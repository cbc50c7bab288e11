//! Rounding with feedback: weights of a row go over to other shared values as long as the row's output error falls.
//!
//! Coordinate descent on the quadratic form, one weight after another: the best value of a weight given the others is the one
//! nearest to its optimum. From the nearest values on, the error only falls, so the result is never worse.
//!
//! # Source
//! Nair, Suggala, "CDQuant: greedy coordinate descent for accurate LLM quantization", arXiv:2406.17542; Behdin et al.,
//! "QuantEase: optimization-based quantization for language models", arXiv:2309.01885.

use rayon::prelude::*;

use super::problem::Group;
use super::{CalibrateError, Problem};
use crate::algebra::{Strided, add_product};
use crate::progress::Progress;
use crate::tensor::{Matrix, Values};

/// Most passes over the weights of a row.
const MOST_PASSES: usize = 12;

/// A change must lower the error by more than this fraction of the weight's own square of the step: rounding is no reason.
const LEAST_GAIN: f64 = 1e-9;

impl Problem {
    /// Moves the symbols of `matrix` to other values of its codebook where the layer's outputs get nearer to those of its
    /// weights. What is zero stays zero, and nothing else becomes it. A matrix without a codebook stays as it is.
    ///
    /// # Errors
    /// [`CalibrateError::Cancelled`].
    ///
    /// # Panics
    /// If the matrix is not of the layer's shape.
    pub fn descend(&self, matrix: Matrix, progress: &dyn Progress) -> Result<Matrix, CalibrateError> {
        assert_eq!((matrix.rows(), matrix.cols()), (self.rows, self.cols));
        let Values::Shared { codebook, indices } = matrix.values() else { return Ok(matrix) };
        let (codebook, mut indices) = (codebook.clone(), indices.clone());
        let levels = Levels::of(codebook.values());
        if levels.values.len() < 2 || self.cols == 0 {
            return Ok(matrix);
        }
        for group in &self.groups {
            let cells = group.cells(self.cols);
            let mut gradient = self.gradient_of(group, &indices[cells.clone()], codebook.values());
            let rows = indices[cells].par_chunks_mut(self.cols).zip(gradient.par_chunks_mut(self.cols));
            rows.try_for_each(|(symbols, gradient)| {
                progress.check()?;
                descend_row(group, &levels, symbols, gradient);
                Ok::<(), CalibrateError>(())
            })?;
        }
        Ok(Matrix::shared(self.rows, self.cols, codebook, indices).expect("symbols of the same codebook"))
    }

    /// `(q - target) . H` of the rows of a group.
    fn gradient_of(&self, group: &Group, symbols: &[u16], values: &[f64]) -> Vec<f64> {
        let cols = self.cols;
        let mut scaled = vec![0.0; symbols.len()];
        scaled.par_chunks_mut(cols).zip(symbols.par_chunks(cols)).for_each(|(scaled, symbols)| {
            for (col, (scaled, symbol)) in scaled.iter_mut().zip(symbols).enumerate() {
                *scaled = values[usize::from(*symbol)] * group.scale[col];
            }
        });
        let mut gradient: Vec<f64> = self.gradient[group.cells(cols)].iter().map(|value| -value).collect();
        let scaled = Strided::packed(&scaled, group.rows.len(), cols);
        add_product(1.0, scaled, Strided::packed(&group.hessian, cols, cols), &mut gradient, cols);
        gradient
    }
}

/// The values that are not zero, ascending, each with its symbol.
struct Levels {
    values: Vec<f64>,
    symbols: Vec<u16>,
    /// Positions in `values` by symbol.
    positions: Vec<usize>,
}

impl Levels {
    fn of(values: &[f64]) -> Self {
        let symbols: Vec<u16> = (0..values.len()).filter(|&i| values[i] != 0.0).map(|i| i as u16).collect();
        let mut positions = vec![usize::MAX; values.len()];
        symbols.iter().enumerate().for_each(|(position, &symbol)| positions[usize::from(symbol)] = position);
        Self { values: symbols.iter().map(|&symbol| values[usize::from(symbol)]).collect(), symbols, positions }
    }

    /// The position of the value nearest to `wanted`.
    fn nearest(&self, wanted: f64) -> usize {
        let above = self.values.partition_point(|&value| value < wanted);
        match above {
            0 => 0,
            above if above == self.values.len() => above - 1,
            above if wanted - self.values[above - 1] <= self.values[above] - wanted => above - 1,
            above => above,
        }
    }
}

fn descend_row(group: &Group, levels: &Levels, symbols: &mut [u16], gradient: &mut [f64]) {
    let cols = symbols.len();
    let support: Vec<usize> =
        (0..cols).filter(|&col| levels.positions[usize::from(symbols[col])] != usize::MAX).collect();
    let mut own: Vec<f64> = support.iter().map(|&col| gradient[col]).collect();
    for _ in 0..MOST_PASSES {
        let mut moved = false;
        for (at, &col) in support.iter().enumerate() {
            let (position, scale) = (levels.positions[usize::from(symbols[col])], group.scale[col]);
            // The diagonal of the Hessian is one.
            let wanted = levels.values[position] - own[at] / scale;
            let nearest = levels.nearest(wanted);
            if nearest == position {
                continue;
            }
            let step = (levels.values[nearest] - levels.values[position]) * scale;
            let change = 2.0 * own[at] * step + step * step;
            if change >= -LEAST_GAIN * step * step {
                continue;
            }
            symbols[col] = levels.symbols[nearest];
            let hessian = &group.hessian[col * cols..(col + 1) * cols];
            own.iter_mut().zip(&support).for_each(|(own, &other)| *own += step * hessian[other]);
            moved = true;
        }
        if !moved {
            break;
        }
    }
}
