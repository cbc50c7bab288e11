//! A distribution in which weights count by how much they matter.
//!
//! # Source
//! Choi, El-Khamy, Lee, "Towards the limit of network quantization", ICLR 2017, arXiv:1612.01543, section 3: k-means weighted by
//! the diagonal of the Hessian.

use super::distribution::Point;
use super::{Distribution, EXACT_LIMIT};

/// What a weight of average importance counts.
const AVERAGE: f64 = 256.0;

impl Distribution {
    /// The distribution of one layer in which each surviving weight counts by its `importance`, positive and relative to the
    /// others'; at least a 256th of the average.
    ///
    /// # Panics
    /// If there are not as many importances as weights.
    pub fn weighted(weights: &[f32], importances: &[f64]) -> Self {
        assert_eq!(weights.len(), importances.len());
        let mut pairs: Vec<(f32, f64)> =
            weights.iter().copied().zip(importances.iter().copied()).filter(|(weight, _)| *weight != 0.0).collect();
        let zeros = (weights.len() - pairs.len()) as u64;
        let mean = pairs.iter().map(|(_, importance)| importance).sum::<f64>() / pairs.len().max(1) as f64;
        let factor = if mean > 0.0 { AVERAGE / mean } else { 0.0 };
        // Equals in the order of their importances, so that sums do not depend on how they were sorted.
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let point = |pairs: &[(f32, f64)]| {
            let total: f64 = pairs.iter().map(|(_, importance)| importance).sum();
            let sum: f64 = pairs.iter().map(|(weight, importance)| f64::from(*weight) * importance).sum();
            let (low, high) = (pairs[0].0, pairs[pairs.len() - 1].0);
            let value = if total > 0.0 && low < high { sum / total } else { f64::from(low) };
            Point { value, count: ((total * factor) as u64).max(1), low, high }
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
    use crate::quantize::{Cws, Levels, Quantizer};
    use crate::tensor::{FloatType, LayerContext};

    #[test]
    fn the_shared_value_is_the_mean_by_importance() {
        let weights = [1.0, 2.0, 0.0, 1.5];
        let distribution = Distribution::weighted(&weights, &[3.0, 1.0, 9.0, 4.0]);
        assert_eq!((distribution.zeros(), distribution.is_exact()), (1, true));
        let quantizer = Quantizer::Cws(Cws { levels: Levels::new(1).unwrap() });
        let fitted = quantizer.fit(&distribution, FloatType::F64, &Silent).unwrap();
        let matrix = fitted.assign(&LayerContext::new("w", 1, 4, &weights), &Silent).unwrap();
        // (3 x 1 + 1 x 2 + 4 x 1.5) / 8.
        assert!((matrix.value(0) - 1.375).abs() < 1e-2, "{}", matrix.value(0));
        assert_eq!(matrix.value(2), 0.0);
    }

    #[test]
    fn more_values_than_are_kept_apart_are_joined() {
        let weights: Vec<f32> = (1..=200_000).map(|i| i as f32).collect();
        let distribution = Distribution::weighted(&weights, &vec![1.0; weights.len()]);
        assert!(!distribution.is_exact() && distribution.points().len() <= EXACT_LIMIT);
        assert_eq!(distribution.survivors(), 256 * 200_000);
    }
}
