//! Recipes by name, for users who do not want to choose every number.
//!
//! The numbers were chosen on small trained networks (LeNets, a VGG, DeepDTA): one threshold for the whole network spares
//! the small first layers, which a threshold of their own ruins, and a uniform grid codes in fewer bytes than clusters do
//! at the same accuracy.

use serde::{Deserialize, Serialize};

use super::{CodebookScope, CodecChoice, EncodeFields, Level, Plain, PruneFields, QuantizeFields, Recipe, Stage};
use crate::prune::{Criterion, Scope, Sparsity};
use crate::quantize::{Levels, Method};

/// A starting point; it expands to the fields below and any of them can be set beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// No stage that loses anything.
    Lossless,
    /// A little pruning, plenty of values.
    Balanced,
    /// Much pruning, few values.
    Smallest,
}

impl Preset {
    /// Every preset, from the most careful on.
    pub const ALL: [Self; 3] = [Self::Lossless, Self::Balanced, Self::Smallest];

    /// What it is for, in a sentence.
    pub fn description(self) -> &'static str {
        match self {
            Self::Lossless => "Nothing is lost: no pruning, no sharing, the smallest exact code for every tensor.",
            Self::Balanced => {
                "Four of ten weights pruned over the whole network and a uniform grid of 63 values a layer: about an \
                 eighth of the size, at little or no loss on most networks."
            }
            Self::Smallest => {
                "Six of ten weights pruned over the whole network, a uniform grid of 31 values a layer and float16 for the \
                 rest: about a thirteenth of the size, at a loss to be measured before it is used."
            }
        }
    }

    pub(super) fn level(self) -> Level {
        let (sparsity, levels, plain) = match self {
            Self::Lossless => return Level { prune: Stage::Off, quantize: Stage::Off, ..Level::default() },
            Self::Balanced => (0.4, 63, None),
            Self::Smallest => (0.6, 31, Some(Plain::F16)),
        };
        let prune = PruneFields {
            criterion: Some(Criterion::Magnitude),
            sparsity: Sparsity::new(sparsity).ok(),
            scope: Some(Scope::Global),
            pattern: None,
        };
        let quantize = QuantizeFields {
            method: Some(Method::Uq),
            levels: Levels::new(levels).ok(),
            codebook: Some(CodebookScope::PerLayer),
            ..QuantizeFields::default()
        };
        let encode = EncodeFields { codec: Some(CodecChoice::Auto), plain, ..EncodeFields::default() };
        Level { skip: None, prune: Stage::On(prune), quantize: Stage::On(quantize), encode }
    }
}

impl From<Preset> for Recipe {
    fn from(preset: Preset) -> Self {
        let Level { prune, quantize, encode, .. } = preset.level();
        Self { preset: Some(preset), prune, quantize, encode, ..Self::default() }
    }
}
