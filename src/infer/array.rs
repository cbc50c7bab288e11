//! Arrays that go into and come out of graphs, in the datatypes of the Open Inference Protocol.
//!
//! Every list of datatypes in this file is written by one macro, `each_datatype`, so that none can be forgotten.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};
use tract_onnx::tract_hir::prelude::{DatumType, TValue, Tensor};

/// A named array that goes into or comes out of a graph, or stands in a dataset.
///
/// Invariant of arrays made by [`Array::new`]: `data` holds as many elements as the product of `dims`.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Extents, outermost first; empty for a scalar.
    pub dims: Vec<usize>,
    /// The elements.
    pub data: ArrayData,
}

/// Why something is not an array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// The dimensions multiply to more than can be counted.
    #[error("the dimensions {dims:?} overflow")]
    Overflow { dims: Vec<usize> },
    /// More or fewer elements than the dimensions say.
    #[error("the shape {dims:?} needs {expected} elements, found {found}")]
    ElementCount { dims: Vec<usize>, expected: usize, found: usize },
    /// More or fewer bytes than the dimensions say.
    #[error("{expected} bytes expected for the shape {dims:?} of {datatype}, found {found}")]
    ByteCount { dims: Vec<usize>, datatype: Datatype, expected: usize, found: usize },
    /// A name that is no datatype of the Open Inference Protocol, or is one without numbers (`BYTES`).
    #[error("unknown datatype {name}")]
    UnknownDatatype { name: String },
    /// An element type that the graph engine does not have.
    #[error("{datatype} arrays cannot be computed with")]
    NotComputable { datatype: Datatype },
    /// The engine returned a type that has no name in the protocol.
    #[error("the graph returned elements of type {datum}, which has no datatype")]
    NoDatatype { datum: String },
    /// The engine returned a shape or storage that could not be read.
    #[error("the graph returned an unreadable tensor: {reason}")]
    Unreadable { reason: String },
}

/// Calls `$then!` with one row per datatype: variant, name, element type, reader and writer of one element.
macro_rules! each_datatype {
    ($then:ident) => {
        $then! {
            Bool "BOOL" bool, U8 "UINT8" u8, U16 "UINT16" u16, U32 "UINT32" u32, U64 "UINT64" u64,
            I8 "INT8" i8, I16 "INT16" i16, I32 "INT32" i32, I64 "INT64" i64,
            F16 "FP16" f16, Bf16 "BF16" bf16, F32 "FP32" f32, F64 "FP64" f64
        }
    };
}

macro_rules! define_datatypes {
    ($($variant:ident $name:literal $element:ty),*) => {
        /// Element types, named as the Open Inference Protocol names them (and BF16, as its implementations do).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum Datatype { $($variant),* }

        /// Row-major elements.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum ArrayData { $($variant(Vec<$element>)),* }

        impl Datatype {
            /// Every datatype.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The protocol's name: `FP32`, `INT64`, ...
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Bytes of one element.
            pub const fn size_bytes(self) -> usize {
                match self { $(Self::$variant => size_of::<$element>()),* }
            }
        }

        impl ArrayData {
            /// The element type.
            pub const fn datatype(&self) -> Datatype {
                match self { $(Self::$variant(_) => Datatype::$variant),* }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(v) => v.len()),* }
            }

            /// True when there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Adds the elements of `other`; false, and nothing added, where that is of another type.
            fn extend(&mut self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$variant(own), Self::$variant(other)) => own.extend_from_slice(other),)*
                    _ => return false,
                }
                true
            }

            /// The elements of `range`, which lies inside.
            fn slice(&self, range: std::ops::Range<usize>) -> Self {
                match self { $(Self::$variant(v) => Self::$variant(v[range].to_vec())),* }
            }

            /// Element `i` widened to f64: exact, but for 64-bit integers beyond 2^53.
            ///
            /// # Panics
            /// If `i` is out of range.
            pub fn get_f64(&self, i: usize) -> f64 {
                match self { $(Self::$variant(v) => v[i].to_number()),* }
            }

            /// The elements `from` (rounded, truncated towards zero and saturated where the type demands it) as
            /// `datatype`.
            pub fn from_f64(datatype: Datatype, from: impl Iterator<Item = f64>) -> Self {
                match datatype { $(Datatype::$variant => Self::$variant(from.map(<$element>::from_number).collect())),* }
            }

            /// Reads little-endian elements of `datatype`; a trailing partial element is ignored.
            pub fn from_le_bytes(datatype: Datatype, bytes: &[u8]) -> Self {
                match datatype { $(Datatype::$variant => Self::$variant(
                    bytes.chunks_exact(size_of::<$element>()).map(<$element>::read).collect()
                )),* }
            }

            /// The elements as little-endian bytes.
            pub fn to_le_bytes(&self) -> Vec<u8> {
                let mut out = Vec::new();
                self.append_le_bytes(&mut out);
                out
            }

            /// Puts the elements behind what is in `out`, as little-endian bytes.
            pub fn append_le_bytes(&self, out: &mut Vec<u8>) {
                match self { $(Self::$variant(v) => append(v, out)),* }
            }

            /// Bytes of all elements.
            pub fn size_bytes(&self) -> usize {
                self.len() * self.datatype().size_bytes()
            }
        }
    };
}
each_datatype!(define_datatypes);

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Datatype {
    type Err = ArrayError;

    fn from_str(name: &str) -> Result<Self, ArrayError> {
        let found = Self::ALL.iter().find(|datatype| datatype.name() == name);
        found.copied().ok_or_else(|| ArrayError::UnknownDatatype { name: name.to_owned() })
    }
}

impl Array {
    /// An array of `dims` over `data`, row-major.
    ///
    /// # Errors
    /// [`ArrayError::Overflow`] or [`ArrayError::ElementCount`].
    pub fn new(dims: Vec<usize>, data: ArrayData) -> Result<Self, ArrayError> {
        let array = Self { dims, data };
        array.check().map(|()| array)
    }

    /// Checks that there are as many elements as the dimensions say.
    ///
    /// # Errors
    /// [`ArrayError::Overflow`] or [`ArrayError::ElementCount`].
    pub fn check(&self) -> Result<(), ArrayError> {
        let expected = element_count(&self.dims)?;
        if expected == self.len() {
            return Ok(());
        }
        Err(ArrayError::ElementCount { dims: self.dims.clone(), expected, found: self.len() })
    }

    /// Reads little-endian elements.
    ///
    /// # Errors
    /// [`ArrayError::Overflow`] or [`ArrayError::ByteCount`].
    pub fn from_le_bytes(datatype: Datatype, dims: Vec<usize>, bytes: &[u8]) -> Result<Self, ArrayError> {
        let count = element_count(&dims)?;
        match count.checked_mul(datatype.size_bytes()) {
            None => Err(ArrayError::Overflow { dims }),
            Some(expected) if expected != bytes.len() => {
                Err(ArrayError::ByteCount { dims, datatype, expected, found: bytes.len() })
            }
            Some(_) => Ok(Self { dims, data: ArrayData::from_le_bytes(datatype, bytes) }),
        }
    }

    /// Arrays one behind the other along the first axis; `None` where types or other extents differ, there is no first
    /// axis, or an array does not hold what its dimensions say.
    pub fn stack(parts: &[&Self]) -> Option<Self> {
        let (first, rest) = parts.split_first()?;
        let mut stack = (*first).clone();
        let mut samples = *stack.dims.first()?;
        stack.check().ok()?;
        for part in rest {
            part.check().ok()?;
            if part.dims.get(1..)? != &first.dims[1..] || !stack.data.extend(&part.data) {
                return None;
            }
            samples = samples.checked_add(part.dims[0])?;
        }
        stack.dims[0] = samples;
        Some(stack)
    }

    /// The inverse of [`Array::stack`]: arrays of these first extents; `None` where they do not add up.
    pub fn unstack(&self, extents: &[usize]) -> Option<Vec<Self>> {
        let (&samples, rest) = self.dims.split_first()?;
        let sum = extents.iter().try_fold(0usize, |sum, &extent| sum.checked_add(extent))?;
        if sum != samples || self.check().is_err() {
            return None;
        }
        let row = rest.iter().product::<usize>();
        let mut start = 0;
        let part = |&extent: &usize| {
            let range = start..start + extent * row;
            start = range.end;
            Self { dims: [&[extent], rest].concat(), data: self.data.slice(range) }
        };
        Some(extents.iter().map(part).collect())
    }

    /// The element type.
    pub const fn datatype(&self) -> Datatype {
        self.data.datatype()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// True when there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Hands the array to the graph engine.
    ///
    /// # Errors
    /// [`ArrayError::NotComputable`] for BF16; a count that does not match the dimensions.
    pub(crate) fn into_tensor(self) -> Result<Tensor, ArrayError> {
        let Self { dims, data } = Self::new(self.dims, self.data)?;
        let datatype = data.datatype();
        macro_rules! tensor {
            ($($variant:ident),*) => {
                match data {
                    $(ArrayData::$variant(v) => Tensor::from_shape(&dims, &v),)*
                    ArrayData::Bf16(_) => return Err(ArrayError::NotComputable { datatype }),
                }
            };
        }
        tensor!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64).map_err(unreadable)
    }

    /// Takes an array from the graph engine. Symbolic integers (shapes) come out as INT64.
    ///
    /// # Errors
    /// [`ArrayError::NoDatatype`] for strings and the engine's own types.
    pub(crate) fn from_tensor(tensor: &TValue) -> Result<Self, ArrayError> {
        let resolved;
        let tensor: &Tensor = if tensor.datum_type() == DatumType::TDim {
            resolved = tensor.cast_to::<i64>().map_err(unreadable)?.into_owned();
            &resolved
        } else {
            tensor
        };
        let plain = tensor.try_as_plain_ram().map_err(unreadable)?;
        macro_rules! data {
            ($($variant:ident $element:ty),*) => {
                match tensor.datum_type() {
                    $(DatumType::$variant => {
                        ArrayData::$variant(plain.as_slice::<$element>().map_err(unreadable)?.to_vec())
                    })*
                    datum => return Err(ArrayError::NoDatatype { datum: format!("{datum:?}") }),
                }
            };
        }
        let data = data!(Bool bool, U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64, F16 f16,
            F32 f32, F64 f64);
        Ok(Self { dims: tensor.shape().to_vec(), data })
    }
}

fn unreadable(error: impl fmt::Display) -> ArrayError {
    ArrayError::Unreadable { reason: error.to_string() }
}

fn element_count(dims: &[usize]) -> Result<usize, ArrayError> {
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    count.ok_or_else(|| ArrayError::Overflow { dims: dims.to_vec() })
}

fn append<E: Element>(elements: &[E], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + size_of_val(elements), 0);
    let slots = out[start..].chunks_exact_mut(size_of::<E>());
    slots.zip(elements).for_each(|(slot, element)| element.write(slot));
}

/// One element: its bytes and its value as a number.
trait Element: Sized {
    /// `bytes` are exactly one element.
    fn read(bytes: &[u8]) -> Self;
    /// `slot` has room for exactly one element.
    fn write(&self, slot: &mut [u8]);
    fn to_number(self) -> f64;
    fn from_number(number: f64) -> Self;
}

impl Element for bool {
    fn read(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
    fn write(&self, slot: &mut [u8]) {
        slot[0] = u8::from(*self);
    }
    fn to_number(self) -> f64 {
        f64::from(u8::from(self))
    }
    fn from_number(number: f64) -> Self {
        number != 0.0
    }
}

macro_rules! element {
    ($($element:ty: $to:expr, $from:expr;)*) => {
        $(impl Element for $element {
            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("one element"))
            }
            fn write(&self, slot: &mut [u8]) {
                slot.copy_from_slice(&self.to_le_bytes());
            }
            fn to_number(self) -> f64 {
                $to(self)
            }
            fn from_number(number: f64) -> Self {
                $from(number)
            }
        })*
    };
}
element! {
    u8: f64::from, |n| n as u8;
    u16: f64::from, |n| n as u16;
    u32: f64::from, |n| n as u32;
    u64: |n| n as f64, |n| n as u64;
    i8: f64::from, |n| n as i8;
    i16: f64::from, |n| n as i16;
    i32: f64::from, |n| n as i32;
    i64: |n| n as f64, |n| n as i64;
    f16: f16::to_f64, f16::from_f64;
    bf16: bf16::to_f64, bf16::from_f64;
    f32: f64::from, |n| n as f32;
    f64: |n| n, |n| n;
}

#[cfg(test)]
mod tests {
    use tract_onnx::tract_hir::prelude::IntoTValue;

    use super::*;

    #[test]
    fn every_datatype_survives_bytes_names_and_tensors() {
        for &datatype in Datatype::ALL {
            assert_eq!(datatype.name().parse(), Ok(datatype));
            let array = Array::new(vec![2, 1], ArrayData::from_f64(datatype, [1.0, 0.0].into_iter())).unwrap();
            assert_eq!(array.datatype(), datatype);
            assert_eq!((array.data.get_f64(0), array.data.get_f64(1)), (1.0, 0.0));
            let bytes = array.data.to_le_bytes();
            assert_eq!((bytes.len(), array.data.size_bytes()), (2 * datatype.size_bytes(), bytes.len()));
            assert_eq!(Array::from_le_bytes(datatype, vec![2, 1], &bytes), Ok(array.clone()));
            match array.clone().into_tensor() {
                Ok(tensor) => assert_eq!(Array::from_tensor(&tensor.into_tvalue()), Ok(array)),
                Err(error) => assert_eq!(error, ArrayError::NotComputable { datatype: Datatype::Bf16 }),
            }
        }
    }

    #[test]
    fn counts_that_do_not_match_are_refused_with_their_numbers() {
        let too_few = Array::new(vec![2, 3], ArrayData::U8(vec![0; 5]));
        assert_eq!(too_few, Err(ArrayError::ElementCount { dims: vec![2, 3], expected: 6, found: 5 }));
        let overflow = Array::new(vec![usize::MAX, 2], ArrayData::U8(vec![]));
        assert_eq!(overflow, Err(ArrayError::Overflow { dims: vec![usize::MAX, 2] }));
        let partial = Array::from_le_bytes(Datatype::F32, vec![2], &[0; 7]);
        let (dims, datatype) = (vec![2], Datatype::F32);
        assert_eq!(partial, Err(ArrayError::ByteCount { dims, datatype, expected: 8, found: 7 }));
        assert_eq!("BYTES".parse::<Datatype>(), Err(ArrayError::UnknownDatatype { name: "BYTES".into() }));
    }

    #[test]
    fn numbers_saturate_into_integers() {
        assert_eq!(ArrayData::from_f64(Datatype::U8, [300.0, -1.0, 2.9].into_iter()), ArrayData::U8(vec![255, 0, 2]));
    }

    #[test]
    fn arrays_are_stacked_and_taken_apart() {
        for &datatype in Datatype::ALL {
            let array = |dims: &[usize]| {
                let count = dims.iter().product::<usize>();
                let values = (0..count).map(|i| (i % 2) as f64);
                Array::new(dims.to_vec(), ArrayData::from_f64(datatype, values)).unwrap()
            };
            let parts = [array(&[1, 3]), array(&[0, 3]), array(&[2, 3])];
            let stack = Array::stack(&parts.each_ref()).unwrap();
            assert_eq!((stack.dims.as_slice(), stack.len()), (&[3, 3][..], 9));
            assert_eq!(stack.unstack(&[1, 0, 2]), Some(parts.to_vec()));
            assert_eq!(stack.unstack(&[1, 1]), None);
            assert_eq!(Array::stack(&[&array(&[1, 3]), &array(&[1, 2])]), None);
            assert_eq!(Array::stack(&[&array(&[])]), None);
        }
        let (bytes, words) = (ArrayData::U8(vec![1]), ArrayData::U16(vec![1]));
        let array = |data| Array { dims: vec![1], data };
        assert_eq!(Array::stack(&[&array(bytes.clone()), &array(words)]), None);
        let short = Array { dims: vec![2], data: bytes.clone() };
        assert_eq!((Array::stack(&[&array(bytes), &short]), short.unstack(&[2])), (None, None));
    }

    #[test]
    fn a_scalar_has_no_dimensions_and_one_element() {
        assert!(Array::new(vec![], ArrayData::I64(vec![7])).is_ok());
    }
}
