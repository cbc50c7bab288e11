//! Jobs that are refused, and jobs that fail: each names its fault, and no version is left behind.

use serde_json::{Value, json};

use crate::fixtures::{self, compress_digits, digits_evaluation};
use crate::harness::TestApp;

/// The job `compress_digits` with another recipe.
fn with_recipe(recipe: Value) -> Value {
    json!({"kind": "compress", "model": "digits", "recipe": recipe})
}

/// Submits `spec`, which must be refused and change nothing.
#[track_caller]
fn expect_refused(app: &TestApp, spec: &Value, fault: &str) {
    let before = app.contents();
    for path in ["/api/v1/jobs", "/api/v1/jobs?dry_run=true"] {
        let answer = app.post_json(path, spec);
        let problem = answer.json();
        assert_eq!(answer.status, 422, "{spec}: {problem}");
        answer.expect_problem(422, problem["code"].as_str().unwrap(), fault);
    }
    assert_eq!(app.contents(), before, "{spec}");
}

#[test]
fn recipes_out_of_range_are_refused() {
    let app = TestApp::with_digits();
    for (recipe, fault) in [
        (json!({"prune": {"sparsity": 1.0}}), "sparsity"),
        (json!({"prune": {"sparsity": -0.1}}), "sparsity"),
        (json!({"quantize": {"method": "cws", "levels": 0}}), "levels"),
        (json!({"quantize": {"method": "cws", "levels": 70_000}}), "levels"),
        (json!({"quantize": {"method": "cws", "bits": 17}}), "bits"),
        (json!({"quantize": {"method": "magic"}}), "magic"),
        (json!({"encode": {"codec": "zip"}}), "zip"),
        (json!({"purne": {"sparsity": 0.5}}), "purne"),
        (json!({"prune": {"sparsty": 0.5}}), "sparsty"),
        (json!({"layers": [{"match": "w0", "prunes": {}}]}), "prunes"),
        (json!({"layers": [{"match": "[", "skip": true}]}), "not a glob"),
        (json!({"preset": "tiny"}), "tiny"),
        (json!(7), ""),
    ] {
        expect_refused(&app, &with_recipe(recipe), fault);
    }
    let mut unknown_member = with_recipe(json!({}));
    unknown_member["recipes"] = json!({});
    expect_refused(&app, &unknown_member, "recipes");
    expect_refused(&app, &json!({"kind": "explode", "model": "digits"}), "explode");
}

#[test]
fn faults_are_named_with_their_path_in_the_job() {
    let app = TestApp::with_digits();
    for (recipe, path) in [
        (json!({"quantize": {"levels": 70_000}}), "recipe.quantize.levels: "),
        (json!({"by_op": {"Gemm": {"prune": {"sparsity": 2}}}}), "recipe.by_op.Gemm.prune.sparsity: "),
        (json!({"layers": [{"match": "w0", "encode": {"codec": "zip"}}]}), "recipe.layers[0].encode.codec: "),
        (json!({"layers": [{"match": "**a"}]}), "recipe.layers[0].match: "),
        (json!({"quantize": {"levels": 3, "bits": 2}}), "recipe: quantize: "),
    ] {
        expect_refused(&app, &with_recipe(recipe), path);
    }
    expect_refused(&app, &json!({"kind": "compress", "model": 7, "recipe": {}}), "model: ");
    expect_refused(&app, &json!({"kind": "explode", "model": "digits"}), "kind: ");
    expect_refused(&app, &json!({"model": "digits", "recipe": {}}), "kind");
}

#[test]
fn jobs_on_what_does_not_exist_are_refused() {
    let app = TestApp::with_digits();
    let before = app.contents();
    let spec = json!({"kind": "compress", "model": "nobody", "recipe": {}});
    app.post_json("/api/v1/jobs", &spec).expect_problem(404, "not_found", "nobody");
    let mut spec = json!({"kind": "evaluate", "model": "digits", "version": 9, "evaluation": digits_evaluation()});
    app.post_json("/api/v1/jobs", &spec).expect_problem(404, "not_found", "9");
    for other in ["version", "baseline"] {
        let spec = json!({"kind": "benchmark", "model": "digits", (other): 9});
        app.post_json("/api/v1/jobs", &spec).expect_problem(404, "not_found", "9");
    }
    spec["version"] = json!(0);
    spec["evaluation"]["data"]["dataset"] = json!("nothing");
    app.post_json("/api/v1/jobs", &spec).expect_problem(404, "not_found", "nothing");
    assert_eq!(app.contents(), before);
}

#[test]
fn names_that_are_none_are_refused_wherever_they_stand() {
    let app = TestApp::with_digits();
    let before = app.contents();
    let spec = json!({"kind": "compress", "model": "digits\0", "recipe": {}});
    app.post_json("/api/v1/jobs", &spec).expect_problem(400, "invalid_name", "digits");
    let mut spec = compress_digits();
    spec["evaluation"]["data"]["dataset"] = json!("digits\0");
    app.post_json("/api/v1/jobs", &spec).expect_problem(400, "invalid_name", "digits");
    let spec = with_recipe(json!({"layers": [{"match": "w\0", "skip": true}]}));
    app.post_json("/api/v1/jobs", &spec).expect_problem(422, "invalid_text", "NUL");
    for path in ["models?after=%00", "datasets?after=%00"] {
        app.get(&format!("/api/v1/{path}")).expect_problem(400, "invalid_name", "name");
    }
    for path in ["jobs?after=%00", "jobs?model=%00"] {
        app.get(&format!("/api/v1/{path}")).expect_problem(400, "invalid_parameter", "");
    }
    assert_eq!(app.contents(), before);
}

#[test]
fn datasets_that_do_not_match_the_inputs_are_refused() {
    let app = TestApp::with_digits();
    app.upload_dataset("narrow", &fixtures::npz(&[("x", &[5, 63], 0.0), ("y", &[5], 0.0)])).expect(201);
    let evaluate = |change: &dyn Fn(&mut Value)| {
        let mut evaluation = digits_evaluation();
        change(&mut evaluation["data"]);
        json!({"kind": "evaluate", "model": "digits", "evaluation": evaluation})
    };
    expect_refused(&app, &evaluate(&|data| data["dataset"] = json!("narrow")), "63");
    expect_refused(&app, &evaluate(&|data| data["inputs"] = json!({"input": {"array": "pixels"}})), "pixels");
    expect_refused(&app, &evaluate(&|data| data["inputs"] = json!({"image": {"array": "x"}})), "image");
    expect_refused(&app, &evaluate(&|data| data["target"] = json!({"array": "z", "kind": "class"})), "z");
    expect_refused(&app, &evaluate(&|data| data["split"] = json!("test")), "split");
}

#[test]
fn benchmarks_out_of_range_are_refused() {
    let app = TestApp::with_digits();
    app.upload_model("weights", &fixtures::npz(&[("w", &[2, 2], 1.0)])).expect(201);
    let benchmark = |setting: &str, value: Value| json!({"kind": "benchmark", "model": "digits", (setting): value});
    for (spec, fault) in [
        (benchmark("batch", json!([1, 0])), "batch must be 1 to 65536, not 0"),
        (benchmark("batch", json!(1)), "sequence"),
        (benchmark("threads", json!([3])), "threads must be 1 to 2, not 3"),
        (benchmark("seconds", json!(1e9)), "seconds must be 0.01 to 60"),
        (benchmark("residency", json!(["liquid"])), "liquid"),
        (benchmark("shapes", json!({"input": [65]})), "a sample of input input has the shape [64], found [65]"),
        (benchmark("shapes", json!({"image": [64]})), "no input image"),
        (benchmark("second", json!(1)), "second"),
        (json!({"kind": "benchmark", "model": "weights"}), "no graph"),
    ] {
        expect_refused(&app, &spec, fault);
    }
    let mut mismatch = benchmark("evaluation", digits_evaluation());
    mismatch["evaluation"]["data"]["inputs"] = json!({"input": {"array": "pixels"}});
    expect_refused(&app, &mismatch, "pixels");
    let mut both = benchmark("evaluation", digits_evaluation());
    both["shapes"] = json!({"input": [64]});
    expect_refused(&app, &both, "made-up");
}

#[test]
fn labels_out_of_range_fail_the_job_and_are_named() {
    let app = TestApp::with_digits();
    app.upload_dataset("labels", &fixtures::npz(&[("x", &[5, 64], 0.0), ("y", &[5], 10.0)])).expect(201);
    let mut evaluation = digits_evaluation();
    evaluation["data"]["dataset"] = json!("labels");
    let evaluate = json!({"kind": "evaluate", "model": "digits", "evaluation": evaluation});
    expect_fault(&app, &evaluate, "10");
    let mut compress = compress_digits();
    compress["evaluation"] = evaluation;
    expect_fault(&app, &compress, "10");
    let model = app.get("/api/v1/models/digits").expect(200).json();
    assert_eq!(model["versions"].as_array().unwrap().len(), 1, "a failed compression leaves no version");
}

#[test]
fn weights_that_are_no_numbers_fail_the_job_and_are_named() {
    let app = TestApp::start();
    for (name, value) in [("nan", f32::NAN), ("infinite", f32::INFINITY)] {
        app.upload_model(name, &fixtures::onnx(&fixtures::matmul_with(value))).expect(201);
        let before = app.contents().into_iter().filter(|entry| !entry.starts_with("jobs")).collect::<Vec<_>>();
        let recipe = json!({"quantize": {"method": "cws", "levels": 4}});
        expect_fault(&app, &json!({"kind": "compress", "model": name, "recipe": recipe}), "weight");
        let after = app.contents().into_iter().filter(|entry| !entry.starts_with("jobs")).collect::<Vec<_>>();
        assert_eq!(after, before, "no version, no blob, no staging file");
    }
}

/// Submits `spec`, which must be refused with a 4xx, or fail at once and for good, with this fault in its detail.
#[track_caller]
fn expect_fault(app: &TestApp, spec: &Value, fault: &str) {
    let answer = app.post_json("/api/v1/jobs", spec);
    if answer.status == 422 {
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        return answer.expect_problem(422, &code, fault);
    }
    let id = answer.expect(202).json()["id"].as_str().unwrap().to_owned();
    let job = app.wait_for_job(&id);
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(1)), "{job}");
    assert_ne!(job["failure"]["code"], "internal", "{job}");
    let detail = job["failure"]["detail"].as_str().unwrap();
    assert!(detail.contains(fault), "{fault:?} is not in {detail:?}");
}
