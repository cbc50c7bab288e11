//! The distribution of surviving weights: what every quantiser is fitted on.
//!
//! Up to [`EXACT_LIMIT`] distinct values are kept as they are. Beyond it, values fall into the cells of a fine
//! histogram: a cell is the values that share sign, exponent and the leading 13 bits of the mantissa (a relative width of
//! 2^-13), and it keeps their number and the exact sum of their remaining bits, so their mean is exact too. All sums
//! are of integers: neither the order of the weights nor the number of threads changes a bit.

use rayon::prelude::*;

use super::cells::Cells;
use super::distinct::Distinct;
use super::keys::{key_of, value_of};
use crate::tensor::{CodebookError, MAX_LEVELS};

/// Most distinct values that are kept exactly: as many as a codebook can hold.
pub const EXACT_LIMIT: usize = MAX_LEVELS;

/// Weights observed at once: their keys stay in the first-level cache.
const CHUNK: usize = 4096;

/// Fewest weights for which another thread is worth its own histogram.
const WEIGHTS_PER_TASK: usize = 1 << 19;

/// The surviving (non-zero) weights of one layer or several: ascending values with counts, and the number of zeros.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    points: Vec<Point>,
    zeros: u64,
    exact: bool,
}

/// One distinct value, or the values of one histogram cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Mean of the values.
    pub(super) value: f64,
    /// Number of weights, each counted by how much it matters.
    pub(super) count: u64,
    /// Number of weights.
    pub(super) population: u64,
    /// No value lies below.
    pub(super) low: f32,
    /// No value lies above.
    pub(super) high: f32,
}

impl Distribution {
    /// The distribution of one layer.
    pub fn of(weights: &[f32]) -> Self {
        let mut builder = DistributionBuilder::default();
        builder.observe(weights);
        builder.finish()
    }

    /// Ascending points of which no two overlap.
    pub(super) fn from_points(points: Vec<Point>, zeros: u64, exact: bool) -> Self {
        Self { points, zeros, exact }
    }

    /// Number of zero weights, of either sign.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Number of surviving weights.
    pub fn survivors(&self) -> u64 {
        self.points.iter().map(|point| point.population).sum()
    }

    /// Whether the values are exact; a fine histogram otherwise.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Fails when a weight was NaN or infinite: in the order of keys such values come first or last.
    pub(super) fn check_finite(&self) -> Result<(), CodebookError> {
        let ends = [self.points.first().map(|p| p.low), self.points.last().map(|p| p.high)];
        match ends.iter().flatten().position(|value| !value.is_finite()) {
            Some(end) => Err(CodebookError::NonFinite { index: end * (self.points.len() - 1) }),
            None => Ok(()),
        }
    }

    /// The values in ascending order; no two points overlap.
    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    /// The points, with neighbours merged until there are at most `most` of them. Exact distributions stay exact.
    ///
    /// Runs are as long as a bound on their squared error allows, the same for all of them: where weights are dense or
    /// lie close together many merge, while a lone value far away keeps to itself and widens nobody else's run.
    pub(super) fn coarsened(&self, most: usize) -> Vec<Point> {
        if self.exact || self.points.len() <= most {
            return self.points.clone();
        }
        let runs = |exponent: i32| Runs { rest: &self.points, most_error: libm::exp2(f64::from(exponent)) };
        let (mut too_low, mut enough) = ERROR_EXPONENTS;
        while enough - too_low > 1 {
            let middle = (too_low + enough) / 2;
            if runs(middle).count() > most {
                too_low = middle;
            } else {
                enough = middle;
            }
        }
        runs(enough).map(merged).collect()
    }
}

/// Exponents of two below and above every squared error of f32 weights that is not 0: the square of the smallest
/// spacing is 2^-298, that of the range of f32 below 2^258, and there are fewer than 2^40 weights.
const ERROR_EXPONENTS: (i32, i32) = (-299, 300);

/// Cuts ascending points into the fewest runs of which none, or a single point, can have a squared error above a bound.
struct Runs<'a> {
    rest: &'a [Point],
    most_error: f64,
}

impl<'a> Iterator for Runs<'a> {
    type Item = &'a [Point];

    fn next(&mut self) -> Option<&'a [Point]> {
        let first = self.rest.first()?;
        let mut count = 0.0;
        let fits = |point: &&Point| {
            count += point.count as f64;
            let width = f64::from(point.high) - f64::from(first.low);
            count * width * width <= self.most_error
        };
        let (run, rest) = self.rest.split_at(self.rest.iter().take_while(fits).count().max(1));
        self.rest = rest;
        Some(run)
    }
}

fn merged(points: &[Point]) -> Point {
    let count = points.iter().map(|p| p.count).sum();
    let population = points.iter().map(|p| p.population).sum();
    let sum: f64 = points.iter().map(|p| p.value * p.count as f64).sum();
    Point { value: sum / count as f64, count, population, low: points[0].low, high: points[points.len() - 1].high }
}

/// Gathers a [`Distribution`] from one layer or from many: in any order, in memory that the number of weights does not
/// raise beyond a few MiB.
#[derive(Debug, Clone)]
pub struct DistributionBuilder {
    values: Values,
    zeros: u64,
    lowest: u32,
    highest: u32,
}

#[derive(Debug, Clone)]
enum Values {
    Exact(Distinct<u32>),
    Cells(Cells),
}

impl Default for DistributionBuilder {
    fn default() -> Self {
        Self { values: Values::Exact(Distinct::new(EXACT_LIMIT)), zeros: 0, lowest: u32::MAX, highest: 0 }
    }
}

impl DistributionBuilder {
    /// Adds the weights of a layer, pruned ones as zeros.
    pub fn observe(&mut self, weights: &[f32]) {
        let (head, tail) = weights.split_at(weights.len().min(WEIGHTS_PER_TASK));
        self.observe_part(head);
        if tail.is_empty() {
            return;
        }
        // Once there are too many values here, other threads need not find out for themselves.
        let values = match self.values {
            Values::Exact(_) => Values::Exact(Distinct::new(EXACT_LIMIT)),
            Values::Cells(_) => Values::Cells(Cells::default()),
        };
        let empty = || Self { values: values.clone(), ..Self::default() };
        let parts = tail.par_chunks(WEIGHTS_PER_TASK).fold(empty, |mut builder, part| {
            builder.observe_part(part);
            builder
        });
        if let Some(seen) = parts.reduce_with(Self::merge) {
            *self = std::mem::take(self).merge(seen);
        }
    }

    /// Everything observed.
    pub fn finish(self) -> Distribution {
        let (lowest, highest, zeros) = (value_of(self.lowest), value_of(self.highest), self.zeros);
        let exact = |(key, count)| {
            let value = value_of(key);
            Point { value: f64::from(value), count, population: count, low: value, high: value }
        };
        let (mut points, is_exact): (Vec<Point>, bool) = match self.values {
            Values::Exact(mut distinct) => match distinct.settle() {
                true => (distinct.into_counts().map(exact).collect(), true),
                false => (Cells::from(distinct).points(), false),
            },
            Values::Cells(cells) => (cells.points(), false),
        };
        if let (Some(first), false) = (points.first_mut(), is_exact) {
            first.low = lowest;
        }
        if let (Some(last), false) = (points.last_mut(), is_exact) {
            last.high = highest;
        }
        Distribution { points, zeros, exact: is_exact }
    }

    fn observe_part(&mut self, weights: &[f32]) {
        let mut keys = [0; CHUNK];
        for chunk in weights.chunks(CHUNK) {
            let mut survivors = 0;
            for &weight in chunk {
                // Written always, kept only where the weight is not zero: no branch that pruning makes unpredictable.
                keys[survivors] = key_of(weight);
                survivors += usize::from(weight != 0.0);
            }
            self.zeros += (chunk.len() - survivors) as u64;
            for &key in &keys[..survivors] {
                self.lowest = self.lowest.min(key);
                self.highest = self.highest.max(key);
            }
            self.add(&keys[..survivors]);
        }
    }

    fn add(&mut self, keys: &[u32]) {
        match &mut self.values {
            Values::Exact(distinct) => {
                if !distinct.extend(keys) {
                    let full = std::mem::replace(distinct, Distinct::new(0));
                    self.values = Values::Cells(full.into());
                }
            }
            Values::Cells(cells) => keys.iter().for_each(|&key| cells.add(key, 1)),
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.values = match (self.values, other.values) {
            (Values::Exact(mut a), Values::Exact(b)) => match a.merge(b) {
                true => Values::Exact(a),
                false => Values::Cells(a.into()),
            },
            (Values::Cells(mut cells), Values::Exact(distinct))
            | (Values::Exact(distinct), Values::Cells(mut cells)) => {
                distinct.into_counts().for_each(|(key, count)| cells.add(key, count));
                Values::Cells(cells)
            }
            (Values::Cells(mut a), Values::Cells(b)) => {
                a.merge(&b);
                Values::Cells(a)
            }
        };
        self.zeros += other.zeros;
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::testing::normal_weights;

    #[test]
    fn few_values_are_counted_exactly() {
        let distribution = Distribution::of(&[0.5, -1.0, 0.0, 0.5, -0.0, 2.0]);
        let counts: Vec<(f64, u64)> = distribution.points().iter().map(|p| (p.value, p.count)).collect();
        assert_eq!(counts, [(-1.0, 1), (0.5, 2), (2.0, 1)]);
        assert_eq!((distribution.zeros(), distribution.survivors(), distribution.is_exact()), (2, 4, true));
    }

    #[test]
    fn a_histogram_keeps_count_mean_and_bounds() {
        let weights = normal_weights(300_000, 1);
        let distribution = Distribution::of(&weights);
        assert!(!distribution.is_exact());
        assert_eq!(distribution.survivors() + distribution.zeros(), 300_000);
        let mean: f64 = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / 300_000.0;
        let by_cells: f64 = distribution.points().iter().map(|p| p.value * p.count as f64).sum::<f64>() / 300_000.0;
        assert!((mean - by_cells).abs() < 1e-12, "{mean} {by_cells}");
        let points = distribution.points();
        assert!(points.iter().all(|p| f64::from(p.low) <= p.value && p.value <= f64::from(p.high)));
        assert!(points.windows(2).all(|p| p[0].high < p[1].low));
        assert!(points.iter().all(|p| p.high - p.low <= p.high.abs().max(p.low.abs()) / 8192.0));
        assert_eq!(points[0].low, weights.iter().copied().fold(f32::MAX, f32::min));
        assert_eq!(points[points.len() - 1].high, weights.iter().copied().fold(f32::MIN, f32::max));
    }

    #[test]
    fn neither_threads_nor_order_change_a_bit() {
        let weights = normal_weights(2_500_000, 2);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Distribution::of(&weights))
        };
        let alone = on(1);
        assert_eq!(alone, on(4));
        let mut backwards = DistributionBuilder::default();
        weights.rchunks(77_777).for_each(|part| backwards.observe(part));
        assert_eq!(alone, backwards.finish());
    }

    #[test]
    fn the_limit_between_exact_and_histogram_does_not_depend_on_how_layers_arrive() {
        let weights: Vec<f32> = (1..=EXACT_LIMIT as u32 + 1).map(|i| i as f32).collect();
        assert!(Distribution::of(&weights[1..]).is_exact());
        let mut builder = DistributionBuilder::default();
        weights.chunks(1000).for_each(|part| builder.observe(part));
        assert!(!builder.finish().is_exact());
        assert!(!Distribution::of(&weights).is_exact());
    }

    #[test]
    fn coarsening_keeps_count_and_mean() {
        let distribution = Distribution::of(&normal_weights(200_000, 3));
        let coarse = distribution.coarsened(1000);
        assert!((700..=1000).contains(&coarse.len()), "{}", coarse.len());
        assert_eq!(coarse.iter().map(|p| p.count).sum::<u64>(), distribution.survivors());
        assert!(coarse.windows(2).all(|p| p[0].high < p[1].low));
        let mean = |points: &[Point]| points.iter().map(|p| p.value * p.count as f64).sum::<f64>();
        assert!((mean(&coarse) - mean(distribution.points())).abs() < 1e-6);
    }

    #[test]
    fn an_outlier_costs_the_other_weights_no_resolution() {
        let bulk = normal_weights(200_000, 3);
        let alone = Distribution::of(&bulk).coarsened(1000).len();
        for outlier in [1000.0, -1000.0, f32::MAX] {
            let coarse = Distribution::of(&[&bulk[..], &[outlier]].concat()).coarsened(1000);
            let own: Vec<u64> = coarse.iter().filter(|p| p.value == f64::from(outlier)).map(|p| p.count).collect();
            assert_eq!(own, [1], "it is a point of its own");
            assert!((alone..=alone + 1).contains(&coarse.len()), "{} of {alone}", coarse.len());
        }
    }
}
