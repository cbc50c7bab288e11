//! What a recipe says of calibration.

use serde::{Deserialize, Deserializer, Serialize};

use super::finetune::{above_zero, whole};

/// Settings of the methods that look at a layer's inputs: the criteria `wanda` and `obs`, rounding with feedback, and the weighting
/// `hessian`. They run the training split, without its targets, through the network, layer by layer, as compressed so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Calibrate {
    /// Samples of the training split, spread evenly over it; all of them where there are fewer.
    #[serde(deserialize_with = "samples")]
    #[cfg_attr(feature = "service", schema(minimum = 1, maximum = 65_536, default = 512))]
    pub samples: u32,
    /// What is added to the diagonal of a layer's Hessian, times its mean.
    #[serde(deserialize_with = "damping")]
    #[cfg_attr(feature = "service", schema(exclusive_minimum = 0, maximum = 10, default = 0.01))]
    pub damping: f64,
    /// Whether a layer's bias, where it has one of its own, takes up by how much its outputs change in the mean, and whether the
    /// statistics of a normalisation that stays follow the layers in front of it.
    pub bias_correction: bool,
}

impl Default for Calibrate {
    fn default() -> Self {
        Self { samples: 512, damping: 0.01, bias_correction: true }
    }
}

fn samples<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    whole(deserializer, 1, 65_536)
}

fn damping<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    above_zero(f64::deserialize(deserializer)?, 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_out_of_range_is_named() {
        let parse = |json: &str| serde_json::from_str::<Calibrate>(json).map_err(|error| error.to_string());
        assert_eq!(parse("{}"), Ok(Calibrate::default()));
        assert!(parse(r#"{"samples": 0}"#).unwrap_err().contains("must be from 1 to 65536, found 0"));
        assert!(parse(r#"{"damping": 0}"#).unwrap_err().contains("must be above 0 and at most 10, found 0"));
    }
}
