//! The exact optimum of one-dimensional k-means, for any number of clusters in O(n) memory.
//!
//! Clusters of sorted points are runs, so the best k clusters are the cheapest path with k edges from the first point to
//! past the last. The cost of a run satisfies the quadrangle inequality, hence the cost of the best path is convex
//! in k, and there is a price per edge at which the cheapest path, of any length, has k edges. A path under a price
//! takes O(n log n); the price is searched. Where points are so regular that a price is shared by paths of different
//! lengths, none perhaps with k edges, two of them are spliced into one of k edges at the same cost.
//!
//! # Source
//! Aggarwal, Schieber, Tokuyama, "Finding a minimum-weight k-link path in graphs with the concave Monge property and
//! applications", Discrete & Computational Geometry 12, 1994; Grønlund et al., "Fast exact k-means, k-medians and Bregman
//! divergence clustering in 1D", arXiv:1701.07204, section 2.4.

use super::distribution::Point;
use super::moments::Moments;
use crate::progress::{Cancelled, Progress};

/// Rounds in which the price follows the law that holds for smooth distributions; after them it follows the chord
/// between the two paths that enclose k, which is slower at first but certain to end.
const SMOOTH_ROUNDS: usize = 12;

/// Splits ascending `points` into at most `clusters` runs of least total squared error. Returns where runs end: 0
/// first, then ascending, the number of points last.
///
/// # Errors
/// [`Cancelled`], asked before every path.
pub(super) fn optimal_runs(
    points: &[Point],
    clusters: usize,
    progress: &dyn Progress,
) -> Result<Vec<usize>, Cancelled> {
    let n = points.len();
    if n <= clusters {
        return Ok((0..=n).collect());
    }
    let moments = Moments::new(points);
    let mut finder = PathFinder::new(&moments);
    let (mut few, mut many) = (Path::new(vec![0, n], &moments), Path::new((0..=n).collect(), &moments));
    if clusters == 1 {
        return Ok(few.ends);
    }
    // Prices at which `many` and `few` were found. Squared error falls as 1 / k^2, its slope as 1 / k^3.
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut price = 4.0 * few.cost / cube(clusters as f64);
    for round in 0.. {
        progress.check()?;
        let chord = round >= SMOOTH_ROUNDS;
        if chord {
            price = (few.cost - many.cost) / (many.edges() - few.edges()) as f64;
        }
        let path = finder.cheapest(price);
        let edges = path.edges();
        if edges == clusters {
            return Ok(path.ends);
        }
        if chord && !(few.edges() < edges && edges < many.edges()) {
            break;
        }
        if edges < clusters {
            (few, high) = (path, price);
        } else {
            (many, low) = (path, price);
        }
        price *= cube(edges as f64 / clusters as f64);
        if (price <= low || price >= high) && low > 0.0 && high.is_finite() {
            price = (low * high).sqrt();
        }
    }
    Ok(splice(&few, &many, clusters))
}

/// A path over the points: the ends of its runs, and their total squared error.
struct Path {
    ends: Vec<usize>,
    cost: f64,
}

impl Path {
    fn new(ends: Vec<usize>, moments: &Moments) -> Self {
        let cost = ends.windows(2).map(|run| moments.squared_error(run[0]..run[1])).sum();
        Self { ends, cost }
    }

    fn edges(&self) -> usize {
        self.ends.len() - 1
    }
}

/// Joins the start of `few` to the end of `many`, two cheapest paths under one price, into one of `edges` edges, by an
/// edge of `few` that contains an edge of `many`. By the quadrangle inequality nothing is lost.
fn splice(few: &Path, many: &Path, edges: usize) -> Vec<usize> {
    let shift = many.edges() - edges;
    // At the start `many` is ahead by `shift` edges, at the end it is behind: in between an edge contains the other.
    let crossing = (0..few.edges()).find(|&i| many.ends[i + shift + 1] <= few.ends[i + 1]).unwrap_or(0);
    few.ends[..=crossing].iter().chain(&many.ends[crossing + shift + 1..]).copied().collect()
}

/// Finds the cheapest path of any length when every edge has a price.
struct PathFinder<'a> {
    moments: &'a Moments,
    /// Cost of the cheapest path to each position, prices included.
    best: Vec<f64>,
    /// Where its last edge starts.
    from: Vec<u32>,
    /// Starts of last edges that will be best for some position to come, in the order in which they will.
    queue: Vec<Start>,
}

/// A start of last edges: best for the positions from `since` up to the next in the queue.
#[derive(Clone, Copy)]
struct Start {
    position: u32,
    since: u32,
}

impl<'a> PathFinder<'a> {
    fn new(moments: &'a Moments) -> Self {
        let n = moments.len();
        Self { moments, best: vec![0.0; n + 1], from: vec![0; n + 1], queue: Vec::with_capacity(n) }
    }

    fn cheapest(&mut self, price: f64) -> Path {
        let n = self.moments.len();
        self.queue.clear();
        self.queue.push(Start { position: 0, since: 1 });
        let mut head = 0;
        for end in 1..=n {
            while self.queue.get(head + 1).is_some_and(|next| next.since as usize <= end) {
                head += 1;
            }
            let start = self.queue[head].position as usize;
            self.best[end] = self.cost(start, end) + price;
            self.from[end] = start as u32;
            if end < n {
                self.enqueue(end, head);
            }
        }
        let mut ends = vec![n];
        while let Some(&end @ 1..) = ends.last() {
            ends.push(self.from[end] as usize);
        }
        ends.reverse();
        Path::new(ends, self.moments)
    }

    /// Cost of the cheapest path to `start` and the edge from there to `end`, without its price.
    #[inline]
    fn cost(&self, start: usize, end: usize) -> f64 {
        self.best[start] + self.moments.squared_error(start..end)
    }

    /// Enters `position` as a start. Once it is better than an earlier start it stays better.
    fn enqueue(&mut self, position: usize, head: usize) {
        while self.queue.len() > head {
            let last = self.queue[self.queue.len() - 1];
            let since = (last.since as usize).max(position + 1);
            if self.cost(position, since) >= self.cost(last.position as usize, since) {
                if let Some(since) = self.overtakes(position, last.position as usize, since) {
                    self.queue.push(Start { position: position as u32, since: since as u32 });
                }
                return;
            }
            self.queue.pop();
        }
        self.queue.push(Start { position: position as u32, since: position as u32 + 1 });
    }

    /// The first position after `behind` for which the start `later` is better than `earlier`; at `behind` it is not.
    fn overtakes(&self, later: usize, earlier: usize, mut behind: usize) -> Option<usize> {
        let n = self.moments.len();
        let better = |end| self.cost(later, end) < self.cost(earlier, end);
        let mut step = 1;
        let mut ahead = loop {
            let probe = (behind + step).min(n);
            if better(probe) {
                break probe;
            }
            if probe == n {
                return None;
            }
            behind = probe;
            step *= 2;
        };
        while behind + 1 < ahead {
            let middle = behind + (ahead - behind) / 2;
            if better(middle) { ahead = middle } else { behind = middle }
        }
        Some(ahead)
    }
}

fn cube(x: f64) -> f64 {
    x * x * x
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::progress::{CancelFlag, Silent};
    use crate::quantize::Distribution;
    use crate::quantize::testing::{normal_weights, pruned};

    fn cost(points: &[Point], ends: &[usize]) -> f64 {
        let runs = ends.windows(2).map(|run| {
            let run = &points[run[0]..run[1]];
            let count: f64 = run.iter().map(|p| p.count as f64).sum();
            let mean = run.iter().map(|p| p.value * p.count as f64).sum::<f64>() / count;
            run.iter().map(|p| p.count as f64 * (p.value - mean) * (p.value - mean)).sum::<f64>()
        });
        runs.sum()
    }

    /// The textbook recurrence over all splits.
    fn least_cost(points: &[Point], clusters: usize) -> f64 {
        let n = points.len();
        let mut best: Vec<f64> = (0..=n).map(|end| if end == 0 { 0.0 } else { cost(points, &[0, end]) }).collect();
        for _ in 1..clusters {
            let next =
                |end: usize| (0..end).map(|start| best[start] + cost(points, &[start, end])).fold(best[end], f64::min);
            best = (0..=n).map(|end| if end == 0 { 0.0 } else { next(end) }).collect();
        }
        best[n]
    }

    fn check_optimal(weights: &[f32], clusters: usize) {
        let distribution = Distribution::of(weights);
        let points = distribution.points();
        let ends = optimal_runs(points, clusters, &Silent).unwrap();
        assert_eq!(ends.len() - 1, clusters.min(points.len()), "{weights:?}");
        assert!(ends.windows(2).all(|w| w[0] < w[1]) && ends[0] == 0 && ends.last() == Some(&points.len()));
        let (found, least) = (cost(points, &ends), least_cost(points, clusters));
        assert!(found <= least + 1e-9 * least.max(1e-6), "{found} > {least} for {clusters} of {weights:?}");
    }

    #[test]
    fn three_groups_are_found() {
        let distribution = Distribution::of(&[1.0, 1.1, 5.0, 5.1, 5.2, -9.0]);
        assert_eq!(optimal_runs(distribution.points(), 3, &Silent).unwrap(), [0, 1, 3, 6]);
    }

    #[test]
    fn regular_points_where_prices_are_shared_are_split_into_every_number_of_clusters() {
        for n in 2..=24 {
            let weights: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            (1..=n).for_each(|clusters| check_optimal(&weights, clusters));
        }
    }

    #[test]
    fn lloyds_algorithm_from_quantiles_is_never_better() {
        let distribution = Distribution::of(&pruned(normal_weights(40_000, 4)));
        let points = distribution.points();
        for clusters in [2, 31, 200, 3000] {
            let ends = optimal_runs(points, clusters, &Silent).unwrap();
            assert_eq!(ends.len(), clusters + 1);
            let moments = Moments::new(points);
            let mut lloyd: Vec<usize> = (0..=clusters).map(|i| i * points.len() / clusters).collect();
            for _ in 0..50 {
                let means: Vec<f64> = lloyd.windows(2).map(|w| moments.mean(w[0]..w[1])).collect();
                let bounds = means.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
                let splits = bounds.map(|bound| points.partition_point(|p| p.value < bound));
                lloyd = [0].into_iter().chain(splits).chain([points.len()]).collect();
                lloyd.dedup();
            }
            assert!(cost(points, &ends) <= cost(points, &lloyd) * (1.0 + 1e-9), "{clusters}");
        }
    }

    #[test]
    fn cancelling_stops_the_search() {
        let cancelled = CancelFlag::default();
        cancelled.cancel();
        let distribution = Distribution::of(&normal_weights(1000, 5));
        assert_eq!(optimal_runs(distribution.points(), 8, &cancelled), Err(Cancelled));
    }

    proptest! {
        #[test]
        fn runs_cost_as_little_as_the_best_of_all_splits(
            weights in proptest::collection::vec(prop_oneof![-1.0f32..1.0, (-6i8..6).prop_map(f32::from)], 1..40),
            clusters in 1usize..12,
        ) {
            check_optimal(&weights, clusters);
        }
    }
}
