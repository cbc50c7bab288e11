//! The arrays of a NumPy `.npz` archive: a zip file with one `.npy` member each, stored or deflated.

use std::collections::HashSet;
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

/// What arrays may take beyond the file itself, in bytes: deflate packs a thousand to one.
#[derive(Clone, Copy)]
struct Limits {
    /// All deflated arrays of a file.
    inflated: u64,
    /// Those in Fortran order among them, which are reordered in memory.
    column_major: u64,
}

const LIMITS: Limits = Limits { inflated: 2 << 30, column_major: 512 << 20 };

/// Reads the header of every array in the archive.
pub(super) fn entries(source: &Source) -> Result<Vec<ArrayEntry>, ModelError> {
    let mut archive = ZipArchive::new(BufReader::new(source.reader(0)))?;
    if archive.len() > MAX_MEMBERS {
        return Err(ModelError::HeaderTooLarge { found: archive.len() as u64, max: MAX_MEMBERS as u64 });
    }
    check_names(source, archive.central_directory_start())?;
    let entries = (0..archive.len()).map(|index| entry(&mut archive, index, source.len()));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    check_inflated(&entries, LIMITS)?;
    Ok(entries)
}

/// Fails when two members share a name: the archive that was read keeps the last of them only. `at` is where the central
/// directory starts, which lists one member after the other.
fn check_names(source: &Source, mut at: u64) -> Result<(), ModelError> {
    const SIGNATURE: [u8; 4] = *b"PK\x01\x02";
    const LENGTHS_AT: usize = 28;
    const FIXED_BYTES: usize = 46;
    let mut names = HashSet::new();
    while at.saturating_add(FIXED_BYTES as u64) <= source.len() && names.len() <= MAX_MEMBERS {
        let mut fixed = [0; FIXED_BYTES];
        source.read_exact_at(&mut fixed, at)?;
        if fixed[..SIGNATURE.len()] != SIGNATURE {
            break;
        }
        let [name, extra, comment] =
            [0, 2, 4].map(|i| u16::from_le_bytes([fixed[LENGTHS_AT + i], fixed[LENGTHS_AT + i + 1]]));
        let mut bytes = vec![0; usize::from(name)];
        source.read_exact_at(&mut bytes, at + FIXED_BYTES as u64)?;
        if let Some(twice) = names.replace(bytes) {
            return Err(ModelError::DuplicateName { name: String::from_utf8_lossy(&twice).into_owned() });
        }
        at += FIXED_BYTES as u64 + u64::from(name) + u64::from(extra) + u64::from(comment);
    }
    Ok(())
}

/// Fails when the deflated arrays together inflate to more than `limits`.
fn check_inflated(entries: &[ArrayEntry], limits: Limits) -> Result<(), ModelError> {
    let sum = |only_column_major: bool| {
        let deflated = entries.iter().filter(|e| matches!(e.body, Body::Deflated { .. }));
        let counted = deflated.filter(|e| e.column_major || !only_column_major);
        counted.fold(0u64, |sum, entry| sum.saturating_add(entry.size_bytes))
    };
    for (arrays, bytes, max) in [
        ("the deflated arrays", sum(false), limits.inflated),
        ("the deflated arrays in Fortran order", sum(true), limits.column_major),
    ] {
        if bytes > max {
            return Err(ModelError::InflatesTooFar { arrays, bytes, max });
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::Model;
    use super::super::fixture::{npy, npz, npz_renamed};
    use super::*;

    #[test]
    fn members_of_one_name_are_refused() {
        let member = || npy("|u1", false, "(2,)", &[1, 2]);
        let members = [("aa", member()), ("bb", member())];
        assert_eq!(entries(&Source::Memory(npz(&members, false).into())).unwrap().len(), 2);
        let error = entries(&Source::Memory(npz_renamed(&members, "bb", "aa").into())).unwrap_err();
        assert_eq!(error.to_string(), "\"aa.npy\" is defined more than once");
    }

    #[test]
    fn a_model_without_arrays_is_refused() {
        let error = Model::from_bytes(npz(&[], false).into()).unwrap_err();
        assert!(matches!(error, ModelError::NoTensors | ModelError::UnknownFormat), "{error}");
        let header = b"{}";
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header].concat();
        assert!(matches!(Model::from_bytes(bytes.into()), Err(ModelError::NoTensors)));
    }

    #[test]
    fn arrays_that_inflate_too_far_together_are_refused() {
        let members = [("a", npy("|u1", false, "(60,)", &[0; 60])), ("b", npy("|u1", true, "(4, 10)", &[0; 40]))];
        let refused = |deflated, inflated, column_major| {
            let entries = entries(&Source::Memory(npz(&members, deflated).into())).unwrap();
            check_inflated(&entries, Limits { inflated, column_major }).err().map(|error| error.to_string())
        };
        assert_eq!(refused(true, 100, 40), None);
        let message = "the deflated arrays inflate to 100 bytes, the limit is 99";
        assert_eq!(refused(true, 99, 40).as_deref(), Some(message));
        let message = "the deflated arrays in Fortran order inflate to 40 bytes, the limit is 39";
        assert_eq!(refused(true, 100, 39).as_deref(), Some(message));
        // Stored arrays take what the file takes.
        assert_eq!(refused(false, 0, 0), None);
    }
}
