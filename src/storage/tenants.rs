//! Tenants: who owns rows, and how much each may have.

use serde::Serialize;
use utoipa::ToSchema;

use super::database::{read, write};
use super::{Kind, Store, StoreError, TenantId, Timestamp};

/// A tenant.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct TenantRecord {
    pub id: TenantId,
    /// Unique.
    pub name: String,
    #[sqlx(flatten)]
    pub bounds: Bounds,
    pub created_at: Timestamp,
}

/// What a tenant may have; `None`: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Bounds {
    /// Of all its files, each counted once.
    pub max_stored_bytes: Option<i64>,
    /// Queued and running ones.
    pub max_unfinished_jobs: Option<i64>,
    /// Of each process that serves.
    pub max_requests_per_minute: Option<i64>,
}

impl Store {
    /// The tenant called `name`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn tenant(&self, name: &str) -> Result<TenantRecord, StoreError> {
        const SQL: &str = "SELECT * FROM tenants WHERE name = $1";
        let found = read!(self, |pool| sqlx::query_as(SQL).bind(name).fetch_optional(pool).await?);
        found.ok_or_else(|| Kind::Tenant.not_found(name))
    }

    /// The tenant that this store is seen by.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn own_tenant(&self) -> Result<TenantRecord, StoreError> {
        const SQL: &str = "SELECT * FROM tenants WHERE id = $1";
        let found = read!(self, |pool| sqlx::query_as(SQL).bind(&self.tenant).fetch_optional(pool).await?);
        found.ok_or_else(|| Kind::Tenant.not_found(self.tenant.as_str()))
    }

    /// All tenants by name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        const SQL: &str = "SELECT * FROM tenants ORDER BY name";
        Ok(read!(self, |pool| sqlx::query_as(SQL).fetch_all(pool).await?))
    }

    /// The tenant called `name`, which is made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tenant_or_new(&self, name: &str) -> Result<TenantRecord, StoreError> {
        const SQL: &str = "INSERT INTO tenants (id, name, created_at) SELECT $1, $2, now_ms FROM clock WHERE true \
             ON CONFLICT (name) DO NOTHING";
        let made: Result<u64, StoreError> = write!(self, |tx| {
            sqlx::query(SQL).bind(TenantId::new()).bind(name).execute(&mut *tx).await?.rows_affected()
        });
        made?;
        self.tenant(name).await
    }

    /// Sets what the tenant called `name` may have.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_bounds(&self, name: &str, bounds: &Bounds) -> Result<TenantRecord, StoreError> {
        const SQL: &str = "UPDATE tenants SET max_stored_bytes = $2, max_unfinished_jobs = $3, \
             max_requests_per_minute = $4 WHERE name = $1 RETURNING *";
        let changed: Result<Option<TenantRecord>, StoreError> = write!(self, |tx| {
            sqlx::query_as(SQL)
                .bind(name)
                .bind(bounds.max_stored_bytes)
                .bind(bounds.max_unfinished_jobs)
                .bind(bounds.max_requests_per_minute)
                .fetch_optional(&mut *tx)
                .await?
        });
        changed?.ok_or_else(|| Kind::Tenant.not_found(name))
    }
}
