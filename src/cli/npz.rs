//! Arrays written as an `.npz` file, for NumPy: a zip archive of `.npy` files.
//!
//! The `.npy` format is NumPy Enhancement Proposal 1 as NumPy's `lib.format` documents it, version 1.0.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use zip::CompressionMethod::Stored;
use zip::write::SimpleFileOptions;

use crate::infer::{Array, Datatype};

/// The data of an `.npy` file starts at a multiple of this.
const ALIGNMENT: usize = 64;

/// Writes named arrays to `path`, uncompressed as `numpy.savez` does.
///
/// # Errors
/// Any error of the file system, and [`io::ErrorKind::Unsupported`] for an element type that NumPy lacks.
pub fn write(path: &Path, arrays: &[(String, Array)]) -> io::Result<()> {
    let mut archive = zip::ZipWriter::new(File::create(path)?);
    // The time is zip's earliest, so that equal arrays give equal files.
    let options = SimpleFileOptions::DEFAULT.compression_method(Stored).large_file(true);
    for (name, array) in arrays {
        archive.start_file(format!("{name}.npy"), options)?;
        archive.write_all(&header(array)?)?;
        archive.write_all(&array.data.to_le_bytes())?;
    }
    archive.finish()?.sync_all()
}

/// Magic, version, header length and the dictionary, padded.
fn header(array: &Array) -> io::Result<Vec<u8>> {
    let extents: String = array.dims.iter().map(|d| format!("{d},")).collect();
    let descr = type_string(array.datatype())?;
    let mut dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
    let prefix = b"\x93NUMPY\x01\x00";
    let unpadded = prefix.len() + 2 + dictionary.len() + 1;
    dictionary.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    dictionary.push('\n');
    let length = u16::try_from(dictionary.len()).map_err(io::Error::other)?;
    Ok([prefix.as_slice(), &length.to_le_bytes(), dictionary.as_bytes()].concat())
}

/// NumPy's name of a little-endian type.
fn type_string(datatype: Datatype) -> io::Result<&'static str> {
    Ok(match datatype {
        Datatype::Bool => "|b1",
        Datatype::U8 => "|u1",
        Datatype::U16 => "<u2",
        Datatype::U32 => "<u4",
        Datatype::U64 => "<u8",
        Datatype::I8 => "|i1",
        Datatype::I16 => "<i2",
        Datatype::I32 => "<i4",
        Datatype::I64 => "<i8",
        Datatype::F16 => "<f2",
        Datatype::F32 => "<f4",
        Datatype::F64 => "<f8",
        Datatype::Bf16 => return Err(io::Error::new(io::ErrorKind::Unsupported, "NumPy has no bfloat16")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::ArrayData;

    #[test]
    fn what_is_written_is_read_back_by_another_reader() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let array = Array::new(vec![2, 3], ArrayData::F32(vec![0.0, 1.0, 2.0, 3.0, 4.0, -5.5])).unwrap();
        write(file.path(), &[("y".to_owned(), array)]).unwrap();

        let mut archive = zip::ZipArchive::new(File::open(file.path()).unwrap()).unwrap();
        let npy = npyz::NpyFile::new(archive.by_name("y.npy").unwrap()).unwrap();
        assert_eq!(npy.shape(), [2, 3]);
        assert_eq!(npy.into_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, -5.5]);
    }

    #[test]
    fn the_data_are_aligned() {
        let scalar = Array::new(vec![], ArrayData::I64(vec![1])).unwrap();
        assert_eq!(header(&scalar).unwrap().len() % ALIGNMENT, 0);
    }
}
