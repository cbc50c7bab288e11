//! The criterion obs: the weights whose removal costs a layer's output least, the survivors adjusted to make up for them.
//!
//! Minimises `tr (W - W0) H (W - W0)^T`, the squared error of the layer's outputs on a calibration set, over matrices with
//! as many non-zeros as asked for. The mask is found by the alternating direction method of multipliers with a penalty that
//! rises; all its work is products of the layer with an inverse. Given the mask, each row of survivors is put at the
//! optimum, which is where the updates of the optimal brain surgeon lead, whatever their order.
//!
//! # Source
//! Meng, Behdin, Wang, Mazumder, "ALPS: improved optimization for highly sparse one-shot pruning for large language
//! models", NeurIPS 2024, arXiv:2406.07831; Hassibi, Stork, "Second order derivatives for network pruning: optimal brain
//! surgeon", NIPS 1992; Frantar, Singh, Alistarh, "Optimal brain compression", NeurIPS 2022, arXiv:2208.11580.

use rayon::prelude::*;

use super::{CalibrateError, Problem};
use crate::algebra::{Strided, add_product};
use crate::progress::Progress;
use crate::prune::Keep;

/// Penalties that follow each other, relative to a Hessian with a diagonal of ones, and the rounds at each.
const PENALTIES: [f64; 5] = [0.1, 0.2, 0.4, 0.8, 1.6];
const ROUNDS: usize = 10;

/// Cells that one task of an element-wise pass takes.
const CELLS_PER_TASK: usize = 1 << 15;

impl Problem {
    /// The weights with `keep` survivors, adjusted: rows x cols.
    ///
    /// # Errors
    /// An [`CalibrateError`].
    pub fn solve(&self, keep: Keep, progress: &dyn Progress) -> Result<Vec<f32>, CalibrateError> {
        let mut state = State::new(self, keep);
        if keep.survivors(self.rows, self.cols) < self.target.len() {
            for (stage, &penalty) in PENALTIES.iter().enumerate() {
                let inverses = self.inverses(penalty, progress)?;
                state.set_penalty(penalty);
                for round in 0..ROUNDS {
                    progress.check()?;
                    state.step(self, &inverses, keep);
                    let done = (stage * ROUNDS + round + 1) as f64 / (PENALTIES.len() * ROUNDS) as f64;
                    progress.report(done, "prune", "");
                }
            }
        }
        self.refit(&state.kept, &state.values, progress)
    }

    /// The weights of a given mask at the optimum: rows x cols.
    ///
    /// # Errors
    /// An [`CalibrateError`].
    pub fn refit_mask(&self, kept: &[bool], progress: &dyn Progress) -> Result<Vec<f32>, CalibrateError> {
        self.refit(kept, &self.target, progress)
    }
}

/// Where the iteration stands. Of the sum of a weight and its scaled multiplier, what survives is the weight, and what does
/// not is the multiplier: so one matrix and a mask hold both.
pub(super) struct State {
    values: Vec<f32>,
    kept: Vec<bool>,
    penalty: f64,
    gradient: Vec<f32>,
}

impl State {
    pub(super) fn new(problem: &Problem, keep: Keep) -> Self {
        let mut values = problem.target.clone();
        let kept = keep.select(&values, problem.cols);
        // Multipliers begin at zero.
        values.iter_mut().zip(&kept).filter(|(_, kept)| !**kept).for_each(|(value, _)| *value = 0.0);
        let gradient = problem.gradient.iter().map(|&value| value as f32).collect();
        Self { values, kept, penalty: PENALTIES[0], gradient }
    }

    /// Multipliers keep their value when the penalty changes.
    pub(super) fn set_penalty(&mut self, penalty: f64) {
        let factor = (self.penalty / penalty) as f32;
        self.values.iter_mut().zip(&self.kept).filter(|(_, kept)| !**kept).for_each(|(value, _)| *value *= factor);
        self.penalty = penalty;
    }

    /// One round: weights for multipliers, survivors for weights, multipliers for what they leave.
    pub(super) fn step(&mut self, problem: &Problem, inverses: &[Vec<f32>], keep: Keep) {
        let (cols, penalty) = (problem.cols, self.penalty as f32);
        let mut right = vec![0.0f32; self.values.len()];
        let cells = right.par_chunks_mut(CELLS_PER_TASK).zip(self.values.par_chunks(CELLS_PER_TASK));
        let cells = cells.zip(self.kept.par_chunks(CELLS_PER_TASK)).zip(self.gradient.par_chunks(CELLS_PER_TASK));
        cells.for_each(|(((right, values), kept), gradient)| {
            for i in 0..right.len() {
                right[i] = gradient[i] + penalty * if kept[i] { values[i] } else { -values[i] };
            }
        });
        // Multipliers stay, survivors begin anew; then the product is added.
        self.values.iter_mut().zip(&self.kept).filter(|(_, kept)| **kept).for_each(|(value, _)| *value = 0.0);
        for (group, inverse) in problem.groups.iter().zip(inverses) {
            let cells = group.cells(cols);
            let right = Strided::packed(&right[cells.clone()], group.rows.len(), cols);
            add_product(1.0, right, Strided::packed(inverse, cols, cols), &mut self.values[cells], cols.max(1));
        }
        self.kept = keep.select(&self.values, cols);
    }

    /// The survivors as they stand, scaled; zero where there is none.
    pub(super) fn survivors(&self) -> Vec<f32> {
        self.values.iter().zip(&self.kept).map(|(&value, &kept)| if kept { value } else { 0.0 }).collect()
    }

    /// The error of the survivors as they stand.
    pub(super) fn error(&self, problem: &Problem) -> f64 {
        problem.scaled_error(&self.survivors())
    }
}
