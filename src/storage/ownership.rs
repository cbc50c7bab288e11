//! Which database the blobs belong to: both hold the same identifier.
//!
//! A start removes the blobs that no row names, so one on the wrong database would remove them all. It is refused
//! instead: blobs that have an owner serve no other database, and neither blobs nor a database with rows of blobs are
//! paired with a new partner.

use std::fs::File;
use std::path::Path;

use object_store::path::Path as Key;
use object_store::{ObjectStoreExt, PutMode};
use uuid::Uuid;

use super::blobs::Home;
use super::database::{read, write};
use super::{Store, StoreError};

/// Holds the identifier, beside the blobs.
const OWNER: &str = "owner";
/// Locked by a process that opens or sweeps the folder.
const LOCK_FILE: &str = "lock";

/// The folder of blobs while it is opened and swept: processes take turns, so that none sweeps what another has half
/// opened.
#[derive(Debug)]
pub(super) struct Opening {
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
            Ok(Self { _lock: lock })
        });
        begun.await.map_err(std::io::Error::other)?
    }
}

impl Home {
    /// Pairs the blobs with the database of `store`, or sees that they are a pair.
    pub(super) async fn pair_with(&self, store: &Store) -> Result<(), StoreError> {
        let (of_blobs, of_database) = (self.owner().await?, store.identity().await?);
        match (&of_blobs, &of_database) {
            (Some(blobs), Some(database)) if blobs == database => return Ok(()),
            (None, _) if !self.is_any_published().await? && !store.has_blobs().await? => {}
            _ => return Err(StoreError::NotAPair { place: self.to_string(), of_blobs, of_database }),
        }
        // The database comes first: should this process die in between, the next start finds no blobs.
        let database = store.identify(&Uuid::now_v7().to_string()).await?;
        match self.objects.put_opts(&Key::from(OWNER), format!("{database}\n").into(), PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            // Another machine starts beside this one.
            Err(object_store::Error::AlreadyExists { .. }) => match self.owner().await? {
                Some(owner) if owner == database => Ok(()),
                of_blobs => {
                    Err(StoreError::NotAPair { place: self.to_string(), of_blobs, of_database: Some(database) })
                }
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn owner(&self) -> Result<Option<String>, StoreError> {
        match self.objects.get(&Key::from(OWNER)).await {
            Ok(found) => Ok(Some(String::from_utf8_lossy(&found.bytes().await?).trim().to_owned())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
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
