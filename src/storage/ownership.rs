//! Which database a folder of blobs belongs to: both hold the same identifier.
//!
//! A start removes the blobs that no row names, so one on the wrong database would remove them all. It is refused
//! instead: a folder that has an owner serves no other database, and neither a folder with blobs nor a database with
//! rows of blobs is paired with a new partner.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::database::{read, write};
use super::{Store, StoreError, blobs};

/// Holds the identifier, in the folder of blobs.
const OWNER_FILE: &str = "owner";
/// Locked by a process that opens or sweeps the folder.
const LOCK_FILE: &str = "lock";

/// The folder of blobs while it is opened and swept: processes take turns, so that none sweeps what another has half
/// opened.
#[derive(Debug)]
pub(super) struct Opening {
    folder: PathBuf,
    /// Unlocked when dropped.
    _lock: File,
}

impl Opening {
    /// Waits for the turn to open `folder`, which is created if it is missing.
    pub(super) async fn begin(folder: &Path) -> Result<Self, StoreError> {
        let folder = folder.to_owned();
        let begun = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            let lock = File::create(folder.join(LOCK_FILE))?;
            lock.lock()?;
            Ok(Self { folder, _lock: lock })
        });
        begun.await.map_err(std::io::Error::other)?
    }

    /// Pairs the folder with the database of `store`, or sees that they are a pair.
    pub(super) async fn pair_with(&self, store: &Store) -> Result<(), StoreError> {
        let (of_folder, of_database) = (self.owner()?, store.identity().await?);
        match (&of_folder, &of_database) {
            (Some(folder), Some(database)) if folder == database => return Ok(()),
            (None, _) if !blobs::is_any_published(&self.folder)? && !store.has_blobs().await? => {}
            _ => return Err(StoreError::NotAPair { folder: self.folder.clone(), of_folder, of_database }),
        }
        // The database comes first: should this process die in between, the next start finds an empty folder.
        self.set_owner(&store.identify(&Uuid::now_v7().to_string()).await?)
    }

    fn owner(&self) -> Result<Option<String>, StoreError> {
        match std::fs::read_to_string(self.folder.join(OWNER_FILE)) {
            Ok(owner) => Ok(Some(owner.trim().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn set_owner(&self, owner: &str) -> Result<(), StoreError> {
        let half = self.folder.join(OWNER_FILE).with_extension("half");
        let mut file = File::create(&half)?;
        writeln!(file, "{owner}")?;
        file.sync_all()?;
        std::fs::rename(half, self.folder.join(OWNER_FILE))?;
        Ok(())
    }
}

impl Store {
    /// The identifier of the database, once it has one.
    async fn identity(&self) -> Result<Option<String>, StoreError> {
        const SQL: &str = "SELECT id FROM blob_owner";
        Ok(read!(self, |pool| { sqlx::query_scalar(SQL).fetch_optional(pool).await? }))
    }

    /// Gives the database the identifier `id` unless it has one. Returns the one it has.
    async fn identify(&self, id: &str) -> Result<String, StoreError> {
        const INSERT: &str = "INSERT INTO blob_owner (one, id) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
        write!(self, |tx| {
            sqlx::query(INSERT).bind(id).execute(&mut *tx).await?;
            sqlx::query_scalar("SELECT id FROM blob_owner").fetch_one(&mut *tx).await?
        })
    }

    async fn has_blobs(&self) -> Result<bool, StoreError> {
        let rows: i64 = read!(self, |pool| sqlx::query_scalar("SELECT COUNT(*) FROM blobs").fetch_one(pool).await?);
        Ok(rows > 0)
    }
}
