//! Records: the byte layout of a graph, a codebook, an encoded weight and a plain tensor.
//!
//! Every record is `kind and flags | header | body | CRC-32C`. `docs/format.md` gives each bit.

use std::sync::Arc;

use super::body::Form;
use super::error::RecordError;
use super::wire::{Cursor, put_varint};
use crate::codec::CodecId;
use crate::model::{ElementType, element_count};
use crate::tensor::{Codebook, FloatType, Layout};

/// Low four bits of the first byte: what the record is.
const KIND_GRAPH: u8 = 1;
const KIND_CODEBOOK: u8 = 2;
const KIND_ENCODED: u8 = 3;
const KIND_PLAIN: u8 = 4;

/// Flag of a graph or a plain record: the body is a raw deflate stream.
const FLAG_DEFLATED: u8 = 1;
/// Flag of a plain record: 32- or 64-bit floats stored as binary16.
const FLAG_HALVED: u8 = 2;
/// Flag of a plain record: the body is binned numbers. Not together with [`FLAG_DEFLATED`].
const FLAG_BINNED: u8 = 4;

/// Bytes of a binary16.
pub(super) const HALF_BYTES: usize = 2;

/// Bytes of the checksum that ends every record.
pub(super) const CHECKSUM_BYTES: usize = 4;
/// Most dimensions of a tensor.
const MAX_RANK: u64 = 64;
/// A record may stand for [`ELEMENTS_PER_BYTE`] elements for each of its bytes, and all records of a file together for
/// this many more: an empty matrix of any size costs next to nothing to claim, so what a reader may have to expand is
/// tied to the bytes present.
const FREE_ELEMENTS: u64 = 1 << 28;
const ELEMENTS_PER_BYTE: u64 = 1 << 18;

/// Where the values of an encoded weight are.
#[derive(Debug, Clone, PartialEq)]
pub enum CodebookRef {
    /// In the payload, in full.
    Raw,
    /// In the record.
    Own(Arc<Codebook>),
    /// In a record of its own, the one with this index among the file's codebooks.
    Shared(usize),
}

/// The header of an encoded weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EncodedHeader {
    pub name: String,
    pub dims: Vec<usize>,
    pub dtype: FloatType,
    pub layout: Layout,
    pub codec: CodecId,
    pub rows_per_block: usize,
    pub codebook: CodebookRef,
}

/// The header of a plain tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlainHeader {
    pub name: String,
    pub dims: Vec<usize>,
    pub element: &'static ElementType,
    pub storage: Storage,
}

/// How the bytes of a graph or a plain tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Storage {
    pub form: Form,
    /// Floats of 32 or 64 bits as binary16.
    pub halved: bool,
}

/// A record without its body, which follows the header up to the checksum.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Header {
    Graph(Storage),
    Codebook(FloatType),
    Encoded(EncodedHeader),
    Plain(PlainHeader),
}

impl Header {
    /// The name of the tensor that is stored.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Encoded(header) => Some(&header.name),
            Self::Plain(header) => Some(&header.name),
            Self::Graph(_) | Self::Codebook(_) => None,
        }
    }

    /// Appends the header to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Graph(storage) => {
                out.push(KIND_GRAPH | storage.flags() << 4);
                storage.write_length(out);
            }
            Self::Codebook(dtype) => out.push(KIND_CODEBOOK | float_code(*dtype) << 4),
            Self::Encoded(header) => header.write(out),
            Self::Plain(header) => {
                out.push(KIND_PLAIN | header.storage.flags() << 4);
                write_name_and_dims(&header.name, &header.dims, out);
                out.push(onnx_code(header.element));
                header.storage.write_length(out);
            }
        }
    }

    /// Reads the header from the front of a record whose checksum was verified and cut off. Every size is checked
    /// against the bytes that are present.
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, RecordError> {
        let first = cursor.byte()?;
        let flags = first >> 4;
        match first & 0xf {
            KIND_GRAPH => {
                reserve("graph flag", flags, FLAG_DEFLATED)?;
                Ok(Self::Graph(Storage::read(flags, cursor)?))
            }
            KIND_CODEBOOK => {
                reserve("codebook flag", flags, 3)?;
                Ok(Self::Codebook(float_type(flags)))
            }
            KIND_ENCODED => EncodedHeader::read(flags, cursor).map(Self::Encoded),
            KIND_PLAIN => PlainHeader::read(flags, cursor).map(Self::Plain),
            kind => Err(RecordError::Reserved { field: "record kind", value: u64::from(kind) }),
        }
    }
}

impl EncodedHeader {
    fn write(&self, out: &mut Vec<u8>) {
        let source = match self.codebook {
            CodebookRef::Raw => 0,
            CodebookRef::Own(_) => 1,
            CodebookRef::Shared(_) => 2,
        };
        out.push(KIND_ENCODED | (float_code(self.dtype) | source << 2) << 4);
        write_name_and_dims(&self.name, &self.dims, out);
        match self.layout {
            Layout::RowsFirst => out.push(0),
            Layout::Transposed => out.push(1),
            Layout::ConvTranspose { groups } => {
                out.push(2);
                put_varint(out, groups as u64);
            }
        }
        out.push(self.codec as u8);
        put_varint(out, self.rows_per_block as u64);
        match &self.codebook {
            CodebookRef::Raw => {}
            CodebookRef::Own(codebook) => {
                put_varint(out, codebook.len() as u64);
                out.extend_from_slice(&codebook.to_le_bytes());
            }
            CodebookRef::Shared(index) => put_varint(out, *index as u64),
        }
    }

    fn read(flags: u8, cursor: &mut Cursor) -> Result<Self, RecordError> {
        let dtype = float_type(flags);
        let (name, dims) = read_name_and_dims(cursor)?;
        let layout = match cursor.byte()? {
            0 => Layout::RowsFirst,
            1 => Layout::Transposed,
            2 => Layout::ConvTranspose { groups: cursor.size()? },
            value => return Err(RecordError::Reserved { field: "layout", value: u64::from(value) }),
        };
        let codec = codec_id(cursor.byte()?)?;
        let rows_per_block = cursor.size()?;
        if rows_per_block == 0 {
            return Err(RecordError::Reserved { field: "rows per block", value: 0 });
        }
        let codebook = match flags >> 2 {
            0 => CodebookRef::Raw,
            1 => {
                let levels = cursor.varint()?;
                let bytes = cursor.take(levels.saturating_mul(dtype.size_bytes() as u64))?;
                CodebookRef::Own(Arc::new(Codebook::from_le_bytes(dtype, bytes)?))
            }
            2 => CodebookRef::Shared(cursor.size()?),
            value => return Err(RecordError::Reserved { field: "codebook source", value: u64::from(value) }),
        };
        elements_of(&dims, layout)?;
        Ok(Self { name, dims, dtype, layout, codec, rows_per_block, codebook })
    }
}

impl PlainHeader {
    fn read(flags: u8, cursor: &mut Cursor) -> Result<Self, RecordError> {
        reserve("plain tensor flag", flags, FLAG_DEFLATED | FLAG_HALVED | FLAG_BINNED)?;
        let (name, dims) = read_name_and_dims(cursor)?;
        let code = cursor.byte()?;
        let element = ElementType::from_onnx(i64::from(code)).filter(|t| t.bits > 0);
        let element = element.ok_or(RecordError::Reserved { field: "element type", value: u64::from(code) })?;
        let storage = Storage::read(flags, cursor)?;
        let header = Self { name, dims, element, storage };
        if storage.form == Form::Binned && header.binned_width().is_none() {
            return Err(RecordError::Reserved { field: "binned numbers of type", value: u64::from(code) });
        }
        if storage.halved && !halvable(element) {
            return Err(RecordError::Reserved { field: "binary16 storage of type", value: u64::from(code) });
        }
        Ok(header)
    }

    /// Bytes of the body once inflated or decoded, as dimensions and type say; `None` on overflow.
    pub(super) fn stored_bytes(&self) -> Option<u64> {
        let elements = element_count(&self.dims)?;
        if self.storage.halved {
            (elements as u64).checked_mul(HALF_BYTES as u64)
        } else {
            self.element.size_bytes(elements)
        }
    }

    /// Bytes of an element as it is stored; `None` for types that are not binned.
    pub(super) fn binned_width(&self) -> Option<usize> {
        if self.storage.halved { Some(HALF_BYTES) } else { binned_width(self.element) }
    }
}

impl Storage {
    fn flags(self) -> u8 {
        let form = match self.form {
            Form::AsIs => 0,
            Form::Deflated { .. } => FLAG_DEFLATED,
            Form::Binned => FLAG_BINNED,
        };
        form | if self.halved { FLAG_HALVED } else { 0 }
    }

    fn write_length(self, out: &mut Vec<u8>) {
        if let Form::Deflated { bytes } = self.form {
            put_varint(out, bytes);
        }
    }

    fn read(flags: u8, cursor: &mut Cursor) -> Result<Self, RecordError> {
        let form = match flags & (FLAG_DEFLATED | FLAG_BINNED) {
            0 => Form::AsIs,
            FLAG_DEFLATED => Form::Deflated { bytes: cursor.varint()? },
            FLAG_BINNED => Form::Binned,
            _ => return Err(RecordError::Reserved { field: "plain tensor flag", value: u64::from(flags) }),
        };
        Ok(Self { form, halved: flags & FLAG_HALVED != 0 })
    }
}

/// Bytes of a number that stands for an element of this type when binned; `None` where none is as wide.
pub(super) fn binned_width(element: &ElementType) -> Option<usize> {
    matches!(element.bits, 8 | 16 | 32 | 64).then_some(element.bits as usize / 8)
}

/// True for the types that may be stored as binary16 and widened again.
pub(super) fn halvable(element: &ElementType) -> bool {
    matches!(element.float(), Some(FloatType::F32 | FloatType::F64))
}

fn reserve(field: &'static str, flags: u8, defined: u8) -> Result<(), RecordError> {
    if flags & !defined == 0 { Ok(()) } else { Err(RecordError::Reserved { field, value: u64::from(flags) }) }
}

fn write_name_and_dims(name: &str, dims: &[usize], out: &mut Vec<u8>) {
    put_varint(out, name.len() as u64);
    out.extend_from_slice(name.as_bytes());
    put_varint(out, dims.len() as u64);
    for &dim in dims {
        put_varint(out, dim as u64);
    }
}

fn read_name_and_dims(cursor: &mut Cursor) -> Result<(String, Vec<usize>), RecordError> {
    let length = cursor.varint()?;
    let name = std::str::from_utf8(cursor.take(length)?).map_err(|_| RecordError::Name)?.to_owned();
    let rank = cursor.varint()?;
    if rank > MAX_RANK {
        return Err(RecordError::Reserved { field: "rank", value: rank });
    }
    let dims = (0..rank).map(|_| cursor.size()).collect::<Result<Vec<_>, _>>()?;
    Ok((name, dims))
}

/// What is left of [`FREE_ELEMENTS`] in a file.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: FREE_ELEMENTS }
    }
}

impl Allowance {
    /// Takes from the allowance the elements of `header` that the `found` bytes of its record do not pay for.
    pub(super) fn claim(&mut self, header: &EncodedHeader, found: usize) -> Result<(), RecordError> {
        let elements = elements_of(&header.dims, header.layout)?;
        let paid = (found as u64).saturating_mul(ELEMENTS_PER_BYTE);
        let limit = self.left.saturating_add(paid);
        self.left = match self.left.checked_sub(elements.saturating_sub(paid)) {
            Some(left) => left,
            None => return Err(RecordError::Elements { elements, limit, found }),
        };
        Ok(())
    }
}

/// Elements of the matrix that a tensor is seen as.
fn elements_of(dims: &[usize], layout: Layout) -> Result<u64, RecordError> {
    let bad_shape = || RecordError::Shape { dims: dims.to_vec() };
    let (rows, cols) = layout.shape(dims).ok_or_else(bad_shape)?;
    Ok(rows.checked_mul(cols).ok_or_else(bad_shape)? as u64)
}

/// ONNX's number of an element type, which a record stores in a byte.
fn onnx_code(element: &ElementType) -> u8 {
    let is_it = |&code: &u8| ElementType::from_onnx(i64::from(code)).is_some_and(|t| t == element);
    (1..=u8::MAX).find(is_it).expect("every element type has an ONNX number below 256")
}

fn float_code(dtype: FloatType) -> u8 {
    match dtype {
        FloatType::F16 => 0,
        FloatType::Bf16 => 1,
        FloatType::F32 => 2,
        FloatType::F64 => 3,
    }
}

/// The type in the low two bits.
fn float_type(flags: u8) -> FloatType {
    match flags & 3 {
        0 => FloatType::F16,
        1 => FloatType::Bf16,
        2 => FloatType::F32,
        _ => FloatType::F64,
    }
}

fn codec_id(code: u8) -> Result<CodecId, RecordError> {
    CodecId::try_from(code).map_err(|_| RecordError::Reserved { field: "codec", value: u64::from(code) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(header: &Header) -> Vec<u8> {
        let mut out = Vec::new();
        header.write(&mut out);
        out
    }

    #[test]
    fn an_encoded_weight_has_these_bytes() {
        let codebook = Codebook::new(FloatType::F16, vec![0.0, 1.0]).unwrap();
        let header = Header::Encoded(EncodedHeader {
            name: "w".into(),
            dims: vec![300, 2],
            dtype: FloatType::F16,
            layout: Layout::Transposed,
            codec: CodecId::Sham,
            rows_per_block: 2,
            codebook: CodebookRef::Own(Arc::new(codebook)),
        });
        let bytes = written(&header);
        // kind 3, f16, own codebook | name | rank 2: 300, 2 | transposed | sham | 2 rows a block | 2 levels: 0, 1
        assert_eq!(bytes, [0x43, 1, b'w', 2, 0xac, 2, 2, 1, 5, 2, 2, 0, 0, 0, 0x3c]);
        assert_eq!(Header::read(&mut Cursor::new(&bytes)), Ok(header));
    }

    #[test]
    fn what_this_version_does_not_define_is_refused() {
        let cases: [(&[u8], RecordError); 5] = [
            (&[0x00], RecordError::Reserved { field: "record kind", value: 0 }),
            (&[0x21], RecordError::Reserved { field: "graph flag", value: 2 }),
            (&[0x42], RecordError::Reserved { field: "codebook flag", value: 4 }),
            (&[0x23, 0, 0, 3], RecordError::Reserved { field: "layout", value: 3 }),
            (&[0x23, 0, 0, 0, 255], RecordError::Reserved { field: "codec", value: 255 }),
        ];
        for (bytes, error) in cases {
            assert_eq!(Header::read(&mut Cursor::new(bytes)), Err(error));
        }
    }

    #[test]
    fn sizes_that_the_bytes_have_not_earned_are_refused() {
        let mut header = EncodedHeader {
            name: String::new(),
            dims: vec![1 << 20, 1 << 20],
            dtype: FloatType::F32,
            layout: Layout::RowsFirst,
            codec: CodecId::Dense,
            rows_per_block: 1,
            codebook: CodebookRef::Raw,
        };
        let read = |header: &EncodedHeader| Header::read(&mut Cursor::new(&written(&Header::Encoded(header.clone()))));
        let claimed = Allowance::default().claim(&header, 12);
        assert!(matches!(claimed, Err(RecordError::Elements { elements: 0x100_0000_0000, found: 12, .. })));
        header.dims = vec![1 << 40, 1 << 40];
        assert!(matches!(read(&header), Err(RecordError::Shape { .. })));
        // Two matrices of 3/4 of the allowance: the second one must be paid for.
        header.dims = vec![3 << 13, 1 << 13];
        let mut allowance = Allowance::default();
        assert_eq!(allowance.claim(&header, 0), Ok(()));
        let limit = 1 << 26;
        assert_eq!(allowance.claim(&header, 0), Err(RecordError::Elements { elements: 3 << 26, limit, found: 0 }));
        assert_eq!(allowance.claim(&header, 3 << 8), Ok(()));
        // A codebook of 2^60 levels in a record of a few bytes.
        let mut bytes = vec![0x63, 0, 0, 0, 4, 1];
        put_varint(&mut bytes, 1 << 60);
        let error = Header::read(&mut Cursor::new(&bytes)).unwrap_err();
        assert_eq!(error, RecordError::Truncated { needed: 1 << 62, found: 0 });
    }
}
