//! The real program, killed at any moment: no accepted job is lost, nothing is done twice, and no half file is published.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::Client;
use crate::fixtures;
use crate::harness::{PostgresDatabase, collect_files};
use crate::program::Program;

/// Kills per run. Each happens at a moment drawn from the seed, within what a few uploads and jobs take.
const KILLS: u32 = 8;
const LATEST_KILL_MS: u32 = 700;

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
    expect_nothing_lost_or_doubled(&program.client, &accepted, &data_dir.path().join("blobs"));
}

/// Checks that every model has at most one compressed version, those of accepted jobs have it, and that the blobs are the
/// files of these versions and no others.
fn expect_nothing_lost_or_doubled(client: &Client, accepted: &[String], blobs: &Path) {
    let mut compressed = BTreeSet::new();
    for job in items(client, "jobs") {
        // Also those whose acceptance was not heard.
        let job = client.wait_for_job(job["id"].as_str().unwrap());
        assert_eq!(job["status"], "succeeded", "{job}");
        assert!(compressed.insert(job["model"].as_str().unwrap().to_owned()), "two jobs of {job}");
    }
    assert!(compressed.len() >= accepted.len());
    let mut published = BTreeSet::new();
    for model in items(client, "models") {
        let name = model["name"].as_str().unwrap();
        let model = client.get(&format!("/api/v1/models/{name}")).expect(200).json();
        let versions = model["versions"].as_array().unwrap();
        let numbers: Vec<_> = versions.iter().map(|version| version["number"].as_i64().unwrap()).collect();
        assert_eq!(numbers, if compressed.contains(name) { vec![0, 1] } else { vec![0] }, "{model}");
        published.extend(versions.iter().map(|version| version["sha256"].as_str().unwrap().to_owned()));
    }

    let mut files = BTreeSet::new();
    collect_files(blobs, &mut files);
    let names = files.iter().filter_map(|file| Path::new(file).file_name()?.to_str().map(str::to_owned));
    assert_eq!(names.collect::<BTreeSet<_>>(), published, "every file belongs to a version");
    for file in files {
        let sha256: String = Sha256::digest(std::fs::read(&file).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
        assert!(file.ends_with(&sha256), "{file} holds other bytes than its name says, or is no blob");
    }
}

/// Everything of a collection.
fn items(client: &Client, collection: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut page = client.get(&format!("/api/v1/{collection}?limit=1000")).expect(200).json();
    assert_eq!(page["has_more"], false, "one page holds what a few seconds made");
    items.append(page["items"].as_array_mut().unwrap());
    items
}
