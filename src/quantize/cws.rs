//! CWS, clustering weight sharing: the values with the least squared error.
//!
//! # Source
//! Han, Mao, Dally, "Deep Compression", arXiv:1510.00149, section 3; the clustering is one-dimensional k-means, here at
//! its exact optimum, so there is no initialisation and no seed.

use super::kmeans::optimal_runs;
use super::moments::Moments;
use super::{Distribution, Fitted, Levels, QuantizeError};
use crate::progress::Progress;
use crate::tensor::FloatType;

/// Fewest points of a histogram that the clustering sees, and how many there are for each level beyond: an optimum over
/// such fine cells differs from that over the weights by far less than a cell's width.
const MIN_POINTS: usize = 1 << 14;
const POINTS_PER_LEVEL: usize = 16;

/// Clustering weight sharing: each weight takes the nearest of the `levels` values whose squared error is least.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cws {
    /// Most distinct non-zero values.
    pub levels: Levels,
}

impl Cws {
    pub(super) fn fit(
        &self,
        distribution: &Distribution,
        dtype: FloatType,
        progress: &dyn Progress,
    ) -> Result<Fitted, QuantizeError> {
        let levels = self.levels.get();
        let points = distribution.coarsened(MIN_POINTS.max(POINTS_PER_LEVEL * levels));
        let ends = optimal_runs(&points, levels, progress)?;
        let moments = Moments::new(&points);
        let centroids = ends.windows(2).map(|run| moments.mean(run[0]..run[1]));
        Fitted::nearest(distribution, dtype, centroids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::quantize::Quantizer;
    use crate::quantize::testing::normal_weights;
    use crate::tensor::LayerContext;

    /// The least mean squared error of `k` values for `weights`, by Lloyd's algorithm over the weights themselves. It
    /// converges to the optimum: the density of a normal distribution is log-concave.
    fn least_error(weights: &[f32], k: usize) -> f64 {
        let mut sorted: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let sums = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
            let running = sorted.iter().scan(0.0, |sum, &w| {
                *sum += f(w);
                Some(*sum)
            });
            std::iter::once(0.0).chain(running).collect()
        };
        let (ones, twos) = (sums(&|w| w), sums(&|w| w * w));
        let mut ends: Vec<usize> = (0..=k).map(|i| i * sorted.len() / k).collect();
        for _ in 0..2000 {
            let means: Vec<f64> = ends.windows(2).map(|e| (ones[e[1]] - ones[e[0]]) / (e[1] - e[0]) as f64).collect();
            for (end, pair) in ends[1..].iter_mut().zip(means.windows(2)) {
                *end = sorted.partition_point(|&w| w < (pair[0] + pair[1]) / 2.0);
            }
        }
        let error =
            |from: usize, to: usize| twos[to] - twos[from] - (ones[to] - ones[from]).powi(2) / (to - from) as f64;
        ends.windows(2).map(|e| error(e[0], e[1])).sum::<f64>() / sorted.len() as f64
    }

    #[test]
    fn one_outlier_takes_one_level_and_spoils_none_of_the_others() {
        let bulk = normal_weights(1_000_000, 21);
        for (levels, outlier) in [(31, 1000.0), (31, -1e6), (300, 50.0)] {
            let weights = [&bulk[..], &[outlier]].concat();
            let quantizer = Quantizer::Cws(Cws { levels: Levels::new(levels).unwrap() });
            let fitted = quantizer.fit(&Distribution::of(&weights), FloatType::F32, &Silent).unwrap();
            assert_eq!(fitted.codebook().len(), levels as usize);
            let matrix = fitted.assign(&LayerContext::new("w", 1, weights.len(), &weights), &Silent).unwrap();
            assert_eq!(matrix.value(bulk.len()), f64::from(outlier));
            let squares = bulk.iter().enumerate().map(|(i, &w)| (f64::from(w) - matrix.value(i)).powi(2));
            let (found, least) = (squares.sum::<f64>() / bulk.len() as f64, least_error(&bulk, levels as usize - 1));
            assert!(found <= 1.01 * least, "{found} against {least} for {levels} levels and {outlier}");
        }
    }
}
