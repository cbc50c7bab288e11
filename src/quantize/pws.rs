//! PWS, probabilistic weight sharing: each weight is rounded up or down at random, without bias.
//!
//! Knots are quantiles of the weights. A weight between two knots takes the upper one with the probability with which
//! the expected value is the weight itself. Random numbers come from the seed, the layer's name and the position in
//! the layer: each run of 65,536 cells has a stream of its own, from which its non-zero weights draw in turn. Threads change
//! nothing.
//!
//! # Source
//! Marinò et al., ICPR 2020, arXiv:2007.07967, section III-B.

use super::distribution::Point;
use super::{Distribution, Fitted, Levels, QuantizeError};
use crate::tensor::FloatType;

/// Probabilistic weight sharing: random rounding to the quantiles of the weights, unbiased.
///
/// A single level cannot be unbiased weight by weight; it is the mean of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pws {
    /// Most distinct non-zero values: the knots.
    pub levels: Levels,
    /// Seed of the random rounding.
    pub seed: u64,
}

impl Pws {
    pub(super) fn fit(&self, distribution: &Distribution, dtype: FloatType) -> Result<Fitted, QuantizeError> {
        Fitted::probabilistic(distribution, dtype, knots(distribution.points(), self.levels.get()), self.seed)
    }
}

/// The quantiles i / (k - 1) of ascending points, i from 0 to k - 1.
fn knots(points: &[Point], k: usize) -> Vec<f64> {
    let total: u64 = points.iter().map(|p| p.count).sum();
    if total == 0 {
        return Vec::new();
    }
    if k == 1 {
        return vec![points.iter().map(|p| p.value * p.count as f64).sum::<f64>() / total as f64];
    }
    let last = total - 1;
    let mut statistics = OrderStatistics { points, index: 0, before: 0 };
    let quantile = |i: usize| {
        // Whole and fraction of i * last / (k - 1), without rounding.
        let product = i as u128 * u128::from(last);
        let (rank, rest) = ((product / (k - 1) as u128) as u64, (product % (k - 1) as u128) as f64);
        let below = statistics.at(rank);
        // The next order statistic lies at most one point further; the search does not go back.
        let above = statistics.clone().at((rank + 1).min(last));
        below + (above - below) * (rest / (k - 1) as f64)
    };
    (0..k).map(quantile).collect()
}

/// Reads order statistics in ascending rank.
#[derive(Clone)]
struct OrderStatistics<'a> {
    points: &'a [Point],
    index: usize,
    /// Weights before the point at `index`.
    before: u64,
}

impl OrderStatistics<'_> {
    /// The weight of this rank. Weights inside a histogram cell are taken to be spread evenly over it.
    fn at(&mut self, rank: u64) -> f64 {
        while rank >= self.before + self.points[self.index].count {
            self.before += self.points[self.index].count;
            self.index += 1;
        }
        let point = &self.points[self.index];
        let (low, high) = (f64::from(point.low), f64::from(point.high));
        if point.count == 1 {
            point.value
        } else {
            low + (high - low) * ((rank - self.before) as f64 / (point.count - 1) as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::quantize::testing::{normal_weights, pruned};
    use crate::quantize::{Distribution, Quantizer};
    use crate::tensor::{LayerContext, Matrix};

    fn share(weights: &[f32], levels: i64, seed: u64, name: &str) -> Matrix {
        let quantizer = Quantizer::Pws(Pws { levels: Levels::new(levels).unwrap(), seed });
        let fitted = quantizer.fit(&Distribution::of(weights), FloatType::F32, &Silent).unwrap();
        fitted.assign(&LayerContext::new(name, 1, weights.len(), weights), &Silent).unwrap()
    }

    #[test]
    fn knots_are_interpolated_quantiles() {
        let distribution = Distribution::of(&[1.0, 2.0, 4.0, 8.0]);
        assert_eq!(knots(distribution.points(), 4), [1.0, 2.0, 4.0, 8.0]);
        assert_eq!(knots(distribution.points(), 3), [1.0, 3.0, 8.0]);
        let repeated = Distribution::of(&[1.0, 1.0, 1.0, 5.0]);
        assert_eq!(knots(repeated.points(), 3), [1.0, 1.0, 5.0]);
        assert_eq!(knots(repeated.points(), 1), [2.0]);
    }

    #[test]
    fn a_weight_takes_one_of_the_two_knots_around_it() {
        let weights = pruned(normal_weights(20_000, 6));
        let knots = knots(Distribution::of(&weights).points(), 16);
        let matrix = share(&weights, 16, 1, "w");
        for (i, &w) in weights.iter().enumerate() {
            let (w, q) = (f64::from(w), matrix.value(i));
            let above = knots.partition_point(|&v| f64::from(v as f32) <= w);
            let around = [above.saturating_sub(1), above.min(15)].map(|i| f64::from(knots[i] as f32));
            assert!(if w == 0.0 { q.to_bits() == 0 } else { around.contains(&q) }, "{w} became {q}");
        }
    }

    #[test]
    fn rounding_is_unbiased() {
        // One weight value between two knots, many times: the mean is binomial, so five standard deviations bound it.
        let mut weights = vec![0.3f32; 200_000];
        weights[..50_000].fill(-1.0);
        weights[150_000..].fill(1.0);
        let matrix = share(&weights, 2, 11, "w");
        let values: Vec<f64> = (50_000..150_000).map(|i| matrix.value(i)).collect();
        let (low, high) =
            (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(f64::MIN, f64::max));
        let w = f64::from(0.3f32);
        let deviation = ((w - low) * (high - w) / values.len() as f64).sqrt();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean - w).abs() <= 5.0 * deviation + 1e-9, "{mean} with deviation {deviation}");

        let weights = normal_weights(100_000, 7);
        let matrix = share(&weights, 5, 3, "w");
        let errors: Vec<f64> = weights.iter().enumerate().map(|(i, &w)| matrix.value(i) - f64::from(w)).collect();
        let (sum, squares) = errors.iter().fold((0.0, 0.0), |(s, q), e| (s + e, q + e * e));
        assert!(sum.abs() <= 5.0 * f64::sqrt(squares), "{sum} against {}", f64::sqrt(squares));
    }

    #[test]
    fn seed_and_layer_choose_the_random_numbers_and_threads_do_not() {
        let weights = normal_weights(300_000, 8);
        let on = |threads: usize, seed, name| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| share(&weights, 9, seed, name))
        };
        let base = on(1, 5, "fc1");
        assert_eq!(base, on(4, 5, "fc1"));
        assert_ne!(base, on(1, 6, "fc1"));
        assert_ne!(base, on(1, 5, "fc2"));
    }
}
