//! Predictions: a graph run on compressed weights.

mod absorb;
mod allowance;
mod array;
mod error;
mod form;
mod guard;
mod layerwise;
mod measure;
mod plan;
mod ports;
mod predictor;
mod product;
mod profile;
mod restore;
mod rewrite;
mod widen;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use allowance::{DEFAULT_TENSOR_BYTES, Excess, max_tensor_bytes, set_max_tensor_bytes};
pub use array::{Array, ArrayData, ArrayError, Datatype};
pub use error::{Fault, InferError};
pub use form::{Form, HeldWeight};
pub(crate) use layerwise::{Channels, Layerwise, Moments, Normalized, Reached, Renewed, Visitor};
pub use predictor::{Predictor, unsupported_operators};
pub(crate) use product::NORMALIZATION_EPSILON;
pub use profile::Profile;

/// How a served version holds its weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema, clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Residency {
    /// Each weight in whichever of the following forms a short measurement at load finds fastest within the memory budget.
    #[default]
    Auto,
    /// As entries or symbols made for products: about 16 bits a non-zero.
    Packed,
    /// As encoded; products decode as they go, look-ups the rows that they are asked for.
    Coded,
    /// Expanded at load.
    Dense,
}
