//! Where a model's bytes lie: a file read at offsets, or a buffer. Nothing is read before it is asked for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::scan::opens_a_model;
use super::wire::Cursor;
use super::{Format, ModelError};

/// Bytes read at a time when a tensor is streamed; a multiple of every element size.
pub(super) const CHUNK_BYTES: usize = 1 << 18;

/// Read-only bytes with random access. Shared by threads: a read never moves a cursor that another thread sees.
#[derive(Debug)]
pub(crate) enum Source {
    File { file: File, len: u64 },
    Memory(Bytes),
}

impl Source {
    /// Opens the file at `path`; its length is taken once.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self::File { file, len })
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Tells the format from the first bytes. ONNX has no magic number: it is what starts like a ModelProto.
    pub(crate) fn format(&self) -> Result<Format, ModelError> {
        if self.len() == 0 {
            return Err(ModelError::Empty);
        }
        let mut start = vec![0; self.len().min(9) as usize];
        self.read_exact_at(&mut start, 0)?;
        if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
            return Ok(Format::Npz);
        }
        if let Some((header_len, [b'{'])) = start.split_first_chunk::<8>()
            && u64::from_le_bytes(*header_len) <= self.len()
        {
            return Ok(Format::Safetensors);
        }
        match Cursor::new(self).field(self.len()) {
            Ok(Some(field)) if opens_a_model(&field) => Ok(Format::Onnx),
            Err(error @ ModelError::Truncated { .. }) if start[0] < 0x40 && start[0] & 7 == 2 => Err(error),
            _ => Err(ModelError::UnknownFormat),
        }
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when fewer bytes are left.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File { file, .. } => read_file_at(file, buffer, offset),
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                let found = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// Passes the bytes of `range` to `sink` in chunks of [`CHUNK_BYTES`], the last one shorter.
    pub(crate) fn stream(&self, range: Range<u64>, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; chunk_len(&range)];
        let mut at = range.start;
        while at < range.end {
            let chunk = &mut buffer[..chunk_len(&(at..range.end))];
            self.read_exact_at(chunk, at)?;
            sink(chunk);
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// SHA-256 of all the bytes, lower-case hex.
    pub(crate) fn sha256(&self) -> io::Result<String> {
        let mut hasher = Sha256::new();
        self.stream(0..self.len(), |chunk| hasher.update(chunk))?;
        Ok(hex::encode(hasher.finalize()))
    }

    /// A reader from `at` on, with a cursor of its own.
    pub(crate) fn reader(&self, at: u64) -> SourceReader<'_> {
        SourceReader { source: self, at }
    }
}

fn chunk_len(range: &Range<u64>) -> usize {
    (range.end - range.start).min(CHUNK_BYTES as u64) as usize
}

#[cfg(unix)]
fn read_file_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_file_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[count..];
        offset += count as u64;
    }
    Ok(())
}

/// Reads a [`Source`] from front to back, or from wherever it is sought to.
#[derive(Debug, Clone)]
pub(crate) struct SourceReader<'a> {
    source: &'a Source,
    at: u64,
}

impl Read for SourceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.source.len().saturating_sub(self.at);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.source.read_exact_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for SourceReader<'_> {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let at = match target {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(delta) => self.source.len().checked_add_signed(delta),
            SeekFrom::Current(delta) => self.at.checked_add_signed(delta),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_fails_and_digest_matches_the_standards_example() {
        let source = Source::Memory(Bytes::from_static(b"abc"));
        assert!(source.read_exact_at(&mut [0; 2], 2).is_err());
        assert!(source.read_exact_at(&mut [0; 2], u64::MAX).is_err());
        // FIPS 180-2, appendix B.1.
        assert_eq!(source.sha256().unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
