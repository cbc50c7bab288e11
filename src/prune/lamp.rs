//! The LAMP criterion: a weight matters by its share in what would be left of its layer if all smaller ones were gone. One
//! threshold over many layers then prunes each as far as it can bear, and empties none.
//!
//! # Source
//! Lee, Park, Mo, Ahn, Shin, "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021, arXiv:2010.07611,
//! section 3. Weights that agree in the exponent and the leading 7 bits of the mantissa count as equals in the sum.

use crate::tensor::LayerContext;

/// Low bits of a magnitude that do not choose its bucket.
const LOW_BITS: u32 = 16;

/// For each bucket of magnitudes, the norm of a layer's weights in it and above.
pub(super) struct Norms(Vec<f64>);

impl Norms {
    pub(super) fn of(layer: &LayerContext<'_>) -> Self {
        let mut norms = vec![0.0; 1 << (31 - LOW_BITS)];
        layer.weights.iter().for_each(|&weight| norms[bucket(weight)] += f64::from(weight).powi(2));
        let mut above = 0.0;
        for norm in norms.iter_mut().rev() {
            above += *norm;
            *norm = f64::sqrt(above);
        }
        Self(norms)
    }

    /// Fills `out` with |w| / the norm of the weights that are at least as large, of the cells from `start` on: 0 to 1, the
    /// square root of the paper's score.
    pub(super) fn saliencies(&self, layer: &LayerContext<'_>, start: usize, out: &mut [f32]) {
        for (saliency, &weight) in out.iter_mut().zip(&layer.weights[start..]) {
            let norm = self.0[bucket(weight)];
            *saliency = if norm > 0.0 { (f64::from(weight.abs()) / norm) as f32 } else { 0.0 };
        }
    }
}

fn bucket(weight: f32) -> usize {
    (weight.abs().to_bits() >> LOW_BITS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::{Criterion, Prune, Scope, Sparsity};

    #[test]
    fn scores_are_those_of_the_paper() {
        let weights = [3.0, -4.0, 0.0, 12.0];
        let layer = LayerContext::new("w", 1, 4, &weights);
        let mut found = [0.0; 4];
        Norms::of(&layer).saliencies(&layer, 0, &mut found);
        let expected = [3.0 / 13.0, 4.0 / 160f64.sqrt(), 0.0, 1.0];
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn the_order_within_a_layer_is_that_of_the_magnitudes() {
        let weights: Vec<f32> = (0..20_000u32).map(|i| (f64::from(i) * 0.37).sin() as f32 * 1e-3 * i as f32).collect();
        let layer = LayerContext::new("w", 1, weights.len(), &weights);
        let mut found = vec![0.0; weights.len()];
        Norms::of(&layer).saliencies(&layer, 0, &mut found);
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[a].abs().total_cmp(&weights[b].abs()));
        assert!(order.windows(2).all(|pair| found[pair[0]] <= found[pair[1]]));
    }

    #[test]
    fn a_layer_of_small_weights_is_not_emptied() {
        let (small, large) = (vec![0.01f32; 100], vec![1.0f32; 1000]);
        let layers = [&small, &large].map(|weights| LayerContext::new("w", 1, weights.len(), weights));
        let survivors = |criterion| {
            let prune = Prune { criterion, sparsity: Sparsity::new(0.5).unwrap(), scope: Scope::Global, pattern: None };
            let mut search = prune.search();
            let threshold = loop {
                layers.iter().for_each(|layer| search.observe(layer));
                if let Some(threshold) = search.end_pass() {
                    break threshold;
                }
            };
            prune.mask(&layers[0], threshold).kept()
        };
        assert_eq!(survivors(Criterion::Magnitude), 0);
        assert_eq!(survivors(Criterion::Lamp), 100);
    }
}
