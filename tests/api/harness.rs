//! A service of its own for every test.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use weightpress::access::{ApiKey, Scope};
use weightpress::app::App;
use weightpress::config::{Config, Isolation, Keys, LogFormat};
use weightpress::infer::Residency;
use weightpress::storage::{BlobSettings, Bounds, NewKey, Store};
use weightpress::{http, telemetry};

use crate::client::Client;
use crate::fixtures;

/// A running service; stopped and removed when dropped. Derefs to a client of it.
pub struct TestApp {
    client: Client,
    data_dir: TempDir,
    database_url: String,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
    _database: Option<PostgresDatabase>,
}

impl Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TestApp {
    /// Starts a service with the settings that tests share.
    pub fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// Starts a service after `adjust` has changed its settings.
    pub fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let database = PostgresDatabase::create();
        let mut config = config(data_dir.path());
        if let Some(database) = &database {
            config.database_url = database.url();
        }
        adjust(&mut config);
        let database_url = config.database_url.clone();
        let (stop, stopped) = oneshot::channel();
        let (started, address) = mpsc::channel();
        let server = std::thread::spawn(move || {
            runtime().block_on(async {
                let app = App::start(config.clone(), telemetry::metrics().unwrap()).await.unwrap();
                let listener = TcpListener::bind(config.listen).await.unwrap();
                started.send(listener.local_addr().unwrap()).unwrap();
                http::run(listener, app.clone(), async { drop(stopped.await) }).await;
                app.shutdown().await;
            });
        });
        let address = address.recv().expect("the service starts");
        let client = Client::new(format!("http://{address}"));
        Self { client, data_dir, database_url, stop: Some(stop), server: Some(server), _database: database }
    }

    /// A service that has the digits network as model `digits`, and its validation data as dataset `digits`.
    pub fn with_digits() -> Self {
        let app = Self::start();
        app.upload_model("digits", fixtures::DIGITS).expect(201);
        app.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
        app
    }

    /// A service that asks for keys.
    pub fn locked() -> Self {
        Self::start_with(|config| config.keys = Keys::Required)
    }

    /// Makes a key of `tenant` with `scopes`, and bounds it, as `weightpress keys create` and `weightpress tenants bound` do.
    pub fn key(&self, tenant: &str, scopes: &[Scope], bounds: Option<Bounds>) -> String {
        self.with_store(async |store| {
            let tenant = store.tenant_or_new(tenant).await.unwrap();
            if let Some(bounds) = bounds {
                store.set_bounds(&tenant.name, &bounds).await.unwrap();
            }
            let key = ApiKey::generate().unwrap();
            let new = NewKey { name: "test".to_owned(), scopes: scopes.to_vec().into(), valid_days: None };
            store.for_tenant(&tenant.id).insert_key(&key, &new).await.unwrap();
            key.reveal()
        })
    }

    /// Runs `work` on a connection of its own to the service's database.
    pub fn with_store<T>(&self, work: impl AsyncFnOnce(&Store) -> T) -> T {
        runtime().block_on(async {
            let store = Store::connect(&self.database_url).await.unwrap();
            let done = work(&store).await;
            store.close().await;
            done
        })
    }

    /// Asks the service to stop.
    pub fn begin_stop(&mut self) {
        // The service may have gone already.
        self.stop.take().map(|stop| stop.send(()));
    }

    /// Asks the service to stop, and waits until it has.
    pub fn stop(&mut self) {
        self.begin_stop();
        if let Some(server) = self.server.take() {
            server.join().expect("the service stops without a panic");
        }
    }

    /// Every file of the blob store, whole or staged, and every model, dataset and job: what a refused request must not
    /// change.
    pub fn contents(&self) -> BTreeSet<String> {
        let mut contents = BTreeSet::new();
        collect_files(&self.blob_dir(), &mut contents);
        for (collection, key) in [("models", "name"), ("datasets", "name"), ("jobs", "id")] {
            let list = self.get(&format!("/api/v1/{collection}?limit=1000")).expect(200).json();
            let keys = list["items"].as_array().unwrap().iter().map(|item| format!("{collection} {}", item[key]));
            contents.extend(keys);
        }
        contents
    }

    /// Folder of the blobs.
    pub fn blob_dir(&self) -> PathBuf {
        self.data_dir.path().join("blobs")
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        // A panic of the test matters more than one of the server.
        drop(self.server.take().map(JoinHandle::join));
    }
}

fn config(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        database_url: format!("sqlite://{}", data_dir.join("weightpress.db").display()),
        blobs: BlobSettings::folder(&data_dir.join("blobs")),
        keys: Keys::Off,
        allowed_hosts: Vec::new(),
        cors_origins: Vec::new(),
        webhook_allow: Default::default(),
        isolation: Isolation::None,
        child_memory_bytes: 8 << 30,
        child_job_seconds: 600,
        child_request_seconds: 60,
        workers: 1,
        threads: 2,
        max_body_bytes: 16 << 20,
        predictor_memory_bytes: 64 << 20,
        residency: Residency::Coded,
        max_batch: 1,
        max_delay_us: 1000,
        memory_budget_bytes: None,
        max_prediction_bytes: 1 << 30,
        lease_ms: 10_000,
        max_attempts: 3,
        sweep_seconds: 300,
        keep_jobs_days: None,
        keep_events_days: None,
        log: "info".to_owned(),
        log_format: LogFormat::Text,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Adds the files under `folder`, but for locks and the owner, which no request makes.
pub fn collect_files(folder: &Path, files: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_files(&path, files);
        } else if path.file_name().is_some_and(|name| !matches!(name.to_str(), Some("lock" | "owner" | "gate"))) {
            files.insert(path.display().to_string());
        }
    }
}

/// A database on the Postgres server of `WEIGHTPRESS_TEST_DATABASE_URL`, dropped with this value.
pub struct PostgresDatabase {
    server: String,
    name: String,
}

impl PostgresDatabase {
    /// Creates a database; `None` when no server was named.
    pub fn create() -> Option<Self> {
        let server = std::env::var("WEIGHTPRESS_TEST_DATABASE_URL").ok()?;
        let database = Self { server, name: format!("api_{}", uuid::Uuid::now_v7().simple()) };
        database.execute(&format!("CREATE DATABASE {}", database.name));
        Some(database)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').expect("the URL names a database");
        format!("{server}/{}", self.name)
    }

    /// Ends all connections to it, as a network that fails does.
    pub fn cut_connections(&self) {
        let name = &self.name;
        self.execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
    }

    fn execute(&self, statement: &str) {
        runtime().block_on(async {
            let mut connection = PgConnection::connect(&self.server).await.unwrap();
            connection.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap();
        });
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        self.execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// Polls until `holds`, which other threads bring about; fails after a while.
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
