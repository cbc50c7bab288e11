//! Requests that name themselves by the header `Idempotency-Key`: the name is stored with what the request made, in one
//! transaction, so a request that is sent again finds it.
//!
//! Source: "The Idempotency-Key HTTP header field", draft-ietf-httpapi-idempotency-key-header-07.

use super::database::{read, write};
use super::{JobId, JobRecord, Store, StoreError};

/// A request that named itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRequest {
    /// Method and path.
    pub operation: &'static str,
    /// What the client calls it.
    pub key: String,
    /// SHA-256 of what it asks for, hex.
    pub body_sha256: String,
}

/// How long a name is kept, in milliseconds.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

pub(super) const INSERT: &str = "INSERT INTO idempotency_keys (tenant_id, operation, key, body_sha256, job_id, created_at) \
     SELECT $1, $2, $3, $4, $5, now_ms FROM clock";

/// Stores the name of a request; inside the transaction that does what it asks for. Violates uniqueness where it was done before.
macro_rules! insert_name {
    ($store:expr, $tx:ident, $request:expr, $job:expr) => {
        sqlx::query($crate::storage::idempotency::INSERT)
            .bind(&$store.tenant)
            .bind($request.operation)
            .bind(&$request.key)
            .bind(&$request.body_sha256)
            .bind($job)
            .execute(&mut *$tx)
            .await?
    };
}

pub(super) use insert_name;

impl Store {
    /// The job that `request` made when it came before.
    ///
    /// # Errors
    /// [`StoreError::NameReused`] if it asked for something else then.
    pub async fn made_by(&self, request: &NamedRequest) -> Result<Option<JobRecord>, StoreError> {
        const SQL: &str =
            "SELECT body_sha256, job_id FROM idempotency_keys WHERE tenant_id = $1 AND operation = $2 AND key = $3";
        let NamedRequest { operation, key, body_sha256 } = request;
        let before: Option<(String, JobId)> = read!(self, |pool| {
            sqlx::query_as(SQL).bind(&self.tenant).bind(*operation).bind(key).fetch_optional(pool).await?
        });
        match before {
            None => Ok(None),
            Some((body, _)) if body != *body_sha256 => Err(StoreError::NameReused { key: key.clone() }),
            Some((_, job)) => self.job(&job).await.map(Some),
        }
    }

    /// Forgets names that are older than a day, of all tenants.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_old_names(&self) -> Result<u64, StoreError> {
        const SQL: &str = "DELETE FROM idempotency_keys WHERE created_at < (SELECT now_ms FROM clock) - $1";
        write!(self, |tx| sqlx::query(SQL).bind(KEPT_MS).execute(&mut *tx).await?.rows_affected())
    }
}
