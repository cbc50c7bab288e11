//! What a layer's outputs lose for the bits that it takes, at many sparsities and steps of a uniform grid; and the choice of one
//! setting for each layer of a network.
//!
//! # Source
//! Sullivan, Wiegand, "Rate-distortion optimization for video compression", IEEE Signal Processing Magazine 15, 1998; Gish,
//! Pierce, "Asymptotically efficient quantizing", IEEE Trans. IT 14, 1968, for uniform grids with entropy coding.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CalibrateError, Problem};
use crate::progress::Progress;

/// Steps of the grid, relative to the root mean square of the weights: powers of the fourth root of two.
const STEPS: std::ops::RangeInclusive<i32> = -24..=8;

/// Most multiples of a step on either side of zero.
const MOST_MULTIPLES: f64 = 32_000.0;

/// Bisections of the price of a bit.
const BISECTIONS: usize = 100;

/// A setting of one layer, and what it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct RatePoint {
    /// Fraction of the weights that pruning removes; rounding to zero comes on top.
    pub sparsity: f64,
    /// Step of the uniform grid, in weight units.
    pub step: f64,
    /// Entropy of the places of the zeros and of the values, in bits for the whole layer.
    pub bits: f64,
    /// Estimated squared change of the outputs, as a fraction of their energy.
    pub output_error: f64,
}

impl Problem {
    /// Every setting of the layer, with its bits and its error. The errors of rounding are taken as independent.
    ///
    /// # Errors
    /// A [`CalibrateError`].
    pub fn rate_points(&self, progress: &dyn Progress) -> Result<Vec<RatePoint>, CalibrateError> {
        let weights = self.unscaled(&self.target);
        let square = weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>();
        let deviation = (square / weights.len().max(1) as f64).sqrt();
        let steps: Vec<f64> = STEPS.map(|step| deviation * libm::exp2(f64::from(step) / 4.0)).collect();
        let mut points = self.rounded(&self.target, 0.0, 0.0, &steps);
        self.follow(progress, |sparsity, state| {
            let survivors = state.survivors();
            points.extend(self.rounded(&survivors, sparsity, state.error(self), &steps));
        })?;
        Ok(points)
    }

    /// The points of given survivors at each step.
    fn rounded(&self, survivors: &[f32], sparsity: f64, error: f64, steps: &[f64]) -> Vec<RatePoint> {
        let weights = self.unscaled(survivors);
        let largest = weights.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
        let fits = |step: &&f64| **step > 0.0 && f64::from(largest) / **step < MOST_MULTIPLES;
        let steps: Vec<f64> = steps.iter().filter(fits).copied().collect();
        let point = |&step: &f64| {
            let middle = (f64::from(largest) / step) as usize + 1;
            let mut counts = vec![0u64; 2 * middle + 1];
            let mut lost = 0.0;
            for group in &self.groups {
                for (cell, weight) in group.cells(self.cols).zip(&weights[group.cells(self.cols)]) {
                    let multiple = (f64::from(*weight) / step).round_ties_even();
                    counts[(multiple as i64 + middle as i64) as usize] += 1;
                    let missed = (f64::from(*weight) - multiple * step) * group.scale[cell % self.cols];
                    lost += missed * missed;
                }
            }
            let lost = if self.energy > 0.0 { lost / self.energy } else { 0.0 };
            RatePoint { sparsity, step, bits: entropy_bits(&counts), output_error: error + lost }
        };
        steps.par_iter().map(point).collect()
    }

    /// Weights as the layer has them.
    fn unscaled(&self, scaled: &[f32]) -> Vec<f32> {
        let mut weights = scaled.to_vec();
        for group in &self.groups {
            group.scale_rows(&mut weights[group.cells(self.cols)], self.cols, |weight, scale| weight / scale);
        }
        weights
    }
}

/// Bits of as many symbols as `counts` says, by their own entropy.
fn entropy_bits(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    let bits = |&count: &u64| count as f64 * libm::log2(total / count as f64);
    counts.iter().filter(|&&count| count > 0).map(bits).sum()
}

/// For each layer the setting at which the sum of all errors is least, at one price of a bit for all layers: the lowest price at
/// which all layers together take at most `bits`; the fewest bits where no price is enough. `None` for a layer without settings.
pub fn choose_rates(layers: &[&[RatePoint]], bits: f64) -> Vec<Option<RatePoint>> {
    let choose = |price: f64| -> Vec<Option<RatePoint>> {
        let cost = |point: &RatePoint| point.output_error + price * point.bits;
        let best = |points: &&[RatePoint]| points.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).copied();
        layers.iter().map(best).collect()
    };
    let (mut low, mut high) = (-80.0f64, 40.0f64);
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        let taken = bits_of(&choose(libm::exp(middle)));
        if taken > bits { low = middle } else { high = middle }
    }
    // The cheaper price takes too many bits: layers go over to what they would have at it as long as there is room.
    let (mut chosen, dearer) = (choose(libm::exp(high)), choose(libm::exp(low)));
    let mut left = bits - bits_of(&chosen);
    for (chosen, other) in chosen.iter_mut().flatten().zip(dearer.into_iter().flatten()) {
        if other.bits - chosen.bits <= left && other.output_error < chosen.output_error {
            left -= other.bits - chosen.bits;
            *chosen = other;
        }
    }
    chosen
}

/// Bits of all layers.
pub fn bits_of(chosen: &[Option<RatePoint>]) -> f64 {
    chosen.iter().flatten().map(|point| point.bits).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_match_a_table_worked_by_hand() {
        assert_eq!(entropy_bits(&[2, 1, 1, 0]), 6.0);
        assert_eq!(entropy_bits(&[0, 8, 0]), 0.0);
    }

    #[test]
    fn the_layer_that_loses_less_gives_up_its_bits() {
        let points = |factor: f64| -> Vec<RatePoint> {
            let point = |bits: f64| RatePoint { sparsity: 0.0, step: 1.0, bits, output_error: factor / bits };
            (1..=10).map(|i| point(f64::from(i) * 100.0)).collect()
        };
        let (robust, fragile) = (points(1.0), points(16.0));
        // A layer of zeros has no settings.
        let chosen = choose_rates(&[&robust, &[], &fragile], 1000.0);
        let bits: Vec<_> = chosen.iter().map(|point| point.map(|point| point.bits)).collect();
        assert_eq!(bits, [Some(200.0), None, Some(800.0)]);
        assert_eq!(bits_of(&choose_rates(&[&robust, &fragile], 0.0)), 200.0);
    }
}
