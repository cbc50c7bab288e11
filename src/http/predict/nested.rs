//! Outputs as nested JSON arrays, one an axis.

use serde::{Serialize, Serializer};

use crate::http::Error;
use crate::infer::{Array, ArrayData};

use super::Arrays;

/// Writes an array, or a part of it, as nested JSON arrays. A NaN or an infinity, which JSON cannot hold, becomes `null`.
#[derive(Debug, Clone, Copy)]
pub struct AsNested<'a> {
    data: &'a ArrayData,
    /// Extents of what is written.
    dims: &'a [usize],
    /// Element where it begins.
    start: usize,
}

impl<'a> AsNested<'a> {
    /// All of `array`.
    pub fn all(array: &'a Array) -> Self {
        Self { data: &array.data, dims: &array.dims, start: 0 }
    }

    /// One entry of the leading axis of `array`, which has such an entry.
    pub fn row(array: &'a Array, index: usize) -> Self {
        let dims = array.dims.get(1..).unwrap_or_default();
        Self { data: &array.data, dims, start: index * dims.iter().product::<usize>() }
    }

    /// The same without its arrays where they hold a single element.
    fn or_scalar(self) -> Self {
        if self.dims.iter().all(|&extent| extent == 1) { Self { dims: &[], ..self } } else { self }
    }

    fn write<T: Copy, U: Serialize, S: Serializer>(
        self,
        values: &[T],
        written: fn(T) -> U,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let count = self.dims.iter().product::<usize>();
        Nest { values: &values[self.start..self.start + count], dims: self.dims, written }.serialize(serializer)
    }
}

impl Serialize for AsNested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.data {
            ArrayData::Bool(values) => self.write(values, |value| value, serializer),
            ArrayData::U8(values) => self.write(values, |value| value, serializer),
            ArrayData::U16(values) => self.write(values, |value| value, serializer),
            ArrayData::U32(values) => self.write(values, |value| value, serializer),
            ArrayData::U64(values) => self.write(values, |value| value, serializer),
            ArrayData::I8(values) => self.write(values, |value| value, serializer),
            ArrayData::I16(values) => self.write(values, |value| value, serializer),
            ArrayData::I32(values) => self.write(values, |value| value, serializer),
            ArrayData::I64(values) => self.write(values, |value| value, serializer),
            ArrayData::F16(values) => self.write(values, |value| value.to_f32(), serializer),
            ArrayData::Bf16(values) => self.write(values, |value| value.to_f32(), serializer),
            ArrayData::F32(values) => self.write(values, |value| value, serializer),
            ArrayData::F64(values) => self.write(values, |value| value, serializer),
        }
    }
}

/// As many `values` as `dims` say.
struct Nest<'a, T, U> {
    values: &'a [T],
    dims: &'a [usize],
    written: fn(T) -> U,
}

impl<T: Copy, U: Serialize> Serialize for Nest<'_, T, U> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.dims {
            [] => (self.written)(self.values[0]).serialize(serializer),
            [_] => serializer.collect_seq(self.values.iter().map(|&value| (self.written)(value))),
            [extent, dims @ ..] => {
                let count = dims.iter().product::<usize>();
                let part = |i| Nest { values: &self.values[i * count..][..count], dims, written: self.written };
                serializer.collect_seq((0..*extent).map(part))
            }
        }
    }
}

/// Outputs as an object of nested arrays.
pub struct Together<'a>(pub &'a Arrays);

impl Serialize for Together<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, array)| (name, AsNested::all(array))))
    }
}

/// Outputs as an array of objects, each with an entry of the leading axis of every output.
pub struct InRows<'a> {
    outputs: &'a Arrays,
    count: usize,
    has_scalars: bool,
}

impl<'a> InRows<'a> {
    /// The rows of `outputs`.
    ///
    /// # Errors
    /// [`Error::UnsupportedRequest`] for outputs without a leading extent that is the same for all.
    pub fn of(outputs: &'a Arrays) -> Result<Self, Error> {
        let count = common_extent(outputs).ok_or(Error::UnsupportedRequest(NO_ROWS))?;
        Ok(Self { outputs, count, has_scalars: false })
    }

    /// The same, with what is a single element of an output not in arrays.
    #[must_use]
    pub fn with_scalars(self) -> Self {
        Self { has_scalars: true, ..self }
    }
}

/// Both protocols that answer in rows answer in columns where they are asked so.
const NO_ROWS: &str = "the outputs of the model have no rows, since their leading extents differ; ask with `inputs`";

impl Serialize for InRows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.count).map(|index| InRow { rows: self, index }))
    }
}

struct InRow<'a> {
    rows: &'a InRows<'a>,
    index: usize,
}

impl Serialize for InRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cell = |array| AsNested::row(array, self.index);
        let cell = |array| if self.rows.has_scalars { cell(array).or_scalar() } else { cell(array) };
        serializer.collect_map(self.rows.outputs.iter().map(|(name, array)| (name, cell(array))))
    }
}

/// The leading extent that all `outputs` have; `None` where they differ, or one has no axis.
fn common_extent(outputs: &Arrays) -> Option<usize> {
    let mut extents = outputs.iter().map(|(_, array)| array.dims.first().copied());
    let first = extents.next()??;
    extents.all(|extent| extent == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(written: AsNested) -> String {
        serde_json::to_string(&written).unwrap()
    }

    fn array(dims: &[usize], data: ArrayData) -> Array {
        Array { dims: dims.to_vec(), data }
    }

    #[test]
    fn arrays_are_nested_as_their_extents_are() {
        let cube = array(&[2, 1, 2], ArrayData::I8(vec![1, 2, 3, 4]));
        assert_eq!(json(AsNested::all(&cube)), "[[[1,2]],[[3,4]]]");
        assert_eq!(json(AsNested::row(&cube, 1)), "[[3,4]]");
        assert_eq!(json(AsNested::row(&cube, 1).or_scalar()), "[[3,4]]");
        let column = array(&[2, 1], ArrayData::F32(vec![0.1, f32::NAN]));
        assert_eq!(json(AsNested::all(&column)), "[[0.1],[null]]");
        assert_eq!(json(AsNested::row(&column, 0)), "[0.1]");
        assert_eq!(json(AsNested::row(&column, 0).or_scalar()), "0.1");
        let half = array(&[1], ArrayData::F16(vec![half::f16::from_f32(0.5)]));
        assert_eq!(json(AsNested::row(&half, 0)), "0.5");
        assert_eq!(json(AsNested::all(&array(&[], ArrayData::Bool(vec![true])))), "true");
    }

    #[test]
    fn axes_without_extent_are_empty_arrays() {
        for (dims, expected) in [(&[0, 2][..], "[]"), (&[2, 0], "[[],[]]"), (&[1, 2, 0], "[[[],[]]]")] {
            assert_eq!(json(AsNested::all(&array(dims, ArrayData::F64(vec![])))), expected);
        }
    }

    #[test]
    fn outputs_are_written_together_and_in_rows() {
        let outputs = |second: &[usize]| {
            let count = second.iter().product();
            vec![
                ("a".to_owned(), array(&[2, 1], ArrayData::I8(vec![1, 2]))),
                ("b".to_owned(), array(second, ArrayData::U8(vec![0; count]))),
            ]
        };
        let two = outputs(&[2, 2]);
        assert_eq!(serde_json::to_string(&Together(&two)).unwrap(), r#"{"a":[[1],[2]],"b":[[0,0],[0,0]]}"#);
        let rows = |rows: InRows| serde_json::to_string(&rows).unwrap();
        assert_eq!(rows(InRows::of(&two).unwrap()), r#"[{"a":[1],"b":[0,0]},{"a":[2],"b":[0,0]}]"#);
        assert_eq!(rows(InRows::of(&two).unwrap().with_scalars()), r#"[{"a":1,"b":[0,0]},{"a":2,"b":[0,0]}]"#);
        for second in [&[3][..], &[]] {
            assert!(InRows::of(&outputs(second)).is_err(), "{second:?}");
        }
    }
}
