//! Keys as rows. No row holds a secret: only its hash.

use sqlx::types::Json;

use crate::access::{ApiKey, KeyId, Scopes};

use super::database::{read, write};
use super::{Kind, Store, StoreError, TenantId, Timestamp};

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct KeyRecord {
    pub id: KeyId,
    pub tenant_id: TenantId,
    /// For people.
    pub name: String,
    #[sqlx(json)]
    pub scopes: Scopes,
    pub created_at: Timestamp,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// `None`: in force.
    pub revoked_at: Option<Timestamp>,
}

/// What a key in force is checked against, and what it grants.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Credential {
    pub tenant_id: TenantId,
    #[sqlx(json)]
    pub scopes: Scopes,
    pub secret_sha256: String,
    /// Of its tenant; `None`: any number.
    pub max_requests_per_minute: Option<i64>,
}

/// A key about to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewKey {
    /// For people.
    pub name: String,
    pub scopes: Scopes,
    /// Days from now; `None`: for ever.
    pub valid_days: Option<i64>,
}

impl NewKey {
    const MAX_NAME_CHARS: usize = 200;
    const MAX_DAYS: i64 = 36_500;

    /// Says what is wrong with it.
    ///
    /// # Errors
    /// The fault, in words.
    pub fn check(&self) -> Result<(), String> {
        let length = self.name.chars().count();
        if !(1..=Self::MAX_NAME_CHARS).contains(&length) || self.name.chars().any(char::is_control) {
            return Err(format!(
                "name: 1 to {} characters are expected, none a control character",
                Self::MAX_NAME_CHARS
            ));
        }
        if self.scopes.is_empty() {
            return Err("scopes: at least one is expected".to_owned());
        }
        match self.valid_days {
            Some(days) if !(1..=Self::MAX_DAYS).contains(&days) => {
                Err(format!("valid_days: 1 to {} are expected, not {days}", Self::MAX_DAYS))
            }
            _ => Ok(()),
        }
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Store {
    /// Stores the hash of `key`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn insert_key(&self, key: &ApiKey, new: &NewKey) -> Result<KeyRecord, StoreError> {
        const SQL: &str = "INSERT INTO api_keys (id, tenant_id, name, scopes, secret_sha256, created_at, expires_at) \
             SELECT $1, $2, $3, $4, $5, now_ms, now_ms + $6 FROM clock RETURNING *";
        write!(self, |tx| {
            sqlx::query_as(SQL)
                .bind(key.id())
                .bind(&self.tenant)
                .bind(&new.name)
                .bind(Json(&new.scopes))
                .bind(key.secret_sha256())
                .bind(new.valid_days.map(|days| days.saturating_mul(DAY_MS)))
                .fetch_one(&mut *tx)
                .await?
        })
    }

    /// The keys of the tenant, by age, those that are over too.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        const SQL: &str = "SELECT * FROM api_keys WHERE tenant_id = $1 ORDER BY created_at, id";
        Ok(read!(self, |pool| sqlx::query_as(SQL).bind(&self.tenant).fetch_all(pool).await?))
    }

    /// Ends a key. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revoke_key(&self, id: &KeyId) -> Result<KeyRecord, StoreError> {
        const SQL: &str = "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, (SELECT now_ms FROM clock)) \
             WHERE tenant_id = $1 AND id = $2 RETURNING *";
        let revoked: Result<Option<KeyRecord>, StoreError> =
            write!(self, |tx| sqlx::query_as(SQL).bind(&self.tenant).bind(id).fetch_optional(&mut *tx).await?);
        revoked?.ok_or_else(|| Kind::Key.not_found(id.to_string()))
    }

    /// What there is about key `id` of any tenant, if it is in force.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn credential(&self, id: &KeyId) -> Result<Option<Credential>, StoreError> {
        const SQL: &str = "SELECT k.tenant_id, k.scopes, k.secret_sha256, t.max_requests_per_minute \
             FROM api_keys k JOIN tenants t ON t.id = k.tenant_id WHERE k.id = $1 AND k.revoked_at IS NULL \
             AND (k.expires_at IS NULL OR k.expires_at > (SELECT now_ms FROM clock))";
        Ok(read!(self, |pool| sqlx::query_as(SQL).bind(id).fetch_optional(pool).await?))
    }

    /// Whether any tenant has a key in force.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        const SQL: &str = "SELECT COUNT(*) FROM api_keys WHERE revoked_at IS NULL";
        let keys: i64 = read!(self, |pool| sqlx::query_scalar(SQL).fetch_one(pool).await?);
        Ok(keys > 0)
    }
}
