//! Events of jobs: pages, and streams that can be taken up again.

use std::io::{BufRead, BufReader};

use crate::fixtures::compress_digits;
use crate::harness::TestApp;

/// One server-sent event: id, kind and data.
type SentEvent = (i64, String, serde_json::Value);

/// The events of a stream, read to its end.
fn follow(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Vec<SentEvent> {
    let headers = [headers, &[("accept", "text/event-stream")]].concat();
    let response = app.open("GET", path, &headers, None).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = Vec::new();
    let (mut id, mut kind) = (0, String::new());
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.unwrap();
        match line.split_once(": ") {
            Some(("id", value)) => id = value.parse().unwrap(),
            Some(("event", value)) => kind = value.to_owned(),
            Some(("data", value)) => events.push((id, kind.clone(), serde_json::from_str(value).unwrap())),
            _ => {}
        }
    }
    events
}

#[test]
fn stream_follows_a_job_to_its_end() {
    let app = TestApp::with_digits();
    let job = app.post_json("/api/v1/jobs", &compress_digits()).expect(202).json();
    let path = job["urls"]["events"].as_str().unwrap();
    let events = follow(&app, path, &[]);
    let ids: Vec<i64> = events.iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, (1..=events.len() as i64).collect::<Vec<_>>(), "no gaps");
    let kinds: Vec<&str> = events.iter().map(|(_, kind, _)| kind.as_str()).collect();
    assert_eq!((kinds[0], kinds[1], kinds[kinds.len() - 1]), ("queued", "started", "succeeded"), "{kinds:?}");
    assert!(events.iter().all(|(id, kind, data)| data["seq"] == *id && data["kind"] == kind.as_str()));

    let rest = follow(&app, path, &[("last-event-id", "2")]);
    assert_eq!(rest, events[2..], "a lost connection misses nothing");
    assert_eq!(follow(&app, &format!("{path}?after=2"), &[]), rest);
}

#[test]
fn stream_of_a_finished_job_is_not_taken_up_again() {
    let app = TestApp::with_digits();
    let job = app.run_job(&compress_digits());
    let path = job["urls"]["events"].as_str().unwrap();
    let events = follow(&app, path, &[]);
    let last = events.last().unwrap().0.to_string();
    let resume = [("accept", "text/event-stream"), ("last-event-id", last.as_str())];
    // The one answer after which an `EventSource` does not come back.
    assert!(app.send("GET", path, &resume, None).expect(204).body.is_empty());
}

#[test]
fn events_come_in_pages() {
    let app = TestApp::with_digits();
    let job = app.run_job(&compress_digits());
    let path = job["urls"]["events"].as_str().unwrap();
    let all = app.get(path).expect(200).json();
    assert_eq!(all["has_more"], false);
    let first = app.get(&format!("{path}?limit=2")).expect(200);
    assert_eq!(first.json()["items"].as_array().unwrap()[..], all["items"].as_array().unwrap()[..2]);
    assert_eq!(first.header("link"), Some(&*format!("<{path}?limit=2&after=2>; rel=\"next\"")));
    let rest = app.get(&format!("{path}?after=2")).expect(200).json();
    assert_eq!(rest["items"].as_array().unwrap()[..], all["items"].as_array().unwrap()[2..]);
}

#[test]
fn events_of_nothing_are_refused() {
    let app = TestApp::with_digits();
    let unknown = "0198a000-0000-7000-8000-000000000000";
    app.get(&format!("/api/v1/jobs/{unknown}/events")).expect_problem(404, "not_found", unknown);
    let job = app.run_job(&compress_digits());
    let path = job["urls"]["events"].as_str().unwrap();
    app.get(&format!("{path}?after=x")).expect_problem(400, "invalid_parameter", "after");
    let headers = [("last-event-id", "x")];
    app.send("GET", path, &headers, None).expect_problem(400, "invalid_header", "Last-Event-ID");
}

#[test]
fn stream_ends_when_the_service_stops() {
    let mut app = TestApp::start_with(|config| config.workers = 0);
    app.upload_model("digits", crate::fixtures::DIGITS).expect(201);
    let spec = serde_json::json!({"kind": "compress", "model": "digits", "recipe": {}});
    let job = app.post_json("/api/v1/jobs", &spec).expect(202).json();
    let headers = [("accept", "text/event-stream")];
    let response = app.open("GET", job["urls"]["events"].as_str().unwrap(), &headers, None).unwrap();
    let mut lines = BufReader::new(response.into_body().into_reader()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "id: 1");
    app.stop();
    // Reads to the end of the stream: it is closed, not cut.
    assert!(lines.all(|line| line.is_ok()));
}
