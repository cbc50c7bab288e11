//! A file on its way in: written and hashed chunk by chunk, so that its size does not show in memory.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use object_store::{MultipartUpload, PutPayload};
use sha2::{Digest, Sha256};
use tempfile::TempPath;

use super::{StagedBlob, StoreError};

/// Bytes that are gathered before they are written. Uploads hold this much each, and a chunk.
const PART_BYTES: usize = 1 << 20;

/// A blob on its way in. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {
    parts: Box<dyn MultipartUpload>,
    /// Where the file will lie once it is whole.
    path: PathBuf,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    size_bytes: u64,
    hasher: Sha256,
}

impl Upload {
    pub(super) fn new(parts: Box<dyn MultipartUpload>, path: PathBuf) -> Self {
        Self { parts, path, pending: Vec::new(), pending_bytes: 0, size_bytes: 0, hasher: Sha256::new() }
    }

    /// Appends `chunk`.
    ///
    /// # Errors
    /// [`StoreError::Blob`], e.g. when the disk is full.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.size_bytes += chunk.len() as u64;
        self.pending_bytes += chunk.len();
        self.pending.push(chunk);
        if self.pending_bytes >= PART_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Forces what was written to disk.
    ///
    /// # Errors
    /// [`StoreError::Blob`].
    pub async fn finish(mut self) -> Result<StagedBlob, StoreError> {
        self.flush().await?;
        // Removes the file if this future is dropped, or fails, once the file is there.
        let file = TempPath::try_from_path(&self.path)?;
        self.parts.complete().await?;
        Ok(StagedBlob { file, sha256: hex::encode(self.hasher.finalize()), size_bytes: self.size_bytes })
    }

    /// Gives up: once this returns, nothing is left. Dropping does the same, but a moment later.
    pub async fn abort(mut self) {
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(%error, "a staging file was not removed");
        }
    }

    /// Writes what is pending while it is hashed on another thread.
    async fn flush(&mut self) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunks = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let written = self.parts.put_part(chunks.iter().cloned().collect::<PutPayload>());
        let mut hasher = std::mem::take(&mut self.hasher);
        let hashed = tokio::task::spawn_blocking(move || {
            chunks.iter().for_each(|chunk| hasher.update(chunk));
            hasher
        });
        let (written, hashed) = tokio::join!(written, hashed);
        self.hasher = hashed.map_err(std::io::Error::other)?;
        Ok(written?)
    }
}

/// SHA-256 and size of the file at `path`, which is forced to disk.
pub(super) fn hash_file(path: &Path) -> Result<(String, u64), StoreError> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; PART_BYTES];
    let mut size_bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size_bytes += read as u64;
    }
    file.sync_all()?;
    Ok((hex::encode(hasher.finalize()), size_bytes))
}
