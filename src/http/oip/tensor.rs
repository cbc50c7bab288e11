//! Tensors of the Open Inference Protocol, in JSON or with binary data, and their conversion to and from arrays.
//!
//! What can be told from the tensor alone is checked here: datatype, element count, nesting, the size of binary data, and
//! that every element fits its type. What only the model knows, the predictor checks.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::http::predict::{AtMost, Data, Element};
use crate::infer::{Array, ArrayData, Datatype};

use super::binary::{Tail, count_texts};

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
    /// `binary_data_size`: bytes of the elements, which are behind the JSON.
    #[schema(value_type = Object, required = false)]
    pub parameters: Parameters,
    /// Elements in row-major order, flat or nested; absent where they are binary.
    pub data: Option<Data>,
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
            data,
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

/// Why a tensor is not an array.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// A datatype that the protocol does not have.
    #[error("input `{name}` has the datatype `{given}`, which is not one of {}", datatypes())]
    UnknownDatatype { name: String, given: String },
    /// Texts, which no model reads that can predict.
    #[error("input `{name}` has the datatype BYTES; predictions take numbers: {}", datatypes())]
    Texts { name: String },
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
    /// No elements at all.
    #[error("input `{name}` has neither data nor the parameter binary_data_size")]
    Missing { name: String },
    /// Elements in JSON, and others behind it.
    #[error("input `{name}` has both data and the parameter binary_data_size")]
    Both { name: String },
    /// The size of binary data is no number of bytes.
    #[error("input `{name}` has the binary_data_size {given}, which is no number of bytes")]
    Size { name: String, given: serde_json::Value },
    /// The size of binary data is not that of the shape.
    #[error("input `{name}` has {given} bytes of binary data, its shape {shape:?} of {datatype} needs {needed}")]
    ByteCount { name: String, shape: Vec<usize>, datatype: Datatype, given: usize, needed: usize },
    /// Binary data that ends before it should.
    #[error("input `{name}` has {given} bytes of binary data, {left} are left in the body")]
    BeyondBody { name: String, given: usize, left: usize },
    /// Binary data in a body that is all JSON.
    #[error("input `{name}` has binary data, but the header Inference-Header-Content-Length is missing")]
    NoHeader { name: String },
    /// Lengths in binary data of BYTES do not add up to it.
    #[error("input `{name}` has elements of BYTES that do not end where its {given} bytes of binary data do")]
    TextLengths { name: String, given: usize },
}

impl RequestInput {
    /// The tensor as a named array, its elements taken from the JSON or from `tail`. Whether the model has such an input is
    /// the predictor's to say.
    ///
    /// # Errors
    /// [`TensorError`] for the first fault.
    pub fn decode(self, tail: &mut Tail) -> Result<(String, Array), TensorError> {
        let Self { name, shape, datatype, mut parameters, data } = self;
        match (data, parameters.remove("binary_data_size")) {
            (Some(data), None) => decode_json(name, shape, &datatype, &data),
            (None, Some(size)) => {
                let size_bytes = size.as_u64().and_then(|size| usize::try_from(size).ok());
                let Some(given) = size_bytes else { return Err(TensorError::Size { name, given: size }) };
                let bytes = match tail.take(given) {
                    Ok(bytes) => bytes,
                    Err(Some(left)) => return Err(TensorError::BeyondBody { name, given, left }),
                    Err(None) => return Err(TensorError::NoHeader { name }),
                };
                decode_binary(name, shape, &datatype, bytes)
            }
            (Some(_), Some(_)) => Err(TensorError::Both { name }),
            (None, None) => Err(TensorError::Missing { name }),
        }
    }
}

fn decode_json(name: String, shape: Vec<usize>, datatype: &str, data: &Data) -> Result<(String, Array), TensorError> {
    let datatype = parse_datatype(&name, datatype)?;
    let Some(needed) = element_count(&shape) else { return Err(TensorError::Extent { name, shape }) };
    if data.count != needed {
        return Err(TensorError::ElementCount { name, shape, given: data.count, needed });
    }
    if data.extents.len() > 1 && data.extents != shape {
        return Err(TensorError::Nesting { name, nested: data.extents.clone(), shape });
    }
    match data.convert(datatype) {
        Ok(values) => Ok((name, Array { dims: shape, data: values })),
        Err(index) => Err(TensorError::Element { name, index, value: data.elements[index], datatype }),
    }
}

fn decode_binary(
    name: String,
    shape: Vec<usize>,
    datatype: &str,
    bytes: &[u8],
) -> Result<(String, Array), TensorError> {
    let (Some(elements), given) = (element_count(&shape), bytes.len()) else {
        return Err(TensorError::Extent { name, shape });
    };
    if datatype == TEXTS {
        return Err(match count_texts(bytes) {
            None => TensorError::TextLengths { name, given },
            Some(given) if given != elements => TensorError::ElementCount { name, shape, given, needed: elements },
            Some(_) => TensorError::Texts { name },
        });
    }
    let datatype = parse_datatype(&name, datatype)?;
    let Some(needed) = elements.checked_mul(datatype.size_bytes()) else {
        return Err(TensorError::Extent { name, shape });
    };
    if given != needed {
        return Err(TensorError::ByteCount { name, shape, datatype, given, needed });
    }
    Ok((name, Array { dims: shape, data: ArrayData::from_le_bytes(datatype, bytes) }))
}

/// The protocol's name for elements that are texts.
const TEXTS: &str = "BYTES";

fn parse_datatype(name: &str, given: &str) -> Result<Datatype, TensorError> {
    given.parse().map_err(|_| match given {
        TEXTS => TensorError::Texts { name: name.to_owned() },
        _ => TensorError::UnknownDatatype { name: name.to_owned(), given: given.to_owned() },
    })
}

fn datatypes() -> String {
    Datatype::ALL.iter().map(|datatype| datatype.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(members: &str) -> Result<Array, String> {
        decode_with(members, b"")
    }

    /// With `binary` behind the JSON; where that is empty, all is JSON.
    fn decode_with(members: &str, binary: &[u8]) -> Result<Array, String> {
        let input: RequestInput =
            serde_json::from_str(&format!(r#"{{"name": "x", {members}}}"#)).map_err(|error| error.to_string())?;
        let (_, mut tail) = Tail::split(binary, (!binary.is_empty()).then_some(0)).unwrap();
        input.decode(&mut tail).map(|(_, array)| array).map_err(|error| error.to_string())
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
            (r#""shape": [2], "datatype": "BYTES", "data": [1, 2]"#, "datatype BYTES; predictions take numbers: BOOL"),
            (r#""shape": [2], "datatype": "FP32""#, "neither data nor"),
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
            (r#""shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}"#, "Content-Length is missing"),
        ];
        for (members, fault) in cases {
            let message = decode(members).unwrap_err();
            assert!(message.contains(fault), "{members}: {message}");
        }
    }

    #[test]
    fn binary_data_becomes_arrays_of_every_datatype() {
        for &datatype in Datatype::ALL {
            let elements = ArrayData::from_f64(datatype, [1.0, 0.0, 1.0].into_iter());
            let bytes = elements.to_le_bytes();
            let (name, size) = (datatype.name(), bytes.len());
            let members =
                format!(r#""shape": [1, 3], "datatype": "{name}", "parameters": {{"binary_data_size": {size}}}"#);
            assert_eq!(decode_with(&members, &bytes), Ok(Array { dims: vec![1, 3], data: elements }), "{name}");
        }
    }

    #[test]
    fn every_fault_of_binary_data_is_named() {
        let eight = [0; 8];
        let texts = b"\x02\0\0\0ab\0\0\0\0";
        let cases = [
            ("[2]", "FP32", "9", &eight[..], "has 9 bytes of binary data, 8 are left in the body"),
            ("[2]", "FP32", "18446744073709551615", &eight, "8 are left in the body"),
            ("[2]", "FP32", "-8", &eight, "the binary_data_size -8, which is no number of bytes"),
            ("[2]", "FP32", "8.0", &eight, "the binary_data_size 8.0"),
            ("[2]", "FP32", "\"8\"", &eight, "the binary_data_size \"8\""),
            ("[2]", "FP32", "18446744073709551616", &eight, "which is no number of bytes"),
            ("[2]", "FP32", "7", &eight, "has 7 bytes of binary data, its shape [2] of FP32 needs 8"),
            ("[3]", "FP16", "8", &eight, "its shape [3] of FP16 needs 6"),
            ("[0, 2]", "FP32", "0", &eight, "no countable elements"),
            ("[4294967296, 4294967296]", "INT8", "8", &eight, "no countable elements"),
            ("[4294967296, 1073741824]", "FP32", "8", &eight, "no countable elements"),
            ("[2]", "float", "8", &eight, "datatype `float`"),
            ("[2]", "BYTES", "10", texts, "has the datatype BYTES; predictions take numbers"),
            ("[3]", "BYTES", "10", texts, "has 2 elements, its shape [3] needs 3"),
            ("[2]", "BYTES", "9", texts, "do not end where its 9 bytes"),
        ];
        for (shape, datatype, size, binary, fault) in cases {
            let parameters = format!(r#""parameters": {{"binary_data_size": {size}}}"#);
            let members = format!(r#""shape": {shape}, "datatype": "{datatype}", {parameters}"#);
            let message = decode_with(&members, binary).unwrap_err();
            assert!(message.contains(fault), "{members}: {message}");
        }
        let both = r#""shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}, "data": [1]"#;
        assert!(decode_with(both, b"\0").unwrap_err().contains("both data and"));
    }
}
