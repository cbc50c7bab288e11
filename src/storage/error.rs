//! What can go wrong with stored things. Violated constraints are told apart here, once.

use super::MetadataError;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A model, version, dataset or job of that name does not exist.
    #[error("there is no {kind} {name}")]
    NotFound { kind: Kind, name: String },
    /// The name belongs to other bytes.
    #[error("the name {name} is taken by another {kind}, with other bytes")]
    NameTaken { kind: Kind, name: String },
    /// A queued or running job still needs it.
    #[error("{kind} {name} is used by {jobs} queued or running jobs")]
    InUse { kind: Kind, name: String, jobs: i64 },
    /// Version 0 is the upload itself: it goes with its model.
    #[error("version 0 of {name} is the upload itself; delete the model instead")]
    UploadVersion { name: String },
    /// The default version cannot be deleted.
    #[error("version {version} of {name} is its default version; make another the default first")]
    DefaultVersion { name: String, version: i64 },
    /// The tenant's files would take more than it may store.
    #[error("the files would take more than the {max_bytes} bytes that may be stored")]
    StorageQuota { max_bytes: i64 },
    /// The tenant has as many jobs as it may have.
    #[error("there are {max_jobs} unfinished jobs, as many as there may be")]
    JobQuota { max_jobs: i64 },
    /// The tenant has as many webhooks as it may have.
    #[error("there are {max_webhooks} webhooks, as many as there may be")]
    WebhookQuota { max_webhooks: i64 },
    /// The tenant has as many unfinished uploads as it may have.
    #[error("there are {max_uploads} unfinished uploads, as many as there may be")]
    UploadQuota { max_uploads: i64 },
    /// An upload in too many parts.
    #[error("the upload has {max_parts} parts, as many as there may be; send larger ones")]
    PartQuota { max_parts: i64 },
    /// An upload of which a part is still to come.
    #[error("{received_bytes} of the {size_bytes} bytes of upload {upload} were received")]
    UploadIncomplete { upload: String, received_bytes: i64, size_bytes: i64 },
    /// Files can be imported from an object store alone.
    #[error("there is no object store to import from; the service keeps its files in a folder")]
    NoObjectStore,
    /// A file to import is larger than an upload may be.
    #[error("the file is larger than the limit of {limit_bytes} bytes")]
    ImportTooLarge { limit_bytes: u64 },
    /// A webhook that is disabled is sent nothing.
    #[error("the webhook {webhook} is disabled; enable it first")]
    WebhookDisabled { webhook: String },
    /// A request calls itself by the name of another one.
    #[error("the key {key} was used before, for a request that asked for something else")]
    NameReused { key: String },
    /// The change leaves a model with metadata that cannot be.
    #[error("metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// The lease was lost: the job was given to another worker, cancelled, or finished.
    #[error("attempt {attempt} at job {job} has lost its lease")]
    LeaseLost { job: String, attempt: i64 },
    /// The bytes of a row are gone from the blob store.
    #[error("the blob {sha256} is missing")]
    BlobMissing { sha256: String },
    /// The object store holds other bytes under a hash.
    #[error("the blob {sha256} is damaged: the bytes of its object have the hash {found}")]
    BlobDamaged { sha256: String, found: String },
    /// The blobs and the database do not belong together.
    #[error(
        "the blobs in {place} belong to {}, but the database that is set is {}: opening them would delete them; \
         set the database and the blob store that belong together, or a new database with an empty store",
        identity(.of_blobs.as_deref(), "no known database"), identity(.of_database.as_deref(), "one that never had blobs")
    )]
    NotAPair { place: String, of_blobs: Option<String>, of_database: Option<String> },
    /// The URL names no database or blob store of a known kind.
    #[error("{setting} is not understood: {reason}")]
    Location { setting: &'static str, reason: String },
    /// The database was migrated by a release that is too far ahead.
    #[error(
        "the database has the schema {found}, of a newer release; this one knows schema {known} and works with {} at most: \
         start the newer release", .known + 1
    )]
    SchemaTooNew { found: i64, known: i64 },
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[error("the database could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The blob store failed.
    #[error("the blob store failed: {0}")]
    Blob(#[from] object_store::Error),
    /// A local file failed.
    #[error("a file of the data directory failed: {0}")]
    Io(#[from] std::io::Error),
}

/// How an identifier is named in an error.
fn identity(id: Option<&str>, without: &str) -> String {
    id.map_or_else(|| without.to_owned(), |id| format!("database {id}"))
}

/// What a [`StoreError`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Model,
    Version,
    Dataset,
    Job,
    Tenant,
    Key,
    Webhook,
    Delivery,
    Upload,
    Import,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Version => "version",
            Self::Dataset => "dataset",
            Self::Job => "job",
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::Webhook => "webhook",
            Self::Delivery => "delivery",
            Self::Upload => "upload",
            Self::Import => "file to import",
        })
    }
}

impl Kind {
    /// The error that nothing of this kind has that name.
    pub(crate) fn not_found(self, name: impl Into<String>) -> StoreError {
        StoreError::NotFound { kind: self, name: name.into() }
    }
}

impl StoreError {
    /// Whether a row with the same key is there already.
    pub(crate) fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}
