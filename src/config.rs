//! Settings of the service: flags, then environment variables, then a file, then defaults; the first that says
//! something wins.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Where logs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// By people.
    #[default]
    Text,
    /// By programs: one JSON object a line.
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
    /// Folder of the blobs.
    pub blob_dir: PathBuf,
    /// Jobs that run at the same time.
    pub workers: usize,
    /// Threads of CPU work.
    pub threads: usize,
    /// Largest request body with a file, in bytes.
    pub max_body_bytes: u64,
    /// Memory for loaded predictors, in bytes.
    pub predictor_memory_bytes: u64,
    /// A worker that is silent for this long loses its job, in milliseconds.
    pub lease_ms: u64,
    /// Starts of a job before it is given up.
    pub max_attempts: u32,
    pub log_format: LogFormat,
}
