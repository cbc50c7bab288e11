//! Data by what they are for: to learn from, to select by, to report on.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::mapping::SPLIT_ARRAY;
use super::{DataMap, Dataset, EvaluateError, Split};

/// Where the samples of each split are found: one mapping, which names no split, whose dataset tells them apart by its array
/// `split`; or a mapping for each, which takes the samples of its split where its dataset has that array and it names none. One
/// dataset without the array is all for training.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum DataSplits {
    /// A mapping for each split.
    Apart(Box<SplitMaps>),
    /// One dataset.
    Together(DataMap),
}

/// A mapping for each split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SplitMaps {
    /// To calibrate and to fine-tune on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<DataMap>,
    /// To select by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<DataMap>,
    /// To report on, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<DataMap>,
}

impl DataSplits {
    /// The mapping for `split`; `None` where there is none. `has_splits` says whether a dataset tells splits apart.
    pub fn of(&self, split: Split, has_splits: bool) -> Option<DataMap> {
        match (self, split) {
            (Self::Apart(maps), _) => {
                let map = match split {
                    Split::Train => maps.train.clone(),
                    Split::Validation => maps.validation.clone(),
                    Split::Test => maps.test.clone(),
                };
                // What is for another purpose is not taken by mistake.
                map.map(|map| DataMap { split: map.split.or(has_splits.then_some(split)), ..map })
            }
            (Self::Together(map), _) if has_splits => Some(DataMap { split: Some(split), ..map.clone() }),
            (Self::Together(map), Split::Train) => Some(map.clone()),
            (Self::Together(_), _) => None,
        }
    }

    /// Checks that one mapping for all splits names none of them.
    ///
    /// # Errors
    /// [`EvaluateError::SplitOfAll`].
    pub fn check(&self) -> Result<(), EvaluateError> {
        match self {
            Self::Together(DataMap { split: Some(_), .. }) => Err(EvaluateError::SplitOfAll),
            _ => Ok(()),
        }
    }

    /// Every mapping that is given, for what it is.
    pub fn maps(&self) -> impl Iterator<Item = &DataMap> {
        let maps = match self {
            Self::Apart(maps) => [maps.train.as_ref(), maps.validation.as_ref(), maps.test.as_ref()],
            Self::Together(map) => [Some(map), None, None],
        };
        maps.into_iter().flatten()
    }
}

impl Dataset {
    /// Whether an array `split` tells which samples are to train, to validate and to test on.
    pub fn has_splits(&self) -> bool {
        self.arrays().any(|array| array.name == SPLIT_ARRAY)
    }
}

/// By hand, so that a fault is named as that of the form which was meant, with its path.
impl<'de> Deserialize<'de> for DataSplits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Object(members) = Value::deserialize(deserializer)? else {
            return Err(serde::de::Error::custom(r#"expected an object such as {"dataset": "NAME"}"#));
        };
        let is_apart = ["train", "validation", "test"].iter().any(|split| members.contains_key(*split));
        let value = Value::Object(members);
        let parsed = match is_apart {
            true => serde_path_to_error::deserialize(value).map(|maps| Self::Apart(Box::new(maps))),
            false => serde_path_to_error::deserialize(value).map(Self::Together),
        };
        parsed.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<DataSplits, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn one_dataset_is_cut_by_its_split_array_or_is_all_for_training() {
        let data = parse(r#"{"dataset": "mnist"}"#).unwrap();
        let map = data.of(Split::Test, true).unwrap();
        assert_eq!((map.dataset.as_deref(), map.split), (Some("mnist"), Some(Split::Test)));
        assert_eq!(data.of(Split::Train, false).unwrap().split, None);
        assert_eq!(data.of(Split::Validation, false), None);
    }

    #[test]
    fn a_mapping_for_each_split_takes_no_samples_of_another() {
        let json = r#"{"train":{"dataset":"a"},"test":{"dataset":"b","range":[5000,10000]}}"#;
        let data = parse(json).unwrap();
        assert_eq!(data.of(Split::Test, false).unwrap().range, Some((5000, 10000)));
        assert_eq!(data.of(Split::Validation, true), None);
        let split = |has_splits| data.of(Split::Train, has_splits).unwrap().split;
        assert_eq!((split(true), split(false)), (Some(Split::Train), None));
        assert_eq!(serde_json::to_string(&data).unwrap(), json);
        assert_eq!(data.maps().count(), 2);
        let error = parse(r#"{"train": {"dataset": "a"}, "dataset": "b"}"#).unwrap_err();
        assert!(error.contains("unknown field `dataset`"), "{error}");
        let error = parse(r#""mnist""#).unwrap_err();
        assert!(error.contains(r#"expected an object such as {"dataset": "NAME"}"#), "{error}");
        let error = parse(r#"{"target": "y"}"#).unwrap_err();
        assert!(error.contains(r#"expected an object such as {"array": "y", "kind": "class"}"#), "{error}");
        let error = parse(r#"{"test": {"inputs": {"x": {"array": "x", "scale": "1/255"}}}}"#).unwrap_err();
        assert!(error.starts_with("test.inputs.x.scale: invalid type"), "{error}");
    }

    #[test]
    fn one_mapping_for_all_splits_names_none() {
        let check = |json: &str| parse(json).unwrap().check().is_ok();
        assert!(!check(r#"{"dataset": "a", "split": "train"}"#));
        assert!(check(r#"{"dataset": "a", "range": [0, 9]}"#));
        assert!(check(r#"{"train": {"dataset": "a", "split": "train"}}"#));
    }
}
