//! One trial: a recipe, and what came of it.

use serde::{Deserialize, Serialize};

use crate::compress::Recipe;

/// A recipe that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Trial {
    /// Counted from 1; of trials that were made at the same time, some are missing: those that turned out to be needless.
    pub number: usize,
    /// What part of the search it belongs to.
    pub stage: TrialStage,
    /// The trial whose fine-tuned weights it started from; the upload when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<usize>,
    /// What was done.
    pub recipe: Recipe,
    /// What came of it.
    pub outcome: Outcome,
    /// Time of the work: compressing and measuring.
    pub seconds: f64,
}

/// What part of a search a trial belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TrialStage {
    /// A combination of the space that was given.
    Grid,
    /// Without training.
    OneShot,
    /// Calibrated to a size, the values that weights share then fine-tuned.
    Calibrated,
    /// Pruned and fine-tuned.
    FineTuned,
    /// Weights that an earlier trial pruned and fine-tuned, shared in another way.
    Shared,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// It was compressed and measured on the validation split.
    Measured(Point),
    /// It could not be.
    Failed {
        /// For people.
        reason: String,
    },
}

/// Size and quality of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Point {
    /// The whole artifact.
    pub size_bytes: u64,
    /// Bytes of the upload / `size_bytes`.
    pub ratio: f64,
    /// Bytes of all streams and codebooks / (4 x weights), of the compressed layers.
    pub psi: f64,
    /// Fraction of the weights that are zero.
    pub sparsity: f64,
    /// The metric on the validation split.
    pub value: f64,
    /// Whether the bound is kept.
    pub is_within_bound: bool,
}

impl Proposal {
    /// Whether `trial` came of it, or of one that differs in nothing but where it starts.
    pub(super) fn is_made_by(&self, trial: &Trial) -> bool {
        self.stage == trial.stage && self.recipe == trial.recipe
    }
}

impl Trial {
    /// One that is still to be made.
    pub fn of(number: usize, proposal: Proposal) -> Self {
        let Proposal { stage, from, recipe } = proposal;
        Self { number, stage, from, recipe, outcome: Outcome::Failed { reason: String::new() }, seconds: 0.0 }
    }

    /// Size and quality, where it was measured.
    pub fn point(&self) -> Option<&Point> {
        match &self.outcome {
            Outcome::Measured(point) => Some(point),
            Outcome::Failed { .. } => None,
        }
    }

    /// Whether it was measured and keeps the bound.
    pub fn is_within_bound(&self) -> bool {
        self.point().is_some_and(|point| point.is_within_bound)
    }
}

/// A trial to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// What part of the search it belongs to.
    pub stage: TrialStage,
    /// The trial whose fine-tuned weights it starts from; the upload when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<usize>,
    /// What is to be done.
    pub recipe: Recipe,
}
