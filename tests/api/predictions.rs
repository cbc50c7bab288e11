//! Predictions by the Open Inference Protocol.

use prost::Message;
use serde_json::{Value, json};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

use crate::fixtures::{self, digits_predictions, digits_request};
use crate::harness::TestApp;

pub fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// The protocol's measure of equality: within 1e-4 of the largest value.
pub fn assert_close(found: &Value, expected: &Value) {
    let (found, expected) = (numbers(found), numbers(expected));
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-4 * largest), "{found:?} {expected:?}");
}

#[test]
fn upload_predicts_what_onnx_runtime_predicts() {
    let app = TestApp::with_digits();
    let answer = app.post_json("/v2/models/digits/infer", &digits_request()).expect(200).json();
    assert_eq!((&answer["model_name"], &answer["model_version"]), (&json!("digits"), &json!("0")));
    let output = &answer["outputs"][0];
    assert_eq!(
        (&output["name"], &output["datatype"], &output["shape"]),
        (&json!("logits"), &json!("FP32"), &json!([3, 10]))
    );
    assert_close(&output["data"], &digits_predictions()["logits"]);
}

#[test]
fn compressed_version_predicts_the_labels_from_coded_weights() {
    let app = TestApp::with_digits();
    app.run_job(&fixtures::compress_digits());
    let answer = app.post_json("/v2/models/digits/versions/1/infer", &digits_request()).expect(200).json();
    assert_eq!(answer["model_version"], "1");
    assert_eq!(answer["parameters"]["residency"], "coded");
    let dense_bytes = 4 * (64 * 64 + 64 * 32 + 32 * 10);
    assert!(answer["parameters"]["weights_resident_bytes"].as_u64().unwrap() < dense_bytes / 2, "{answer}");
    let held = app.get("/v2/models/digits/versions/1").expect(200).json()["parameters"].clone();
    assert_eq!(held["weights_resident_bytes"], answer["parameters"]["weights_resident_bytes"]);
    let forms: Vec<_> = held["weights"].as_array().unwrap().iter().map(|weight| &weight["form"]).collect();
    assert_eq!(forms, ["coded"; 3]);
    let logits = numbers(&answer["outputs"][0]["data"]);
    let labels: Vec<_> =
        logits.chunks(10).map(|row| (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()).collect();
    assert_eq!(json!(labels), digits_predictions()["labels"]);
}

#[test]
fn every_float_type_is_compressed_predicted_with_and_exported() {
    let app = TestApp::start();
    let halves = |value: f64| half::f16::from_f64(value).to_le_bytes().to_vec();
    let brains = |value: f64| half::bf16::from_f64(value).to_le_bytes().to_vec();
    for (name, datatype, model) in [
        ("double", "FP64", fixtures::matmul_of(DataType::Double, |value| value.to_le_bytes().to_vec())),
        ("brain", "BF16", fixtures::matmul_of(DataType::Bfloat16, brains)),
        ("half", "FP16", fixtures::matmul_of(DataType::Float16, halves)),
    ] {
        app.upload_model(name, &fixtures::onnx(&model)).expect(201);
        app.run_job(&json!({"kind": "compress", "model": name, "recipe": {}}));
        let input = json!({"name": "x", "shape": [2, 4], "datatype": datatype, "data": [1, 0, -1, 2, 0.5, 1, 0, 0]});
        for version in [0, 1] {
            let path = format!("/v2/models/{name}/versions/{version}/infer");
            let output = app.post_json(&path, &json!({"inputs": [input]})).expect(200).json()["outputs"][0].clone();
            assert_eq!((&output["datatype"], &output["shape"]), (&json!(datatype), &json!([2, 3])), "{name}");
            // Rows of the weight: -2 -1.5 -1, -0.5 0 0.5, 1 1.5 2, 2.5 3 3.5.
            assert_eq!(numbers(&output["data"]), [2.0, 3.0, 4.0, -1.5, -0.75, 0.0], "{name} {version}");
        }
        let exported = app.get(&format!("/api/v1/models/{name}/versions/1/content?format=onnx")).expect(200).body;
        let exported = pb::ModelProto::decode(&exported[..]).unwrap();
        let weight = |model: &pb::ModelProto| model.graph.as_ref().unwrap().initializer[0].clone();
        assert_eq!(weight(&exported), weight(&model), "{name}");
    }
}

#[test]
fn nested_data_ids_and_selected_outputs_are_understood() {
    let app = TestApp::with_digits();
    let pixels = numbers(&digits_predictions()["input"]);
    let rows: Vec<&[f64]> = pixels.chunks(64).collect();
    let request = json!({
        "id": "request-7",
        "parameters": {"binary_data_output": true},
        "inputs": [{"name": "input", "shape": [3, 64], "datatype": "FP32", "data": rows}],
        "outputs": [{"name": "logits", "parameters": {"binary_data": false}}],
    });
    let answer = app.post_json("/v2/models/digits/infer", &request).expect(200).json();
    assert_eq!(answer["id"], "request-7");
    assert_close(&answer["outputs"][0]["data"], &digits_predictions()["logits"]);
}

#[test]
fn concurrent_requests_are_answered_as_alone() {
    let app = TestApp::start_with(|config| (config.max_batch, config.max_delay_us) = (8, 20_000));
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    let predictions = digits_predictions();
    let (pixels, logits) = (numbers(&predictions["input"]), numbers(&predictions["logits"]));
    // Twelve requests of one digit each, and one in their midst that is wrong.
    let request = |digit: usize| {
        let data = &pixels[64 * digit..][..64];
        json!({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": data}]})
    };
    let wrong = json!({"inputs": [{"name": "input", "shape": [1, 63], "datatype": "FP32", "data": pixels[..63]}]});
    let infer = |request: &Value| app.post_json("/v2/models/digits/infer", request);
    infer(&request(0)).expect(200);
    let (infer, request) = (&infer, &request);
    std::thread::scope(|scope| {
        let answers: Vec<_> = (0..12).map(|i| scope.spawn(move || infer(&request(i % 3)).expect(200).json())).collect();
        let refused = scope.spawn(|| infer(&wrong).status);
        for (i, answer) in answers.into_iter().enumerate() {
            let answer = answer.join().unwrap();
            assert_eq!(answer["outputs"][0]["shape"], json!([1, 10]));
            assert_close(&answer["outputs"][0]["data"], &json!(logits[10 * (i % 3)..][..10]));
        }
        assert_eq!(refused.join().unwrap(), 400);
    });
    let metrics = String::from_utf8(app.get("/metrics").expect(200).body).unwrap();
    assert!(metrics.contains("weightpress_prediction_batch_samples_count"), "{metrics}");
}

#[test]
fn server_and_models_describe_themselves() {
    let app = TestApp::with_digits();
    assert_eq!(app.get("/v2/health/live").expect(200).json(), json!({"live": true}));
    assert_eq!(app.get("/v2/health/ready").expect(200).json(), json!({"ready": true}));
    assert_eq!(app.get("/v2").expect(200).json()["name"], "weightpress");
    app.run_job(&fixtures::compress_digits());
    let model = app.get("/v2/models/digits").expect(200).json();
    assert_eq!(model["versions"], json!(["0", "1"]));
    assert_eq!(model["inputs"], json!([{"name": "input", "datatype": "FP32", "shape": [-1, 64]}]));
    assert_eq!(model["outputs"], json!([{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]));
    assert_eq!(app.get("/v2/models/digits/versions/1").expect(200).json()["versions"], json!(["1"]));
    assert_eq!(app.get("/v2/models/digits/ready").expect(200).json(), json!({"name": "digits", "ready": true}));
    app.get("/v2/models/digits/versions/1/ready").expect(200);
    app.get("/v2/models/digits/versions/2/ready").expect_problem(404, "not_found", "2");
}
