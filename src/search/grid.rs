//! The next combination of a space: the middle one, by size, of those that could still win.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::SearchError;
use super::space::{Point, Space};
use super::spec::Bound;
use super::trial::{Proposal, Trial, TrialStage};
use crate::compress::Recipe;
use crate::prune::Sparsity;
use crate::quantize::{Levels, Method};

/// A trial that misses the bound by less than this fraction of what was allowed says nothing about harder settings, for
/// fine-tuning is a matter of luck too.
const CLEAR_MISS: f64 = 1.0;

/// A space, and what trials told of it.
pub(super) struct Grid<'a> {
    common: &'a Recipe,
    bound: Bound,
    /// Version 0's value of the metric.
    original: f64,
    /// All combinations, the smallest artifacts first.
    points: Vec<Point>,
    /// Whether those are tried too that cannot win.
    exhaustive: bool,
    tried: Vec<Tried>,
    settled: HashSet<Key>,
}

/// A trial's combination, and what came of it.
struct Tried {
    number: usize,
    stage: TrialStage,
    point: Point,
    /// Its value of the metric, and whether it keeps the bound; `None` where it could not be measured.
    found: Option<(f64, bool)>,
}

/// What tells combinations apart.
type Key = (Option<u64>, Option<usize>, Option<Method>);

impl<'a> Grid<'a> {
    /// Before any trial.
    pub(super) fn new(space: &Space, common: &'a Recipe, (bound, original): (Bound, f64)) -> Self {
        let mut points: Vec<Point> = space.points().into_iter().map(|point| point.within(point_of(common))).collect();
        points.sort_by(|a, b| a.rank().total_cmp(&b.rank()));
        let (tried, settled) = Default::default();
        Self { common, bound, original, points, exhaustive: space.exhaustive, tried, settled }
    }

    /// Takes note of a trial.
    pub(super) fn add(&mut self, trial: &Trial) {
        let point = point_of(&trial.recipe);
        let found = trial.point().map(|found| (found.value, found.is_within_bound));
        self.settled.insert(key(point));
        self.tried.push(Tried { number: trial.number, stage: trial.stage, point, found });
    }

    /// The next combination to try; `None` once none is left that could win.
    pub(super) fn next(&self) -> Result<Option<Proposal>, SearchError> {
        let is_open = |point: &&Point| {
            let is_hopeless = || !self.exhaustive && self.tried.iter().any(|trial| self.rules_out(trial, **point));
            !self.settled.contains(&key(**point)) && !is_hopeless()
        };
        let open: Vec<&Point> = self.points.iter().filter(is_open).collect();
        let Some(point) = open.get(open.len() / 2) else { return Ok(None) };
        let recipe = recipe(self.common, **point)?;
        let is_pruned_alike = |trial: &&Tried| {
            trial.found.is_some() && trial.stage == TrialStage::Grid && trial.point.sparsity == point.sparsity
        };
        let pruned_alike = self.tried.iter().filter(|_| trains_pruned(self.common)).find(is_pruned_alike);
        Ok(Some(match pruned_alike {
            // What was pruned and trained there need only be shared anew.
            Some(trial) => {
                let recipe = recipe.with(&json!({ "finetune": { "epochs": 0 } }))?;
                Proposal { stage: TrialStage::Shared, from: Some(trial.number), recipe }
            }
            None => Proposal { stage: TrialStage::Grid, from: None, recipe },
        }))
    }

    /// Whether `trial` shows that `point` cannot win: it keeps the bound with harder settings, or breaks it with milder ones.
    fn rules_out(&self, trial: &Tried, point: Point) -> bool {
        let (Some((value, is_within_bound)), tried) = (trial.found, trial.point) else { return false };
        match self.bound {
            Bound::Quality { .. } if is_within_bound => point.is_milder(tried),
            Bound::Quality { worst, .. } => {
                let is_clear = (value - worst).abs() > CLEAR_MISS * (worst - self.original).abs();
                is_clear && tried.is_milder(point)
            }
            // Settings that are harder than ones which fit are worse; milder than ones which do not fit, larger.
            Bound::Size { .. } if is_within_bound => tried.is_milder(point),
            Bound::Size { .. } => point.is_milder(tried),
        }
    }
}

/// Whether a trial of this recipe is trained before its weights are shared.
fn trains_pruned(common: &Recipe) -> bool {
    common.finetune().is_some_and(|finetune| finetune.epochs > 0)
}

/// `common` with the settings of `point`.
fn recipe(common: &Recipe, point: Point) -> Result<Recipe, SearchError> {
    let mut over = json!({});
    match point.sparsity {
        Some(sparsity) => over["prune"] = json!({ "sparsity": sparsity }),
        None if point_of(common).sparsity.is_some() => over["prune"] = Value::Null,
        None => {}
    }
    if let Some(levels) = point.levels {
        over["quantize"]["levels"] = json!(levels);
    }
    if let Some(method) = point.method {
        over["quantize"]["method"] = json!(method);
    }
    Ok(common.with(&over)?)
}

/// The combination that a recipe stands for.
fn point_of(recipe: &Recipe) -> Point {
    let (prune, quantize) = recipe.stages();
    Point {
        sparsity: prune.and_then(|prune| prune.sparsity).filter(|sparsity| sparsity.get() > 0.0),
        levels: quantize.and_then(|quantize| quantize.levels),
        method: quantize.and_then(|quantize| quantize.method),
    }
}

fn key(point: Point) -> Key {
    let sparsity = point.sparsity.map(Sparsity::get).map(f64::to_bits);
    (sparsity, point.levels.map(Levels::get), point.method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Metric;
    use crate::search::trial::{self, Outcome};

    #[test]
    fn trials_that_are_pruned_alike_are_pruned_and_trained_once() {
        let space: Space =
            serde_json::from_value(json!({ "sparsity": [0.5, 0.9], "levels": [3, 7], "exhaustive": true })).unwrap();
        let common = Recipe::from_json(
            &json!({ "prune": { "sparsity": 0 }, "quantize": { "levels": 7 }, "finetune": { "epochs": 4 } })
                .to_string(),
        )
        .unwrap();
        let bound = Bound::Quality { metric: Metric::Accuracy, worst: 0.9 };
        let mut trials: Vec<Trial> = Vec::new();
        let mut grid = Grid::new(&space, &common, (bound, 1.0));
        while let Some(Proposal { stage, from, recipe }) = grid.next().unwrap() {
            let point =
                trial::Point { size_bytes: 1, ratio: 1.0, psi: 0.1, sparsity: 0.0, value: 0.95, is_within_bound: true };
            let outcome = Outcome::Measured(point);
            trials.push(Trial { number: trials.len() + 1, stage, from, recipe, outcome, seconds: 1.0 });
            grid.add(&trials[trials.len() - 1]);
            assert!(trials.len() <= 4, "every combination once");
        }
        let epochs = |trial: &Trial| trial.recipe.finetune().unwrap().epochs;
        let sparsity = |trial: &Trial| point_of(&trial.recipe).sparsity;
        assert_eq!(trials.len(), 4);
        assert_eq!(trials.iter().filter(|trial| epochs(trial) == 4).count(), 2);
        for trial in trials.iter().filter(|trial| epochs(trial) == 0) {
            assert_eq!(sparsity(&trials[trial.from.unwrap() - 1]), sparsity(trial));
        }
    }
}
