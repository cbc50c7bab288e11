//! Uploads in parts, by tus 1.0.0.

use std::io::Write;
use std::net::TcpStream;

use sha2::{Digest, Sha256};

use crate::client::Answer;
use crate::fixtures::DIGITS;
use crate::harness::{TestApp, wait_until};
use crate::program::Program;

const TUS: (&str, &str) = ("tus-resumable", "1.0.0");

fn begin(client: &crate::client::Client, length: usize) -> String {
    let answer =
        client.send("POST", "/api/v1/uploads", &[TUS, ("upload-length", &length.to_string())], None).expect(201);
    assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
    assert!(answer.header("upload-expires").is_some_and(|moment| moment.ends_with(" GMT")));
    answer.header("location").unwrap().to_owned()
}

fn patch(client: &crate::client::Client, path: &str, offset: usize, headers: &[(&str, &str)], bytes: &[u8]) -> Answer {
    let offset = offset.to_string();
    let own = [TUS, ("upload-offset", offset.as_str()), ("content-type", "application/offset+octet-stream")];
    client.send("PATCH", path, &[&own, headers].concat(), Some(bytes))
}

fn offset(client: &crate::client::Client, path: &str) -> usize {
    let answer = client.send("HEAD", path, &[TUS], None).expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.header("upload-offset").unwrap().parse().unwrap()
}

fn id(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

#[test]
fn a_file_in_parts_becomes_a_model() {
    let app = TestApp::start();
    let path = begin(&app, DIGITS.len());
    let middle = DIGITS.len() / 2;
    let answer = patch(&app, &path, 0, &[], &DIGITS[..middle]).expect(204);
    assert_eq!(answer.header("upload-offset"), Some(middle.to_string().as_str()));
    assert_eq!(offset(&app, &path), middle);
    let take = format!("/api/v1/models?name=digits&upload={}", id(&path));
    app.post(&take, b"").expect_problem(409, "upload_incomplete", &middle.to_string());
    patch(&app, &path, middle, &[], &DIGITS[middle..]).expect(204);
    let model = app.post(&take, b"").expect(201).json();
    assert_eq!(model["sha256"], hex::encode(Sha256::digest(DIGITS)));
    app.send("HEAD", &path, &[TUS], None).expect(404);
    assert!(app.contents().iter().all(|entry| !entry.contains("uploads")), "its parts are gone");
}

#[test]
fn what_is_spoken_is_said() {
    let app = TestApp::start();
    let answer = app.send("OPTIONS", "/api/v1/uploads", &[], None).expect(204);
    assert_eq!(answer.header("tus-version"), Some("1.0.0"));
    assert_eq!(answer.header("tus-extension"), Some("creation,expiration,checksum,termination"));
    assert_eq!(answer.header("tus-max-size"), Some((16 << 20).to_string().as_str()));
    assert_eq!(answer.header("tus-checksum-algorithm"), Some("sha1,sha256"));
}

#[test]
fn parts_that_do_not_fit_are_refused_and_change_nothing() {
    let app = TestApp::start();
    let path = begin(&app, 10);
    patch(&app, &path, 1, &[], b"abc").expect_problem(409, "offset_mismatch", "0 bytes were received");
    patch(&app, &path, 0, &[], b"01234567890").expect_problem(413, "too_large", "10 bytes");
    let answer = app.send("PATCH", &path, &[("upload-offset", "0")], Some(b"abc"));
    answer.expect_problem(412, "unknown_tus_version", "1.0.0");
    let answer = app.send("PATCH", &path, &[TUS, ("upload-offset", "0"), ("content-type", "text/plain")], Some(b"abc"));
    answer.expect_problem(415, "wrong_media_type", "application/offset+octet-stream");
    for checksum in ["sha1", "md5 abc=", "sha1 ???"] {
        patch(&app, &path, 0, &[("upload-checksum", checksum)], b"abc").expect_problem(400, "invalid_header", "");
    }
    // Of "abc", FIPS 180-4; and of other bytes.
    let right = "sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
    patch(&app, &path, 0, &[("upload-checksum", right)], b"abd").expect_problem(460, "checksum_mismatch", "");
    assert_eq!(offset(&app, &path), 0);
    patch(&app, &path, 0, &[("upload-checksum", right)], b"abc").expect(204);
    let sha256 = "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    patch(&app, &path, 3, &[("upload-checksum", sha256)], b"abc").expect(204);
    assert_eq!(offset(&app, &path), 6);
    app.send("DELETE", &path, &[TUS], None).expect(204);
    app.send("HEAD", &path, &[TUS], None).expect(404);
    patch(&app, &path, 6, &[], b"abc").expect_problem(404, "not_found", id(&path));
}

#[test]
fn uploads_that_cannot_be_begun_say_why() {
    let app = TestApp::start();
    let begin = |headers: &[(&str, &str)]| app.send("POST", "/api/v1/uploads", &[&[TUS], headers].concat(), None);
    begin(&[]).expect_problem(400, "invalid_header", "Upload-Length");
    for length in ["-1", "ten", "1.5", "99999999999999999999"] {
        begin(&[("upload-length", length)]).expect_problem(400, "invalid_header", "Upload-Length");
    }
    begin(&[("upload-length", "999999999999")]).expect_problem(413, "too_large", "16777216");
    for metadata in ["", "a b c", "a,a", "name ???"] {
        begin(&[("upload-length", "1"), ("upload-metadata", metadata)]).expect_problem(
            400,
            "invalid_header",
            "Upload-Metadata",
        );
    }
    let given = "filename bW9kZWwub25ueA==,is_large";
    let answer = begin(&[("upload-length", "1"), ("upload-metadata", given)]).expect(201);
    let shown = app.send("HEAD", answer.header("location").unwrap(), &[TUS], None).expect(200);
    assert_eq!(shown.header("upload-metadata"), Some(given));
    app.post("/api/v1/models?name=x&import=net.onnx", b"").expect_problem(422, "no_object_store", "folder");
}

/// Sends the head of a part and some of its bytes, and hangs up.
fn hang_up(base: &str, path: &str, length: usize, sent: &[u8]) {
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: {address}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n\
         Content-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(sent).unwrap();
}

#[test]
fn what_came_before_a_connection_broke_is_kept_also_over_a_kill() {
    let data_dir = tempfile::tempdir().unwrap();
    let database = crate::harness::PostgresDatabase::create();
    let mut program = Program::start(data_dir.path(), database.as_ref());
    let path = begin(&program.client, DIGITS.len());
    hang_up(&program.client.base, &path, DIGITS.len(), &DIGITS[..5000]);
    wait_until("the part is kept", || offset(&program.client, &path) == 5000);
    program.kill();
    let program = Program::start(data_dir.path(), database.as_ref());
    assert_eq!(offset(&program.client, &path), 5000);
    patch(&program.client, &path, 5000, &[], &DIGITS[5000..]).expect(204);
    program.client.post(&format!("/api/v1/models?name=digits&upload={}", id(&path)), b"").expect(201);
}
