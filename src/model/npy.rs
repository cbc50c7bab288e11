//! The header of a NumPy array.
//!
//! # Source
//! `numpy.lib.format`, versions 1.0 to 3.0: magic, version, length of the header, and a Python dictionary literal with
//! the keys `descr`, `fortran_order` and `shape`. Only what NumPy itself writes is read.

use std::io::Read;

use super::element::ElementType;
use super::error::ModelError;

const MAGIC: &[u8] = b"\x93NUMPY";
const MAX_HEADER_BYTES: usize = 1 << 16;

/// What an array says of itself.
#[derive(Debug, PartialEq)]
pub(super) struct NpyHeader {
    pub element: &'static ElementType,
    pub big_endian: bool,
    pub column_major: bool,
    pub dims: Vec<usize>,
    /// Bytes before the first element.
    pub header_bytes: u64,
}

/// Reads the header of the array `name` from the front of `reader`.
pub(super) fn read_header(name: &str, reader: &mut impl Read) -> Result<NpyHeader, ModelError> {
    let fault = |reason: String| ModelError::Npy { name: name.to_owned(), reason };
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(|_| fault("shorter than an npy header".into()))?;
    let [.., major, _] = start;
    if !start.starts_with(MAGIC) || !(1..=3).contains(&major) {
        return Err(fault("not a NumPy array of version 1 to 3".into()));
    }
    let mut length = [0; 4];
    let width = if major == 1 { 2 } else { 4 };
    reader.read_exact(&mut length[..width])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER_BYTES {
        return Err(fault(format!("a header of {length} bytes, the limit is {MAX_HEADER_BYTES}")));
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text)?;
    let header_bytes = (start.len() + width + length) as u64;
    parse(&String::from_utf8_lossy(&text), header_bytes).map_err(fault)
}

fn parse(text: &str, header_bytes: u64) -> Result<NpyHeader, String> {
    let descr = value_of(text, "descr").ok_or("no descr")?;
    let (element, big_endian) = element(descr)?;
    let column_major = match value_of(text, "fortran_order").ok_or("no fortran_order")? {
        order if order.starts_with("True") => true,
        order if order.starts_with("False") => false,
        _ => return Err("fortran_order is neither True nor False".into()),
    };
    let shape = value_of(text, "shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split_once(')'));
    let (shape, _) = shape.ok_or("the shape is no tuple")?;
    let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let dims = extents.map(|extent| extent.parse().map_err(|_| format!("{extent:?} is no dimension")));
    Ok(NpyHeader { element, big_endian, column_major, dims: dims.collect::<Result<_, _>>()?, header_bytes })
}

/// The text behind `'key':`.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, value) = text.split_once(&format!("'{key}'"))?;
    Some(value.trim_start().strip_prefix(':')?.trim_start())
}

/// Element type and byte order of a type string such as `'<f4'`.
fn element(descr: &str) -> Result<(&'static ElementType, bool), String> {
    let quoted = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let (code, _) = quoted.ok_or("structured arrays cannot be read")?;
    let name = match code.get(1..).unwrap_or_default() {
        "f2" => "float16",
        "f4" => "float32",
        "f8" => "float64",
        "i1" => "int8",
        "i2" => "int16",
        "i4" => "int32",
        "i8" => "int64",
        "u1" => "uint8",
        "u2" => "uint16",
        "u4" => "uint32",
        "u8" => "uint64",
        "b1" => "bool",
        "c8" => "complex64",
        "c16" => "complex128",
        _ => return Err(format!("elements of type {code:?} cannot be read")),
    };
    let element = ElementType::from_name(name).ok_or("an unknown type")?;
    Ok((element, code.starts_with('>')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<NpyHeader, ModelError> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        read_header("a", &mut &*bytes)
    }

    #[test]
    fn headers_as_numpy_writes_them_are_read() {
        let read = header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n").unwrap();
        assert_eq!((read.element.name, read.big_endian, read.column_major), ("float32", false, false));
        assert_eq!(read.dims, [3, 4]);
        let read = header("{'descr': '>i8', 'fortran_order': True, 'shape': (5,), }\n").unwrap();
        assert_eq!((read.element.name, read.big_endian, read.column_major), ("int64", true, true));
        assert_eq!(read.dims, [5]);
        assert!(header("{'descr': '|b1', 'fortran_order': False, 'shape': (), }").unwrap().dims.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let cases = [
            ("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", "\"|O\""),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", "structured"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "\"-1\""),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "dimension"),
            ("{'fortran_order': False, 'shape': (3,), }", "descr"),
            ("{'descr': '<f4', 'shape': (3,), }", "fortran_order"),
        ];
        for (text, expected) in cases {
            let message = header(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
