//! The recipe: what a user asks of a compression, parsed once and checked whole.
//!
//! A recipe speaks at three levels: the network, operator types (`by_op`), layers by glob (`layers`). A later level
//! wins over an earlier one and the last matching glob over the ones before it, field by field; [`Recipe::resolve`]
//! says what comes of it for one layer. A stage that no level mentions is off, so the empty recipe is lossless.

mod calibrate;
mod error;
mod fields;
mod finetune;
mod preset;
mod settings;
mod stage;
mod target;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_path_to_error::Track;

use crate::prune::{Criterion, Prune, Sparsity};
use stage::Overlay;

pub use calibrate::Calibrate;
pub use error::RecipeError;
pub use fields::{EncodeFields, PruneFields, QuantizeFields};
pub use finetune::{Finetune, Glob, ImageChanges, LossKind, OptimizerKind, RateSchedule};
pub use preset::Preset;
pub use settings::{
    CodebookScope, CodecChoice, Encode, FreeUnits, Goal, LayerSettings, Plain, Quantize, Rounding, Weighting,
};
pub use stage::Stage;
pub use target::Target;

/// Pruning, at one level of a recipe.
pub type PruneStage = Stage<PruneFields>;

/// Weight sharing, at one level of a recipe.
pub type QuantizeStage = Stage<QuantizeFields>;

/// A checked recipe, its preset expanded. Its JSON is deterministic: an artifact stores it.
//
// `remote = "Self"` makes the derives inherent functions, so that the trait below can check what was parsed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct Recipe {
    /// Starting values for the stages; fields that are set win over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<Preset>,
    /// Which weights become zero.
    #[serde(skip_serializing_if = "Stage::is_inherited")]
    #[cfg_attr(feature = "service", schema(schema_with = stage::schema::prune, required = false))]
    prune: PruneStage,
    /// Which few values the surviving weights take.
    #[serde(skip_serializing_if = "Stage::is_inherited")]
    #[cfg_attr(feature = "service", schema(schema_with = stage::schema::quantize, required = false))]
    quantize: QuantizeStage,
    /// How the result is written.
    #[serde(skip_serializing_if = "EncodeFields::is_empty")]
    encode: EncodeFields,
    /// The size that the whole file is not to exceed, which needs data; left out, it follows from the other fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline))]
    target: Option<Target>,
    /// Settings of the methods that look at a layer's inputs, which need data; left out, the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline))]
    calibrate: Option<Calibrate>,
    /// Training after pruning and after sharing, which needs data; left out, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline))]
    finetune: Option<Finetune>,
    /// Seed of every random choice.
    #[serde(skip_serializing_if = "is_zero")]
    seed: u64,
    /// What differs for the weights of an operator type, e.g. `Conv`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    by_op: BTreeMap<String, OpRule>,
    /// What differs for layers by name; the last match wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LayerRule>,
}

/// What differs for the weights of one operator type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct OpRule {
    /// Whether these layers stay as they were uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    skip: Option<bool>,
    /// Which weights become zero.
    #[serde(skip_serializing_if = "Stage::is_inherited")]
    #[cfg_attr(feature = "service", schema(schema_with = stage::schema::prune, required = false))]
    prune: PruneStage,
    /// Which few values the surviving weights take.
    #[serde(skip_serializing_if = "Stage::is_inherited")]
    #[cfg_attr(feature = "service", schema(schema_with = stage::schema::quantize, required = false))]
    quantize: QuantizeStage,
    /// How the result is written.
    #[serde(skip_serializing_if = "EncodeFields::is_empty")]
    encode: EncodeFields,
}

/// What differs for the layers whose name matches a glob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LayerRule {
    /// Glob over layer names: `*` any characters, `?` one, `[a-z]` one of a set.
    #[serde(rename = "match", with = "pattern")]
    #[cfg_attr(feature = "service", schema(value_type = String, example = "fc1.*"))]
    pattern: glob::Pattern,
    /// Whether these layers stay as they were uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skip: Option<bool>,
    /// Which weights become zero.
    #[serde(default, skip_serializing_if = "Stage::is_inherited")]
    #[cfg_attr(feature = "service", schema(schema_with = stage::schema::prune, required = false))]
    prune: PruneStage,
    /// Which few values the surviving weights take.
    #[serde(default, skip_serializing_if = "Stage::is_inherited")]
    #[cfg_attr(feature = "service", schema(schema_with = stage::schema::quantize, required = false))]
    quantize: QuantizeStage,
    /// How the result is written.
    #[serde(default, skip_serializing_if = "EncodeFields::is_empty")]
    encode: EncodeFields,
}

/// The stages of one level, gathered while a layer is resolved.
#[derive(Clone, Default)]
struct Level {
    skip: Option<bool>,
    prune: PruneStage,
    quantize: QuantizeStage,
    encode: EncodeFields,
}

impl Recipe {
    /// Parses and checks a recipe.
    ///
    /// # Errors
    /// [`RecipeError`], which names the field and what is wrong with its value.
    pub fn from_json(json: &str) -> Result<Self, RecipeError> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let mut track = Track::new();
        let recipe = Self::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track))
            .map_err(|error| RecipeError::from_parser(&track.path(), &error))?;
        deserializer.end().map_err(RecipeError::from_trailing)?;
        recipe.check()
    }

    /// The recipe as compact JSON; the same recipe gives the same bytes.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a recipe has string keys and no failing field")
    }

    /// The recipe with the members of `over` laid over it: an object is merged member by member, anything else, null too,
    /// takes the place of what was there.
    ///
    /// # Errors
    /// [`RecipeError`] where what comes of it is no recipe.
    pub fn with(&self, over: &serde_json::Value) -> Result<Self, RecipeError> {
        let mut recipe = serde_json::to_value(self).expect("a recipe has string keys and no failing field");
        merge(&mut recipe, over);
        Self::from_json(&recipe.to_string())
    }

    /// What the network as a whole is pruned and shared by, where the recipe says so.
    pub(crate) fn stages(&self) -> (Option<&PruneFields>, Option<&QuantizeFields>) {
        (self.prune.fields(), self.quantize.fields())
    }

    /// Whether it switches a stage, `prune` or `quantize`, off for the network as a whole.
    pub(crate) fn switches_off(&self, stage: &str) -> bool {
        match stage {
            "prune" => self.prune == Stage::Off,
            "quantize" => self.quantize == Stage::Off,
            _ => false,
        }
    }

    /// Settings of the methods that look at a layer's inputs.
    pub fn calibrate(&self) -> Calibrate {
        self.calibrate.unwrap_or_default()
    }

    /// The size that the whole file is not to exceed.
    pub fn target(&self) -> Option<Target> {
        self.target
    }

    /// Whether a layer may be pruned or shared by a method that looks at its inputs.
    pub fn calibrates(&self) -> bool {
        let rules = self.by_op.values().map(|rule| (&rule.prune, &rule.quantize));
        let rules = rules.chain(self.layers.iter().map(|rule| (&rule.prune, &rule.quantize)));
        self.target.is_some()
            || rules.chain([(&self.prune, &self.quantize)]).any(|(prune, quantize)| {
                let criterion = prune.fields().and_then(|fields| fields.criterion);
                let rounding = quantize.fields().and_then(|fields| fields.rounding);
                let weighting = quantize.fields().and_then(|fields| fields.weighting);
                criterion.is_some_and(Criterion::needs_data)
                    || rounding == Some(Rounding::Feedback)
                    || weighting == Some(Weighting::Hessian)
            })
    }

    /// Training after pruning and after sharing, if any.
    pub fn finetune(&self) -> Option<&Finetune> {
        self.finetune.as_ref()
    }

    /// Seed of every random choice.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether it asks for what only data can tell.
    pub fn needs_data(&self) -> bool {
        self.finetune.is_some() || self.calibrates()
    }

    /// What the recipe asks of the layer `name`, whose weights the operator type `op` reads. Works for tensors that are
    /// not compressed too, of which only [`Encode::plain`] matters; their `op` may be empty.
    pub fn resolve(&self, name: &str, op: &str) -> LayerSettings {
        let mut level = Level {
            skip: None,
            prune: self.prune.clone(),
            quantize: self.quantize.clone(),
            encode: self.encode.clone(),
        };
        if let Some(rule) = self.by_op.get(op) {
            level.overlay(&rule.level());
        }
        for rule in self.layers.iter().filter(|rule| rule.pattern.matches(name)) {
            level.overlay(&rule.level());
        }
        let mut settings = level.settings(self.seed);
        if self.target.is_some() && !settings.skip {
            // What a target chooses for a layer may lose something.
            settings.prune.get_or_insert(Prune {
                criterion: Criterion::Obs,
                sparsity: Sparsity::NONE,
                ..Prune::default()
            });
        }
        settings
    }

    /// The entries of `by_op`, `layers` and `finetune.freeze` that none of `layers` (name and operator type of each) falls under, as a
    /// person would write them: most likely typing errors.
    pub fn unmatched<'a>(&self, layers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Vec<String> {
        let ops = self.by_op.keys().filter(|op| !layers.clone().any(|(_, layer_op)| layer_op == **op));
        let globs = self.layers.iter().filter(|rule| !layers.clone().any(|(name, _)| rule.pattern.matches(name)));
        let frozen = self.finetune.iter().flat_map(|finetune| &finetune.freeze);
        let frozen = frozen.filter(|glob| !layers.clone().any(|(name, _)| glob.matches(name)));
        let ops = ops.map(|op| format!("by_op.{op}"));
        let globs = globs.map(|rule| format!("layers: {}", rule.pattern));
        ops.chain(globs).chain(frozen.map(|glob| format!("finetune.freeze: {glob}"))).collect()
    }

    /// Checks what no single field can, and lays the fields over the preset.
    fn check(mut self) -> Result<Self, RecipeError> {
        if self.target.is_some()
            && self.finetune.as_ref().is_some_and(|finetune| finetune.epochs > 0 || finetune.reassign)
        {
            return Err(RecipeError::TargetAndEpochs);
        }
        error::check_prune("prune", &self.prune)?;
        error::check_quantize("quantize", &self.quantize)?;
        for (op, rule) in &self.by_op {
            error::check_prune(&format!("by_op.{op}.prune"), &rule.prune)?;
            error::check_quantize(&format!("by_op.{op}.quantize"), &rule.quantize)?;
        }
        for (i, rule) in self.layers.iter().enumerate() {
            error::check_prune(&format!("layers[{i}].prune"), &rule.prune)?;
            error::check_quantize(&format!("layers[{i}].quantize"), &rule.quantize)?;
        }
        if let Some(preset) = self.preset {
            let mut level = preset.level();
            level.overlay(&Level { skip: None, prune: self.prune, quantize: self.quantize, encode: self.encode });
            if let Stage::On(fields) = &mut level.prune
                && error::ranks_globally_by_wanda(fields)
            {
                fields.scope = None;
            }
            Level { prune: self.prune, quantize: self.quantize, encode: self.encode, .. } = level;
        }
        Ok(self)
    }
}

impl Level {
    fn overlay(&mut self, over: &Self) {
        self.skip = over.skip.or(self.skip);
        self.prune.overlay(&over.prune);
        self.quantize.overlay(&over.quantize);
        self.encode.overlay(&over.encode);
    }

    fn settings(&self, seed: u64) -> LayerSettings {
        let skip = self.skip.unwrap_or(false);
        LayerSettings {
            skip,
            prune: self.prune.fields().filter(|_| !skip).map(PruneFields::settings),
            quantize: self.quantize.fields().filter(|_| !skip).map(|fields| fields.settings(seed)),
            encode: self.encode.settings(),
        }
    }
}

impl OpRule {
    fn level(&self) -> Level {
        let Self { skip, prune, quantize, encode } = self.clone();
        Level { skip, prune, quantize, encode }
    }
}

impl LayerRule {
    fn level(&self) -> Level {
        let Self { skip, prune, quantize, encode, .. } = self.clone();
        Level { skip, prune, quantize, encode }
    }
}

impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)?.check().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Recipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

fn merge(target: &mut serde_json::Value, over: &serde_json::Value) {
    let serde_json::Value::Object(over) = over else {
        *target = over.clone();
        return;
    };
    if !target.is_object() {
        *target = serde_json::json!({});
    }
    for (name, value) in over {
        merge(&mut target[name], value);
    }
}

fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

mod pattern {
    //! A glob as the string it is written as.

    use glob::Pattern;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(pattern: &Pattern, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(pattern.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        Pattern::new(&text).map_err(|e| de::Error::custom(format_args!("{text:?} is not a glob: {e}")))
    }
}

#[cfg(test)]
mod tests;
