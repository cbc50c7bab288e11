//! Blobs: bytes under their SHA-256, in a folder or in an object store.
//!
//! A blob is written to a staging file while it is hashed, forced to disk, and then put under its hash: renamed in the
//! folder, or sent to the object store, of which the folder keeps [`Copies`]. Nothing is visible before it is whole. Its row in
//! the database comes last, so a blob without a row is an orphan, and a row without a blob cannot be: the database's `Gate`
//! keeps the two together, whatever processes and machines share them.
//!
//! Each process stages in a folder of its own, which it keeps locked; the folders of processes that are gone are
//! swept by whoever comes by.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart};
use tempfile::TempPath;
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::copies::Copies;
use super::upload::{Upload, hash_file};
use super::{JobId, Kind, S3Location, StoreError, UploadId};

/// Folder of what is not whole yet, inside the folder of blobs.
const STAGING: &str = "staging";
/// Folder of what is.
const PUBLISHED: &str = "sha256";
/// Folder of what jobs keep until they are over, a folder for each.
const WORK: &str = "work";
/// Folder of parts of uploads, a folder for each.
const UPLOADS: &str = "uploads";
/// Folder of files that may be imported, a folder for each tenant; in an object store alone.
const IMPORTS: &str = "imports";
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

/// Where blobs are kept.
#[derive(Debug, Clone)]
pub struct BlobSettings {
    /// Folder of staging files, of what jobs keep, and of the blobs, or of copies of them.
    pub folder: PathBuf,
    /// The object store that they live in instead.
    pub objects: Option<ObjectSettings>,
}

/// An object store that blobs live in.
#[derive(Debug, Clone)]
pub struct ObjectSettings {
    /// Which one.
    pub store: ObjectHome,
    /// How many bytes of copies the folder keeps.
    pub max_copies_bytes: u64,
}

/// Which object store it is.
#[derive(Debug, Clone)]
pub enum ObjectHome {
    /// A bucket.
    S3(S3Location),
    /// This one.
    #[cfg(test)]
    Given(Arc<dyn ObjectStore>),
}

impl std::fmt::Display for ObjectHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::S3(location) => location.fmt(f),
            #[cfg(test)]
            Self::Given(store) => store.fmt(f),
        }
    }
}

impl ObjectHome {
    fn connect(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        match self {
            Self::S3(location) => location.connect(),
            #[cfg(test)]
            Self::Given(store) => Ok(Arc::clone(store)),
        }
    }
}

impl BlobSettings {
    /// All of it in `folder`.
    pub fn folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), objects: None }
    }
}

/// Where published blobs live: a folder or an object store.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The folder, in which the blobs themselves lie where there are no copies.
    files: LocalFileSystem,
    root: PathBuf,
    copies: Option<Copies>,
    /// For people.
    place: String,
}

impl Home {
    /// Opens what `settings` say; the folder must be there.
    pub(super) fn open(settings: &BlobSettings) -> Result<Self, StoreError> {
        let root = settings.folder.canonicalize()?;
        std::fs::create_dir_all(root.join(PUBLISHED))?;
        let files = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        let (objects, copies, place): (Arc<dyn ObjectStore>, _, _) = match &settings.objects {
            None => (Arc::new(files.clone()), None, root.display().to_string()),
            Some(given) => {
                let copies = Copies::new(root.join(PUBLISHED), given.max_copies_bytes);
                (given.store.connect()?, Some(copies), given.store.to_string())
            }
        };
        Ok(Self { objects, files, root, copies, place })
    }

    /// Whether it holds a blob.
    pub(super) async fn is_any_published(&self) -> Result<bool, StoreError> {
        Ok(self.objects.list(Some(&Key::from(PUBLISHED))).next().await.transpose()?.is_some())
    }
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}

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

    /// Hands out blobs as files.
    pub fn checkout(&self) -> Checkout {
        Checkout { blobs: self.clone(), links: Mutex::default() }
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
        Ok(copies.add(&blob.sha256, blob.path())?)
    }

    /// Deletes a blob whose row is gone, behind a closed gate.
    pub(super) async fn remove(&self, sha256: &str) -> Result<(), StoreError> {
        if let Some(copies) = &self.home().copies {
            copies.remove(sha256)?;
        }
        match self.home().objects.delete(&key_of(sha256)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a staged file as a part of an upload. Returns its name there.
    pub(super) async fn keep_part(&self, upload: &UploadId, part: StagedBlob) -> Result<String, StoreError> {
        let name = Uuid::now_v7().to_string();
        let key = Key::from(format!("{UPLOADS}/{upload}/{name}"));
        match self.home().copies {
            None => self.move_to(part, &key).await?,
            Some(_) => self.send_as(part.path(), key).await?,
        }
        Ok(name)
    }

    /// Puts the parts of an upload together.
    pub(super) async fn join_parts(&self, upload: &UploadId, parts: &[String]) -> Result<StagedBlob, StoreError> {
        let _turn = self.inner.copying.acquire().await.map_err(std::io::Error::other)?;
        let mut file = self.upload().await?;
        for part in parts {
            self.append_object(&Key::from(format!("{UPLOADS}/{upload}/{part}")), &mut file).await?;
        }
        file.finish().await
    }

    /// Removes the parts of an upload that is over.
    pub(super) async fn remove_parts(&self, upload: &UploadId) -> Result<(), StoreError> {
        let mut parts = self.home().objects.list(Some(&Key::from(format!("{UPLOADS}/{upload}"))));
        while let Some(part) = parts.next().await {
            match self.home().objects.delete(&part?.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.home().copies.is_none() {
            // An object store knows no folders. One that is not empty has got another part.
            let _removed = tokio::fs::remove_dir(self.root().join(UPLOADS).join(upload.as_str())).await;
        }
        Ok(())
    }

    /// Removes a part of an upload that nobody counts.
    pub(super) async fn remove_part(&self, upload: &UploadId, part: &str) -> Result<(), StoreError> {
        match self.home().objects.delete(&Key::from(format!("{UPLOADS}/{upload}/{part}"))).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The uploads that have parts.
    pub(super) async fn uploads(&self) -> Result<Vec<UploadId>, StoreError> {
        let found = self.home().objects.list_with_delimiter(Some(&Key::from(UPLOADS))).await?;
        Ok(found.common_prefixes.iter().filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    /// A staging copy of the file that a tenant put under `key` of its own folder of the object store.
    pub(super) async fn import(&self, tenant: &str, key: &str, limit_bytes: u64) -> Result<StagedBlob, StoreError> {
        if self.home().copies.is_none() {
            return Err(StoreError::NoObjectStore);
        }
        let absent = || Kind::Import.not_found(key);
        let key = Key::parse(format!("{IMPORTS}/{tenant}/{key}")).map_err(|_| absent())?;
        match self.home().objects.head(&key).await {
            Ok(found) if found.size > limit_bytes => return Err(StoreError::ImportTooLarge { limit_bytes }),
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Err(absent()),
            Err(error) => return Err(error.into()),
        }
        let _turn = self.inner.copying.acquire().await.map_err(std::io::Error::other)?;
        let mut file = self.upload().await?;
        self.append_object(&key, &mut file).await?;
        match file.size_bytes() > limit_bytes {
            // It grew meanwhile.
            true => Err(StoreError::ImportTooLarge { limit_bytes }),
            false => file.finish().await,
        }
    }

    /// Appends an object to a file.
    async fn append_object(&self, key: &Key, file: &mut Upload) -> Result<(), StoreError> {
        let mut chunks = self.home().objects.get(key).await?.into_stream();
        while let Some(chunk) = chunks.next().await {
            file.write(chunk?).await?;
        }
        Ok(())
    }

    /// Gets a blob from the object store as a staging file.
    async fn fetch(&self, sha256: &str) -> Result<StagedBlob, StoreError> {
        let mut file = self.upload().await?;
        self.append_object(&key_of(sha256), &mut file).await.map_err(|error| match error {
            StoreError::Blob(error) => missing(error, sha256),
            error => error,
        })?;
        let file = file.finish().await?;
        match file.sha256 == sha256 {
            true => Ok(file),
            false => Err(StoreError::BlobDamaged { sha256: sha256.to_owned(), found: file.sha256 }),
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
            hashes = copies.list()?;
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

/// Blobs as files, for the core, which reads files in place: they stay where they are while it lives.
#[derive(Debug)]
pub struct Checkout {
    blobs: Blobs,
    /// To copies, which may be dropped.
    links: Mutex<Vec<TempPath>>,
}

impl Checkout {
    /// Where the bytes of a blob lie, once they are here.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`], [`StoreError::BlobDamaged`], [`StoreError::Blob`], [`StoreError::Io`]: from an object store
    /// alone; in a folder it is for the reader to find out.
    pub async fn path(&self, sha256: &str) -> Result<PathBuf, StoreError> {
        let Some(copies) = &self.blobs.home().copies else {
            return Ok(self.blobs.home().root.join(key_of(sha256).as_ref()));
        };
        let _turn = copies.turn(sha256).await;
        let link = self.blobs.staging_path(&Uuid::now_v7().to_string());
        if copies.link(sha256, &link)? {
            self.keep(TempPath::try_from_path(&link)?);
            return Ok(link);
        }
        let file = self.blobs.fetch(sha256).await?;
        copies.add(sha256, file.path())?;
        let path = file.path().to_owned();
        self.keep(file.file);
        Ok(path)
    }

    fn keep(&self, link: TempPath) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).push(link);
    }
}

/// Folders of 256 by the first byte, so that no folder grows without bound.
fn key_of(sha256: &str) -> Key {
    Key::from(format!("{PUBLISHED}/{}", sharded(sha256)))
}

/// Where a blob lies inside the folder of what is published.
pub(super) fn sharded(sha256: &str) -> String {
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
