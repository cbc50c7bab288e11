//! Predictions whose bodies are compressed, in requests and in answers.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;

use crate::bad_predictions::expect_protocol_problem;
use crate::binary::{floats, from_floats};
use crate::client::Answer;
use crate::fixtures::{digits_predictions, digits_request};
use crate::harness::TestApp;
use crate::predictions::{assert_close, numbers};

const INFER: &str = "/v2/models/digits/infer";

pub fn encode(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        _ => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
    }
}

pub fn decode(answer: &Answer) -> Vec<u8> {
    let mut body = Vec::new();
    match answer.header("content-encoding") {
        Some("gzip") => GzDecoder::new(&answer.body[..]).read_to_end(&mut body).unwrap(),
        Some("deflate") => ZlibDecoder::new(&answer.body[..]).read_to_end(&mut body).unwrap(),
        other => panic!("{other:?}"),
    };
    body
}

#[test]
fn compressed_requests_are_read_and_answers_compressed_as_is_accepted() {
    let app = TestApp::with_digits();
    let mut request = digits_request();
    // More of them, so that the answer is worth compressing.
    let pixels = numbers(&digits_predictions()["input"]).repeat(10);
    let logits = json!(numbers(&digits_predictions()["logits"]).repeat(10));
    (request["inputs"][0]["shape"], request["inputs"][0]["data"]) = (json!([30, 64]), json!(pixels));
    for coding in ["gzip", "deflate"] {
        let headers = [("content-encoding", coding), ("accept-encoding", coding)];
        let answer =
            app.send("POST", INFER, &headers, Some(&encode(coding, request.to_string().as_bytes()))).expect(200);
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let json: serde_json::Value = serde_json::from_slice(&decode(&answer)).unwrap();
        assert_close(&json["outputs"][0]["data"], &logits);
        // Binary both ways: lengths count what is not compressed.
        let data = floats(&pixels);
        let input = json!({"name": "input", "shape": [30, 64], "datatype": "FP32",
                           "parameters": {"binary_data_size": data.len()}});
        let json = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
        let length = json.len().to_string();
        let headers = [headers[0], headers[1], ("inference-header-content-length", &length)];
        let body = encode(coding, &[json.as_bytes(), &data].concat());
        let answer = app.send("POST", INFER, &headers, Some(&body)).expect(200);
        assert_eq!(answer.header("content-encoding"), Some(coding));
        let length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
        assert_close(&from_floats(&decode(&answer)[length..]), &logits);
    }
    // Neither short answers nor those of other resources.
    let accept = [("accept-encoding", "gzip, deflate")];
    let short = app.send("POST", INFER, &accept, Some(digits_request().to_string().as_bytes())).expect(200);
    assert_eq!(short.header("content-encoding"), None);
    assert_eq!(app.send("GET", "/v2/models/digits", &accept, None).expect(200).header("content-encoding"), None);
}

#[test]
fn bodies_that_inflate_beyond_the_limit_are_refused() {
    let app = TestApp::with_digits();
    for coding in ["gzip", "deflate"] {
        let bomb = encode(coding, &vec![b' '; (64 << 20) + 1]);
        assert!(bomb.len() < 100 << 10);
        let answer = app.send("POST", INFER, &[("content-encoding", coding)], Some(&bomb));
        expect_protocol_problem(&answer, 413, "too_large", "limit of 67108864 bytes");
    }
}

#[test]
fn every_fault_of_a_coding_is_named() {
    let app = TestApp::with_digits();
    let request = digits_request().to_string();
    let gzip = encode("gzip", request.as_bytes());
    let deflate = encode("deflate", request.as_bytes());
    let cases = [
        ("gzip", request.as_bytes(), "no gzip"),
        ("gzip", &gzip[..gzip.len() / 2], "no gzip"),
        ("gzip", &gzip[..gzip.len() - 1], "no gzip"),
        ("gzip", b"", "no gzip"),
        ("gzip", &deflate, "no gzip"),
        ("deflate", &gzip, "no deflate"),
        ("deflate", &deflate[..deflate.len() - 1], "ends early"),
        ("deflate", &[&deflate[..], b"x"].concat(), "left behind its end"),
    ];
    for (coding, body, fault) in cases {
        let answer = app.send("POST", INFER, &[("content-encoding", coding)], Some(body));
        expect_protocol_problem(&answer, 400, "invalid_encoding", fault);
    }
    for coding in ["br", "zstd", "gzip, gzip"] {
        let answer = app.send("POST", INFER, &[("content-encoding", coding)], Some(&gzip));
        expect_protocol_problem(&answer, 415, "unknown_encoding", coding);
        assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate"));
    }
    app.send("POST", INFER, &[("content-encoding", "identity")], Some(request.as_bytes())).expect(200);
}
