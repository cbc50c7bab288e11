//! Models: what was uploaded.

use crate::model::{Format, Kept, Port, Role};

use super::{ModelId, Page, Store, StoreError, TenantId, Timestamp};

/// An uploaded network.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ModelRecord {
    pub id: ModelId,
    pub tenant_id: TenantId,
    /// Unique within the tenant; matches `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
    pub name: String,
    pub format: Format,
    /// SHA-256 of the uploaded file, hex.
    pub sha256: String,
    /// Bytes of the uploaded file.
    pub size_bytes: i64,
    /// Empty for a weights-only file.
    #[sqlx(json)]
    pub inputs: Vec<Port>,
    /// Empty for a weights-only file.
    #[sqlx(json)]
    pub outputs: Vec<Port>,
    /// What can be compressed, in file order.
    #[sqlx(json)]
    pub weights: Vec<WeightSummary>,
    /// What cannot, and why, in file order.
    #[sqlx(json)]
    pub kept: Vec<Kept>,
    /// Operators that predictions lack; with none of them and at least one output the model is predictable.
    #[sqlx(json)]
    pub unsupported_operators: Vec<String>,
    /// The version that is served when none is named; 0 at first.
    pub default_version: i64,
    pub created_at: Timestamp,
}

impl ModelRecord {
    /// Whether predictions and evaluations can run.
    pub fn is_predictable(&self) -> bool {
        self.unsupported_operators.is_empty() && !self.outputs.is_empty()
    }
}

/// A weight of an uploaded model: one row of its table of layers.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct WeightSummary {
    pub name: String,
    /// Operator type of its reader, e.g. `Conv`.
    pub op: String,
    /// As in the file.
    pub shape: Vec<usize>,
    /// ONNX type name in lower case.
    pub dtype: String,
    /// Elements.
    pub parameters: u64,
    pub role: Role,
}

/// A model about to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewModel {
    pub name: String,
    pub format: Format,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub weights: Vec<WeightSummary>,
    pub kept: Vec<Kept>,
    pub unsupported_operators: Vec<String>,
}

impl Store {
    /// The model called `name`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn model(&self, name: &str) -> Result<ModelRecord, StoreError> {
        todo!()
    }

    /// Models by name, those after `page.after`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn models(&self, page: &Page) -> Result<Vec<ModelRecord>, StoreError> {
        todo!()
    }

    /// Makes `version` the one that is served when none is named.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the model or the version.
    pub async fn set_default_version(&self, name: &str, version: i64) -> Result<ModelRecord, StoreError> {
        todo!()
    }
}
