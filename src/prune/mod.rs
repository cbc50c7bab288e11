//! Pruning: which weights become zero. A file per criterion.
//!
//! A criterion gives every weight a *saliency*; the weights whose saliency does not exceed a threshold are set to zero.
//! The threshold is the `sparsity` quantile of the saliencies, of one tensor or of all tensors together
//! ([`ThresholdSearch`]), so that both scopes share one exact selection, whatever the criterion.
//!
//! To add a criterion: a file with its `saliencies`, a variant of [`Criterion`], an arm in `Criterion::scorer`.

mod keep;
mod lamp;
mod magnitude;
mod mask;
mod pattern;
mod sparsity;
mod threshold;
mod wanda;

use serde::{Deserialize, Serialize};

use crate::tensor::LayerContext;

pub use keep::Keep;
pub(crate) use keep::survivors;
pub use mask::Mask;
pub use pattern::{Pattern, PatternError};
pub use sparsity::{Sparsity, SparsityError};
pub use threshold::{Threshold, ThresholdSearch};

/// Saliencies computed at once: a buffer that stays in the first-level cache.
const CHUNK: usize = 4096;

/// Fills a buffer with the saliencies of a layer's cells from a given one on.
type Scorer<'a> = Box<dyn Fn(usize, &mut [f32]) + Sync + 'a>;

/// How one layer is pruned.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Prune {
    /// What makes a weight worth keeping.
    pub criterion: Criterion,
    /// The fraction of weights to set to zero.
    pub sparsity: Sparsity,
    /// Which weights are ranked together.
    pub scope: Scope,
    /// Instead of a sparsity: n survivors of every m neighbours in a row.
    pub pattern: Option<Pattern>,
}

/// What makes a weight worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// The absolute value of the weight.
    #[default]
    Magnitude,
    /// The absolute value against the norm of the layer's weights that are at least as large: across layers, no layer is emptied.
    Lamp,
    /// The absolute value times the norm of the input on a calibration set.
    Wanda,
    /// What its removal costs the layer's outputs on a calibration set, the survivors adjusted to make up for it.
    Obs,
}

/// Which weights are ranked together when the smallest are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One threshold per tensor: every tensor reaches the sparsity.
    #[default]
    Tensor,
    /// The same number of survivors in each row, that is for each output.
    Row,
    /// One threshold for all tensors with the same criterion, sparsity and this scope: they reach it together. Of `obs`:
    /// each layer gets the sparsity at which the errors of all layers' outputs, relative to their energy, sum up to the least.
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

    /// How many weights survive where that follows from the shape of one layer; `None` for [`Scope::Global`].
    pub fn keep(&self, rows: usize, cols: usize) -> Option<Keep> {
        match (self.pattern, self.scope) {
            (Some(pattern), _) => Some(Keep::Pattern(pattern)),
            (None, Scope::Tensor) => Some(Keep::Layer(survivors(rows * cols, self.sparsity.get()))),
            (None, Scope::Row) => Some(Keep::Row(survivors(cols, self.sparsity.get()))),
            (None, Scope::Global) => None,
        }
    }

    /// Whether the weights of a row are ranked among themselves, so that no threshold is needed.
    pub fn ranks_rows(&self) -> bool {
        self.pattern.is_some() || self.scope == Scope::Row
    }

    /// The weights of `layer` that survive where [`Prune::ranks_rows`].
    pub fn mask_rows(&self, layer: &LayerContext<'_>) -> Mask {
        let mut saliencies = vec![0.0; layer.weights.len()];
        self.criterion.scorer(layer)(0, &mut saliencies);
        let keep = self.keep(layer.rows, layer.cols).unwrap_or(Keep::Layer(saliencies.len()));
        Mask::new(keep.select(&saliencies, layer.cols).into_iter())
    }

    /// The weights of `layer` that survive `threshold`.
    pub fn mask(&self, layer: &LayerContext<'_>, threshold: Threshold) -> Mask {
        Mask::build(layer.weights.len(), threshold, self.criterion.scorer(layer))
    }
}

impl Criterion {
    /// Every criterion, in the order in which they are listed to people.
    pub const ALL: [Self; 4] = [Self::Magnitude, Self::Lamp, Self::Wanda, Self::Obs];

    /// Whether it needs a calibration set.
    pub fn needs_data(self) -> bool {
        match self {
            Self::Magnitude | Self::Lamp => false,
            Self::Wanda | Self::Obs => true,
        }
    }

    /// What fills a buffer with the saliencies of the cells of `layer` from a given one on: finite, not negative, larger for a
    /// weight that matters more. Of `obs`, which ranks no single weights, those that take its place where a layer has no
    /// statistics.
    fn scorer<'a>(self, layer: &'a LayerContext<'a>) -> Scorer<'a> {
        match self {
            Self::Magnitude | Self::Obs => Box::new(|start, out| magnitude::saliencies(layer, start, out)),
            Self::Lamp => {
                let norms = lamp::Norms::of(layer);
                Box::new(move |start, out| norms.saliencies(layer, start, out))
            }
            Self::Wanda => Box::new(|start, out| wanda::saliencies(layer, start, out)),
        }
    }
}
