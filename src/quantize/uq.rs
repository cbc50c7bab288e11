//! UQ, uniform quantisation: multiples of one step.
//!
//! # Source
//! Marinò et al., "Deep neural networks compression: a comparative survey and choice recommendations", Neurocomputing
//! 2023, section 3; for entropy-coded uniform grids, Gish and Pierce, "Asymptotically efficient quantizing", 1968.

use super::distribution::Point;
use super::{Distribution, Fitted, Levels, QuantizeError};
use crate::progress::{Cancelled, Progress};
use crate::tensor::FloatType;

/// Fewest points of a histogram that the search for the step sees, and how many there are for each level beyond.
const MIN_POINTS: usize = 1 << 13;
const POINTS_PER_LEVEL: usize = 16;

/// Steps tried between half the step that bisection finds and that step.
const FINER_STEPS: usize = 128;

/// Uniform quantisation: `delta * round(w / delta)`, with the smallest `delta` that leaves at most `levels` non-zero values.
///
/// How many multiples are in use does not fall steadily with `delta` where weights are sparse. So bisection is followed by
/// a scan of finer steps, down to half of what it found. Weights that round to zero count as pruned.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Uq {
    /// Most distinct non-zero values.
    pub levels: Levels,
}

impl Uq {
    pub(super) fn fit(
        &self,
        distribution: &Distribution,
        dtype: FloatType,
        progress: &dyn Progress,
    ) -> Result<Fitted, QuantizeError> {
        let points = distribution.coarsened(MIN_POINTS.max(POINTS_PER_LEVEL * self.levels.get()));
        if points.is_empty() {
            return Fitted::nearest(distribution, dtype, []);
        }
        let step = smallest_step(&points, self.levels.get(), progress)?;
        let mut multiples = Vec::new();
        visit_multiples(&points, step, |from, to| {
            multiples.extend((from..=to).map(|m| m as f64 * step));
            true
        });
        Fitted::nearest(distribution, dtype, multiples)
    }
}

/// The smallest step that leaves at most `levels` non-zero multiples in use.
fn smallest_step(points: &[Point], levels: usize, progress: &dyn Progress) -> Result<f64, Cancelled> {
    let largest = points.iter().map(|p| f64::from(p.low.abs().max(p.high.abs()))).fold(0.0, f64::max);
    let fits = |step: f64| used_multiples(points, step, levels) <= levels;
    // With a step of more than twice the largest weight nothing but zero is left.
    let mut fitting = 2.0 * largest / levels as f64;
    while !fits(fitting) {
        progress.check()?;
        fitting *= 2.0;
    }
    let mut unfitting = fitting / 2.0;
    while fits(unfitting) && unfitting > largest * f64::EPSILON {
        progress.check()?;
        (fitting, unfitting) = (unfitting, unfitting / 2.0);
    }
    let found = bisect(unfitting, fitting, fits);
    let ratio = libm::exp2(1.0 / FINER_STEPS as f64);
    let mut step = found / 2.0;
    while step < found {
        progress.check()?;
        if fits(step) {
            return Ok(bisect(step / ratio, step, fits));
        }
        step *= ratio;
    }
    Ok(found)
}

/// Narrows down to a step that fits, next to one that does not unless `low` already fits.
fn bisect(mut low: f64, mut high: f64, fits: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..40 {
        let middle = low + (high - low) / 2.0;
        if fits(middle) { high = middle } else { low = middle }
    }
    high
}

/// The number of non-zero multiples of `step` in use, counted up to just above `limit`.
fn used_multiples(points: &[Point], step: f64, limit: usize) -> usize {
    let mut used = 0usize;
    visit_multiples(points, step, |from, to| {
        let zero = usize::from(from <= 0 && 0 <= to);
        used = used.saturating_add(to.abs_diff(from) as usize).saturating_add(1 - zero);
        used <= limit
    });
    used
}

/// Calls `visit` with each run of multiples, ascending, that weights round to (ties to even), until it returns false.
/// The weights of a histogram cell may lie anywhere in it.
fn visit_multiples(points: &[Point], step: f64, mut visit: impl FnMut(i64, i64) -> bool) {
    let mut next = i64::MIN;
    for point in points {
        let from = round(f64::from(point.low) / step).max(next);
        let to = round(f64::from(point.high) / step);
        if from > to {
            continue;
        }
        if !visit(from, to) {
            return;
        }
        next = to.saturating_add(1);
    }
}

fn round(x: f64) -> i64 {
    x.round_ties_even() as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::progress::Silent;
    use crate::quantize::Quantizer;
    use crate::quantize::testing::{normal_weights, pruned};
    use crate::tensor::LayerContext;

    fn share(weights: &[f32], levels: i64) -> Vec<f64> {
        let quantizer = Quantizer::Uq(Uq { levels: Levels::new(levels).unwrap() });
        let fitted = quantizer.fit(&Distribution::of(weights), FloatType::F32, &Silent).unwrap();
        let matrix = fitted.assign(&LayerContext::new("w", 1, weights.len(), weights), &Silent).unwrap();
        (0..weights.len()).map(|i| matrix.value(i)).collect()
    }

    fn step(weights: &[f32], levels: usize) -> f64 {
        smallest_step(Distribution::of(weights).points(), levels, &Silent).unwrap()
    }

    #[test]
    fn the_smallest_step_matches_values_worked_by_hand() {
        // 1 to 10: with 9/5.5 < step the multiples 1 to 5 at most; 10 / step must round to 5, so step >= 10 / 5.5,
        // and ties go to even.
        let weights: Vec<f32> = (1..=10).map(|i| i as f32).collect();
        let found = step(&weights, 5);
        assert!((found - 10.0 / 5.5).abs() < 1e-9, "{found}");
        // Two weights need one level once both round to the same multiple.
        let found = step(&[3.0, 3.5], 1);
        assert!(found < 3.0 && used_multiples(Distribution::of(&[3.0, 3.5]).points(), found, 9) == 1, "{found}");
    }

    #[test]
    fn weights_become_the_nearest_multiple_and_small_ones_zero() {
        let weights = normal_weights(50_000, 10);
        let found = step(&weights, 15);
        let shared = share(&weights, 15);
        for (&w, &q) in weights.iter().zip(&shared) {
            let multiple = (q / found).round() * found;
            assert!((q - multiple).abs() < 1e-7 && (q - f64::from(w)).abs() <= found / 2.0 + 1e-7, "{w} became {q}");
        }
        assert!(shared.contains(&0.0), "the middle of a normal distribution rounds to zero");
    }

    #[test]
    fn a_finer_step_would_leave_too_many_values() {
        for levels in [1, 2, 31, 1000] {
            let weights = pruned(normal_weights(60_000, 11));
            let (distribution, found) = (Distribution::of(&weights), step(&weights, levels));
            assert!(used_multiples(distribution.points(), found, usize::MAX) <= levels);
            for finer in [0.6, 0.8, 0.9, 0.99] {
                assert!(used_multiples(distribution.points(), found * finer, usize::MAX) > levels, "{levels} {finer}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_more_values_are_left_than_levels(
            weights in proptest::collection::vec(prop_oneof![-1.0f32..1.0, Just(0.0f32), -1e-3f32..1e4], 1..200),
            levels in 1i64..20,
        ) {
            let mut left: Vec<u64> = share(&weights, levels).into_iter().filter(|&q| q != 0.0).map(f64::to_bits).collect();
            left.sort_unstable();
            left.dedup();
            prop_assert!(left.len() <= levels as usize);
        }
    }
}
