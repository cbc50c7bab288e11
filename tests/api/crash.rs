//! The real program, killed at any moment: no accepted job is lost, and no half file is published.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::Client;
use crate::fixtures;
use crate::harness::{PostgresDatabase, collect_files};

/// Kills per run. Each happens at a moment drawn from the seed, within what a few uploads and jobs take.
const KILLS: u32 = 8;
const LATEST_KILL_MS: u32 = 700;

/// The program, serving; killed when dropped.
struct Program {
    child: Child,
    client: Client,
}

impl Program {
    fn start(data_dir: &Path, database: Option<&PostgresDatabase>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weightpress"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        if let Some(database) = database {
            command.args(["--database-url", &database.url()]);
        }
        // Shorter than the default, so that jobs of a killed worker are soon taken up again.
        command.env("WEIGHTPRESS_LEASE_MS", "1000").env("WEIGHTPRESS_MAX_ATTEMPTS", "50");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().split_once("listening on ").map(|(_, rest)| rest.trim().to_owned()))
            .expect("the program says where it listens");
        // The pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, client: Client::new(address) }
    }

    /// SIGKILL: nothing can be tidied up.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Uploads and submits until the program dies; notes what was accepted.
fn work_until_killed(client: &Client, round: u32, accepted: &mut Vec<String>) {
    let open = |path: &str, body: &[u8]| {
        let body = ureq::SendBody::from_owned_reader(std::io::Cursor::new(body.to_vec()));
        let mut response = client.open("POST", path, &[], Some(body)).ok()?;
        let json: Value = response.body_mut().read_json().ok()?;
        Some((response.status().as_u16(), json))
    };
    for i in 0.. {
        let name = format!("m{round}-{i}");
        let Some((status, model)) = open(&format!("/api/v1/models?name={name}"), fixtures::DIGITS) else { return };
        assert!(matches!(status, 200 | 201), "{model}");
        let spec = json!({"kind": "compress", "model": name, "recipe": {"quantize": {"method": "cws", "levels": 15}}});
        let Some((status, job)) = open("/api/v1/jobs", spec.to_string().as_bytes()) else { return };
        assert_eq!(status, 202, "{job}");
        accepted.push(job["id"].as_str().unwrap().to_owned());
    }
}

#[test]
fn killed_program_loses_no_job_and_publishes_no_half_file() {
    let data_dir = tempfile::tempdir().unwrap();
    let database = PostgresDatabase::create();
    let mut random = ChaCha8Rng::seed_from_u64(20);
    let mut accepted = Vec::new();
    for round in 0..KILLS {
        let mut program = Program::start(data_dir.path(), database.as_ref());
        let client = program.client.clone();
        let worker = std::thread::spawn(move || {
            let mut accepted = Vec::new();
            work_until_killed(&client, round, &mut accepted);
            accepted
        });
        // Not a wait for something: this is the random moment of the kill.
        std::thread::sleep(Duration::from_millis(u64::from(random.next_u32() % LATEST_KILL_MS)));
        program.kill();
        accepted.extend(worker.join().unwrap());
    }
    assert!(!accepted.is_empty(), "the kills left time for some work");

    let program = Program::start(data_dir.path(), database.as_ref());
    for id in &accepted {
        let job = program.client.wait_for_job(id);
        assert_eq!(job["status"], "succeeded", "{job}");
    }
    let mut files = BTreeSet::new();
    collect_files(&data_dir.path().join("blobs"), &mut files);
    for file in files {
        let sha256: String = Sha256::digest(std::fs::read(&file).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
        assert!(file.ends_with(&sha256), "{file} holds other bytes than its name says, or is no blob");
    }
}
