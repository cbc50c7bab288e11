//! Predictions that cannot be made: each answer names the fault, also where clients of the protocol look for it.

use serde_json::{Value, json};

use crate::client::Answer;
use crate::fixtures;
use crate::harness::TestApp;

#[track_caller]
pub fn expect_protocol_problem(answer: &Answer, status: u16, code: &str, fault: &str) {
    answer.expect_problem(status, code, fault);
    let problem = answer.json();
    assert_eq!(problem["error"], problem["detail"]);
}

/// A request of one input, `input`, with the given members changed.
fn request(changes: Value) -> Value {
    let mut input = json!({"name": "input", "shape": [1, 64], "datatype": "FP32", "data": vec![0.0; 64]});
    for (member, value) in changes.as_object().unwrap() {
        input[member] = value.clone();
    }
    json!({"inputs": [input]})
}

#[test]
fn every_fault_of_a_request_is_named() {
    let app = TestApp::with_digits();
    let two_inputs = json!({"inputs": [request(json!({}))["inputs"][0], request(json!({}))["inputs"][0]]});
    let outputs = |outputs: Value| {
        let mut request = request(json!({}));
        request["outputs"] = outputs;
        request
    };
    let output_with = |parameters: Value| outputs(json!([{"name": "logits", "parameters": parameters}]));
    let wrong_output = outputs(json!([{"name": "probabilities"}]));
    let mut too_large = vec![0.0; 64];
    too_large[9] = 1e39;
    let cases = [
        (request(json!({"name": "x"})), "invalid_tensor", "input"),
        (json!({"inputs": []}), "invalid_tensor", "input is missing"),
        (two_inputs, "invalid_tensor", "given twice"),
        (request(json!({"shape": [64]})), "invalid_tensor", "2 dimensions, found 1"),
        (request(json!({"shape": [2, 32]})), "invalid_tensor", "dimension 1 of input input is 64, found 32"),
        (request(json!({"shape": [1, 64, 1]})), "invalid_tensor", "2 dimensions, found 3"),
        (request(json!({"shape": [0, 64], "data": []})), "invalid_tensor", "no countable elements"),
        (request(json!({"shape": [-1, 64]})), "invalid_json", "-1"),
        (request(json!({"shape": [u64::MAX, 64]})), "invalid_tensor", "no countable elements"),
        (request(json!({"datatype": "INT64", "data": vec![0; 64]})), "invalid_tensor", "FP32"),
        (request(json!({"datatype": "float32"})), "invalid_tensor", "`float32`"),
        (request(json!({"data": vec![0.0; 63]})), "invalid_tensor", "has 63 elements, its shape [1, 64] needs 64"),
        (request(json!({"data": [vec![0.0; 32], vec![0.0; 32]]})), "invalid_tensor", "nested as [2, 32]"),
        (request(json!({"data": [[0.0], 0.0]})), "invalid_json", "ragged"),
        (request(json!({"data": vec!["0"; 64]})), "invalid_json", "string"),
        (request(json!({"data": too_large})), "invalid_tensor", "at element 9"),
        (request(json!({"data": Value::Null})), "invalid_json", "null"),
        (json!({"id": "x"}), "invalid_json", "inputs"),
        (wrong_output, "unknown_output", "`probabilities`; it has `logits`"),
        (outputs(json!([{"name": "logits"}, {"name": "logits"}])), "repeated_output", "`logits` is asked for twice"),
        (output_with(json!({"binary_data": 1})), "invalid_parameter", "binary_data is 1, not true or false"),
        (output_with(json!({"classification": 2})), "unsupported_request", "classification"),
        (output_with(json!({"shared_memory_region": "x"})), "unsupported_request", "shared memory"),
    ];
    for (request, code, fault) in cases {
        let answer = app.post_json("/v2/models/digits/infer", &request);
        expect_protocol_problem(&answer, 400, code, fault);
    }
    let deep = "[".repeat(200) + "0" + &"]".repeat(200);
    for request in [
        format!(r#"{{"inputs": [{{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": {deep}}}]}}"#),
        format!(r#"{{"parameters": {{"x": {deep}}}, "inputs": []}}"#),
    ] {
        let answer = app.post("/v2/models/digits/infer", request.as_bytes());
        expect_protocol_problem(&answer, 400, "invalid_json", "recursion limit");
    }
    app.post_json("/v2/models/digits/infer", &request(json!({}))).expect(200);
}

#[test]
fn unsupported_operators_are_named() {
    let app = TestApp::start();
    let model = app.upload_model("odd", &fixtures::onnx(&fixtures::unsupported_model())).expect(201).json();
    assert_eq!(model["predictable"], false);
    assert_eq!(model["unsupported_operators"], json!(["MadeUpOperator"]));
    let request = json!({"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": vec![0.0; 8]}]});
    let answer = app.post_json("/v2/models/odd/infer", &request);
    expect_protocol_problem(&answer, 422, "not_predictable", "MadeUpOperator");
    expect_protocol_problem(&app.get("/v2/models/odd/ready"), 422, "not_predictable", "MadeUpOperator");
    // It is compressed and downloaded like any other.
    let job = app.run_job(&json!({"kind": "compress", "model": "odd", "recipe": {}}));
    assert_eq!(job["status"], "succeeded", "{job}");
    app.get("/api/v1/models/odd/versions/1/content").expect(200);
}

#[test]
fn unknown_models_and_versions_are_named() {
    let app = TestApp::with_digits();
    let answer = app.post_json("/v2/models/nobody/infer", &request(json!({})));
    expect_protocol_problem(&answer, 404, "not_found", "nobody");
    let answer = app.post_json("/v2/models/digits/versions/9/infer", &request(json!({})));
    expect_protocol_problem(&answer, 404, "not_found", "9");
    expect_protocol_problem(&app.get("/v2/nothing"), 404, "no_route", "/v2/nothing");
    expect_protocol_problem(&app.get("/v2/models/stats/ready"), 400, "invalid_parameter", "reserved");
}

#[test]
fn damaged_artifact_fails_its_own_predictions_and_nothing_else() {
    let app = TestApp::with_digits();
    app.run_job(&fixtures::compress_digits());
    let version = app.get("/api/v1/models/digits/versions/1").expect(200).json();
    let sha256 = version["sha256"].as_str().unwrap().to_owned();
    let blobs = app.contents().into_iter().filter(|entry| entry.ends_with(&sha256)).collect::<Vec<_>>();
    let mut bytes = std::fs::read(&blobs[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blobs[0], bytes).unwrap();
    let answer = app.post_json("/v2/models/digits/versions/1/infer", &request(json!({})));
    // It was whole when it was stored: the service is at fault, whatever is asked of the file.
    expect_protocol_problem(&answer, 500, "internal", "log");
    let exported = app.get("/api/v1/models/digits/versions/1/content?format=safetensors");
    exported.expect_problem(500, "internal", "log");
    app.post_json("/v2/models/digits/versions/0/infer", &request(json!({}))).expect(200);
}
