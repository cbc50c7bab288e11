//! What a recipe comes to for one layer: every field concrete.

use serde::{Deserialize, Serialize};

use crate::codec::CodecId;
use crate::prune::Prune;
use crate::quantize::Quantizer;

/// Everything the pipeline needs to know of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSettings {
    /// The layer stays as it was uploaded, uncompressed.
    pub skip: bool,
    /// `None`: no weight is removed.
    pub prune: Option<Prune>,
    /// `None`: every weight keeps its exact value.
    pub quantize: Option<Quantize>,
    /// How the result is written.
    pub encode: Encode,
}

/// How the values of one layer are shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantize {
    /// The method and its settings, seed included.
    pub quantizer: Quantizer,
    /// Who shares the codebook.
    pub codebook: CodebookScope,
    /// How a weight takes one of the shared values.
    pub rounding: Rounding,
    /// How much each weight counts where the values are chosen.
    pub weighting: Weighting,
}

/// How much each weight counts where the shared values are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// All alike.
    #[default]
    None,
    /// By the mean square of its input on a calibration set: the diagonal of the layer's Hessian.
    Hessian,
}

impl Quantize {
    /// Whether it looks at a layer's inputs.
    pub fn needs_data(&self) -> bool {
        self.rounding == Rounding::Feedback || self.weighting == Weighting::Hessian
    }
}

/// How a weight takes one of the shared values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// As the quantiser says, each weight on its own: mostly the nearest value.
    #[default]
    Nearest,
    /// Weights of a row make up for each other's errors, so that the layer's outputs on a calibration set change least.
    Feedback,
}

/// Who shares a codebook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CodebookScope {
    /// Each layer has its own.
    #[default]
    PerLayer,
    /// One for all dense layers and one for all convolutional layers, among layers of one element type with the same
    /// quantiser settings.
    Unified,
}

/// How one layer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Encode {
    /// Which codec.
    pub codec: CodecChoice,
    /// What `auto` looks for.
    pub goal: Goal,
    /// How a small tensor that is not compressed (a bias, a normalisation parameter) is stored.
    pub plain: Plain,
    /// Whether hidden units may change places; `None`: where the goal is [`Goal::Smallest`] and a weight is pruned or shared.
    pub reorder: Option<bool>,
    /// Whether hidden units that nobody reads, or that are constant, are taken out; `None`: as [`Encode::reorder`].
    pub remove: Option<bool>,
    /// Whether copies among hidden units are merged where that saves bytes; `None`: as [`Encode::reorder`].
    pub merge: Option<bool>,
    /// Which units of a weight without a graph may change places.
    pub free_units: Option<FreeUnits>,
}

/// One codec, or the best for each tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodecChoice {
    /// The best for each tensor under the [`Goal`].
    #[default]
    Auto,
    /// This one for every tensor that it can represent.
    Only(CodecId),
}

/// What the codec `auto` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The fewest bytes.
    #[default]
    Smallest,
    /// Few bytes, in a codec that products run on: loading decodes nothing, and compressing takes no long time.
    Serving,
}

impl Goal {
    /// The codecs to choose from.
    pub fn codecs(self) -> &'static [CodecId] {
        match self {
            Self::Smallest => CodecId::ALL,
            Self::Serving => CodecId::SERVING,
        }
    }
}

/// Which units of a weight without a graph may change places. The weight is stored with them in their new places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FreeUnits {
    /// The second dimension.
    Inputs,
    /// The first dimension.
    Outputs,
    /// The first two dimensions, each on its own.
    Both,
}

/// How a float32 tensor that is not compressed is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Plain {
    /// As it was uploaded.
    #[default]
    AsIs,
    /// Rounded to float16.
    F16,
}
