//! What a recipe says of the size that the whole file is to have.

use serde::{Deserialize, Serialize, de};

use super::finetune::above_zero;

/// The size that the file is not to exceed. Calibration then chooses the sparsity of each layer and the step of a uniform grid for
/// it, so that the errors of all layers' outputs, relative to their energy, sum up to the least; what the recipe says of pruning
/// and sharing holds for layers that no product multiplies by. Fine-tuning then trains the values that the grids left.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", try_from = "Fields")]
pub enum Target {
    /// Bytes of the file.
    SizeBytes(u64),
    /// Bytes of the uploaded file / bytes of the file.
    Ratio(f64),
    /// Bits of the file for each weight that can be compressed.
    BitsPerWeight(f64),
}

/// A target as JSON has it, so that a fault is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with size_bytes, ratio or bits_per_weight")]
struct Fields {
    size_bytes: Option<u64>,
    ratio: Option<f64>,
    bits_per_weight: Option<f64>,
}

impl TryFrom<Fields> for Target {
    type Error = String;

    fn try_from(Fields { size_bytes, ratio, bits_per_weight }: Fields) -> Result<Self, String> {
        let target = match (size_bytes, ratio, bits_per_weight) {
            (Some(bytes), None, None) => Self::SizeBytes(bytes),
            (None, Some(ratio), None) => Self::Ratio(ratio),
            (None, None, Some(bits)) => Self::BitsPerWeight(bits),
            _ => return Err("give one of size_bytes, ratio and bits_per_weight".to_owned()),
        };
        if let Self::Ratio(value) | Self::BitsPerWeight(value) = target {
            above_zero(value, MOST).map_err(|error: de::value::Error| error.to_string())?;
        }
        Ok(target)
    }
}

/// The largest ratio, and the most bits of a weight, that are no mistake.
const MOST: f64 = 1e9;

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
        assert!(parse(r#"{"size": 3}"#).unwrap_err().contains("unknown field `size`"));
        for several in [r#"{"ratio": 20, "size_bytes": 500}"#, "{}"] {
            assert_eq!(parse(several).unwrap_err(), "give one of size_bytes, ratio and bits_per_weight");
        }
        assert!(parse("40").unwrap_err().contains("expected an object with size_bytes, ratio or bits_per_weight"));
    }
}
