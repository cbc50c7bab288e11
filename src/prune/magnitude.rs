//! The magnitude criterion: a weight matters as much as it is large.
//!
//! # Source
//! Marinò, Ghidoli, Frasca, Malchiodi, "Compression strategies and space-conscious representations for deep neural
//! networks", ICPR 2020, arXiv:2007.07967, section III-A; LeCun, Denker, Solla, "Optimal brain damage", NIPS 1989, for
//! the word saliency.

use crate::tensor::LayerContext;

/// Fills `out` with |w| of the cells from `start` on.
pub(super) fn saliencies(layer: &LayerContext<'_>, start: usize, out: &mut [f32]) {
    for (saliency, weight) in out.iter_mut().zip(&layer.weights[start..]) {
        *saliency = weight.abs();
    }
}
