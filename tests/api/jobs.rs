//! Jobs: submit, follow, wait, cancel, list; and what they leave.

use serde_json::{Value, json};

use crate::fixtures::{self, compress_digits, digits_evaluation};
use crate::harness::TestApp;

/// The metric `name` of `version` among a job's results.
fn metric(job: &Value, version: i64, name: &str) -> f64 {
    let metrics = job["result"]["metrics"].as_array().unwrap();
    let found = metrics.iter().find(|metric| metric["version"] == version && metric["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} of version {version} in {job}"))["value"].as_f64().unwrap()
}

#[test]
fn compression_makes_a_smaller_version_and_measures_it() {
    let app = TestApp::with_digits();
    let job = app.run_job(&compress_digits());
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!((&job["kind"], &job["model"], &job["attempt"]), (&json!("compress"), &json!("digits"), &json!(1)));
    assert_eq!(job["progress"]["fraction"], 1.0);
    assert_eq!(job["result"]["version"], 1);
    // By ONNX Runtime: 445 of 450.
    assert!((metric(&job, 0, "accuracy") - 445.0 / 450.0).abs() < 1e-9);
    assert!(metric(&job, 1, "accuracy") > 0.8);

    let report = &job["result"]["report"];
    let sum = |rows: &Value, bytes: &str| {
        rows.as_array().unwrap().iter().map(|row| row[bytes].as_u64().unwrap()).sum::<u64>()
    };
    let parts = ["graph_bytes", "container_bytes", "plain_bytes"].map(|part| report[part].as_u64().unwrap());
    let total = sum(&report["layers"], "compressed_bytes")
        + sum(&report["codebooks"], "size_bytes")
        + parts.iter().sum::<u64>();
    assert_eq!(report["artifact_bytes"], total, "every byte is in the report");
    assert!(report["ratio"].as_f64().unwrap() > 3.0, "{report}");

    let version = app.get(job["urls"]["version"].as_str().unwrap()).expect(200).json();
    assert_eq!((&version["number"], &version["report"]), (&json!(1), report));
    assert_eq!(version["job"], job["id"]);
    let names: Vec<_> = version["metrics"].as_array().unwrap().iter().map(|metric| &metric["name"]).collect();
    assert!(names.contains(&&json!("accuracy")), "{version}");
    let model = app.get("/api/v1/models/digits").expect(200).json();
    assert_eq!(model["versions"].as_array().unwrap().len(), 2);
    assert_eq!(model["default_version"], 0, "it moves only when it is told to");
}

#[test]
fn figures_of_samples_that_were_learned_from_are_named() {
    let app = TestApp::with_digits();
    let mut spec = compress_digits();
    spec["recipe"] = json!({"prune": {"criterion": "obs", "sparsity": 0.5}});
    spec["data"] = spec["evaluation"]["data"].clone();
    let is_noted = |spec: &Value| {
        let notes = app.run_job(spec)["result"]["report"]["notes"].clone();
        notes.as_array().unwrap().iter().any(|note| note.as_str().unwrap().starts_with("measured on all"))
    };
    assert!(is_noted(&spec));
    spec["evaluation"]["data"]["range"] = json!([0, 100]);
    assert!(!is_noted(&spec));
}

#[test]
fn make_default_serves_the_new_version() {
    let app = TestApp::with_digits();
    let mut spec = compress_digits();
    spec["make_default"] = json!(true);
    assert_eq!(app.run_job(&spec)["status"], "succeeded");
    assert_eq!(app.get("/api/v1/models/digits").expect(200).json()["default_version"], 1);
    let answer = app.post_json("/v2/models/digits/infer", &fixtures::digits_request()).expect(200).json();
    assert_eq!(answer["model_version"], "1");
}

#[test]
fn same_recipe_gives_the_same_artifact() {
    let app = TestApp::with_digits();
    app.run_job(&compress_digits());
    app.run_job(&compress_digits());
    let versions = app.get("/api/v1/models/digits").expect(200).json()["versions"].clone();
    assert_eq!(versions[1]["sha256"], versions[2]["sha256"]);
}

#[test]
fn evaluation_measures_a_version() {
    let app = TestApp::with_digits();
    let spec = json!({"kind": "evaluate", "model": "digits", "version": 0, "evaluation": digits_evaluation()});
    let job = app.run_job(&spec);
    assert_eq!(job["status"], "succeeded", "{job}");
    assert!((metric(&job, 0, "accuracy") - 445.0 / 450.0).abs() < 1e-9);
}

#[test]
fn submitted_job_says_where_it_is_and_when_to_ask_again() {
    let app = TestApp::with_digits();
    let answer = app.post_json("/api/v1/jobs", &compress_digits()).expect(202);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(&*format!("/api/v1/jobs/{id}")));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(app.wait_for_job(&id)["status"], "succeeded");
    let done = app.get(&format!("/api/v1/jobs/{id}")).expect(200);
    assert_eq!(done.header("retry-after"), None);
}

#[test]
fn client_that_prefers_to_wait_gets_the_result_at_once() {
    let app = TestApp::with_digits();
    let body = compress_digits().to_string();
    let answer = app.send("POST", "/api/v1/jobs", &[("prefer", "wait=60")], Some(body.as_bytes())).expect(200);
    assert_eq!(answer.header("preference-applied"), Some("wait=60"));
    assert_eq!(answer.json()["status"], "succeeded");
}

#[test]
fn splits_without_samples_that_nobody_needs_are_no_fault() {
    let app = TestApp::with_digits();
    // All samples are to train on, and none to stop by.
    app.upload_dataset("trained", &fixtures::npz(&[("x", &[8, 64], 0.5), ("split", &[8], 0.0)])).expect(201);
    let spec = json!({"kind": "compress", "model": "digits", "data": {"dataset": "trained"},
        "recipe": {"prune": {"criterion": "obs", "sparsity": 0.5}}});
    assert_eq!(app.run_job(&spec)["status"], "succeeded");
    let dry = app.post_json("/api/v1/jobs?dry_run=true", &spec).expect(200).json();
    assert!(dry["estimate"]["calibration_bytes"].as_u64().unwrap() > 0);
    // All are to report on, and none to learn from.
    app.upload_dataset("reserved", &fixtures::npz(&[("x", &[8, 64], 0.5), ("split", &[8], 2.0)])).expect(201);
    let mut spec = spec;
    spec["data"] = json!({"dataset": "reserved"});
    app.post_json("/api/v1/jobs", &spec).expect_problem(422, "data_mismatch", "no sample belongs to the split train");
}

#[test]
fn dry_run_estimates_and_queues_nothing() {
    let app = TestApp::with_digits();
    let before = app.contents();
    let answer = app.post_json("/api/v1/jobs?dry_run=true", &compress_digits()).expect(200).json();
    assert_eq!(answer["valid"], true);
    let at_most = answer["estimate"]["artifact_bytes_at_most"].as_u64().unwrap();
    assert_eq!(answer["estimate"]["layers"].as_array().unwrap().len(), 3);
    assert_eq!(app.contents(), before);
    let mut wrong = compress_digits();
    wrong["recipe"]["prune"]["sparsity"] = json!(1.0);
    assert_eq!(app.post_json("/api/v1/jobs?dry_run=true", &wrong).status, 422);
    let real = app.run_job(&compress_digits())["result"]["report"]["artifact_bytes"].as_u64().unwrap();
    assert!(real <= at_most && at_most < fixtures::DIGITS.len() as u64, "at most {at_most} estimated, got {real}");
}

#[test]
fn queued_job_is_cancelled_at_once_and_for_good() {
    // No worker: the job stays queued.
    let app = TestApp::start_with(|config| config.workers = 0);
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    app.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
    let job = app.post_json("/api/v1/jobs", &compress_digits()).expect(202).json();
    let cancel = job["urls"]["cancel"].as_str().unwrap();
    app.delete("/api/v1/models/digits").expect_problem(409, "in_use", "digits");
    app.delete("/api/v1/datasets/digits").expect_problem(409, "in_use", "digits");
    let cancelled = app.post(cancel, b"").expect(200).json();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(app.post(cancel, b"").expect(200).json(), cancelled, "cancelling again changes nothing");
    app.delete("/api/v1/datasets/digits").expect(204);
    app.delete("/api/v1/models/digits").expect(204);
    let history = app.get(job["urls"]["self"].as_str().unwrap()).expect(200).json();
    assert_eq!((&history["status"], &history["model"]), (&json!("cancelled"), &json!("digits")));
}

#[test]
fn finished_job_cannot_be_cancelled_any_more() {
    let app = TestApp::with_digits();
    let job = app.run_job(&compress_digits());
    let cancelled = app.post(job["urls"]["cancel"].as_str().unwrap(), b"").expect(200).json();
    assert_eq!(cancelled["status"], "succeeded");
}

#[test]
fn jobs_are_listed_newest_first_and_filtered() {
    let app = TestApp::start_with(|config| config.workers = 0);
    for name in ["one", "two"] {
        app.upload_model(name, fixtures::DIGITS).expect(201);
    }
    let submit = |model: &str| {
        let job = app.post_json("/api/v1/jobs", &json!({"kind": "compress", "model": model, "recipe": {}})).expect(202);
        job.json()["id"].as_str().unwrap().to_owned()
    };
    let ids = [submit("one"), submit("two"), submit("one")];
    app.post(&format!("/api/v1/jobs/{}/cancel", ids[2]), b"").expect(200);
    let list = |query: &str| {
        let page = app.get(&format!("/api/v1/jobs?{query}")).expect(200).json();
        let items = page["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
        (items.collect::<Vec<_>>(), page["has_more"].as_bool().unwrap())
    };
    let newest_first = [ids[2].clone(), ids[1].clone(), ids[0].clone()];
    assert_eq!(list(""), (newest_first.to_vec(), false));
    assert_eq!(list("limit=2"), (newest_first[..2].to_vec(), true));
    assert_eq!(list(&format!("limit=2&after={}", ids[1])), (newest_first[2..].to_vec(), false));
    assert_eq!(list("model=two"), (vec![ids[1].clone()], false));
    assert_eq!(list("status=cancelled"), (vec![ids[2].clone()], false));
    assert_eq!(list("status=queued&model=one"), (vec![ids[0].clone()], false));
    app.get("/api/v1/jobs?status=lost").expect_problem(400, "invalid_parameter", "lost");
    app.get("/api/v1/jobs?limit=0").expect_problem(400, "invalid_parameter", "limit");
    app.get("/api/v1/jobs?after=x").expect_problem(400, "invalid_parameter", "x");
    app.get("/api/v1/jobs/x").expect_problem(400, "invalid_parameter", "x");
    let unknown = "0198a000-0000-7000-8000-000000000000";
    app.get(&format!("/api/v1/jobs/{unknown}")).expect_problem(404, "not_found", unknown);
}

#[test]
fn methods_name_every_quantiser_and_codec() {
    let app = TestApp::start();
    let text = app.get("/api/v1/methods").expect(200).json().to_string();
    for word in [
        "magnitude",
        "cws",
        "pws",
        "uq",
        "ecsq",
        "dense",
        "csr",
        "csc",
        "index_map",
        "ham",
        "sham",
        "cser",
        "pco",
        "auto",
    ] {
        assert!(text.contains(&format!("\"{word}\"")), "{word}");
    }
}

#[test]
fn a_request_that_names_itself_is_done_once() {
    let app = TestApp::start_with(|config| config.workers = 0);
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    app.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
    let send = |key: &str, spec: &Value| {
        app.send("POST", "/api/v1/jobs", &[("idempotency-key", key)], Some(spec.to_string().as_bytes()))
    };
    let first = send("deploy-7", &compress_digits()).expect(202);
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = send("\"deploy-7\"", &compress_digits()).expect(202);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), first.json());
    assert_eq!(again.header("location"), first.header("location"));
    let other = json!({"kind": "compress", "model": "digits", "recipe": {}});
    send("deploy-7", &other).expect_problem(422, "idempotency_key_reused", "deploy-7");
    let second = send("deploy-8", &compress_digits()).expect(202).json();
    assert_ne!(second["id"], first.json()["id"]);
    send("a b", &other).expect_problem(400, "invalid_header", "Idempotency-Key");
    // A refused request leaves no name behind.
    send("late", &json!({"kind": "compress", "model": "late", "recipe": {}})).expect_problem(404, "not_found", "late");
    app.upload_model("late", fixtures::DIGITS).expect(201);
    send("late", &json!({"kind": "compress", "model": "late", "recipe": {}})).expect(202);
    assert_eq!(app.get("/api/v1/jobs").expect(200).json()["items"].as_array().unwrap().len(), 3);
}

#[test]
fn a_request_is_not_answered_twice_at_the_same_time() {
    let app = TestApp::start_with(|config| config.workers = 0);
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    app.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
    let spec = compress_digits().to_string();
    let send = |wait: &str| {
        let headers = [("idempotency-key", "x"), ("prefer", wait)];
        app.send("POST", "/api/v1/jobs", &headers, Some(spec.as_bytes()))
    };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| send("wait=3").expect(202).json());
        crate::harness::wait_until("the first request is waiting", || {
            !app.get("/api/v1/jobs").expect(200).json()["items"].as_array().unwrap().is_empty()
        });
        send("wait=0").expect_problem(409, "in_flight", "Idempotency-Key");
        let job = waiting.join().unwrap();
        assert_eq!(send("wait=0").expect(202).json()["id"], job["id"]);
    });
}

#[test]
fn concurrent_requests_of_one_name_make_one_job() {
    let app = TestApp::start_with(|config| config.workers = 0);
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    app.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
    let spec = compress_digits().to_string();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let answer = app.send("POST", "/api/v1/jobs", &[("idempotency-key", "x")], Some(spec.as_bytes()));
                assert!(matches!(answer.status, 202 | 409), "{}", answer.json());
            });
        }
    });
    assert_eq!(app.get("/api/v1/jobs").expect(200).json()["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_job_that_did_not_change_is_not_sent_again() {
    let app = TestApp::start_with(|config| config.workers = 0);
    app.upload_model("digits", fixtures::DIGITS).expect(201);
    let job = app.post_json("/api/v1/jobs", &json!({"kind": "compress", "model": "digits", "recipe": {}})).expect(202);
    let path = job.header("location").unwrap().to_owned();
    let first = app.get(&path).expect(200);
    let tag = first.header("etag").unwrap();
    let asked = |tag: &str| app.send("GET", &path, &[("if-none-match", tag)], None);
    let unchanged = asked(tag).expect(304);
    assert_eq!((unchanged.body.len(), unchanged.header("etag")), (0, Some(tag)));
    app.post(&format!("{path}/cancel"), b"").expect(200);
    let changed = asked(tag).expect(200);
    assert_ne!(changed.header("etag"), Some(tag));
    assert_eq!(changed.json()["status"], "cancelled");
}
