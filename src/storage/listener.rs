//! Word of jobs between processes that share a Postgres database: what happens to a job is told by a notification of the
//! same transaction, and a connection of each process listens.
//!
//! It is a short cut and nothing more. A notification is lost with a connection, and SQLite has none: whoever listens also
//! looks every so often.

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::database::Database;
use super::{EventKind, JobId, Store, StoreError};

/// Where notifications are sent.
const CHANNEL: &str = "weightpress_jobs";

/// The payload: who tells it, what happened, and to which job.
pub(super) const NOTIFY: &str = "SELECT pg_notify('weightpress_jobs', $1 || ' ' || $2 || ' ' || $3)";

/// Tells other processes what happened to a job; inside the transaction in which it happens.
macro_rules! tell_others {
    ($store:expr, $tx:ident, $job:expr, $kind:expr) => {
        if let $crate::storage::database::Database::Postgres(_) = &$store.database {
            sqlx::query($crate::storage::listener::NOTIFY)
                .bind(&*$store.origin)
                .bind($kind)
                .bind($job)
                .execute(&mut *$tx)
                .await?;
        }
    };
}

pub(super) use tell_others;

/// Hears what other stores do to jobs, of all tenants.
pub struct Listener {
    notifications: PgListener,
    /// Who listens, and knows what it did itself.
    origin: String,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub job: JobId,
    pub kind: EventKind,
}

impl Store {
    /// Listens from now on, on a connection of its own; `None` where nobody can tell anything (SQLite).
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn listen(&self) -> Result<Option<Listener>, StoreError> {
        let Database::Postgres(pool) = &self.database else { return Ok(None) };
        let options = pool.connect_options().as_ref().clone();
        let single = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let mut notifications = PgListener::connect_with(&single.connect_with(options).await?).await?;
        // Whoever listens is to know that it missed something.
        notifications.eager_reconnect(false);
        notifications.listen(CHANNEL).await?;
        Ok(Some(Listener { notifications, origin: self.origin.to_string() }))
    }
}

impl Listener {
    /// Waits for what happens next; `None` once the connection is lost.
    ///
    /// # Errors
    /// [`StoreError::Database`] when it is lost in another way.
    pub async fn next(&mut self) -> Result<Option<Heard>, StoreError> {
        while let Some(notification) = self.notifications.try_recv().await? {
            if let Some(heard) = self.understand(notification.payload()) {
                return Ok(Some(heard));
            }
        }
        Ok(None)
    }

    /// What a payload says; `None` of what this store did itself, and of words that it does not know: others may be newer.
    fn understand(&self, payload: &str) -> Option<Heard> {
        let mut words = payload.split(' ');
        let (origin, kind, job) = (words.next()?, words.next()?, words.next()?);
        if origin == self.origin {
            return None;
        }
        Some(Heard { job: job.parse().ok()?, kind: serde_json::from_value(kind.into()).ok()? })
    }
}
