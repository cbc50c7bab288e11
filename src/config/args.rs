//! Settings as they are given: a flag, a variable and a key in the file for each.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{ByteSize, Isolation, Keys, LogFormat};
use crate::infer::Residency;
use crate::webhooks::Allowed;

/// Settings as they are given. Every one has a flag, a variable `WEIGHTPRESS_...` and a key in the file.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigArgs {
    /// JSON file with settings; its keys are the names of the flags, with underscores.
    #[arg(long, env = unless_empty("WEIGHTPRESS_CONFIG"), value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Folder of the SQLite database and the blobs, unless they are elsewhere [default: data].
    #[arg(long, env = unless_empty("WEIGHTPRESS_DATA_DIR"), value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address of the HTTP server; port 0 picks a free one [default: 127.0.0.1:8080].
    #[arg(long, env = unless_empty("WEIGHTPRESS_LISTEN"), value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE` [default: weightpress.db in the data directory].
    #[arg(long, env = unless_empty("WEIGHTPRESS_DATABASE_URL"), value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// File that holds the database URL, for a secret that should not be in the environment.
    #[arg(long, env = unless_empty("WEIGHTPRESS_DATABASE_URL_FILE"), value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,

    /// Where uploads and artifacts are kept: a folder, as a path or `file://` URL, or `s3://BUCKET/PREFIX` [default: blobs in the
    /// data directory].
    #[arg(long, env = unless_empty("WEIGHTPRESS_BLOB_STORE"), value_name = "PLACE")]
    pub blob_store: Option<String>,

    /// Files of an S3 store that the data directory keeps copies of, in bytes [default: 10GiB].
    #[arg(long, env = unless_empty("WEIGHTPRESS_CACHE_BYTES"), value_name = "BYTES")]
    pub cache_bytes: Option<ByteSize>,

    /// Whether requests need a key of `weightpress keys create` [default: off on a loopback address, else required].
    #[arg(long, env = unless_empty("WEIGHTPRESS_KEYS"), value_enum)]
    pub keys: Option<Keys>,

    /// Names that the service may be called by, the `Host` of a request; `*`: any [default: those of a loopback address where it
    /// listens on one without keys, else any].
    #[arg(long, env = unless_empty("WEIGHTPRESS_ALLOWED_HOSTS"), value_name = "NAME", value_delimiter = ',')]
    pub allowed_hosts: Option<Vec<String>>,

    /// Origins whose web pages may use the service, e.g. `https://app.example`; `*`: any [default: none].
    #[arg(long, env = unless_empty("WEIGHTPRESS_CORS_ORIGINS"), value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origins: Option<Vec<String>>,

    /// Private endpoints that webhooks may name: hosts, addresses, or ranges such as `10.0.0.0/8` [default: none].
    #[arg(long, env = unless_empty("WEIGHTPRESS_WEBHOOK_ALLOW"), value_name = "ENDPOINT", value_delimiter = ',')]
    pub webhook_allow: Option<Vec<Allowed>>,

    /// Jobs that run at the same time [default: 1].
    #[arg(long, env = unless_empty("WEIGHTPRESS_WORKERS"), value_name = "N")]
    pub workers: Option<usize>,

    /// Threads of CPU work [default: one per core].
    #[arg(long, env = unless_empty("WEIGHTPRESS_THREADS"), value_name = "N")]
    pub threads: Option<usize>,

    /// Largest upload, e.g. `512MiB` [default: 2GiB].
    #[arg(long, env = unless_empty("WEIGHTPRESS_MAX_BODY_BYTES"), value_name = "BYTES")]
    pub max_body_bytes: Option<ByteSize>,

    /// Memory for the weights of loaded predictors [default: 1GiB].
    #[arg(long, env = unless_empty("WEIGHTPRESS_PREDICTOR_MEMORY_BYTES"), value_name = "BYTES")]
    pub predictor_memory_bytes: Option<ByteSize>,

    /// How compressed versions hold their weights while they predict [default: auto].
    #[arg(long, env = unless_empty("WEIGHTPRESS_RESIDENCY"), value_enum)]
    pub residency: Option<Residency>,

    /// Most samples of requests that are run as one batch; 1 runs each request alone [default: 1].
    #[arg(long, env = unless_empty("WEIGHTPRESS_MAX_BATCH"), value_name = "N")]
    pub max_batch: Option<usize>,

    /// How long a request waits for others to share its batch, in microseconds; the clock ticks in milliseconds
    /// [default: 1000].
    #[arg(long, env = unless_empty("WEIGHTPRESS_MAX_DELAY_US"), value_name = "US")]
    pub max_delay_us: Option<u64>,

    /// Memory that `auto` may give to the weights of one version [default: any].
    #[arg(long, env = unless_empty("WEIGHTPRESS_MEMORY_BUDGET_BYTES"), value_name = "BYTES")]
    pub memory_budget_bytes: Option<ByteSize>,

    /// Where work on uploaded models is done [default: in this process on a loopback address, else in child processes].
    #[arg(long, env = unless_empty("WEIGHTPRESS_ISOLATION"), value_enum)]
    pub isolation: Option<Isolation>,

    /// Address space of a child process, in bytes [default: 8GiB].
    #[arg(long, env = unless_empty("WEIGHTPRESS_CHILD_MEMORY_BYTES"), value_name = "BYTES")]
    pub child_memory_bytes: Option<ByteSize>,

    /// How long a queued job may take in a child process, in seconds [default: 86400].
    #[arg(long, env = unless_empty("WEIGHTPRESS_CHILD_JOB_SECONDS"), value_name = "SECONDS")]
    pub child_job_seconds: Option<u64>,

    /// How long an upload, a load or a prediction may take in a child process, in seconds [default: 120].
    #[arg(long, env = unless_empty("WEIGHTPRESS_CHILD_REQUEST_SECONDS"), value_name = "SECONDS")]
    pub child_request_seconds: Option<u64>,

    /// Largest tensor that a graph may make while it is loaded or runs; all values at once may take four times as much
    /// [default: 1GiB].
    #[arg(long, env = unless_empty("WEIGHTPRESS_MAX_PREDICTION_BYTES"), value_name = "BYTES")]
    pub max_prediction_bytes: Option<ByteSize>,

    /// A worker that is silent for this long loses its job, in milliseconds [default: 30000].
    #[arg(long, env = unless_empty("WEIGHTPRESS_LEASE_MS"), value_name = "MS")]
    pub lease_ms: Option<u64>,

    /// Starts of a job before it is given up [default: 3].
    #[arg(long, env = unless_empty("WEIGHTPRESS_MAX_ATTEMPTS"), value_name = "N")]
    pub max_attempts: Option<u32>,

    /// How often what killed processes left in the folder of blobs, and what is too old, is cleared away, in seconds
    /// [default: 300].
    #[arg(long, env = unless_empty("WEIGHTPRESS_SWEEP_SECONDS"), value_name = "SECONDS")]
    pub sweep_seconds: Option<u64>,

    /// Days that finished jobs are kept, with their events and what was sent about them; versions stay [default: for ever].
    #[arg(long, env = unless_empty("WEIGHTPRESS_KEEP_JOBS_DAYS"), value_name = "DAYS")]
    pub keep_jobs_days: Option<u32>,

    /// Days that the events of finished jobs are kept [default: as long as the jobs].
    #[arg(long, env = unless_empty("WEIGHTPRESS_KEEP_EVENTS_DAYS"), value_name = "DAYS")]
    pub keep_events_days: Option<u32>,

    /// What to log, as `level` or `module=level,...` [default: info].
    #[arg(long, env = unless_empty("WEIGHTPRESS_LOG"), value_name = "FILTER")]
    pub log: Option<String>,

    /// Who reads the log [default: text].
    #[arg(long, env = unless_empty("WEIGHTPRESS_LOG_FORMAT"))]
    pub log_format: Option<LogFormat>,
}

/// The variable `name`, unless it is empty: that is how compose files and shells pass one that is not set.
fn unless_empty(name: &'static str) -> Option<&'static str> {
    std::env::var_os(name).is_none_or(|value| !value.is_empty()).then_some(name)
}
