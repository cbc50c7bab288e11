//! The contract of the store, the same for both databases.
//!
//! With `WEIGHTPRESS_TEST_DATABASE_URL` set to a Postgres server (a user that may create databases), every test gets a
//! database of its own there; without it, a SQLite file in a folder of its own.

mod blobs;
mod contention;
mod listening;
mod metadata;
mod objects;
mod outcomes;
mod queue;
mod records;
mod retention;
mod schema;
mod tenants;
mod trials;
mod uploads;
mod webhooks;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::jobs::{JobKind, JobResult};
use crate::model::{Format, Port};

use super::*;

/// Gives `test` a storage of its own and clears it away.
async fn with_storage(test: impl AsyncFnOnce(Storage)) {
    let place = Place::new().await;
    let storage = place.open().await;
    test(storage.clone()).await;
    storage.store.close().await;
    place.remove().await;
}

/// Where a storage lies; it can be opened more than once.
pub(in crate::storage) struct Place {
    folder: TempDir,
    database_url: String,
    /// The server and the name of the database that was made there.
    postgres: Option<(String, String)>,
}

impl Place {
    pub(in crate::storage) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let Ok(server) = std::env::var("WEIGHTPRESS_TEST_DATABASE_URL") else {
            let database_url = sqlite_url(&folder.path().join("weightpress.db"));
            return Self { folder, database_url, postgres: None };
        };
        let name = format!("weightpress_test_{}", Uuid::now_v7().simple());
        administer(&server, format!("CREATE DATABASE {name}")).await;
        let (base, _) = server.rsplit_once('/').expect("postgres://HOST/DATABASE");
        let database_url = format!("{base}/{name}");
        Self { folder, database_url, postgres: Some((server, name)) }
    }

    pub(in crate::storage) async fn open(&self) -> Storage {
        self.open_at(self.folder.path()).await.expect("a storage")
    }

    /// The same database, with blobs in `folder`.
    async fn open_at(&self, folder: &Path) -> Result<Storage, StoreError> {
        Storage::open(&self.database_url, &BlobSettings::folder(folder)).await
    }

    pub(in crate::storage) async fn remove(self) {
        if let Some((server, name)) = self.postgres {
            administer(&server, format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

async fn administer(server: &str, statement: String) {
    let mut connection = PgConnection::connect(server).await.expect("a server");
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.expect("an administrator");
}

/// Where the bytes of a blob lie in its folder.
async fn path_of(storage: &Storage, sha256: &str) -> PathBuf {
    storage.blobs.checkout().path(sha256).await.expect("a path")
}

/// Stages `bytes` as an upload does.
async fn stage(storage: &Storage, bytes: &[u8]) -> StagedBlob {
    let mut upload = storage.blobs.upload().await.expect("an upload");
    for chunk in bytes.chunks(1000) {
        upload.write(Bytes::copy_from_slice(chunk)).await.expect("a write");
    }
    upload.finish().await.expect("a staged blob")
}

fn new_model(name: &str) -> NewModel {
    let port = |name: &str| Port { name: name.to_owned(), datatype: "FP32".to_owned(), dims: vec![None, Some(4)] };
    NewModel {
        name: name.to_owned(),
        format: Format::Onnx,
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        weights: Vec::new(),
        kept: Vec::new(),
        unsupported_operators: Vec::new(),
        metadata: Metadata::default(),
    }
}

async fn add_model(storage: &Storage, name: &str) -> ModelRecord {
    let file = stage(storage, name.as_bytes()).await;
    storage.add_model(file, &new_model(name)).await.expect("a model").0
}

/// Has `version` served when none is named.
fn serve(version: i64) -> ModelChange {
    ModelChange { default_version: Some(version), metadata: None }
}

fn new_job(model: &str) -> NewJob {
    NewJob {
        kind: JobKind::Evaluate,
        priority: 0,
        spec: json!({"asked": "for"}),
        metadata: Metadata::default(),
        model: model.to_owned(),
        datasets: Default::default(),
        max_attempts: 3,
        request: None,
        traceparent: None,
        parent: None,
    }
}

/// One metric, as the evaluation of version 0 of a model leaves it.
fn evaluation_result() -> JobResult {
    let metric = NewMetric {
        version: 0,
        name: "accuracy".to_owned(),
        value: Some(0.75),
        dataset: "digits".to_owned(),
        split: Some("test".to_owned()),
        samples: 4,
    };
    JobResult { version: Some(0), metrics: vec![metric], ..JobResult::default() }
}

/// The kinds of a job's events, which must count up from 1.
async fn event_kinds(storage: &Storage, job: &JobId) -> Vec<EventKind> {
    let events = storage.store.events(job, 0, i64::MAX).await.expect("events");
    let numbers: Vec<i64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=events.len() as i64).collect::<Vec<i64>>(), "events have gaps");
    events.into_iter().map(|event| event.kind).collect()
}
