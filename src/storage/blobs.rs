//! Blobs: files under the SHA-256 of their bytes, in a folder.
//!
//! A blob is written to a staging file while it is hashed, forced to disk, and renamed to its hash: nothing is visible
//! before it is whole. Its row in the database comes last, so a file without a row is an orphan, and a row without a
//! file cannot be. A [`Gate`] keeps the two together, whatever processes share the folder.
//!
//! Each process stages in a folder of its own, which it keeps locked; the folders of processes that are gone are
//! swept by whoever comes by.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tempfile::TempPath;
use uuid::Uuid;

use super::gate::{Closed, Gate, Passed};
use super::upload::{Upload, hash_file};
use super::{JobId, StoreError};

/// Folder of what is not whole yet, inside the folder of blobs.
const STAGING: &str = "staging";
/// Folder of what is.
const PUBLISHED: &str = "sha256";
/// Folder of what jobs keep until they are over, a folder for each.
const WORK: &str = "work";
/// Held by the process that stages beside it.
const LOCK_FILE: &str = "lock";

/// The folder of blobs. Clones share it.
#[derive(Debug, Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: LocalFileSystem,
    root: PathBuf,
    /// Name of this process's staging folder.
    staging: String,
    /// Locked as long as this process lives, so that nobody sweeps its staging folder.
    _lock: File,
    gate: Gate,
}

/// A blob in its place, whose row is still to come. Nobody deletes blobs while one is held.
#[derive(Debug)]
pub(super) struct Published<'a> {
    pub(super) sha256: String,
    pub(super) size_bytes: i64,
    _gate: Passed<'a>,
}

impl Blobs {
    /// Opens the folder `root`, which must be there and locked against others that open it.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let staging = Uuid::now_v7().to_string();
        let folder = root.join(STAGING).join(&staging);
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(root.join(PUBLISHED))?;
        let root = root.canonicalize()?;
        let lock = File::create(folder.join(LOCK_FILE))?;
        lock.lock()?;
        let files = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        let gate = Gate::of(&root);
        Ok(Self { inner: Arc::new(Inner { files, root, staging, _lock: lock, gate }) })
    }

    /// Starts writing a blob.
    ///
    /// # Errors
    /// [`StoreError::Blob`].
    pub async fn upload(&self) -> Result<Upload, StoreError> {
        let name = Uuid::now_v7().to_string();
        let parts = self.inner.files.put_multipart(&self.staging_key(&name)).await?;
        Ok(Upload::new(parts, self.staging_path(&name)))
    }

    /// A staging file, not there yet, for the core to write; removed when dropped.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn staging_file(&self) -> Result<TempPath, StoreError> {
        Ok(TempPath::try_from_path(self.staging_path(&Uuid::now_v7().to_string()))?)
    }

    /// Hashes a finished staging file and forces it to disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn adopt(&self, file: TempPath) -> Result<StagedBlob, StoreError> {
        let hashed = tokio::task::spawn_blocking(move || {
            let (sha256, size_bytes) = hash_file(&file)?;
            Ok(StagedBlob { file, sha256, size_bytes })
        });
        hashed.await.map_err(std::io::Error::other)?
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
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.inner.files.get_opts(&key_of(sha256), options).await {
            Ok(found) => Ok(found.into_stream()),
            Err(object_store::Error::NotFound { .. }) => Err(StoreError::BlobMissing { sha256: sha256.to_owned() }),
            Err(error) => Err(error.into()),
        }
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Where a blob lies, for the core, which reads files in place.
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.inner.root.join(key_of(sha256).as_ref())
    }

    /// Where a job may keep checkpoints and trials until it is over: they outlive the process. Not made yet.
    pub fn work_folder(&self, job: &JobId) -> PathBuf {
        self.inner.root.join(WORK).join(job.to_string())
    }

    /// Removes what a job kept; what is in the way of that is logged, and tried again at the next start.
    pub(crate) async fn remove_work_folder(&self, job: &JobId) {
        match tokio::fs::remove_dir_all(self.work_folder(job)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%job, %error, "the folder of a job could not be removed");
            }
            _ => {}
        }
    }

    /// The jobs that keep something.
    pub(super) fn work_folders(&self) -> std::io::Result<Vec<JobId>> {
        let entries = match std::fs::read_dir(self.inner.root.join(WORK)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut jobs = Vec::new();
        for entry in entries {
            jobs.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        Ok(jobs)
    }

    /// Puts a staged file in its place. Its row must be inserted before the result is dropped.
    pub(super) async fn publish(&self, blob: StagedBlob) -> Result<Published<'_>, StoreError> {
        let gate = self.inner.gate.pass().await?;
        let name = blob.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.inner.files.rename(&self.staging_key(&name), &key_of(&blob.sha256)).await?;
        // It is gone from there: nothing to remove.
        std::mem::forget(blob.file);
        let size_bytes = i64::try_from(blob.size_bytes).unwrap_or(i64::MAX);
        Ok(Published { sha256: blob.sha256, size_bytes, _gate: gate })
    }

    /// Waits until every published blob has its row, and keeps others from publishing.
    pub(super) async fn close_gate(&self) -> Result<Closed<'_>, StoreError> {
        Ok(self.inner.gate.close().await?)
    }

    /// Deletes the file of a blob whose row is gone, behind a closed gate.
    pub(super) async fn remove(&self, sha256: &str) -> Result<(), StoreError> {
        match self.inner.files.delete(&key_of(sha256)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the staging folders of processes that are gone. Returns whether this process is the only one left.
    pub(super) fn sweep_staging(&self) -> Result<bool, StoreError> {
        let mut alone = true;
        for entry in std::fs::read_dir(self.inner.root.join(STAGING))? {
            let entry = entry?;
            if entry.file_name().to_str() == Some(&self.inner.staging) {
                continue;
            }
            let gone = match File::open(entry.path().join(LOCK_FILE)) {
                Ok(lock) => lock.try_lock().is_ok(),
                // Killed between making the folder and the lock in it.
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            };
            if gone {
                tracing::info!(folder = %entry.path().display(), "removing unfinished files of a process that is gone");
                std::fs::remove_dir_all(entry.path())?;
            } else {
                alone = false;
            }
        }
        Ok(alone)
    }

    /// Hashes of all blobs.
    pub(super) async fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut entries = self.inner.files.list(Some(&Key::from(PUBLISHED)));
        let mut hashes = Vec::new();
        while let Some(entry) = entries.next().await {
            hashes.extend(entry?.location.filename().map(str::to_owned));
        }
        Ok(hashes)
    }

    fn staging_key(&self, name: &str) -> Key {
        Key::from(format!("{STAGING}/{}/{name}", self.inner.staging))
    }

    fn staging_path(&self, name: &str) -> PathBuf {
        self.inner.root.join(STAGING).join(&self.inner.staging).join(name)
    }
}

/// Whether the folder `root` holds a blob.
pub(super) fn is_any_published(root: &Path) -> std::io::Result<bool> {
    let folders = match std::fs::read_dir(root.join(PUBLISHED)) {
        Ok(folders) => folders,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for folder in folders {
        if std::fs::read_dir(folder?.path())?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Folders of 256 by the first byte, so that no folder grows without bound.
fn key_of(sha256: &str) -> Key {
    Key::from(format!("{PUBLISHED}/{}/{sha256}", sha256.get(..2).unwrap_or_default()))
}

/// A whole file that is not a blob yet: it can be looked at, and vanishes when dropped.
#[derive(Debug)]
pub struct StagedBlob {
    pub(super) file: TempPath,
    pub(super) sha256: String,
    pub(super) size_bytes: u64,
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
