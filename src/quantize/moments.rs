//! Prefix sums over the points of a distribution: mean and squared error of any run of points in constant time.

use std::ops::Range;

use super::distribution::Point;

/// Sums over the points before each position. Values are taken from the overall mean, which keeps the difference of
/// two sums of squares from losing its digits.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    origin: f64,
    sums: Vec<Sums>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    population: f64,
    value: f64,
    square: f64,
}

impl Moments {
    pub(super) fn new(points: &[Point]) -> Self {
        let count: f64 = points.iter().map(|p| p.count as f64).sum();
        let total: f64 = points.iter().map(|p| p.value * p.count as f64).sum();
        let origin = if count > 0.0 { total / count } else { 0.0 };
        let mut running = Sums::default();
        let mut sums = Vec::with_capacity(points.len() + 1);
        sums.push(running);
        for point in points {
            let (count, value) = (point.count as f64, point.value - origin);
            running.count += count;
            running.population += point.population as f64;
            running.value += count * value;
            running.square += count * value * value;
            sums.push(running);
        }
        Self { origin, sums }
    }

    /// Number of points.
    pub(super) fn len(&self) -> usize {
        self.sums.len() - 1
    }

    /// Number of weights in the points of `run`.
    pub(super) fn population(&self, run: Range<usize>) -> f64 {
        self.sums[run.end].population - self.sums[run.start].population
    }

    /// The same, each weight counted by how much it matters.
    pub(super) fn count(&self, run: Range<usize>) -> f64 {
        self.sums[run.end].count - self.sums[run.start].count
    }

    /// The first position with at least `count` before it.
    pub(super) fn position(&self, count: f64) -> usize {
        self.sums.partition_point(|sums| sums.count < count).min(self.len())
    }

    /// Mean of the weights in `run`, which holds at least one point.
    pub(super) fn mean(&self, run: Range<usize>) -> f64 {
        let (from, to) = (self.sums[run.start], self.sums[run.end]);
        self.origin + (to.value - from.value) / (to.count - from.count)
    }

    /// Sum of the squared distances of the weights in `run` from their mean; it holds at least one point.
    #[inline]
    pub(super) fn squared_error(&self, run: Range<usize>) -> f64 {
        let (from, to) = (&self.sums[run.start], &self.sums[run.end]);
        let (count, value) = (to.count - from.count, to.value - from.value);
        (to.square - from.square - value * value / count).max(0.0)
    }
}
