//! Datasets: named arrays for evaluation.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::model::Format;

use super::Published;
use super::blob_rows::{free_blobs, insert_blob, lock_blobs};
use super::database::{read, write};
use super::{DatasetId, Kind, Page, Store, StoreError, TenantId, Timestamp};

/// A stored dataset.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DatasetRecord {
    pub id: DatasetId,
    pub tenant_id: TenantId,
    /// Unique within the tenant; matches `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
    pub name: String,
    /// `npz` or `safetensors`.
    pub format: Format,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    pub size_bytes: i64,
    /// Common first extent of all arrays.
    pub samples: i64,
    #[sqlx(json)]
    pub arrays: Vec<ArraySummary>,
    pub created_at: Timestamp,
}

/// One named array of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ArraySummary {
    pub name: String,
    /// NumPy type name, e.g. `uint8`.
    pub dtype: String,
    /// The first extent counts samples.
    pub shape: Vec<usize>,
}

/// A dataset about to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDataset {
    pub name: String,
    /// `npz` or `safetensors`.
    pub format: Format,
    pub samples: i64,
    pub arrays: Vec<ArraySummary>,
}

/// Datasets with the size of their file.
macro_rules! select_datasets {
    ($rest:literal) => {
        concat!(
            "SELECT d.*, b.size_bytes FROM datasets d ",
            "JOIN blobs b ON b.tenant_id = d.tenant_id AND b.sha256 = d.sha256 ",
            $rest
        )
    };
}

impl Store {
    /// The dataset called `name`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn dataset(&self, name: &str) -> Result<DatasetRecord, StoreError> {
        const SQL: &str = select_datasets!("WHERE d.tenant_id = $1 AND d.name = $2");
        let found =
            read!(self, |pool| { sqlx::query_as(SQL).bind(&self.tenant).bind(name).fetch_optional(pool).await? });
        found.ok_or_else(|| Kind::Dataset.not_found(name))
    }

    /// Datasets by name, those after `page.after`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn datasets(&self, page: &Page) -> Result<Vec<DatasetRecord>, StoreError> {
        const SQL: &str =
            select_datasets!("WHERE d.tenant_id = $1 AND ($2 IS NULL OR d.name > $2) ORDER BY d.name LIMIT $3");
        Ok(read!(self, |pool| {
            sqlx::query_as(SQL).bind(&self.tenant).bind(&page.after).bind(page.limit).fetch_all(pool).await?
        }))
    }

    /// Inserts a dataset. The blob is in place.
    pub(super) async fn insert_dataset(&self, dataset: &NewDataset, blob: &Published<'_>) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO datasets (id, tenant_id, name, format, sha256, samples, arrays, created_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7, now_ms FROM clock";
        write!(self, |tx| {
            lock_blobs!(self, tx);
            insert_blob!(self, tx, blob);
            sqlx::query(SQL)
                .bind(DatasetId::new())
                .bind(&self.tenant)
                .bind(&dataset.name)
                .bind(dataset.format)
                .bind(&blob.sha256)
                .bind(dataset.samples)
                .bind(Json(&dataset.arrays))
                .execute(&mut *tx)
                .await?;
        })
    }

    /// Deletes a dataset. Returns the blobs that no row names any more.
    pub(super) async fn delete_dataset_rows(&self, name: &str) -> Result<Vec<String>, StoreError> {
        write!(self, |tx| {
            lock_blobs!(self, tx);
            let id: Option<DatasetId> =
                sqlx::query_scalar(LOCK_DATASET).bind(&self.tenant).bind(name).fetch_optional(&mut *tx).await?;
            let id = id.ok_or_else(|| Kind::Dataset.not_found(name))?;
            let jobs: i64 = sqlx::query_scalar(UNFINISHED_JOBS).bind(&id).fetch_one(&mut *tx).await?;
            if jobs > 0 {
                return Err(StoreError::InUse { kind: Kind::Dataset, name: name.to_owned(), jobs });
            }
            let released: Vec<String> = sqlx::query_scalar("DELETE FROM datasets WHERE id = $1 RETURNING sha256")
                .bind(&id)
                .fetch_all(&mut *tx)
                .await?;
            free_blobs!(self, tx, released)
        })
    }
}

/// Takes the lock that orders changes of one dataset: deleting it and queueing a job that reads it exclude each other.
pub(super) const LOCK_DATASET: &str = "UPDATE datasets SET name = name WHERE tenant_id = $1 AND name = $2 RETURNING id";

const UNFINISHED_JOBS: &str = "SELECT COUNT(*) FROM jobs WHERE id IN (SELECT job_id FROM job_datasets WHERE dataset_id = $1) \
     AND state IN ('queued', 'running', 'cancelling')";
