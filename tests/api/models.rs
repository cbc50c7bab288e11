//! Models: upload, list, describe, change, delete.

use serde_json::json;

use crate::fixtures;
use crate::harness::TestApp;

#[test]
fn uploaded_model_is_described() {
    let app = TestApp::start();
    let answer = app.upload_model("digits", fixtures::DIGITS).expect(201);
    assert_eq!(answer.header("location"), Some("/api/v1/models/digits"));
    let model = app.get("/api/v1/models/digits").expect(200).json();
    assert_eq!(answer.json(), model);
    assert_eq!(model["format"], "onnx");
    assert_eq!(model["size_bytes"], fixtures::DIGITS.len());
    assert_eq!(model["default_version"], 0);
    assert_eq!(model["predictable"], true);
    assert_eq!(model["unsupported_operators"], json!([]));
    assert_eq!(model["inputs"], json!([{"name": "input", "datatype": "FP32", "dims": [null, 64]}]));
    assert_eq!(model["outputs"], json!([{"name": "logits", "datatype": "FP32", "dims": [null, 10]}]));
    let names: Vec<_> = model["layers"].as_array().unwrap().iter().map(|layer| layer["name"].clone()).collect();
    assert_eq!(names, ["w0", "w1", "w2"]);
    assert_eq!(model["parameters"], 64 * 64 + 64 * 32 + 32 * 10);
    assert_eq!(model["versions"][0]["number"], 0);
    assert_eq!(model["versions"][0]["ratio"], 1.0);
}

#[test]
fn multipart_upload_is_the_same_as_a_raw_one() {
    let app = TestApp::start();
    let mut form = b"--b\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\n".to_vec();
    form.extend(vec![b'n'; 50 << 10]);
    form.extend(b"\r\n");
    form.extend(b"--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"d.onnx\"\r\n\r\n");
    form.extend(fixtures::DIGITS);
    form.extend(b"\r\n--b--\r\n");
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    let formed = app.send("POST", "/api/v1/models?name=formed", &headers, Some(&form)).expect(201).json();
    let raw = app.upload_model("raw", fixtures::DIGITS).expect(201).json();
    assert_eq!(formed["sha256"], raw["sha256"]);
}

#[test]
fn same_bytes_again_change_nothing_and_other_bytes_are_refused() {
    let app = TestApp::start();
    let first = app.upload_model("digits", fixtures::DIGITS).expect(201).json();
    let before = app.contents();
    assert_eq!(app.upload_model("digits", fixtures::DIGITS).expect(200).json(), first);
    let other = fixtures::onnx(&fixtures::matmul_with(1.0));
    app.upload_model("digits", &other).expect_problem(409, "name_taken", "digits");
    assert_eq!(app.contents(), before);
}

#[test]
fn models_with_the_same_bytes_share_a_blob_until_the_last_is_deleted() {
    let app = TestApp::start();
    let empty = app.contents();
    app.upload_model("one", fixtures::DIGITS).expect(201);
    let blobs = |app: &TestApp| app.contents().iter().filter(|entry| entry.starts_with('/')).count();
    assert_eq!(blobs(&app), 1);
    app.upload_model("two", fixtures::DIGITS).expect(201);
    assert_eq!(blobs(&app), 1);
    app.delete("/api/v1/models/one").expect(204);
    app.get("/api/v1/models/two/versions/0/content").expect(200);
    app.delete("/api/v1/models/two").expect(204);
    assert_eq!(app.contents(), empty);
    app.get("/api/v1/models/two").expect_problem(404, "not_found", "two");
}

#[test]
fn lists_come_in_pages() {
    let app = TestApp::start();
    for name in ["c", "a", "e", "b", "d"] {
        app.upload_model(name, fixtures::DIGITS).expect(201);
    }
    let mut names = Vec::new();
    let mut next = Some("/api/v1/models?limit=2".to_owned());
    while let Some(path) = next {
        let page = app.get(&path).expect(200);
        let json = page.json();
        let items = json["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        next = page.header("link").map(|link| {
            let (uri, relation) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
            assert_eq!(relation, "; rel=\"next\"");
            uri.to_owned()
        });
        assert_eq!(json["has_more"], next.is_some());
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[test]
fn weights_only_files_are_models_without_predictions() {
    let app = TestApp::start();
    let weights = fixtures::npz(&[("layer.weight", &[4, 3], 0.5)]);
    let model = app.upload_model("weights", &weights).expect(201).json();
    assert_eq!((&model["format"], &model["predictable"]), (&json!("npz"), &json!(false)));
    assert_eq!(model["layers"][0]["name"], "layer.weight");
    let answer = app.post_json("/v2/models/weights/infer", &fixtures::digits_request());
    answer.expect_problem(422, "not_predictable", "weights only");
}

#[test]
fn default_version_moves_to_versions_that_exist_only() {
    let app = TestApp::with_digits();
    let patch = |version: i64| {
        let body = json!({"default_version": version}).to_string();
        app.send("PATCH", "/api/v1/models/digits", &[], Some(body.as_bytes()))
    };
    patch(1).expect_problem(404, "not_found", "version");
    app.run_job(&fixtures::compress_digits());
    assert_eq!(patch(1).expect(200).json()["default_version"], 1);
    app.delete("/api/v1/models/digits/versions/1").expect_problem(409, "default_version", "default");
    patch(0).expect(200);
    app.delete("/api/v1/models/digits/versions/0").expect_problem(409, "upload_version", "upload itself");
    app.delete("/api/v1/models/digits/versions/1").expect(204);
    app.get("/api/v1/models/digits/versions/1").expect_problem(404, "not_found", "1");
    let unknown = app.send("PATCH", "/api/v1/models/digits", &[], Some(br#"{"nme": "x"}"#));
    unknown.expect_problem(422, "invalid_body", "nme");
}
