//! Versions of models, their layers and their metrics.

use serde::Serialize;
use utoipa::ToSchema;

use crate::codec::CodecId;
use crate::compress::{Recipe, Report};

use super::database::read;
use super::{JobId, Kind, ModelId, ModelRecord, Store, StoreError, TenantId, Timestamp};

/// A version of a model: 0 is the upload, each finished compression adds one.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VersionRecord {
    pub tenant_id: TenantId,
    pub model_id: ModelId,
    /// Counts up from 0 and is never given twice.
    pub number: i64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Bytes of the file.
    pub size_bytes: i64,
    /// Bytes of the upload / bytes of this file; 1 for version 0.
    pub ratio: f64,
    /// The job that made it, which may be deleted by now; `None` for version 0.
    pub job_id: Option<JobId>,
    pub created_at: Timestamp,
}

/// How a version was made: as much as its layers, so it is read only where it is shown.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Making {
    /// `None` for version 0.
    #[sqlx(json(nullable))]
    pub recipe: Option<Recipe>,
    /// `None` for version 0.
    #[sqlx(json(nullable))]
    pub report: Option<Report>,
}

/// A layer of a compressed version, as a row that can be queried.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow, ToSchema)]
pub struct LayerRecord {
    /// Index in file order, from 0.
    pub position: i64,
    pub name: String,
    /// Operator type of its reader, e.g. `Conv`.
    pub op: String,
    #[sqlx(json)]
    pub shape: Vec<usize>,
    /// Elements.
    pub weights: i64,
    pub original_bytes: i64,
    /// Its record in the artifact: stream, own codebook, header and checksum.
    pub compressed_bytes: i64,
    /// Of these, the stream.
    pub stream_bytes: i64,
    /// Of these, its own codebook.
    pub codebook_bytes: i64,
    pub ratio: f64,
    pub bits_per_weight: f64,
    /// The papers' figure: stream and own codebook / (4 x weights).
    pub psi: f64,
    /// Fraction of zeros among the weights.
    pub sparsity: f64,
    pub distinct_values: i64,
    pub codec: CodecId,
    /// Signal to noise of the weights in dB; null when lossless.
    pub weight_snr_db: Option<f64>,
}

/// One measured number about a version.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow, ToSchema)]
pub struct MetricRecord {
    /// The version that was measured.
    pub version: i64,
    /// E.g. `accuracy`, `mse`, `output_snr_db`.
    pub name: String,
    /// Null where it is undefined: the signal to noise ratio of equal outputs.
    pub value: Option<f64>,
    /// The dataset's name at that time.
    pub dataset: String,
    /// `train`, `validation` or `test`; null when the whole dataset was used.
    pub split: Option<String>,
    /// Samples that were measured.
    pub samples: i64,
    /// The job that measured it, which may be deleted by now.
    pub job_id: JobId,
    pub created_at: Timestamp,
}

/// A number about to be stored.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize, ToSchema)]
pub struct NewMetric {
    /// The version that was measured.
    pub version: i64,
    /// E.g. `accuracy`, `mse`, `output_snr_db`.
    pub name: String,
    /// Null where it is undefined: the signal to noise ratio of equal outputs.
    pub value: Option<f64>,
    /// The dataset's name.
    pub dataset: String,
    /// `train`, `validation` or `test`; null when the whole dataset was used.
    pub split: Option<String>,
    /// Samples that were measured.
    pub samples: i64,
}

/// Versions with the size of their file.
macro_rules! select_versions {
    ($rest:literal) => {
        concat!(
            "SELECT v.tenant_id, v.model_id, v.number, v.sha256, v.ratio, v.job_id, v.created_at, b.size_bytes ",
            "FROM versions v ",
            "JOIN blobs b ON b.tenant_id = v.tenant_id AND b.sha256 = v.sha256 ",
            $rest
        )
    };
}

impl Store {
    /// Version `number` of a model.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn version(&self, model: &ModelRecord, number: i64) -> Result<VersionRecord, StoreError> {
        const SQL: &str = select_versions!("WHERE v.tenant_id = $1 AND v.model_id = $2 AND v.number = $3");
        let found = read!(self, |pool| {
            sqlx::query_as(SQL).bind(&self.tenant).bind(&model.id).bind(number).fetch_optional(pool).await?
        });
        found.ok_or_else(|| Kind::Version.not_found(format!("{number} of {}", model.name)))
    }

    /// How `version` was made.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is gone by now.
    pub async fn making(&self, version: &VersionRecord) -> Result<Making, StoreError> {
        const SQL: &str = "SELECT recipe, report FROM versions WHERE tenant_id = $1 AND model_id = $2 AND number = $3";
        let (model, number) = (&version.model_id, version.number);
        let found = read!(self, |pool| {
            sqlx::query_as(SQL).bind(&self.tenant).bind(model).bind(number).fetch_optional(pool).await?
        });
        found.ok_or_else(|| Kind::Version.not_found(number.to_string()))
    }

    /// Versions of a model, ascending, those with a number above `after` (-1: from the first).
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn versions(&self, model: &ModelId, after: i64, limit: i64) -> Result<Vec<VersionRecord>, StoreError> {
        const SQL: &str =
            select_versions!("WHERE v.tenant_id = $1 AND v.model_id = $2 AND v.number > $3 ORDER BY v.number LIMIT $4");
        Ok(read!(self, |pool| {
            sqlx::query_as(SQL).bind(&self.tenant).bind(model).bind(after).bind(limit).fetch_all(pool).await?
        }))
    }

    /// The numbers of all versions of all models, ascending for each.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn version_numbers(&self) -> Result<Vec<(ModelId, i64)>, StoreError> {
        const SQL: &str = "SELECT model_id, number FROM versions WHERE tenant_id = $1 ORDER BY model_id, number";
        Ok(read!(self, |pool| sqlx::query_as(SQL).bind(&self.tenant).fetch_all(pool).await?))
    }

    /// Layers of a compressed version in file order; none for version 0.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn layers(&self, model: &ModelId, number: i64) -> Result<Vec<LayerRecord>, StoreError> {
        const SQL: &str =
            "SELECT * FROM layers WHERE tenant_id = $1 AND model_id = $2 AND version = $3 ORDER BY position";
        Ok(read!(self, |pool| {
            sqlx::query_as(SQL).bind(&self.tenant).bind(model).bind(number).fetch_all(pool).await?
        }))
    }

    /// What was measured about a model: all versions, or one of them; oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn metrics(&self, model: &ModelId, version: Option<i64>) -> Result<Vec<MetricRecord>, StoreError> {
        const SQL: &str = "SELECT * FROM metrics WHERE tenant_id = $1 AND model_id = $2 \
             AND ($3 IS NULL OR version = $3) ORDER BY created_at, job_id, version, name";
        Ok(read!(self, |pool| {
            sqlx::query_as(SQL).bind(&self.tenant).bind(model).bind(version).fetch_all(pool).await?
        }))
    }
}
