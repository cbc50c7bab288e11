//! Recipes by name, for users who do not want to choose every number.

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
                "A third of the weights pruned and 31 shared values a layer: most networks keep their quality."
            }
            Self::Smallest => {
                "Nine of ten weights pruned over the whole network, 15 shared values, float16 for the rest: the smallest \
                 file, meant to be followed by fine-tuning."
            }
        }
    }

    pub(super) fn level(self) -> Level {
        let (sparsity, scope, levels, plain) = match self {
            Self::Lossless => return Level { prune: Stage::Off, quantize: Stage::Off, ..Level::default() },
            Self::Balanced => (0.33, Scope::Tensor, 31, None),
            Self::Smallest => (0.9, Scope::Global, 15, Some(Plain::F16)),
        };
        let prune = PruneFields {
            criterion: Some(Criterion::Magnitude),
            sparsity: Sparsity::new(sparsity).ok(),
            scope: Some(scope),
        };
        let quantize = QuantizeFields {
            method: Some(Method::Cws),
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
