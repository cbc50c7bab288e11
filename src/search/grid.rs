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
        let settled = trials.iter().any(|trial| trial.recipe == recipe)
            || !space.exhaustive && trials.iter().any(|trial| rules_out(trial, point, bound, original));
        if !settled {
            open.push((point, recipe));
        }
    }
    open.sort_by(|(a, _), (b, _)| a.rank().total_cmp(&b.rank()));
    let middle = open.len() / 2;
    Ok(open.into_iter().nth(middle).map(|(_, recipe)| Proposal { stage: TrialStage::Grid, from: None, recipe }))
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
