//! Datasets: upload, list, describe, delete.

use serde_json::json;

use crate::fixtures;
use crate::harness::TestApp;

#[test]
fn uploaded_dataset_is_described_listed_and_deleted() {
    let app = TestApp::start();
    let empty = app.contents();
    let answer = app.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
    assert_eq!(answer.header("location"), Some("/api/v1/datasets/digits"));
    let dataset = app.get("/api/v1/datasets/digits").expect(200).json();
    assert_eq!(answer.json(), dataset);
    assert_eq!((&dataset["format"], &dataset["samples"]), (&json!("npz"), &json!(450)));
    let mut arrays = dataset["arrays"].as_array().unwrap().clone();
    arrays.sort_by_key(|array| array["name"].to_string());
    assert_eq!(arrays[0], json!({"name": "x", "dtype": "float32", "shape": [450, 64]}));
    assert_eq!(arrays[1], json!({"name": "y", "dtype": "uint8", "shape": [450]}));
    assert_eq!(app.get("/api/v1/datasets").expect(200).json()["items"], json!([dataset]));
    app.upload_dataset("digits", fixtures::DIGITS_DATA).expect(200);
    app.delete("/api/v1/datasets/digits").expect(204);
    assert_eq!(app.contents(), empty);
}

#[test]
fn files_that_are_no_datasets_are_refused_and_leave_nothing() {
    let app = TestApp::start();
    let empty = app.contents();
    let ragged = fixtures::npz(&[("x", &[4, 2], 0.0), ("y", &[3], 0.0)]);
    let cases: [(&[u8], &str); 4] =
        [(b"", ""), (b"random bytes", ""), (&fixtures::DIGITS_DATA[..9000], ""), (&ragged, "3")];
    for (bytes, fault) in cases {
        app.upload_dataset("bad", bytes).expect_problem(422, "invalid_dataset", fault);
    }
    assert_eq!(app.contents(), empty);
}
