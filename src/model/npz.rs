//! The arrays of a NumPy `.npz` archive: a zip file with one `.npy` member each, stored or deflated.

use std::io::{BufReader, Read};

use zip::{CompressionMethod, ZipArchive};

use super::arrays::{ArrayEntry, Body};
use super::element::element_count;
use super::error::ModelError;
use super::npy::{NpyHeader, read_header};
use super::source::Source;

/// Deflate cannot shrink by more than this (a match of 258 bytes costs at least two bits), so a member that announces
/// more lies.
const MAX_DEFLATE_RATIO: u64 = 1032;
const MAX_MEMBERS: usize = 1 << 16;

/// Reads the header of every array in the archive.
pub(super) fn entries(source: &Source) -> Result<Vec<ArrayEntry>, ModelError> {
    let mut archive = ZipArchive::new(BufReader::new(source.reader(0)))?;
    if archive.len() > MAX_MEMBERS {
        return Err(ModelError::HeaderTooLarge { found: archive.len() as u64, max: MAX_MEMBERS as u64 });
    }
    (0..archive.len()).map(|index| entry(&mut archive, index, source.len())).collect()
}

fn entry(
    archive: &mut ZipArchive<impl Read + std::io::Seek>,
    index: usize,
    file_bytes: u64,
) -> Result<ArrayEntry, ModelError> {
    let mut member = archive.by_index(index)?;
    let member_name = member.name()?.into_owned();
    let name = member_name.strip_suffix(".npy").unwrap_or(&member_name).to_owned();
    let fault = |reason: String| ModelError::Npy { name: name.clone(), reason };
    if member.is_dir() || member.encrypted() {
        return Err(fault("a folder or an encrypted member".into()));
    }
    let (method, size, packed) = (member.compression(), member.size(), member.compressed_size());
    let header = read_header(&name, &mut member)?;
    let start = member.data_start().ok_or_else(|| fault("its data was not found".into()))?;
    let end = start.checked_add(packed).filter(|&end| end <= file_bytes);
    let range = start..end.ok_or_else(|| fault(format!("{packed} bytes announced, the file ends before")))?;
    let size_bytes = size_of_elements(&name, &header)?;
    if header.header_bytes.checked_add(size_bytes) != Some(size) {
        let found = size.saturating_sub(header.header_bytes);
        let NpyHeader { dims, element, .. } = header;
        return Err(ModelError::DataSize { tensor: name, dims, dtype: element.name, needed: size_bytes, found });
    }
    let body = match method {
        CompressionMethod::Stored if packed == size => Body::Plain(range.start + header.header_bytes..range.end),
        CompressionMethod::Deflated if size / MAX_DEFLATE_RATIO <= packed => {
            Body::Deflated { range, header_bytes: header.header_bytes, crc32: member.crc32() }
        }
        CompressionMethod::Stored | CompressionMethod::Deflated => {
            return Err(fault(format!("{packed} bytes cannot hold the {size} announced")));
        }
        other => return Err(fault(format!("compression {other} is not supported"))),
    };
    let NpyHeader { dims, element, column_major, big_endian, .. } = header;
    let name = name.clone();
    Ok(ArrayEntry { name, dims, element, size_bytes, column_major, big_endian, body })
}

fn size_of_elements(name: &str, header: &NpyHeader) -> Result<u64, ModelError> {
    let bytes = element_count(&header.dims).and_then(|n| header.element.size_bytes(n));
    bytes.filter(|&bytes| bytes <= isize::MAX as u64).ok_or_else(|| ModelError::Overflow {
        tensor: name.to_owned(),
        dims: header.dims.iter().map(|&d| d as u64).collect(),
    })
}
