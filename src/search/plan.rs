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

    /// Why no trial may follow `course`, of all that were `made`, if so; `Complete` is for [`Plan::next`] to say.
    pub fn exhausted(&self, course: &[Trial], made: &[Trial]) -> Option<SearchEnd> {
        let budget = self.search.budget;
        let spent: f64 = made.iter().map(|trial| trial.seconds).sum();
        match budget.seconds {
            Some(seconds) if spent >= seconds => Some(SearchEnd::Seconds),
            _ => (course.len() >= budget.trials).then_some(SearchEnd::Trials),
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

    /// What the metric's bound allows a loss from: version 0's value; for a metric that compares with version 0, its best.
    fn original(&self) -> f64 {
        self.value.unwrap_or(Some(self.metric().best()).filter(|best| best.is_finite()).unwrap_or_default())
    }

    /// The search as it is after `trials`.
    pub(super) fn course(&self, trials: &[Trial]) -> Course<'_> {
        let mut course = match &self.search.space {
            Some(space) => Course::Grid(Grid::new(space, &self.search.recipe, (self.bound, self.original()))),
            None => Course::Walk { plan: self, trials: Vec::new() },
        };
        trials.iter().for_each(|trial| course.add(trial));
        course
    }

    /// Of `trials`, those that a search would have made that makes one at a time; the budget counts them. Others were made ahead,
    /// for what did not come. Of a space that is all: in whatever order, it comes to the same.
    ///
    /// # Errors
    /// [`SearchError::Recipe`].
    pub fn replay(&self, trials: &[Trial]) -> Result<Vec<Trial>, SearchError> {
        if self.search.space.is_some() {
            return Ok(trials.to_vec());
        }
        let (mut course, mut made) = (self.course(&[]), Vec::new());
        while made.len() < self.max_trials() {
            let Some(proposal) = course.next()? else { break };
            let Some(trial) = trials.iter().find(|trial| proposal.is_made_by(trial)) else { break };
            course.add(trial);
            made.push(trial.clone());
        }
        Ok(made)
    }

    /// At most `most` trials to make beside `next`, which comes after those of `course`: those that would follow if it, and they, kept
    /// the bound, and if not, so that some turn out to be needless. Those in `made` need not be made again. A walk begins with one
    /// trial, by which it knows sizes.
    ///
    /// # Errors
    /// [`SearchError::Recipe`].
    pub fn speculative(
        &self,
        course: &[Trial],
        next: &Proposal,
        made: &[Trial],
        most: usize,
    ) -> Result<Vec<Proposal>, SearchError> {
        let mut found: Vec<Proposal> = Vec::new();
        if self.search.space.is_none() && course.is_empty() {
            return Ok(found);
        }
        let mut futures = [true, false].map(|kept| {
            let mut future = self.course(course);
            future.add(&self.suppose(next.clone(), kept));
            (kept, future)
        });
        // One more from each future in turn; those that propose the same are told from each other a step later.
        for step in 0..futures.len() * (most + made.len().saturating_sub(course.len()) + 1) {
            if found.len() == most {
                break;
            }
            let (kept, future) = &mut futures[step % 2];
            let Some(proposal) = future.next()? else { continue };
            if let Some(trial) = made.iter().find(|trial| proposal.is_made_by(trial)) {
                future.add(trial);
                continue;
            }
            let can_start = proposal.from.is_none_or(|from| made.iter().any(|trial| trial.number == from));
            if !found.contains(&proposal) && can_start {
                found.push(proposal.clone());
            }
            future.add(&self.suppose(proposal, *kept));
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
            size_bytes: self.facts.other_bytes,
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
    pub(super) fn add(&mut self, trial: &Trial) {
        match self {
            Self::Grid(grid) => grid.add(trial),
            Self::Walk { trials, .. } => trials.push(trial.clone()),
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
        let facts = Facts { calibrates: true, finetunes: true, layer_bytes: 1_000_000, other_bytes: 0 };
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
        assert_eq!(plan.speculative(&[], &first, &[], 4).unwrap(), []);
        let trials = [ended(&plan, 1, first, true)];
        let second = plan.next(&trials).unwrap().unwrap();
        let ahead = plan.speculative(&trials, &second, &trials, 4).unwrap();
        assert_eq!(ahead.len(), 4);
        let all: Vec<&Proposal> = std::iter::once(&second).chain(&ahead).collect();
        assert!(all.iter().enumerate().all(|(i, one)| !all[..i].contains(one)), "{all:?}");
        for kept in [true, false] {
            let trials = [trials[0].clone(), ended(&plan, 2, second.clone(), kept)];
            assert!(ahead.contains(&plan.next(&trials).unwrap().unwrap()), "{kept}");
        }
    }

    #[test]
    fn trials_that_end_in_any_order_are_told_from_those_that_came_to_nothing() {
        let plan = plan(json!({"max_drop": 0.01}));
        let trials = [ended(&plan, 1, plan.next(&[]).unwrap().unwrap(), true)];
        let second = plan.next(&trials).unwrap().unwrap();
        let ahead = plan.speculative(&trials, &second, &trials, 2).unwrap();
        let early = |number, index: usize| ended(&plan, number, ahead[index].clone(), true);
        let early = [trials[0].clone(), early(3, 0), early(4, 1)];
        let course = plan.replay(&early).unwrap();
        assert_eq!(course, trials, "what follows the second waits for it");
        assert_eq!(plan.next(&course).unwrap().as_ref(), Some(&second));
        // What is there is not made again.
        let more = plan.speculative(&course, &second, &early, 4).unwrap();
        assert!(more.iter().all(|proposal| !early.iter().any(|trial| proposal.is_made_by(trial))), "{more:?}");
        let all = [&early[..], &[ended(&plan, 2, second, true)]].concat();
        let numbers: Vec<usize> = plan.replay(&all).unwrap().iter().map(|trial| trial.number).collect();
        assert_eq!(numbers[..3], [1, 2, 3]);
        assert!(!numbers.contains(&4), "made for a future that did not come: {numbers:?}");
    }

    #[test]
    fn nothing_ahead_starts_from_weights_that_are_not_there() {
        let recipe = json!({"prune": {"sparsity": 0}, "quantize": {"levels": 7}, "finetune": {"epochs": 2}});
        let space = json!({"sparsity": [0.5, 0.8], "levels": [3, 7], "exhaustive": true});
        let plan = plan(json!({"max_drop": 0.01, "recipe": recipe, "space": space}));
        let first = plan.next(&[]).unwrap().unwrap();
        let ahead = plan.speculative(&[], &first, &[], 3).unwrap();
        assert!(
            ahead.iter().all(|proposal| proposal.stage == TrialStage::Grid && proposal.from.is_none()),
            "{ahead:?}"
        );
        let trials = [ended(&plan, 1, first, true)];
        let next = plan.next(&trials).unwrap().unwrap();
        let ahead = plan.speculative(&trials, &next, &trials, 3).unwrap();
        assert!(ahead.iter().chain([&next]).any(|proposal| proposal.from == Some(1)), "{ahead:?}");
    }

    #[test]
    fn the_budget_ends_a_search() {
        let plan = plan(json!({"max_drop": 0.01, "budget": {"trials": 1}}));
        let first = plan.next(&[]).unwrap().unwrap();
        assert_eq!(plan.exhausted(&[], &[]), None);
        let made = [ended(&plan, 1, first, true)];
        assert_eq!(plan.exhausted(&made, &made), Some(SearchEnd::Trials));
    }
}
