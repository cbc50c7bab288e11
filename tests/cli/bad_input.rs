//! What a user gets wrong: exit status 2, one line that names the fault, and nothing left behind.

use crate::harness::{Sandbox, bundled};

const MODEL: &str = "tests/fixtures/digits_mlp.onnx";

/// Runs a command that must be refused with one line that contains `fault`, leaving only the files that were there.
fn refused(sandbox: &Sandbox, args: &[&str], fault: &str) {
    let before = sandbox.files();
    let said = sandbox.run(args);
    assert_eq!(said.status, 2, "{args:?}: {}{}", said.stdout, said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    assert!(said.stderr.contains(fault), "{fault:?} is not in {:?}", said.stderr);
    assert_eq!(said.stdout, "");
    assert_eq!(sandbox.files(), before);
}

#[test]
fn files_that_are_no_model_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("empty", "");
    sandbox.write("random", [0x9e, 0x37, 0x79, 0xb9, 0x7f, 0x4a, 0x7c, 0x15].repeat(64));
    let whole = std::fs::read(bundled(MODEL)).unwrap();
    sandbox.write("truncated.onnx", &whole[..whole.len() / 2]);
    for (file, fault) in
        [("empty", "empty"), ("random", "random"), ("truncated.onnx", "truncated.onnx"), ("missing", "missing")]
    {
        refused(&sandbox, &["compress", file, "-o", "out.wp"], fault);
        refused(&sandbox, &["inspect", file], fault);
    }
}

#[test]
fn recipes_out_of_range_name_their_field() {
    let sandbox = Sandbox::new();
    let model = bundled(MODEL);
    let cases: [(&[&str], &str); 7] = [
        (&["--prune", "1.0"], "sparsity"),
        (&["--prune", "-0.1"], "sparsity"),
        (&["--prune", "half"], "half"),
        (&["--quantize", "cws", "--levels", "0"], "levels"),
        (&["--quantize", "cws", "--levels", "70000"], "70000"),
        (&["--quantize", "kmeans"], "kmeans"),
        (&["--encoding", "gzip"], "gzip"),
    ];
    for (flags, fault) in cases {
        refused(&sandbox, &[&["compress", &model, "-o", "out.wp"], flags].concat(), fault);
    }
    sandbox.write("r.json", r#"{"prune": {"sparsty": 0.5}}"#);
    refused(&sandbox, &["compress", &model, "-o", "out.wp", "--recipe", "r.json"], "sparsty");
    sandbox.write("r.json", r#"{"layers": [{"match": "nowhere.*", "skip": true}]}"#);
    refused(&sandbox, &["compress", &model, "-o", "out.wp", "--recipe", "r.json"], "nowhere.*");
}

#[test]
fn a_damaged_artifact_is_refused_wherever_it_is_cut() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["compress", &bundled(MODEL), "-o", "whole.wp", "--preset", "balanced"]);
    let whole = std::fs::read(sandbox.path("whole.wp")).unwrap();
    for cut in [1, 8, 9, whole.len() / 3, whole.len() - 1] {
        sandbox.write("cut.wp", &whole[..cut]);
        refused(&sandbox, &["export", "cut.wp", "--format", "onnx", "-o", "out.onnx"], "cut.wp");
        refused(&sandbox, &["predict", "cut.wp", "--input", "whole.wp", "-o", "y.npz"], "cut.wp");
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    sandbox.write("flipped.wp", flipped);
    refused(&sandbox, &["export", "flipped.wp", "--format", "onnx", "-o", "out.onnx"], "flipped.wp");
}

#[test]
fn data_that_do_not_fit_are_refused() {
    let sandbox = Sandbox::new();
    let (model, data) = (bundled(MODEL), bundled("tests/fixtures/digits_val.npz"));
    let map =
        |map: &str, fault: &str| refused(&sandbox, &["evaluate", &model, "--data", &data, "--data-map", map], fault);
    map("{", "--data-map");
    map(r#"{"inputs": {"input": {"array": "nothing"}}}"#, "nothing");
    map(r#"{"inputs": {"other": {"array": "x"}}}"#, "other");
    map(r#"{"inputs": {"input": {"array": "y"}}}"#, "y");
    map(r#"{"inputs": {"input": {"array": "x", "scale": "1/16"}}}"#, "--data-map: inputs.input.scale: invalid type");
    refused(&sandbox, &["evaluate", &model], "--data");
    refused(&sandbox, &["evaluate", &model, "--data", &model], "digits_mlp.onnx");
}

#[test]
fn searches_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    let (model, data) = (bundled(MODEL), bundled("tests/fixtures/digits_val.npz"));
    let search = |flags: &[&str], fault: &str| {
        refused(&sandbox, &[&["search", &model, "-o", "small.wp", "--data", &data], flags].concat(), fault)
    };
    search(&["--max-drop", "0.1"], "no validation split");
    search(&["--max-drop", "0.1", "--split", "test"], "a search uses all splits");
    search(&["--max-drop", "0.1", "--data-map", r#"{"split": "test"}"#], "names no split");
    search(&["--min-metric", "98", "--metrics", "accuracy"], "the best accuracy is 1");
    search(&["--max-drop", "5", "--metrics", "accuracy"], "accuracy is a fraction, five percent are 0.05");
    let part = r#"{"inputs": {"input": {"array": "x"}}, "target": {"array": "y", "kind": "class"}, "range": [0, 100]}"#;
    let twice = format!(r#"{{"train": {part}, "validation": {part}}}"#);
    search(
        &["--max-drop", "0.1", "--data-map", &twice],
        "the validation split and the train split are the same samples",
    );
}

#[test]
fn benchmarks_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    let (model, data) = (bundled(MODEL), bundled("tests/fixtures/digits_val.npz"));
    let bench = |flags: &[&str], fault: &str| refused(&sandbox, &[&["bench", &model], flags].concat(), fault);
    bench(&["--batch", "0"], "batch must be 1 to 65536, not 0");
    bench(&["--threads", "100000"], "threads must be 1 to");
    bench(&["--seconds", "nan"], "seconds must be 0.01 to 60, not NaN");
    bench(&["--shape", "input=65"], "has the shape [64], found [65]");
    bench(&["--shape", "image=64"], "no input image");
    bench(&["--against", "missing"], "missing");
    bench(&["--against", &data], "no graph");
    bench(&["--data", &model], "digits_mlp.onnx");
}

#[test]
fn outputs_that_cannot_be_written_are_named() {
    let sandbox = Sandbox::new();
    let model = bundled(MODEL);
    let failed = |args: &[&str], path: &str| {
        let said = sandbox.run(args);
        assert_eq!(said.status, 1, "{args:?}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(path), "{path:?} is not in {:?}", said.stderr);
    };
    failed(&["compress", &model, "-o", "nowhere/out.wp"], "nowhere/out.wp");
    failed(&["compress", &model, "-o", "out.wp", "--report", "nowhere/report.json"], "nowhere/report.json");
    failed(&["export", "out.wp", "--format", "onnx", "-o", "nowhere/out.onnx"], "nowhere/out.onnx");
}
