//! What operators and machines ask.

use std::io::{Read, Write};
use std::net::TcpStream;

use ureq::Body;
use ureq::http::Response;

use crate::client::Client;
use crate::fixtures;
use crate::harness::{TestApp, wait_until};

#[test]
fn service_says_that_it_lives_and_is_ready() {
    let app = TestApp::start();
    assert_eq!(app.get("/livez").expect(200).json()["status"], "ok");
    assert_eq!(app.get("/readyz").expect(200).json()["status"], "ok");
}

#[test]
fn metrics_count_requests_by_route() {
    let app = TestApp::with_digits();
    app.get("/api/v1/models/digits").expect(200);
    let metrics = app.get("/metrics").expect(200);
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(metrics.body).unwrap();
    let counted = |line: &str| {
        let is_it = line.starts_with("http_requests_total{");
        is_it && line.contains("route=\"/api/v1/models/{name}\"") && line.contains("status=\"200\"")
    };
    assert!(text.lines().any(counted), "{text}");
    assert!(text.contains("http_request_duration_seconds"), "{text}");
}

#[test]
fn documentation_works_without_a_network() {
    let app = TestApp::start();
    let page = String::from_utf8(app.get("/docs/").expect(200).body).unwrap();
    assert!(page.contains("swagger-ui-bundle.js"));
    for part in page.split('"').filter(|part| part.ends_with(".js") || part.ends_with(".css")) {
        let path = part.trim_start_matches("./").trim_start_matches("/docs/");
        assert!(!part.starts_with("http"), "{part}");
        app.get(&format!("/docs/{path}")).expect(200);
    }
    app.get("/openapi.json").expect(200).json();
}

#[test]
fn committed_openapi_document_is_the_one_that_is_served() {
    let app = TestApp::start();
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/api/openapi.yaml")).unwrap();
    let served = String::from_utf8(app.get("/openapi.yaml").expect(200).body).unwrap();
    assert_eq!(served, weightpress::http::openapi_yaml());
    let fresh = concat!(env!("CARGO_TARGET_TMPDIR"), "/openapi.yaml");
    std::fs::write(fresh, &served).unwrap();
    assert!(
        served == committed,
        "api/openapi.yaml is stale; `weightpress openapi` prints the fresh one, {fresh} holds it"
    );
}

#[test]
fn stopping_service_finishes_what_it_began_and_says_that_it_is_not_ready() {
    let mut app = TestApp::start();
    let mut upload = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
    let (first, rest) = fixtures::DIGITS.split_at(1000);
    let length = fixtures::DIGITS.len();
    write!(upload, "POST /api/v1/models?name=late HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")
        .unwrap();
    upload.write_all(first).unwrap();
    // A staging file tells that the upload is being handled.
    wait_until("the upload has begun", || !app.contents().is_empty());

    app.begin_stop();
    // A client each, so that each has a new connection: idle ones are closed, perhaps just as they are used.
    let fresh = || Client::new(app.base.clone());
    let is_refused = |answer: Result<Response<Body>, _>| answer.is_ok_and(|answer| answer.status() == 503);
    wait_until("the service says that it stops", || is_refused(fresh().open("GET", "/readyz", &[], None)));
    fresh().get("/readyz").expect_problem(503, "not_ready", "not ready");
    fresh().get("/livez").expect(200);
    fresh().upload_model("new", fixtures::DIGITS).expect_problem(503, "not_ready", "not ready");
    let answer = fresh().post_json("/v2/models/digits/infer", &fixtures::digits_request());
    answer.expect_problem(503, "not_ready", "not ready");
    assert_eq!(answer.json()["error"], answer.json()["detail"]);

    upload.write_all(rest).unwrap();
    let mut answer = [0; 12];
    upload.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    app.stop();
    assert!(app.open("GET", "/livez", &[], None).is_err());
}

#[test]
fn stopped_service_answers_what_is_in_flight_and_no_more() {
    let mut app = TestApp::start();
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    app.stop();
    assert!(app.open("GET", "/livez", &[], None).is_err());
}
