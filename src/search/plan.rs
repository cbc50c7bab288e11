//! What a search knows before its first trial, and what to try next.

use serde::{Deserialize, Serialize};

use super::grid::Grid;
use super::spec::Bound;
use super::trial::{Outcome, Point, Proposal, Trial};
use super::walk::Facts;
use super::{Search, SearchEnd, SearchError, report, walk};
use crate::evaluate::Metric;

/// A search whose bound is known: what it takes to propose trials, without the model and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub(super) search: Search,
    pub(super) bound: Bound,
    /// Version 0's value of the metric on the validation split; `None` for a metric that compares with version 0.
    pub(super) value: Option<f64>,
    /// Samples of the validation split.
    pub(super) samples: u64,
    pub(super) facts: Facts,
}

impl Plan {
    /// What the bound is about.
    pub(super) fn metric(&self) -> Metric {
        self.bound.metric()
    }

    /// Why no trial may follow those that are finished, if so; `Complete` is for [`Plan::next`] to say.
    pub fn exhausted(&self, trials: &[Trial]) -> Option<SearchEnd> {
        let budget = self.search.budget;
        let spent: f64 = trials.iter().map(|trial| trial.seconds).sum();
        match budget.seconds {
            Some(seconds) if spent >= seconds => Some(SearchEnd::Seconds),
            _ => (trials.len() >= budget.trials).then_some(SearchEnd::Trials),
        }
    }

    /// How many trials there may be.
    pub fn max_trials(&self) -> usize {
        self.search.budget.trials
    }

    /// The trial to make after `trials`, all finished; `None` once nothing is left to try.
    ///
    /// # Errors
    /// [`SearchError::Recipe`].
    pub fn next(&self, trials: &[Trial]) -> Result<Option<Proposal>, SearchError> {
        self.course(trials).next()
    }

    /// The search as it is after `trials`.
    pub(super) fn course(&self, trials: &[Trial]) -> Course<'_> {
        let mut course = match &self.search.space {
            Some(space) => {
                Course::Grid(Grid::new(space, &self.search.recipe, (self.bound, self.value.unwrap_or_default())))
            }
            None => Course::Walk { plan: self, trials: Vec::new() },
        };
        trials.iter().for_each(|trial| course.add(trial.clone()));
        course
    }

    /// At most `most` trials to make beside those that are being made: those that would come next if all of `running` kept the bound,
    /// and if none did, so that some turn out to be needless. A walk begins with one trial, by which it knows sizes.
    ///
    /// # Errors
    /// [`SearchError::Recipe`].
    pub fn speculative(
        &self,
        trials: &[Trial],
        running: &[Proposal],
        most: usize,
    ) -> Result<Vec<Proposal>, SearchError> {
        let mut found: Vec<Proposal> = Vec::new();
        if self.search.space.is_none() && trials.is_empty() {
            return Ok(found);
        }
        let mut futures = [true, false].map(|kept| {
            let mut course = self.course(trials);
            running.iter().for_each(|proposal| course.add(self.suppose(proposal.clone(), kept)));
            (kept, course)
        });
        // One more from each future in turn; those that propose the same are told from each other a step later.
        for step in 0..futures.len() * (most + 1) {
            if found.len() == most {
                break;
            }
            let (kept, future) = &mut futures[step % 2];
            let Some(proposal) = future.next()? else { continue };
            let is_known = found.contains(&proposal) || running.contains(&proposal);
            let can_start = proposal.from.is_none_or(|from| trials.iter().any(|trial| trial.number == from));
            if !is_known && can_start {
                found.push(proposal.clone());
            }
            future.add(self.suppose(proposal, *kept));
        }
        Ok(found)
    }

    /// A trial that ended as is supposed: at the bound, so that it says as little as can be.
    fn suppose(&self, proposal: Proposal, kept: bool) -> Trial {
        let Proposal { stage, from, recipe } = proposal;
        let value = match self.bound {
            Bound::Quality { worst, .. } => worst,
            Bound::Size { .. } => self.value.unwrap_or_default(),
        };
        let point = Point {
            size_bytes: self.facts.skipped_bytes,
            ratio: 1.0,
            psi: 0.0,
            sparsity: 0.0,
            value,
            is_within_bound: kept,
        };
        // No trial has this number, so that nothing starts from it.
        Trial { number: usize::MAX, stage, from, recipe, outcome: Outcome::Measured(point), seconds: 0.0 }
    }

    /// The trial to keep: the best that keeps the bound, or, where none does, the nearest; `None` where none was measured.
    pub fn choose<'a>(&self, trials: &'a [Trial]) -> Option<&'a Trial> {
        report::choose(self.bound, trials)
    }

    /// What people read while a trial is made: which one it is, and the best so far.
    pub fn describe(&self, number: usize, trials: &[Trial]) -> String {
        let best = self.choose(trials).filter(|trial| trial.is_within_bound());
        let best = best.and_then(Trial::point).map(|point| format!(", best so far {:.1} times", point.ratio));
        format!("trial {number}{}", best.unwrap_or_default())
    }
}

/// A search so far, as it was or as it is supposed to go on.
pub(super) enum Course<'a> {
    Grid(Grid<'a>),
    Walk { plan: &'a Plan, trials: Vec<Trial> },
}

impl Course<'_> {
    /// Takes note of a trial.
    pub(super) fn add(&mut self, trial: Trial) {
        match self {
            Self::Grid(grid) => grid.add(&trial),
            Self::Walk { trials, .. } => trials.push(trial),
        }
    }

    /// The trial to make now; `None` once nothing is left to try.
    pub(super) fn next(&self) -> Result<Option<Proposal>, SearchError> {
        match self {
            Self::Grid(grid) => grid.next(),
            Self::Walk { plan, trials } => walk::next(&plan.search.recipe, plan.bound, plan.facts, trials),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::search::TrialStage;

    fn plan(search: serde_json::Value) -> Plan {
        let search: Search = serde_json::from_value(search).unwrap();
        let bound = search.bound(Metric::Accuracy, 0.95);
        let facts = Facts { calibrates: true, finetunes: true, layer_bytes: 1_000_000, skipped_bytes: 0 };
        Plan { search, bound, value: Some(0.95), samples: 100, facts }
    }

    /// A trial that ended as `kept` says.
    fn ended(plan: &Plan, number: usize, proposal: Proposal, kept: bool) -> Trial {
        Trial { number, ..plan.suppose(proposal, kept) }
    }

    #[test]
    fn what_comes_next_either_way_is_made_ahead() {
        let plan = plan(json!({"max_drop": 0.01}));
        let first = plan.next(&[]).unwrap().unwrap();
        assert_eq!(plan.speculative(&[], std::slice::from_ref(&first), 4).unwrap(), []);
        let trials = [ended(&plan, 1, first, true)];
        let second = plan.next(&trials).unwrap().unwrap();
        let ahead = plan.speculative(&trials, std::slice::from_ref(&second), 4).unwrap();
        assert_eq!(ahead.len(), 4);
        let all: Vec<&Proposal> = std::iter::once(&second).chain(&ahead).collect();
        assert!(all.iter().enumerate().all(|(i, one)| !all[..i].contains(one)), "{all:?}");
        for kept in [true, false] {
            let trials = [trials[0].clone(), ended(&plan, 2, second.clone(), kept)];
            assert!(ahead.contains(&plan.next(&trials).unwrap().unwrap()), "{kept}");
        }
        // What ends before an earlier one is not made again.
        let out_of_order = [trials[0].clone(), ended(&plan, 3, ahead[0].clone(), true)];
        assert_eq!(plan.next(&out_of_order).unwrap(), Some(second));
    }

    #[test]
    fn nothing_ahead_starts_from_weights_that_are_not_there() {
        let recipe = json!({"prune": {"sparsity": 0}, "quantize": {"levels": 7}, "finetune": {"epochs": 2}});
        let space = json!({"sparsity": [0.5, 0.8], "levels": [3, 7], "exhaustive": true});
        let plan = plan(json!({"max_drop": 0.01, "recipe": recipe, "space": space}));
        let first = plan.next(&[]).unwrap().unwrap();
        let ahead = plan.speculative(&[], std::slice::from_ref(&first), 3).unwrap();
        assert!(
            ahead.iter().all(|proposal| proposal.stage == TrialStage::Grid && proposal.from.is_none()),
            "{ahead:?}"
        );
        let trials = [ended(&plan, 1, first, true)];
        let next = plan.next(&trials).unwrap().unwrap();
        let ahead = plan.speculative(&trials, std::slice::from_ref(&next), 3).unwrap();
        assert!(ahead.iter().chain([&next]).any(|proposal| proposal.from == Some(1)), "{ahead:?}");
    }

    #[test]
    fn the_budget_ends_a_search() {
        let plan = plan(json!({"max_drop": 0.01, "budget": {"trials": 1}}));
        let first = plan.next(&[]).unwrap().unwrap();
        assert_eq!(plan.exhausted(&[]), None);
        assert_eq!(plan.exhausted(&[ended(&plan, 1, first, true)]), Some(SearchEnd::Trials));
    }
}
