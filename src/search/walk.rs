//! A search without a space: from cheap settings to dear ones.
//!
//! First without training, smaller and smaller until the bound breaks: calibrated to a size where there is a training split,
//! else by the weights alone. Where the first breaks it, milder and milder until it is kept, in the end without any loss. From there on with training: calibrated to sizes that are smaller still, the values that the weights
//! share then are trained; then the network is pruned while it is trained, the density halved, each time from the fine-tuned
//! weights of a denser trial, until the bound breaks, and bisected from there. Last, the weights of the best of those share
//! fewer values. What comes next follows from the trials so far, so a search that was cut off goes
//! on where it was.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SearchError;
use super::spec::Bound;
use super::trial::{Proposal, Trial, TrialStage};
use crate::compress::Recipe;

/// Bytes of the layers that may change, against those in the upload: tried with calibration and without training, in this order.
const PSIS: [f64; 7] = [1.0 / 8.0, 1.0 / 12.0, 1.0 / 16.0, 1.0 / 24.0, 1.0 / 32.0, 1.0 / 48.0, 1.0 / 64.0];
/// What is tried instead where the first of these is too small already.
const MILD_PSIS: [f64; 2] = [1.0 / 4.0, 1.0 / 2.0];
/// Sparsities and levels that are tried without data, in this order.
const ONE_SHOT: [(f64, u64); 7] = [(0.0, 63), (0.3, 31), (0.5, 15), (0.7, 15), (0.8, 15), (0.9, 15), (0.95, 15)];
/// Levels that are tried instead where the first of these are too few already.
const MILD_LEVELS: [u64; 2] = [255, 1023];
/// Density of the first trial with training where none without kept the bound.
const FIRST_DENSITY: f64 = 0.2;
/// The first trial with training is this much sparser than the best without.
const FIRST_STEP: f64 = 0.4;
/// Densities beyond which pruning is not worth its bytes.
const MAX_DENSITY: f64 = 0.9;
/// Densities that are nearer to each other than this are not told apart.
const RESOLUTION: f64 = 1.15;
/// Numbers of shared values, in the order in which they are tried.
const LEVELS: [u64; 4] = [15, 7, 5, 3];

/// What the walk knows of model and data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// There is a training split, and memory for the layers' Hessians.
    pub calibrates: bool,
    /// There is a training split, and the graph can be trained.
    pub finetunes: bool,
    /// Bytes of the weights that the common recipe lets change, as float32.
    pub layer_bytes: u64,
    /// Bytes of all else in the upload.
    pub other_bytes: u64,
}

/// The next trial; `None` at the end of the walk.
pub(super) fn next(
    common: &Recipe,
    bound: Bound,
    facts: Facts,
    trials: &[Trial],
) -> Result<Option<Proposal>, SearchError> {
    let wants_quality = matches!(bound, Bound::Quality { .. });
    let walk = Walk { common, bound, wants_quality, facts, trials };
    if let Some(proposal) = walk.one_shot()? {
        return Ok(Some(proposal));
    }
    if !facts.finetunes {
        return Ok(None);
    }
    if let Some(proposal) = walk.calibrated()? {
        return Ok(Some(proposal));
    }
    match walk.fine_tuned()? {
        Some(proposal) => Ok(Some(proposal)),
        None => walk.shared(),
    }
}

struct Walk<'a> {
    common: &'a Recipe,
    bound: Bound,
    /// The smallest within a quality is wanted, not the best within a size.
    wants_quality: bool,
    facts: Facts,
    trials: &'a [Trial],
}

impl Walk<'_> {
    fn of(&self, stage: TrialStage) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(move |trial| trial.stage == stage)
    }

    /// Further without training, as long as harder settings may keep the bound.
    fn one_shot(&self) -> Result<Option<Proposal>, SearchError> {
        let made = || self.of(TrialStage::OneShot);
        let is_too_hard = self.wants_quality && made().next().is_some() && !made().any(Trial::is_within_bound);
        if is_too_hard {
            return self.milder();
        }
        // Of trials that are smaller and smaller, the last that matters breaks the quality, or fits the size.
        let is_over = self.of(TrialStage::OneShot).any(|trial| trial.is_within_bound() != self.wants_quality);
        let settings: Vec<Value> = match (self.bound, self.calibrates_to_sizes()) {
            _ if is_over => Vec::new(),
            (Bound::Size { bytes, .. }, true) => vec![json!({ "target": { "size_bytes": bytes } })],
            (Bound::Quality { .. }, true) => PSIS.iter().map(|&psi| self.target(psi)).collect(),
            (_, false) => ONE_SHOT.iter().map(|&(sparsity, levels)| one_shot(sparsity, levels)).collect(),
        };
        // Trials that are made at the same time may end in any order.
        for (index, mut over) in settings.into_iter().enumerate() {
            over["finetune"] = Value::Null;
            let recipe = self.with(over)?;
            let is_made = match self.trials.first().filter(|_| index == 0) {
                // By the first trial sizes are known, of which it had an estimate.
                Some(first) => first.stage == TrialStage::OneShot,
                None => self.of(TrialStage::OneShot).any(|trial| trial.recipe == recipe),
            };
            if !is_made {
                return Ok(Some(Proposal { stage: TrialStage::OneShot, from: None, recipe }));
            }
        }
        Ok(None)
    }

    /// Without training, where nothing has kept the bound so far.
    fn milder(&self) -> Result<Option<Proposal>, SearchError> {
        let mut settings: Vec<Value> = match self.calibrates_to_sizes() {
            true => MILD_PSIS.iter().map(|&psi| self.target(psi)).collect(),
            false => MILD_LEVELS.iter().map(|&levels| one_shot(0.0, levels)).collect(),
        };
        settings.push(json!({ "prune": null, "quantize": null, "encode": { "plain": "as_is" } }));
        for mut over in settings {
            over["finetune"] = Value::Null;
            let recipe = self.with(over)?;
            if self.of(TrialStage::OneShot).all(|trial| trial.recipe != recipe) {
                return Ok(Some(Proposal { stage: TrialStage::OneShot, from: None, recipe }));
            }
        }
        Ok(None)
    }

    /// A smaller size than without training, at which the shared values are trained.
    fn calibrated(&self) -> Result<Option<Proposal>, SearchError> {
        let has_failed = self.of(TrialStage::Calibrated).any(|trial| trial.point().is_none());
        if !self.wants_quality || !self.calibrates_to_sizes() || has_failed {
            return Ok(None);
        }
        let kept = self.of(TrialStage::OneShot).filter(|trial| trial.is_within_bound());
        let tried = kept.chain(self.of(TrialStage::Calibrated));
        // A file may be a little smaller than it was asked to be, so that its own psi would not tell what was asked.
        let tried = tried.filter_map(|trial| Some((self.asked_psi(trial)?, trial.is_within_bound())));
        let tried: Vec<(f64, bool)> = tried.collect();
        let Some(psi) = next_density(&tried, true, || PSIS[0]) else { return Ok(None) };
        let mut over = self.target(psi);
        over["finetune"]["epochs"] = json!(0);
        let recipe = self.with(over)?;
        let is_new = self.trials.iter().all(|trial| trial.recipe != recipe);
        Ok(is_new.then_some(Proposal { stage: TrialStage::Calibrated, from: None, recipe }))
    }

    /// Whether sizes are calibrated to, which would put settings in the place of those that the common recipe makes.
    fn calibrates_to_sizes(&self) -> bool {
        let common = serde_json::to_value(self.common).unwrap_or_default();
        self.facts.calibrates && common["prune"].is_null() && common["quantize"].is_null() && common["preset"].is_null()
    }

    /// A size at which the layers that may change take `psi` of their bytes.
    fn target(&self, psi: f64) -> Value {
        json!({ "target": { "size_bytes": (self.other_bytes() + psi * self.facts.layer_bytes as f64) as u64 } })
    }

    /// The psi of the size that a trial was asked to have.
    fn asked_psi(&self, trial: &Trial) -> Option<f64> {
        let bytes = serde_json::to_value(&trial.recipe).ok()?["target"]["size_bytes"].as_f64()?;
        trial.point().map(|_| (bytes - self.other_bytes()) / self.facts.layer_bytes as f64)
    }

    /// Bytes of a file beside the layers that may change: of the first that was written, or an estimate.
    fn other_bytes(&self) -> f64 {
        let layer_bytes = self.facts.layer_bytes as f64;
        let others = |trial: &Trial| trial.point().map(|point| point.size_bytes as f64 - point.psi * layer_bytes);
        self.trials.iter().find_map(others).unwrap_or(self.facts.other_bytes as f64)
    }

    /// What all trials have in common: choices of the walk where the common recipe makes none.
    fn settings(&self) -> Result<Recipe, SearchError> {
        let prune = json!({ "criterion": "lamp", "scope": "global" });
        let common = serde_json::to_value(self.common).unwrap_or_default();
        let mut quantize = json!({ "method": "cws", "levels": LEVELS[0] });
        if self.facts.calibrates && common["quantize"]["method"].is_null() {
            (quantize["weighting"], quantize["rounding"]) = (json!("hessian"), json!("feedback"));
        }
        let encode = json!({ "plain": "f16" });
        let mut own = json!({ "prune": prune, "quantize": quantize, "encode": encode });
        if self.facts.finetunes {
            own["finetune"] = json!({});
        }
        let own = Recipe::from_json(&own.to_string())?;
        Ok(own.with(&common)?)
    }

    /// The same with `over` laid over it, but for stages that the common recipe switches off.
    fn with(&self, mut over: Value) -> Result<Recipe, SearchError> {
        let members = over.as_object_mut().into_iter();
        members.for_each(|members| members.retain(|stage, _| !self.common.switches_off(stage)));
        Ok(self.settings()?.with(&over)?)
    }

    /// The next density, started from the sparsest denser trial.
    fn fine_tuned(&self) -> Result<Option<Proposal>, SearchError> {
        let tried: Vec<(f64, bool)> = self
            .of(TrialStage::FineTuned)
            .filter_map(|trial| Some((density(trial)?, trial.is_within_bound())))
            .collect();
        if self.of(TrialStage::FineTuned).count() > tried.len() {
            // What cannot be trained once cannot be trained at all.
            return Ok(None);
        }
        let first = || {
            let kept = self.of(TrialStage::OneShot).filter(|trial| trial.is_within_bound()).filter_map(Trial::point);
            let density = kept.map(|point| 1.0 - point.sparsity).reduce(f64::min);
            density.map_or(FIRST_DENSITY, |density| (density * FIRST_STEP).min(FIRST_DENSITY))
        };
        let Some(wanted) = next_density(&tried, self.wants_quality, first) else { return Ok(None) };
        let denser = self.of(TrialStage::FineTuned).filter(|trial| density(trial).is_some_and(|d| d > wanted));
        let from = denser.min_by(|a, b| density(a).partial_cmp(&density(b)).unwrap_or(std::cmp::Ordering::Equal));
        let recipe = self.with(json!({ "prune": { "sparsity": 1.0 - wanted } }))?;
        Ok(Some(Proposal { stage: TrialStage::FineTuned, from: from.map(|trial| trial.number), recipe }))
    }

    /// Fewer values for the weights of the best trial, as long as the bound is kept.
    fn shared(&self) -> Result<Option<Proposal>, SearchError> {
        let best = self.of(TrialStage::FineTuned).filter(|trial| trial.is_within_bound());
        let best = best.min_by_key(|trial| trial.point().map(|point| point.size_bytes));
        let (Some(best), true) = (best, self.wants_quality && !self.common.switches_off("quantize")) else {
            return Ok(None);
        };
        if self.of(TrialStage::Shared).any(|trial| !trial.is_within_bound()) {
            return Ok(None);
        }
        let used = levels(best).unwrap_or(u64::MAX);
        for levels in LEVELS.into_iter().filter(|levels| *levels < used) {
            let over = json!({ "quantize": { "levels": levels }, "finetune": { "epochs": 0 } });
            let recipe = best.recipe.with(&over)?;
            if self.of(TrialStage::Shared).all(|trial| trial.recipe != recipe) {
                return Ok(Some(Proposal { stage: TrialStage::Shared, from: Some(best.number), recipe }));
            }
        }
        Ok(None)
    }
}

/// Settings of a trial without data.
fn one_shot(sparsity: f64, levels: u64) -> Value {
    let prune = if sparsity > 0.0 { json!({ "sparsity": sparsity }) } else { Value::Null };
    json!({ "prune": prune, "quantize": { "levels": levels } })
}

/// The density to try after those in `tried`, each with whether it kept the bound; `None` once it is known well enough.
fn next_density(tried: &[(f64, bool)], wants_quality: bool, first: impl Fn() -> f64) -> Option<f64> {
    let of = |kept: bool| tried.iter().filter(move |(_, is_kept)| *is_kept == kept).map(|(density, _)| *density);
    if tried.is_empty() {
        return Some(first().min(MAX_DENSITY));
    }
    // The smallest density that keeps a quality, or the largest that fits a size, lies between these two.
    let (upper, lower) = match wants_quality {
        true => (of(true).reduce(f64::min), of(false).reduce(f64::max)),
        false => (of(false).reduce(f64::min), of(true).reduce(f64::max)),
    };
    match (lower, upper) {
        (None, Some(upper)) => Some(upper / 2.0),
        (Some(lower), None) => (lower * RESOLUTION < MAX_DENSITY).then(|| (lower * 2.0).min(MAX_DENSITY)),
        (Some(lower), Some(upper)) => (lower * RESOLUTION < upper).then(|| (lower * upper).sqrt()),
        (None, None) => None,
    }
}

/// Fraction of the weights that a trial was told to keep; `None` where it failed.
fn density(trial: &Trial) -> Option<f64> {
    trial.point()?;
    let recipe = serde_json::to_value(&trial.recipe).ok()?;
    Some(1.0 - recipe["prune"]["sparsity"].as_f64()?)
}

fn levels(trial: &Trial) -> Option<u64> {
    serde_json::to_value(&trial.recipe).ok()?["quantize"]["levels"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Metric;
    use crate::search::trial::{Outcome, Point};

    const BOUND: Bound = Bound::Quality { metric: Metric::Accuracy, worst: 0.98 };

    /// Walks to the end in a world where `value` tells the metric from density, levels and whether it is trained.
    fn walk(finetunes: bool, value: impl Fn(f64, u64, bool) -> f64) -> Vec<Trial> {
        walk_with(&Recipe::default(), 1.0, finetunes, value)
    }

    /// The same from a common recipe, where layers take `filled` of the bytes that a target leaves them.
    fn walk_with(common: &Recipe, filled: f64, finetunes: bool, value: impl Fn(f64, u64, bool) -> f64) -> Vec<Trial> {
        let mut trials: Vec<Trial> = Vec::new();
        let facts = Facts { calibrates: true, finetunes, layer_bytes: 1_000_000, other_bytes: 0 };
        while let Some(proposal) = next(common, BOUND, facts, &trials).unwrap() {
            let Proposal { stage, from, recipe } = proposal;
            let number = trials.len() + 1;
            let mut trial =
                Trial { number, stage, from, recipe, outcome: Outcome::Failed { reason: String::new() }, seconds: 1.0 };
            let json = serde_json::to_value(&trial.recipe).unwrap();
            let levels = levels(&trial).unwrap_or(1);
            // Every file has 1,000 bytes beside the layers.
            let (psi, density) = match json["target"]["size_bytes"].as_f64() {
                Some(bytes) => {
                    let psi = filled * (bytes / 1e6 - 1e-3);
                    (psi, 4.0 * psi)
                }
                None => {
                    let density = 1.0 - json["prune"]["sparsity"].as_f64().unwrap_or(0.0);
                    (density * (4.0 + (levels as f64).log2()) / 32.0, density)
                }
            };
            let value = value(density, levels, stage != TrialStage::OneShot);
            let size_bytes = (1e6 * psi) as u64 + 1_000;
            let is_within_bound = BOUND.is_kept(size_bytes, value);
            let point = Point { size_bytes, ratio: 1.0, psi, sparsity: 1.0 - density, value, is_within_bound };
            trial.outcome = Outcome::Measured(point);
            assert!(trials.iter().all(|other| other.recipe != trial.recipe), "{number} repeats another");
            trials.push(trial);
            assert!(number < 40, "the walk ends");
        }
        trials
    }

    #[test]
    fn density_is_found_by_halving_and_bisection_and_then_levels_fall() {
        let trials = walk(true, |density, levels, trained| {
            let needed = if trained { 0.03 } else { 0.25 };
            if density >= needed && levels >= 5 { 0.99 } else { 0.9 }
        });
        let stages: Vec<TrialStage> = trials.iter().map(|trial| trial.stage).collect();
        assert!(stages.is_sorted_by_key(|stage| *stage as u8), "{stages:?}");
        let best = trials.iter().filter(|t| t.is_within_bound()).min_by_key(|t| t.point().unwrap().size_bytes).unwrap();
        assert_eq!(levels(best), Some(5));
        let density = density(best).unwrap();
        assert!((0.03..0.03 * RESOLUTION).contains(&density), "{density}");
        let from = best.from.unwrap();
        assert_eq!(trials[from - 1].stage, TrialStage::FineTuned);
        assert!(trials.iter().filter(|t| t.stage == TrialStage::FineTuned).skip(1).all(|t| t.from.is_some()));
    }

    #[test]
    fn files_that_are_smaller_than_asked_for_do_not_stop_the_walk() {
        for filled in [0.5, 0.8, 0.97] {
            let trials = walk_with(&Recipe::default(), filled, true, |density, _, trained| {
                if density >= if trained { 0.05 } else { 0.2 } { 0.99 } else { 0.9 }
            });
            assert!(trials.iter().any(|trial| trial.stage == TrialStage::FineTuned), "{filled}");
        }
    }

    #[test]
    fn what_the_common_recipe_prunes_and_shares_is_not_left_to_a_size() {
        let common = Recipe::from_json(r#"{"quantize": {"method": "uq", "levels": 9}}"#).unwrap();
        let trials = walk_with(&common, 1.0, true, |density, _, _| if density >= 0.1 { 0.99 } else { 0.9 });
        assert!(trials.iter().all(|trial| trial.recipe.target().is_none()));
        assert!(trials.iter().filter(|t| t.stage == TrialStage::FineTuned).all(|trial| levels(trial) == Some(9)));
    }

    #[test]
    fn stages_that_the_common_recipe_switches_off_stay_off() {
        for (off, stage) in [("prune", "quantize"), ("quantize", "prune")] {
            let common = Recipe::from_json(&json!({ off: null }).to_string()).unwrap();
            let trials = walk_with(
                &common,
                1.0,
                true,
                |density, levels, _| {
                    if density >= 0.1 && levels != 3 { 0.99 } else { 0.9 }
                },
            );
            let recipes: Vec<Value> = trials.iter().map(|t| serde_json::to_value(&t.recipe).unwrap()).collect();
            assert!(recipes.iter().all(|recipe| recipe[off] == "none"), "{recipes:?}");
            assert!(recipes.len() > 3 && recipes.iter().any(|recipe| recipe[stage].is_object()), "{recipes:?}");
        }
    }

    #[test]
    fn without_training_the_walk_ends_where_the_bound_breaks() {
        let trials = walk(false, |density, _, _| if density >= 0.3 { 0.99 } else { 0.9 });
        assert_eq!(trials.len(), 3, "ratios of 8, 12 and 16");
        assert!(!trials[2].is_within_bound());
    }

    #[test]
    fn where_nothing_keeps_the_bound_the_walk_gets_milder_in_the_end_without_loss() {
        let trials = walk(false, |density, levels, _| if density == 1.0 && levels == 1 { 0.99 } else { 0.9 });
        let recipes: Vec<Value> = trials.iter().map(|t| serde_json::to_value(&t.recipe).unwrap()).collect();
        assert_eq!(recipes.len(), 4, "ratios of 8, 4 and 2, and none: {recipes:?}");
        assert!(recipes[3]["prune"] == "none" && recipes[3]["quantize"] == "none" && trials[3].is_within_bound());
        let trials = walk(false, |density, _, _| if density >= 1.0 { 0.99 } else { 0.9 });
        assert_eq!(trials.len(), 2, "a ratio of 4 keeps it");
        let trials = walk(true, |density, levels, _| if density == 1.0 && levels == 1 { 0.99 } else { 0.9 });
        assert!(trials.iter().any(|trial| trial.stage == TrialStage::FineTuned), "training may do better");
    }

    #[test]
    fn the_largest_density_that_fits_a_size_is_approached_from_both_sides() {
        let mut tried: Vec<(f64, bool)> = Vec::new();
        while let Some(density) = next_density(&tried, false, || 0.2) {
            tried.push((density, density <= 0.11));
            assert!(tried.len() < 20);
        }
        let best = tried.iter().filter(|(_, kept)| *kept).map(|(d, _)| *d).fold(0.0, f64::max);
        assert!(best <= 0.11 && best * RESOLUTION >= 0.11, "{tried:?}");
    }
}
