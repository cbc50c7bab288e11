//! Settings to try: lists of sparsities, of levels and of quantisers, in all combinations.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::SearchError;
use crate::prune::Sparsity;
use crate::quantize::{Levels, Method};

/// Percentiles of the base paper's grid.
///
/// # Source
/// Marinò, Ghidoli, Frasca, Malchiodi, "Compression strategies and space-conscious representations for deep neural
/// networks", ICPR 2020, arXiv:2007.07967, section IV.
const PAPER_SPARSITY: [f64; 12] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.96, 0.97, 0.98, 0.99];
/// Levels of the base paper's grid for the dense layers of DeepDTA.
const PAPER_LEVELS: [i64; 3] = [2, 32, 128];
/// Most combinations that a space may have.
const MAX_POINTS: usize = 10_000;

/// Settings to try, in all combinations. Written as an object, or as the name of a preset: `paper`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Space {
    /// Fractions of weights to prune; 0 prunes nothing. Left out, what the common recipe says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "service", schema(value_type = Vec<f64>))]
    pub sparsity: Vec<Sparsity>,
    /// Distinct non-zero values. Left out, what the common recipe says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "service", schema(value_type = Vec<u32>))]
    pub levels: Vec<Levels>,
    /// Quantisers. Left out, what the common recipe says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// Tries every combination, those too that cannot win.
    pub exhaustive: bool,
}

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub sparsity: Option<Sparsity>,
    pub levels: Option<Levels>,
    pub method: Option<Method>,
}

impl Space {
    /// The base paper's grid, for `cws` and `pws`.
    pub fn paper() -> Self {
        Self {
            sparsity: PAPER_SPARSITY.iter().filter_map(|&p| Sparsity::new(p).ok()).collect(),
            levels: PAPER_LEVELS.iter().filter_map(|&k| Levels::new(k).ok()).collect(),
            methods: vec![Method::Cws, Method::Pws],
            exhaustive: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), SearchError> {
        let points = [self.sparsity.len(), self.levels.len(), self.methods.len()];
        if points == [0; 3] {
            return Err(SearchError::EmptySpace);
        }
        match points.iter().try_fold(1usize, |points, len| points.checked_mul((*len).max(1))) {
            Some(points) if points <= MAX_POINTS => Ok(()),
            _ => Err(SearchError::SpaceTooLarge { max: MAX_POINTS }),
        }
    }

    /// Every combination.
    pub(super) fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for method in some_or_none(&self.methods) {
            for levels in some_or_none(&self.levels) {
                for sparsity in some_or_none(&self.sparsity) {
                    points.push(Point { sparsity, levels, method });
                }
            }
        }
        points
    }
}

impl Point {
    /// With what `common` says where the space says nothing; a sparsity of 0 prunes nothing.
    pub(super) fn within(self, common: Self) -> Self {
        Self {
            sparsity: self.sparsity.or(common.sparsity).filter(|sparsity| sparsity.get() > 0.0),
            levels: self.levels.or(common.levels),
            method: self.method.or(common.method),
        }
    }

    /// Grows with the size of the artifact: the bits of the weights that are left, roughly.
    pub(super) fn rank(self) -> f64 {
        let density = 1.0 - self.sparsity.map_or(0.0, Sparsity::get);
        let bits = self.levels.map_or(16.0, |levels| (levels.get() as f64).log2());
        density * (bits + 4.0)
    }

    /// Whether `other`, by the same quantiser, takes no more from the network.
    pub(super) fn is_milder(self, other: Self) -> bool {
        let density = |point: Self| 1.0 - point.sparsity.map_or(0.0, Sparsity::get);
        let levels = |point: Self| point.levels.map_or(usize::MAX, Levels::get);
        self.method == other.method && density(self) >= density(other) && levels(self) >= levels(other)
    }
}

/// Each of `values`; nothing, once, where there are none.
fn some_or_none<T: Copy>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

impl<'de> Deserialize<'de> for Space {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The object form.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[derive(Default)]
        struct Lists {
            sparsity: Vec<Sparsity>,
            levels: Vec<Levels>,
            methods: Vec<Method>,
            exhaustive: bool,
        }
        match Value::deserialize(deserializer)? {
            Value::String(name) if name == "paper" => Ok(Self::paper()),
            Value::String(name) => {
                Err(serde::de::Error::custom(format_args!("no space is named {name:?}: there is \"paper\"")))
            }
            value => {
                let Lists { sparsity, levels, methods, exhaustive } =
                    serde_path_to_error::deserialize(value).map_err(serde::de::Error::custom)?;
                Ok(Self { sparsity, levels, methods, exhaustive })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_a_name_or_lists_and_has_all_combinations() {
        let paper: Space = serde_json::from_str(r#""paper""#).unwrap();
        assert_eq!(paper.points().len(), 72);
        let lists: Space = serde_json::from_str(r#"{"sparsity": [0.5, 0.9], "levels": [7]}"#).unwrap();
        assert_eq!(lists.points().len(), 2);
        assert_eq!(lists.points()[1].method, None);
        let back: Space = serde_json::from_str(&serde_json::to_string(&lists).unwrap()).unwrap();
        assert_eq!(back, lists);
        let error = serde_json::from_str::<Space>(r#"{"sparsity": [1.5]}"#).unwrap_err().to_string();
        assert!(error.contains("sparsity[0]"), "{error}");
        assert!(serde_json::from_str::<Space>(r#""grid""#).is_err());
    }
}
