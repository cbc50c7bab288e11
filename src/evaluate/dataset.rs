//! Named arrays in a file, read a few samples at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::EvaluateError;
use crate::infer::{Array, Datatype};
use crate::model::{ArrayBody, ArrayEntry, ArrayFile, Format, Source};

/// Unpacked arrays up to this size stay in memory, larger ones go to a temporary file.
const MAX_UNPACKED_IN_MEMORY: u64 = 4 << 20;

/// A `.npz` or `.safetensors` file of named arrays, whose headers were checked when it was opened. The elements stay in
/// the file; shared by threads.
#[derive(Debug)]
pub struct Dataset {
    file: ArrayFile,
    /// Row-major little-endian elements of arrays that are deflated, big-endian or column-major in the file.
    unpacked: Mutex<HashMap<String, Arc<Source>>>,
}

/// What a dataset says of one array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayInfo<'a> {
    /// Unique in the dataset.
    pub name: &'a str,
    /// NumPy type name, e.g. `uint8`.
    pub dtype: &'static str,
    /// In a dataset for evaluation, the first extent counts samples.
    pub dims: &'a [usize],
}

impl Dataset {
    /// Opens the file at `path`; its format is told from its bytes.
    ///
    /// # Errors
    /// [`EvaluateError::File`] or [`EvaluateError::NotADataset`].
    pub fn open(path: &Path) -> Result<Self, EvaluateError> {
        Self::from_source(Source::open(path)?)
    }

    /// Opens a dataset held in memory.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, EvaluateError> {
        Self::from_source(Source::Memory(bytes))
    }

    fn from_source(source: Source) -> Result<Self, EvaluateError> {
        match source.format()? {
            Format::Onnx => Err(EvaluateError::NotADataset),
            format => Ok(Self { file: ArrayFile::open(source, format)?, unpacked: Mutex::default() }),
        }
    }

    /// The SHA-256 of the file, in hexadecimal.
    ///
    /// # Errors
    /// [`EvaluateError::File`].
    pub fn sha256(&self) -> Result<String, EvaluateError> {
        Ok(self.file.source().sha256()?)
    }

    /// The file's format: npz or safetensors.
    pub fn format(&self) -> Format {
        self.file.format()
    }

    /// The arrays, in file order.
    pub fn arrays(&self) -> impl Iterator<Item = ArrayInfo<'_>> {
        self.file.entries().iter().map(|e| ArrayInfo { name: &e.name, dtype: e.element.name, dims: &e.dims })
    }

    /// The first extent that all arrays share: the number of samples.
    ///
    /// # Errors
    /// [`EvaluateError::LengthsDiffer`], [`EvaluateError::NoSampleDimension`]; [`EvaluateError::NoSamples`] when there
    /// are no arrays.
    pub fn samples(&self) -> Result<usize, EvaluateError> {
        self.common_length(self.file.entries().iter())
    }

    /// The number of samples that the arrays of these names share.
    pub(super) fn samples_of<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<usize, EvaluateError> {
        let entries = names.into_iter().map(|name| self.entry(name)).collect::<Result<Vec<_>, _>>()?;
        self.common_length(entries.into_iter())
    }

    fn common_length<'a>(&self, entries: impl Iterator<Item = &'a ArrayEntry>) -> Result<usize, EvaluateError> {
        let mut common: Option<(&str, usize)> = None;
        for entry in entries {
            let Some(&len) = entry.dims.first() else {
                return Err(EvaluateError::NoSampleDimension { name: entry.name.clone() });
            };
            let &mut (first, first_len) = common.get_or_insert((&entry.name, len));
            if len != first_len {
                let (first, second) = (first.to_owned(), entry.name.clone());
                return Err(EvaluateError::LengthsDiffer { first, first_len, second, second_len: len });
            }
        }
        common.map(|(_, len)| len).ok_or(EvaluateError::NoSamples)
    }

    /// Reads a whole array, whatever its length.
    ///
    /// # Errors
    /// [`EvaluateError::UnknownArray`], [`EvaluateError::ElementType`] and what reading the file may meet.
    pub fn read_all(&self, name: &str) -> Result<Array, EvaluateError> {
        let entry = self.entry(name)?;
        let datatype = datatype(entry)?;
        Ok(Array::from_le_bytes(datatype, entry.dims.clone(), &self.file.read(entry)?)?)
    }

    /// Reads the samples `ranges` of an array, one range after another.
    ///
    /// # Errors
    /// As [`Dataset::read_all`]; an I/O error for a range past the end.
    pub fn read_samples(&self, name: &str, ranges: &[Range<usize>]) -> Result<Array, EvaluateError> {
        let entry = self.entry(name)?;
        let datatype = datatype(entry)?;
        let Some((&samples, shape)) = entry.dims.split_first() else {
            return Err(EvaluateError::NoSampleDimension { name: name.to_owned() });
        };
        if ranges.iter().any(|range| range.start > range.end || range.end > samples) {
            return Err(EvaluateError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let sample_bytes = shape.iter().product::<usize>() * datatype.size_bytes();
        let count: usize = ranges.iter().map(ExactSizeIterator::len).sum();
        let mut bytes = vec![0; count * sample_bytes];
        let mut rest = bytes.as_mut_slice();
        let unpacked = self.unpacked(entry)?;
        for range in ranges {
            let (front, back) = rest.split_at_mut(range.len() * sample_bytes);
            let offset = (range.start * sample_bytes) as u64;
            match (&unpacked, &entry.body) {
                (None, ArrayBody::Plain(body)) => self.file.source().read_exact_at(front, body.start + offset)?,
                (Some(source), _) => source.read_exact_at(front, offset)?,
                (None, ArrayBody::Deflated { .. }) => unreachable!("deflated arrays are always unpacked"),
            }
            rest = back;
        }
        let mut dims = entry.dims.clone();
        dims[0] = count;
        Ok(Array::from_le_bytes(datatype, dims, &bytes)?)
    }

    pub(super) fn entry(&self, name: &str) -> Result<&ArrayEntry, EvaluateError> {
        let known = || self.arrays().map(|array| array.name.to_owned()).collect();
        self.file.entry(name).ok_or_else(|| EvaluateError::UnknownArray { name: name.to_owned(), known: known() })
    }

    /// The elements of an array that cannot be read in place, unpacked once; `None` for one that can. What deflated
    /// arrays inflate to was bounded when the file was opened.
    fn unpacked(&self, entry: &ArrayEntry) -> Result<Option<Arc<Source>>, EvaluateError> {
        if matches!(entry.body, ArrayBody::Plain(_)) && !entry.column_major && !entry.big_endian {
            return Ok(None);
        }
        // A panic while unpacking leaves the map as it was.
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = unpacked.get(&entry.name) {
            return Ok(Some(source.clone()));
        }
        let source = if entry.column_major || entry.size_bytes <= MAX_UNPACKED_IN_MEMORY {
            Source::Memory(self.file.read(entry)?.into())
        } else {
            Source::File { file: self.spool(entry)?, len: entry.size_bytes }
        };
        let source = Arc::new(source);
        unpacked.insert(entry.name.clone(), source.clone());
        Ok(Some(source))
    }

    /// Writes the elements of an array to an unnamed temporary file, which the system removes when it is closed.
    fn spool(&self, entry: &ArrayEntry) -> Result<File, EvaluateError> {
        let mut writer = BufWriter::new(tempfile::tempfile()?);
        let mut written = Ok(());
        self.file.stream(entry, |chunk| {
            if written.is_ok() {
                written = writer.write_all(chunk);
            }
        })?;
        written?;
        writer.into_inner().map_err(|error| EvaluateError::Io(error.into_error()))
    }
}

fn datatype(entry: &ArrayEntry) -> Result<Datatype, EvaluateError> {
    let datatype = entry.element.datatype.and_then(|name| name.parse().ok());
    let dtype = || entry.element.name.to_owned();
    datatype.ok_or_else(|| EvaluateError::ElementType { name: entry.name.clone(), dtype: dtype() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::ArrayData;
    use crate::model::ModelError;
    use crate::model::fixture::{npy, npz};

    #[test]
    fn samples_are_read_wherever_they_lie() {
        let columns: Vec<u8> = [0, 3, 6, 1, 4, 7, 2, 5, 8].iter().flat_map(|i: &i16| i.to_be_bytes()).collect();
        let rows: Vec<u8> = (0..9i16).flat_map(i16::to_le_bytes).collect();
        let members = [("rows", npy("<i2", false, "(3, 3)", &rows)), ("columns", npy(">i2", true, "(3, 3)", &columns))];
        for deflated in [false, true] {
            let dataset = Dataset::from_bytes(npz(&members, deflated).into()).unwrap();
            assert_eq!(dataset.samples().unwrap(), 3);
            for name in ["rows", "columns"] {
                let read = dataset.read_samples(name, &[2..3, 0..1]).unwrap();
                assert_eq!(read, Array { dims: vec![2, 3], data: ArrayData::I16(vec![6, 7, 8, 0, 1, 2]) });
                assert_eq!(dataset.read_all(name).unwrap().data, ArrayData::I16((0..9).collect()));
                assert!(dataset.read_samples(name, std::slice::from_ref(&(2..4))).is_err());
            }
        }
    }

    #[test]
    fn a_large_deflated_array_goes_through_a_temporary_file() {
        let numbers: Vec<u8> = (0..1_300_000u32).flat_map(u32::to_le_bytes).collect();
        let bytes = npz(&[("n", npy("<u4", false, "(1300000,)", &numbers))], true);
        let dataset = Dataset::from_bytes(bytes.into()).unwrap();
        let read = dataset.read_samples("n", std::slice::from_ref(&(1_299_998..1_300_000))).unwrap();
        assert_eq!(read.data, ArrayData::U32(vec![1_299_998, 1_299_999]));
    }

    #[test]
    fn arrays_of_different_lengths_are_named() {
        let members = [("x", npy("|u1", false, "(2,)", &[0; 2])), ("y", npy("|u1", false, "(3,)", &[0; 3]))];
        let error = Dataset::from_bytes(npz(&members, false).into()).unwrap().samples().unwrap_err();
        assert_eq!(error.to_string(), r#"array "x" has 2 samples and array "y" has 3"#);
    }

    #[test]
    fn a_model_is_no_dataset() {
        let error = Dataset::from_bytes(Bytes::from_static(b"\x08\x08")).unwrap_err();
        assert!(matches!(error, EvaluateError::NotADataset));
        assert!(matches!(Dataset::from_bytes(Bytes::new()), Err(EvaluateError::File(ModelError::Empty))));
    }
}
