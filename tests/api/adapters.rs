//! Predictions as clients of TensorFlow Serving and of MLflow ask for them: the same as through `/v2`.

use serde_json::{Value, json};

use crate::bad_predictions::expect_protocol_problem;
use crate::client::{Answer, Client};
use crate::codings::{decode, encode};
use crate::fixtures;
use crate::harness::TestApp;
use crate::predictions::numbers;

const PREDICT: &str = "/v1/models/digits:predict";
const INVOKE: &str = "/invocations?model=digits";

/// Three digits, a row each.
fn digits() -> Vec<Vec<f64>> {
    numbers(&fixtures::digits_predictions()["input"]).chunks(64).map(<[f64]>::to_vec).collect()
}

/// The outputs of `answer`, of `/v2`, by their names and in rows.
fn in_rows(answer: &Answer) -> Value {
    let rows = |output: &Value| {
        let width = output["shape"][1].as_u64().unwrap() as usize;
        json!(output["data"].as_array().unwrap().chunks(width).collect::<Vec<_>>())
    };
    let answer = answer.json();
    let outputs = answer["outputs"].as_array().unwrap();
    outputs.iter().map(|output| (output["name"].as_str().unwrap().to_owned(), rows(output))).collect()
}

/// Rows of `outputs` as an object each.
fn as_records(outputs: &Value) -> Value {
    let outputs = outputs.as_object().unwrap();
    let count = outputs.values().next().unwrap().as_array().unwrap().len();
    let record = |i: usize| outputs.iter().map(|(name, rows)| (name.clone(), rows[i].clone())).collect::<Value>();
    (0..count).map(record).collect()
}

fn expect_answers(app: &Client, cases: &[(&str, Value, Value)]) {
    for (path, body, expected) in cases {
        let answer = app.post_json(path, body).expect(200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json(), *expected, "{path} {body}");
    }
}

#[test]
fn every_form_predicts_what_the_inference_protocol_predicts() {
    let app = TestApp::with_digits();
    let outputs = in_rows(&app.post_json("/v2/models/digits/infer", &fixtures::digits_request()).expect(200));
    let (digits, logits) = (digits(), &outputs["logits"]);
    let named: Vec<Value> = digits.iter().map(|digit| json!({"input": digit})).collect();
    let records: Vec<Value> = digits
        .iter()
        .map(|digit| digit.iter().enumerate().map(|(i, pixel)| (format!("pixel{i:02}"), json!(pixel))).collect())
        .collect();
    let names: Vec<String> = (0..64).map(|i| format!("pixel{i:02}")).collect();
    let cells: Vec<Value> = digits.iter().map(|digit| json!([digit])).collect();
    let in_rows = json!({"predictions": logits});
    let in_columns = json!({"outputs": logits});
    let tensors = json!({"predictions": outputs});
    let frame = json!({"predictions": as_records(&outputs)});
    let version = "/v1/models/digits/versions/0:predict";
    expect_answers(
        &app,
        &[
            (PREDICT, json!({"instances": digits}), in_rows.clone()),
            (PREDICT, json!({"instances": named}), in_rows.clone()),
            (version, json!({"signature_name": "serving_default", "instances": digits}), in_rows),
            (PREDICT, json!({"inputs": digits, "signature_name": "", "unknown": 1}), in_columns.clone()),
            (version, json!({"inputs": {"input": digits}}), in_columns),
            (INVOKE, json!({"instances": digits}), tensors.clone()),
            (INVOKE, json!({"instances": named, "params": {"temperature": 0}}), tensors.clone()),
            (INVOKE, json!({"inputs": digits}), tensors.clone()),
            (INVOKE, json!({"inputs": {"input": digits}}), tensors),
            (INVOKE, json!({"dataframe_split": {"columns": names, "data": digits}}), frame.clone()),
            (INVOKE, json!({"dataframe_split": {"data": digits, "index": [3, 1, 2]}}), frame.clone()),
            (INVOKE, json!({"dataframe_split": {"columns": ["input"], "data": cells}}), frame.clone()),
            (INVOKE, json!({"dataframe_records": records}), frame.clone()),
            (INVOKE, json!({"dataframe_records": named}), frame),
        ],
    );
}

#[test]
fn several_inputs_and_outputs_have_names() {
    let app = TestApp::start();
    app.upload_model("two", &fixtures::onnx(&fixtures::two_inputs_and_outputs())).expect(201);
    let (x, z) = (json!([[1, 2, 3, 4], [5, 6, 7, 8]]), json!([[0.5, 1, 1.5], [2, 2.5, 3]]));
    let input = |name: &str, shape: Value, data: &Value| json!({"name": name, "shape": shape, "datatype": "FP32", "data": data});
    let asked = json!({"inputs": [input("x", json!([2, 4]), &x), input("z", json!([2, 3]), &z)]});
    let outputs = in_rows(&app.post_json("/v2/models/two/infer", &asked).expect(200));
    let rows = json!([{"z": z[0], "x": x[0]}, {"x": x[1], "z": z[1]}]);
    let records = as_records(&outputs);
    let (predict, invoke) = ("/v1/models/two:predict", "/invocations");
    let cells = json!([[x[0], z[0]], [x[1], z[1]]]);
    expect_answers(
        &app,
        &[
            (predict, json!({"instances": rows}), json!({"predictions": records})),
            (predict, json!({"inputs": {"x": x, "z": z}}), json!({"outputs": outputs})),
            (invoke, json!({"instances": rows}), json!({"predictions": outputs})),
            (invoke, json!({"inputs": {"x": x, "z": z}}), json!({"predictions": outputs})),
            (invoke, json!({"dataframe_records": rows}), json!({"predictions": records})),
            (
                invoke,
                json!({"dataframe_split": {"columns": ["x", "z"], "data": cells}}),
                json!({"predictions": records}),
            ),
        ],
    );
    for (path, body, fault) in [
        (predict, json!({"instances": x}), "inputs x, z: they are given by their names"),
        (predict, json!({"inputs": x}), "inputs x, z: they are given by their names"),
        (predict, json!({"inputs": {"x": x}}), "input z is missing"),
        (predict, json!({"instances": [{"x": x[0], "w": z[0]}]}), "no input w; it has x, z"),
        (invoke, json!({"instances": x}), "inputs x, z"),
    ] {
        app.post_json(path, &body).expect_problem(400, "invalid_tensor", fault);
    }
    let nameless = json!({"dataframe_split": {"data": cells}});
    app.post_json(invoke, &nameless).expect_problem(400, "invalid_json", "`columns` is missing");
}

#[test]
fn every_fault_of_a_body_is_named() {
    let app = TestApp::with_digits();
    let rows = |width: usize| json!([vec![0.5; width]]);
    let mut too_large = vec![0.0; 64];
    too_large[9] = 1e39;
    let cases = [
        (PREDICT, json!({}), "invalid_json", "one of `instances` and `inputs` is missing"),
        (PREDICT, json!({"instances": rows(64), "inputs": rows(64)}), "invalid_json", "only one of"),
        (
            PREDICT,
            json!({"instances": rows(64), "signature_name": "train"}),
            "invalid_parameter",
            "no signature `train`",
        ),
        (PREDICT, json!([rows(64)]), "invalid_json", "sequence"),
        (PREDICT, json!({"instances": 1}), "invalid_json", "an array of rows"),
        (PREDICT, json!({"instances": []}), "invalid_tensor", "no countable elements"),
        (PREDICT, json!({"instances": rows(63)}), "invalid_tensor", "dimension 1 of input input is 64, found 63"),
        (PREDICT, json!({"instances": vec![0.5; 64]}), "invalid_tensor", "2 dimensions, found 1"),
        (PREDICT, json!({"instances": [rows(64)]}), "invalid_tensor", "2 dimensions, found 3"),
        (PREDICT, json!({"inputs": 0.5}), "invalid_tensor", "2 dimensions, found 0"),
        (PREDICT, json!({"instances": [vec![0.5; 64], vec![0.5; 63]]}), "invalid_json", "ragged"),
        (PREDICT, json!({"instances": [{"x": vec![0.5; 64]}]}), "invalid_tensor", "no input x"),
        (PREDICT, json!({"instances": [too_large]}), "invalid_tensor", "at element 9"),
        (PREDICT, json!({"instances": [vec![true; 64]]}), "invalid_tensor", "has true at element 0"),
        (PREDICT, json!({"instances": [["one"]]}), "invalid_json", "string"),
        (PREDICT, json!({"instances": [{"b64": "b25l"}]}), "invalid_json", "string"),
        (PREDICT, json!({"inputs": {"b64": "b25l"}}), "invalid_json", "string"),
        (INVOKE, json!({}), "invalid_json", "exactly one of `dataframe_split`"),
        (INVOKE, json!({"inputs": rows(64), "instances": rows(64)}), "invalid_json", "exactly one of"),
        (INVOKE, json!({"input": rows(64)}), "invalid_json", "exactly one of"),
        (INVOKE, rows(64), "invalid_json", "sequence"),
        (INVOKE, json!({"inputs": rows(63)}), "invalid_tensor", "is 64, found 63"),
        (INVOKE, json!({"dataframe_split": {"data": rows(63)}}), "invalid_tensor", "is 64, found 63"),
        (INVOKE, json!({"dataframe_split": rows(64)}), "invalid_json", "sequence"),
        (INVOKE, json!({"dataframe_split": {"columns": ["a"], "data": rows(64)}}), "invalid_json", "64 cells in a row"),
        (INVOKE, json!({"dataframe_records": rows(64)}), "invalid_json", "records are objects"),
        (INVOKE, json!({"dataframe_records": []}), "invalid_tensor", "no countable elements"),
        (INVOKE, json!({"dataframe_records": [{"a": 1}, {"b": 1}]}), "invalid_json", "row 1 has `b`"),
        (INVOKE, json!({"dataframe_records": [{"a": 1}]}), "invalid_tensor", "is 64, found 1"),
        (INVOKE, json!({"dataframe_records": [{"a": null}]}), "invalid_json", "null"),
    ];
    for (path, body, code, fault) in cases {
        let answer = app.post_json(path, &body);
        match path {
            PREDICT => expect_protocol_problem(&answer, 400, code, fault),
            _ => answer.expect_problem(400, code, fault),
        }
    }
    let deep = format!(r#"{{"instances": {}0{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    for path in [PREDICT, INVOKE] {
        app.post(path, b"{").expect_problem(400, "invalid_json", "EOF");
        app.post(path, b"").expect_problem(400, "invalid_json", "EOF");
        app.post(path, deep.as_bytes()).expect_problem(400, "invalid_json", "recursion limit");
    }
}

#[test]
fn models_and_versions_are_found_by_path_query_or_header() {
    let app = TestApp::with_digits();
    let body = json!({"inputs": [vec![0.5; 64]]});
    let bytes = body.to_string().into_bytes();
    let invoke = |query: &str, header: Option<&str>| {
        let headers: Vec<_> = header.map(|model| ("x-weightpress-model", model)).into_iter().collect();
        app.send("POST", &format!("/invocations{query}"), &headers, Some(&bytes))
    };
    invoke("", None).expect(200);
    invoke("?version=0", None).expect(200);
    app.upload_model("other", &fixtures::onnx(&fixtures::matmul_with(1.0))).expect(201);
    invoke("", None).expect_problem(400, "invalid_parameter", "more than one model");
    invoke("", Some("digits")).expect(200);
    invoke("?model=digits", Some("digits")).expect(200);
    invoke("?model=digits&version=0", None).expect(200);
    invoke("?model=digits", Some("other")).expect_problem(400, "invalid_parameter", "`digits`");
    invoke("?model=nobody", None).expect_problem(404, "not_found", "nobody");
    invoke("", Some("nobody")).expect_problem(404, "not_found", "nobody");
    invoke("?model=digits&version=1", None).expect_problem(404, "not_found", "1");
    invoke("?model=../digits", None).expect_problem(400, "invalid_name", "../digits");
    invoke("?model=digits&version=one", None).expect_problem(400, "invalid_parameter", "version");
    for (path, status, code, fault) in [
        ("/v1/models/nobody:predict", 404, "not_found", "nobody"),
        ("/v1/models/digits/versions/1:predict", 404, "not_found", "1"),
        ("/v1/models/digits/versions/one:predict", 400, "invalid_parameter", "one"),
    ] {
        expect_protocol_problem(&app.post_json(path, &body), status, code, fault);
        expect_protocol_problem(&app.get(path.trim_end_matches(":predict")), status, code, fault);
    }
    expect_protocol_problem(&app.post_json("/v1/models/%20:predict", &body), 400, "invalid_name", "name");
    expect_protocol_problem(&app.get("/v1/models/%20"), 400, "invalid_parameter", "name");
    let empty = TestApp::start();
    empty.post_json("/invocations", &body).expect_problem(400, "invalid_parameter", "there is no model");
}

#[test]
fn the_default_version_answers_where_none_is_named() {
    let app = TestApp::with_digits();
    app.run_job(&fixtures::compress_digits());
    let body = json!({"inputs": digits()});
    let outputs = |path: &str| app.post_json(path, &body).expect(200).json()["outputs"].clone();
    let versions = [0, 1].map(|version| outputs(&format!("/v1/models/digits/versions/{version}:predict")));
    assert_ne!(versions[0], versions[1]);
    for version in [1, 0] {
        let patch = json!({"default_version": version}).to_string();
        app.send("PATCH", "/api/v1/models/digits", &[], Some(patch.as_bytes())).expect(200);
        assert_eq!(outputs(PREDICT), versions[version]);
        let invoked = app.post_json(INVOKE, &body).expect(200).json();
        assert_eq!(invoked["predictions"]["logits"], versions[version]);
    }
}

#[test]
fn json_is_told_from_other_types_where_mlflow_does() {
    let app = TestApp::with_digits();
    let body = json!({"inputs": digits()}).to_string().into_bytes();
    let send = |path: &str, kind: &str| app.send("POST", path, &[("content-type", kind)], Some(&body));
    for kind in ["application/json", "application/json; charset=utf-8"] {
        send(INVOKE, kind).expect(200);
    }
    for kind in ["text/csv", "application/json; charset=utf-16", "application/octet-stream"] {
        let refused = send(INVOKE, kind);
        assert_eq!(refused.header("accept"), Some("application/json"));
        refused.expect_problem(415, "unsupported_media_type", kind);
    }
    send(PREDICT, "application/x-www-form-urlencoded").expect(200);
}

#[test]
fn bodies_and_answers_may_be_compressed() {
    let app = TestApp::with_digits();
    let many = [digits(), digits(), digits(), digits()].concat();
    let body = json!({"inputs": many}).to_string();
    for path in [PREDICT, INVOKE] {
        let plain = app.post(path, body.as_bytes()).expect(200).json();
        let headers = [("content-encoding", "gzip"), ("accept-encoding", "gzip")];
        let answer = app.send("POST", path, &headers, Some(&encode("gzip", body.as_bytes()))).expect(200);
        assert_eq!(serde_json::from_slice::<Value>(&decode(&answer)).unwrap(), plain);
    }
}

#[test]
fn models_tell_their_state_and_signature() {
    let app = TestApp::with_digits();
    app.run_job(&fixtures::compress_digits());
    let version = |number: &str| {
        let status = json!({"error_code": "OK", "error_message": ""});
        json!({"version": number, "state": "AVAILABLE", "status": status})
    };
    let status = app.get("/v1/models/digits").expect(200).json();
    assert_eq!(status, json!({"model_version_status": [version("1"), version("0")], "ready": true}));
    let status = app.get("/v1/models/digits/versions/1").expect(200).json();
    assert_eq!(status["model_version_status"], json!([version("1")]));
    let metadata = app.get("/v1/models/digits/versions/1/metadata").expect(200).json();
    assert_eq!(metadata["model_spec"], json!({"name": "digits", "signature_name": "", "version": "1"}));
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    let dims = json!([{"size": "-1", "name": ""}, {"size": "64", "name": ""}]);
    assert_eq!(signature["inputs"]["input"]["dtype"], "DT_FLOAT");
    assert_eq!(signature["inputs"]["input"]["tensor_shape"], json!({"dim": dims, "unknown_rank": false}));
    assert_eq!(signature["outputs"]["logits"]["tensor_shape"]["dim"][1]["size"], "10");
    assert_eq!(app.get("/v1/models/digits/metadata").expect(200).json()["model_spec"]["version"], "0");
}

#[test]
fn models_that_cannot_predict_say_why() {
    let app = TestApp::start();
    app.upload_model("odd", &fixtures::onnx(&fixtures::unsupported_model())).expect(201);
    let body = json!({"inputs": [[1, 2, 3, 4], [1, 2, 3, 4]]});
    let answer = app.post_json("/v1/models/odd:predict", &body);
    expect_protocol_problem(&answer, 422, "not_predictable", "MadeUpOperator");
    app.post_json("/invocations", &body).expect_problem(422, "not_predictable", "MadeUpOperator");
    let status = app.get("/v1/models/odd").expect(200).json();
    assert_eq!((&status["ready"], &status["model_version_status"][0]["state"]), (&json!(false), &json!("END")));
    let reason = &status["model_version_status"][0]["status"];
    assert!(reason["error_message"].as_str().unwrap().contains("MadeUpOperator"), "{reason}");
}

#[test]
fn a_verb_belongs_to_its_method() {
    let app = TestApp::with_digits();
    for noun in ["/v1/models/digits", "/v1/models/digits/versions/0"] {
        let verb = format!("{noun}:predict");
        let got = app.get(&verb);
        assert_eq!(got.header("allow"), Some("POST"));
        expect_protocol_problem(&got, 405, "method_not_allowed", &verb);
        let posted = app.post_json(noun, &json!({}));
        assert_eq!(posted.header("allow"), Some("GET, HEAD"));
        expect_protocol_problem(&posted, 405, "method_not_allowed", noun);
        let other = format!("{noun}:classify");
        expect_protocol_problem(&app.post_json(&other, &json!({})), 404, "no_route", &other);
        expect_protocol_problem(&app.get(&other), 404, "no_route", &other);
    }
}

#[test]
fn the_scoring_server_says_how_it_is() {
    let app = TestApp::locked();
    for path in ["/ping", "/health"] {
        assert_eq!(app.get(path).expect(200).json(), json!({"status": "ok"}));
    }
    assert_eq!(app.get("/version").expect(200).body, env!("CARGO_PKG_VERSION").as_bytes());
}

#[test]
fn every_protocol_is_counted_and_batched_alike() {
    let app = TestApp::start_with(|config| (config.max_batch, config.max_delay_us) = (4, 20_000_000));
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    let digit = vec![0.5; 64];
    let body = json!({"inputs": [digit]});
    let oip = json!({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": digit}]});
    let asked = [(PREDICT, &body), (INVOKE, &body), ("/v2/models/digits/infer", &oip), (PREDICT, &body)];
    // Four samples are a batch, so that nobody waits for more.
    std::thread::scope(|scope| {
        for (path, body) in asked {
            let app = &app;
            scope.spawn(move || app.post_json(path, body).expect(200));
        }
    });
    let metrics = String::from_utf8(app.get("/metrics").expect(200).body).unwrap();
    assert!(metrics.contains("weightpress_prediction_batch_samples_count"), "{metrics}");
    for path in [PREDICT, INVOKE] {
        app.post_json(path, &json!({"inputs": [[0.5]]})).expect(400);
    }
    let stats = app.get("/v2/models/digits/stats").expect(200).json()["model_stats"][0].clone();
    let times = &stats["inference_stats"];
    assert_eq!((&stats["inference_count"], &times["success"]["count"]), (&json!(4), &json!(4)), "{stats}");
    assert_eq!(times["fail"]["count"], 2, "{stats}");
}
