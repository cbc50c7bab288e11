//! A distribution in which weights count by how much they matter.
//!
//! # Source
//! Choi, El-Khamy, Lee, "Towards the limit of network quantization", ICLR 2017, arXiv:1612.01543, sections 3 and 4: k-means and
//! entropy-constrained quantisation weighted by the diagonal of the Hessian.

use rayon::prelude::*;

use super::distribution::Point;
use super::{Distribution, EXACT_LIMIT};

/// What a weight of average importance counts.
const AVERAGE: f64 = 256.0;

impl Distribution {
    /// The distribution of weights, each with its importance, by which it counts: positive and relative to the others'; at least a
    /// 256th of the average.
    pub fn weighted(mut pairs: Vec<(f32, f64)>) -> Self {
        let total = pairs.len();
        pairs.retain(|(weight, _)| *weight != 0.0);
        let zeros = (total - pairs.len()) as u64;
        let mean = pairs.iter().map(|(_, importance)| importance).sum::<f64>() / pairs.len().max(1) as f64;
        let factor = if mean > 0.0 { AVERAGE / mean } else { 0.0 };
        // Equals in the order of their importances, so that sums do not depend on how they were sorted.
        pairs.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let point = |pairs: &[(f32, f64)]| {
            let total: f64 = pairs.iter().map(|(_, importance)| importance).sum();
            let sum: f64 = pairs.iter().map(|(weight, importance)| f64::from(*weight) * importance).sum();
            let (low, high) = (pairs[0].0, pairs[pairs.len() - 1].0);
            let value = if total > 0.0 && low < high { sum / total } else { f64::from(low) };
            let population = pairs.len() as u64;
            Point { value, count: ((total * factor) as u64).max(1), population, low, high }
        };
        let distinct: Vec<&[(f32, f64)]> = pairs.chunk_by(|a, b| a.0.to_bits() == b.0.to_bits()).collect();
        if distinct.len() <= EXACT_LIMIT {
            return Self::from_points(distinct.into_iter().map(point).collect(), zeros, true);
        }
        let run = distinct.len().div_ceil(EXACT_LIMIT);
        // The values of a run lie side by side among the pairs.
        let mut rest = &pairs[..];
        let runs = distinct.chunks(run).map(|run| {
            let (own, behind) = rest.split_at(run.iter().map(|pairs| pairs.len()).sum());
            rest = behind;
            point(own)
        });
        Self::from_points(runs.collect(), zeros, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::quantize::testing::normal_weights;
    use crate::quantize::{Bits, Budget, Cws, Ecsq, Levels, Quantizer, Tolerance};
    use crate::tensor::{FloatType, LayerContext};

    fn weighted(weights: &[f32], importances: &[f64]) -> Distribution {
        Distribution::weighted(weights.iter().copied().zip(importances.iter().copied()).collect())
    }

    #[test]
    fn the_shared_value_is_the_mean_by_importance() {
        let weights = [1.0, 2.0, 0.0, 1.5];
        let distribution = weighted(&weights, &[3.0, 1.0, 9.0, 4.0]);
        assert_eq!((distribution.zeros(), distribution.is_exact()), (1, true));
        let quantizer = Quantizer::Cws(Cws { levels: Levels::new(1).unwrap() });
        let fitted = quantizer.fit(&distribution, FloatType::F64, &Silent).unwrap();
        let matrix = fitted.assign(&LayerContext::new("w", 1, 4, &weights), &Silent).unwrap();
        // (3 x 1 + 1 x 2 + 4 x 1.5) / 8.
        assert!((matrix.value(0) - 1.375).abs() < 1e-2, "{}", matrix.value(0));
        assert_eq!(matrix.value(2), 0.0);
    }

    #[test]
    fn entropy_is_that_of_the_weights_however_much_each_counts() {
        let weights = normal_weights(50_000, 3);
        // Every other weight matters a hundred times as much.
        let importance = |i: usize| if i.is_multiple_of(2) { 100.0 } else { 1.0 };
        let importances: Vec<f64> = (0..weights.len()).map(importance).collect();
        let ecsq = Ecsq { budget: Budget::Bits(Bits::new(1.5).unwrap()), tolerance: Tolerance::default() };
        let fitted = Quantizer::Ecsq(ecsq).fit(&weighted(&weights, &importances), FloatType::F32, &Silent).unwrap();
        let matrix = fitted.assign(&LayerContext::new("w", 1, weights.len(), &weights), &Silent).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        (0..weights.len()).for_each(|i| *counts.entry(matrix.value(i).to_bits()).or_insert(0.0) += 1.0);
        let shares = counts.values().map(|count: &f64| count / weights.len() as f64);
        let entropy: f64 = shares.map(|share| -share * share.log2()).sum();
        assert!(entropy < 1.52 && entropy > 1.35, "{entropy}");
    }

    #[test]
    fn entropy_is_spent_where_the_errors_count() {
        // Weights near 1 matter ten thousand times as much as those near -1.
        let noise = normal_weights(20_000, 4);
        let side = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        let weights: Vec<f32> = noise.iter().enumerate().map(|(i, noise)| side(i) + 5.0 * noise).collect();
        let importances: Vec<f64> = (0..weights.len()).map(|i| if side(i) > 0.0 { 1e4 } else { 1.0 }).collect();
        let ecsq = Ecsq { budget: Budget::Bits(Bits::new(2.0).unwrap()), tolerance: Tolerance::default() };
        let error = |distribution: Distribution| {
            let fitted = Quantizer::Ecsq(ecsq).fit(&distribution, FloatType::F32, &Silent).unwrap();
            let matrix = fitted.assign(&LayerContext::new("w", 1, weights.len(), &weights), &Silent).unwrap();
            let error = |i: usize| importances[i] * (f64::from(weights[i]) - matrix.value(i)).powi(2);
            (0..weights.len()).map(error).sum::<f64>()
        };
        let (weighted, plain) = (error(weighted(&weights, &importances)), error(Distribution::of(&weights)));
        assert!(weighted < 0.6 * plain, "{weighted} against {plain}");
    }

    #[test]
    fn more_values_than_are_kept_apart_are_joined() {
        let weights: Vec<f32> = (1..=200_000).map(|i| i as f32).collect();
        let distribution = weighted(&weights, &vec![1.0; weights.len()]);
        assert!(!distribution.is_exact() && distribution.points().len() <= EXACT_LIMIT);
        assert_eq!(distribution.survivors(), 200_000);
    }
}
