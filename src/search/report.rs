//! What a search found.

use serde::{Deserialize, Serialize};

use super::Trial;
use super::spec::{Bound, is_at_least_as_good, more_is_better};
use super::trial::Point;
use crate::evaluate::{Measured, Metric};

/// Every trial of a search, those that no other beats, and the one that was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct SearchReport {
    /// What the bound is about.
    pub metric: Metric,
    /// Version 0's value on the validation split; null for a metric that compares with version 0.
    pub original: Option<f64>,
    /// The worst value on the validation split that keeps the bound; null where size is bounded.
    pub worst: Option<f64>,
    /// The most bytes that keep the bound; null where quality is bounded.
    pub max_size_bytes: Option<u64>,
    /// Samples of the validation split.
    pub validation_samples: u64,
    /// In the order in which they were made.
    pub trials: Vec<Trial>,
    /// Numbers of the trials that no other beats in both size and quality, the smallest artifact first.
    pub front: Vec<usize>,
    /// Number of the trial that became the version: the best that keeps the bound, or, where none does, the nearest.
    pub chosen: usize,
    /// Whether the chosen one keeps the bound.
    pub is_within_bound: bool,
    /// The chosen one and version 0 on the test split, measured once; null without one.
    pub test: Option<Measured>,
    /// Why it ended.
    pub ended: SearchEnd,
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SearchEnd {
    /// Nothing was left to try.
    Complete,
    /// The trials were used up.
    Trials,
    /// The time was used up.
    Seconds,
    /// It was cancelled; what was found is kept.
    Cancelled,
}

/// Numbers of the trials that no other beats in both size and quality, the smallest artifact first.
pub(super) fn front(metric: Metric, trials: &[Trial]) -> Vec<usize> {
    let mut measured: Vec<(usize, &Point)> = trials.iter().filter_map(|t| Some((t.number, t.point()?))).collect();
    let better_first = |a: f64, b: f64| if more_is_better(metric) { b.total_cmp(&a) } else { a.total_cmp(&b) };
    measured.sort_by(|(_, a), (_, b)| a.size_bytes.cmp(&b.size_bytes).then(better_first(a.value, b.value)));
    let mut front: Vec<(usize, &Point)> = Vec::new();
    for (number, point) in measured {
        let is_beaten = |best: &&Point| is_at_least_as_good(metric, best.value, point.value);
        if !front.last().map(|(_, best)| best).is_some_and(is_beaten) {
            front.push((number, point));
        }
    }
    front.into_iter().map(|(number, _)| number).collect()
}

/// The trial to keep: the best that keeps the bound, or, where none does, the nearest; `None` where none was measured.
pub(super) fn choose(bound: Bound, trials: &[Trial]) -> Option<&Trial> {
    let is_better = |a: &Point, b: &Point| {
        if a.is_within_bound != b.is_within_bound {
            return a.is_within_bound;
        }
        let by_size = a.size_bytes < b.size_bytes;
        let by_value = a.value != b.value && is_at_least_as_good(bound.metric(), a.value, b.value);
        // Within the bound, the other of the two counts; beyond it, the one that is bounded.
        match (bound, a.is_within_bound) {
            (Bound::Quality { .. }, true) | (Bound::Size { .. }, false) => {
                by_size || a.size_bytes == b.size_bytes && by_value
            }
            _ => by_value || a.value == b.value && by_size,
        }
    };
    let measured = trials.iter().filter(|trial| trial.point().is_some());
    measured.reduce(|best, trial| match (trial.point(), best.point()) {
        (Some(a), Some(b)) if is_better(a, b) => trial,
        _ => best,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Recipe;
    use crate::search::{Outcome, TrialStage};

    fn trials(points: &[(u64, f64, bool)]) -> Vec<Trial> {
        let trial = |(i, &(size_bytes, value, is_within_bound)): (usize, &(u64, f64, bool))| {
            let point = Point { size_bytes, ratio: 1.0, psi: 1.0, sparsity: 0.0, value, is_within_bound };
            let (stage, recipe, outcome) = (TrialStage::Grid, Recipe::default(), Outcome::Measured(point));
            Trial { number: i + 1, stage, from: None, recipe, outcome, seconds: 0.0 }
        };
        points.iter().enumerate().map(trial).collect()
    }

    #[test]
    fn the_front_holds_what_nothing_beats_in_both() {
        let trials = trials(&[(9, 0.9, true), (5, 0.8, true), (7, 0.7, true), (5, 0.85, true), (3, 0.1, false)]);
        assert_eq!(front(Metric::Accuracy, &trials), [5, 4, 1]);
        assert_eq!(front(Metric::Mse, &trials), [5]);
    }

    #[test]
    fn the_smallest_within_the_bound_is_chosen_or_else_the_nearest() {
        let quality = Bound::Quality { metric: Metric::Accuracy, worst: 0.8 };
        let some = trials(&[(9, 0.9, true), (5, 0.8, true), (3, 0.7, false)]);
        assert_eq!(choose(quality, &some).unwrap().number, 2);
        assert_eq!(choose(quality, &some[2..]).unwrap().number, 3);
        let none = trials(&[(9, 0.5, false), (5, 0.6, false), (3, 0.1, false)]);
        assert_eq!(choose(quality, &none).unwrap().number, 2);
        let size = Bound::Size { metric: Metric::Mse, bytes: 6 };
        let sizes = trials(&[(9, 0.1, false), (5, 0.4, true), (3, 0.3, true)]);
        assert_eq!(choose(size, &sizes).unwrap().number, 3);
        assert_eq!(choose(quality, &[]), None);
    }
}
