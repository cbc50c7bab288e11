//! The fields of each stage as a recipe writes them: every one may be left out, at any level.
//!
//! [`LayerSettings`](super::LayerSettings) is what they come to; the ranges are those of the newtypes.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::stage::Overlay;
use super::{CodebookScope, CodecChoice, Encode, FreeUnits, Goal, Plain, Quantize, Rounding, Weighting};
use crate::codec::CodecId;
use crate::prune::{Criterion, Pattern, Prune, Scope, Sparsity};
use crate::quantize::{Bits, Budget, Cws, Ecsq, Levels, Method, Pws, Quantizer, Tolerance, Uq};

/// What a recipe says of pruning.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PruneFields {
    /// What makes a weight worth keeping.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "magnitude"))]
    pub criterion: Option<Criterion>,
    /// The fraction of weights to set to zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(value_type = Option<f64>, minimum = 0, exclusive_maximum = 1, default = 0.5))]
    pub sparsity: Option<Sparsity>,
    /// Which weights are ranked together. `wanda` compares those of one layer: `global`, said elsewhere, is `tensor` to it. `lamp` is
    /// made for `global`: within a layer it ranks as `magnitude` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "tensor"))]
    pub scope: Option<Scope>,
    /// Instead of `sparsity` and `scope`: `n:m` keeps n of every m consecutive weights of a row, such as `2:4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(value_type = Option<String>, example = "2:4"))]
    pub pattern: Option<Pattern>,
}

/// What a recipe says of weight sharing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QuantizeFields {
    /// The quantiser.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "cws"))]
    pub method: Option<Method>,
    /// Most distinct non-zero values. Zero is a further symbol wherever a weight is zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(value_type = Option<u32>, minimum = 1, maximum = 65535, default = 32))]
    pub levels: Option<Levels>,
    /// Instead of `levels`: bits a weight. `ecsq` keeps the entropy of the surviving weights' values within them; the
    /// other methods take the `floor(2^bits) - 1` levels that, with zero, fill symbols of this width.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 16))]
    pub bits: Option<Bits>,
    /// Who shares the codebook.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "per_layer"))]
    pub codebook: Option<CodebookScope>,
    /// `ecsq` only: it stops once a round improves its objective by no more than this fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 1, default = 1e-4))]
    pub tolerance: Option<Tolerance>,
    /// How a weight takes one of the shared values. `feedback` looks at a layer's inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "nearest"))]
    pub rounding: Option<Rounding>,
    /// `cws` and `ecsq` only: how much each weight counts where the values are chosen. `hessian` looks at a layer's inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "none"))]
    pub weighting: Option<Weighting>,
}

/// What a recipe says of the encoding.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EncodeFields {
    /// One codec, or `auto`: the best for each tensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "auto"))]
    pub codec: Option<CodecChoice>,
    /// What `auto` looks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "smallest"))]
    pub goal: Option<Goal>,
    /// How float32 tensors that are not compressed (biases, normalisation parameters) are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline, default = "as_is"))]
    pub plain: Option<Plain>,
    /// Whether hidden units may change places, in all tensors at once, so that similar ones are neighbours: predictions are
    /// the same but for rounding. Left out, they may where the goal is `smallest` and a weight of theirs is pruned or shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<bool>,
    /// Whether hidden units that every product multiplies by zero, and those that are the same for every input, are taken out
    /// of all tensors. Biases take what the latter add to a product: predictions are the same but for rounding. Left out, they
    /// are where `reorder` would be allowed by the rest of the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<bool>,
    /// Whether hidden units that are copies of each other, bit by bit, are merged where the tensors get smaller: one stays, and
    /// is multiplied by the sums of their weights, so a layer may get more `levels`. Predictions are the same but for rounding.
    /// Left out, they are where `reorder` would be allowed by the rest of the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<bool>,
    /// For weights without a graph: whose order does not matter, the inputs' (the second dimension), the outputs' (the first)
    /// or `both`. The weights are stored, and exported, in the new order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline))]
    pub free_units: Option<FreeUnits>,
}

impl PruneFields {
    /// The settings, with defaults where nothing is said.
    pub(super) fn settings(&self) -> Prune {
        let (criterion, scope) = (self.criterion.unwrap_or_default(), self.scope.unwrap_or_default());
        let scope = if (criterion, scope) == (Criterion::Wanda, Scope::Global) { Scope::Tensor } else { scope };
        Prune { criterion, sparsity: self.sparsity.unwrap_or_default(), scope, pattern: self.pattern }
    }
}

impl QuantizeFields {
    /// The settings, with defaults where nothing is said.
    pub(super) fn settings(&self, seed: u64) -> Quantize {
        let levels = match self.bits {
            Some(bits) => bits.levels(),
            None => self.levels.unwrap_or_default(),
        };
        let quantizer = match self.method.unwrap_or_default() {
            Method::Cws => Quantizer::Cws(Cws { levels }),
            Method::Pws => Quantizer::Pws(Pws { levels, seed }),
            Method::Uq => Quantizer::Uq(Uq { levels }),
            Method::Ecsq => Quantizer::Ecsq(Ecsq {
                budget: self.bits.map_or(Budget::Levels(levels), Budget::Bits),
                tolerance: self.tolerance.unwrap_or_default(),
            }),
        };
        Quantize {
            quantizer,
            codebook: self.codebook.unwrap_or_default(),
            rounding: self.rounding.unwrap_or_default(),
            weighting: self.weighting.unwrap_or_default(),
        }
    }
}

impl EncodeFields {
    /// The settings, with defaults where nothing is said.
    pub(super) fn settings(&self) -> Encode {
        Encode {
            codec: self.codec.unwrap_or_default(),
            goal: self.goal.unwrap_or_default(),
            plain: self.plain.unwrap_or_default(),
            reorder: self.reorder,
            remove: self.remove,
            merge: self.merge,
            free_units: self.free_units,
        }
    }

    /// True when nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Overlay for PruneFields {
    fn overlay(&mut self, over: &Self) {
        self.criterion = over.criterion.or(self.criterion);
        self.sparsity = over.sparsity.or(self.sparsity);
        if over.sparsity.is_some() || over.scope.is_some() || over.pattern.is_some() {
            self.pattern = over.pattern;
        }
        self.scope = over.scope.or(self.scope);
    }
}

impl Overlay for QuantizeFields {
    /// `levels` and `bits` are one setting: either replaces both. A change of method drops the other's tolerance and
    /// weighting.
    fn overlay(&mut self, over: &Self) {
        if over.levels.is_some() || over.bits.is_some() {
            (self.levels, self.bits) = (over.levels, over.bits);
        }
        if over.method.is_some_and(|method| method != self.method.unwrap_or_default()) {
            (self.tolerance, self.weighting) = (None, None);
        }
        self.method = over.method.or(self.method);
        self.codebook = over.codebook.or(self.codebook);
        self.tolerance = over.tolerance.or(self.tolerance);
        self.rounding = over.rounding.or(self.rounding);
        self.weighting = over.weighting.or(self.weighting);
    }
}

impl Overlay for EncodeFields {
    fn overlay(&mut self, over: &Self) {
        self.codec = over.codec.or(self.codec);
        self.goal = over.goal.or(self.goal);
        self.plain = over.plain.or(self.plain);
        self.reorder = over.reorder.or(self.reorder);
        self.remove = over.remove.or(self.remove);
        self.merge = over.merge.or(self.merge);
        self.free_units = over.free_units.or(self.free_units);
    }
}

impl Serialize for CodecChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Only(codec) => codec.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CodecChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = CodecChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto` or the name of a codec")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<CodecChoice, E> {
                match name {
                    "auto" => Ok(CodecChoice::Auto),
                    _ => CodecId::deserialize(StrDeserializer::<E>::new(name)).map(CodecChoice::Only),
                }
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(feature = "service")]
impl utoipa::PartialSchema for CodecChoice {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::{RefOr, Schema, schema};

        let mut names = vec![serde_json::Value::from("auto")];
        if let RefOr::T(Schema::Object(codecs)) = <CodecId as utoipa::PartialSchema>::schema() {
            names.extend(codecs.enum_values.into_iter().flatten());
        }
        schema::ObjectBuilder::new().schema_type(schema::Type::String).enum_values(Some(names)).into()
    }
}

#[cfg(feature = "service")]
impl utoipa::ToSchema for CodecChoice {}
