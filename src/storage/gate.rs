//! Keeps deleting away from publishing, in all processes that share a database and its blobs.
//!
//! Whoever publishes a blob passes the gate together with others and stays until its row is there; whoever deletes has it
//! alone, from the look at the rows to the file. Inside a process that is a lock of its own. Between processes it is a lock
//! that their database keeps, or for SQLite a lock on a file beside it; both are lifted when a process dies.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::StoreError;
use super::database::Database;

/// The number of the advisory lock, the same for all releases: "wp gate" in ASCII.
const ADVISORY_LOCK: i64 = 0x0077_7020_6761_7465;
/// Those who pass have a connection each, of a pool of their own: what they do inside needs others.
const CONNECTIONS: u32 = 4;
/// How long they wait for one: the others are on their way to or from an object store.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Gate {
    tasks: RwLock<()>,
    processes: Processes,
}

/// What processes lock.
#[derive(Debug)]
enum Processes {
    File(PathBuf),
    Advisory(PgPool),
}

/// A lock between processes, lifted when dropped.
#[derive(Debug)]
enum Held {
    File { _locked: File },
    Advisory { _locked: Transaction<'static, Postgres> },
}

/// Somebody who publishes is inside.
#[derive(Debug)]
pub(super) struct Passed<'a> {
    _tasks: RwLockReadGuard<'a, ()>,
    _processes: Held,
}

/// Nobody else is inside.
#[derive(Debug)]
pub(super) struct Closed<'a> {
    _tasks: RwLockWriteGuard<'a, ()>,
    _processes: Held,
}

impl Gate {
    /// The gate of all that share `database`.
    pub(super) fn of(database: &Database) -> Self {
        let processes = match database {
            Database::Sqlite { writer, .. } => {
                let mut file = writer.connect_options().get_filename().as_os_str().to_owned();
                file.push("-gate");
                Processes::File(file.into())
            }
            Database::Postgres(pool) => {
                let options = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
                Processes::Advisory(options.connect_lazy_with(pool.connect_options().as_ref().clone()))
            }
        };
        Self { tasks: RwLock::new(()), processes }
    }

    /// Waits until nobody deletes.
    pub(super) async fn pass(&self) -> Result<Passed<'_>, StoreError> {
        let tasks = self.tasks.read().await;
        let processes = self.processes.lock(File::lock_shared, "SELECT pg_advisory_xact_lock_shared($1)").await?;
        Ok(Passed { _tasks: tasks, _processes: processes })
    }

    /// Waits until every published blob has its row, and keeps others from publishing.
    pub(super) async fn close(&self) -> Result<Closed<'_>, StoreError> {
        let tasks = self.tasks.write().await;
        let processes = self.processes.lock(File::lock, "SELECT pg_advisory_xact_lock($1)").await?;
        Ok(Closed { _tasks: tasks, _processes: processes })
    }

    /// Closes the connections.
    pub(super) async fn disconnect(&self) {
        if let Processes::Advisory(pool) = &self.processes {
            pool.close().await;
        }
    }
}

impl Processes {
    async fn lock(&self, file: fn(&File) -> std::io::Result<()>, sql: &'static str) -> Result<Held, StoreError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let locked = tokio::task::spawn_blocking(move || {
                    // A handle of its own each time: locks belong to handles.
                    let handle = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
                    file(&handle)?;
                    Ok(Held::File { _locked: handle })
                });
                locked.await.map_err(std::io::Error::other)?
            }
            Self::Advisory(pool) => {
                // The lock goes with its transaction, which is rolled back when dropped.
                let mut transaction = pool.begin().await?;
                sqlx::query(sql).bind(ADVISORY_LOCK).execute(&mut *transaction).await?;
                Ok(Held::Advisory { _locked: transaction })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::contract::Place;

    #[tokio::test]
    async fn many_pass_together_and_who_deletes_is_alone_also_between_processes() {
        let place = Place::new().await;
        // Two gates of one database are as strange to each other as two processes.
        let (one, other) = (place.open().await.store, place.open().await.store);
        let (first, second) = (one.gate.pass().await.unwrap(), other.gate.pass().await.unwrap());
        let mut closing = Box::pin(other.gate.close());
        let brief = Duration::from_millis(100);
        assert!(tokio::time::timeout(brief, &mut closing).await.is_err(), "both are inside");
        drop(second);
        assert!(tokio::time::timeout(brief, &mut closing).await.is_err(), "the first is still inside");
        drop(first);
        let closed = closing.await.unwrap();
        let mut passing = Box::pin(one.gate.pass());
        assert!(tokio::time::timeout(brief, &mut passing).await.is_err(), "nobody passes a closed gate");
        drop(closed);
        drop(passing.await.unwrap());
        for store in [one, other] {
            store.close().await;
        }
        place.remove().await;
    }
}
