//! What a recipe says of the size that the whole file is to have.

use serde::{Deserialize, Serialize};

use super::finetune::above_zero;

/// The size that the file is not to exceed. Calibration then chooses the sparsity of each layer and the step of a uniform grid for
/// it, so that the errors of all layers' outputs, relative to their energy, sum up to the least; what the recipe says of pruning
/// and sharing holds for layers that no product multiplies by. Fine-tuning then trains the values that the grids left.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Bytes of the file.
    SizeBytes(u64),
    /// Bytes of the uploaded file / bytes of the file.
    Ratio(#[serde(deserialize_with = "positive")] f64),
    /// Bits of the file for each weight that can be compressed.
    BitsPerWeight(#[serde(deserialize_with = "positive")] f64),
}

impl Target {
    /// The bytes that it allows a file.
    pub fn bytes(self, source_bytes: u64, weights: u64) -> u64 {
        match self {
            Self::SizeBytes(bytes) => bytes,
            Self::Ratio(ratio) => (source_bytes as f64 / ratio) as u64,
            Self::BitsPerWeight(bits) => (weights as f64 * bits / 8.0) as u64,
        }
    }
}

fn positive<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    above_zero(f64::deserialize(deserializer)?, 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_allows_what_it_says() {
        let parse = |json: &str| serde_json::from_str::<Target>(json).map_err(|error| error.to_string());
        assert_eq!(parse(r#"{"size_bytes": 500}"#).unwrap().bytes(1, 1), 500);
        assert_eq!(parse(r#"{"ratio": 20}"#).unwrap().bytes(1000, 1), 50);
        assert_eq!(parse(r#"{"bits_per_weight": 0.5}"#).unwrap().bytes(1, 800), 50);
        assert!(parse(r#"{"ratio": 0}"#).unwrap_err().contains("must be above 0"));
        assert!(parse(r#"{"size": 3}"#).is_err());
    }
}
