//! Memory of the real program, as Linux counts it.
#![cfg(target_os = "linux")]

use std::io::Read;

use serde_json::json;
use ureq::SendBody;

use crate::harness::PostgresDatabase;
use crate::program::Program;

/// Bytes of the file that is uploaded, several times what memory may grow by.
const FILE_BYTES: u64 = 256 << 20;

/// What an upload of any size may add.
const GROWTH_BYTES: u64 = 64 << 20;

/// The most memory that a process has held so far, in bytes.
pub fn peak_resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells the peak");
    let kibibytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes << 10
}

/// A safetensors file of one float32 tensor of zeros, made as it is read.
fn zeros(data_bytes: u64) -> impl Read + Send {
    let tensor = json!({"dtype": "F32", "shape": [data_bytes / 4096, 1024], "data_offsets": [0, data_bytes]});
    let header = json!({"weight": tensor}).to_string().into_bytes();
    let length = (header.len() as u64).to_le_bytes().to_vec();
    std::io::Cursor::new([length, header].concat()).chain(std::io::repeat(0).take(data_bytes))
}

#[test]
fn memory_does_not_grow_with_an_upload() {
    let data_dir = tempfile::tempdir().unwrap();
    let database = PostgresDatabase::create();
    let program = Program::start(data_dir.path(), database.as_ref());
    // What the first upload of any size needs is there before.
    let upload = |name: &str, bytes| {
        let body = SendBody::from_owned_reader(zeros(bytes));
        let answer = program.client.open("POST", &format!("/api/v1/models?name={name}"), &[], Some(body)).unwrap();
        assert_eq!(answer.status(), 201, "{name}");
    };
    upload("small", 4096);
    let before = peak_resident_bytes(program.id());
    upload("large", FILE_BYTES);
    let growth = peak_resident_bytes(program.id()) - before;
    assert!(growth <= GROWTH_BYTES, "{} MiB more", growth >> 20);
}
