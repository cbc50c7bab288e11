//! Models: what was uploaded.

use sqlx::AssertSqlSafe;
use sqlx::types::Json;

use crate::model::{Format, Kept, Port, Role};

use super::Published;
use super::blob_rows::{free_blobs, insert_blob, lock_blobs};
use super::database::{read, write};
use super::metadata::{INSERT_OF_MODEL, insert_pairs};
use super::{Kind, Metadata, MetadataPatch, ModelId, Page, Store, StoreError, TenantId, Timestamp};

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
    /// What users note about it.
    #[sqlx(json)]
    pub metadata: Metadata,
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
    /// What users note about it.
    pub metadata: Metadata,
}

/// Which models to list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelFilter {
    /// Pairs that they all have.
    pub metadata: Metadata,
}

/// What is to change about a model; `None`: it stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelChange {
    /// The version to serve when none is named.
    pub default_version: Option<i64>,
    pub metadata: Option<MetadataPatch>,
}

/// Models with what their version 0 knows.
macro_rules! select_models {
    ($rest:literal) => {
        concat!(
            "SELECT m.*, v.sha256, b.size_bytes FROM models m ",
            "JOIN versions v ON v.model_id = m.id AND v.number = 0 ",
            "JOIN blobs b ON b.tenant_id = v.tenant_id AND b.sha256 = v.sha256 ",
            $rest
        )
    };
}

impl Store {
    /// The model called `name`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn model(&self, name: &str) -> Result<ModelRecord, StoreError> {
        const SQL: &str = select_models!("WHERE m.tenant_id = $1 AND m.name = $2");
        let found =
            read!(self, |pool| { sqlx::query_as(SQL).bind(&self.tenant).bind(name).fetch_optional(pool).await? });
        found.ok_or_else(|| Kind::Model.not_found(name))
    }

    /// Models by name, those after `page.after`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn models(&self, filter: &ModelFilter, page: &Page) -> Result<Vec<ModelRecord>, StoreError> {
        const MODELS: &str = select_models!("WHERE m.tenant_id = $1 AND ($2 IS NULL OR m.name > $2)");
        const PAIRS: &str = "AND m.id IN (SELECT model_id FROM model_metadata WHERE tenant_id = $1";
        let sql = format!("{MODELS}{} ORDER BY m.name LIMIT $3", filter.metadata.condition(PAIRS, 4));
        Ok(read!(self, |pool| {
            let listed = sqlx::query_as(AssertSqlSafe(sql)).bind(&self.tenant).bind(&page.after).bind(page.limit);
            let pairs = filter.metadata.iter();
            pairs.fold(listed, |listed, (key, value)| listed.bind(key).bind(value)).fetch_all(pool).await?
        }))
    }

    /// Changes a model, all that is asked for or nothing. Returns it as it then is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the model or the version; [`StoreError::Metadata`] for what would be too much.
    pub async fn change_model(&self, name: &str, change: &ModelChange) -> Result<ModelRecord, StoreError> {
        const DEFAULT: &str = "UPDATE models SET default_version = $1 WHERE id = $2 \
             AND EXISTS (SELECT 1 FROM versions WHERE model_id = $2 AND number = $1)";
        const METADATA: &str = "SELECT metadata FROM models WHERE id = $1";
        const SET_METADATA: &str = "UPDATE models SET metadata = $1 WHERE id = $2";
        const DELETE_PAIRS: &str = "DELETE FROM model_metadata WHERE model_id = $1";
        let changed: Result<(), StoreError> = write!(self, |tx| {
            // A statement of its own: only the next ones see what was committed while this one waited.
            let id: Option<ModelId> =
                sqlx::query_scalar(LOCK_MODEL).bind(&self.tenant).bind(name).fetch_optional(&mut *tx).await?;
            let id = id.ok_or_else(|| Kind::Model.not_found(name))?;
            if let Some(version) = change.default_version {
                let moved = sqlx::query(DEFAULT).bind(version).bind(&id).execute(&mut *tx).await?.rows_affected();
                if moved == 0 {
                    return Err(Kind::Version.not_found(format!("{version} of {name}")));
                }
            }
            if let Some(patch) = &change.metadata {
                let Json(before): Json<Metadata> = sqlx::query_scalar(METADATA).bind(&id).fetch_one(&mut *tx).await?;
                let after = patch.applied_to(before)?;
                sqlx::query(SET_METADATA).bind(Json(&after)).bind(&id).execute(&mut *tx).await?;
                sqlx::query(DELETE_PAIRS).bind(&id).execute(&mut *tx).await?;
                insert_pairs!(self, tx, INSERT_OF_MODEL, &id, &after);
            }
        });
        self.served.forget();
        changed?;
        self.model(name).await
    }

    /// Inserts a model and its version 0. The blob is in place.
    pub(super) async fn insert_model(&self, model: &NewModel, blob: &Published<'_>) -> Result<(), StoreError> {
        const MODEL: &str = "INSERT INTO models (id, tenant_id, name, format, inputs, outputs, weights, kept, \
             unsupported_operators, metadata, next_version, created_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, now_ms FROM clock";
        const VERSION: &str = "INSERT INTO versions (tenant_id, model_id, number, sha256, ratio, created_at) \
             SELECT $1, $2, 0, $3, 1, now_ms FROM clock";
        let id = ModelId::new();
        write!(self, |tx| {
            lock_blobs!(self, tx);
            insert_blob!(self, tx, blob);
            sqlx::query(MODEL)
                .bind(&id)
                .bind(&self.tenant)
                .bind(&model.name)
                .bind(model.format)
                .bind(Json(&model.inputs))
                .bind(Json(&model.outputs))
                .bind(Json(&model.weights))
                .bind(Json(&model.kept))
                .bind(Json(&model.unsupported_operators))
                .bind(Json(&model.metadata))
                .execute(&mut *tx)
                .await?;
            insert_pairs!(self, tx, INSERT_OF_MODEL, &id, &model.metadata);
            sqlx::query(VERSION).bind(&self.tenant).bind(&id).bind(&blob.sha256).execute(&mut *tx).await?;
        })
    }

    /// Deletes a model with its versions. Returns the blobs that no row names any more.
    pub(super) async fn delete_model_rows(&self, name: &str) -> Result<Vec<String>, StoreError> {
        write!(self, |tx| {
            lock_blobs!(self, tx);
            let id: Option<ModelId> =
                sqlx::query_scalar(LOCK_MODEL).bind(&self.tenant).bind(name).fetch_optional(&mut *tx).await?;
            let id = id.ok_or_else(|| Kind::Model.not_found(name))?;
            let jobs: i64 = sqlx::query_scalar(UNFINISHED_JOBS).bind(&id).fetch_one(&mut *tx).await?;
            if jobs > 0 {
                return Err(StoreError::InUse { kind: Kind::Model, name: name.to_owned(), jobs });
            }
            let released: Vec<String> = sqlx::query_scalar("SELECT DISTINCT sha256 FROM versions WHERE model_id = $1")
                .bind(&id)
                .fetch_all(&mut *tx)
                .await?;
            sqlx::query("DELETE FROM models WHERE id = $1").bind(&id).execute(&mut *tx).await?;
            free_blobs!(self, tx, released)
        })
    }

    /// Deletes a compressed version. Returns the blobs that no row names any more.
    pub(super) async fn delete_version_rows(&self, name: &str, version: i64) -> Result<Vec<String>, StoreError> {
        write!(self, |tx| {
            lock_blobs!(self, tx);
            let id: Option<ModelId> =
                sqlx::query_scalar(LOCK_MODEL).bind(&self.tenant).bind(name).fetch_optional(&mut *tx).await?;
            let id = id.ok_or_else(|| Kind::Model.not_found(name))?;
            let default: i64 = sqlx::query_scalar("SELECT default_version FROM models WHERE id = $1")
                .bind(&id)
                .fetch_one(&mut *tx)
                .await?;
            let jobs: i64 = sqlx::query_scalar(UNFINISHED_JOBS).bind(&id).fetch_one(&mut *tx).await?;
            if version == 0 {
                return Err(StoreError::UploadVersion { name: name.to_owned() });
            }
            if version == default {
                return Err(StoreError::DefaultVersion { name: name.to_owned(), version });
            }
            if jobs > 0 {
                return Err(StoreError::InUse { kind: Kind::Model, name: name.to_owned(), jobs });
            }
            let released: Vec<String> =
                sqlx::query_scalar("DELETE FROM versions WHERE model_id = $1 AND number = $2 RETURNING sha256")
                    .bind(&id)
                    .bind(version)
                    .fetch_all(&mut *tx)
                    .await?;
            if released.is_empty() {
                return Err(Kind::Version.not_found(format!("{version} of {name}")));
            }
            free_blobs!(self, tx, released)
        })
    }
}

/// Takes the lock that orders changes of one model: deleting it and queueing a job of it exclude each other.
pub(super) const LOCK_MODEL: &str =
    "UPDATE models SET next_version = next_version WHERE tenant_id = $1 AND name = $2 RETURNING id";

const UNFINISHED_JOBS: &str =
    "SELECT COUNT(*) FROM jobs WHERE model_id = $1 AND state IN ('queued', 'running', 'cancelling')";
