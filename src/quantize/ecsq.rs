//! ECSQ, entropy-constrained scalar quantisation: the values with the least squared error for the bits they cost.
//!
//! Minimises the sum over the weights of `(w - c)^2 - lambda * ln p`, where c is the weight's value and p the share of the
//! weights that take it: rare values have to earn their bits. Assignment and update alternate from cells of equal
//! population; values that nothing takes are dropped. Lambda is searched for the least that meets the budget.
//!
//! # Source
//! Chou, Lookabaugh, Gray, "Entropy-constrained vector quantization", IEEE Trans. ASSP 37, 1989; Choi, El-Khamy, Lee,
//! "Towards the limit of network quantization", arXiv:1612.01543, section 4.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::distribution::Point;
use super::moments::Moments;
use super::{Budget, Distribution, Fitted, Levels, QuantizeError};
use crate::progress::{Cancelled, Progress};
use crate::tensor::FloatType;

/// Initial cells for each value asked for.
const CELLS_PER_LEVEL: usize = 3;

/// Points of a histogram that the iteration sees, at least, and for each initial cell.
const MIN_POINTS: usize = 1 << 14;
const POINTS_PER_CELL: usize = 16;

/// Most rounds for one lambda, should the objective keep improving by more than the tolerance.
const MAX_ROUNDS: usize = 200;

/// Fewest levels for which the initial cells are made.
const MIN_LEVELS: usize = 4;

/// Factor by which lambda rises or falls until it is enclosed, the most such steps, and the bisections after them.
const STEP: f64 = 4.0;
const MAX_STEPS: usize = 40;
const BISECTIONS: usize = 12;

/// Entropy-constrained scalar quantisation: squared error plus the price of each value's code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ecsq {
    /// What limits the codebook.
    pub budget: Budget,
    /// It stops once a round improves the objective by no more than this fraction.
    pub tolerance: Tolerance,
}

/// The fraction by which a round must improve the objective to be followed by another; above 0, at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Tolerance(f64);

/// A tolerance outside its range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("tolerance must be above 0 and at most 1, found {found}")]
pub struct ToleranceError {
    /// What was asked for.
    pub found: f64,
}

impl Tolerance {
    /// Checks `fraction`.
    ///
    /// # Errors
    /// [`ToleranceError`] unless 0 < `fraction` <= 1.
    pub fn new(fraction: f64) -> Result<Self, ToleranceError> {
        if fraction > 0.0 && fraction <= 1.0 { Ok(Self(fraction)) } else { Err(ToleranceError { found: fraction }) }
    }

    /// The fraction.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self(1e-4)
    }
}

impl TryFrom<f64> for Tolerance {
    type Error = ToleranceError;

    fn try_from(fraction: f64) -> Result<Self, ToleranceError> {
        Self::new(fraction)
    }
}

impl From<Tolerance> for f64 {
    fn from(tolerance: Tolerance) -> Self {
        tolerance.0
    }
}

impl Ecsq {
    pub(super) fn fit(
        &self,
        distribution: &Distribution,
        dtype: FloatType,
        progress: &dyn Progress,
    ) -> Result<Fitted, QuantizeError> {
        let cells = CELLS_PER_LEVEL * self.levels().max(MIN_LEVELS);
        let points = distribution.coarsened(MIN_POINTS.max(POINTS_PER_CELL * cells));
        if points.is_empty() {
            return Fitted::partition(distribution, dtype, &[], &[]);
        }
        let iteration = Iteration { moments: Moments::new(&points), points: &points, tolerance: self.tolerance.get() };
        let clusters = self.search(&iteration, cells, progress)?;
        let (starts, centroids): (Vec<f64>, Vec<f64>) = clusters.iter().map(|c| (c.start, c.centroid)).unzip();
        Fitted::partition(distribution, dtype, &centroids, &starts[1..])
    }

    /// The number of values that meets the budget whatever their shares.
    fn levels(&self) -> usize {
        match self.budget {
            Budget::Levels(levels) => levels.get(),
            Budget::Bits(bits) => (libm::exp2(bits.get()) as usize).min(Levels::MAX),
        }
    }

    /// The clusters under the least lambda that meets the budget.
    fn search(&self, iteration: &Iteration, cells: usize, progress: &dyn Progress) -> Result<Vec<Cluster>, Cancelled> {
        let initial = iteration.equal_cells(cells);
        let run = |lambda: f64| iteration.run(initial.clone(), lambda, progress);
        let mut met = run(0.0)?;
        if self.is_met(iteration, &met) {
            return Ok(met);
        }
        let levels = self.levels() as f64;
        let (mut low, mut high) = (0.0, 2.0 * iteration.variance() / (levels * levels));
        let mut steps = 0..MAX_STEPS;
        while !self.is_met(iteration, &met) {
            if steps.next().is_none() {
                // Perfectly even distributions resist any price. So few cells meet the budget from the start.
                return iteration.run(iteration.equal_cells(self.levels()), 0.0, progress);
            }
            met = run(high)?;
            (low, high) = if self.is_met(iteration, &met) { (low, high) } else { (high, STEP * high) };
        }
        while low == 0.0 && steps.next().is_some() {
            let clusters = run(high / STEP)?;
            if self.is_met(iteration, &clusters) {
                (met, high) = (clusters, high / STEP);
            } else {
                low = high / STEP;
            }
        }
        for _ in 0..BISECTIONS {
            let middle = (low * high).sqrt();
            let clusters = run(middle)?;
            if self.is_met(iteration, &clusters) {
                (met, high) = (clusters, middle);
            } else {
                low = middle;
            }
        }
        Ok(met)
    }

    fn is_met(&self, iteration: &Iteration, clusters: &[Cluster]) -> bool {
        match self.budget {
            Budget::Levels(levels) => clusters.len() <= levels.get(),
            // Uneven shares leave room for more values in 16 bits than a codebook has.
            Budget::Bits(bits) => clusters.len() <= Levels::MAX && iteration.entropy_bits(clusters) <= bits.get(),
        }
    }
}

/// One value and the run of points that take it.
#[derive(Debug, Clone, PartialEq)]
struct Cluster {
    /// No weight below it takes the value.
    start: f64,
    points: Range<usize>,
    centroid: f64,
    /// Number of weights.
    population: f64,
}

/// The alternation between assignment and update, under a given lambda.
struct Iteration<'a> {
    moments: Moments,
    points: &'a [Point],
    tolerance: f64,
}

impl Iteration<'_> {
    /// Cuts the points into about `cells` runs with as many weights each.
    fn equal_cells(&self, cells: usize) -> Vec<Cluster> {
        let total = self.moments.count(0..self.points.len());
        let position = |i: usize| self.moments.position(total * i as f64 / cells as f64);
        let mut ends: Vec<usize> = (0..=cells).map(position).collect();
        ends.dedup();
        let run = |run: &[usize]| self.cluster(f64::from(self.points[run[0]].low), run[0]..run[1]);
        ends.windows(2).map(run).collect()
    }

    fn run(&self, mut clusters: Vec<Cluster>, lambda: f64, progress: &dyn Progress) -> Result<Vec<Cluster>, Cancelled> {
        let mut objective = f64::INFINITY;
        for _ in 0..MAX_ROUNDS {
            progress.check()?;
            clusters = self.reassign(&clusters, lambda);
            let next = self.objective(&clusters, lambda);
            if objective - next <= self.tolerance * next {
                break;
            }
            objective = next;
        }
        Ok(clusters)
    }

    /// Assigns every point to the cluster that costs it least, and updates the clusters; those left empty are dropped.
    ///
    /// A cluster's cost as a function of the weight is a parabola, all of one width, so each wins on one interval at most
    /// and the winners are the lower hull of a set of lines.
    fn reassign(&self, clusters: &[Cluster], lambda: f64) -> Vec<Cluster> {
        // Of a weight that matters as much as they do on average.
        let each = self.moments.count(0..self.points.len()) / self.total();
        let price = |cluster: &Cluster| -lambda / each * libm::log(cluster.population / self.total());
        let mut winners: Vec<(f64, &Cluster)> = Vec::with_capacity(clusters.len());
        for cluster in clusters {
            let mut start = f64::NEG_INFINITY;
            while let Some(&(last_start, last)) = winners.last() {
                let gap = cluster.centroid - last.centroid;
                start = (cluster.centroid + last.centroid) / 2.0 + (price(cluster) - price(last)) / (2.0 * gap);
                if start > last_start || start.is_nan() {
                    break;
                }
                winners.pop();
                start = f64::NEG_INFINITY;
            }
            if start < f64::INFINITY {
                winners.push((start, cluster));
            }
        }
        let position = |start: f64| self.points.partition_point(|point| point.value < start);
        let ends = winners.iter().skip(1).map(|&(start, _)| position(start)).chain([self.points.len()]);
        let mut from = 0;
        let runs = winners.iter().zip(ends).map(|(&(start, _), end)| (start, std::mem::replace(&mut from, end)..end));
        runs.filter(|(_, run)| !run.is_empty()).map(|(start, run)| self.cluster(start, run)).collect()
    }

    fn cluster(&self, start: f64, points: Range<usize>) -> Cluster {
        let (centroid, population) = (self.moments.mean(points.clone()), self.moments.population(points.clone()));
        Cluster { start, points, centroid, population }
    }

    fn objective(&self, clusters: &[Cluster], lambda: f64) -> f64 {
        let error: f64 = clusters.iter().map(|c| self.moments.squared_error(c.points.clone())).sum();
        error + lambda * std::f64::consts::LN_2 * self.total() * self.entropy_bits(clusters)
    }

    /// Entropy of the values, in bits a weight.
    fn entropy_bits(&self, clusters: &[Cluster]) -> f64 {
        let shares = clusters.iter().map(|cluster| cluster.population / self.total());
        shares.map(|share| -share * libm::log2(share)).sum()
    }

    /// Number of weights.
    fn total(&self) -> f64 {
        self.moments.population(0..self.points.len())
    }

    fn variance(&self) -> f64 {
        self.moments.squared_error(0..self.points.len()) / self.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::quantize::testing::{normal_weights, pruned};
    use crate::quantize::{Bits, Cws, Quantizer};
    use crate::tensor::{LayerContext, Matrix};

    fn share(quantizer: Quantizer, weights: &[f32]) -> Matrix {
        let fitted = quantizer.fit(&Distribution::of(weights), FloatType::F32, &Silent).unwrap();
        fitted.assign(&LayerContext::new("w", 1, weights.len(), weights), &Silent).unwrap()
    }

    /// Mean squared error and entropy in bits, over the non-zero weights.
    fn rate_and_distortion(weights: &[f32], matrix: &Matrix) -> (f64, f64) {
        let mut counts = std::collections::BTreeMap::new();
        let (mut error, mut total) = (0.0, 0.0);
        for (i, &weight) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            let value = matrix.value(i);
            *counts.entry(value.to_bits()).or_insert(0.0) += 1.0;
            error += (f64::from(weight) - value).powi(2);
            total += 1.0;
        }
        let entropy = counts.values().map(|&count: &f64| -count / total * (count / total).log2()).sum();
        (entropy, error / total)
    }

    fn ecsq(budget: Budget) -> Quantizer {
        Quantizer::Ecsq(Ecsq { budget, tolerance: Tolerance::default() })
    }

    #[test]
    fn the_entropy_asked_for_is_met_and_used() {
        let weights = normal_weights(100_000, 12);
        for bits in [0.7, 1.5, 3.0, 4.25] {
            let matrix = share(ecsq(Budget::Bits(Bits::new(bits).unwrap())), &weights);
            let (entropy, _) = rate_and_distortion(&weights, &matrix);
            assert!(entropy <= bits + 1e-3 && entropy > bits - 0.15, "{entropy} of {bits}");
        }
    }

    #[test]
    fn at_the_same_entropy_the_error_is_below_that_of_clustering() {
        let weights = normal_weights(100_000, 13);
        for levels in [8, 32] {
            let clustered = share(Quantizer::Cws(Cws { levels: Levels::new(levels).unwrap() }), &weights);
            let (bits, clustering_error) = rate_and_distortion(&weights, &clustered);
            let (_, error) =
                rate_and_distortion(&weights, &share(ecsq(Budget::Bits(Bits::new(bits).unwrap())), &weights));
            assert!(error < clustering_error, "{error} against {clustering_error} at {bits} bits");
        }
    }

    #[test]
    fn sixteen_bits_still_fit_a_codebook() {
        // More cells of the histogram than a codebook has values, half of them rare: their entropy is 15.9 bits.
        let values: Vec<f32> = (0..70_000).map(|i| f32::from_bits(1f32.to_bits() + i * 1024)).collect();
        let weights = [&values[..], &values[..35_000], &values[..35_000], &[0.0]].concat();
        let matrix = share(ecsq(Budget::Bits(Bits::new(16.0).unwrap())), &weights);
        let (entropy, _) = rate_and_distortion(&weights, &matrix);
        assert!((15.0..=16.0).contains(&entropy), "{entropy}");
        assert_eq!(matrix.value(weights.len() - 1).to_bits(), 0);
    }

    #[test]
    fn levels_are_kept_to() {
        let lattice: Vec<f32> = (1..=64).map(|i| i as f32).collect();
        for weights in [pruned(normal_weights(20_000, 14)), lattice, vec![-1.0, 1.0, 2.0]] {
            for levels in [1, 2, 15, 31] {
                let matrix = share(ecsq(Budget::Levels(Levels::new(levels).unwrap())), &weights);
                assert!(matrix.value(0).is_finite());
                let mut values: Vec<u64> =
                    (0..weights.len()).map(|i| matrix.value(i)).filter(|&v| v != 0.0).map(f64::to_bits).collect();
                values.sort_unstable();
                values.dedup();
                assert!((1..=levels as usize).contains(&values.len()), "{} of {levels}", values.len());
            }
        }
    }

    #[test]
    fn an_assignment_worked_by_hand() {
        // Two clusters at 0 and 1 with shares 3/4 and 1/4: the bound moves from 1/2 by lambda / 2 * ln 3.
        let points: Vec<Point> = [(0.0, 3), (0.6, 0), (1.0, 1)]
            .map(|(value, count)| Point { value, count, population: count, low: value as f32, high: value as f32 })
            .to_vec();
        let iteration = Iteration { moments: Moments::new(&points), points: &points, tolerance: 0.5 };
        let cluster = |points, centroid, population| Cluster { start: 0.0, points, centroid, population };
        let next = iteration.reassign(&[cluster(0..1, 0.0, 3.0), cluster(2..3, 1.0, 1.0)], 0.5);
        assert_eq!(next.len(), 2);
        assert!((next[1].start - (0.5 + 0.25 * 3f64.ln())).abs() < 1e-12, "{}", next[1].start);
        assert_eq!((next[0].points.clone(), next[1].points.clone()), (0..2, 2..3));
    }

    #[test]
    fn a_tolerance_outside_its_range_is_named() {
        assert_eq!(ToleranceError { found: 0.0 }.to_string(), "tolerance must be above 0 and at most 1, found 0");
        assert!(Tolerance::new(0.0).is_err() && Tolerance::new(f64::NAN).is_err() && Tolerance::new(1.5).is_err());
    }
}
