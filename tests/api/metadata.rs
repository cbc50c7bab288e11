//! Metadata of models and jobs: set, shown, changed, and lists by them.

use serde_json::{Value, json};

use crate::fixtures;
use crate::harness::TestApp;

/// Names or ids of a list's entries, page by page of one.
fn listed(app: &TestApp, path: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = app.get(&path).expect(200);
        let items = page.json()["items"].clone();
        found.extend(items.as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned()));
        next = page.header("link").map(|link| link.strip_prefix('<').unwrap().split_once('>').unwrap().0.to_owned());
    }
    found
}

fn patch(app: &TestApp, change: Value) -> crate::client::Answer {
    app.send("PATCH", "/api/v1/models/a", &[], Some(change.to_string().as_bytes()))
}

#[test]
fn models_are_noted_changed_and_found() {
    let app = TestApp::start();
    let upload = |name: &str, pairs: &str| app.post(&format!("/api/v1/models?name={name}&{pairs}"), fixtures::DIGITS);
    let a = upload("a", "metadata.team=vision&metadata.git/sha=a%26b+c").expect(201).json();
    assert_eq!(a["metadata"], json!({"team": "vision", "git/sha": "a&b c"}));
    assert_eq!(app.get("/api/v1/models/a").expect(200).json(), a);
    upload("b", "metadata.team=vision").expect(201);
    upload("c", "metadata.team=text").expect(201);
    // The same file again, noted otherwise: what is there stays.
    assert_eq!(upload("a", "metadata.team=text").expect(200).json(), a);
    assert_eq!(listed(&app, "/api/v1/models?metadata.team=vision&limit=1", "name"), ["a", "b"]);
    let both = "/api/v1/models?limit=1&metadata.team=vision&metadata.git%2Fsha=a%26b%20c";
    assert_eq!(listed(&app, both, "name"), ["a"]);
    assert_eq!(listed(&app, "/api/v1/models?metadata.team=", "name"), [""; 0]);

    let changed = patch(&app, json!({"metadata": {"git/sha": null, "stage": "live"}})).expect(200).json();
    assert_eq!(changed["metadata"], json!({"team": "vision", "stage": "live"}));
    assert_eq!(changed["default_version"], 0);
    assert_eq!(patch(&app, json!({})).expect(200).json(), changed);
    assert_eq!(listed(&app, "/api/v1/models?metadata.stage=live", "name"), ["a"]);
    assert_eq!(patch(&app, json!({"metadata": null})).expect(200).json()["metadata"], json!({}));
}

#[test]
fn jobs_are_noted_and_found() {
    let app = TestApp::start_with(|config| config.workers = 0);
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    let spec = |metadata: Value| json!({"kind": "compress", "model": "digits", "recipe": {}, "metadata": metadata});
    let submit = |metadata: Value| {
        let job = app.post_json("/api/v1/jobs", &spec(metadata.clone())).expect(202).json();
        assert_eq!(job["metadata"], metadata);
        job["id"].as_str().unwrap().to_owned()
    };
    let ids = [submit(json!({"run": "7", "owner": "é"})), submit(json!({})), submit(json!({"run": "7"}))];
    let noted = app.get(&format!("/api/v1/jobs/{}", ids[0])).expect(200).json();
    assert_eq!(noted["metadata"], json!({"run": "7", "owner": "é"}));
    let newest_first = [ids[2].clone(), ids[0].clone()];
    assert_eq!(listed(&app, "/api/v1/jobs?limit=1&metadata.run=7", "id"), newest_first);
    assert_eq!(
        listed(&app, "/api/v1/jobs?limit=1&metadata.run=7&metadata.owner=%C3%A9&status=queued", "id"),
        [&*ids[0]]
    );
    assert_eq!(listed(&app, "/api/v1/jobs?metadata.run=7&status=failed", "id"), [""; 0]);
    let search = json!({"kind": "search", "model": "digits", "dataset": "x", "metadata": {"a b": "v"}});
    app.post_json("/api/v1/jobs", &search).expect_problem(422, "invalid_body", "metadata");
}

#[test]
fn the_same_name_with_other_metadata_is_another_request() {
    let app = TestApp::start_with(|config| config.workers = 0);
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    let send = |metadata: Value| {
        let spec = json!({"kind": "compress", "model": "digits", "recipe": {}, "metadata": metadata});
        app.send("POST", "/api/v1/jobs", &[("idempotency-key", "x")], Some(spec.to_string().as_bytes()))
    };
    let first = send(json!({"a": "1", "b": "2"})).expect(202).json();
    assert_eq!(send(json!({"b": "2", "a": "1"})).expect(202).json(), first);
    send(json!({"a": "1"})).expect_problem(422, "idempotency_key_reused", "x");
}

#[test]
fn what_is_no_metadata_is_refused_and_changes_nothing() {
    let app = TestApp::start();
    app.upload_model("a", fixtures::DIGITS).expect(201);
    let before = app.contents();
    let long = "v".repeat(513);
    for (pairs, fault) in [
        ("metadata.=v", "does not match"),
        ("metadata.a%20b=v", "a b"),
        ("metadata.a=%00", "NUL"),
        ("metadata.a=1&metadata.a=2", "twice"),
        (&*format!("metadata.a={long}"), "513"),
    ] {
        app.post(&format!("/api/v1/models?name=b&{pairs}"), fixtures::DIGITS).expect_problem(
            400,
            "invalid_parameter",
            fault,
        );
        for list in ["models", "jobs"] {
            app.get(&format!("/api/v1/{list}?{pairs}")).expect_problem(400, "invalid_parameter", fault);
        }
    }
    let many: serde_json::Map<String, Value> = (0..33).map(|index| (format!("k{index}"), json!("v"))).collect();
    for (metadata, fault) in [
        (json!({".a": "v"}), "does not match"),
        (json!({"a": 7}), "string"),
        (json!({"a": "\0"}), "NUL"),
        (json!({"a": long}), "513"),
        (json!(many), "33"),
        (json!([]), "map"),
    ] {
        let spec = json!({"kind": "compress", "model": "a", "recipe": {}, "metadata": metadata});
        app.post_json("/api/v1/jobs", &spec).expect_problem(422, "invalid_body", fault);
    }
    patch(&app, json!({"metadata": {"a b": "v"}})).expect_problem(422, "invalid_body", "a b");
    patch(&app, json!({"metadata": many})).expect_problem(422, "invalid_metadata", "33");
    patch(&app, json!({"default_version": null})).expect_problem(422, "invalid_body", "default_version");
    assert_eq!(app.contents(), before);
}
