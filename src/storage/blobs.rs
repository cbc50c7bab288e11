//! Blobs: files under the SHA-256 of their bytes, in a folder.
//!
//! A blob is written to a staging file while it is hashed, forced to disk, and renamed to its hash: nothing is visible
//! before it is whole. Its row in the database comes last, so a blob without a row is an orphan, and a row without a
//! blob cannot be.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::StoreError;

/// File formats of datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    Npz,
    Safetensors,
}

/// The folder of blobs. Clones share it.
#[derive(Debug, Clone)]
pub struct Blobs {}

impl Blobs {
    /// Starts writing a blob.
    ///
    /// # Errors
    /// [`StoreError::Blob`].
    pub async fn upload(&self) -> Result<Upload, StoreError> {
        todo!()
    }

    /// An empty staging file, for the core to write into; removed when dropped.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn staging_file(&self) -> Result<tempfile::TempPath, StoreError> {
        todo!()
    }

    /// Hashes a finished staging file and forces it to disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn adopt(&self, file: tempfile::TempPath) -> Result<StagedBlob, StoreError> {
        todo!()
    }

    /// Bytes `range` of a blob, in chunks.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`].
    pub async fn read(
        &self,
        sha256: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, StoreError> {
        todo!()
    }

    /// Where a blob lies, for the core, which reads files in place.
    pub fn path(&self, sha256: &str) -> PathBuf {
        todo!()
    }
}

/// A blob on its way in. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {}

impl Upload {
    /// Appends `chunk`.
    ///
    /// # Errors
    /// [`StoreError::Blob`], e.g. when the disk is full.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        todo!()
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// Forces what was written to disk.
    ///
    /// # Errors
    /// [`StoreError::Blob`].
    pub async fn finish(self) -> Result<StagedBlob, StoreError> {
        todo!()
    }
}

/// A whole file that is not a blob yet: it can be looked at, and vanishes when dropped.
#[derive(Debug)]
pub struct StagedBlob {
    file: tempfile::TempPath,
    sha256: String,
    size_bytes: u64,
}

impl StagedBlob {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// SHA-256 of its bytes, hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}
