//! One sparsity for the whole network, shared out among its layers.
//!
//! Minimises the sum over the layers of the errors of their outputs, each relative to the outputs' energy, for a given number
//! of survivors in all: a price for each survivor is bisected, at which every layer takes the sparsity that suits it best.
//!
//! # Source
//! Shoham, Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans. ASSP 36, 1988.

use super::Curve;

/// Sparsities that a layer can take: this many steps up to the highest.
const STEPS: usize = 400;

/// The highest sparsity of a layer: that of the last point of a curve.
const HIGHEST: f64 = 0.995;

/// Bisections of the price.
const BISECTIONS: usize = 100;

/// Gives each layer, of a curve and a number of weights, a number of survivors. In all, `sparsity` of the weights go: exactly,
/// unless that is more than the highest sparsity of every layer.
pub fn share_out(layers: &[(&Curve, usize)], sparsity: f64) -> Vec<usize> {
    let total: usize = layers.iter().map(|(_, weights)| weights).sum();
    let wanted = crate::prune::survivors(total, sparsity);
    let errors: Vec<Vec<f64>> =
        layers.iter().map(|(curve, _)| (0..=STEPS).map(|step| error_at(curve, step)).collect()).collect();
    let choose = |price: f64| -> Vec<usize> {
        let layers = layers.iter().zip(&errors);
        layers
            .map(|((_, weights), errors)| crate::prune::survivors(*weights, best(errors, price * *weights as f64)))
            .collect()
    };
    // At the highest price everything goes, at the lowest nothing does.
    let (mut low, mut high) = (-60.0f64, 20.0f64);
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        let kept: usize = choose(libm::exp(middle)).iter().sum();
        if kept > wanted { low = middle } else { high = middle }
    }
    // The cheaper price keeps too many, the dearer one too few: layers go over from one to the other, then one in part.
    let (mut chosen, more) = (choose(libm::exp(high)), choose(libm::exp(low)));
    let mut missing = wanted.saturating_sub(chosen.iter().sum());
    for (chosen, more) in chosen.iter_mut().zip(more) {
        let step = more.saturating_sub(*chosen).min(missing);
        *chosen += step;
        missing -= step;
    }
    chosen
}

fn error_at(curve: &Curve, step: usize) -> f64 {
    if step == 0 { 0.0 } else { curve.at(sparsity_of(step)) }
}

fn sparsity_of(step: usize) -> f64 {
    step as f64 / STEPS as f64 * HIGHEST
}

/// The sparsity with the least sum of error and price of the survivors.
fn best(errors: &[f64], price: f64) -> f64 {
    let cost = |step: usize| errors[step] + price * (1.0 - sparsity_of(step));
    let best = (0..errors.len()).min_by(|&a, &b| cost(a).total_cmp(&cost(b)));
    best.map_or(0.0, sparsity_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::CURVE;

    fn curve(steepness: f64) -> Curve {
        Curve::new(
            CURVE.iter().map(|sparsity| (steepness * sparsity * sparsity / (1.001 - sparsity)).min(1.0)).collect(),
        )
    }

    #[test]
    fn the_sum_is_exact_and_layers_that_lose_more_keep_more() {
        let (robust, fragile) = (curve(1e-4), curve(1e-2));
        for sparsity in [0.0, 0.1, 0.5, 0.9, 0.97] {
            let kept = share_out(&[(&robust, 10_000), (&fragile, 3_000)], sparsity);
            assert_eq!(kept.iter().sum::<usize>(), crate::prune::survivors(13_000, sparsity), "{sparsity}");
            assert!(kept[1] as f64 / 3_000.0 >= kept[0] as f64 / 10_000.0 - 0.01, "{kept:?} at {sparsity}");
        }
    }

    #[test]
    fn no_layer_and_one_layer_are_fine() {
        assert!(share_out(&[], 0.5).is_empty());
        assert_eq!(share_out(&[(&curve(1.0), 1000)], 0.9), [100]);
    }
}
