//! Requests that are not understood: wrong routes, methods and JSON.

use serde_json::json;

use crate::harness::TestApp;

#[test]
fn unknown_routes_and_methods_are_problems() {
    let app = TestApp::start();
    app.get("/").expect_problem(404, "no_route", "/");
    app.get("/api/v1/nothing").expect_problem(404, "no_route", "/api/v1/nothing");
    let wrong = app.delete("/api/v1/models");
    let allowed = wrong.header("allow").unwrap();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    wrong.expect_problem(405, "method_not_allowed", "DELETE");
}

#[test]
fn broken_json_is_refused_wherever_json_is_read() {
    let app = TestApp::with_digits();
    let before = app.contents();
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let deep_recipe = format!(r#"{{"kind": "compress", "model": "digits", "recipe": {deep}}}"#);
    let deep_data = format!(r#"{{"inputs": [{{"name": "input", "shape": [1], "datatype": "FP32", "data": {deep}}}]}}"#);
    for (path, body, fault) in [
        ("/api/v1/jobs", "", "EOF"),
        ("/api/v1/jobs", "{", "EOF"),
        ("/api/v1/jobs", "not json", "expected"),
        ("/api/v1/jobs", &deep_recipe, "recursion limit"),
        ("/v2/models/digits/infer", "{", "EOF"),
        ("/v2/models/digits/infer", &deep, "invalid type: sequence"),
        ("/v2/models/digits/infer", &deep_data, "recursion limit"),
    ] {
        app.post(path, body.as_bytes()).expect_problem(400, "invalid_json", fault);
    }
    app.post("/api/v1/jobs", deep.as_bytes()).expect_problem(422, "invalid_body", "invalid type: sequence");
    app.post_json("/api/v1/jobs", &json!({})).expect_problem(422, "invalid_body", "kind");
    let too_large = vec![b' '; (1 << 20) + 1];
    app.post("/api/v1/jobs", &too_large).expect_problem(413, "too_large", "1048576");
    assert_eq!(app.contents(), before);
}

#[test]
fn request_ids_are_kept_or_made() {
    let app = TestApp::start();
    let answer = app.send("GET", "/livez", &[("x-request-id", "trace-1")], None).expect(200);
    assert_eq!(answer.header("x-request-id"), Some("trace-1"));
    let made = app.get("/livez").header("x-request-id").unwrap().to_owned();
    assert!(uuid::Uuid::try_parse(&made).is_ok(), "{made}");
    let hostile = "x".repeat(1000);
    let answer = app.send("GET", "/nothing", &[("x-request-id", &hostile)], None);
    assert_ne!(answer.header("x-request-id"), Some(&*hostile));
    answer.expect_problem(404, "no_route", "/nothing");
}
