//! Local copies of blobs whose home is an object store: what was read or written last, within a number of bytes.
//!
//! Whoever reads a copy holds a link to it, so that it can be dropped at any time, by any process that shares the folder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use tempfile::TempPath;
use tokio::sync::OwnedMutexGuard;

/// Copies are counted, and the oldest dropped, once this part of all that are kept was added.
const UNCOUNTED_PART: u64 = 16;

/// Copies. Clones share what is known of them.
#[derive(Debug, Clone)]
pub(super) struct Copies {
    folder: Arc<Folder>,
    /// Blobs that are fetched right now.
    fetched: Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>,
}

/// The folder of the copies.
#[derive(Debug)]
struct Folder {
    /// Holds a folder for each first byte of a hash.
    path: PathBuf,
    max_bytes: u64,
    /// Bytes that were added since all copies were last counted; more than any before they are for the first time.
    added_bytes: AtomicU64,
}

impl Copies {
    /// Keeps at most `max_bytes` in `folder`, and what each process that shares it adds between two counts.
    pub(super) fn new(folder: PathBuf, max_bytes: u64) -> Self {
        let folder = Folder { path: folder, max_bytes, added_bytes: AtomicU64::new(u64::MAX) };
        Self { folder: Arc::new(folder), fetched: Arc::default() }
    }

    /// Links the copy of `sha256`, if there is one, to `path`, which is not there yet. It counts as read now.
    pub(super) async fn link(&self, sha256: &str, path: TempPath) -> std::io::Result<Option<TempPath>> {
        let sha256 = sha256.to_owned();
        // The path goes along, so that it is removed also where nobody waits any more.
        self.blocking(move |folder| Ok(folder.link(&sha256, &path)?.then_some(path))).await
    }

    /// Keeps `file`, which stays where it is, as the copy of `sha256`, and drops those that were not read for longest.
    pub(super) async fn add(&self, sha256: &str, file: &Path) -> std::io::Result<()> {
        let (sha256, file) = (sha256.to_owned(), file.to_owned());
        self.blocking(move |folder| folder.add(&sha256, &file)).await
    }

    /// Drops the copy of `sha256`.
    pub(super) async fn remove(&self, sha256: &str) -> std::io::Result<()> {
        let sha256 = sha256.to_owned();
        self.blocking(move |folder| gone_is_well(std::fs::remove_file(folder.path_of(&sha256)))).await
    }

    /// Hashes of all copies.
    pub(super) async fn list(&self) -> std::io::Result<Vec<String>> {
        let name = |entry: Entry| Some(entry.path.file_name()?.to_str()?.to_owned());
        self.blocking(move |folder| Ok(folder.entries()?.into_iter().filter_map(name).collect())).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || work(&folder)).await.map_err(Error::other)?
    }

    /// Waits until nobody in this process fetches `sha256`, and keeps others from it.
    pub(super) async fn turn(&self, sha256: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            fetched.retain(|_, turn| turn.strong_count() > 0);
            let known = fetched.get(sha256).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                fetched.insert(sha256.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

impl Folder {
    fn link(&self, sha256: &str, path: &Path) -> std::io::Result<bool> {
        match std::fs::hard_link(self.path_of(sha256), path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        File::options().write(true).open(path)?.set_modified(SystemTime::now())?;
        Ok(true)
    }

    fn add(&self, sha256: &str, file: &Path) -> std::io::Result<()> {
        let path = self.path_of(sha256);
        std::fs::create_dir_all(path.parent().unwrap_or(&self.path))?;
        match std::fs::hard_link(file, &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let bytes = file.metadata()?.len();
        let add = |added: u64| Some(added.saturating_add(bytes));
        let before = self.added_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).unwrap_or_default();
        if before.saturating_add(bytes) > self.max_bytes / UNCOUNTED_PART {
            self.added_bytes.store(0, Ordering::Relaxed);
            self.trim()?;
        }
        Ok(())
    }

    fn trim(&self) -> std::io::Result<()> {
        let mut entries = self.entries()?;
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        entries.sort_by_key(|entry| entry.read_at);
        for entry in entries {
            if bytes <= self.max_bytes {
                break;
            }
            gone_is_well(std::fs::remove_file(&entry.path))?;
            bytes -= entry.bytes;
        }
        Ok(())
    }

    fn entries(&self) -> std::io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for folder in std::fs::read_dir(&self.path)? {
            for entry in std::fs::read_dir(folder?.path())? {
                let entry = entry?;
                // Another process may drop it meanwhile.
                if let Ok(about) = entry.metadata() {
                    entries.push(Entry { path: entry.path(), bytes: about.len(), read_at: about.modified()? });
                }
            }
        }
        Ok(entries)
    }

    fn path_of(&self, sha256: &str) -> PathBuf {
        self.path.join(super::sharded(sha256))
    }
}

struct Entry {
    path: PathBuf,
    bytes: u64,
    read_at: SystemTime,
}

fn gone_is_well(removed: Result<(), Error>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
