//! Keeps deleting away from publishing, in all processes that share a folder of blobs.
//!
//! Whoever publishes a blob passes the gate together with others and stays until its row is there; whoever deletes has it
//! alone, from the look at the rows to the file. Inside a process that is a lock of its own, between processes a lock on a
//! file, which the system lifts when a process dies.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locked by those who pass.
const GATE_FILE: &str = "gate";

#[derive(Debug)]
pub(super) struct Gate {
    tasks: RwLock<()>,
    file: PathBuf,
}

/// Somebody who publishes is inside.
#[derive(Debug)]
pub(super) struct Passed<'a> {
    _tasks: RwLockReadGuard<'a, ()>,
    _processes: File,
}

/// Nobody else is inside.
#[derive(Debug)]
pub(super) struct Closed<'a> {
    _tasks: RwLockWriteGuard<'a, ()>,
    _processes: File,
}

impl Gate {
    /// The gate of the folder `root`.
    pub(super) fn of(root: &Path) -> Self {
        Self { tasks: RwLock::new(()), file: root.join(GATE_FILE) }
    }

    /// Waits until nobody deletes.
    pub(super) async fn pass(&self) -> std::io::Result<Passed<'_>> {
        let tasks = self.tasks.read().await;
        Ok(Passed { _tasks: tasks, _processes: self.locked(File::lock_shared).await? })
    }

    /// Waits until every published blob has its row, and keeps others from publishing.
    pub(super) async fn close(&self) -> std::io::Result<Closed<'_>> {
        let tasks = self.tasks.write().await;
        Ok(Closed { _tasks: tasks, _processes: self.locked(File::lock).await? })
    }

    async fn locked(&self, lock: fn(&File) -> std::io::Result<()>) -> std::io::Result<File> {
        let path = self.file.clone();
        let locked = tokio::task::spawn_blocking(move || {
            // A handle of its own each time: locks belong to handles.
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            lock(&file)?;
            Ok(file)
        });
        locked.await.map_err(std::io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn many_pass_together_and_who_deletes_is_alone_also_between_processes() {
        let folder = tempfile::tempdir().unwrap();
        // Two gates of one folder are as strange to each other as two processes.
        let (one, other) = (Gate::of(folder.path()), Gate::of(folder.path()));
        let (first, second) = (one.pass().await.unwrap(), other.pass().await.unwrap());
        let mut closing = Box::pin(other.close());
        assert!((&mut closing).now_or_never().is_none());
        drop(second);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), &mut closing).await;
        assert!(waited.is_err(), "the first is still inside");
        drop(first);
        let closed = closing.await.unwrap();
        let mut passing = Box::pin(one.pass());
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), &mut passing).await;
        assert!(waited.is_err(), "nobody passes a closed gate");
        drop(closed);
        passing.await.unwrap();
    }
}
