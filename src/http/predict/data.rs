//! The elements of a JSON tensor: numbers or booleans, flat in row-major order or nested one array per axis.
//!
//! Read straight into one flat vector, so a large request costs 16 bytes an element and no tree of JSON values. Elements
//! beyond what the tensor's shape holds are counted, not kept.

use std::borrow::Cow;
use std::fmt;

use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::infer::{ArrayData, Datatype};

/// Elements as they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Data {
    /// All of them, or as many as were to be kept.
    pub elements: Vec<Element>,
    /// Elements that were there.
    pub count: usize,
    /// Extents of the nested arrays, outermost first; one extent for flat data.
    pub extents: Vec<usize>,
}

impl utoipa::PartialSchema for Data {
    fn schema() -> RefOr<Schema> {
        let element = |kind| ObjectBuilder::new().schema_type(kind);
        let nested = Ref::from_schema_name(<Self as utoipa::ToSchema>::name());
        let item = OneOfBuilder::new().item(element(Type::Number)).item(element(Type::Boolean)).item(nested);
        let description = "Numbers or booleans in row-major order, flat, or nested with an array for each axis.";
        ArrayBuilder::new().items(RefOr::T(item.into())).description(Some(description)).into()
    }
}

impl utoipa::ToSchema for Data {
    fn name() -> Cow<'static, str> {
        "TensorData".into()
    }
}

/// One JSON number or boolean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element {
    Bool(bool),
    Signed(i64),
    /// Integers above `i64::MAX`.
    Unsigned(u64),
    Float(f64),
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
        }
    }
}

/// Reads [`Data`] and keeps no more than so many elements of it.
pub struct AtMost(pub usize);

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Data;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        let mut flattener = Flattener::keeping(self.0);
        let item = Nested { flattener: &mut flattener, depth: 0 }.deserialize(deserializer)?;
        if item == Item::Element {
            return Err(D::Error::custom("data is a single value where an array is expected"));
        }
        Ok(flattener.finish())
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
pub struct Flattener {
    /// Elements to keep.
    at_most: usize,
    elements: Vec<Element>,
    count: usize,
    extents: Vec<usize>,
    /// Depth of the elements, known from the first one on.
    element_depth: Option<usize>,
}

const UNEVEN: &str = "data is ragged: some elements are nested deeper than others";

impl Flattener {
    /// Nothing yet, and `at_most` elements to keep.
    pub fn keeping(at_most: usize) -> Self {
        Self { at_most, ..Self::default() }
    }

    /// What was read.
    pub fn finish(self) -> Data {
        Data { elements: self.elements, count: self.count, extents: self.extents }
    }

    /// Takes an element found at `depth`, which must be that of all others.
    fn push<E: serde::de::Error>(&mut self, element: Element, depth: usize) -> Result<Item, E> {
        let array_beside = self.extents.len() > depth;
        if *self.element_depth.get_or_insert(depth) != depth || array_beside {
            return Err(E::custom(UNEVEN));
        }
        if self.count < self.at_most {
            self.elements.push(element);
        }
        self.count += 1;
        Ok(Item::Element)
    }

    /// Notes that an array at `depth` has ended after `length` items.
    ///
    /// # Errors
    /// For one that is longer or shorter than those beside it.
    pub fn close<E: serde::de::Error>(&mut self, depth: usize, length: usize) -> Result<Item, E> {
        if self.element_depth.is_some_and(|elements| elements <= depth) {
            return Err(E::custom(UNEVEN));
        }
        if self.extents.len() <= depth {
            // Arrays end from the inside out, so the first one to end is the deepest.
            self.extents.resize(depth + 1, usize::MAX);
        }
        let extent = &mut self.extents[depth];
        if *extent == usize::MAX {
            *extent = length;
        }
        if *extent != length {
            return Err(E::custom(format_args!(
                "data is ragged: arrays of {extent} and {length} items on axis {depth}"
            )));
        }
        Ok(Item::Array)
    }
}

/// What was read.
#[derive(Debug, PartialEq)]
pub enum Item {
    Element,
    Array,
}

/// Reads one item, an element or an array, at `depth`.
pub struct Nested<'a> {
    pub flattener: &'a mut Flattener,
    pub depth: usize,
}

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = Item;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, booleans or arrays of them")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Item, E> {
        self.flattener.push(Element::Bool(value), self.depth)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Item, E> {
        self.flattener.push(Element::Signed(value), self.depth)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Item, E> {
        let element = i64::try_from(value).map_or(Element::Unsigned(value), Element::Signed);
        self.flattener.push(element, self.depth)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Item, E> {
        self.flattener.push(Element::Float(value), self.depth)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Item, A::Error> {
        let mut length = 0;
        while items.next_element_seed(Nested { flattener: self.flattener, depth: self.depth + 1 })?.is_some() {
            length += 1;
        }
        self.flattener.close(self.depth, length)
    }
}

impl Data {
    /// The elements as values of `datatype`, or the index of the first that is none.
    pub fn convert(&self, datatype: Datatype) -> Result<ArrayData, usize> {
        let elements = &self.elements;
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
            Datatype::F16 => {
                ArrayData::F16(collect(elements, |e| number(e).map(f16::from_f64).filter(|v| v.is_finite()))?)
            }
            Datatype::Bf16 => {
                ArrayData::Bf16(collect(elements, |e| number(e).map(bf16::from_f64).filter(|v| v.is_finite()))?)
            }
            Datatype::F32 => {
                ArrayData::F32(collect(elements, |e| number(e).map(|v| v as f32).filter(|v| v.is_finite()))?)
            }
            Datatype::F64 => ArrayData::F64(collect(elements, number)?),
        })
    }
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

/// Writes elements as one flat JSON array. A NaN or an infinity, which JSON cannot hold, becomes `null`.
pub struct Flat<'a>(pub &'a ArrayData);

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ArrayData::Bool(values) => values.serialize(serializer),
            ArrayData::U8(values) => serializer.collect_seq(values),
            ArrayData::U16(values) => values.serialize(serializer),
            ArrayData::U32(values) => values.serialize(serializer),
            ArrayData::U64(values) => values.serialize(serializer),
            ArrayData::I8(values) => values.serialize(serializer),
            ArrayData::I16(values) => values.serialize(serializer),
            ArrayData::I32(values) => values.serialize(serializer),
            ArrayData::I64(values) => values.serialize(serializer),
            ArrayData::F16(values) => serializer.collect_seq(values.iter().map(|value| value.to_f32())),
            ArrayData::Bf16(values) => serializer.collect_seq(values.iter().map(|value| value.to_f32())),
            ArrayData::F32(values) => values.serialize(serializer),
            ArrayData::F64(values) => values.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Element::{Bool, Float, Signed, Unsigned};
    use super::*;

    fn read(json: &str) -> Result<Data, String> {
        read_at_most(usize::MAX, json)
    }

    fn read_at_most(count: usize, json: &str) -> Result<Data, String> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        AtMost(count).deserialize(&mut deserializer).map_err(|error| error.to_string())
    }

    #[test]
    fn nested_and_flat_data_are_read_in_row_major_order() {
        let elements = vec![Signed(1), Signed(2), Signed(3), Signed(4)];
        assert_eq!(read("[1,2,3,4]"), Ok(Data { elements: elements.clone(), count: 4, extents: vec![4] }));
        assert_eq!(read("[[1,2],[3,4]]"), Ok(Data { elements: elements.clone(), count: 4, extents: vec![2, 2] }));
        assert_eq!(read("[[[1],[2]],[[3],[4]]]"), Ok(Data { elements, count: 4, extents: vec![2, 2, 1] }));
    }

    #[test]
    fn elements_beyond_those_to_keep_are_only_counted() {
        let kept = Data { elements: vec![Signed(1), Signed(2)], count: 3, extents: vec![3] };
        assert_eq!(read_at_most(2, "[1,2,3]"), Ok(kept));
        assert_eq!(read_at_most(0, "[[1],[2]]"), Ok(Data { elements: vec![], count: 2, extents: vec![2, 1] }));
    }

    #[test]
    fn elements_keep_their_kind() {
        let data = read("[true, -1, 18446744073709551615, 0.5, 1e2]").unwrap();
        assert_eq!(data.elements, [Bool(true), Signed(-1), Unsigned(u64::MAX), Float(0.5), Float(100.0)]);
    }

    #[test]
    fn empty_data_has_no_elements() {
        assert_eq!(read("[]"), Ok(Data { elements: vec![], count: 0, extents: vec![0] }));
        assert_eq!(read("[[],[]]"), Ok(Data { elements: vec![], count: 0, extents: vec![2, 0] }));
    }

    #[test]
    fn ragged_data_is_refused() {
        for json in ["[[1,2],[3]]", "[1,[2]]", "[[1],2]", "[[[1]],[2]]", "[[],1]", "[1,[]]", "[[],[1]]"] {
            assert!(read(json).unwrap_err().contains("data is ragged"), "{json}");
        }
    }

    #[test]
    fn other_json_is_refused() {
        for json in ["1", "null", "[null]", "[\"1\"]", "{}", "[{}]"] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_stack_overflow() {
        let json = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(read(&json).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn outputs_are_flat_and_shortest() {
        let json = |data| serde_json::to_string(&Flat(&data)).unwrap();
        assert_eq!(json(ArrayData::F32(vec![0.1, f32::NAN, -2.0])), "[0.1,null,-2.0]");
        assert_eq!(json(ArrayData::F16(vec![half::f16::from_f32(0.5)])), "[0.5]");
        assert_eq!(json(ArrayData::U64(vec![u64::MAX])), "[18446744073709551615]");
        assert_eq!(json(ArrayData::Bool(vec![true, false])), "[true,false]");
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
            let data = read(&format!("[{value}]")).unwrap();
            assert_eq!(data.convert(datatype), Err(0), "{value} as {datatype}");
        }
        let data = read("[18446744073709551615]").unwrap();
        assert_eq!(data.convert(Datatype::U64), Ok(ArrayData::U64(vec![u64::MAX])));
    }
}
