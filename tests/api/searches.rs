//! Searches: what they find and report, what they refuse, and that neither a cancel nor a kill loses a trial.

use serde_json::{Value, json};

use crate::fixtures::{DIGITS, DIGITS_DATA};
use crate::harness::{PostgresDatabase, TestApp, wait_until};
use crate::program::{Process, Program};

/// The digits by what they are for: 150 each to train, to select by and to report on.
fn data() -> Value {
    let range = |from: u32| json!({"dataset": "digits", "range": [from, from + 150]});
    json!({"train": range(0), "validation": range(150), "test": range(300)})
}

/// A search through `space` for the smallest version of the digits within `max_drop`.
fn search(max_drop: f64, space: Value) -> Value {
    json!({"kind": "search", "model": "digits", "data": data(), "metric": "accuracy", "max_drop": max_drop, "space": space})
}

/// Many trials of a millisecond each.
fn long_search() -> Value {
    let levels: Vec<u32> = (2..2502).collect();
    let mut spec = search(0.5, json!({"levels": levels, "sparsity": [0.1, 0.2, 0.3, 0.4], "exhaustive": true}));
    spec["budget"] = json!({"trials": 10_000});
    spec
}

fn trials(job: &Value) -> &Vec<Value> {
    job["result"]["search"]["trials"].as_array().unwrap_or_else(|| panic!("no trials in {job}"))
}

#[test]
fn the_smallest_trial_within_the_bound_becomes_a_version_measured_on_the_test_split() {
    let app = TestApp::with_digits();
    let space = json!({"sparsity": [0.3, 0.5, 0.7, 0.9], "levels": [7, 31], "exhaustive": true});
    let job = app.run_job(&search(0.02, space));
    assert_eq!(job["status"], "succeeded", "{job}");
    let found = &job["result"]["search"];
    assert_eq!((&found["ended"], &found["is_within_bound"]), (&json!("complete"), &json!(true)), "{found}");
    assert_eq!(trials(&job).len(), 8);
    let size = |trial: &Value| trial["outcome"]["size_bytes"].as_u64().unwrap();
    let kept = trials(&job).iter().filter(|trial| trial["outcome"]["is_within_bound"] == true);
    let smallest = kept.min_by_key(|trial| size(trial)).unwrap();
    assert_eq!(found["chosen"], smallest["number"]);
    let worst = found["original"].as_f64().unwrap() - 0.02;
    assert!(smallest["outcome"]["value"].as_f64().unwrap() >= worst - 1e-9);

    let version = app.get("/api/v1/models/digits/versions/1").expect(200).json();
    assert_eq!(version["size_bytes"].as_u64().unwrap(), size(smallest));
    let metrics = job["result"]["metrics"].as_array().unwrap();
    assert!(metrics.iter().all(|metric| metric["split"] == "test" && metric["samples"] == 150), "{metrics:?}");
    let drops = found["test"]["drops"].as_array().unwrap();
    let drop = drops.iter().find(|drop| drop["metric"] == "accuracy").unwrap();
    assert!(drop["low"].as_f64() <= drop["drop"].as_f64() && drop["drop"].as_f64() <= drop["high"].as_f64());
}

/// Files of blobs, staged or published.
fn blobs(app: &TestApp) -> usize {
    app.contents().iter().filter(|entry| entry.contains("sha256/") || entry.contains("staging/")).count()
}

#[test]
fn trials_as_jobs_of_their_own_find_what_a_search_alone_finds() {
    let app = TestApp::start_with(|config| config.workers = 3);
    app.upload_model("digits", DIGITS).expect(201);
    app.upload_dataset("digits", DIGITS_DATA).expect(201);
    let space = json!({"sparsity": [0.3, 0.5, 0.7, 0.9], "levels": [7, 31], "exhaustive": true});
    let alone = app.run_job(&search(0.02, space.clone()));
    let before = blobs(&app);
    let mut spec = search(0.02, space);
    spec["parallel"] = json!(3);
    let job = app.run_job(&spec);
    assert_eq!(job["status"], "succeeded", "{job}");
    let found = &job["result"]["search"];
    assert_eq!((&found["ended"], &found["is_within_bound"]), (&json!("complete"), &json!(true)), "{found}");
    assert_eq!(trials(&job).len(), 8);
    let versions = [1, 2].map(|v| app.get(&format!("/api/v1/models/digits/versions/{v}")).expect(200).json());
    assert_eq!(versions[0]["sha256"], versions[1]["sha256"]);
    assert_eq!(job["result"]["metrics"][1]["value"], alone["result"]["metrics"][1]["value"]);
    let chosen = |job: &Value| {
        let number = &job["result"]["search"]["chosen"];
        trials(job).iter().find(|trial| trial["number"] == *number).unwrap()["recipe"].clone()
    };
    assert_eq!(chosen(&job), chosen(&alone));

    // Every trial is a job, which is not in the way of others.
    let list = |query: &str| app.get(&format!("/api/v1/jobs?limit=1000{query}")).expect(200).json()["items"].clone();
    let jobs = list(&format!("&parent={}", job["id"].as_str().unwrap()));
    let jobs = jobs.as_array().unwrap();
    assert_eq!(jobs.len(), 8);
    assert!(jobs.iter().all(|trial| trial["status"] == "succeeded" && trial["parent"] == job["id"]), "{jobs:?}");
    assert_eq!(list("&kind=trial").as_array().unwrap().len(), 8);
    assert_eq!(list("").as_array().unwrap().len(), 2);
    wait_until("the files of the trials are gone", || blobs(&app) == before);
}

#[test]
fn trials_as_jobs_of_their_own_start_from_each_others_weights() {
    let app = TestApp::start_with(|config| config.workers = 2);
    app.upload_model("digits", DIGITS).expect(201);
    app.upload_dataset("digits", DIGITS_DATA).expect(201);
    let mut spec = search(0.03, json!({"sparsity": [0.5, 0.8], "levels": [3, 7], "exhaustive": true}));
    spec["recipe"] = json!({"prune": {"sparsity": 0}, "quantize": {"levels": 7}, "finetune": {"epochs": 2}});
    spec["parallel"] = json!(4);
    let job = app.run_job(&spec);
    assert_eq!(job["status"], "succeeded", "{job}");
    let trials = trials(&job);
    assert_eq!(trials.len(), 4);
    assert!(trials.iter().all(|trial| trial["outcome"]["state"] == "measured"), "{trials:?}");
    let shared: Vec<&Value> = trials.iter().filter(|trial| trial["stage"] == "shared").collect();
    assert_eq!(shared.len(), 2, "each sparsity is trained once");
    assert!(shared.iter().all(|trial| trial["from"].is_number()));
    // Where they kept their weights meanwhile.
    let folders = || std::fs::read_dir(app.blob_dir().join("work")).map_or(0, Iterator::count);
    wait_until("the folders of the trials are gone", || folders() == 0);
}

#[test]
fn a_walk_in_parallel_finds_no_less_with_the_same_budget() {
    let app = TestApp::start_with(|config| config.workers = 3);
    app.upload_model("digits", DIGITS).expect(201);
    app.upload_dataset("digits", DIGITS_DATA).expect(201);
    let mut spec = search(0.03, Value::Null);
    spec["budget"] = json!({"trials": 7});
    let alone = app.run_job(&spec);
    spec["parallel"] = json!(3);
    let job = app.run_job(&spec);
    let size = |job: &Value| job["result"]["report"]["artifact_bytes"].as_u64().unwrap_or_else(|| panic!("{job}"));
    assert!(size(&job) <= size(&alone), "{} and {}", size(&job), size(&alone));
    // What a search alone tries is tried.
    let recipes: Vec<&Value> = trials(&job).iter().map(|trial| &trial["recipe"]).collect();
    assert!(trials(&alone).iter().all(|trial| recipes.contains(&&trial["recipe"])), "{job}");
}

#[test]
fn a_cancelled_search_in_parallel_keeps_what_it_found_and_stops_its_trials() {
    let app = TestApp::start_with(|config| config.workers = 2);
    app.upload_model("digits", DIGITS).expect(201);
    app.upload_dataset("digits", DIGITS_DATA).expect(201);
    let mut spec = long_search();
    spec["parallel"] = json!(4);
    let job = app.post_json("/api/v1/jobs", &spec).expect(202).json();
    let url = job["urls"]["self"].as_str().unwrap();
    wait_until("some trials are made", || {
        app.get(url).expect(200).json()["progress"]["fraction"].as_f64() > Some(0.0005)
    });
    app.post(job["urls"]["cancel"].as_str().unwrap(), b"").expect(200);
    let job = app.wait_for_job(job["id"].as_str().unwrap());
    assert_eq!(
        (&job["status"], &job["result"]["search"]["ended"]),
        (&json!("cancelled"), &json!("cancelled")),
        "{job}"
    );
    let trials = app.get(&format!("/api/v1/jobs?limit=1000&parent={}", job["id"].as_str().unwrap())).expect(200).json();
    let is_over = |trial: &Value| ["succeeded", "cancelled"].contains(&trial["status"].as_str().unwrap());
    assert!(trials["items"].as_array().unwrap().iter().all(is_over), "{trials}");
    app.get("/api/v1/models/digits/versions/1").expect(200);
}

#[test]
fn trials_that_cannot_win_are_not_made() {
    let app = TestApp::with_digits();
    let space = json!({"sparsity": [0.1, 0.3, 0.5, 0.7, 0.9], "levels": [3, 7, 15, 31, 63]});
    let job = app.run_job(&search(0.02, space.clone()));
    let made = trials(&job).len();
    assert!((2..15).contains(&made), "{made} of 25");
    let mut all = search(0.02, space);
    all["space"]["exhaustive"] = json!(true);
    all["budget"] = json!({"trials": 25});
    let all = app.run_job(&all);
    let size = |job: &Value| job["result"]["report"]["artifact_bytes"].as_u64().unwrap();
    assert_eq!(trials(&all).len(), 25);
    assert!(size(&job) as f64 <= 1.1 * size(&all) as f64, "{} and {}", size(&job), size(&all));
}

#[test]
fn a_bound_that_nothing_keeps_gives_the_nearest_and_says_so() {
    let app = TestApp::with_digits();
    let mut spec = search(0.0, json!({"sparsity": [0.97, 0.99], "levels": [1]}));
    spec["make_default"] = json!(true);
    let job = app.run_job(&spec);
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["result"]["search"]["is_within_bound"], false);
    assert_eq!(app.get("/api/v1/models/digits").expect(200).json()["default_version"], 0);
}

#[test]
fn the_best_within_a_size_is_found() {
    let app = TestApp::with_digits();
    let mut spec = search(0.0, json!({"sparsity": [0.2, 0.5, 0.8], "levels": [7, 31], "exhaustive": true}));
    spec.as_object_mut().unwrap().remove("max_drop");
    spec["max_size_bytes"] = json!(4000);
    let job = app.run_job(&spec);
    assert!(job["result"]["report"]["artifact_bytes"].as_u64().unwrap() <= 4000, "{job}");
    let fits = trials(&job).iter().filter(|trial| trial["outcome"]["size_bytes"].as_u64().unwrap() <= 4000);
    let best = fits.map(|trial| trial["outcome"]["value"].as_f64().unwrap()).fold(0.0, f64::max);
    let chosen = job["result"]["search"]["chosen"].as_u64().unwrap();
    assert_eq!(trials(&job)[chosen as usize - 1]["outcome"]["value"].as_f64().unwrap(), best);
}

#[test]
fn searches_that_make_no_sense_are_refused_with_their_fault() {
    let app = TestApp::with_digits();
    let refuse = |change: &dyn Fn(&mut Value), code: &str, fault: &str| {
        let mut spec = search(0.01, json!({"levels": [7]}));
        change(&mut spec);
        app.post_json("/api/v1/jobs", &spec).expect_problem(422, code, fault);
    };
    refuse(&|spec| spec["max_size_bytes"] = json!(9), "invalid_settings", "found max_drop, max_size_bytes");
    refuse(&|spec| spec["parallel"] = json!(0), "invalid_settings", "parallel must be from 1 to 64, not 0");
    refuse(&|spec| spec["data"] = json!({"dataset": "digits"}), "data_mismatch", "no validation split");
    refuse(&|spec| spec["data"] = json!({"dataset": "digits", "split": "train"}), "data_mismatch", "names no split");
    refuse(
        &|spec| (spec["max_drop"], spec["min_metric"]) = (Value::Null, json!(98)),
        "invalid_settings",
        "best accuracy is 1",
    );
    refuse(&|spec| spec["data"]["test"]["range"] = json!([300, 500]), "data_mismatch", "there are 450");
    refuse(&|spec| spec["metric"] = json!("mse"), "data_mismatch", "mse needs a target of kind value");
    refuse(
        &|spec| drop(spec["data"]["test"].as_object_mut().unwrap().remove("dataset")),
        "data_mismatch",
        "data.dataset",
    );
    let mut spec = search(0.01, json!("all"));
    let answer = app.post_json("/api/v1/jobs", &spec);
    answer.expect_problem(422, "invalid_body", r#"no space is named "all""#);
    assert!(!answer.json()["detail"].as_str().unwrap().contains("deserialize"), "{}", answer.json());
    spec["space"] = json!({"levels": [0]});
    app.post_json("/api/v1/jobs", &spec).expect_problem(422, "invalid_body", "space: levels[0]");
    spec = search(0.01, json!({"levels": [7]}));
    spec["trails"] = json!(3);
    app.post_json("/api/v1/jobs", &spec).expect_problem(422, "invalid_body", "unknown field `trails`");
    spec = search(0.01, json!({"levels": [7]}));
    spec["data"]["validation"]["dataset"] = json!("missing");
    app.post_json("/api/v1/jobs", &spec).expect_problem(404, "not_found", "missing");
}

#[test]
fn every_dataset_of_an_unfinished_search_is_kept() {
    let app = TestApp::with_digits();
    app.upload_dataset("other", DIGITS_DATA).expect(201);
    let mut spec = long_search();
    spec["data"]["test"]["dataset"] = json!("other");
    let job = app.post_json("/api/v1/jobs", &spec).expect(202).json();
    for name in ["digits", "other"] {
        app.delete(&format!("/api/v1/datasets/{name}")).expect(409);
    }
    app.post(job["urls"]["cancel"].as_str().unwrap(), b"").expect(200);
    app.wait_for_job(job["id"].as_str().unwrap());
    app.delete("/api/v1/datasets/other").expect(204);
}

#[test]
fn a_cancelled_search_keeps_what_it_found() {
    let app = TestApp::with_digits();
    let job = app.post_json("/api/v1/jobs", &long_search()).expect(202).json();
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    let message = || app.get(&path).expect(200).json()["progress"]["message"].as_str().unwrap_or_default().to_owned();
    wait_until("the third trial", || trial_number(&message()) >= 3);
    app.post(job["urls"]["cancel"].as_str().unwrap(), b"").expect(200);
    let ended = app.wait_for_job(job["id"].as_str().unwrap());
    assert_eq!(ended["status"], "cancelled", "{ended}");
    assert_eq!(ended["result"]["search"]["ended"], "cancelled", "{ended}");
    let made = trials(&ended).len();
    assert!((2..10_000).contains(&made), "{made}");
    let version = app.get("/api/v1/models/digits/versions/1").expect(200).json();
    assert_eq!(version["size_bytes"], ended["result"]["report"]["artifact_bytes"]);
    assert!(!app.blob_dir().join("work").join(job["id"].as_str().unwrap()).exists(), "its folder is gone");
}

/// The number in a message such as `trial 12, best so far 4.2 times: ...`; others, of what goes before the first, may begin with one.
fn trial_number(message: &str) -> u32 {
    let rest = message.strip_prefix("trial ").unwrap_or_default();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[test]
fn a_killed_search_goes_on_without_repeating_a_trial() {
    let data_dir = tempfile::tempdir().unwrap();
    let database = PostgresDatabase::create();
    let mut program = Program::start(data_dir.path(), database.as_ref());
    program.client.upload_model("digits", DIGITS).expect(201);
    program.client.upload_dataset("digits", DIGITS_DATA).expect(201);
    let mut spec = long_search();
    spec["budget"] = json!({"trials": 60});
    let job = program.client.post_json("/api/v1/jobs", &spec).expect(202).json();
    let id = job["id"].as_str().unwrap();
    let log = data_dir.path().join("blobs/work").join(id).join("trials.jsonl");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    wait_until("some trials", || lines().len() > 5);
    program.kill();
    let before = lines();

    let program = Program::start(data_dir.path(), database.as_ref());
    let ended = program.client.wait_for_job(id);
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(trials(&ended).len(), 60);
    assert!(ended["attempt"].as_i64().unwrap() > 1);
    // The first line tells the search. Times are part of a trial, so one that was made again would differ.
    for (line, trial) in before[1..].iter().zip(trials(&ended)) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { break };
        assert_eq!(&line, trial);
    }
}

#[test]
fn a_search_in_parallel_whose_workers_are_killed_goes_on_without_repeating_a_trial() {
    let data_dir = tempfile::tempdir().unwrap();
    let database = PostgresDatabase::create();
    let server = Program::start_at("127.0.0.1:0", &["--workers", "0"], data_dir.path(), database.as_ref());
    let workers = || [(); 2].map(|()| Process::worker(data_dir.path(), database.as_ref()));
    let first = workers();
    let client = &server.client;
    client.upload_model("digits", DIGITS).expect(201);
    client.upload_dataset("digits", DIGITS_DATA).expect(201);
    let mut spec = long_search();
    (spec["budget"], spec["parallel"]) = (json!({"trials": 40}), json!(3));
    let job = client.post_json("/api/v1/jobs", &spec).expect(202).json();
    let finished = || {
        let list = client.get(&format!("/api/v1/jobs?status=succeeded&parent={}", job["id"].as_str().unwrap()));
        list.expect(200).json()["items"].as_array().unwrap().clone()
    };
    wait_until("some trials", || finished().len() > 5);
    drop(first);
    let before = finished();

    let _others = workers();
    let ended = client.wait_for_job(job["id"].as_str().unwrap());
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(trials(&ended).len(), 40);
    assert!(ended["attempt"].as_i64().unwrap() > 1);
    for trial in &before {
        // Times are part of a trial, so one that was made again would differ.
        let same = |made: &&Value| made["number"] == trial["spec"]["number"];
        let made = trials(&ended).iter().find(same).unwrap();
        let result = &trial["result"]["trial"];
        assert_eq!((&made["outcome"], &made["seconds"]), (&result["outcome"], &result["seconds"]));
    }
}
