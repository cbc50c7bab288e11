//! What a layer's outputs lose at rising sparsities: what a budget over many layers is shared out by.

use super::obs::State;
use super::{CalibrateError, Problem};
use crate::progress::Progress;
use crate::prune::{Keep, survivors};

/// Sparsities at which the error is measured.
pub const CURVE: [f64; 19] =
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995];

/// The penalty at which the iteration follows rising sparsities, and its rounds at each.
const PENALTY: f64 = 0.4;
const ROUNDS: usize = 8;

/// Errors below this are as good as none.
const LEAST_ERROR: f64 = 1e-9;

/// The error of one layer's outputs, relative to their energy, at each sparsity of [`CURVE`].
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    errors: Vec<f64>,
}

impl Problem {
    /// Follows the layer along rising sparsities, a few rounds at each: an estimate from above.
    ///
    /// # Errors
    /// An [`CalibrateError`].
    pub fn curve(&self, progress: &dyn Progress) -> Result<Curve, CalibrateError> {
        let mut errors = Vec::with_capacity(CURVE.len());
        self.follow(progress, |_, state| errors.push(state.error(self)))?;
        // A sparser layer is not better: where it seems so, the iteration had not settled.
        (0..errors.len() - 1).rev().for_each(|i| errors[i] = errors[i].min(errors[i + 1]));
        Ok(Curve { errors })
    }

    /// Shows where the iteration stands at each sparsity of [`CURVE`].
    pub(super) fn follow(
        &self,
        progress: &dyn Progress,
        mut visit: impl FnMut(f64, &State),
    ) -> Result<(), CalibrateError> {
        let inverses = self.inverses(PENALTY, progress)?;
        let mut state = State::new(self, Keep::Layer(self.target.len()));
        state.set_penalty(PENALTY);
        for sparsity in CURVE {
            let keep = Keep::Layer(survivors(self.target.len(), sparsity));
            for _ in 0..ROUNDS {
                progress.check()?;
                state.step(self, &inverses, keep);
            }
            visit(sparsity, &state);
        }
        Ok(())
    }
}

impl Curve {
    /// A curve of known errors, one for each sparsity of [`CURVE`].
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn new(errors: Vec<f64>) -> Self {
        assert_eq!(errors.len(), CURVE.len());
        Self { errors }
    }

    /// The error at each sparsity of [`CURVE`].
    pub fn errors(&self) -> &[f64] {
        &self.errors
    }

    /// The error at `sparsity`: its logarithm is interpolated linearly; that at the last point beyond it.
    pub fn at(&self, sparsity: f64) -> f64 {
        let log = |i: usize| libm::log(self.errors[i].max(LEAST_ERROR));
        let above = CURVE.partition_point(|&known| known < sparsity);
        if above == CURVE.len() {
            return self.errors[above - 1];
        }
        let (low, below) = if above == 0 { (0.0, libm::log(LEAST_ERROR)) } else { (CURVE[above - 1], log(above - 1)) };
        let fraction = (sparsity - low) / (CURVE[above] - low);
        libm::exp(below + (log(above) - below) * fraction)
    }
}
