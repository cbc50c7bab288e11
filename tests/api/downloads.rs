//! Downloads: digests, entity tags, ranges and exports.

use sha2::{Digest, Sha256};

use crate::fixtures;
use crate::harness::TestApp;

const UPLOAD: &str = "/api/v1/models/digits/versions/0/content";
const ARTIFACT: &str = "/api/v1/models/digits/versions/1/content";

fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn upload_comes_back_as_it_was() {
    let app = TestApp::with_digits();
    let file = app.get(UPLOAD).expect(200);
    assert_eq!(file.body, fixtures::DIGITS);
    assert_eq!(file.header("etag"), Some(&*format!("\"{}\"", hex_sha256(fixtures::DIGITS))));
    // By `openssl dgst -sha256 -binary digits_mlp.onnx | base64`.
    assert_eq!(file.header("repr-digest"), Some("sha-256=:A74ITf4HKXxA7fr09znHx71rFzs1BnxKT/ws3o7he48=:"));
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"digits-v0.onnx\""));
    assert_eq!(file.header("accept-ranges"), Some("bytes"));
    let head = app.send("HEAD", UPLOAD, &[], None).expect(200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), Some(&*fixtures::DIGITS.len().to_string()));
    assert_eq!(head.header("etag"), file.header("etag"));
}

#[test]
fn ranges_of_a_file_put_together_are_the_file() {
    let app = TestApp::with_digits();
    let size = fixtures::DIGITS.len();
    let mut whole = Vec::new();
    for (range, content_range) in [
        ("bytes=0-9999", format!("bytes 0-9999/{size}")),
        ("bytes=10000-19999", format!("bytes 10000-19999/{size}")),
        ("bytes=20000-", format!("bytes 20000-{}/{size}", size - 1)),
    ] {
        let part = app.send("GET", UPLOAD, &[("range", range)], None).expect(206);
        assert_eq!(part.header("content-range"), Some(&*content_range));
        whole.extend(part.body);
    }
    assert_eq!(whole, fixtures::DIGITS);
    let tail = app.send("GET", UPLOAD, &[("range", "bytes=-5")], None).expect(206);
    assert_eq!(tail.body, fixtures::DIGITS[size - 5..]);
    let beyond = app.send("GET", UPLOAD, &[("range", "bytes=99999999-")], None);
    assert_eq!(beyond.header("content-range"), Some(&*format!("bytes */{size}")));
    beyond.expect_problem(416, "range_not_satisfiable", &size.to_string());
}

#[test]
fn file_that_the_client_has_is_not_sent_again() {
    let app = TestApp::with_digits();
    let tag = app.get(UPLOAD).header("etag").unwrap().to_owned();
    let again = app.send("GET", UPLOAD, &[("if-none-match", &tag)], None).expect(304);
    assert!(again.body.is_empty());
    assert_eq!(again.header("etag"), Some(&*tag));
    app.send("GET", UPLOAD, &[("if-none-match", "\"other\"")], None).expect(200);
    let stale = [("range", "bytes=0-3"), ("if-range", "\"other\"")];
    assert_eq!(app.send("GET", UPLOAD, &stale, None).expect(200).body.len(), fixtures::DIGITS.len());
}

#[test]
fn artifact_is_downloaded_and_exported() {
    let app = TestApp::with_digits();
    app.run_job(&fixtures::compress_digits());
    let version = app.get("/api/v1/models/digits/versions/1").expect(200).json();
    let artifact = app.get(ARTIFACT).expect(200);
    assert_eq!(version["sha256"], hex_sha256(&artifact.body));
    assert_eq!(version["size_bytes"], artifact.body.len());
    assert_eq!(version["report"]["artifact_bytes"], artifact.body.len());
    assert_eq!(artifact.header("content-disposition"), Some("attachment; filename=\"digits-v1.wp.safetensors\""));

    let before = app.contents();
    for format in ["onnx", "safetensors"] {
        let path = format!("{ARTIFACT}?format={format}");
        let export = app.get(&path).expect(200);
        assert_eq!(
            export.header("content-disposition"),
            Some(&*format!("attachment; filename=\"digits-v1.{format}\""))
        );
        let tag = export.header("etag").unwrap();
        assert_ne!(Some(tag), artifact.header("etag"));
        app.send("GET", &path, &[("if-none-match", tag)], None).expect(304);
        let part = app.send("GET", &path, &[("range", "bytes=100-199"), ("if-range", tag)], None).expect(206);
        assert_eq!(part.body, export.body[100..200]);
        assert_eq!(part.header("repr-digest"), export.header("repr-digest"));
        let head = app.send("HEAD", &path, &[], None).expect(200);
        assert_eq!((head.header("etag"), head.header("content-length")), (Some(tag), None), "no export was made");
        assert_eq!(head.header("content-disposition"), export.header("content-disposition"));
    }
    assert_eq!(app.contents(), before, "exports leave nothing behind");
}

#[test]
fn exported_network_is_a_model_that_predicts_what_the_artifact_predicts() {
    let app = TestApp::with_digits();
    app.run_job(&fixtures::compress_digits());
    let export = app.get(&format!("{ARTIFACT}?format=onnx")).expect(200);
    app.upload_model("exported", &export.body).expect(201);
    let predict = |path: &str| {
        let answer = app.post_json(path, &fixtures::digits_request()).expect(200).json();
        let logits = answer["outputs"][0]["data"].as_array().unwrap().clone();
        logits.iter().map(|logit| logit.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (coded, plain) = (predict("/v2/models/digits/versions/1/infer"), predict("/v2/models/exported/infer"));
    let largest = plain.iter().fold(0.0_f64, |largest, logit| largest.max(logit.abs()));
    assert!(coded.iter().zip(&plain).all(|(a, b)| (a - b).abs() <= 1e-4 * largest), "{coded:?} {plain:?}");
}

#[test]
fn forms_that_a_version_lacks_are_refused() {
    let app = TestApp::with_digits();
    let wrong = app.get(&format!("{UPLOAD}?format=safetensors"));
    wrong.expect_problem(422, "not_exportable", "version 0 is the upload itself");
    app.get(&format!("{UPLOAD}?format=gguf")).expect_problem(400, "invalid_parameter", "gguf");
    app.get("/api/v1/models/digits/versions/7/content").expect_problem(404, "not_found", "7");
    app.get("/api/v1/models/digits/versions/x/content").expect_problem(400, "invalid_parameter", "x");
}
