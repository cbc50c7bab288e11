//! A file of named arrays, `.safetensors` or `.npz`: a weights-only model, or a dataset.

use std::collections::HashMap;
use std::io::{self, Read, Take};
use std::ops::Range;

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::element::ElementType;
use super::error::ModelError;
use super::source::{CHUNK_BYTES, Source, SourceReader};
use super::{Format, npz, safetensors};

/// Named arrays whose headers were checked and whose elements stay in the file.
#[derive(Debug)]
pub(crate) struct ArrayFile {
    source: Source,
    format: Format,
    entries: Vec<ArrayEntry>,
    by_name: HashMap<String, usize>,
}

/// One array of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ArrayEntry {
    pub name: String,
    pub dims: Vec<usize>,
    pub element: &'static ElementType,
    /// Bytes of the elements.
    pub size_bytes: u64,
    /// The elements stand in Fortran order: the first index runs fastest.
    pub column_major: bool,
    pub big_endian: bool,
    pub body: Body,
}

/// Where the elements lie.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// As they are.
    Plain(Range<u64>),
    /// In a deflated zip member, behind an npy header of `header_bytes`; `crc32` is that of the inflated member.
    Deflated { range: Range<u64>, header_bytes: u64, crc32: u32 },
}

impl ArrayFile {
    /// Reads the headers of `source`, a safetensors or npz file.
    pub(crate) fn open(source: Source, format: Format) -> Result<Self, ModelError> {
        let entries = match format {
            Format::Npz => npz::entries(&source)?,
            _ => safetensors::entries(&source)?,
        };
        let mut by_name = HashMap::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            if by_name.insert(entry.name.clone(), index).is_some() {
                return Err(ModelError::DuplicateName { name: entry.name.clone() });
            }
        }
        Ok(Self { source, format, entries, by_name })
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The arrays, in file order.
    pub(crate) fn entries(&self) -> &[ArrayEntry] {
        &self.entries
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&ArrayEntry> {
        self.by_name.get(name).map(|&index| &self.entries[index])
    }

    /// Streams the elements of `entry`, little-endian, in the order of the file, whole elements at a time.
    pub(crate) fn stream(&self, entry: &ArrayEntry, mut sink: impl FnMut(&[u8])) -> Result<(), ModelError> {
        let mut swapped = Vec::new();
        let mut sink = |chunk: &[u8]| match entry.big_endian {
            false => sink(chunk),
            true => {
                swapped.clear();
                swapped.extend_from_slice(chunk);
                swap_bytes(&mut swapped, entry.element);
                sink(&swapped);
            }
        };
        match &entry.body {
            Body::Plain(range) => Ok(self.source.stream(range.clone(), sink)?),
            Body::Deflated { range, header_bytes, crc32 } => {
                let mut member = Inflated::new(&self.source, range.clone());
                member.skip(*header_bytes)?;
                let mut left = entry.size_bytes;
                let mut buffer = vec![0; left.min(CHUNK_BYTES as u64) as usize];
                while left > 0 {
                    let chunk = &mut buffer[..left.min(CHUNK_BYTES as u64) as usize];
                    member.read_exact(chunk)?;
                    sink(chunk);
                    left -= chunk.len() as u64;
                }
                match member.crc.sum() == *crc32 {
                    true => Ok(()),
                    false => Err(ModelError::Npy { name: entry.name.clone(), reason: "the checksum is wrong".into() }),
                }
            }
        }
    }

    /// Reads a whole array: little-endian elements, row-major.
    pub(crate) fn read(&self, entry: &ArrayEntry) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::new();
        self.stream(entry, |chunk| bytes.extend_from_slice(chunk))?;
        if !entry.column_major {
            return Ok(bytes);
        }
        Ok(match entry.element.bits / 8 {
            1 => row_major(&entry.dims, bytes),
            2 => row_major(&entry.dims, bytes.as_chunks::<2>().0.to_vec()).into_flattened(),
            4 => row_major(&entry.dims, bytes.as_chunks::<4>().0.to_vec()).into_flattened(),
            8 => row_major(&entry.dims, bytes.as_chunks::<8>().0.to_vec()).into_flattened(),
            _ => row_major(&entry.dims, bytes.as_chunks::<16>().0.to_vec()).into_flattened(),
        })
    }
}

/// A deflated zip member as it inflates, hashed on the way.
struct Inflated<'a> {
    decoder: DeflateDecoder<Take<SourceReader<'a>>>,
    crc: Crc,
}

impl<'a> Inflated<'a> {
    fn new(source: &'a Source, range: Range<u64>) -> Self {
        let packed = source.reader(range.start).take(range.end - range.start);
        Self { decoder: DeflateDecoder::new(packed), crc: Crc::new() }
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.crc.update(&buffer[..count]);
        Ok(count)
    }
}

/// Reverses the bytes of every number; a complex element is two of them.
fn swap_bytes(bytes: &mut [u8], element: &ElementType) {
    let numbers = if element.name.starts_with("complex") { 2 } else { 1 };
    let width = (element.bits / 8 / numbers).max(1) as usize;
    bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
}

/// Reorders elements whose first index runs fastest, so that the last one does.
///
/// # Panics
/// If there are not as many elements as `dims` says.
pub(super) fn row_major<T: Copy>(dims: &[usize], elements: Vec<T>) -> Vec<T> {
    let Some(mut rest) = elements.len().checked_sub(1) else { return elements };
    let mut out = Vec::with_capacity(elements.len());
    let mut index = vec![0; dims.len()];
    let strides: Vec<usize> = dims.iter().scan(1, |stride, &d| Some(std::mem::replace(stride, *stride * d))).collect();
    let mut offset = 0;
    out.push(elements[0]);
    while rest > 0 {
        // Count up by one, the last index fastest.
        let mut axis = dims.len() - 1;
        while index[axis] + 1 == dims[axis] {
            offset -= index[axis] * strides[axis];
            index[axis] = 0;
            axis -= 1;
        }
        index[axis] += 1;
        offset += strides[axis];
        out.push(elements[offset]);
        rest -= 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{npy, npz};
    use super::*;

    #[test]
    fn members_are_read_whatever_their_packing_and_byte_order() {
        let values: Vec<f32> = (0..6).map(|i| i as f32 - 1.5).collect();
        let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
        let columns: Vec<u8> = [0, 3, 1, 4, 2, 5].iter().flat_map(|&i| values[i as usize].to_le_bytes()).collect();
        let members = [
            ("plain", npy("<f4", false, "(2, 3)", &little)),
            ("big", npy(">f4", false, "(2, 3)", &big)),
            ("columns", npy("<f4", true, "(2, 3)", &columns)),
        ];
        for deflated in [false, true] {
            let file = ArrayFile::open(Source::Memory(npz(&members, deflated).into()), Format::Npz).unwrap();
            assert_eq!(file.entries().iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["plain", "big", "columns"]);
            for entry in file.entries() {
                assert_eq!(entry.dims, [2, 3]);
                assert_eq!(file.read(entry).unwrap(), little, "{} {deflated}", entry.name);
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let open = |member| ArrayFile::open(Source::Memory(npz(&[("w", member)], true).into()), Format::Npz);
        let error = open(npy("<f4", false, "(2, 3)", &[0; 20])).unwrap_err();
        assert!(matches!(error, ModelError::DataSize { needed: 24, found: 20, .. }), "{error}");
        let error = open(npy("<f8", false, "(4294967296, 4294967296)", &[])).unwrap_err();
        assert!(matches!(error, ModelError::Overflow { .. }), "{error}");
        assert!(matches!(open(b"not an array".to_vec()).unwrap_err(), ModelError::Npy { .. }));
    }

    #[test]
    fn a_damaged_deflated_member_fails_its_checksum() {
        let mut bytes = npz(&[("w", npy("|u1", false, "(64,)", &(0..64).collect::<Vec<_>>()))], true);
        // The last data byte before the central directory, behind which the checksum is repeated.
        let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        bytes[directory - 4] ^= 0x10;
        let file = ArrayFile::open(Source::Memory(bytes.into()), Format::Npz).unwrap();
        assert!(file.read(&file.entries()[0]).is_err());
    }

    #[test]
    fn safetensors_are_read_in_place() {
        use ::safetensors::tensor::{Dtype, TensorView, serialize};
        let data: Vec<u8> = (0..24).collect();
        let view = |dtype, shape: &[usize]| TensorView::new(dtype, shape.to_vec(), &data).unwrap();
        let tensors = [("b", view(Dtype::BF16, &[3, 4])), ("a", view(Dtype::I64, &[3]))];
        let bytes = bytes::Bytes::from(serialize(tensors, None).unwrap());
        let open = |bytes| ArrayFile::open(Source::Memory(bytes), Format::Safetensors);
        let file = open(bytes.clone()).unwrap();
        let entry = file.entry("b").unwrap();
        assert_eq!((entry.element.name, entry.dims.as_slice()), ("bfloat16", &[3, 4][..]));
        assert_eq!(file.read(entry).unwrap(), data);
        assert!(matches!(open(bytes.slice(..bytes.len() - 1)), Err(ModelError::Truncated { .. })));
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        // numpy: arange(6).reshape(2, 3) stored with order='F' lies as 0 3 1 4 2 5.
        assert_eq!(row_major(&[2, 3], vec![0, 3, 1, 4, 2, 5]), [0, 1, 2, 3, 4, 5]);
        // arange(24).reshape(2, 3, 4): element (i, j, k) lies at i + 2 j + 6 k.
        let mut stored = vec![0; 24];
        for (n, cell) in (0..24).map(|n| (n, n / 12 + 2 * (n / 4 % 3) + 6 * (n % 4))) {
            stored[cell] = n;
        }
        assert_eq!(row_major(&[2, 3, 4], stored), (0..24).collect::<Vec<_>>());
        assert!(row_major(&[0, 3], Vec::<u8>::new()).is_empty());
        assert_eq!(row_major(&[], vec![7]), [7]);
    }
}
