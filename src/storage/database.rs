//! The connections: SQLite or Postgres, each through its own typed pool.
//!
//! Queries are written once. Both databases take `$1` for a parameter, `RETURNING`, and the view `clock` for the time;
//! the three macros below expand a query over either pool, and only [`skip_locked`] puts a word in that one of them
//! lacks. (sqlx's `Any` driver would spare the macros, but has no JSON.)

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{Migrate, Migrator};
use sqlx::pool::Pool;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::StoreError;

/// How long a statement waits for another process that writes to the SQLite file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const SQLITE_READERS: u32 = 8;
const POSTGRES_CONNECTIONS: u32 = 16;

/// Where sqlx notes which migrations were run.
const MIGRATIONS: &str = "_sqlx_migrations";

/// A connected database, whose schema is the newest that this program knows, or the one after it.
#[derive(Debug, Clone)]
pub(super) enum Database {
    /// SQLite takes one writer at a time, so there is one connection for it: writers queue here, not in busy loops.
    Sqlite {
        reader: SqlitePool,
        writer: SqlitePool,
    },
    Postgres(PgPool),
}

/// Open connections of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionPool {
    /// `reader` and `writer` of SQLite, `shared` of Postgres.
    pub name: &'static str,
    pub idle: u32,
    pub used: u32,
    /// Most that may be open; who needs one more waits.
    pub max: u32,
}

impl ConnectionPool {
    fn of<DB: sqlx::Database>(name: &'static str, pool: &sqlx::Pool<DB>) -> Self {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        // The two are not read in one moment.
        Self { name, idle, used: pool.size().saturating_sub(idle), max: pool.options().get_max_connections() }
    }
}

/// Evaluates `$body` with `$pool` bound to the pool to read from.
macro_rules! read {
    ($store:expr, |$pool:ident| $body:expr) => {
        match &$store.database {
            $crate::storage::database::Database::Sqlite { reader: $pool, .. } => $body,
            $crate::storage::database::Database::Postgres($pool) => $body,
        }
    };
}

/// Evaluates `$body` in one transaction, with `$tx` bound to its connection: committed if it ends well, rolled back if
/// it fails or is dropped. `$body` may use `?` on anything that turns into a [`StoreError`].
macro_rules! write {
    ($store:expr, |$tx:ident| $body:expr) => {
        match &$store.database {
            $crate::storage::database::Database::Sqlite { writer, .. } => {
                // IMMEDIATE takes the write lock at once: a transaction that reads first and writes later would fail
                // when another process wrote in between.
                let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
                let $tx: &mut sqlx::SqliteConnection = &mut transaction;
                let outcome: Result<_, $crate::storage::StoreError> = async { Ok($body) }.await;
                let value = outcome?;
                transaction.commit().await?;
                Ok(value)
            }
            $crate::storage::database::Database::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                let $tx: &mut sqlx::PgConnection = &mut transaction;
                let outcome: Result<_, $crate::storage::StoreError> = async { Ok($body) }.await;
                let value = outcome?;
                transaction.commit().await?;
                Ok(value)
            }
        }
    };
}

/// The statement `$before $after`, with `FOR UPDATE SKIP LOCKED` between them in Postgres. SQLite needs no row locks:
/// its writers take turns.
macro_rules! skip_locked {
    ($store:expr, $before:literal, $after:literal) => {
        match &$store.database {
            $crate::storage::database::Database::Sqlite { .. } => concat!($before, " ", $after),
            $crate::storage::database::Database::Postgres(_) => concat!($before, " FOR UPDATE SKIP LOCKED ", $after),
        }
    };
}

pub(super) use {read, skip_locked, write};

impl Database {
    /// Connects to `url` (`sqlite://PATH`, `postgres://...`), creates a SQLite file that is missing, and migrates.
    pub(super) async fn connect(url: &str) -> Result<Self, StoreError> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Self::connect_sqlite(url).await,
            Some("postgres" | "postgresql") => Self::connect_postgres(url).await,
            _ => Err(StoreError::Location {
                setting: "database_url",
                reason: "it must start with sqlite: or postgres:".to_owned(),
            }),
        }
    }

    async fn connect_sqlite(url: &str) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let _turn = match url.contains(":memory:") {
            true => None,
            false => Some(lock_beside(options.get_filename()).await?),
        };
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        migrate(sqlx::migrate!("migrations/sqlite"), &writer).await?;
        let reader = SqlitePoolOptions::new().max_connections(SQLITE_READERS).connect_with(options).await?;
        Ok(Self::Sqlite { reader, writer })
    }

    async fn connect_postgres(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?.application_name("weightpress");
        let pool = PgPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).connect_with(options).await?;
        migrate(sqlx::migrate!("migrations/postgres"), &pool).await?;
        Ok(Self::Postgres(pool))
    }

    /// The pools of connections, as they are now.
    pub(super) fn pools(&self) -> Vec<ConnectionPool> {
        match self {
            Self::Sqlite { reader, writer } => {
                vec![ConnectionPool::of("reader", reader), ConnectionPool::of("writer", writer)]
            }
            Self::Postgres(pool) => vec![ConnectionPool::of("shared", pool)],
        }
    }

    /// Closes all connections once their statements have ended.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { reader, writer } => {
                reader.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Brings the schema up to date. One that a newer release has brought one step further is worked with: processes of both run
/// together while one takes the other's place.
async fn migrate<DB: sqlx::Database>(mut migrator: Migrator, pool: &Pool<DB>) -> Result<(), StoreError>
where
    DB::Connection: Migrate,
{
    migrator.set_ignore_missing(true).run(pool).await?;
    let applied = pool.acquire().await?.list_applied_migrations(MIGRATIONS).await?;
    let found = applied.iter().map(|migration| migration.version).max().unwrap_or(0);
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    if found > known + 1 { Err(StoreError::SchemaTooNew { found, known }) } else { Ok(()) }
}

/// Waits until no other process makes or migrates the SQLite file `database`, which has no lock of its own around either;
/// none does until the handle is dropped.
async fn lock_beside(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::create(path)?;
        file.lock()?;
        Ok(file)
    });
    locked.await.map_err(std::io::Error::other)?
}

/// The URL of the SQLite file `path`.
pub(crate) fn sqlite_url(path: &Path) -> String {
    let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sqlite://{path}")
}
