//! Datasets: named arrays for evaluation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::blobs::DatasetFormat;
use super::{DatasetId, Page, Store, StoreError, TenantId, Timestamp};

/// A stored dataset.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DatasetRecord {
    pub id: DatasetId,
    pub tenant_id: TenantId,
    /// Unique within the tenant; matches `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
    pub name: String,
    pub format: DatasetFormat,
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
    pub format: DatasetFormat,
    pub samples: i64,
    pub arrays: Vec<ArraySummary>,
}

impl Store {
    /// The dataset called `name`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn dataset(&self, name: &str) -> Result<DatasetRecord, StoreError> {
        todo!()
    }

    /// Datasets by name, those after `page.after`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn datasets(&self, page: &Page) -> Result<Vec<DatasetRecord>, StoreError> {
        todo!()
    }
}
