//! What a search knows before its first trial, and what to try next.

use serde::{Deserialize, Serialize};

use super::spec::Bound;
use super::trial::{Outcome, Point, Proposal, Trial};
use super::walk::Facts;
use super::{Search, SearchEnd, SearchError, grid, report, walk};
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
        match &self.search.space {
            Some(space) => grid::next(space, &self.search.recipe, (self.bound, self.value.unwrap_or_default()), trials),
            None => walk::next(&self.search.recipe, self.bound, self.facts, trials),
        }
    }

    /// At most `most` trials to make beside those that are being made. They are those that would come next if all of `running`
    /// kept the bound, and if none did, so that some turn out to be needless.
    ///
    /// # Errors
    /// [`SearchError::Recipe`].
    pub fn ahead(&self, trials: &[Trial], running: &[Proposal], most: usize) -> Result<Vec<Proposal>, SearchError> {
        let mut found: Vec<Proposal> = Vec::new();
        let mut futures = [true, false].map(|kept| {
            let supposed = running.iter().map(|proposal| self.suppose(proposal.clone(), kept));
            (kept, trials.iter().cloned().chain(supposed).collect::<Vec<Trial>>())
        });
        // One more from each future in turn; futures that propose the same are told from each other a step later.
        for step in 0..futures.len() * (most + 1) {
            if found.len() == most {
                break;
            }
            let (kept, future) = &mut futures[step % 2];
            let Some(proposal) = self.next(future)? else { continue };
            let is_known = found.contains(&proposal) || running.contains(&proposal);
            let can_start = proposal.from.is_none_or(|from| trials.iter().any(|trial| trial.number == from));
            if !is_known && can_start {
                found.push(proposal.clone());
            }
            future.push(self.suppose(proposal, *kept));
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
