//! Rows of blobs: the book that says which files of the blob store are wanted.

use std::collections::HashSet;

use super::database::read;
use super::{Store, StoreError};

/// Lets transactions that refer to blobs, or free them, take turns until they end; before any other lock. Postgres would
/// let one free a blob that another has found in its place and is about to refer to; SQLite has one writer anyway.
macro_rules! lock_blobs {
    ($store:expr, $tx:ident) => {
        if let $crate::storage::database::Database::Postgres(_) = &$store.database {
            sqlx::query($crate::storage::blob_rows::LOCK).execute(&mut *$tx).await?;
        }
    };
}

/// Inserts the row of a published blob, unless it is there; inside a transaction that inserts what refers to it. Fails it where
/// the tenant may not store that much.
macro_rules! insert_blob {
    ($store:expr, $tx:ident, $blob:expr) => {
        sqlx::query($crate::storage::blob_rows::INSERT)
            .bind(&$store.tenant)
            .bind(&$blob.sha256)
            .bind($blob.size_bytes)
            .execute(&mut *$tx)
            .await?;
        let exceeded: Option<i64> = sqlx::query_scalar($crate::storage::blob_rows::EXCEEDED)
            .bind(&$store.tenant)
            .bind(&$blob.sha256)
            .bind($blob.size_bytes)
            .fetch_optional(&mut *$tx)
            .await?;
        if let Some(max_bytes) = exceeded {
            return Err($crate::storage::StoreError::StorageQuota { max_bytes });
        }
    };
}

/// Deletes those rows of `$released` blobs that nothing refers to any more; inside the transaction that deleted what did.
/// Returns their hashes.
macro_rules! free_blobs {
    ($store:expr, $tx:ident, $released:expr) => {{
        let mut freed: Vec<String> = Vec::new();
        for sha256 in $released {
            let row = sqlx::query_scalar($crate::storage::blob_rows::DELETE_UNREFERENCED)
                .bind(&$store.tenant)
                .bind(sha256)
                .fetch_optional(&mut *$tx)
                .await?;
            freed.extend::<Option<String>>(row);
        }
        freed
    }};
}

pub(super) use {free_blobs, insert_blob, lock_blobs};

/// The number is any that nothing else locks.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(8241)";

pub(super) const INSERT: &str = "INSERT INTO blobs (tenant_id, sha256, size_bytes, created_at) \
     SELECT $1, $2, $3, now_ms FROM clock WHERE true ON CONFLICT (tenant_id, sha256) DO NOTHING";

/// The bound of a tenant that stores more than it may, together with the uploads in parts that it announced: but for files that
/// trials keep until their search is over, and for one upload that is whole and as large as the blob `$2`, of `$3` bytes, which it
/// becomes right now.
pub(super) const EXCEEDED: &str = "SELECT max_stored_bytes FROM tenants WHERE id = $1 AND max_stored_bytes < \
     (SELECT CAST(COALESCE(SUM(b.size_bytes), 0) AS BIGINT) FROM blobs b WHERE b.tenant_id = $1 AND (b.sha256 = $2 \
     OR NOT EXISTS (SELECT 1 FROM job_blobs j WHERE j.tenant_id = b.tenant_id AND j.sha256 = b.sha256))) + \
     (SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM uploads WHERE tenant_id = $1) - \
     (SELECT COALESCE(MAX(size_bytes), 0) FROM uploads \
     WHERE tenant_id = $1 AND received_bytes = size_bytes AND size_bytes = $3)";

pub(super) const DELETE_UNREFERENCED: &str = "DELETE FROM blobs WHERE tenant_id = $1 AND sha256 = $2 \
     AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.tenant_id = blobs.tenant_id AND v.sha256 = blobs.sha256) \
     AND NOT EXISTS (SELECT 1 FROM datasets d WHERE d.tenant_id = blobs.tenant_id AND d.sha256 = blobs.sha256) \
     AND NOT EXISTS (SELECT 1 FROM job_blobs j WHERE j.tenant_id = blobs.tenant_id AND j.sha256 = blobs.sha256) \
     RETURNING sha256";

impl Store {
    /// The hashes of all blobs that any tenant wants.
    pub(super) async fn wanted_blobs(&self) -> Result<HashSet<String>, StoreError> {
        const SQL: &str = "SELECT DISTINCT sha256 FROM blobs";
        let hashes: Vec<String> = read!(self, |pool| sqlx::query_scalar(SQL).fetch_all(pool).await?);
        Ok(hashes.into_iter().collect())
    }

    /// Whether any tenant wants the blob: they share files.
    pub(super) async fn is_blob_wanted(&self, sha256: &str) -> Result<bool, StoreError> {
        const COUNT_OWNERS: &str = "SELECT COUNT(*) FROM blobs WHERE sha256 = $1";
        let owners: i64 = read!(self, |pool| { sqlx::query_scalar(COUNT_OWNERS).bind(sha256).fetch_one(pool).await? });
        Ok(owners > 0)
    }
}
