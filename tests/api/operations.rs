//! What operators and machines ask.

use std::io::{Read, Write};
use std::net::TcpStream;

use ureq::Body;
use ureq::http::Response;
use weightpress::telemetry::{METRICS, Metric, MetricKind};

use crate::client::Client;
use crate::fixtures;
use crate::harness::{PostgresDatabase, TestApp, wait_until};
use crate::program::Process;

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

/// A line of `/metrics`: name, labels, value.
type Series<'a> = (&'a str, Vec<(&'a str, &'a str)>, f64);

fn series(line: &str) -> Series<'_> {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap().trim_end_matches('"');
    let labels = labels.split("\",").filter_map(|label| label.split_once("=\"")).collect();
    (name, labels, value.parse().unwrap())
}

#[test]
fn every_metric_is_there_after_work_and_labels_say_what_they_may() {
    let app = TestApp::with_digits();
    assert_eq!(app.run_job(&fixtures::compress_digits())["status"], "succeeded");
    app.post_json("/v2/models/digits/infer", &fixtures::digits_request()).expect(200);
    assert_eq!(app.post_json("/v2/models/digits/infer", &serde_json::json!({"inputs": []})).status, 400);
    app.get("/nowhere/1").expect_problem(404, "no_route", "/nowhere/1");
    let document = app.get("/openapi.json").expect(200).json();
    let text = String::from_utf8(app.get("/metrics").expect(200).body).unwrap();
    let all: Vec<_> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(series).collect();

    let route_is_known = |route: &str| {
        let is_page = ["/docs", "/openapi."].iter().any(|page| route.starts_with(page));
        route == "unmatched" || is_page || document["paths"].get(route).is_some()
    };
    for Metric { name, kind, labels, help } in METRICS {
        let (word, part) = match kind {
            MetricKind::Counter => ("counter", ""),
            MetricKind::Gauge => ("gauge", ""),
            MetricKind::Histogram(_) => ("histogram", "_count"),
        };
        assert!(text.contains(&format!("# HELP {name} {help}\n# TYPE {name} {word}\n")), "{name} is not described");
        let own: Vec<_> = all.iter().filter(|(other, ..)| *other == format!("{name}{part}")).collect();
        assert!(!own.is_empty(), "{name} is missing");
        for (_, found, value) in own {
            assert_eq!(found.len(), labels.len(), "{name}: {found:?}");
            assert!(value.is_finite() && *value >= 0.0, "{name}: {value}");
            for (label, value) in found {
                let known =
                    labels.iter().find(|known| known.name == *label).unwrap_or_else(|| panic!("{name}: {label}"));
                let is_bounded = match *label {
                    "route" => route_is_known(value),
                    "status" => value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_digit()),
                    "method" => !value.is_empty() && value.len() <= "OPTIONS".len(),
                    _ => known.values.contains(value),
                };
                assert!(is_bounded, "{name}: {label} is {value}");
            }
        }
    }
    let described: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in described {
        assert!(METRICS.iter().any(|metric| metric.name == name), "{name} is not in the table");
    }

    let value = |name: &str, labels: &[(&str, &str)]| {
        let is_it =
            |(other, found, _): &&Series<'_>| *other == name && labels.iter().all(|label| found.contains(label));
        all.iter().filter(is_it).map(|(.., value)| value).sum::<f64>()
    };
    for outcome in ["answered", "refused"] {
        assert!(value("weightpress_inference_requests_total", &[("outcome", outcome)]) >= 1.0, "{outcome}");
        assert!(value("weightpress_inference_duration_seconds_count", &[("outcome", outcome)]) >= 1.0, "{outcome}");
    }
    for stage in ["prune", "quantize", "encode", "write", "evaluate"] {
        assert!(value("weightpress_job_stage_duration_seconds_count", &[("stage", stage)]) >= 1.0, "{stage}");
    }
    assert_eq!(
        value("weightpress_job_stage_duration_seconds_count", &[("stage", "other")]),
        0.0,
        "a stage has no name"
    );
    assert!(value("weightpress_compression_ratio_sum", &[]) > 3.0);
    assert!(value("process_start_time_seconds", &[]) > 1.7e9);
    assert!(value("process_resident_memory_bytes", &[]) > 1e6);
    assert!(value("weightpress_executor_threads", &[("pool", "requests")]) >= 1.0);
}

#[test]
fn worker_that_is_given_an_address_says_how_it_is_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let database = PostgresDatabase::create();
    let (_worker, client) = Process::listening_worker(folder.path(), database.as_ref());
    client.get("/livez").expect(200);
    client.get("/readyz").expect(200);
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    assert!(metrics.contains("\nweightpress_executor_threads{pool=\"jobs\"} 1\n"), "{metrics}");
    client.get("/api/v1/models").expect_problem(404, "no_route", "/api/v1/models");
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
