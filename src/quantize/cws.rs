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
