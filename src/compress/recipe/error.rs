//! What is wrong with a recipe, and where.

use super::{PruneFields, QuantizeFields, Stage};
use crate::prune::{Criterion, Scope};
use crate::quantize::Method;

/// Why JSON is not a recipe.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// A field is unknown, has the wrong type, or a value outside its range.
    #[error("{field}: {reason}")]
    Field {
        /// Path of the field, e.g. `layers[2].quantize.levels`; `recipe` for the whole.
        field: String,
        /// What the parser found, with line and column.
        reason: String,
    },
    /// Two fields that say the same thing.
    #[error("{stage}: give either levels or bits, not both")]
    LevelsAndBits {
        /// Path of the stage.
        stage: String,
    },
    /// A target size, which calibration meets by pruning and sharing, and training between the two.
    #[error(
        "with a target, only shared values are trained: finetune.epochs must be 0, reassign false, and sharing_epochs says how long"
    )]
    TargetAndEpochs,
    /// A criterion that compares the weights of one layer, over all layers.
    #[error("{stage}: wanda compares the weights of one layer, so its scope is tensor or row")]
    GlobalWanda {
        /// Path of the stage.
        stage: String,
    },
    /// A weighting for a quantiser that has none.
    #[error("{stage}: only cws and ecsq have a weighting")]
    Weighting {
        /// Path of the stage.
        stage: String,
    },
    /// A tolerance for a quantiser that has none.
    #[error("{stage}: only ecsq has a tolerance")]
    Tolerance {
        /// Path of the stage.
        stage: String,
    },
}

impl RecipeError {
    pub(super) fn from_parser(path: &serde_path_to_error::Path, error: &serde_json::Error) -> Self {
        let field = if path.iter().len() == 0 { "recipe".to_owned() } else { path.to_string() };
        Self::Field { field, reason: error.to_string() }
    }

    pub(super) fn from_trailing(error: serde_json::Error) -> Self {
        Self::Field { field: "recipe".to_owned(), reason: error.to_string() }
    }
}

/// Checks the fields of one level's pruning against each other.
pub(super) fn check_prune(stage: &str, prune: &Stage<PruneFields>) -> Result<(), RecipeError> {
    match prune.fields().is_some_and(ranks_globally_by_wanda) {
        true => Err(RecipeError::GlobalWanda { stage: stage.to_owned() }),
        false => Ok(()),
    }
}

/// Whether they are said to compare weights of several layers by a criterion that cannot.
pub(super) fn ranks_globally_by_wanda(fields: &PruneFields) -> bool {
    (fields.criterion, fields.scope) == (Some(Criterion::Wanda), Some(Scope::Global))
}

/// Checks the fields of one level's quantiser against each other.
pub(super) fn check_quantize(stage: &str, quantize: &Stage<QuantizeFields>) -> Result<(), RecipeError> {
    let Some(fields) = quantize.fields() else { return Ok(()) };
    if fields.levels.is_some() && fields.bits.is_some() {
        return Err(RecipeError::LevelsAndBits { stage: stage.to_owned() });
    }
    if fields.tolerance.is_some() && fields.method.is_some_and(|method| method != Method::Ecsq) {
        return Err(RecipeError::Tolerance { stage: stage.to_owned() });
    }
    if fields.weighting.is_some() && fields.method.is_some_and(|method| matches!(method, Method::Pws | Method::Uq)) {
        return Err(RecipeError::Weighting { stage: stage.to_owned() });
    }
    Ok(())
}
