//! The recipe.
use serde::{Deserialize, Serialize};

/// See DESIGN: prune, quantize, encode, seed, by_op, layers, preset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {}
