//! Pruning: which weights become zero. A file per criterion.
//!
//! A criterion gives every weight a *saliency*; the weights whose saliency does not exceed a threshold are set to zero.
//! The threshold is the `sparsity` quantile of the saliencies, of one tensor or of all tensors together
//! ([`ThresholdSearch`]), so that both scopes share one exact selection, whatever the criterion.
//!
//! To add a criterion: a file with its `saliencies`, a variant of [`Criterion`], an arm in `Criterion::saliencies`.

mod magnitude;
mod mask;
mod sparsity;
mod threshold;

use serde::{Deserialize, Serialize};

use crate::tensor::LayerContext;

pub use mask::Mask;
pub use sparsity::{Sparsity, SparsityError};
pub use threshold::{Threshold, ThresholdSearch};

/// Saliencies computed at once: a buffer that stays in the first-level cache.
const CHUNK: usize = 4096;

/// How one layer is pruned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prune {
    /// What makes a weight worth keeping.
    pub criterion: Criterion,
    /// The fraction of weights to set to zero.
    pub sparsity: Sparsity,
    /// Which weights are ranked together.
    pub scope: Scope,
}

/// What makes a weight worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// The absolute value of the weight.
    #[default]
    Magnitude,
}

/// Which weights are ranked together when the smallest are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One threshold per tensor: every tensor reaches the sparsity.
    #[default]
    Tensor,
    /// One threshold for all tensors with the same criterion, sparsity and this scope: they reach it together.
    Global,
}

impl Prune {
    /// The threshold that [`Scope::Tensor`] asks for: the quantile of this layer's own saliencies.
    pub fn threshold(&self, layer: &LayerContext<'_>) -> Threshold {
        let mut search = self.search();
        loop {
            search.observe(layer);
            if let Some(threshold) = search.end_pass() {
                return threshold;
            }
        }
    }

    /// Starts the search for a threshold over many layers, as [`Scope::Global`] asks.
    pub fn search(&self) -> ThresholdSearch {
        ThresholdSearch::new(*self)
    }

    /// The weights of `layer` that survive `threshold`.
    pub fn mask(&self, layer: &LayerContext<'_>, threshold: Threshold) -> Mask {
        Mask::build(layer.weights.len(), threshold, |start, out| self.criterion.saliencies(layer, start, out))
    }
}

impl Criterion {
    /// Every criterion, in the order in which they are listed to people.
    pub const ALL: [Self; 1] = [Self::Magnitude];

    /// Fills `out` with the saliencies of the cells from `start` on: finite, not negative, larger for a weight that
    /// matters more.
    fn saliencies(self, layer: &LayerContext<'_>, start: usize, out: &mut [f32]) {
        match self {
            Self::Magnitude => magnitude::saliencies(layer, start, out),
        }
    }
}
