//! Which array of a dataset feeds which input of a graph, and which one holds the targets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Dataset, EvaluateError};
use crate::model::Port;

/// The array that says which samples belong to which split.
pub(super) const SPLIT_ARRAY: &str = "split";
/// Names that an array of targets has by custom.
const TARGET_ARRAYS: [&str; 5] = ["y", "target", "targets", "label", "labels"];

/// How the arrays of a dataset map to a graph. Left empty, arrays are matched to inputs by name, or the only array to
/// the only input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DataMap {
    /// Name of a dataset of the service; not used where the file is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Samples to evaluate on, told by the array `split`; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Of these, the samples from the first number on, up to and without the second, counted from 0; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(usize, usize)>,
    /// For each input of the graph, the array that feeds it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, InputMap>,
    /// What the first output is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetMap>,
}

impl DataMap {
    /// Whether it names all samples of its dataset.
    pub fn is_whole(&self) -> bool {
        self.split.is_none() && self.range.is_none()
    }
}

/// A part of a dataset; its value in the array `split`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// 0
    Train = 0,
    /// 1
    Validation = 1,
    /// 2
    Test = 2,
}

/// An array that feeds an input: each element is multiplied by `scale`, `offset` is added, and the result is cast to
/// the input's type. Samples are reshaped where their element counts match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, expecting = r#"an object such as {"array": "x"}"#)]
pub struct InputMap {
    /// Name of the array.
    pub array: String,
    /// 1 by default.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub scale: f64,
    /// 0 by default.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: f64,
}

/// An array of targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, expecting = r#"an object such as {"array": "y", "kind": "class"}"#)]
pub struct TargetMap {
    /// Name of the array.
    pub array: String,
    /// What its elements are.
    pub kind: TargetKind,
}

/// What targets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// The number of a class, from 0 on.
    Class,
    /// Real values.
    Value,
}

impl InputMap {
    /// The array `name` as it is.
    pub fn new(name: impl Into<String>) -> Self {
        Self { array: name.into(), scale: 1.0, offset: 0.0 }
    }

    /// True where values pass unchanged.
    pub(super) fn is_identity(&self) -> bool {
        is_one(&self.scale) && is_zero(&self.offset)
    }
}

impl DataMap {
    /// Fills in what an empty mapping means for `dataset` and a graph with these ports. A mapping that names inputs is
    /// complete: it comes back as it is, and without a target there is none.
    ///
    /// # Errors
    /// [`EvaluateError::UnmappedInput`], [`EvaluateError::UnknownInput`], [`EvaluateError::UnknownArray`].
    pub fn complete(&self, dataset: &Dataset, inputs: &[Port], output: Option<&Port>) -> Result<Self, EvaluateError> {
        let mut map = self.clone();
        let has = |name: &str| dataset.arrays().any(|array| array.name == name);
        if let Some(target) = map.target.as_ref().filter(|target| !has(&target.array)) {
            let known = dataset.arrays().map(|array| array.name.to_owned()).collect();
            return Err(EvaluateError::UnknownArray { name: target.array.clone(), known });
        }
        if map.inputs.is_empty() {
            map.target = map.target.or_else(|| usual_target(dataset, inputs, output));
            map.inputs = inputs_by_name(dataset, inputs, map.target.as_ref());
        }
        if let Some(name) = map.inputs.keys().find(|name| inputs.iter().all(|port| port.name != **name)) {
            let known = inputs.iter().map(|port| port.name.clone()).collect();
            return Err(EvaluateError::UnknownInput { name: name.clone(), known });
        }
        match inputs.iter().find(|port| !map.inputs.contains_key(&port.name)) {
            None => Ok(map),
            Some(port) => {
                let arrays = dataset.arrays().map(|array| array.name.to_owned()).collect();
                Err(EvaluateError::UnmappedInput { name: port.name.clone(), arrays })
            }
        }
    }
}

/// Arrays named as the inputs are; or, for a single input, the only array that is neither target nor split.
fn inputs_by_name(dataset: &Dataset, inputs: &[Port], target: Option<&TargetMap>) -> BTreeMap<String, InputMap> {
    let target = target.map(|target| target.array.as_str());
    let free = |name: &str| name != SPLIT_ARRAY && Some(name) != target;
    let mut others = dataset.arrays().filter(|array| free(array.name));
    if let ([port], Some(only), None) = (inputs, others.next(), others.next()) {
        return [(port.name.clone(), InputMap::new(only.name))].into();
    }
    let named = inputs.iter().filter(|port| dataset.arrays().any(|array| array.name == port.name));
    named.map(|port| (port.name.clone(), InputMap::new(&port.name))).collect()
}

/// The array that is named as targets are: classes if it holds whole numbers and the output one value per class.
fn usual_target(dataset: &Dataset, inputs: &[Port], output: Option<&Port>) -> Option<TargetMap> {
    let is_input = |name: &str| inputs.iter().any(|port| port.name == name);
    let array = TARGET_ARRAYS.iter().find_map(|name| dataset.arrays().find(|a| a.name == *name && !is_input(name)))?;
    let several_outputs = output.and_then(|port| port.dims.last().copied().flatten()) != Some(1);
    let kind = match array.dtype.starts_with("float") || !several_outputs {
        true => TargetKind::Value,
        false => TargetKind::Class,
    };
    Some(TargetMap { array: array.name.into(), kind })
}

fn one() -> f64 {
    1.0
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::{npy, npz};

    fn dataset(names: &[(&str, &str)]) -> Dataset {
        let members: Vec<_> = names.iter().map(|&(name, descr)| (name, npy(descr, false, "(0,)", &[]))).collect();
        Dataset::from_bytes(npz(&members, false).into()).unwrap()
    }

    fn port(name: &str, last: usize) -> Port {
        Port { name: name.into(), datatype: "FP32".into(), dims: vec![None, Some(last)] }
    }

    #[test]
    fn the_documented_json_is_understood_and_nothing_else() {
        let text = r#"{"dataset": "mnist", "split": "test",
            "inputs": {"input": {"array": "x", "scale": 0.5}}, "target": {"array": "y", "kind": "class"}}"#;
        let map: DataMap = serde_json::from_str(text).unwrap();
        assert_eq!(map.split, Some(Split::Test));
        assert_eq!(map.inputs["input"], InputMap { array: "x".into(), scale: 0.5, offset: 0.0 });
        assert_eq!(map.target, Some(TargetMap { array: "y".into(), kind: TargetKind::Class }));
        assert_eq!(serde_json::from_str::<DataMap>(&serde_json::to_string(&map).unwrap()).unwrap(), map);
        assert!(serde_json::from_str::<DataMap>(r#"{"inputs": {"a": {"array": "x", "shift": 1}}}"#).is_err());
        assert!(serde_json::from_str::<DataMap>(r#"{"splits": "test"}"#).is_err());
    }

    #[test]
    fn an_empty_mapping_follows_names_or_the_only_array() {
        let complete = |names: &[(&str, &str)], inputs: &[Port], output: usize| {
            DataMap::default().complete(&dataset(names), inputs, Some(&port("out", output)))
        };
        let map = complete(&[("x", "|u1"), ("y", "|u1"), ("split", "|u1")], &[port("input", 4)], 10).unwrap();
        assert_eq!(map.inputs["input"].array, "x");
        assert_eq!(map.target, Some(TargetMap { array: "y".into(), kind: TargetKind::Class }));

        let arrays = [("drug", "|u1"), ("protein", "|u1"), ("y", "<f4")];
        let map = complete(&arrays, &[port("protein", 4), port("drug", 4)], 1).unwrap();
        assert_eq!((map.inputs["drug"].array.as_str(), map.inputs.len()), ("drug", 2));
        assert_eq!(map.target.unwrap().kind, TargetKind::Value);

        let error = complete(&[("a", "|u1"), ("b", "|u1")], &[port("input", 4)], 10).unwrap_err();
        assert_eq!(error.to_string(), r#"input "input" is mapped to no array; the dataset has "a", "b""#);
    }

    #[test]
    fn a_mapping_that_names_inputs_is_taken_at_its_word() {
        let data = dataset(&[("x", "|u1"), ("y", "|u1")]);
        let map = DataMap { inputs: [("input".into(), InputMap::new("x"))].into(), ..DataMap::default() };
        assert_eq!(map.complete(&data, &[port("input", 4)], None).unwrap(), map);
        let error = map.complete(&data, &[port("image", 4)], None).unwrap_err();
        assert!(matches!(error, EvaluateError::UnknownInput { .. }));
    }
}
