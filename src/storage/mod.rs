//! What the service remembers: rows in a database (SQLite or Postgres) and blobs in a folder.
//!
//! The files of this module hold queries and nothing else. A [`Store`] speaks to the database, for one tenant;
//! [`Storage`] joins it with [`Blobs`] where a row and a file must appear or vanish together.

mod blob_rows;
mod blobs;
#[cfg(test)]
mod contract;
mod database;
mod datasets;
mod deliveries;
mod error;
mod gate;
mod id;
mod idempotency;
mod jobs;
mod keys;
mod models;
mod outcome;
mod ownership;
mod queue;
mod tenants;
mod timestamp;
mod upload;
mod versions;
mod webhooks;
mod word;

use std::path::Path;

pub use blobs::{Blobs, StagedBlob};
pub(crate) use database::sqlite_url;
pub use datasets::{ArraySummary, DatasetRecord, NewDataset};
pub use deliveries::{DeliveryRecord, DeliveryState, DueDelivery, Next, Sending};
pub use error::{Kind, StoreError};
pub use id::{DatasetId, DeliveryId, InvalidId, JobId, ModelId, TenantId, WebhookId};
pub use idempotency::NamedRequest;
pub use jobs::{EventKind, Failure, JobEvent, JobFilter, JobRecord, JobState};
pub use keys::{Credential, KeyRecord, NewKey};
pub use models::{ModelRecord, NewModel, WeightSummary};
pub use outcome::Compression;
pub use queue::{Lease, NewJob, ProgressNote};
pub use tenants::{Bounds, TenantRecord};
pub use timestamp::Timestamp;
pub use upload::Upload;
pub use versions::{LayerRecord, Making, MetricRecord, NewMetric, VersionRecord};
pub use webhooks::{NewWebhook, Notice, Notices, WebhookChange, WebhookRecord};

use database::{Database, read};
use ownership::Opening;

/// A part of a list: at most `limit` entries, those that follow `after` (the key of the last entry seen).
///
/// Ask for one more than will be shown to learn whether there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub after: Option<String>,
    pub limit: i64,
}

/// Rows of one tenant in the database. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
    tenant: TenantId,
}

impl Store {
    /// Connects to the database (`sqlite://PATH`, `postgres://...`), without the blobs, and brings its schema up to date.
    /// It is seen by the default tenant.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened.
    pub async fn connect(database_url: &str) -> Result<Self, StoreError> {
        Ok(Self { database: Database::connect(database_url).await?, tenant: TenantId::default() })
    }

    /// The same database, seen by `tenant`.
    #[must_use]
    pub fn for_tenant(&self, tenant: &TenantId) -> Self {
        Self { database: self.database.clone(), tenant: tenant.clone() }
    }

    /// Who it is seen by.
    pub fn tenant_id(&self) -> &TenantId {
        &self.tenant
    }

    /// Asks the database for its clock, to see that it answers.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(read!(self, |pool| { sqlx::query_scalar("SELECT now_ms FROM clock").fetch_one(pool).await? }))
    }

    /// Closes all connections once their statements have ended.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

/// The database and the blobs together. Clones share both.
#[derive(Debug, Clone)]
pub struct Storage {
    pub store: Store,
    pub blobs: Blobs,
}

impl Storage {
    /// Connects to the database (`sqlite://PATH`, `postgres://...`), brings its schema up to date, opens the folder of
    /// blobs, and sweeps what processes that were killed left there.
    ///
    /// # Errors
    /// [`StoreError`] when either cannot be opened; [`StoreError::NotAPair`] when they do not belong together.
    pub async fn open(database_url: &str, blob_dir: &Path) -> Result<Self, StoreError> {
        // Before the database, for SQLite has no lock of its own around migrations.
        let opening = Opening::begin(blob_dir).await?;
        let store = Store::connect(database_url).await?;
        opening.pair_with(&store).await?;
        let storage = Self { store, blobs: Blobs::open(blob_dir)? };
        if storage.clear().await? {
            storage.store.expire_leases_of_this_machine().await?;
        }
        drop(opening);
        Ok(storage)
    }

    /// The same storage, seen by `tenant`.
    #[must_use]
    pub fn for_tenant(&self, tenant: &TenantId) -> Self {
        Self { store: self.store.for_tenant(tenant), blobs: self.blobs.clone() }
    }

    /// Publishes an upload as version 0 of a new model. Returns the model, and false if it was there already with the
    /// same bytes.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] by other bytes.
    pub async fn add_model(&self, file: StagedBlob, model: &NewModel) -> Result<(ModelRecord, bool), StoreError> {
        let (storage, model) = (self.clone(), model.clone());
        to_its_end(async move {
            let sha256 = file.sha256().to_owned();
            let published = storage.blobs.publish(file).await?;
            let inserted = storage.store.insert_model(&model, &published).await;
            drop(published);
            let is_new = storage.accept_taken_name(inserted, &sha256).await?;
            let stored = storage.store.model(&model.name).await?;
            if stored.sha256 == sha256 {
                Ok((stored, is_new))
            } else {
                Err(StoreError::NameTaken { kind: Kind::Model, name: model.name })
            }
        })
        .await
    }

    /// Publishes an upload as a new dataset. Returns it, and false if it was there already with the same bytes.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] by other bytes.
    pub async fn add_dataset(
        &self,
        file: StagedBlob,
        dataset: &NewDataset,
    ) -> Result<(DatasetRecord, bool), StoreError> {
        let (storage, dataset) = (self.clone(), dataset.clone());
        to_its_end(async move {
            let sha256 = file.sha256().to_owned();
            let published = storage.blobs.publish(file).await?;
            let inserted = storage.store.insert_dataset(&dataset, &published).await;
            drop(published);
            let is_new = storage.accept_taken_name(inserted, &sha256).await?;
            let stored = storage.store.dataset(&dataset.name).await?;
            if stored.sha256 == sha256 {
                Ok((stored, is_new))
            } else {
                Err(StoreError::NameTaken { kind: Kind::Dataset, name: dataset.name })
            }
        })
        .await
    }

    /// Ends a compression job: publishes its artifact as a new version, with layers, metrics and events.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; nothing is left behind then.
    pub async fn finish_compression(
        &self,
        held: &Lease,
        file: StagedBlob,
        done: &Compression,
    ) -> Result<JobRecord, StoreError> {
        let sha256 = file.sha256().to_owned();
        let published = self.blobs.publish(file).await?;
        let finished = self.store.finish_compression(held, done, &published).await;
        drop(published);
        if finished.is_err() {
            self.remove_unwanted(&[sha256]).await?;
        }
        finished
    }

    /// Deletes a model, its versions and their blobs. Its jobs stay as history.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while a job of it is queued or running.
    pub async fn delete_model(&self, name: &str) -> Result<(), StoreError> {
        let (storage, name) = (self.clone(), name.to_owned());
        to_its_end(async move { storage.remove_unwanted(&storage.store.delete_model_rows(&name).await?).await }).await
    }

    /// Deletes a compressed version and its blob.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while a job of the model is queued or running;
    /// [`StoreError::UploadVersion`]; [`StoreError::DefaultVersion`].
    pub async fn delete_version(&self, name: &str, version: i64) -> Result<(), StoreError> {
        let (storage, name) = (self.clone(), name.to_owned());
        to_its_end(
            async move { storage.remove_unwanted(&storage.store.delete_version_rows(&name, version).await?).await },
        )
        .await
    }

    /// Deletes a dataset and its blob.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while a queued or running job reads it.
    pub async fn delete_dataset(&self, name: &str) -> Result<(), StoreError> {
        let (storage, name) = (self.clone(), name.to_owned());
        to_its_end(async move { storage.remove_unwanted(&storage.store.delete_dataset_rows(&name).await?).await }).await
    }

    /// Clears up after processes that were killed: staging files, blobs without a row, and what jobs kept that are over.
    /// Others may be at work meanwhile.
    ///
    /// # Errors
    /// [`StoreError`]; what is left is cleared the next time.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let _opening = Opening::begin(self.blobs.root()).await?;
        self.clear().await.map(drop)
    }

    /// [`Storage::sweep`] while nobody opens the folder. Returns whether this process is the only one that has it open.
    async fn clear(&self) -> Result<bool, StoreError> {
        let is_alone = self.blobs.sweep_staging()?;
        let mut orphans = self.blobs.list().await?;
        let wanted = self.store.wanted_blobs().await?;
        orphans.retain(|sha256| !wanted.contains(sha256));
        self.remove_unwanted(&orphans).await?;
        for job in self.blobs.work_folders()? {
            if !self.store.is_unfinished(&job).await? {
                self.blobs.remove_work_folder(&job).await;
            }
        }
        Ok(is_alone)
    }

    /// A violated uniqueness means that the name is taken, by which bytes is for the caller to see; false then.
    async fn accept_taken_name(&self, inserted: Result<(), StoreError>, sha256: &str) -> Result<bool, StoreError> {
        match inserted {
            Ok(()) => Ok(true),
            Err(error) => {
                self.remove_unwanted(&[sha256.to_owned()]).await?;
                if error.is_unique_violation() { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Deletes those of the blobs that have no row, behind a closed gate: whoever publishes one of them right now
    /// inserts its row first.
    async fn remove_unwanted(&self, hashes: &[String]) -> Result<(), StoreError> {
        if hashes.is_empty() {
            return Ok(());
        }
        let _gate = self.blobs.close_gate().await?;
        for sha256 in hashes {
            if !self.store.is_blob_wanted(sha256).await? {
                self.blobs.remove(sha256).await?;
            }
        }
        Ok(())
    }
}

/// Runs `work` to its end even if the caller goes away, as a request does when its client hangs up: a file and its row
/// must not be parted.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.map_err(std::io::Error::other)?
}
