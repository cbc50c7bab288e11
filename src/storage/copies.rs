//! Local copies of blobs whose home is an object store: what was read or written last, within a number of bytes.
//!
//! Whoever reads a copy holds a link to it, so that it can be dropped at any time, by any process that shares the folder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use tokio::sync::OwnedMutexGuard;

#[derive(Debug)]
pub(super) struct Copies {
    /// Holds a folder for each first byte of a hash.
    folder: PathBuf,
    max_bytes: u64,
    /// Blobs that are fetched right now.
    fetched: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Copies {
    /// Keeps at most `max_bytes` in `folder`.
    pub(super) fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self { folder, max_bytes, fetched: Mutex::default() }
    }

    /// Links the copy of `sha256`, if there is one, to `path`. It counts as read now.
    pub(super) fn link(&self, sha256: &str, path: &Path) -> std::io::Result<bool> {
        match std::fs::hard_link(self.path_of(sha256), path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        File::options().write(true).open(path)?.set_modified(SystemTime::now())?;
        Ok(true)
    }

    /// Keeps `file`, which stays where it is, as the copy of `sha256`, and drops those that were not read for longest.
    pub(super) fn add(&self, sha256: &str, file: &Path) -> std::io::Result<()> {
        let path = self.path_of(sha256);
        std::fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        match std::fs::hard_link(file, &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.trim()
    }

    /// Drops the copy of `sha256`.
    pub(super) fn remove(&self, sha256: &str) -> std::io::Result<()> {
        gone_is_well(std::fs::remove_file(self.path_of(sha256)))
    }

    /// Hashes of all copies.
    pub(super) fn list(&self) -> std::io::Result<Vec<String>> {
        Ok(self.entries()?.into_iter().filter_map(|entry| Some(entry.path.file_name()?.to_str()?.to_owned())).collect())
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
        for folder in std::fs::read_dir(&self.folder)? {
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
        self.folder.join(super::blobs::sharded(sha256))
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
