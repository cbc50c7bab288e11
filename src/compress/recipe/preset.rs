//! Recipes by name, for users who do not want to choose every number.

use serde::{Deserialize, Serialize};

use super::{EncodeFields, Level, Plain, PruneFields, QuantizeFields, Stage};
use crate::prune::Sparsity;
use crate::quantize::{Levels, Method};

/// A starting point; it expands to the fields below and any of them can be set beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Nothing is lost: no pruning, no sharing, the smallest exact code for every tensor.
    Lossless,
    /// A third of the weights pruned, 31 shared values a layer: small, and most networks keep their quality.
    Balanced,
    /// Nine of ten weights pruned over the whole network, 15 shared values, float16 for the rest: as small as it goes,
    /// meant to be followed by fine-tuning.
    Smallest,
}

impl Preset {
    pub(super) fn level(self) -> Level {
        let (sparsity, levels) = match self {
            Self::Lossless => {
                return Level { prune: Stage::Off, quantize: Stage::Off, ..Level::default() };
            }
            Self::Balanced => (0.33, 31),
            Self::Smallest => (0.9, 15),
        };
        let prune = PruneFields { sparsity: Sparsity::new(sparsity).ok(), ..PruneFields::default() };
        let quantize =
            QuantizeFields { method: Some(Method::Cws), levels: Levels::new(levels).ok(), ..QuantizeFields::default() };
        let plain = (self == Self::Smallest).then_some(Plain::F16);
        Level {
            skip: None,
            prune: Stage::On(prune),
            quantize: Stage::On(quantize),
            encode: EncodeFields { plain, ..EncodeFields::default() },
        }
    }
}
