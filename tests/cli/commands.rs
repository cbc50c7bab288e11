//! Each command on a real model.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Sandbox, bundled};

const MODEL: &str = "tests/fixtures/digits_mlp.onnx";
const DATA: &str = "tests/fixtures/digits_val.npz";

/// `weightpress compress` on the bundled perceptron, into `out`.
fn compress(sandbox: &Sandbox, out: &str, flags: &[&str]) -> String {
    let model = bundled(MODEL);
    let mut args = vec!["compress", &model, "-o", out];
    args.extend(flags);
    sandbox.ok(&args)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_report_accounts_for_every_byte_of_the_artifact() {
    let sandbox = Sandbox::new();
    let flags = [
        "--prune",
        ".5",
        "--quantize",
        "cws",
        "--levels",
        "15",
        "--codebook",
        "unified",
        "--report",
        "r.json",
        "--json",
    ];
    let printed = json(&compress(&sandbox, "small.wp", &flags));
    assert_eq!(printed, json(&std::fs::read_to_string(sandbox.path("r.json")).unwrap()));
    let report = &printed["report"];
    let sum = |rows: &str, field: &str| -> u64 {
        report[rows].as_array().unwrap().iter().map(|row| row[field].as_u64().unwrap()).sum()
    };
    let others: u64 =
        ["graph_bytes", "container_bytes", "plain_bytes"].map(|f| report[f].as_u64().unwrap()).iter().sum();
    let file = std::fs::metadata(sandbox.path("small.wp")).unwrap().len();
    assert_eq!(sum("layers", "compressed_bytes") + sum("codebooks", "size_bytes") + others, file);
    assert_eq!(report["artifact_bytes"], file);
    assert!(report["ratio"].as_f64().unwrap() > 4.0, "{report}");
}

#[test]
fn flags_and_the_recipe_they_stand_for_give_the_same_bytes() {
    let sandbox = Sandbox::new();
    sandbox.write("r.json", r#"{"prune": {"sparsity": 0.5}, "quantize": {"method": "pws", "levels": 7}, "seed": 3}"#);
    compress(&sandbox, "a.wp", &["--recipe", "r.json"]);
    compress(&sandbox, "b.wp", &["--prune", "0.5", "--quantize", "pws", "--levels", "7", "--seed", "3"]);
    assert_eq!(std::fs::read(sandbox.path("a.wp")).unwrap(), std::fs::read(sandbox.path("b.wp")).unwrap());
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let sandbox = Sandbox::new();
    let model = bundled(MODEL);
    for threads in ["1", "4"] {
        let out = format!("{threads}.wp");
        let flags = ["compress", &model, "-o", &out, "--prune", ".5", "--quantize", "pws", "--codebook", "unified"];
        let status = sandbox.command(&flags).env("RAYON_NUM_THREADS", threads).output().unwrap().status;
        assert!(status.success());
    }
    assert_eq!(std::fs::read(sandbox.path("1.wp")).unwrap(), std::fs::read(sandbox.path("4.wp")).unwrap());
}

#[test]
fn lossless_compression_predicts_and_exports_what_was_uploaded() {
    let sandbox = Sandbox::new();
    let report = json(&compress(&sandbox, "same.wp", &["--preset", "lossless", "--json"]));
    assert!(
        report["report"]["ratio"].as_f64().unwrap() > 0.98,
        "values that do not repeat are stored in full: {report}"
    );
    let (model, data) = (bundled(MODEL), bundled(DATA));
    let quality = json(&sandbox.ok(&["evaluate", "same.wp", "--reference", &model, "--data", &data, "--json"]));
    let value = |name: &str| {
        quality["metrics"].as_array().unwrap().iter().find(|m| m["metric"] == name).unwrap()["value"].clone()
    };
    assert_eq!(value("agreement"), 1.0);
    assert_eq!(value("accuracy"), quality["reference"][0]["value"]);

    sandbox.ok(&["export", "same.wp", "--format", "onnx", "-o", "same.onnx"]);
    let exported = json(&sandbox.ok(&["evaluate", "same.onnx", "--reference", &model, "--data", &data, "--json"]));
    let snr = exported["metrics"].as_array().unwrap().iter().find(|m| m["metric"] == "output_snr_db").unwrap();
    assert_eq!(snr["value"], Value::Null, "equal outputs have no noise");
}

#[test]
fn a_residency_changes_memory_and_not_predictions() {
    let sandbox = Sandbox::new();
    compress(&sandbox, "small.wp", &["--prune", ".6", "--quantize", "cws", "--encoding", "sham"]);
    let data = bundled(DATA);
    let measure = |residency: &str| {
        json(&sandbox.ok(&["evaluate", "small.wp", "--data", &data, "--residency", residency, "--json"]))["metrics"]
            .clone()
    };
    for residency in ["packed", "coded", "auto"] {
        assert_eq!(measure(residency), measure("dense"), "{residency}");
    }
}

#[test]
fn an_artifact_is_timed_beside_its_dense_form_or_another_file() {
    let sandbox = Sandbox::new();
    compress(&sandbox, "small.wp", &["--prune", ".6", "--quantize", "cws", "--encoding", "sham"]);
    let short = ["--seconds", "0.01", "--batch", "1,3", "--threads", "1"];
    let bench = |flags: &[&str]| sandbox.ok(&[&["bench", "small.wp"], &short[..], flags].concat());
    let contenders = |flags: &[&str]| {
        let printed = json(&bench(&[flags, &["--json"]].concat()));
        let names = printed["contenders"].as_array().unwrap().iter();
        let names = names.map(|contender| (contender["name"].clone(), contender["residency"].clone()));
        (names.collect::<Vec<_>>(), printed)
    };
    let name = |name: &str, residency: &str| (Value::from(name), Value::from(residency));
    let (own, printed) = contenders(&["--residency", "coded,dense"]);
    assert_eq!(own, [name("small.wp", "dense"), name("small.wp", "coded")]);
    assert_eq!(printed["contenders"][1]["timings"].as_array().unwrap().len(), 2);
    assert_eq!(printed["quality"], Value::Null);

    let (model, data) = (bundled(MODEL), bundled(DATA));
    let (both, printed) = contenders(&["--residency", "coded", "--against", &model, "--data", &data]);
    assert_eq!(both, [name("digits_mlp.onnx", "dense"), name("small.wp", "coded")]);
    assert_eq!(printed["quality"]["reference"][0]["metric"], "accuracy");

    let table = bench(&["--against", &model]);
    for part in ["p95 ms", "digits_mlp.onnx", "w1", "(rest of the graph)"] {
        assert!(table.contains(part), "{part:?} is missing in:\n{table}");
    }
}

#[test]
fn predictions_are_written_for_numpy() {
    let sandbox = Sandbox::new();
    compress(&sandbox, "small.wp", &["--quantize", "cws", "--levels", "31"]);
    // The dataset's array is named otherwise than the input: predict wants it by name.
    let said = sandbox.run(&["predict", "small.wp", "--input", &bundled(DATA), "-o", "y.npz"]);
    assert_eq!(said.status, 2);
    assert!(said.stderr.contains("input"), "{}", said.stderr);
    assert_eq!(sandbox.files(), ["small.wp"]);
}

#[test]
fn inspect_tells_models_and_artifacts_apart() {
    let sandbox = Sandbox::new();
    compress(&sandbox, "small.wp", &["--preset", "balanced"]);
    let artifact = json(&sandbox.ok(&["inspect", "small.wp", "--json"]));
    assert_eq!(artifact["kind"], "artifact");
    assert_eq!(artifact["recipe"]["preset"], "balanced");
    let model = json(&sandbox.ok(&["inspect", &bundled(MODEL), "--json"]));
    assert_eq!(model["kind"], "model");
    assert_eq!(model["layers"][0]["shape"], serde_json::json!([64, 64]));
    assert!(sandbox.ok(&["inspect", "small.wp"]).contains("w0"));
}

#[test]
fn the_demo_runs_from_upload_to_prediction() {
    let sandbox = Sandbox::new();
    let text = sandbox.ok(&["demo"]);
    for part in ["0.weight", "total", "accuracy", "output_snr_db", "Predicted by version 1", "is 3, said 3 ✓", "curl"]
    {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert_eq!(sandbox.files(), [""; 0], "the demo leaves nothing behind");
}

#[test]
fn the_openapi_document_is_printed() {
    assert!(Sandbox::new().ok(&["openapi"]).starts_with("openapi: 3.1"));
}

#[test]
fn a_healthcheck_without_a_service_fails() {
    // Port 9 (discard) of loopback: nothing listens there.
    let said = Sandbox::new().run(&["healthcheck", "--listen", "127.0.0.1:9"]);
    assert_eq!(said.status, 1);
    assert!(said.stderr.contains("/readyz"));
}

/// `weightpress search` on the digits: 300 to learn from, 75 to select by and 75 to report on.
fn search(sandbox: &Sandbox, recipe: &str) -> Vec<String> {
    sandbox.write("recipe.json", recipe);
    let map = |from: u32, to: u32| {
        serde_json::json!({ "inputs": { "input": { "array": "x" } }, "target": { "array": "y", "kind": "class" },
            "range": [from, to] })
    };
    let maps = serde_json::json!({ "train": map(0, 300), "validation": map(300, 375), "test": map(375, 450) });
    let (model, data, maps) = (bundled(MODEL), bundled(DATA), maps.to_string());
    let args = ["search", &model, "-o", "small.wp", "--data", &data, "--data-map", &maps, "--max-drop", "0.05"];
    let more = ["--metrics", "accuracy", "--recipe", "recipe.json", "--json"];
    args.iter().chain(&more).map(|arg| (*arg).to_owned()).collect()
}

#[test]
fn figures_of_samples_that_were_learned_from_are_named() {
    let sandbox = Sandbox::new();
    sandbox.write("r.json", r#"{"prune": {"criterion": "obs", "sparsity": 0.5}}"#);
    let data = bundled(DATA);
    let is_noted = |map: &str| {
        let map =
            format!(r#"{{"inputs": {{"input": {{"array": "x"}}}}, "target": {{"array": "y", "kind": "class"}}{map}}}"#);
        let flags = ["--recipe", "r.json", "--data", &data, "--data-map", &map, "--json"];
        let report = json(&compress(&sandbox, "small.wp", &flags))["report"].clone();
        report["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().starts_with("measured on all"))
    };
    assert!(is_noted(""));
    assert!(!is_noted(r#", "range": [0, 100]"#));
}

#[test]
fn a_search_writes_the_smallest_file_within_the_bound() {
    let sandbox = Sandbox::new();
    let args = search(&sandbox, r#"{"finetune": {"epochs": 3, "sharing_epochs": 1, "batch": 32}}"#);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--trials", "8"]).collect();
    let found = json(&sandbox.ok(&args))["search"].clone();
    assert_eq!(found["is_within_bound"], true);
    let trials = found["trials"].as_array().unwrap();
    let kept = trials.iter().filter(|trial| trial["outcome"]["is_within_bound"] == true);
    let smallest = kept.map(|trial| trial["outcome"]["size_bytes"].as_u64().unwrap()).min().unwrap();
    assert_eq!(std::fs::metadata(sandbox.path("small.wp")).unwrap().len(), smallest);
    assert!(found["test"]["samples"] == 75, "{}", found["test"]);
}

#[test]
fn a_search_whose_bound_nothing_keeps_writes_the_nearest_and_says_so() {
    let sandbox = Sandbox::new();
    let args = search(&sandbox, "{}");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let at = args.iter().position(|arg| *arg == "--max-drop").unwrap();
    let args = [&args[..at], &["--min-metric", "1"], &args[at + 2..], &["--trials", "1"]].concat();
    let said = sandbox.run(&args);
    assert_eq!((said.status, said.stderr.contains("nothing kept the bound")), (3, true), "{}", said.stderr);
    assert_eq!(json(&said.stdout)["search"]["is_within_bound"], false);
    assert!(sandbox.path("small.wp").exists());
}

#[test]
fn an_interrupted_search_keeps_what_it_found() {
    let sandbox = Sandbox::new();
    let args = search(&sandbox, r#"{"finetune": {"epochs": 10000, "sharing_epochs": 10000, "batch": 8}}"#);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--report", "r.json"]).collect();
    let mut running = sandbox.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("trial 1:")));
    let pid = running.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    // What it goes on to say must not fill the pipe.
    lines.for_each(drop);
    let status = running.wait().unwrap();
    assert!(status.success(), "{status}");
    let found = json(&std::fs::read_to_string(sandbox.path("r.json")).unwrap());
    assert_eq!(found["search"]["ended"], "cancelled");
    assert!(sandbox.path("small.wp").exists());
}
