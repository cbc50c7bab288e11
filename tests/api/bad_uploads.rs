//! Uploads that are refused: each answer names the fault, and nothing is left behind.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::fixtures::{self, DIGITS, matmul_model, onnx};
use crate::harness::{TestApp, wait_until};

#[test]
fn files_that_are_no_models_are_refused_and_leave_nothing() {
    let app = TestApp::start();
    let empty = app.contents();
    let random: Vec<u8> = (0..10_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let cases = [
        ("empty", Vec::new(), "empty"),
        ("random", random, ""),
        ("truncated", DIGITS[..DIGITS.len() - 1].to_vec(), ""),
        ("halved", DIGITS[..DIGITS.len() / 2].to_vec(), ""),
        ("overflowing dimensions", onnx(&matmul_model(vec![1 << 40, 1 << 40], vec![0; 48])), "overflow"),
        ("more elements than bytes", onnx(&matmul_model(vec![4, 1_000_000], vec![0; 48])), "16000000 bytes, found 48"),
        ("negative dimension", onnx(&matmul_model(vec![4, -3], vec![0; 48])), "dimension 1 is -3"),
        ("external data", onnx(&fixtures::external_model()), "another file"),
    ];
    for (case, bytes, fault) in cases {
        let answer = app.upload_model("bad", &bytes);
        assert_eq!(answer.status, 422, "{case}: {}", String::from_utf8_lossy(&answer.body));
        answer.expect_problem(422, "invalid_model", fault);
        assert_eq!(app.contents(), empty, "{case}");
    }
    app.upload_model("bad", DIGITS).expect(201);
}

#[test]
fn names_with_nul_are_refused_in_models_and_datasets() {
    let app = TestApp::start();
    let empty = app.contents();
    let mut model = fixtures::matmul_with(1.0);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer[0].name = "w\0".into();
    graph.node[0].input[1] = "w\0".into();
    app.upload_model("bad", &onnx(&model)).expect_problem(422, "invalid_model", "");
    app.upload_dataset("bad", &fixtures::npz(&[("x\0", &[5, 64], 0.0)])).expect_problem(422, "invalid_dataset", "");
    assert_eq!(app.contents(), empty);
}

#[test]
fn every_truncation_of_a_model_is_refused() {
    let app = TestApp::start();
    let empty = app.contents();
    let model = onnx(&fixtures::matmul_with(1.0));
    for length in 0..model.len() {
        let answer = app.upload_model("cut", &model[..length]);
        // Protobuf has no length of its own: cut between two fields, a file may still be a model.
        if answer.status == 201 {
            app.delete("/api/v1/models/cut").expect(204);
        } else {
            answer.expect_problem(422, "invalid_model", "");
        }
    }
    assert_eq!(app.contents(), empty);
}

#[test]
fn wrong_digest_is_refused() {
    let app = TestApp::start();
    let empty = app.contents();
    let of_nothing = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let upload = |digest: &str| app.send("POST", "/api/v1/models?name=d", &[("repr-digest", digest)], Some(DIGITS));
    // By openssl: the file's SHA-256 in hex begins with 03be084d.
    upload(of_nothing).expect_problem(400, "digest_mismatch", "is 03be084d");
    upload("sha-256=:AAAA:").expect_problem(400, "invalid_digest", "32 bytes");
    upload("md5=:AAAA:").expect_problem(400, "invalid_digest", "sha-256");
    assert_eq!(app.contents(), empty);
    upload("sha-256=:A74ITf4HKXxA7fr09znHx71rFzs1BnxKT/ws3o7he48=:").expect(201);
}

#[test]
fn body_over_the_limit_is_refused() {
    let app = TestApp::start_with(|config| config.max_body_bytes = 20_000);
    let empty = app.contents();
    app.upload_model("big", DIGITS).expect_problem(413, "too_large", "20000");
    app.upload_model("huge", &vec![0; 5 << 20]).expect_problem(413, "too_large", "20000");
    app.upload_dataset("small", fixtures::DIGITS_DATA).expect(201);
    app.delete("/api/v1/datasets/small").expect(204);
    assert_eq!(app.contents(), empty);
}

#[test]
fn announced_body_over_the_limit_is_refused_before_it_is_sent() {
    let app = TestApp::start();
    let empty = app.contents();
    let paths = ["/api/v1/models?name=m", "/api/v1/datasets?name=d", "/api/v1/jobs", "/v2/models/digits/infer"];
    app.upload_model("digits", DIGITS).expect(201);
    for path in paths {
        for expect in ["", "expect: 100-continue\r\n"] {
            let mut stream = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{expect}content-length: 1000000000000\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 413", "{path} {expect}");
        }
    }
    app.delete("/api/v1/models/digits").expect(204);
    assert_eq!(app.contents(), empty);
}

#[test]
fn aborted_upload_leaves_nothing() {
    let app = TestApp::start();
    let empty = app.contents();
    let mut stream = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
    let head = format!(
        "POST /api/v1/models?name=gone HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        DIGITS.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&DIGITS[..DIGITS.len() / 2]).unwrap();
    wait_until("the upload has begun", || app.contents() != empty);
    drop(stream);
    wait_until("nothing is left of it", || app.contents() == empty);
    app.upload_model("gone", DIGITS).expect(201);
}

#[test]
fn names_are_checked() {
    let app = TestApp::start();
    let empty = app.contents();
    let too_long = "a".repeat(129);
    for name in ["..%2Fescape", "../escape", "", ".hidden", "a%20b", "a%00b", "%C3%A9", &too_long] {
        app.upload_model(name, DIGITS).expect_problem(400, "invalid_name", "does not match");
        app.upload_dataset(name, fixtures::DIGITS_DATA).expect_problem(400, "invalid_name", "does not match");
    }
    app.upload_model("stats", DIGITS).expect_problem(400, "invalid_name", "reserved");
    app.post("/api/v1/models", DIGITS).expect_problem(400, "invalid_parameter", "name");
    app.get("/api/v1/models/..%2F..%2Fetc%2Fpasswd").expect_problem(400, "invalid_parameter", "does not match");
    assert_eq!(app.contents(), empty);
    let longest = "a".repeat(128);
    app.upload_model(&longest, DIGITS).expect(201);
}

#[test]
fn broken_forms_are_refused() {
    let app = TestApp::start();
    let empty = app.contents();
    let upload = |boundary: &str, body: &[u8]| {
        let content_type = format!("multipart/form-data{boundary}");
        app.send("POST", "/api/v1/models?name=form", &[("content-type", &content_type)], Some(body))
    };
    let no_file = b"--b\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nhi\r\n--b--\r\n";
    upload("; boundary=b", no_file).expect_problem(400, "invalid_multipart", "no part with a file name");
    upload("", no_file).expect_problem(400, "invalid_multipart", "boundary");
    let unfinished = b"--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nhalf of it";
    upload("; boundary=b", unfinished).expect_problem(400, "invalid_multipart", "");
    assert_eq!(app.contents(), empty);
}

#[test]
fn forms_are_bounded_before_and_after_their_file() {
    let app = TestApp::start_with(|config| config.max_body_bytes = 100_000);
    let empty = app.contents();
    let upload = |parts: &[&[u8]]| {
        let headers = [("content-type", "multipart/form-data; boundary=b")];
        app.send("POST", "/api/v1/models?name=form", &headers, Some(&parts.concat()))
    };
    let note = b"--b\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\n";
    let file = b"--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n";
    let (much, end) = (vec![b'a'; 4 << 20], b"\r\n--b--\r\n");
    upload(&[b"--b\r\nx-endless: ", &much]).expect_problem(413, "too_large", "65536");
    upload(&[note, &much, b"\r\n", file, DIGITS, end]).expect_problem(413, "too_large", "65536");
    upload(&[file, &much, end]).expect_problem(413, "too_large", "100000");
    assert_eq!(app.contents(), empty);
    upload(&[note, &much[..60_000], b"\r\n", file, DIGITS, end]).expect(201);
}

#[test]
fn slow_client_does_not_hold_up_others() {
    let app = TestApp::start();
    let mut slow = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
    slow.write_all(b"POST /api/v1/models?name=slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n12345")
        .unwrap();
    app.upload_model("quick", DIGITS).expect(201);
    slow.write_all(b"67890").unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 422");
}
