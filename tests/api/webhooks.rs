//! Webhooks: messages about jobs, as an endpoint of them sees them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use weightpress::access::Scope;
use weightpress::config::Keys;

use crate::client::Client;
use crate::fixtures;
use crate::harness::{PostgresDatabase, TestApp, wait_until};
use crate::program::Program;

/// A request that an endpoint got.
#[derive(Debug, Clone)]
struct Received {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &**value).unwrap_or_else(|| panic!("no header {name}: {self:?}"))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The signatures that `secret` should give, computed without the service's code.
    fn signature_by(&self, secret: &str) -> String {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        assert!((24..=64).contains(&key.len()));
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        let signed = [self.header("webhook-id"), self.header("webhook-timestamp")].join(".");
        mac.update(signed.as_bytes());
        mac.update(b".");
        mac.update(&self.body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// A listener on loopback that notes what it is sent and answers with the next of its answers; the last one stays.
struct Endpoint {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Endpoint {
    /// Answers with these heads: a status line, and headers where there are more lines.
    fn answering(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (noted, answers) =
            (received.clone(), answers.iter().map(|answer| (*answer).to_owned()).collect::<Vec<_>>());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let Some(request) = read_request(&connection) else { continue };
                let mut noted = noted.lock().unwrap();
                let answer = &answers[noted.len().min(answers.len() - 1)];
                noted.push(request);
                drop(noted);
                // The service may have gone.
                let _ = write!(connection, "HTTP/1.1 {answer}\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
            }
        });
        Self { url, received }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// What it got, once there are `count`.
    fn wait_for(&self, count: usize) -> Vec<Received> {
        wait_until("the endpoint got the messages", || self.received().len() >= count);
        self.received()
    }
}

fn read_request(connection: &TcpStream) -> Option<Received> {
    let mut lines = BufReader::new(connection);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        lines.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length?.1.parse().ok()?];
    lines.read_exact(&mut body).ok()?;
    Some(Received { path, headers, body })
}

/// A service that may send to loopback, with the digits network and its data.
fn app() -> TestApp {
    let app = TestApp::start_with(|config| config.webhook_allow = vec!["127.0.0.1".parse().unwrap()].into());
    add_digits(&app);
    app
}

fn add_digits(client: &Client) {
    client.upload_model("digits", fixtures::DIGITS).expect(201);
    client.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
}

/// Makes a webhook; returns its path and its secret.
fn create(client: &Client, asked: &Value) -> (String, String) {
    let made = client.post_json("/api/v1/webhooks", asked).expect(201);
    let json = made.json();
    let path = format!("/api/v1/webhooks/{}", json["id"].as_str().unwrap());
    assert_eq!(made.header("location"), Some(&*path));
    (path, json["secret"].as_str().unwrap().to_owned())
}

fn deliveries(client: &Client, webhook: &str) -> Vec<Value> {
    let list = client.get(&format!("{webhook}/deliveries")).expect(200).json();
    list["items"].as_array().unwrap().clone()
}

/// The only delivery to a webhook, once it is in `state`.
fn wait_for_state(client: &Client, webhook: &str, state: &str) -> Value {
    wait_until(state, || deliveries(client, webhook).iter().any(|delivery| delivery["state"] == state));
    deliveries(client, webhook).remove(0)
}

#[test]
fn the_end_of_a_job_is_told_once_signed_and_complete() {
    let (app, endpoint) = (app(), Endpoint::answering(&["204 No Content"]));
    let (webhook, secret) = create(&app, &json!({"url": endpoint.url}));
    let mut asked = fixtures::compress_digits();
    asked["metadata"] = json!({"run": "7"});
    let job = app.run_job(&asked);
    let got = endpoint.wait_for(1).remove(0);
    let delivery = wait_for_state(&app, &webhook, "delivered");

    assert_eq!(got.path, "/hooks");
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("webhook-signature"), got.signature_by(&secret));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(got.header("webhook-timestamp").parse().unwrap()) < 60);
    assert_eq!(got.header("webhook-id"), delivery["id"].as_str().unwrap());
    let message = got.json();
    assert_eq!((&message["type"], &message["timestamp"]), (&json!("job.succeeded"), &delivery["created_at"]));
    let mut shown = app.get(&format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())).expect(200).json();
    assert!(shown["result"].as_object_mut().unwrap().remove("report").is_some());
    assert_eq!(message["data"], shown);
    assert_eq!(message["data"]["metadata"], asked["metadata"]);

    assert_eq!(delivery["status_code"], 204);
    assert_eq!((&delivery["attempt"], &delivery["error"]), (&json!(1), &Value::Null));
    assert_eq!(delivery["job"], job["id"]);
    assert_eq!(endpoint.received().len(), 1, "a message that was taken is not sent again");
}

#[test]
fn a_webhook_hears_of_what_it_asked_for_until_it_is_disabled() {
    let (app, endpoint) = (app(), Endpoint::answering(&["200 OK"]));
    let (webhook, _) = create(&app, &json!({"url": endpoint.url, "events": ["job.started", "job.queued"]}));
    app.run_job(&fixtures::evaluation_job());
    let kinds: Vec<Value> = endpoint.wait_for(2).iter().map(|got| got.json()["type"].clone()).collect();
    assert!(kinds.contains(&json!("job.queued")) && kinds.contains(&json!("job.started")), "{kinds:?}");
    let changed = app.send("PATCH", &webhook, &[], Some(br#"{"enabled": false, "events": ["job.succeeded"]}"#));
    let changed = changed.expect(200).json();
    assert_eq!((&changed["enabled"], &changed["events"]), (&json!(false), &json!(["job.succeeded"])));
    app.run_job(&fixtures::evaluation_job());
    assert_eq!(deliveries(&app, &webhook).len(), 2);
    app.send("PATCH", &webhook, &[], Some(br#"{"enabled": true}"#)).expect(200);
    app.run_job(&fixtures::evaluation_job());
    assert_eq!(endpoint.wait_for(3)[2].json()["type"], "job.succeeded");
    app.delete(&webhook).expect(204);
    app.get(&webhook).expect_problem(404, "not_found", "webhook");
    app.run_job(&fixtures::evaluation_job());
    assert_eq!(endpoint.received().len(), 3);
}

#[test]
fn a_message_that_failed_is_sent_again_as_the_same_message() {
    let (app, endpoint) = (app(), Endpoint::answering(&["500 Oh", "302 Found\r\nlocation: /elsewhere", "200 OK"]));
    let (webhook, secret) = create(&app, &json!({"url": endpoint.url}));
    app.run_job(&fixtures::evaluation_job());
    endpoint.wait_for(1);
    wait_until("the failure is noted", || deliveries(&app, &webhook)[0]["status_code"] == 500);
    let failed = deliveries(&app, &webhook).remove(0);
    assert_eq!(failed["state"], "pending");
    assert!(failed["error"].as_str().unwrap().contains("500") && failed["next_attempt_at"].is_string(), "{failed}");
    // The first retry comes by itself; it meets a redirect, which is a failure like others.
    endpoint.wait_for(2);
    wait_until("the redirect is noted", || deliveries(&app, &webhook)[0]["status_code"] == 302);
    let redeliver = format!("{webhook}/deliveries/{}/redeliver", failed["id"].as_str().unwrap());
    app.post(&redeliver, b"").expect(202);
    let got = endpoint.wait_for(3);
    assert!(got.iter().all(|got| got.path == "/hooks"), "a redirect was followed: {got:?}");
    assert!(got.iter().all(|other| other.header("webhook-id") == got[0].header("webhook-id")));
    assert!(got.iter().all(|got| got.header("webhook-signature") == got.signature_by(&secret)));
    let delivered = wait_for_state(&app, &webhook, "delivered");
    assert_eq!((&delivered["attempt"], &delivered["next_attempt_at"]), (&json!(3), &Value::Null));
    // What was taken can be asked for again, too.
    app.post(&redeliver, b"").expect(202);
    assert_eq!(endpoint.wait_for(4)[3].header("webhook-id"), got[0].header("webhook-id"));
}

#[test]
fn an_endpoint_that_is_gone_is_sent_no_more() {
    let (app, endpoint) = (app(), Endpoint::answering(&["410 Gone"]));
    let (webhook, _) = create(&app, &json!({"url": endpoint.url}));
    app.run_job(&fixtures::evaluation_job());
    let delivery = wait_for_state(&app, &webhook, "failed");
    assert_eq!(delivery["status_code"], 410);
    assert_eq!(app.get(&webhook).expect(200).json()["enabled"], false);
    let redeliver = format!("{webhook}/deliveries/{}/redeliver", delivery["id"].as_str().unwrap());
    app.post(&redeliver, b"").expect_problem(409, "webhook_disabled", "enable it");
    app.run_job(&fixtures::evaluation_job());
    assert_eq!(deliveries(&app, &webhook).len(), 1);
}

#[test]
fn private_endpoints_are_refused_unless_they_are_allowed() {
    let (app, endpoint) = (TestApp::with_digits(), Endpoint::answering(&["200 OK"]));
    let refused = |url: &str, fault: &str| {
        app.post_json("/api/v1/webhooks", &json!({"url": url})).expect_problem(422, "invalid_endpoint", fault);
    };
    refused(&endpoint.url, "127.0.0.1");
    refused("http://[::ffff:10.0.0.1]/", "10.0.0.1");
    refused("http://169.254.169.254/latest/meta-data", "169.254.169.254");
    refused("https://user:word@example.com/", "user");
    refused("ftp://example.com/", "http");
    refused("nonsense", "http");
    assert_eq!(app.get("/api/v1/webhooks").expect(200).json()["items"], json!([]));
    // What a name means is seen when a message is sent.
    let (webhook, _) = create(&app, &json!({"url": endpoint.url.replace("127.0.0.1", "localhost")}));
    app.run_job(&fixtures::evaluation_job());
    wait_until("the refusal is noted", || deliveries(&app, &webhook)[0]["error"].is_string());
    let delivery = deliveries(&app, &webhook).remove(0);
    assert!(delivery["error"].as_str().unwrap().contains("not a public address"), "{delivery}");
    assert_eq!(delivery["status_code"], Value::Null);
    assert!(endpoint.received().is_empty());
    let patched = app.send("PATCH", &webhook, &[], Some(json!({"url": endpoint.url}).to_string().as_bytes()));
    patched.expect_problem(422, "invalid_endpoint", "127.0.0.1");
}

#[test]
fn a_rotated_secret_signs_beside_the_new_one() {
    let (app, endpoint) = (app(), Endpoint::answering(&["200 OK"]));
    let (webhook, first) = create(&app, &json!({"url": endpoint.url}));
    let rotated = app.post(&format!("{webhook}/rotate"), b"").expect(200).json();
    let second = rotated["secret"].as_str().unwrap().to_owned();
    assert!(second != first && rotated["previous_secret_until"].is_string());
    app.run_job(&fixtures::evaluation_job());
    let got = endpoint.wait_for(1).remove(0);
    let expected = format!("{} {}", got.signature_by(&second), got.signature_by(&first));
    assert_eq!(got.header("webhook-signature"), expected);
    for path in ["/api/v1/webhooks", &*webhook] {
        let shown = String::from_utf8(app.get(path).expect(200).body).unwrap();
        assert!(!shown.contains("whsec_") && !shown.contains(&second[6..]), "{shown}");
    }
}

#[test]
fn tenants_hear_and_see_nothing_of_each_other() {
    let app = TestApp::start_with(|config| {
        config.keys = Keys::Required;
        config.webhook_allow = vec!["127.0.0.0/8".parse().unwrap()].into();
    });
    let endpoint = Endpoint::answering(&["200 OK"]);
    let owner = app.with_key(&app.key("owner", &Scope::ALL, None));
    let other = app.with_key(&app.key("other", &Scope::ALL, None));
    let (webhook, _) = create(&owner, &json!({"url": endpoint.url}));
    add_digits(&other);
    other.run_job(&fixtures::evaluation_job());
    assert_eq!(other.get("/api/v1/webhooks").expect(200).json()["items"], json!([]));
    other.get(&format!("{webhook}/deliveries")).expect_problem(404, "not_found", "webhook");
    assert_eq!(deliveries(&owner, &webhook), [Value::Null; 0]);
    add_digits(&owner);
    let job = owner.run_job(&fixtures::evaluation_job());
    assert_eq!(endpoint.wait_for(1)[0].json()["data"]["id"], job["id"]);
}

#[test]
fn a_killed_program_loses_no_message() {
    let (data_dir, database) = (tempfile::tempdir().unwrap(), PostgresDatabase::create());
    let endpoint = Endpoint::answering(&["500 Oh", "200 OK"]);
    let flags = ["--webhook-allow", "127.0.0.1"];
    let start = || Program::start_at("127.0.0.1:0", &flags, data_dir.path(), database.as_ref());
    let mut program = start();
    add_digits(&program.client);
    let (webhook, secret) = create(&program.client, &json!({"url": endpoint.url}));
    program.client.run_job(&fixtures::evaluation_job());
    wait_until("the failure is noted", || {
        deliveries(&program.client, &webhook).iter().any(|delivery| delivery["status_code"] == 500)
    });
    program.kill();
    let program = start();
    let got = endpoint.wait_for(2);
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    assert_eq!(got[1].header("webhook-signature"), got[1].signature_by(&secret));
    wait_for_state(&program.client, &webhook, "delivered");
}

#[test]
fn lists_come_in_pages_and_faults_are_named() {
    let (app, endpoint) = (app(), Endpoint::answering(&["200 OK"]));
    let (webhook, _) = create(&app, &json!({"url": endpoint.url}));
    let jobs: Vec<Value> = (0..3).map(|_| app.run_job(&fixtures::evaluation_job())["id"].clone()).collect();
    let first = app.get(&format!("{webhook}/deliveries?limit=2")).expect(200);
    let page = first.json();
    assert_eq!(
        page["items"].as_array().unwrap().iter().map(|item| &item["job"]).collect::<Vec<_>>(),
        [&jobs[2], &jobs[1]]
    );
    let next = first.header("link").unwrap().split_once('>').unwrap().0.trim_start_matches('<').to_owned();
    let last = app.get(&next).expect(200).json();
    assert_eq!((&last["items"][0]["job"], &last["has_more"]), (&jobs[0], &json!(false)));
    app.get(&format!("{webhook}/deliveries?after=x")).expect_problem(400, "invalid_parameter", "UUID");
    for (asked, fault) in [
        (json!({}), "url"),
        (json!({"url": endpoint.url, "events": []}), "events"),
        (json!({"url": endpoint.url, "events": ["job.progress"]}), "job.progress"),
        (json!({"url": endpoint.url, "secret": "whsec_x"}), "secret"),
    ] {
        app.post_json("/api/v1/webhooks", &asked).expect_problem(422, "invalid_body", fault);
    }
    for _ in 1..20 {
        create(&app, &json!({"url": "https://example.com/"}));
    }
    let one_more = app.post_json("/api/v1/webhooks", &json!({"url": endpoint.url}));
    one_more.expect_problem(403, "quota_exceeded", "20 webhooks");
}
