//! The next combination of a space: the middle one, by size, of those that could still win.

use serde_json::{Value, json};

use super::SearchError;
use super::space::{Point, Space};
use super::spec::Bound;
use super::trial::{Proposal, Trial, TrialStage};
use crate::compress::Recipe;

/// A trial that misses the bound by less than this fraction of what was allowed says nothing about harder settings, for
/// fine-tuning is a matter of luck too.
const CLEAR_MISS: f64 = 1.0;

/// The next combination to try; `None` once none is left that could win.
pub(super) fn next(
    space: &Space,
    common: &Recipe,
    (bound, original): (Bound, f64),
    trials: &[Trial],
) -> Result<Option<Proposal>, SearchError> {
    let mut open = Vec::new();
    for point in space.points() {
        let recipe = recipe(common, point)?;
        let settled = trials.iter().any(|trial| point_of(&trial.recipe) == point_of(&recipe))
            || !space.exhaustive && trials.iter().any(|trial| rules_out(trial, point, bound, original));
        if !settled {
            open.push((point, recipe));
        }
    }
    open.sort_by(|(a, _), (b, _)| a.rank().total_cmp(&b.rank()));
    let middle = open.len() / 2;
    let Some((_, recipe)) = open.into_iter().nth(middle) else { return Ok(None) };
    let pruned_alike = trials.iter().filter(|_| trains_pruned(common)).find(|trial| is_pruned_alike(trial, &recipe));
    Ok(Some(match pruned_alike {
        // What was pruned and trained there need only be shared anew.
        Some(trial) => {
            let recipe = recipe.with(&json!({ "finetune": { "epochs": 0 } }))?;
            Proposal { stage: TrialStage::Shared, from: Some(trial.number), recipe }
        }
        None => Proposal { stage: TrialStage::Grid, from: None, recipe },
    }))
}

/// Whether a trial of this recipe is trained before its weights are shared.
fn trains_pruned(common: &Recipe) -> bool {
    common.finetune().is_some_and(|finetune| finetune.epochs > 0)
}

/// Whether `trial` was pruned, and trained thereafter, as `recipe` says.
fn is_pruned_alike(trial: &Trial, recipe: &Recipe) -> bool {
    let sparsity = |recipe: &Recipe| point_of(recipe).and_then(|point| point.sparsity);
    trial.point().is_some() && trial.stage == TrialStage::Grid && sparsity(&trial.recipe) == sparsity(recipe)
}

/// Whether `trial` shows that `point` cannot win: it keeps the bound with harder settings, or breaks it with milder ones.
fn rules_out(trial: &Trial, point: Point, bound: Bound, original: f64) -> bool {
    let (Some(found), Some(tried)) = (trial.point(), point_of(&trial.recipe)) else { return false };
    match bound {
        Bound::Quality { .. } if found.is_within_bound => point.is_milder(tried),
        Bound::Quality { worst, .. } => {
            let is_clear = (found.value - worst).abs() > CLEAR_MISS * (worst - original).abs();
            is_clear && tried.is_milder(point)
        }
        // Settings that are harder than ones which fit are worse; milder than ones which do not fit, larger.
        Bound::Size { .. } if found.is_within_bound => tried.is_milder(point),
        Bound::Size { .. } => point.is_milder(tried),
    }
}

/// `common` with the settings of `point`.
fn recipe(common: &Recipe, point: Point) -> Result<Recipe, SearchError> {
    let mut over = json!({});
    if let Some(sparsity) = point.sparsity {
        over["prune"] = if sparsity.get() > 0.0 { json!({ "sparsity": sparsity }) } else { Value::Null };
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
fn point_of(recipe: &Recipe) -> Option<Point> {
    let recipe = serde_json::to_value(recipe).ok()?;
    let field = |stage: &str, name: &str| serde_json::from_value(recipe[stage][name].clone());
    Some(Point {
        sparsity: field("prune", "sparsity").ok(),
        levels: serde_json::from_value(recipe["quantize"]["levels"].clone()).ok(),
        method: serde_json::from_value(recipe["quantize"]["method"].clone()).ok(),
    })
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
        while let Some(Proposal { stage, from, recipe }) = next(&space, &common, (bound, 1.0), &trials).unwrap() {
            let point =
                trial::Point { size_bytes: 1, ratio: 1.0, psi: 0.1, sparsity: 0.0, value: 0.95, is_within_bound: true };
            let outcome = Outcome::Measured(point);
            trials.push(Trial { number: trials.len() + 1, stage, from, recipe, outcome, seconds: 1.0 });
            assert!(trials.len() <= 4, "every combination once");
        }
        let epochs = |trial: &Trial| trial.recipe.finetune().unwrap().epochs;
        let sparsity = |trial: &Trial| point_of(&trial.recipe).unwrap().sparsity;
        assert_eq!(trials.len(), 4);
        assert_eq!(trials.iter().filter(|trial| epochs(trial) == 4).count(), 2);
        for trial in trials.iter().filter(|trial| epochs(trial) == 0) {
            assert_eq!(sparsity(&trials[trial.from.unwrap() - 1]), sparsity(trial));
        }
    }
}
