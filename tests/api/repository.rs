//! Extensions of the inference protocol: statistics, configuration, and what is held in memory.

use serde_json::{Value, json};

use crate::fixtures::{self, digits_request};
use crate::harness::TestApp;

fn statistics(app: &TestApp, path: &str) -> Value {
    app.get(path).expect(200).json()["model_stats"].clone()
}

#[test]
fn statistics_count_what_was_asked_of_each_version() {
    let app = TestApp::with_digits();
    let before = statistics(&app, "/v2/models/digits/stats");
    assert_eq!((&before[0]["version"], &before[0]["inference_count"]), (&json!("0"), &json!(0)));
    for _ in 0..2 {
        app.post_json("/v2/models/digits/infer", &digits_request()).expect(200);
    }
    app.post_json("/v2/models/digits/infer", &json!({"inputs": []})).expect(400);
    let after = statistics(&app, "/v2/models/digits/versions/0/stats");
    let counts = |name: &str| after[0]["inference_stats"][name]["count"].clone();
    assert_eq!((counts("success"), counts("fail"), counts("compute_infer")), (json!(2), json!(1), json!(2)));
    // Three samples each.
    assert_eq!((&after[0]["inference_count"], &after[0]["execution_count"]), (&json!(6), &json!(2)));
    assert!(after[0]["last_inference"].as_u64().unwrap() > 1_700_000_000_000);
    let parts = ["queue", "compute_input", "compute_infer", "compute_output"];
    let ns = |name: &str| after[0]["inference_stats"][name]["ns"].as_u64().unwrap();
    assert!(parts.iter().map(|part| ns(part)).sum::<u64>() <= ns("success"));
    assert_eq!(statistics(&app, "/v2/models/stats"), after);
    app.get("/v2/models/nothing/stats").expect_problem(404, "not_found", "nothing");
}

#[test]
fn a_configuration_says_what_a_model_takes_and_gives() {
    let app = TestApp::with_digits();
    let config = app.get("/v2/models/digits/config").expect(200).json();
    assert_eq!(config["input"], json!([{"name": "input", "data_type": "TYPE_FP32", "dims": [-1, 64]}]));
    assert_eq!(config["output"][0]["data_type"], "TYPE_FP32");
    assert_eq!(config["version_policy"]["specific"]["versions"], json!([0]));
    assert_eq!(app.get("/v2/models/digits/versions/0/config").expect(200).json(), config);
    app.get("/v2/models/digits/versions/7/config").expect_problem(404, "not_found", "7");
}

#[test]
fn the_index_lists_versions_and_why_some_are_not_ready() {
    let app = TestApp::with_digits();
    app.upload_model("odd", &fixtures::onnx(&fixtures::unsupported_model())).expect(201);
    let index = |body: &[u8]| app.post("/v2/repository/index", body).expect(200).json();
    let all = index(b"");
    assert_eq!(all[0], json!({"name": "digits", "version": "0", "state": "READY", "reason": ""}));
    assert_eq!((&all[1]["name"], &all[1]["state"]), (&json!("odd"), &json!("UNAVAILABLE")));
    assert!(all[1]["reason"].as_str().unwrap().contains("predictions do not support"));
    assert_eq!(index(br#"{"ready": true}"#).as_array().unwrap().len(), 1);
    app.post("/v2/repository/index", b"[").expect_problem(400, "invalid_json", "");
}

#[test]
fn a_version_is_loaded_as_is_asked_and_unloaded() {
    let app = TestApp::with_digits();
    app.run_job(&fixtures::compress_digits());
    let held = || app.get("/v2/models/digits/versions/1").expect(200).json()["parameters"]["residency"].clone();
    assert_eq!(held(), Value::Null);
    let load =
        |parameters: Value| app.post_json("/v2/repository/models/digits/load", &json!({ "parameters": parameters }));
    load(json!({"version": "1", "residency": "packed"})).expect(200);
    assert_eq!(held(), "packed");
    app.post_json("/v2/models/digits/versions/1/infer", &digits_request()).expect(200);
    app.post("/v2/repository/models/digits/unload", b"").expect(200);
    assert_eq!(held(), Value::Null);
    // Asked for again, it is held as the settings say.
    app.post_json("/v2/models/digits/versions/1/infer", &digits_request()).expect(200);
    assert_eq!(held(), "coded");
    app.post("/v2/repository/models/digits/load", b"").expect(200);
    load(json!({"version": "one"})).expect_problem(400, "invalid_parameter", "one");
    load(json!({"version": "9"})).expect_problem(404, "not_found", "9");
    load(json!({"version": "0", "residency": "packed"})).expect_problem(400, "invalid_parameter", "version 0");
    load(json!({"residency": "paper"})).expect_problem(400, "invalid_json", "paper");
    load(json!({"config": "{}"})).expect_problem(400, "invalid_json", "config");
    app.post("/v2/repository/models/nothing/load", b"").expect_problem(404, "not_found", "nothing");
}
