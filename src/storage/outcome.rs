//! What a job that succeeded leaves behind, all of it or nothing: its version, layers, metrics, result and last event
//! are one transaction, fenced by the lease.

use serde_json::json;
use sqlx::types::Json;

use crate::compress::{Recipe, Report};
use crate::jobs::JobResult;
use crate::search::{SearchEnd, SearchReport};

use super::Published;
use super::blob_rows::{insert_blob, lock_blobs};
use super::database::write;
use super::queue::append_event;
use super::{EventKind, JobRecord, Lease, ModelId, NewMetric, Store, StoreError};

/// A compression that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Compression {
    pub recipe: Recipe,
    pub report: Report,
    /// How it was found, where it was searched for.
    pub search: Option<SearchReport>,
    /// Metrics of version 0, then of the new version, whose number is not known yet: it is [`Compression::NEW`].
    pub metrics: Vec<NewMetric>,
    /// Makes the new version the model's default.
    pub make_default: bool,
}

impl Compression {
    /// Stands for the number of the new version in [`Compression::metrics`].
    pub const NEW: i64 = -1;
}

/// Ends a job as succeeded; the model it is about. No row means that the lease is lost, or that a cancel came first.
pub(super) const SUCCEED: &str = "UPDATE jobs SET state = 'succeeded', result = $3, fraction = 1, message = '', lease_until = NULL, \
     finished_at = (SELECT now_ms FROM clock) \
     WHERE id = $1 AND attempt = $2 AND state = 'running' RETURNING *";

/// Ends a job as cancelled that keeps what it had found.
const CANCEL_WITH: &str = "UPDATE jobs SET state = 'cancelled', result = $3, lease_until = NULL, \
     finished_at = (SELECT now_ms FROM clock) \
     WHERE id = $1 AND attempt = $2 AND state = 'cancelling' RETURNING *";

/// Takes the next number of a version. Locks the model's row.
const NEXT_VERSION: &str = "UPDATE models SET next_version = next_version + 1 \
     WHERE id = (SELECT model_id FROM jobs WHERE id = $1) RETURNING id, next_version - 1";

const INSERT_VERSION: &str = "INSERT INTO versions \
     (tenant_id, model_id, number, sha256, ratio, recipe, report, job_id, created_at) \
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, now_ms FROM clock";

const INSERT_LAYER: &str = "INSERT INTO layers (tenant_id, model_id, version, position, name, op, shape, weights, \
     original_bytes, compressed_bytes, stream_bytes, codebook_bytes, ratio, bits_per_weight, psi, sparsity, \
     distinct_values, codec, weight_snr_db) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";

const INSERT_METRIC: &str = "INSERT INTO metrics \
     (tenant_id, model_id, version, job_id, name, value, dataset, split, samples, created_at) \
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, now_ms FROM clock";

const MAKE_DEFAULT: &str = "UPDATE models SET default_version = $2 WHERE id = $1";

macro_rules! insert_metrics {
    ($store:expr, $tx:ident, $model:expr, $job:expr, $metrics:expr) => {
        for metric in $metrics {
            sqlx::query(INSERT_METRIC)
                .bind(&$store.tenant)
                .bind($model)
                .bind(metric.version)
                .bind($job)
                .bind(&metric.name)
                .bind(metric.value)
                .bind(&metric.dataset)
                .bind(&metric.split)
                .bind(metric.samples)
                .execute(&mut *$tx)
                .await?;
        }
    };
}

impl Store {
    /// Ends a compression: adds the version with its layers and metrics and marks the job succeeded; or cancelled, where it is
    /// what a search had found when it was told to stop.
    pub(super) async fn finish_compression(
        &self,
        held: &Lease,
        done: &Compression,
        blob: &Published<'_>,
    ) -> Result<JobRecord, StoreError> {
        write!(self, |tx| {
            lock_blobs!(self, tx);
            // The model's row is locked before the job's, as everywhere.
            let next: Option<(ModelId, i64)> =
                sqlx::query_as(NEXT_VERSION).bind(&held.job).fetch_optional(&mut *tx).await?;
            let (model, number) = next.ok_or_else(|| held.lost())?;
            let result = done.result(number);
            let is_partial = done.search.as_ref().is_some_and(|search| search.ended == SearchEnd::Cancelled);
            let mut ended: Option<(JobRecord, EventKind)> = None;
            // A cancel keeps what a search has found, also one that comes after the last trial.
            let ends = [
                (SUCCEED, EventKind::Succeeded, !is_partial),
                (CANCEL_WITH, EventKind::Cancelled, done.search.is_some()),
            ];
            for (end, kind, _) in ends.into_iter().filter(|(_, _, is_possible)| *is_possible) {
                if ended.is_none() {
                    let end = sqlx::query_as(end).bind(&held.job).bind(held.attempt).bind(Json(&result));
                    ended = end.fetch_optional(&mut *tx).await?.map(|job| (job, kind));
                }
            }
            let (job, kind) = ended.ok_or_else(|| held.lost())?;
            insert_blob!(self, tx, blob);
            sqlx::query(INSERT_VERSION)
                .bind(&self.tenant)
                .bind(&model)
                .bind(number)
                .bind(&blob.sha256)
                .bind(done.report.ratio)
                .bind(Json(&done.recipe))
                .bind(Json(&done.report))
                .bind(&held.job)
                .execute(&mut *tx)
                .await?;
            for (position, layer) in (0_i64..).zip(&done.report.layers) {
                sqlx::query(INSERT_LAYER)
                    .bind(&self.tenant)
                    .bind(&model)
                    .bind(number)
                    .bind(position)
                    .bind(&layer.name)
                    .bind(&layer.op)
                    .bind(Json(&layer.shape))
                    .bind(count(layer.weights))
                    .bind(count(layer.original_bytes))
                    .bind(count(layer.compressed_bytes))
                    .bind(count(layer.stream_bytes))
                    .bind(count(layer.codebook_bytes))
                    .bind(layer.ratio)
                    .bind(layer.bits_per_weight)
                    .bind(layer.psi)
                    .bind(layer.sparsity)
                    .bind(count(layer.distinct_values as u64))
                    .bind(layer.codec)
                    .bind(layer.weight_snr_db)
                    .execute(&mut *tx)
                    .await?;
            }
            insert_metrics!(self, tx, &model, &held.job, &result.metrics);
            if done.make_default {
                sqlx::query(MAKE_DEFAULT).bind(&model).bind(number).execute(&mut *tx).await?;
            }
            append_event!(self, tx, &held.job, kind, json!({ "version": number }));
            job
        })
    }

    /// Ends an evaluation or a benchmark: adds its metrics and marks the job succeeded.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn finish_evaluation(&self, held: &Lease, result: &JobResult) -> Result<JobRecord, StoreError> {
        write!(self, |tx| {
            let job: Option<JobRecord> = sqlx::query_as(SUCCEED)
                .bind(&held.job)
                .bind(held.attempt)
                .bind(Json(result))
                .fetch_optional(&mut *tx)
                .await?;
            let job = job.ok_or_else(|| held.lost())?;
            let model = job.model_id.as_ref().ok_or_else(|| held.lost())?;
            insert_metrics!(self, tx, model, &held.job, &result.metrics);
            append_event!(self, tx, &held.job, EventKind::Succeeded, json!({ "version": result.version }));
            job
        })
    }
}

impl Compression {
    /// The job's result, now that the new version has a number.
    fn result(&self, number: i64) -> JobResult {
        let numbered = |metric: &NewMetric| {
            let version = if metric.version == Self::NEW { number } else { metric.version };
            NewMetric { version, ..metric.clone() }
        };
        JobResult {
            version: Some(number),
            report: Some(self.report.clone()),
            search: self.search.clone(),
            metrics: self.metrics.iter().map(numbered).collect(),
            ..JobResult::default()
        }
    }
}

/// A count as the database holds it.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
