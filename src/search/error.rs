//! Why a search could not be made.

use std::io;

use super::{Outcome, Trial};
use crate::compress::{CompressError, RecipeError};
use crate::evaluate::{EvaluateError, Metric};
use crate::infer::InferError;
use crate::model::ModelError;
use crate::progress::Cancelled;

/// Why a search could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// No bound, or several.
    #[error(
        "one bound is needed: max_drop, max_relative_drop, min_metric, max_metric or max_size_bytes; found {}",
        if given.is_empty() { "none" } else { given }
    )]
    Bounds { given: String },
    /// A number that makes no sense where it stands.
    #[error("{field} cannot be {found}")]
    Field { field: &'static str, found: f64 },
    /// A bound on a metric that counts the other way, or that version 0 has no value of its own for.
    #[error("{bound} is no bound for {}", metric.name())]
    Metric { metric: Metric, bound: String },
    /// A bound that no value of its metric keeps.
    #[error("{bound} cannot be {found}: the best {} is {}", metric.name(), metric.best())]
    Unreachable { metric: Metric, bound: String, found: f64 },
    /// A loss that a fraction cannot have: percent, most likely.
    #[error("{bound} cannot be {found}: {} is a fraction, five percent are 0.05", metric.name())]
    Percent { metric: Metric, bound: String, found: f64 },
    /// A metric that is not defined for version 0 on these samples.
    #[error("{} is not defined for version 0 on the validation split", metric.name())]
    Undefined { metric: Metric },
    /// A size for every trial, which is what a search chooses.
    #[error("recipe.target is what a search chooses: give the bound max_size_bytes instead")]
    Target,
    /// A metric of an artifact that is infinite or no number.
    #[error("{} is not finite: the artifact's outputs are not", metric.name())]
    NotFinite { metric: Metric },
    /// A space with no setting in it.
    #[error("the space is empty: it needs sparsity, levels or methods")]
    EmptySpace,
    /// More combinations than can be tried.
    #[error("the space has more than {max} combinations")]
    SpaceTooLarge { max: usize },
    /// Nothing to select by.
    #[error(
        "there is no validation split to select by: give the dataset an array `split` (0 train, 1 validation, 2 test), or a \
         mapping for each split"
    )]
    NoValidation,
    /// One split twice.
    #[error("the validation split and the {split} split are the same samples")]
    SameSamples { split: &'static str },
    /// Settings of a trial that do not make a recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Not one trial could be measured.
    #[error("no trial could be measured; the first: {reason}")]
    NoTrial { reason: String },
    /// The folder holds the trials of another search.
    #[error("the folder holds trials of another model, search or dataset: take another folder")]
    OtherSearch,
    /// The caller asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The folder of the trials failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The model could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A version could not be run.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A version could not be measured.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A model could not be compressed for a reason that no recipe mends.
    #[error(transparent)]
    Compress(#[from] CompressError),
}

impl SearchError {
    /// That none of `trials` was measured.
    pub(crate) fn no_trial(trials: &[Trial]) -> Self {
        let reason = trials.iter().find_map(|trial| match &trial.outcome {
            Outcome::Failed { reason } => Some(reason.clone()),
            Outcome::Measured(_) => None,
        });
        Self::NoTrial { reason: reason.unwrap_or_default() }
    }
}
