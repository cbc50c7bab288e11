//! Recipe in, artifact and report out: the pipeline.

#[cfg(feature = "service")]
mod methods;
mod recipe;
mod report;

use std::path::Path;

use crate::model::Model;
use crate::progress::Progress;

#[cfg(feature = "service")]
pub use methods::{MethodDescription, Methods, PresetDescription, methods};
pub use recipe::{
    CodebookScope, CodecChoice, Encode, EncodeFields, Goal, LayerRule, LayerSettings, OpRule, Plain, Preset,
    PruneFields, Quantize, QuantizeFields, Recipe, RecipeError, Stage,
};
pub use report::{LayerReport, Report};

/// Compresses `model` by `recipe` into a file at `out` (created or replaced whole; nothing is left there on failure).
pub fn compress(model: &Model, recipe: &Recipe, out: &Path, progress: &dyn Progress) -> Result<Report, CompressError> {
    todo!()
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    #[error("cancelled")]
    Cancelled,
}
