//! Benchmarks: a version timed beside another.

use serde_json::{Value, json};

use crate::fixtures::{compress_digits, digits_evaluation};
use crate::harness::{TestApp, wait_until};

/// A benchmark of `digits` that is as short as may be.
fn benchmark(version: i64) -> Value {
    json!({"kind": "benchmark", "model": "digits", "version": version, "batch": [4, 1], "threads": [1], "seconds": 0.01})
}

#[test]
fn versions_are_timed_and_measured_side_by_side() {
    let app = TestApp::with_digits();
    app.run_job(&compress_digits());
    let mut spec = benchmark(1);
    (spec["evaluation"], spec["residency"]) = (digits_evaluation(), json!(["packed"]));
    let job = app.run_job(&spec);
    assert_eq!((&job["status"], &job["kind"]), (&json!("succeeded"), &json!("benchmark")), "{job}");
    assert_eq!((&job["result"]["version"], &job["progress"]["fraction"]), (&json!(1), &json!(1.0)));

    let contenders = job["result"]["benchmark"]["contenders"].as_array().unwrap();
    let names: Vec<_> = contenders.iter().map(|contender| (&contender["name"], &contender["residency"])).collect();
    assert_eq!(names[0], (&json!("version 0"), &json!("dense")));
    assert_eq!((names.len(), names[1].0), (2, &json!("version 1")));
    let bytes = |index: usize, member: &str| contenders[index][member].as_u64().unwrap();
    assert!(bytes(1, "size_bytes") < bytes(0, "size_bytes"), "{job}");
    assert!(bytes(1, "weights_resident_bytes") < bytes(0, "weights_resident_bytes"), "{job}");
    for contender in contenders {
        let timings = contender["timings"].as_array().unwrap();
        let settings: Vec<_> = timings.iter().map(|timing| (&timing["batch"], &timing["threads"])).collect();
        assert_eq!(settings, [(&json!(1), &json!(1)), (&json!(4), &json!(1))]);
        for timing in timings {
            let figures = ["runs", "p50_ms", "p95_ms", "samples_per_second", "time_ratio"];
            assert!(figures.iter().all(|figure| timing[figure].as_f64().unwrap() > 0.0), "{timing}");
            let layers: Vec<_> = timing["layers"].as_array().unwrap().iter().map(|layer| &layer["name"]).collect();
            assert_eq!(layers, ["w0", "w1", "w2"]);
        }
    }

    // By ONNX Runtime: 445 of 450 are right.
    let accuracy = |version: i64| {
        let mut metrics = job["metrics"].as_array().unwrap().iter();
        metrics.find(|m| m["version"] == version && m["name"] == "accuracy").unwrap()["value"].as_f64().unwrap()
    };
    assert!((accuracy(0) - 445.0 / 450.0).abs() < 1e-9 && accuracy(1) > 0.8, "{job}");
}

#[test]
fn the_same_version_is_compared_under_several_residencies() {
    let app = TestApp::with_digits();
    app.run_job(&compress_digits());
    let mut spec = benchmark(1);
    (spec["baseline"], spec["residency"]) = (json!(1), json!(["dense", "coded", "dense"]));
    let job = app.run_job(&spec);
    let contenders = job["result"]["benchmark"]["contenders"].as_array().unwrap();
    let residencies: Vec<_> = contenders.iter().map(|contender| &contender["residency"]).collect();
    assert_eq!(residencies, ["dense", "coded"], "{job}");
    assert_eq!(job["metrics"], json!([]));
}

#[test]
fn an_upload_is_timed_alone_and_the_default_version_when_none_is_named() {
    let app = TestApp::with_digits();
    let mut spec = benchmark(0);
    spec.as_object_mut().unwrap().remove("version");
    assert_eq!(
        app.post_json("/api/v1/jobs?dry_run=true", &spec).expect(200).json(),
        json!({"valid": true, "estimate": null})
    );
    let job = app.run_job(&spec);
    assert_eq!((&job["spec"]["version"], &job["result"]["version"]), (&json!(0), &json!(0)));
    assert_eq!(job["result"]["benchmark"]["contenders"].as_array().unwrap().len(), 1, "{job}");
}

#[test]
fn a_running_benchmark_is_cancelled() {
    let app = TestApp::with_digits();
    let spec = json!({"kind": "benchmark", "model": "digits", "seconds": 60, "batch": [1, 2, 3, 4], "threads": [1]});
    let job = app.post_json("/api/v1/jobs", &spec).expect(202).json();
    let own = job["urls"]["self"].as_str().unwrap();
    wait_until("the benchmark runs", || app.get(own).json()["progress"]["stage"] == "benchmark");
    app.post(job["urls"]["cancel"].as_str().unwrap(), b"").expect(200);
    let ended = app.wait_for_job(job["id"].as_str().unwrap());
    assert_eq!((&ended["status"], &ended["result"]), (&json!("cancelled"), &Value::Null));
}
