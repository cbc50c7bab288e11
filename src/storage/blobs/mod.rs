//! Blobs: bytes under their SHA-256, in a folder or in an object store.
//!
//! A blob is written to a staging file while it is hashed, forced to disk, and then put under its hash: renamed in the
//! folder, or sent to the object store, of which the folder keeps copies. Nothing is visible before it is whole. Its row in
//! the database comes last, so a blob without a row is an orphan, and a row without a blob cannot be: the database's `Gate`
//! keeps the two together, whatever processes and machines share them.
//!
//! Each process stages in a folder of its own, which it keeps locked; the folders of processes that are gone are
//! swept by whoever comes by.

mod checkout;
mod copies;
mod home;
mod objects;
mod parts;
mod upload;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart};
use tempfile::TempPath;
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::{JobId, Kind, StoreError, UploadId};

pub use checkout::Checkout;
pub use home::{BlobSettings, ObjectHome, ObjectSettings};
pub use objects::S3Location;
pub use upload::Upload;

pub(super) use home::Home;
use upload::hash_file;

/// Folder of what is not whole yet, inside the folder of blobs.
const STAGING: &str = "staging";
/// Folder of what is.
const PUBLISHED: &str = "sha256";
/// Folder of what jobs keep until they are over, a folder for each.
const WORK: &str = "work";
/// Held by the process that stages beside it.
const LOCK_FILE: &str = "lock";
/// Larger files are sent to an object store in parts of this size, in bytes.
const PART_BYTES: usize = 8 << 20;
/// So many at a time.
const PARTS_AT_A_TIME: usize = 4;
/// Size of the chunks in which a file is read to be sent, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// Uploads that are put together, and files that are imported, at a time: each is written to disk once more.
const COPIES_AT_A_TIME: usize = 4;
/// An object without a row that is younger than this is left alone: its row may be on its way.
const GRACE: Duration = Duration::from_secs(3600);

/// The blobs. Clones share them.
#[derive(Debug, Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    /// Name of this process's staging folder.
    staging: String,
    /// Locked as long as this process lives, so that nobody sweeps its staging folder.
    _lock: File,
    copying: Semaphore,
}

impl Blobs {
    /// Opens the blobs in `home`, whose folder must be locked against others that open it.
    pub(super) fn open(home: Home) -> Result<Self, StoreError> {
        let staging = Uuid::now_v7().to_string();
        let folder = home.root.join(STAGING).join(&staging);
        std::fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join(LOCK_FILE))?;
        lock.lock()?;
        Ok(Self { inner: Arc::new(Inner { home, staging, _lock: lock, copying: Semaphore::new(COPIES_AT_A_TIME) }) })
    }

    fn home(&self) -> &Home {
        &self.inner.home
    }

    /// Starts writing a blob.
    ///
    /// # Errors
    /// [`StoreError::Blob`].
    pub async fn upload(&self) -> Result<Upload, StoreError> {
        let name = Uuid::now_v7().to_string();
        let parts = self.home().files.put_multipart(&self.staging_key(&name)).await?;
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
        if self.home().copies.is_some()
            && let Ok(found) = self.home().files.get_opts(&key_of(sha256), options.clone()).await
        {
            return Ok(found.into_stream());
        }
        let found = self.home().objects.get_opts(&key_of(sha256), options).await;
        Ok(found.map_err(|error| missing(error, sha256))?.into_stream())
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.home().root
    }

    /// Where a job may keep checkpoints and trials until it is over: they outlive the process. Not made yet.
    pub fn work_folder(&self, job: &JobId) -> PathBuf {
        self.home().root.join(WORK).join(job.to_string())
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
        let entries = match std::fs::read_dir(self.home().root.join(WORK)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut jobs = Vec::new();
        for entry in entries {
            jobs.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        Ok(jobs)
    }

    /// Sends a staged file to where blobs live, if that is elsewhere. It is an orphan there until its row is inserted.
    pub(super) async fn send(&self, blob: &StagedBlob) -> Result<(), StoreError> {
        match self.home().copies {
            None => Ok(()),
            Some(_) => self.send_as(blob.path(), key_of(&blob.sha256)).await,
        }
    }

    /// Writes a file to the object store, whole or not at all.
    async fn send_as(&self, path: &Path, key: Key) -> Result<(), StoreError> {
        let objects = &self.home().objects;
        if tokio::fs::metadata(path).await?.len() <= PART_BYTES as u64 {
            objects.put(&key, tokio::fs::read(path).await?.into()).await?;
            return Ok(());
        }
        let mut chunks = ReaderStream::with_capacity(tokio::fs::File::open(path).await?, CHUNK_BYTES);
        let mut object = WriteMultipart::new_with_chunk_size(objects.put_multipart(&key).await?, PART_BYTES);
        while let Some(chunk) = chunks.next().await {
            let sent = async { Ok::<_, StoreError>((chunk?, object.wait_for_capacity(PARTS_AT_A_TIME).await?)) };
            match sent.await {
                Ok((chunk, ())) => object.put(chunk),
                Err(error) => {
                    // What it left is no object yet; stores drop it by their own rules if this fails too.
                    let _aborted = object.abort().await;
                    return Err(error);
                }
            }
        }
        object.finish().await?;
        Ok(())
    }

    /// Renames a staged file to `key` in the folder.
    async fn move_to(&self, blob: StagedBlob, key: &Key) -> Result<(), StoreError> {
        let name = blob.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.home().files.rename(&self.staging_key(&name), key).await?;
        // It is gone from there: nothing to remove.
        std::mem::forget(blob.file);
        Ok(())
    }

    /// Puts a staged file that was sent in its place, inside the gate. Its row must be inserted before the gate is left.
    pub(super) async fn settle(&self, blob: StagedBlob) -> Result<(), StoreError> {
        let Some(copies) = &self.home().copies else {
            let key = key_of(&blob.sha256);
            return self.move_to(blob, &key).await;
        };
        // Somebody may have deleted it as an orphan since it was sent.
        match self.home().objects.head(&key_of(&blob.sha256)).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => self.send(&blob).await?,
            Err(error) => return Err(error.into()),
        }
        Ok(copies.add(&blob.sha256, blob.path()).await?)
    }

    /// Deletes a blob whose row is gone, behind a closed gate.
    pub(super) async fn remove(&self, sha256: &str) -> Result<(), StoreError> {
        if let Some(copies) = &self.home().copies {
            copies.remove(sha256).await?;
        }
        match self.home().objects.delete(&key_of(sha256)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the staging folders of processes that are gone. Returns whether this process is the only one left.
    pub(super) fn sweep_staging(&self) -> Result<bool, StoreError> {
        let mut alone = true;
        for entry in std::fs::read_dir(self.home().root.join(STAGING))? {
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

    /// Hashes of all blobs, but for objects that were sent a moment ago, and of all copies.
    pub(super) async fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut hashes = Vec::new();
        let mut newest = i64::MAX;
        if let Some(copies) = &self.home().copies {
            hashes = copies.list().await?;
            let grace_began = SystemTime::now() - GRACE;
            let since_epoch = grace_began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            newest = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
        }
        let mut entries = self.home().objects.list(Some(&Key::from(PUBLISHED)));
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            if entry.last_modified.timestamp() <= newest {
                hashes.extend(entry.location.filename().map(str::to_owned));
            }
        }
        Ok(hashes)
    }

    fn staging_key(&self, name: &str) -> Key {
        Key::from(format!("{STAGING}/{}/{name}", self.inner.staging))
    }

    fn staging_path(&self, name: &str) -> PathBuf {
        self.home().root.join(STAGING).join(&self.inner.staging).join(name)
    }
}

/// Folders of 256 by the first byte, so that no folder grows without bound.
fn key_of(sha256: &str) -> Key {
    Key::from(format!("{PUBLISHED}/{}", sharded(sha256)))
}

/// Where a blob lies inside the folder of what is published.
fn sharded(sha256: &str) -> String {
    format!("{}/{sha256}", sha256.get(..2).unwrap_or_default())
}

/// That there is no object means that the blob is missing.
fn missing(error: object_store::Error, sha256: &str) -> StoreError {
    match error {
        object_store::Error::NotFound { .. } => StoreError::BlobMissing { sha256: sha256.to_owned() },
        error => error.into(),
    }
}

/// A whole file that is not a blob yet: it can be looked at, and vanishes when dropped.
#[derive(Debug)]
pub struct StagedBlob {
    file: TempPath,
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
