//! What is searched for: the bound that must hold, where to look, how long.

use serde::{Deserialize, Serialize};

use super::SearchError;
use super::space::Space;
use crate::compress::Recipe;
use crate::evaluate::{Against, EvaluateError, Metric, TargetKind};

/// Trials of a search that does not say how many.
const DEFAULT_TRIALS: usize = 24;
/// Most trials of a search.
const MAX_TRIALS: usize = 10_000;

/// A search for the smallest version within an allowed loss, or for the best one within a size. Exactly one bound is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    /// What the bound is about; left out, `accuracy` for class targets and `mse` for real ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// By how much the metric may be worse than version 0's on the validation split, in its own unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
    /// By which fraction of version 0's the metric may be worse: 0.02 lets a squared error of 0.2 rise to 0.204.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_relative_drop: Option<f64>,
    /// The least that the metric must reach, for one of which more is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_metric: Option<f64>,
    /// The most that the metric may come to, for one of which less is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_metric: Option<f64>,
    /// The most bytes that the artifact may have: the best version within them is searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size_bytes: Option<u64>,
    /// Settings to try; left out, a walk from cheap to dear settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
    /// What all trials have in common.
    pub recipe: Recipe,
    /// When to stop.
    pub budget: SearchBudget,
}

/// When a search stops, if it does not end before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SearchBudget {
    /// Trials at most.
    #[cfg_attr(feature = "service", schema(minimum = 1, maximum = 10_000, default = 24))]
    pub trials: usize,
    /// No trial begins after this many seconds of work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(exclusive_minimum = 0))]
    pub seconds: Option<f64>,
}

impl Default for SearchBudget {
    fn default() -> Self {
        Self { trials: DEFAULT_TRIALS, seconds: None }
    }
}

/// The bound that a trial must keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Bound {
    /// The value of the metric must not be worse than this; the smallest artifact wins.
    Quality { metric: Metric, worst: f64 },
    /// The artifact must not have more bytes; the best value of the metric wins.
    Size { metric: Metric, bytes: u64 },
}

impl Search {
    /// Checks what no single field can: that there is one bound, that it makes sense, that the metric has a direction.
    ///
    /// # Errors
    /// [`SearchError::Bounds`], [`SearchError::Field`], [`SearchError::Metric`], [`SearchError::Unreachable`],
    /// [`SearchError::Percent`].
    pub fn check(&self) -> Result<(), SearchError> {
        let floats = [
            ("max_drop", self.max_drop),
            ("max_relative_drop", self.max_relative_drop),
            ("min_metric", self.min_metric),
            ("max_metric", self.max_metric),
        ];
        let given = floats.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name);
        let given: Vec<&str> = given.chain(self.max_size_bytes.map(|_| "max_size_bytes")).collect();
        if given.len() != 1 {
            return Err(SearchError::Bounds { given: given.join(", ") });
        }
        for (name, value) in floats {
            let is_drop = name.ends_with("drop");
            if let Some(value) = value.filter(|value| !value.is_finite() || is_drop && *value < 0.0) {
                return Err(SearchError::Field { field: name, found: value });
            }
        }
        if let Some(seconds) = self.budget.seconds.filter(|seconds| !(*seconds > 0.0 && seconds.is_finite())) {
            return Err(SearchError::Field { field: "budget.seconds", found: seconds });
        }
        if !(1..=MAX_TRIALS).contains(&self.budget.trials) {
            return Err(SearchError::Field { field: "budget.trials", found: self.budget.trials as f64 });
        }
        if let Some(metric) = self.metric {
            let wrong = match (self.min_metric, self.max_metric) {
                (Some(_), _) => !more_is_better(metric),
                (_, Some(_)) => more_is_better(metric),
                _ => false,
            };
            if wrong || metric.against() == Against::Reference && self.relates_to_upload() {
                return Err(SearchError::Metric { metric, bound: given[0].to_owned() });
            }
            let percent = self.max_drop.or(self.max_relative_drop).filter(|drop| metric.is_fraction() && *drop >= 1.0);
            if let Some(found) = percent {
                return Err(SearchError::Percent { metric, bound: given[0].to_owned(), found });
            }
            let (min, max) = (self.min_metric.unwrap_or(f64::NEG_INFINITY), self.max_metric.unwrap_or(f64::INFINITY));
            if min > metric.best() || max < metric.best() {
                let found = self.min_metric.or(self.max_metric).unwrap_or_default();
                return Err(SearchError::Unreachable { metric, bound: given[0].to_owned(), found });
            }
        }
        if let Some(space) = &self.space {
            space.check()?;
        }
        if self.recipe.target().is_some() {
            return Err(SearchError::Target);
        }
        Ok(())
    }

    /// What the search is about, on samples with targets of this kind.
    ///
    /// # Errors
    /// [`EvaluateError::MetricNeeds`]; those of [`Search::check`], for a metric that was not
    /// named.
    pub fn metric_on(&self, targets: Option<TargetKind>) -> Result<Metric, SearchError> {
        let metric = self.metric.unwrap_or(match targets {
            Some(TargetKind::Class) => Metric::Accuracy,
            Some(TargetKind::Value) => Metric::Mse,
            None => Metric::OutputSnrDb,
        });
        if let Some(needs) = metric.needs(targets, true) {
            return Err(EvaluateError::MetricNeeds { metric, needs }.into());
        }
        Search { metric: Some(metric), ..self.clone() }.check()?;
        Ok(metric)
    }

    /// Whether the bound speaks of version 0's own value.
    fn relates_to_upload(&self) -> bool {
        self.max_drop.is_some() || self.max_relative_drop.is_some()
    }

    /// The bound on `metric`, of which version 0 has the value `original` on the validation split.
    pub(super) fn bound(&self, metric: Metric, original: f64) -> Bound {
        let sign = if more_is_better(metric) { -1.0 } else { 1.0 };
        let worst = if let Some(drop) = self.max_drop {
            original + sign * drop
        } else if let Some(fraction) = self.max_relative_drop {
            original + sign * fraction * original.abs()
        } else if let Some(value) = self.min_metric.or(self.max_metric) {
            value
        } else {
            let bytes = self.max_size_bytes.expect("a checked search has one bound");
            return Bound::Size { metric, bytes };
        };
        Bound::Quality { metric, worst }
    }
}

impl Bound {
    pub(super) fn metric(self) -> Metric {
        match self {
            Self::Quality { metric, .. } | Self::Size { metric, .. } => metric,
        }
    }

    /// Whether an artifact of `size_bytes` and this value of the metric keeps the bound.
    pub(super) fn is_kept(self, size_bytes: u64, value: f64) -> bool {
        match self {
            // As much rounding as a mean of so many samples has.
            Self::Quality { metric, worst } => is_at_least_as_good(metric, value, worst),
            Self::Size { bytes, .. } => size_bytes <= bytes,
        }
    }
}

/// Whether `value` of `metric` is `than` or better, but for rounding in the last places.
pub(super) fn is_at_least_as_good(metric: Metric, value: f64, than: f64) -> bool {
    let slack = 1e-12 * than.abs().max(1.0);
    if more_is_better(metric) { value >= than - slack } else { value <= than + slack }
}

/// Whether a larger value of `metric` is a better one.
pub(super) const fn more_is_better(metric: Metric) -> bool {
    metric.best() > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Search {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_search_has_one_bound_that_makes_sense() {
        for (json, expected) in [
            (
                "{}",
                "one bound is needed: max_drop, max_relative_drop, min_metric, max_metric or max_size_bytes; found none",
            ),
            (r#"{"max_drop": 0.01, "max_size_bytes": 9}"#, "found max_drop, max_size_bytes"),
            (r#"{"max_drop": -0.01}"#, "max_drop cannot be -0.01"),
            (r#"{"min_metric": 0.2, "metric": "mse"}"#, "min_metric is no bound for mse"),
            (r#"{"max_drop": 0.2, "metric": "agreement"}"#, "max_drop is no bound for agreement"),
            (r#"{"min_metric": 98, "metric": "accuracy"}"#, "min_metric cannot be 98: the best accuracy is 1"),
            (
                r#"{"max_drop": 5, "metric": "accuracy"}"#,
                "max_drop cannot be 5: accuracy is a fraction, five percent are 0.05",
            ),
            (r#"{"max_relative_drop": 1, "metric": "top5"}"#, "max_relative_drop cannot be 1: top5 is a fraction"),
            (r#"{"max_metric": -1, "metric": "mse"}"#, "max_metric cannot be -1: the best mse is 0"),
            (r#"{"max_drop": 0.2, "budget": {"trials": 0}}"#, "budget.trials cannot be 0"),
            (r#"{"max_drop": 0.2, "budget": {"seconds": 0}}"#, "budget.seconds cannot be 0"),
            (r#"{"max_drop": 0.2, "recipe": {"target": {"ratio": 3}}}"#, "recipe.target"),
            (r#"{"max_drop": 0.2, "space": {}}"#, "the space is empty"),
        ] {
            let error = parse(json).check().unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        for json in [
            r#"{"max_drop": 0, "metric": "accuracy"}"#,
            r#"{"min_metric": 1, "metric": "accuracy"}"#,
            r#"{"min_metric": 98, "metric": "output_snr_db"}"#,
            r#"{"max_relative_drop": 5, "metric": "mse"}"#,
        ] {
            assert!(parse(json).check().is_ok(), "{json}");
        }
    }

    #[test]
    fn bounds_follow_the_direction_of_the_metric() {
        let worst = |json: &str, metric, original| match parse(json).bound(metric, original) {
            Bound::Quality { worst, .. } => worst,
            Bound::Size { bytes, .. } => bytes as f64,
        };
        assert_eq!(worst(r#"{"max_drop": 0.25}"#, Metric::Accuracy, 1.0), 0.75);
        assert_eq!(worst(r#"{"max_drop": 0.25}"#, Metric::Mse, 1.0), 1.25);
        assert_eq!(worst(r#"{"max_relative_drop": 0.5}"#, Metric::Mse, 0.5), 0.75);
        assert_eq!(worst(r#"{"max_relative_drop": 0.5}"#, Metric::R2, -0.5), -0.75);
        let bound = parse(r#"{"max_drop": 0.001}"#).bound(Metric::Accuracy, 0.991);
        assert!(bound.is_kept(1, 0.991 - 0.001) && !bound.is_kept(1, 0.9898));
    }
}
