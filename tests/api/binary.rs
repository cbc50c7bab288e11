//! Predictions with binary tensors: elements behind the JSON, in requests and in answers.

use serde_json::{Value, json};
use tract_onnx::pb::tensor_proto::DataType;

use crate::client::{Answer, Client};
use crate::fixtures::{self, digits_predictions};
use crate::harness::TestApp;
use crate::predictions::{assert_close, numbers};

/// Sends `request`, and `data` behind it, to version 0 of `model`.
pub fn infer_binary(client: &Client, model: &str, request: &Value, data: &[u8]) -> Answer {
    let json = request.to_string();
    let length = json.len().to_string();
    let body = [json.as_bytes(), data].concat();
    let headers = [("inference-header-content-length", length.as_str())];
    client.send("POST", &format!("/v2/models/{model}/versions/0/infer"), &headers, Some(&body))
}

/// The JSON of an answer, and what is behind it.
pub fn parts(answer: &Answer) -> (Value, &[u8]) {
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let length = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (json, data) = answer.body.split_at(length);
    (serde_json::from_slice(json).unwrap(), data)
}

/// Little-endian FP32.
pub fn floats(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect()
}

/// The inverse of [`floats`].
pub fn from_floats(bytes: &[u8]) -> Value {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn digits_input() -> (Value, Vec<u8>) {
    let pixels = floats(&numbers(&digits_predictions()["input"]));
    let parameters = json!({"binary_data_size": pixels.len()});
    (json!({"name": "input", "shape": [3, 64], "datatype": "FP32", "parameters": parameters}), pixels)
}

#[test]
fn binary_inputs_and_outputs_are_those_of_json() {
    let app = TestApp::with_digits();
    let (input, pixels) = digits_input();
    // In JSON, where nothing else was asked for.
    let answer = infer_binary(&app, "digits", &json!({"id": "b", "inputs": [input]}), &pixels).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("inference-header-content-length"), None);
    assert_close(&answer.json()["outputs"][0]["data"], &digits_predictions()["logits"]);
    // Binary, for all outputs or for one.
    for request in [
        json!({"inputs": [input], "parameters": {"binary_data_output": true}}),
        json!({"inputs": [input], "outputs": [{"name": "logits", "parameters": {"binary_data": true}}]}),
        json!({"inputs": [input], "parameters": {"binary_data_output": true}, "outputs": [{"name": "logits"}]}),
    ] {
        let answer = infer_binary(&app, "digits", &request, &pixels).expect(200);
        let (json, data) = parts(&answer);
        let output = &json["outputs"][0];
        assert_eq!((&output["shape"], &output["parameters"]), (&json!([3, 10]), &json!({"binary_data_size": 120})));
        assert_eq!(output.get("data"), None);
        assert_close(&from_floats(data), &digits_predictions()["logits"]);
    }
    // An output's own word goes first.
    let request = json!({"inputs": [input], "parameters": {"binary_data_output": true},
                         "outputs": [{"name": "logits", "parameters": {"binary_data": false}}]});
    let answer = infer_binary(&app, "digits", &request, &pixels).expect(200);
    assert_close(&answer.json()["outputs"][0]["data"], &digits_predictions()["logits"]);
}

#[test]
fn json_inputs_and_binary_outputs_mix() {
    let app = TestApp::with_digits();
    let mut request = fixtures::digits_request();
    request["parameters"] = json!({"binary_data_output": true});
    let answer = app.post_json("/v2/models/digits/infer", &request).expect(200);
    assert_close(&from_floats(parts(&answer).1), &digits_predictions()["logits"]);
}

#[test]
fn requests_in_a_batch_may_be_binary() {
    let app = TestApp::start_with(|config| (config.max_batch, config.max_delay_us) = (8, 1000));
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    let (input, pixels) = digits_input();
    let request = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
    let answer = infer_binary(&app, "digits", &request, &pixels).expect(200);
    assert_close(&from_floats(parts(&answer).1), &digits_predictions()["logits"]);
}

/// The bytes of a number in some type.
type ToBytes<'a> = &'a dyn Fn(f64) -> Vec<u8>;

#[test]
fn every_float_type_goes_in_and_comes_out_binary() {
    let app = TestApp::start();
    let halves = |value: f64| half::f16::from_f64(value).to_le_bytes().to_vec();
    let brains = |value: f64| half::bf16::from_f64(value).to_le_bytes().to_vec();
    let singles = |value: f64| (value as f32).to_le_bytes().to_vec();
    let doubles = |value: f64| value.to_le_bytes().to_vec();
    let cases: [(&str, DataType, ToBytes); 4] = [
        ("FP64", DataType::Double, &doubles),
        ("FP32", DataType::Float, &singles),
        ("FP16", DataType::Float16, &halves),
        ("BF16", DataType::Bfloat16, &brains),
    ];
    for (datatype, dtype, bytes_of) in cases {
        let bytes = |values: &[f64]| values.iter().flat_map(|&value| bytes_of(value)).collect::<Vec<u8>>();
        app.upload_model(datatype, &fixtures::onnx(&fixtures::matmul_of(dtype, bytes_of))).expect(201);
        let data = bytes(&[1.0, 0.0, -1.0, 2.0, 0.5, 1.0, 0.0, 0.0]);
        let parameters = json!({"binary_data_size": data.len()});
        let input = json!({"name": "x", "shape": [2, 4], "datatype": datatype, "parameters": parameters});
        let request = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
        let answer = infer_binary(&app, datatype, &request, &data).expect(200);
        let (json, data) = parts(&answer);
        assert_eq!(json["outputs"][0]["datatype"], datatype);
        // Rows of the weight: -2 -1.5 -1, -0.5 0 0.5, 1 1.5 2, 2.5 3 3.5.
        assert_eq!(data, bytes(&[2.0, 3.0, 4.0, -1.5, -0.75, 0.0]), "{datatype}");
    }
}
