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
mod listener;
mod metadata;
mod models;
mod outcome;
mod ownership;
mod queue;
mod retention;
mod served;
mod tenants;
mod timestamp;
mod trials;
mod uploads;
mod versions;
mod webhooks;
mod word;

use std::sync::Arc;

use uuid::Uuid;

pub use blobs::{BlobSettings, Blobs, Checkout, ObjectHome, ObjectSettings, S3Location, StagedBlob, Upload};
pub use database::ConnectionPool;
pub(crate) use database::sqlite_url;
pub use datasets::{ArraySummary, DatasetRecord, NewDataset};
pub use deliveries::{DeliveryRecord, DeliveryState, DueDelivery, Next, Sending};
pub use error::{Kind, StoreError};
pub use id::{DatasetId, DeliveryId, InvalidId, JobId, ModelId, TenantId, UploadId, WebhookId};
pub use idempotency::NamedRequest;
pub use jobs::{EventKind, Failure, JobEvent, JobFilter, JobRecord, JobState};
pub use keys::{Credential, KeyRecord, NewKey};
pub use listener::{Heard, Listener};
pub use metadata::{Metadata, MetadataError, MetadataPatch};
pub use models::{ModelChange, ModelFilter, ModelRecord, NewModel, WeightSummary};
pub use outcome::Compression;
pub use queue::{Lease, NewJob, ProgressNote};
pub use served::ServedVersion;
pub use tenants::{Bounds, TenantRecord};
pub use timestamp::Timestamp;
pub use uploads::UploadRecord;
pub use versions::{LayerRecord, Making, MetricRecord, NewMetric, VersionRecord};
pub use webhooks::{NewWebhook, Notice, Notices, WebhookChange, WebhookRecord};

use crate::jobs::JobResult;

use blobs::Home;
use database::{Database, read};
use gate::{Gate, Passed};
use ownership::Opening;
use served::Served;
use uploads::PartRecord;

/// Blobs that are deleted while others wait to publish.
const DELETED_AT_A_TIME: usize = 16;

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
    gate: Arc<Gate>,
    served: Arc<Served>,
    tenant: TenantId,
    /// Tells what it does from what other stores do.
    origin: Arc<str>,
}

impl Store {
    /// Connects to the database (`sqlite://PATH`, `postgres://...`), without the blobs, and brings its schema up to date.
    /// It is seen by the default tenant. Any number of processes may do so at once.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened; [`StoreError::SchemaTooNew`].
    pub async fn connect(database_url: &str) -> Result<Self, StoreError> {
        let database = Database::connect(database_url).await?;
        let gate = Arc::new(Gate::of(&database));
        let (served, tenant) = Default::default();
        Ok(Self { database, gate, served, tenant, origin: Uuid::now_v7().to_string().into() })
    }

    /// The same database, seen by `tenant`.
    #[must_use]
    pub fn for_tenant(&self, tenant: &TenantId) -> Self {
        Self { tenant: tenant.clone(), ..self.clone() }
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

    /// Its pools of connections, as they are now.
    pub fn connections(&self) -> Vec<ConnectionPool> {
        self.database.pools()
    }

    /// Closes all connections once their statements have ended.
    pub async fn close(&self) {
        self.gate.disconnect().await;
        self.database.close().await;
    }
}

/// A blob in its place, whose row is still to come. Nobody deletes blobs while one is held.
#[derive(Debug)]
struct Published<'a> {
    sha256: String,
    size_bytes: i64,
    /// Who passes once may publish several: passing again would wait for those who wait for the first to leave.
    _gate: Arc<Passed<'a>>,
}

/// The database and the blobs together. Clones share both.
#[derive(Debug, Clone)]
pub struct Storage {
    pub store: Store,
    pub blobs: Blobs,
}

impl Storage {
    /// Connects to the database (`sqlite://PATH`, `postgres://...`), brings its schema up to date, opens the blobs, and
    /// sweeps what processes that were killed left there.
    ///
    /// # Errors
    /// [`StoreError`] when either cannot be opened; [`StoreError::NotAPair`] when they do not belong together.
    pub async fn open(database_url: &str, blobs: &BlobSettings) -> Result<Self, StoreError> {
        let opening = Opening::begin(&blobs.folder).await?;
        let store = Store::connect(database_url).await?;
        let home = Home::open(blobs)?;
        home.pair_with(&store).await?;
        let storage = Self { store, blobs: Blobs::open(home)? };
        // With an object store others may have folders of their own.
        if storage.clear().await? && blobs.objects.is_none() {
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
            let published = storage.publish(file).await?;
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
            let published = storage.publish(file).await?;
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
        let published = self.publish(file).await?;
        let finished = self.store.finish_compression(held, done, &published).await;
        drop(published);
        self.store.served.forget();
        if finished.is_err() {
            self.remove_unwanted(&[sha256]).await?;
        }
        finished
    }

    /// Ends a trial with what it found out, and keeps the files that it made until its search is over.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], also where the search is over; nothing is left behind then.
    pub async fn finish_trial(
        &self,
        held: &Lease,
        files: Vec<StagedBlob>,
        result: &JobResult,
    ) -> Result<JobRecord, StoreError> {
        let hashes: Vec<String> = files.iter().map(|file| file.sha256().to_owned()).collect();
        for file in &files {
            self.blobs.send(file).await?;
        }
        let gate = Arc::new(self.store.gate.pass().await?);
        let mut published = Vec::new();
        for file in files {
            published.push(self.settle(file, &gate).await?);
        }
        let finished = self.store.finish_trial(held, result, &published).await;
        drop((published, gate));
        if finished.is_err() {
            self.remove_unwanted(&hashes).await?;
        }
        finished
    }

    /// Ends the trials of a search that is over, and forgets the files that they made. Returns those that were asked to stop.
    ///
    /// # Errors
    /// [`StoreError`]; what is left goes with the next sweep.
    pub async fn end_trials(&self, search: &JobId) -> Result<Vec<JobId>, StoreError> {
        let stopped = self.store.cancel_trials(search).await?;
        self.remove_unwanted(&self.store.release_trials(search).await?).await?;
        Ok(stopped)
    }

    /// Appends a staged part to an upload, if it begins where the upload ends. Returns the upload with it, or nothing where it
    /// does not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn append_part(
        &self,
        id: &UploadId,
        part: StagedBlob,
        first_byte: i64,
    ) -> Result<Option<UploadRecord>, StoreError> {
        if part.size_bytes == 0 {
            let upload = self.store.upload(id).await?;
            return Ok((upload.received_bytes == first_byte).then_some(upload));
        }
        self.store.check_parts(id).await?;
        let size_bytes = i64::try_from(part.size_bytes).unwrap_or(i64::MAX);
        let part = PartRecord { size_bytes, part: self.blobs.keep_part(id, part).await? };
        match self.store.append_part(id, first_byte, &part).await {
            Ok(true) => self.store.upload(id).await.map(Some),
            uncounted => {
                self.blobs.remove_part(id, &part.part).await?;
                uncounted.map(|_| None)
            }
        }
    }

    /// The file of an upload, put together.
    ///
    /// # Errors
    /// [`StoreError::UploadIncomplete`]; [`StoreError::NotFound`].
    pub async fn join_upload(&self, id: &UploadId) -> Result<StagedBlob, StoreError> {
        let UploadRecord { received_bytes, size_bytes, .. } = self.store.upload(id).await?;
        if received_bytes < size_bytes {
            return Err(StoreError::UploadIncomplete { upload: id.to_string(), received_bytes, size_bytes });
        }
        let parts = self.store.parts(id).await?;
        self.blobs.join_parts(id, &parts.into_iter().map(|part| part.part).collect::<Vec<_>>()).await
    }

    /// A copy of the file that this tenant put under `key` of its own folder of the object store, of `limit_bytes` at most.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::NoObjectStore`]; [`StoreError::ImportTooLarge`].
    pub async fn import(&self, key: &str, limit_bytes: u64) -> Result<StagedBlob, StoreError> {
        let tenant = self.store.own_tenant().await?;
        self.blobs.import(&tenant.name, key, limit_bytes).await
    }

    /// Forgets an upload and its parts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_upload(&self, id: &UploadId) -> Result<(), StoreError> {
        self.store.delete_upload_rows(id).await?;
        self.blobs.remove_parts(id).await
    }

    /// Deletes a model, its versions and their blobs. Its jobs stay as history.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while a job of it is queued or running.
    pub async fn delete_model(&self, name: &str) -> Result<(), StoreError> {
        let (storage, name) = (self.clone(), name.to_owned());
        to_its_end(async move {
            let freed = storage.store.delete_model_rows(&name).await?;
            storage.store.served.forget();
            storage.remove_unwanted(&freed).await
        })
        .await
    }

    /// Deletes a compressed version and its blob.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while a job of the model is queued or running;
    /// [`StoreError::UploadVersion`]; [`StoreError::DefaultVersion`].
    pub async fn delete_version(&self, name: &str, version: i64) -> Result<(), StoreError> {
        let (storage, name) = (self.clone(), name.to_owned());
        to_its_end(async move {
            let freed = storage.store.delete_version_rows(&name, version).await?;
            storage.store.served.forget();
            storage.remove_unwanted(&freed).await
        })
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
        self.store.forget_expired_uploads().await?;
        for upload in self.blobs.uploads().await? {
            if !self.store.is_upload_wanted(&upload).await? {
                self.blobs.remove_parts(&upload).await?;
            }
        }
        for (tenant, search) in self.store.searches_to_clear().await? {
            self.for_tenant(&tenant).end_trials(&search).await?;
        }
        for job in self.blobs.work_folders()? {
            if !self.store.is_unfinished(&job).await? {
                self.blobs.remove_work_folder(&job).await;
            }
        }
        Ok(is_alone)
    }

    /// Puts a staged file where blobs are. Its row must be inserted before the result is dropped.
    async fn publish(&self, file: StagedBlob) -> Result<Published<'_>, StoreError> {
        self.blobs.send(&file).await?;
        let gate = Arc::new(self.store.gate.pass().await?);
        self.settle(file, &gate).await
    }

    /// As [`Storage::publish`], of a file that was sent, inside the gate.
    async fn settle<'a>(&self, file: StagedBlob, gate: &Arc<Passed<'a>>) -> Result<Published<'a>, StoreError> {
        let (sha256, size_bytes) = (file.sha256.clone(), i64::try_from(file.size_bytes).unwrap_or(i64::MAX));
        self.blobs.settle(file).await?;
        Ok(Published { sha256, size_bytes, _gate: gate.clone() })
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
        // A few at a time, so that nobody who publishes waits for long.
        for hashes in hashes.chunks(DELETED_AT_A_TIME) {
            let _gate = self.store.gate.close().await?;
            for sha256 in hashes {
                if !self.store.is_blob_wanted(sha256).await? {
                    self.blobs.remove(sha256).await?;
                }
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
