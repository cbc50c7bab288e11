//! Weight sharing: which few values the surviving weights take. A file per quantiser.
//!
//! A quantiser is fitted on the [`Distribution`] of the surviving (non-zero) weights of one layer, or of several layers
//! that share a codebook, and the [`Fitted`] result then assigns a symbol to every weight of each of them. Zero stays
//! exactly zero: it is no level, and has a symbol of its own wherever a weight is zero.
//!
//! To add a quantiser: a file with its struct and `fit`, a variant of [`Quantizer`] and of [`Method`], an arm in each
//! `match` below.

mod assign;
mod budget;
mod cells;
mod cws;
mod distinct;
mod distribution;
mod ecsq;
mod exact;
mod keys;
mod kmeans;
mod moments;
mod pws;
#[cfg(test)]
mod testing;
mod uq;
mod weighted;

use serde::{Deserialize, Serialize};

use crate::progress::{Cancelled, Progress};
use crate::tensor::{CodebookError, FloatType, MatrixError};

pub use assign::Fitted;
pub use budget::{Bits, BitsError, Budget, Levels, LevelsError};
pub use cws::Cws;
pub use distribution::{Distribution, DistributionBuilder, EXACT_LIMIT};
pub use ecsq::{Ecsq, Tolerance, ToleranceError};
pub use exact::share_exact;
pub use pws::Pws;
pub use uq::Uq;

/// A quantiser and its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantizer {
    /// Clustering weight sharing.
    Cws(Cws),
    /// Probabilistic weight sharing.
    Pws(Pws),
    /// Uniform quantisation.
    Uq(Uq),
    /// Entropy-constrained scalar quantisation.
    Ecsq(Ecsq),
}

/// The name of a quantiser, as in a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Clustering weight sharing.
    #[default]
    Cws,
    /// Probabilistic weight sharing.
    Pws,
    /// Uniform quantisation.
    Uq,
    /// Entropy-constrained scalar quantisation.
    Ecsq,
}

impl Method {
    /// Every quantiser, in the order in which they are listed to people.
    pub const ALL: [Self; 4] = [Self::Cws, Self::Pws, Self::Uq, Self::Ecsq];
}

/// Why weights could not be shared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The values found do not form a codebook, which only weights that are not finite lead to.
    #[error("the shared values do not form a codebook: {0}")]
    Codebook(#[from] CodebookError),
    /// The values do not fill the matrix, or one of them is not finite.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// A zero weight, but none was in the distribution that was fitted, so the codebook has no zero.
    #[error("cell {index} is zero, and no zero was in the distribution that was fitted")]
    UnseenZero {
        /// The cell, row-major.
        index: usize,
    },
}

impl From<Cancelled> for QuantizeError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl Quantizer {
    /// Fits the quantiser. The values are rounded to `dtype`, the element type of the tensors that will be assigned.
    ///
    /// A distribution with no more distinct values than the levels asked for keeps them all. It sees weights as f32, so
    /// those of an f64 tensor are kept as their nearest f32.
    ///
    /// # Errors
    /// [`QuantizeError::Cancelled`]; [`QuantizeError::Codebook`] if a weight was not finite.
    pub fn fit(
        &self,
        distribution: &Distribution,
        dtype: FloatType,
        progress: &dyn Progress,
    ) -> Result<Fitted, QuantizeError> {
        distribution.check_finite()?;
        if self.levels().is_some_and(|levels| distribution.is_exact() && distribution.points().len() <= levels.get()) {
            return Fitted::nearest(distribution, dtype, distribution.points().iter().map(|point| point.value));
        }
        match self {
            Self::Cws(cws) => cws.fit(distribution, dtype, progress),
            Self::Pws(pws) => pws.fit(distribution, dtype),
            Self::Uq(uq) => uq.fit(distribution, dtype, progress),
            Self::Ecsq(ecsq) => ecsq.fit(distribution, dtype, progress),
        }
    }

    /// The most non-zero values it may leave, where that is what limits it.
    fn levels(&self) -> Option<Levels> {
        match self {
            Self::Cws(Cws { levels }) | Self::Pws(Pws { levels, .. }) | Self::Uq(Uq { levels }) => Some(*levels),
            Self::Ecsq(Ecsq { budget: Budget::Levels(levels), .. }) => Some(*levels),
            Self::Ecsq(Ecsq { budget: Budget::Bits(_), .. }) => None,
        }
    }
}
