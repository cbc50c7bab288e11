//! What a recipe says of fine-tuning.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Gradient descent on the training split: after pruning on the weights that survive, after sharing on the shared values.
/// Biases and normalisation parameters are trained in both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Finetune {
    /// Passes over the training split after pruning; 0: none.
    #[serde(deserialize_with = "epochs")]
    #[cfg_attr(feature = "service", schema(maximum = 10_000, default = 10))]
    pub epochs: u32,
    /// Passes over the training split after sharing; 0: none.
    #[serde(deserialize_with = "epochs")]
    #[cfg_attr(feature = "service", schema(maximum = 10_000, default = 5))]
    pub sharing_epochs: u32,
    /// Samples of a step.
    #[serde(deserialize_with = "batch")]
    #[cfg_attr(feature = "service", schema(minimum = 1, maximum = 65_536, default = 64))]
    pub batch: u32,
    /// How a step follows from the gradient.
    #[cfg_attr(feature = "service", schema(inline, default = "adam"))]
    pub optimizer: OptimizerKind,
    /// Step size after pruning; left out, 0.001 for `adam` and `adamw`, 0.01 for `sgd`.
    #[serde(deserialize_with = "rate", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(exclusive_minimum = 0, maximum = 10))]
    pub learning_rate: Option<f64>,
    /// Step size after sharing; left out, a fifth of the step size after pruning.
    #[serde(deserialize_with = "rate", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(exclusive_minimum = 0, maximum = 10))]
    pub sharing_learning_rate: Option<f64>,
    /// How the step size changes over the epochs.
    #[cfg_attr(feature = "service", schema(inline, default = "cosine"))]
    pub schedule: RateSchedule,
    /// Fraction of each weight that a step takes away, times the step size.
    #[serde(deserialize_with = "decay")]
    #[cfg_attr(feature = "service", schema(minimum = 0, maximum = 1, default = 0.0))]
    pub weight_decay: f64,
    /// What is made small; left out, cross entropy mixed with distillation for class targets, the squared error for real
    /// values, and distillation without targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(inline))]
    pub loss: Option<LossKind>,
    /// Share of the targets in a loss that mixes them with version 0's outputs.
    #[serde(deserialize_with = "fraction")]
    #[cfg_attr(feature = "service", schema(minimum = 0, maximum = 1, default = 0.5))]
    pub label_weight: f64,
    /// Temperature by which the logits of distillation are divided.
    #[serde(deserialize_with = "temperature")]
    #[cfg_attr(feature = "service", schema(exclusive_minimum = 0, maximum = 100, default = 2.0))]
    pub temperature: f64,
    /// Whether samples are mixed in pairs and version 0's outputs alone are learned from, which keeps a network from learning the
    /// training split by heart: with distillation, for inputs of reals. Behind frozen layers, it is their outputs, as compressed, that are mixed, and version 0's
    /// own layers behind them that answer.
    pub mixup: bool,
    /// Changes images by chance each time that they are trained on, which keeps a network from learning the training split by
    /// heart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<ImageChanges>,
    /// Fraction of the epochs after pruning over which the sparsity grows, by the cubic schedule; 0: at once.
    #[serde(deserialize_with = "fraction")]
    #[cfg_attr(feature = "service", schema(minimum = 0, maximum = 1, default = 0.5))]
    pub gradual: f64,
    /// Stops after this many epochs without a better loss on the validation split; left out, only at the last.
    #[serde(deserialize_with = "patience", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "service", schema(minimum = 1, maximum = 10_000))]
    pub patience: Option<u32>,
    /// Tensors that keep their values, by globs over their names. What is in front of the first other tensor is run once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "service", schema(value_type = Vec<String>))]
    pub freeze: Vec<Glob>,
    /// Whether weights may go over to another of the shared values between epochs.
    pub reassign: bool,
}

/// Changes of images that leave their targets as they are. A sample of the dataset is an image where it has two axes, height and
/// width, or three: colours in front of them or, at most four, behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ImageChanges {
    /// By how many pixels at most an image is moved, up or down and left or right; its border is repeated.
    #[serde(deserialize_with = "shift")]
    #[cfg_attr(feature = "service", schema(maximum = 1_024, default = 0))]
    pub shift: u32,
    /// Whether left and right are exchanged, half of the time.
    pub flip: bool,
}

/// How a step follows from the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    #[default]
    Adam,
    /// Adam with decoupled weight decay: Loshchilov, Hutter, ICLR 2019.
    #[serde(rename = "adamw")]
    AdamW,
    /// Stochastic gradient descent with Nesterov momentum of 0.9.
    Sgd,
}

/// How the step size changes over the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RateSchedule {
    /// Down to zero along half a cosine.
    #[default]
    Cosine,
    /// Not at all.
    Constant,
}

/// What fine-tuning makes small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Against class targets.
    CrossEntropy,
    /// The squared error against real targets.
    Mse,
    /// Against the outputs of version 0, mixed with the targets where there are any.
    Distillation,
}

impl Default for Finetune {
    fn default() -> Self {
        Self {
            epochs: 10,
            sharing_epochs: 5,
            batch: 64,
            optimizer: OptimizerKind::default(),
            learning_rate: None,
            sharing_learning_rate: None,
            schedule: RateSchedule::default(),
            weight_decay: 0.0,
            loss: None,
            label_weight: 0.5,
            temperature: 2.0,
            mixup: false,
            augment: None,
            gradual: 0.5,
            patience: None,
            freeze: Vec::new(),
            reassign: false,
        }
    }
}

impl Finetune {
    /// Step size after pruning.
    pub fn pruning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(match self.optimizer {
            OptimizerKind::Adam | OptimizerKind::AdamW => 1e-3,
            OptimizerKind::Sgd => 1e-2,
        })
    }

    /// Step size after sharing.
    pub fn sharing_rate(&self) -> f64 {
        self.sharing_learning_rate.unwrap_or(self.pruning_rate() / 5.0)
    }

    /// Whether the tensor `name` keeps its values.
    pub fn freezes(&self, name: &str) -> bool {
        self.freeze.iter().any(|glob| glob.matches(name))
    }
}

/// A pattern over names: `*` any characters, `?` one, `[a-z]` one of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Glob(glob::Pattern);

impl Glob {
    /// Whether `name` is one of those that are meant.
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }
}

impl std::fmt::Display for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pattern = glob::Pattern::new(&text);
        pattern.map(Self).map_err(|error| de::Error::custom(format_args!("{text:?} is not a glob: {error}")))
    }
}

fn epochs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    whole(deserializer, 0, 10_000)
}

fn batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    whole(deserializer, 1, 65_536)
}

fn patience<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(value) = Option::<u32>::deserialize(deserializer)? else { return Ok(None) };
    match (1..=10_000).contains(&value) {
        true => Ok(Some(value)),
        false => Err(de::Error::custom(format_args!("must be from 1 to 10000, found {value}"))),
    }
}

fn shift<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    whole(deserializer, 0, 1_024)
}

pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D, min: u32, max: u32) -> Result<u32, D::Error> {
    let value = u32::deserialize(deserializer)?;
    match (min..=max).contains(&value) {
        true => Ok(value),
        false => Err(de::Error::custom(format_args!("must be from {min} to {max}, found {value}"))),
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let Some(value) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    above_zero(value, 10.0).map(Some)
}

fn decay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    fraction(deserializer)
}

fn temperature<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    above_zero(f64::deserialize(deserializer)?, 100.0)
}

pub(super) fn above_zero<E: de::Error>(value: f64, max: f64) -> Result<f64, E> {
    match value > 0.0 && value <= max {
        true => Ok(value),
        false => Err(E::custom(format_args!("must be above 0 and at most {max}, found {value}"))),
    }
}

fn fraction<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(de::Error::custom(format_args!("must be from 0 to 1, found {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_out_of_range_is_named() {
        let parse = |json: &str| serde_json::from_str::<Finetune>(json).map_err(|error| error.to_string());
        assert_eq!(parse("{}"), Ok(Finetune::default()));
        let sgd = parse(r#"{"optimizer": "sgd", "freeze": ["conv*"]}"#).unwrap();
        assert_eq!((sgd.pruning_rate(), sgd.sharing_rate()), (0.01, 0.002));
        assert!(sgd.freezes("conv1.weight") && !sgd.freezes("fc1.weight"));
        assert_eq!(parse(&serde_json::to_string(&sgd).unwrap()), Ok(sgd));
        for (json, expected) in [
            (r#"{"learning_rate": 0}"#, "must be above 0 and at most 10, found 0"),
            (r#"{"epochs": 10001}"#, "must be from 0 to 10000, found 10001"),
            (r#"{"gradual": 1.5}"#, "must be from 0 to 1, found 1.5"),
            (r#"{"augment": {"shift": 2000}}"#, "must be from 0 to 1024, found 2000"),
            (r#"{"freeze": ["["]}"#, r#""[" is not a glob"#),
            (r#"{"momentum": 1}"#, "unknown field `momentum`"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
