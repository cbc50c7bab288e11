//! Settings of the service: flags, then environment variables, then a file, then defaults; the first that says
//! something wins.

mod args;
mod size;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::infer::{DEFAULT_TENSOR_BYTES, Residency};
use crate::jobs::Limits;
use crate::storage::{BlobSettings, ObjectHome, ObjectSettings, sqlite_url};
use crate::webhooks::AllowList;

pub use args::ConfigArgs;
pub use size::ByteSize;

/// Whether requests need a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// But for health and documentation.
    Required,
    /// Whoever reaches the address may do everything.
    Off,
}

impl Keys {
    /// Whether they do.
    pub fn are_required(self) -> bool {
        self == Self::Required
    }
}

/// Where work on uploaded models is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// In child processes with limits: a model that takes too much loses its own.
    Process,
    /// In this process.
    None,
}

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// People.
    #[default]
    Text,
    /// Programs: one JSON object a line.
    Json,
}

/// Resolved settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds the SQLite database and the blobs unless they are elsewhere.
    pub data_dir: PathBuf,
    /// Address of the HTTP server; port 0 picks a free one.
    pub listen: SocketAddr,
    /// `sqlite://PATH` or `postgres://...`.
    pub database_url: String,
    /// Where the blobs are kept.
    pub blobs: BlobSettings,
    /// Whether requests need a key.
    pub keys: Keys,
    /// Names that the service may be called by; empty: those that [`ConfigArgs::allowed_hosts`] says.
    pub allowed_hosts: Vec<String>,
    /// Origins whose web pages may use the service.
    pub cors_origins: Vec<String>,
    /// Private endpoints that webhooks may name.
    pub webhook_allow: AllowList,
    /// Jobs that run at the same time.
    pub workers: usize,
    /// Threads of CPU work.
    pub threads: usize,
    /// Largest request body with a file, in bytes.
    pub max_body_bytes: u64,
    /// Memory for the weights of loaded predictors, in bytes.
    pub predictor_memory_bytes: u64,
    /// How compressed versions hold their weights while they predict.
    pub residency: Residency,
    /// Most samples of requests that are run as one batch; 1 runs each request alone.
    pub max_batch: usize,
    /// How long a request waits for others to share its batch, in microseconds.
    pub max_delay_us: u64,
    /// Memory that [`Residency::Auto`] may give to the weights of one version, in bytes; `None`: any.
    pub memory_budget_bytes: Option<u64>,
    /// Where work on uploaded models is done.
    pub isolation: Isolation,
    /// Address space of a child process, in bytes.
    pub child_memory_bytes: u64,
    /// How long a queued job may take in a child process, in seconds.
    pub child_job_seconds: u64,
    /// How long an upload, a load or a prediction may take in a child process, in seconds.
    pub child_request_seconds: u64,
    /// Largest tensor that a graph may make, in bytes.
    pub max_prediction_bytes: u64,
    /// A worker that is silent for this long loses its job, in milliseconds.
    pub lease_ms: u64,
    /// Starts of a job before it is given up.
    pub max_attempts: u32,
    /// How often what killed processes left, and what is too old, is cleared away, in seconds.
    pub sweep_seconds: u64,
    /// Days that finished jobs are kept; `None`: for ever.
    pub keep_jobs_days: Option<u32>,
    /// Days that the events of finished jobs are kept; `None`: as long as the jobs.
    pub keep_events_days: Option<u32>,
    /// What to log.
    pub log: String,
    /// Who reads the log.
    pub log_format: LogFormat,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file of settings, or the file of a secret, cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The file of settings is not what it should be.
    #[error("{path} is not a file of settings: {source}")]
    Malformed { path: PathBuf, source: serde_json::Error },
    /// A store of a kind that is not known.
    #[error("blob store {url}: {reason}; it must be a folder, as a path or a file:// URL, or s3://BUCKET/PREFIX")]
    UnsupportedBlobStore { url: String, reason: String },
    /// A value outside its range.
    #[error("{setting} must be {expected}, not {found}")]
    OutOfRange { setting: &'static str, expected: &'static str, found: String },
}

impl ConfigArgs {
    /// Fills in the file and the defaults, and checks the values.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => Self::default(),
        };
        let data_dir = self.data_dir.or(file.data_dir).unwrap_or_else(|| "data".into());
        // A URL in either form from a stronger source beats one in the other form from a weaker source.
        let database_url = given_url(self.database_url, self.database_url_file.as_deref())?;
        let database_url = match database_url {
            Some(url) => url,
            None => given_url(file.database_url, file.database_url_file.as_deref())?
                .unwrap_or_else(|| sqlite_url(&data_dir.join("weightpress.db"))),
        };
        let blob_store = self.blob_store.filter(|url| !url.is_empty()).or(file.blob_store);
        let max_copies_bytes = self.cache_bytes.or(file.cache_bytes).map_or(10 << 30, |size| size.0);
        let blobs = blob_settings(blob_store, data_dir.join("blobs"), max_copies_bytes)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let listen = self.listen.or(file.listen).unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 8080).into());
        let config = Config {
            keys: self.keys.or(file.keys).unwrap_or(match listen.ip().is_loopback() {
                true => Keys::Off,
                false => Keys::Required,
            }),
            isolation: self.isolation.or(file.isolation).unwrap_or(match listen.ip().is_loopback() {
                true => Isolation::None,
                false => Isolation::Process,
            }),
            child_memory_bytes: self.child_memory_bytes.or(file.child_memory_bytes).map_or(8 << 30, |size| size.0),
            child_job_seconds: self.child_job_seconds.or(file.child_job_seconds).unwrap_or(86_400),
            child_request_seconds: self.child_request_seconds.or(file.child_request_seconds).unwrap_or(120),
            allowed_hosts: self.allowed_hosts.or(file.allowed_hosts).unwrap_or_default(),
            cors_origins: self.cors_origins.or(file.cors_origins).unwrap_or_default(),
            webhook_allow: self.webhook_allow.or(file.webhook_allow).unwrap_or_default().into(),
            listen,
            database_url,
            blobs,
            data_dir,
            workers: self.workers.or(file.workers).unwrap_or(1),
            threads: self.threads.or(file.threads).unwrap_or(cores),
            max_body_bytes: self.max_body_bytes.or(file.max_body_bytes).map_or(2 << 30, |size| size.0),
            predictor_memory_bytes: self
                .predictor_memory_bytes
                .or(file.predictor_memory_bytes)
                .map_or(1 << 30, |s| s.0),
            residency: self.residency.or(file.residency).unwrap_or_default(),
            max_batch: self.max_batch.or(file.max_batch).unwrap_or(1),
            max_delay_us: self.max_delay_us.or(file.max_delay_us).unwrap_or(1000),
            memory_budget_bytes: self.memory_budget_bytes.or(file.memory_budget_bytes).map(|size| size.0),
            max_prediction_bytes: self
                .max_prediction_bytes
                .or(file.max_prediction_bytes)
                .map_or(DEFAULT_TENSOR_BYTES, |size| size.0),
            lease_ms: self.lease_ms.or(file.lease_ms).unwrap_or(30_000),
            max_attempts: self.max_attempts.or(file.max_attempts).unwrap_or(3),
            sweep_seconds: self.sweep_seconds.or(file.sweep_seconds).unwrap_or(300),
            keep_jobs_days: self.keep_jobs_days.or(file.keep_jobs_days),
            keep_events_days: self.keep_events_days.or(file.keep_events_days),
            log: self.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.or(file.log_format).unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }
}

impl Config {
    /// What child processes may have, where work on uploaded models is done in them.
    pub(crate) fn isolation_limits(&self) -> Option<Limits> {
        (self.isolation == Isolation::Process).then_some(Limits {
            memory_bytes: self.child_memory_bytes,
            job_seconds: self.child_job_seconds,
            request_seconds: self.child_request_seconds,
            max_tensor_bytes: self.max_prediction_bytes,
            threads: self.threads,
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let in_range = |setting, expected, found: u64, ok: bool| {
            if ok { Ok(()) } else { Err(ConfigError::OutOfRange { setting, expected, found: found.to_string() }) }
        };
        in_range("workers", "at most 1024", self.workers as u64, self.workers <= 1024)?;
        in_range("threads", "1 to 1024", self.threads as u64, (1..=1024).contains(&self.threads))?;
        in_range("max_batch", "1 to 4096", self.max_batch as u64, (1..=4096).contains(&self.max_batch))?;
        in_range("max_delay_us", "at most 1000000", self.max_delay_us, self.max_delay_us <= 1_000_000)?;
        let seconds = |setting, found| in_range(setting, "1 to 31536000", found, (1..=31_536_000).contains(&found));
        seconds("child_job_seconds", self.child_job_seconds)?;
        seconds("child_request_seconds", self.child_request_seconds)?;
        let memory_bytes = self.child_memory_bytes;
        in_range("child_memory_bytes", "at least 536870912", memory_bytes, memory_bytes >= 512 << 20)?;
        let bytes = self.max_prediction_bytes;
        in_range("max_prediction_bytes", "1MiB to 1024GiB", bytes, (1 << 20..=1 << 40).contains(&bytes))?;
        in_range("lease_ms", "100 to 3600000", self.lease_ms, (100..=3_600_000).contains(&self.lease_ms))?;
        in_range("sweep_seconds", "1 to 86400", self.sweep_seconds, (1..=86_400).contains(&self.sweep_seconds))?;
        for (setting, days) in [("keep_jobs_days", self.keep_jobs_days), ("keep_events_days", self.keep_events_days)] {
            // A day at least: the names of requests last as long.
            let days = days.unwrap_or(1);
            in_range(setting, "1 to 36500", days.into(), (1..=36_500).contains(&days))?;
        }
        in_range("max_attempts", "1 to 100", self.max_attempts.into(), (1..=100).contains(&self.max_attempts))
    }
}

fn read_file(path: &Path) -> Result<ConfigArgs, ConfigError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|source| ConfigError::Malformed { path: path.to_owned(), source })
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// The URL itself, or the one in a file, without the line end that editors add.
fn given_url(url: Option<String>, file: Option<&Path>) -> Result<Option<String>, ConfigError> {
    match (url.filter(|url| !url.is_empty()), file) {
        (Some(url), _) => Ok(Some(url)),
        (None, Some(path)) => Ok(Some(read_text(path)?.trim_end().to_owned())),
        (None, None) => Ok(None),
    }
}

/// Where blobs are kept that `place` names, a path or a URL; in `folder`, or with copies there, by default.
fn blob_settings(place: Option<String>, folder: PathBuf, max_copies_bytes: u64) -> Result<BlobSettings, ConfigError> {
    let Some(url) = place else {
        return Ok(BlobSettings::folder(&folder));
    };
    match url.split_once("://") {
        None => Ok(BlobSettings::folder(Path::new(&url))),
        Some(("file", path)) if path.starts_with('/') => Ok(BlobSettings::folder(Path::new(path))),
        Some(("s3", _)) => match url.parse() {
            Ok(location) => {
                let store = ObjectHome::S3(location);
                Ok(BlobSettings { folder, objects: Some(ObjectSettings { store, max_copies_bytes }) })
            }
            Err(reason) => Err(ConfigError::UnsupportedBlobStore { url, reason }),
        },
        Some((scheme, _)) => {
            let reason = format!("{scheme}:// is no kind of store");
            Err(ConfigError::UnsupportedBlobStore { url, reason })
        }
    }
}
