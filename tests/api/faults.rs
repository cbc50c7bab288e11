//! A service and three workers while everything around them fails: processes are killed and stopped past their leases, the
//! database is cut off, the blobs are out of reach and their disk is full. No job is lost, none is done twice, every version
//! has the bytes that an undisturbed run gives it, and no file stays that nobody wants.
//!
//! `WEIGHTPRESS_FAULTS_JOBS=200` makes it long; tests/faults.sh does that on both databases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};
use tempfile::TempDir;

use crate::client::Client;
use crate::fixtures;
use crate::harness::{PostgresDatabase, TestApp, collect_files, wait_until};
use crate::program::{Process, Program, free_address};

const WORKERS: usize = 3;
/// Kinds of faults.
const FAULTS: usize = 6;
/// Jobs of a short run.
const JOBS: usize = 30;
/// Models that the jobs are spread over.
const MODELS: usize = 5;
/// How long a job may take, on average, while everything fails.
const LONGEST_OF_A_JOB: Duration = Duration::from_secs(20);
/// Longer than the lease of a second.
const PAST_THE_LEASE: Duration = Duration::from_millis(1700);
/// How long a database or a disk is away.
const OUTAGE: Duration = Duration::from_millis(800);
/// Room for all blobs of a long run many times over, and soon filled up.
const DISK_BYTES: u64 = 64 << 20;

/// What a job asks for; there are ten different ones.
fn spec(number: usize) -> Value {
    let (model, variant) = (format!("m{}", number % MODELS), number % 10);
    json!({"kind": "compress", "model": model, "recipe": {
        "prune": {"criterion": "magnitude", "sparsity": 0.05 * (variant + 1) as f64},
        "quantize": {"method": "cws", "levels": 3 + 2 * variant}}})
}

/// The SHA-256 of the artifact of each recipe, made in peace.
fn undisturbed() -> BTreeMap<String, String> {
    let app = TestApp::start();
    for model in 0..MODELS {
        app.upload_model(&format!("m{model}"), fixtures::DIGITS).expect(201);
    }
    let made = (0..10).map(|number| {
        let job = app.run_job(&spec(number));
        assert_eq!(job["status"], "succeeded", "{job}");
        (job["spec"]["recipe"].to_string(), sha256_of(&app, &job))
    });
    made.collect()
}

/// The SHA-256 of the version that a finished job made.
fn sha256_of(client: &Client, job: &Value) -> String {
    let version = client.get(job["urls"]["version"].as_str().unwrap()).expect(200).json();
    version["sha256"].as_str().unwrap().to_owned()
}

/// The service and what it stands on.
struct Fleet {
    folder: TempDir,
    /// A disk of its own under the blobs, where this process may mount one.
    disk: Option<Disk>,
    database: Option<PostgresDatabase>,
    address: String,
    server: Program,
    workers: Vec<Process>,
}

impl Fleet {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::mount(&folder.path().join("blobs"));
        let (database, address) = (PostgresDatabase::create(), free_address());
        let server = Program::start_at(&address, &["--workers", "0"], folder.path(), database.as_ref());
        let workers = (0..WORKERS).map(|_| Process::worker(folder.path(), database.as_ref())).collect();
        Self { folder, disk, database, address, server, workers }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lets the `number`th thing fail, and come back: all in turns.
    fn fail(&mut self, number: usize, random: &mut ChaCha8Rng) {
        let worker = random.next_u32() as usize % WORKERS;
        match number % FAULTS {
            0 => {
                self.workers[worker].kill();
                self.workers[worker] = Process::worker(self.folder.path(), self.database.as_ref());
            }
            1 => {
                self.workers[worker].signal("STOP");
                std::thread::sleep(PAST_THE_LEASE);
                self.workers[worker].signal("CONT");
            }
            2 => {
                self.server.kill();
                let (path, database) = (self.folder.path(), self.database.as_ref());
                self.server = Program::start_at(&self.address, &["--workers", "0"], path, database);
            }
            3 => self.cut_database(),
            4 => self.hide_blobs(),
            _ => self.disk.iter().for_each(Disk::fill),
        }
    }

    fn cut_database(&self) {
        if let Some(database) = &self.database {
            return database.cut_connections();
        }
        let url = format!("sqlite://{}", self.path().join("weightpress.db").display());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            // Others may hold it just now.
            if connection.execute("BEGIN EXCLUSIVE").await.is_ok() {
                tokio::time::sleep(OUTAGE).await;
            }
        });
    }

    /// Puts a file where the folder of published blobs is, so that nothing can be read or written there.
    fn hide_blobs(&self) {
        let (blobs, hidden) = (self.path().join("blobs/sha256"), self.path().join("blobs/hidden"));
        std::fs::rename(&blobs, &hidden).unwrap();
        // Somebody may have made the folder again, between the two steps and below.
        let _ = std::fs::write(&blobs, "");
        std::thread::sleep(OUTAGE);
        let _ = std::fs::remove_file(&blobs);
        let mut files = BTreeSet::new();
        collect_files(&blobs, &mut files);
        for file in files.iter().map(Path::new) {
            let place = hidden.join(file.strip_prefix(&blobs).unwrap());
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::rename(file, place).unwrap();
        }
        let _ = std::fs::remove_dir_all(&blobs);
        std::fs::rename(&hidden, &blobs).unwrap();
    }
}

/// A disk that can be filled up; it goes with this value.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one at `folder`; `None` where this process may not.
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let options = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        if !is_mounted {
            eprintln!("no disk can be mounted here: that it fills up is not tried");
        }
        is_mounted.then(|| Self(folder.to_owned()))
    }

    fn fill(&self) {
        let ballast = self.0.join("ballast");
        // Fails when the disk is full, which is what it is for.
        let _ = std::fs::write(&ballast, vec![0; DISK_BYTES as usize]);
        std::thread::sleep(OUTAGE);
        std::fs::remove_file(ballast).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process may be dying on it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Posts until it is answered; an answer may have been lost with the process that gave it.
fn post(client: &Client, path: &str, body: &[u8]) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let sent = ureq::SendBody::from_owned_reader(std::io::Cursor::new(body.to_vec()));
        let status = client.open("POST", path, &[], Some(sent)).map(|answer| answer.status().as_u16());
        match status {
            Ok(200..=202) => return,
            // The machine failed, or was away.
            Ok(500..) | Err(_) => std::thread::sleep(Duration::from_millis(50)),
            Ok(status) => panic!("{path}: {status}"),
        }
        assert!(Instant::now() < deadline, "{path} was never accepted");
    }
}

#[test]
fn whatever_fails_no_job_is_lost_or_done_twice_and_versions_are_what_they_should_be() {
    let jobs = std::env::var("WEIGHTPRESS_FAULTS_JOBS").map_or(JOBS, |jobs| jobs.parse().unwrap());
    let expected = undisturbed();
    let mut fleet = Fleet::start();
    let client = Client::new(format!("http://{}", fleet.address));
    for model in 0..MODELS {
        post(&client, &format!("/api/v1/models?name=m{model}"), fixtures::DIGITS);
    }
    let (is_over, faults) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Where a fault cannot be made, nobody waits for the next.
            let _over = OnDrop(&is_over);
            let mut random = ChaCha8Rng::seed_from_u64(5);
            while !is_over.load(Ordering::SeqCst) {
                fleet.fail(faults.load(Ordering::SeqCst), &mut random);
                faults.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(u64::from(random.next_u32() % 300)));
            }
        });
        let over = OnDrop(&is_over);
        (0..jobs).for_each(|number| post(&client, "/api/v1/jobs", spec(number).to_string().as_bytes()));
        // Faults go on until there was one of each kind and half of the jobs are through.
        let deadline = Instant::now() + LONGEST_OF_A_JOB * u32::try_from(jobs).unwrap();
        while faults.load(Ordering::SeqCst) < FAULTS || finished(&client).is_none_or(|finished| finished < jobs / 2) {
            assert!(!is_over.load(Ordering::SeqCst), "a fault could not be made");
            assert!(Instant::now() < deadline, "{} of {jobs} jobs are done", finished(&client).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(over);
    });

    let (versions, hashes) = expect_each_done_once(&client, jobs, &expected);
    let mut wanted: BTreeSet<String> = hashes;
    wanted.insert(client.get("/api/v1/models/m0").expect(200).json()["sha256"].as_str().unwrap().to_owned());
    wait_until("what nobody wants is cleared away", || {
        let mut files = BTreeSet::new();
        collect_files(&fleet.path().join("blobs"), &mut files);
        let names = files.iter().filter_map(|file| Path::new(file).file_name()?.to_str().map(str::to_owned));
        names.collect::<BTreeSet<_>>() == wanted
    });
    eprintln!("{versions} jobs done, {} faults", faults.into_inner());
}

/// Sets a flag, also when a test fails.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How many jobs have succeeded; `None` while nobody says.
fn finished(client: &Client) -> Option<usize> {
    let mut answer = client.open("GET", "/api/v1/jobs?status=succeeded&limit=1000", &[], None).ok()?;
    let list: Value = answer.body_mut().read_json().ok()?;
    Some(list["items"].as_array()?.len())
}

/// Checks that every job succeeded, once, and made the version that its recipe makes. Returns their number and the hashes.
fn expect_each_done_once(
    client: &Client,
    at_least: usize,
    expected: &BTreeMap<String, String>,
) -> (usize, BTreeSet<String>) {
    let jobs = client.get("/api/v1/jobs?limit=1000").expect(200).json()["items"].as_array().unwrap().clone();
    assert!(jobs.len() >= at_least);
    let (mut of_models, mut hashes) = (BTreeMap::new(), BTreeSet::new());
    for job in &jobs {
        let job = client.wait_for_job(job["id"].as_str().unwrap());
        assert_eq!(job["status"], "succeeded", "{job}");
        let sha256 = sha256_of(client, &job);
        assert_eq!(sha256, expected[&job["spec"]["recipe"].to_string()], "{job}");
        hashes.insert(sha256);
        let events = client.get(&format!("/api/v1/jobs/{}/events?limit=1000", job["id"].as_str().unwrap())).expect(200);
        let kinds = events.json()["items"].as_array().unwrap().clone();
        assert_eq!(kinds.iter().filter(|event| event["kind"] == "succeeded").count(), 1, "{job}");
        *of_models.entry(job["model"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    for (model, jobs) in of_models {
        let model = client.get(&format!("/api/v1/models/{model}")).expect(200).json();
        assert_eq!(model["versions"].as_array().unwrap().len(), 1 + jobs, "{model}");
    }
    (jobs.len(), hashes)
}
