//! JSON tensors of the Open Inference Protocol, and their conversion to and from arrays.
//!
//! What can be told from the tensor alone is checked here: datatype, element count, nesting, and that every element fits
//! its type. What only the model knows, the predictor checks.

use std::fmt;

use half::{bf16, f16};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::infer::{Array, ArrayData, Datatype};

use super::data::{AtMost, Data, Element, Flat};

/// Free-form settings of a request, a tensor or an answer.
pub type Parameters = serde_json::Map<String, serde_json::Value>;

/// An input tensor of a request.
#[derive(Debug, ToSchema)]
#[schema(as = InferInput)]
pub struct RequestInput {
    /// Name of the model's input.
    pub name: String,
    /// Extent of every axis.
    #[schema(example = json!([1, 64]))]
    pub shape: Vec<usize>,
    #[schema(example = "FP32")]
    pub datatype: String,
    #[schema(value_type = Object, required = false)]
    pub parameters: Parameters,
    /// Elements in row-major order, flat or nested.
    #[schema(required = false)]
    pub data: Data,
}

/// The members of an input, in JSON.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    Name,
    Shape,
    Datatype,
    Parameters,
    Data,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for RequestInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

/// Reads an input by hand, since the shape, which clients send first, bounds the data.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = RequestInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an input tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<RequestInput, A::Error> {
        let (mut name, mut datatype, mut parameters, mut data) = (None, None, None, None);
        let mut shape: Option<Vec<usize>> = None;
        while let Some(member) = members.next_key()? {
            match member {
                Member::Name => set_once(&mut name, "name", members.next_value()?)?,
                Member::Shape => set_once(&mut shape, "shape", members.next_value()?)?,
                Member::Datatype => set_once(&mut datatype, "datatype", members.next_value()?)?,
                Member::Parameters => set_once(&mut parameters, "parameters", members.next_value()?)?,
                Member::Data => {
                    // None are kept for a shape that holds no countable elements, which is refused anyway.
                    let at_most = shape.as_deref().map_or(usize::MAX, |shape| element_count(shape).unwrap_or(0));
                    set_once(&mut data, "data", members.next_value_seed(AtMost(at_most))?)?;
                }
                Member::Other => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(RequestInput {
            name: name.ok_or_else(|| A::Error::missing_field("name"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            datatype: datatype.ok_or_else(|| A::Error::missing_field("datatype"))?,
            parameters: parameters.unwrap_or_default(),
            data: data.unwrap_or_default(),
        })
    }
}

fn set_once<T, E: serde::de::Error>(slot: &mut Option<T>, member: &'static str, value: T) -> Result<(), E> {
    match slot.replace(value) {
        Some(_) => Err(E::duplicate_field(member)),
        None => Ok(()),
    }
}

/// Elements of a tensor of this shape; `None` when there are none, or more than can be counted.
fn element_count(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
    count.filter(|&count| count > 0)
}

/// An output tensor of an answer; its data is flat, in row-major order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InferOutput)]
pub struct ResponseOutput {
    pub name: String,
    pub shape: Vec<usize>,
    #[schema(example = "FP32")]
    pub datatype: &'static str,
    #[serde(serialize_with = "flat")]
    #[schema(value_type = Data)]
    pub data: ArrayData,
}

fn flat<S: Serializer>(data: &ArrayData, serializer: S) -> Result<S::Ok, S::Error> {
    Flat(data).serialize(serializer)
}

impl ResponseOutput {
    /// The answer's form of the output `name`.
    pub fn new(name: String, array: Array) -> Self {
        Self { name, datatype: array.datatype().name(), shape: array.dims, data: array.data }
    }
}

/// Why a JSON tensor is not an array.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// A datatype that the protocol does not have, or that holds no numbers.
    #[error("input `{name}` has the datatype `{given}`, which is not one of {}", datatypes())]
    UnknownDatatype { name: String, given: String },
    /// An axis without extent, or more elements than can be counted.
    #[error("input `{name}` has the shape {shape:?}, which holds no countable elements")]
    Extent { name: String, shape: Vec<usize> },
    /// The data has another number of elements than the shape.
    #[error("input `{name}` has {given} elements, its shape {shape:?} needs {needed}")]
    ElementCount { name: String, shape: Vec<usize>, given: usize, needed: usize },
    /// Nested data whose nesting is not the shape.
    #[error("input `{name}` has data nested as {nested:?}, its shape is {shape:?}")]
    Nesting { name: String, nested: Vec<usize>, shape: Vec<usize> },
    /// An element that is not a value of the datatype.
    #[error("input `{name}` has {value} at element {index}, which is not a value of {datatype}")]
    Element { name: String, index: usize, value: Element, datatype: Datatype },
    /// A binary tensor, which comes after the JSON in the body.
    #[error("input `{name}` is sent as binary data; send its elements in the JSON member `data`")]
    Binary { name: String },
}

impl RequestInput {
    /// The tensor as a named array. Whether the model has such an input is the predictor's to say.
    ///
    /// # Errors
    /// [`TensorError`] for the first fault.
    pub fn decode(self) -> Result<(String, Array), TensorError> {
        let Self { name, shape, datatype, parameters, data } = self;
        if parameters.contains_key("binary_data_size") {
            return Err(TensorError::Binary { name });
        }
        let Ok(datatype) = datatype.parse::<Datatype>() else {
            return Err(TensorError::UnknownDatatype { name, given: datatype });
        };
        let Some(needed) = element_count(&shape) else { return Err(TensorError::Extent { name, shape }) };
        if data.count != needed {
            return Err(TensorError::ElementCount { name, shape, given: data.count, needed });
        }
        if data.extents.len() > 1 && data.extents != shape {
            return Err(TensorError::Nesting { name, nested: data.extents, shape });
        }
        match convert(&data.elements, datatype) {
            Ok(values) => Ok((name, Array { dims: shape, data: values })),
            Err(index) => Err(TensorError::Element { name, index, value: data.elements[index], datatype }),
        }
    }
}

fn datatypes() -> String {
    Datatype::ALL.iter().map(|datatype| datatype.name()).collect::<Vec<_>>().join(", ")
}

/// Converts `elements`, or returns the index of the first that is not a value of `datatype`.
fn convert(elements: &[Element], datatype: Datatype) -> Result<ArrayData, usize> {
    Ok(match datatype {
        Datatype::Bool => ArrayData::Bool(collect(elements, boolean)?),
        Datatype::U8 => ArrayData::U8(collect(elements, integer)?),
        Datatype::U16 => ArrayData::U16(collect(elements, integer)?),
        Datatype::U32 => ArrayData::U32(collect(elements, integer)?),
        Datatype::U64 => ArrayData::U64(collect(elements, integer)?),
        Datatype::I8 => ArrayData::I8(collect(elements, integer)?),
        Datatype::I16 => ArrayData::I16(collect(elements, integer)?),
        Datatype::I32 => ArrayData::I32(collect(elements, integer)?),
        Datatype::I64 => ArrayData::I64(collect(elements, integer)?),
        // A number too large for its type would become an infinity, which nobody wrote.
        Datatype::F16 => ArrayData::F16(collect(elements, |e| number(e).map(f16::from_f64).filter(|v| v.is_finite()))?),
        Datatype::Bf16 => {
            ArrayData::Bf16(collect(elements, |e| number(e).map(bf16::from_f64).filter(|v| v.is_finite()))?)
        }
        Datatype::F32 => ArrayData::F32(collect(elements, |e| number(e).map(|v| v as f32).filter(|v| v.is_finite()))?),
        Datatype::F64 => ArrayData::F64(collect(elements, number)?),
    })
}

fn collect<T>(elements: &[Element], value: impl Fn(Element) -> Option<T>) -> Result<Vec<T>, usize> {
    elements.iter().enumerate().map(|(index, &element)| value(element).ok_or(index)).collect()
}

/// Clients written in weakly typed languages send booleans as 0 and 1.
fn boolean(element: Element) -> Option<bool> {
    match element {
        Element::Bool(value) => Some(value),
        Element::Signed(0) => Some(false),
        Element::Signed(1) => Some(true),
        _ => None,
    }
}

fn integer<T: TryFrom<i64> + TryFrom<u64>>(element: Element) -> Option<T> {
    match element {
        Element::Signed(value) => T::try_from(value).ok(),
        Element::Unsigned(value) => T::try_from(value).ok(),
        Element::Bool(_) | Element::Float(_) => None,
    }
}

fn number(element: Element) -> Option<f64> {
    match element {
        Element::Signed(value) => Some(value as f64),
        Element::Unsigned(value) => Some(value as f64),
        Element::Float(value) => Some(value),
        Element::Bool(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeSeed;

    use super::*;

    fn decode(members: &str) -> Result<Array, String> {
        let input: RequestInput =
            serde_json::from_str(&format!(r#"{{"name": "x", {members}}}"#)).map_err(|error| error.to_string())?;
        input.decode().map(|(_, array)| array).map_err(|error| error.to_string())
    }

    fn data(json: &str) -> Data {
        AtMost(usize::MAX).deserialize(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    #[test]
    fn inputs_become_arrays() {
        let nested = decode(r#""shape": [2, 2], "datatype": "FP32", "data": [[1, 2.5], [-3, 4e0]]"#);
        assert_eq!(nested, Ok(Array { dims: vec![2, 2], data: ArrayData::F32(vec![1.0, 2.5, -3.0, 4.0]) }));
        let flat = decode(r#""data": [0, 255], "datatype": "UINT8", "shape": [1, 2]"#);
        assert_eq!(flat, Ok(Array { dims: vec![1, 2], data: ArrayData::U8(vec![0, 255]) }));
    }

    #[test]
    fn every_fault_is_named() {
        let cases = [
            (
                r#""shape": [2], "datatype": "float", "data": [1, 2]"#,
                "datatype `float`, which is not one of BOOL, UINT8",
            ),
            (r#""shape": [2], "datatype": "BYTES", "data": [1, 2]"#, "datatype `BYTES`"),
            (r#""shape": [-1, 2], "datatype": "FP32", "data": [1, 2]"#, "invalid value: integer `-1`"),
            (r#""shape": [0, 2], "datatype": "FP32", "data": []"#, "no countable elements"),
            (r#""shape": [9223372036854775808, 2], "datatype": "FP32", "data": []"#, "no countable elements"),
            (r#""shape": [1, 2], "datatype": "FP32", "data": [1]"#, "has 1 elements, its shape [1, 2] needs 2"),
            (r#""shape": [2], "datatype": "FP32", "data": [1, 2, 3]"#, "has 3 elements, its shape [2] needs 2"),
            (r#""data": [1, 2, 3], "shape": [2], "datatype": "FP32""#, "has 3 elements, its shape [2] needs 2"),
            (r#""shape": [2], "shape": [3], "datatype": "FP32""#, "duplicate field `shape`"),
            (r#""datatype": "FP32", "data": [1]"#, "missing field `shape`"),
            (r#""shape": [1, 2], "datatype": "FP32", "data": [[1], [2]]"#, "nested as [2, 1], its shape is [1, 2]"),
            (r#""shape": [2], "datatype": "FP32", "data": [1, 1e39]"#, "at element 1, which is not a value of FP32"),
            (r#""shape": [2], "datatype": "FP32", "data": [true, 1]"#, "has true at element 0"),
            (r#""shape": [2], "datatype": "FP32", "data": ["1", 1]"#, "invalid type: string"),
            (r#""shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}"#, "is sent as binary data"),
        ];
        for (members, fault) in cases {
            let message = decode(members).unwrap_err();
            assert!(message.contains(fault), "{members}: {message}");
        }
    }

    #[test]
    fn integers_must_fit_their_type() {
        let cases = [
            (Datatype::I8, "128"),
            (Datatype::U8, "-1"),
            (Datatype::I64, "9223372036854775808"),
            (Datatype::U16, "65536"),
            (Datatype::I32, "1.0"),
        ];
        for (datatype, value) in cases {
            let data = data(&format!("[{value}]"));
            assert_eq!(convert(&data.elements, datatype), Err(0), "{value} as {datatype}");
        }
        let data = data("[18446744073709551615]");
        assert_eq!(convert(&data.elements, Datatype::U64), Ok(ArrayData::U64(vec![u64::MAX])));
    }
}
