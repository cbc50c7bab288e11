//! One TensorProto where it lies in the file: checked without being read, then read as a stream of elements.

use std::ops::Range;

use super::element::{DataField, ElementType};
use super::error::ModelError;
use super::limits::MAX_RANK;
use super::source::{CHUNK_BYTES, Source};
use super::wire::{Cursor, Field, Value};

/// Field numbers of TensorProto.
const DIMS: u32 = 1;
const DATA_TYPE: u32 = 2;
const SEGMENT: u32 = 3;
const NAME: u32 = 8;
const RAW_DATA: u32 = 9;
const EXTERNAL_DATA: u32 = 13;
const DATA_LOCATION: u32 = 14;
/// Names beyond this are attacks, not models.
const MAX_NAME_BYTES: u64 = 1 << 16;

/// What a TensorProto says of itself, its elements counted but not kept.
#[derive(Debug)]
pub(super) struct TensorHead {
    pub name: String,
    pub element: &'static ElementType,
    /// Bytes of the elements as `raw_data` holds them; for strings, of the strings.
    pub size_bytes: u64,
}

/// True for the fields that hold elements.
pub(super) fn is_data(number: u32) -> bool {
    number == RAW_DATA || data_field(number).is_some()
}

fn data_field(number: u32) -> Option<DataField> {
    use DataField::*;
    [Float, Int32, String, Int64, Double, Uint64].into_iter().find(|&f| f as u32 == number)
}

/// The fields of a TensorProto as they were met, before they are checked against each other.
#[derive(Default)]
struct Draft {
    name: Vec<u8>,
    dims: Vec<i64>,
    data_type: i64,
    segmented: bool,
    external: bool,
    /// Length of the last `raw_data`.
    raw_bytes: Option<u64>,
    /// Elements in a typed data field.
    typed: Option<(DataField, u64)>,
    mixed: bool,
    string_bytes: u64,
}

impl TensorHead {
    /// Walks the TensorProto at `range` and checks that its data fills its dims exactly. `fallback` names it in errors
    /// where it has no name of its own.
    pub(super) fn parse(cursor: &mut Cursor, range: &Range<u64>, fallback: &str) -> Result<Self, ModelError> {
        let mut draft = Draft::default();
        cursor.seek(range.start);
        while let Some(field) = cursor.field(range.end)? {
            draft.take(cursor, &field)?;
            if let Value::Bytes(bytes) = field.value {
                cursor.seek(bytes.end);
            }
        }
        draft.finish(fallback)
    }
}

impl Draft {
    fn take(&mut self, cursor: &mut Cursor, field: &Field) -> Result<(), ModelError> {
        match (field.number, &field.value) {
            (DIMS, Value::Varint(dim)) => self.dims.push(*dim as i64),
            (DIMS, Value::Bytes(list)) => {
                while cursor.position() < list.end && self.dims.len() <= MAX_RANK {
                    self.dims.push(cursor.varint(list.end)? as i64);
                }
            }
            (DATA_TYPE, Value::Varint(code)) => self.data_type = *code as i64,
            (SEGMENT, _) => self.segmented = true,
            (EXTERNAL_DATA, _) => self.external = true,
            (DATA_LOCATION, Value::Varint(location)) => self.external |= *location != 0,
            (NAME, Value::Bytes(name)) => {
                if name.end - name.start > MAX_NAME_BYTES {
                    return Err(ModelError::Malformed { offset: field.start, reason: "a tensor name of over 64 KiB" });
                }
                self.name.clear();
                cursor.copy(name.clone(), &mut self.name)?;
            }
            (RAW_DATA, Value::Bytes(raw)) => self.raw_bytes = Some(raw.end - raw.start),
            (number, value) => {
                if let Some(data) = data_field(number) {
                    let count = count_elements(cursor, data, field)?;
                    self.string_bytes += if data == DataField::String { byte_len(value) } else { 0 };
                    let (known, sum) = self.typed.unwrap_or((data, 0));
                    self.mixed |= known != data;
                    self.typed = Some((data, sum + count));
                }
            }
        }
        match self.dims.len() > MAX_RANK {
            true => Err(ModelError::Malformed { offset: field.start, reason: "a tensor of more than 16 dimensions" }),
            false => Ok(()),
        }
    }

    fn finish(self, fallback: &str) -> Result<TensorHead, ModelError> {
        let name = String::from_utf8_lossy(&self.name).into_owned();
        let tensor = if name.is_empty() { fallback.to_owned() } else { name.clone() };
        if self.external {
            return Err(ModelError::ExternalData { tensor });
        }
        if self.segmented {
            return Err(ModelError::Segmented { tensor });
        }
        let dims = checked_dims(&tensor, &self.dims)?;
        let Some(element) = ElementType::from_onnx(self.data_type) else {
            return Err(ModelError::ElementType { tensor, code: self.data_type });
        };
        let overflow =
            || ModelError::Overflow { tensor: tensor.clone(), dims: dims.iter().map(|&d| d as u64).collect() };
        let elements = super::element::element_count(&dims).ok_or_else(overflow)?;
        let needed = element.size_bytes(elements).filter(|&b| b <= isize::MAX as u64).ok_or_else(overflow)?;
        let typed = self.typed.filter(|&(_, count)| count > 0);
        let raw = self.raw_bytes.filter(|&len| len > 0);
        let wrong_field = typed.is_some_and(|(field, _)| field != element.field) || raw.is_some() && element.bits == 0;
        if self.mixed || wrong_field || raw.is_some() && typed.is_some() {
            return Err(ModelError::AmbiguousData { tensor });
        }
        let (needed, found) = match (raw, typed) {
            _ if element.bits == 0 => (elements as u64, typed.map_or(0, |(_, count)| count)),
            (Some(len), _) => (needed, len),
            (None, Some((_, count))) => {
                // A typed entry holds one element, two of 4 bits, or half of a complex one: at least a byte.
                let entry = entry_bytes(element);
                (needed, count.saturating_mul(entry))
            }
            (None, None) => (needed, 0),
        };
        if needed != found {
            return Err(ModelError::DataSize { tensor, dims, dtype: element.name, needed, found });
        }
        let size_bytes = if element.bits == 0 { self.string_bytes } else { needed };
        Ok(TensorHead { name, element, size_bytes })
    }
}

/// Bytes of `raw_data` that one entry of the typed data field stands for.
fn entry_bytes(element: &ElementType) -> u64 {
    match element.field {
        DataField::Float => 4,
        DataField::Double => 8,
        _ => (element.bits / 8).max(1),
    }
}

fn checked_dims(tensor: &str, dims: &[i64]) -> Result<Vec<usize>, ModelError> {
    let positive = |(index, &value): (usize, &i64)| {
        usize::try_from(value).map_err(|_| match value < 0 {
            true => ModelError::NegativeDimension { tensor: tensor.to_owned(), index, value },
            false => ModelError::Overflow { tensor: tensor.to_owned(), dims: vec![value as u64] },
        })
    };
    dims.iter().enumerate().map(positive).collect()
}

fn byte_len(value: &Value) -> u64 {
    match value {
        Value::Bytes(range) => range.end - range.start,
        _ => 0,
    }
}

/// Elements in one occurrence of a typed data field: a packed list, or a single one.
fn count_elements(cursor: &mut Cursor, data: DataField, field: &Field) -> Result<u64, ModelError> {
    use DataField::{Double, Float, Int32, Int64, String, Uint64};
    let fixed = |list: &Range<u64>, width: u64| match list.end - list.start {
        len if len % width == 0 => Ok(len / width),
        _ => Err(ModelError::Malformed { offset: list.start, reason: "a packed list that ends inside an element" }),
    };
    match (data, &field.value) {
        (String, Value::Bytes(_)) | (Float, Value::Fixed32(_)) | (Double, Value::Fixed64(_)) => Ok(1),
        (Float, Value::Bytes(list)) => fixed(list, 4),
        (Double, Value::Bytes(list)) => fixed(list, 8),
        (Int32 | Int64 | Uint64, Value::Varint(_)) => Ok(1),
        (Int32 | Int64 | Uint64, Value::Bytes(list)) => {
            let mut count = 0;
            while cursor.position() < list.end {
                cursor.varint(list.end)?;
                count += 1;
            }
            Ok(count)
        }
        _ => Err(ModelError::Malformed { offset: field.start, reason: "a data field of the wrong wire type" }),
    }
}

/// Streams the elements of the TensorProto at `range`, which [`TensorHead::parse`] has checked, as `raw_data` would
/// hold them. Every chunk but the last is a whole number of elements.
pub(super) fn stream_elements(
    source: &Source,
    range: &Range<u64>,
    element: &ElementType,
    mut sink: impl FnMut(&[u8]),
) -> Result<(), ModelError> {
    let mut cursor = Cursor::new(source);
    cursor.seek(range.start);
    let mut pending = Vec::new();
    let mut raw = None;
    while let Some(field) = cursor.field(range.end)? {
        match &field.value {
            // The last `raw_data` wins, as protobuf demands.
            Value::Bytes(bytes) if field.number == RAW_DATA => raw = Some(bytes.clone()),
            value if field.number == element.field as u32 => {
                append_entries(&mut cursor, element, value, &mut pending, &mut sink)?;
            }
            _ => {}
        }
        if let Value::Bytes(bytes) = field.value {
            cursor.seek(bytes.end);
        }
    }
    sink(&pending);
    match raw {
        Some(bytes) => Ok(source.stream(bytes, sink)?),
        None => Ok(()),
    }
}

/// Appends the entries of one typed data field to `pending`, and passes it on whenever it is full.
fn append_entries(
    cursor: &mut Cursor,
    element: &ElementType,
    value: &Value,
    pending: &mut Vec<u8>,
    sink: &mut impl FnMut(&[u8]),
) -> Result<(), ModelError> {
    let width = entry_bytes(element) as usize;
    let mut push = |bytes: &[u8]| {
        pending.extend_from_slice(&bytes[..width]);
        if pending.len() >= CHUNK_BYTES && pending.len().is_multiple_of(16) {
            sink(pending);
            pending.clear();
        }
    };
    match value {
        Value::Varint(entry) => push(&entry.to_le_bytes()),
        Value::Fixed32(entry) => push(entry),
        Value::Fixed64(entry) => push(entry),
        Value::Bytes(list) => {
            while cursor.position() < list.end {
                match element.field {
                    DataField::Float => push(&cursor.array::<4>(list.end)?),
                    DataField::Double => push(&cursor.array::<8>(list.end)?),
                    DataField::String => return Ok(()),
                    _ => push(&cursor.varint(list.end)?.to_le_bytes()),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tract_onnx::pb::TensorProto;
    use tract_onnx::pb::tensor_proto::DataType;

    use super::*;

    fn parse(tensor: &TensorProto) -> Result<(TensorHead, Vec<u8>), ModelError> {
        let bytes = tensor.encode_to_vec();
        let (range, source) = (0..bytes.len() as u64, Source::Memory(bytes.into()));
        let head = TensorHead::parse(&mut Cursor::new(&source), &range, "here")?;
        let mut data = Vec::new();
        stream_elements(&source, &range, head.element, |chunk| data.extend_from_slice(chunk))?;
        Ok((head, data))
    }

    fn tensor(dims: &[i64], data_type: DataType) -> TensorProto {
        TensorProto { name: "w".into(), dims: dims.to_vec(), data_type: data_type as i32, ..TensorProto::default() }
    }

    #[test]
    fn typed_fields_read_as_raw_data_would() {
        let floats = TensorProto { float_data: vec![1.0, -2.5], ..tensor(&[2], DataType::Float) };
        assert_eq!(parse(&floats).unwrap().1, [1.0f32, -2.5].map(f32::to_le_bytes).concat());
        let doubles = TensorProto { double_data: vec![0.1], ..tensor(&[1, 1], DataType::Double) };
        assert_eq!(parse(&doubles).unwrap().1, 0.1f64.to_le_bytes());
        let halves = TensorProto { int32_data: vec![0x3c00, 0xc000], ..tensor(&[2], DataType::Float16) };
        assert_eq!(parse(&halves).unwrap().1, [0x00, 0x3c, 0x00, 0xc0]);
        let ints = TensorProto { int64_data: vec![-1], ..tensor(&[], DataType::Int64) };
        assert_eq!(parse(&ints).unwrap().1, [0xff; 8]);
        let bytes = TensorProto { int32_data: vec![-3, 4], ..tensor(&[2], DataType::Int8) };
        assert_eq!(parse(&bytes).unwrap().1, [0xfd, 4]);
        let raw = TensorProto { raw_data: vec![1, 2, 3, 4], ..tensor(&[2], DataType::Bfloat16) };
        assert_eq!(parse(&raw).unwrap().1, [1, 2, 3, 4]);
    }

    #[test]
    fn a_long_typed_list_arrives_whole() {
        let values: Vec<f32> = (0..200_001).map(|i| i as f32).collect();
        let expected: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let list = TensorProto { float_data: values, ..tensor(&[200_001], DataType::Float) };
        assert!(parse(&list).unwrap().1 == expected);
    }

    #[test]
    fn faults_are_told_apart() {
        let data = || TensorProto { raw_data: vec![0; 16], ..tensor(&[2, 2], DataType::Float) };
        assert!(parse(&data()).is_ok());
        type Expected = fn(&ModelError) -> bool;
        let cases: [(TensorProto, Expected); 9] = [
            (TensorProto { dims: vec![2, -2], ..data() }, |e| {
                matches!(e, ModelError::NegativeDimension { index: 1, value: -2, .. })
            }),
            (TensorProto { dims: vec![1 << 62, 8], ..data() }, |e| matches!(e, ModelError::Overflow { .. })),
            (TensorProto { dims: vec![1 << 61], ..data() }, |e| matches!(e, ModelError::Overflow { .. })),
            (TensorProto { dims: vec![2, 3], ..data() }, |e| {
                matches!(e, ModelError::DataSize { needed: 24, found: 16, .. })
            }),
            (TensorProto { raw_data: vec![], ..data() }, |e| {
                matches!(e, ModelError::DataSize { needed: 16, found: 0, .. })
            }),
            (TensorProto { data_location: Some(1), ..data() }, |e| matches!(e, ModelError::ExternalData { .. })),
            (TensorProto { data_type: 99, ..data() }, |e| matches!(e, ModelError::ElementType { code: 99, .. })),
            (TensorProto { float_data: vec![0.0; 4], ..data() }, |e| matches!(e, ModelError::AmbiguousData { .. })),
            (TensorProto { segment: Some(Default::default()), ..data() }, |e| {
                matches!(e, ModelError::Segmented { .. })
            }),
        ];
        for (tensor, expected) in cases {
            let error = parse(&tensor).unwrap_err();
            assert!(expected(&error), "{error}");
            assert!(error.to_string().contains("\"w\""), "{error}");
        }
    }
}
