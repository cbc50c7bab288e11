//! Who may do what: keys, scopes, tenants, quotas, names and origins.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weightpress::access::{ApiKey, Scope};
use weightpress::storage::{Bounds, NewKey};

use crate::client::{Answer, Client};
use crate::fixtures;
use crate::harness::{TestApp, wait_until};

/// What `owner` has, by its identifier.
struct Owned {
    job: String,
    webhook: String,
    upload: String,
}

/// What every request for an upload in parts has, and one that appends a part.
const UPLOAD_HEADERS: [(&str, &str); 4] = [
    ("tus-resumable", "1.0.0"),
    ("upload-length", "10"),
    ("upload-offset", "0"),
    ("content-type", "application/offset+octet-stream"),
];

/// A service that asks for keys, and a client of tenant `owner` who may do everything and has the digits network, its data,
/// a job, a webhook and an unfinished upload.
fn with_owner() -> (TestApp, Client, Owned) {
    let app = TestApp::locked();
    let owner = app.with_key(&app.key("owner", &Scope::ALL, None));
    owner.upload_model("digits", fixtures::DIGITS).expect(201);
    owner.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
    let job = owner.run_job(&fixtures::evaluation_job());
    let webhook = owner.post_json("/api/v1/webhooks", &json!({"url": "https://example.com/"})).expect(201).json();
    let id_of = |made: &Value| made["id"].as_str().unwrap().to_owned();
    let upload = owner.send("POST", "/api/v1/uploads", &UPLOAD_HEADERS, None).expect(201);
    let upload = upload.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    let owned = Owned { job: id_of(&job), webhook: id_of(&webhook), upload };
    (app, owner, owned)
}

/// Every operation of the API's description: method, path with names filled in, and the scopes of which one opens it; none
/// where it is open to all.
fn operations(app: &TestApp, owned: &Owned) -> Vec<(String, String, Vec<String>)> {
    let document = app.get("/openapi.json").expect(200).json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled = [
            ("{name}", "digits"),
            ("{number}", "0"),
            ("{version}", "0"),
            ("{id}", if path.contains("/uploads/") { &*owned.upload } else { &*owned.job }),
            ("{webhook}", &*owned.webhook),
            ("{delivery}", &*owned.job),
        ];
        let filled = filled.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
        assert!(!filled.contains('{'), "{filled}");
        for (method, operation) in methods.as_object().unwrap() {
            let alternatives =
                operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path}: no security"));
            let words =
                alternatives.iter().filter_map(|alternative| alternative.get("key")).flat_map(|words| words.as_array());
            let scopes = words.flatten().map(|word| word.as_str().unwrap().to_owned()).collect();
            operations.push((method.to_uppercase(), filled.clone(), scopes));
        }
    }
    assert!(operations.len() > 25, "{operations:?}");
    operations
}

fn call(client: &Client, method: &str, path: &str) -> Answer {
    let body = matches!(method, "POST" | "PATCH").then_some(&b"{}"[..]);
    client.send(method, path, headers_of(path), body)
}

fn headers_of(path: &str) -> &'static [(&'static str, &'static str)] {
    if path.contains("/uploads") { &UPLOAD_HEADERS } else { &[] }
}

/// As [`Answer::expect_problem`], but of a `HEAD`, whose answer says no more than its status.
#[track_caller]
fn expect_problem(answer: &Answer, method: &str, (status, code, fault): (u16, &str, &str)) {
    match method {
        "HEAD" => assert_eq!((answer.status, answer.body.len()), (status, 0)),
        _ => answer.expect_problem(status, code, fault),
    }
}

#[test]
fn every_operation_is_closed_without_a_key_and_to_too_narrow_ones() {
    let (app, owner, owned) = with_owner();
    let before = owner.get("/api/v1/models/digits").expect(200).json();
    for (method, path, scopes) in operations(&app, &owned) {
        if scopes.is_empty() {
            assert!(call(&app, &method, &path).status < 300, "{method} {path}");
            continue;
        }
        let answer = call(&app, &method, &path);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"weightpress\""), "{method} {path}");
        expect_problem(&answer, &method, (401, "unauthenticated", "a key is needed"));
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| !scopes.contains(&scope.to_string())).collect();
        let narrow = app.with_key(&app.key("owner", &others, None));
        expect_problem(&call(&narrow, &method, &path), &method, (403, "forbidden", &scopes[0]));
    }
    assert_eq!(owner.get("/api/v1/models/digits").expect(200).json(), before);
}

#[test]
fn methods_that_are_not_there_are_told_whoever_asks() {
    let app = TestApp::locked();
    for path in ["/livez", "/api/v1/models", "/v2/models/digits/infer"] {
        let answer = app.send("PUT", path, &[], Some(b""));
        assert!(answer.header("allow").is_some(), "{path}");
        answer.expect_problem(405, "method_not_allowed", "PUT");
    }
}

#[test]
fn a_foreign_key_finds_nothing_and_changes_nothing() {
    let (app, owner, owned) = with_owner();
    let stranger = app.with_key(&app.key("stranger", &Scope::ALL, None));
    let seen = |client: &Client| {
        ["models", "datasets", "jobs", "webhooks", "models/digits", "datasets/digits"]
            .map(|path| client.get(&format!("/api/v1/{path}")).expect(200).json())
    };
    let before = seen(&owner);
    for (method, path, scopes) in operations(&app, &owned) {
        let is_of_somebody =
            ["digits", &owned.job, &owned.webhook, &owned.upload].iter().any(|owned| path.contains(owned));
        if !is_of_somebody || scopes.is_empty() {
            continue;
        }
        let body = match (method.as_str(), path.as_str()) {
            ("PATCH", path) if path.contains("/webhooks/") => Some(json!({"enabled": false}).to_string()),
            ("PATCH", _) => Some(json!({"default_version": 0}).to_string()),
            ("POST", path) if path.ends_with("/infer") => Some(fixtures::digits_request().to_string()),
            ("POST", _) => Some(String::new()),
            _ => None,
        };
        let answer = stranger.send(&method, &path, headers_of(&path), body.as_deref().map(str::as_bytes));
        expect_problem(&answer, &method, (404, "not_found", "there is no"));
    }
    for list in ["models", "datasets", "jobs", "webhooks"] {
        assert_eq!(stranger.get(&format!("/api/v1/{list}")).expect(200).json()["items"], json!([]), "{list}");
    }
    let asked = fixtures::evaluation_job();
    stranger.post_json("/api/v1/jobs", &asked).expect_problem(404, "not_found", "digits");
    assert_eq!(seen(&owner), before);
    let upload = owner.send("HEAD", &format!("/api/v1/uploads/{}", owned.upload), &UPLOAD_HEADERS, None).expect(200);
    assert_eq!(upload.header("upload-offset"), Some("0"));
}

#[test]
fn the_same_name_and_the_same_bytes_belong_to_each_tenant_alone() {
    let (app, owner, _) = with_owner();
    let other = app.with_key(&app.key("other", &Scope::ALL, None));
    // Not "it was there already": that would tell what others have.
    let uploaded = other.upload_model("digits", fixtures::DIGITS).expect(201).json();
    assert_eq!(uploaded["sha256"], owner.get("/api/v1/models/digits").expect(200).json()["sha256"]);
    owner.delete("/api/v1/models/digits").expect(204);
    let content = other.get("/api/v1/models/digits/versions/0/content").expect(200);
    assert_eq!(content.body, fixtures::DIGITS, "the file that both had is still there");
    other.post_json("/v2/models/digits/infer", &fixtures::digits_request()).expect(200);
}

#[test]
fn wrong_keys_are_refused_in_the_same_words() {
    let app = TestApp::locked();
    let key = app.key("owner", &[Scope::Read], None);
    app.with_key(&key).get("/api/v1/models").expect(200);
    let (id, secret) = key.rsplit_once('_').unwrap();
    let last = if secret.ends_with('0') { '1' } else { '0' };
    let wrong_secret = format!("{id}_{}{last}", &secret[..63]);
    let unknown = format!("wp_0123456789abcdef_{secret}");
    let words = |key: &str| app.with_key(key).get("/api/v1/models").json()["detail"].clone();
    assert_eq!(words(&wrong_secret), words(&unknown));
    for key in [&*wrong_secret, &*unknown, id, "wp_", "x"] {
        app.with_key(key).get("/api/v1/models").expect_problem(401, "unauthenticated", "");
    }
}

#[test]
fn admins_make_and_revoke_keys_of_their_own_tenant() {
    let app = TestApp::locked();
    let admin = app.with_key(&app.key("owner", &[Scope::Admin], None));
    let foreign = app.with_key(&app.key("other", &[Scope::Admin], None));
    let made = admin.post_json("/api/v1/keys", &json!({"name": "ci", "scopes": ["read", "read"], "valid_days": 30}));
    let made = made.expect(201).json();
    assert_eq!(made["scopes"], json!(["read"]));
    let reader = app.with_key(made["key"].as_str().unwrap());
    reader.get("/api/v1/models").expect(200);
    let listed = admin.get("/api/v1/keys").expect(200);
    assert!(!String::from_utf8_lossy(&listed.body).contains(made["key"].as_str().unwrap().rsplit_once('_').unwrap().1));
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 2);
    let path = format!("/api/v1/keys/{}", made["id"].as_str().unwrap());
    foreign.delete(&path).expect_problem(404, "not_found", "key");
    admin.delete(&path).expect(204);
    admin.delete(&path).expect(204);
    wait_until("the revoked key is forgotten", || reader.get("/api/v1/models").status == 401);
    for (asked, fault) in [
        (json!({"name": "", "scopes": ["read"]}), "name"),
        (json!({"name": "x", "scopes": []}), "scopes"),
        (json!({"name": "x", "scopes": ["root"]}), "root"),
        (json!({"name": "x", "scopes": ["metrics"]}), "metrics"),
        (json!({"name": "x", "scopes": ["read"], "valid_days": 0}), "valid_days"),
        (json!({"name": "x", "scopes": ["read"], "tenant": "other"}), "tenant"),
    ] {
        admin.post_json("/api/v1/keys", &asked).expect_problem(422, "invalid_body", fault);
    }
}

#[test]
fn an_expired_key_opens_nothing() {
    let app = TestApp::locked();
    let key = ApiKey::generate().unwrap();
    // Over before it began.
    let new = NewKey { name: "old".to_owned(), scopes: vec![Scope::Read].into(), valid_days: Some(-1) };
    app.with_store(async |store| store.insert_key(&key, &new).await.unwrap());
    app.with_key(&key.reveal()).get("/api/v1/models").expect_problem(401, "unauthenticated", "expired or was revoked");
}

#[test]
fn a_tenant_stores_no_more_than_it_may() {
    let app = TestApp::locked();
    let bounds = Bounds { max_stored_bytes: Some(fixtures::DIGITS.len() as i64), ..Bounds::default() };
    let client = app.with_key(&app.key("small", &Scope::ALL, Some(bounds)));
    client.upload_model("digits", fixtures::DIGITS).expect(201);
    // Each file is counted once, under whatever names.
    client.upload_model("digits", fixtures::DIGITS).expect(200);
    client.upload_model("again", fixtures::DIGITS).expect(201);
    client.upload_dataset("digits", fixtures::DIGITS_DATA).expect_problem(403, "quota_exceeded", "may be stored");
    assert_eq!(client.get("/api/v1/datasets").expect(200).json()["items"], json!([]));
    let mut files = BTreeSet::new();
    crate::harness::collect_files(&app.blob_dir(), &mut files);
    assert_eq!(files.len(), 1, "{files:?}");
    let job = client.run_job(&json!({"kind": "compress", "model": "digits", "recipe": {"preset": "balanced"}}));
    assert_eq!(
        (job["status"].as_str(), job["failure"]["code"].as_str()),
        (Some("failed"), Some("quota_exceeded")),
        "{job}"
    );
}

#[test]
fn a_tenant_queues_no_more_jobs_than_it_may() {
    let app = TestApp::start_with(|config| {
        config.keys = weightpress::config::Keys::Required;
        config.workers = 0;
    });
    let bounds = Bounds { max_unfinished_jobs: Some(2), ..Bounds::default() };
    let client = app.with_key(&app.key("small", &Scope::ALL, Some(bounds)));
    client.upload_model("digits", fixtures::DIGITS).expect(201);
    client.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
    let queue = || client.post_json("/api/v1/jobs", &fixtures::evaluation_job());
    let first = queue().expect(202).json();
    queue().expect(202);
    let refused = queue();
    assert_eq!(refused.header("retry-after"), Some("5"));
    refused.expect_problem(429, "quota_exceeded", "2 unfinished jobs");
    client.post_json(&format!("/api/v1/jobs/{}/cancel", first["id"].as_str().unwrap()), &Value::Null).expect(200);
    queue().expect(202);
}

#[test]
fn a_tenant_sends_no_more_requests_than_it_may() {
    let app = TestApp::locked();
    let bounds = Bounds { max_requests_per_minute: Some(3), ..Bounds::default() };
    let client = app.with_key(&app.key("small", &[Scope::Read], Some(bounds)));
    for left in [2, 1, 0] {
        let answer = client.get("/api/v1/models").expect(200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"tenant\";q=3;w=60"));
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"tenant\";r={left};t=")));
    }
    let refused = client.get("/api/v1/models");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    refused.expect_problem(429, "rate_limited", "may come in");
    app.get("/livez").expect(200);
    app.with_key(&app.key("other", &[Scope::Read], None)).get("/api/v1/models").expect(200);
}

#[test]
fn names_that_are_not_served_get_nothing() {
    let app = TestApp::with_digits();
    let named = |host: &str, path: &str| app.send("GET", path, &[("host", host)], None);
    named("evil.example", "/api/v1/models").expect_problem(421, "unknown_host", "evil.example");
    named("evil.example", "/docs/").expect_problem(421, "unknown_host", "evil.example");
    named("evil.example", "/livez").expect(200);
    named("localhost:1", "/api/v1/models").expect(200);
}

#[test]
fn pages_of_named_origins_may_call_and_no_others() {
    let origin = "https://app.example";
    let app = TestApp::start_with(|config| config.cors_origins = vec![origin.to_owned()]);
    let asked = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization"),
        ];
        app.send("OPTIONS", "/api/v1/jobs", &headers, None)
    };
    let allowed = asked(origin).expect(200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some(origin));
    assert!(allowed.header("access-control-allow-headers").unwrap().contains("authorization"));
    assert_eq!(asked("https://evil.example").header("access-control-allow-origin"), None);
    let answer = app.send("GET", "/api/v1/models", &[("origin", origin)], None).expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
}
