//! Binary tensors that are not what they say: each answer names the fault.

use serde_json::{Value, json};

use crate::bad_predictions::expect_protocol_problem;
use crate::binary::{floats, infer_binary};
use crate::harness::TestApp;

/// A request of one binary input of 256 bytes, with the given members changed.
fn request(changes: Value) -> Value {
    let parameters = json!({"binary_data_size": 256});
    let mut input = json!({"name": "input", "shape": [1, 64], "datatype": "FP32", "parameters": parameters});
    for (member, value) in changes.as_object().unwrap() {
        input[member] = value.clone();
    }
    json!({"inputs": [input]})
}

#[test]
fn every_fault_of_binary_data_is_named() {
    let app = TestApp::with_digits();
    let zeros = floats(&[0.0; 64]);
    let size = |size: Value| request(json!({"parameters": {"binary_data_size": size}}));
    let twice = json!({"inputs": [request(json!({}))["inputs"][0], request(json!({}))["inputs"][0]]});
    let cases = [
        (
            size(json!(252)),
            &zeros[..252],
            "invalid_tensor",
            "252 bytes of binary data, its shape [1, 64] of FP32 needs 256",
        ),
        (size(json!(257)), &zeros, "invalid_tensor", "257 bytes of binary data, 256 are left"),
        (size(json!(u64::MAX)), &zeros, "invalid_tensor", "256 are left"),
        (size(json!(-256)), &zeros, "invalid_tensor", "-256, which is no number of bytes"),
        (size(json!("256")), &zeros, "invalid_tensor", "no number of bytes"),
        (size(json!(0)), &[], "invalid_tensor", "0 bytes of binary data"),
        (request(json!({})), &zeros[..255], "invalid_tensor", "255 are left"),
        (request(json!({})), &[&zeros[..], b"x"].concat(), "invalid_binary_data", "1 bytes are left behind"),
        (request(json!({"data": vec![0.0; 64]})), &zeros, "invalid_tensor", "both data and"),
        (request(json!({"parameters": {}})), &zeros, "invalid_tensor", "neither data nor"),
        (
            request(json!({"parameters": {}, "data": vec![0.0; 64]})),
            &zeros,
            "invalid_binary_data",
            "256 bytes are left",
        ),
        (request(json!({"datatype": "FP64"})), &zeros, "invalid_tensor", "of FP64 needs 512"),
        (request(json!({"datatype": "INT32"})), &zeros, "invalid_tensor", "input input is FP32, found INT32"),
        (request(json!({"datatype": "BYTES"})), &zeros, "invalid_tensor", "BYTES; predictions take numbers"),
        (request(json!({"shape": [64]})), &zeros, "invalid_tensor", "2 dimensions, found 1"),
        (request(json!({"shape": [1_u64 << 62, 4]})), &zeros, "invalid_tensor", "no countable elements"),
        (request(json!({"shape": [1_u64 << 61, 2]})), &zeros, "invalid_tensor", "no countable elements"),
        (request(json!({"shape": []})), &zeros, "invalid_tensor", "its shape [] of FP32 needs 4"),
        (twice.clone(), &zeros, "invalid_tensor", "256 bytes of binary data, 0 are left"),
        (twice, &[&zeros[..], &zeros].concat(), "invalid_tensor", "given twice"),
    ];
    for (request, data, code, fault) in cases {
        expect_protocol_problem(&infer_binary(&app, "digits", &request, data), 400, code, fault);
    }
    infer_binary(&app, "digits", &request(json!({})), &zeros).expect(200);
}

#[test]
fn every_fault_of_the_header_is_named() {
    let app = TestApp::with_digits();
    let json = request(json!({})).to_string();
    let body = [json.as_bytes(), &floats(&[0.0; 64])].concat();
    let beyond = (body.len() + 1).to_string();
    let cases = [
        ("ten", "is \"ten\", which is no number of bytes"),
        ("-1", "no number of bytes"),
        ("1.0", "no number of bytes"),
        ("18446744073709551616", "no number of bytes"),
        ("18446744073709551615", "is 18446744073709551615, the body has"),
        (&beyond, "the body has"),
    ];
    for (length, fault) in cases {
        let headers = [("inference-header-content-length", length)];
        let answer = app.send("POST", "/v2/models/digits/infer", &headers, Some(&body));
        expect_protocol_problem(&answer, 400, "invalid_binary_data", fault);
    }
    for length in [json.len() - 1, json.len() + 1, 0] {
        let length = length.to_string();
        let answer =
            app.send("POST", "/v2/models/digits/infer", &[("inference-header-content-length", &length)], Some(&body));
        expect_protocol_problem(&answer, 400, "invalid_json", "");
    }
    let answer = app.post("/v2/models/digits/infer", json.as_bytes());
    expect_protocol_problem(&answer, 400, "invalid_tensor", "Inference-Header-Content-Length is missing");
}
