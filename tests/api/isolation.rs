//! Work on uploaded models in child processes: what takes too much loses its own process, and the service goes on.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tract_onnx::pb;
use tract_onnx::pb::type_proto::Value;

use crate::fixtures::{self, DIGITS, digits_request, onnx};
use crate::harness::{PostgresDatabase, wait_until};
use crate::program::Program;

/// Elements of an output that needs 1.2 GB: more than a child may have below, less than a prediction may plan.
const LARGE: i64 = 300_000_000;

fn start(data_dir: &Path, database: Option<&PostgresDatabase>, request_seconds: &str) -> Program {
    let flags = [
        "--isolation",
        "process",
        "--child-memory-bytes",
        "1GiB",
        "--child-request-seconds",
        request_seconds,
        "--max-prediction-bytes",
        "4GiB",
        "--threads",
        "2",
    ];
    Program::start_at("127.0.0.1:0", &flags, data_dir, database)
}

/// The children of a process.
fn children(parent: u32) -> Vec<u32> {
    let is_child = |process: &u32| {
        // One that ends meanwhile is none.
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let is_alive = !status.contains("State:\tZ");
        is_alive && status.lines().any(|line| line == format!("PPid:\t{parent}"))
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap().success());
}

#[test]
fn children_give_the_same_bytes_and_predictions() {
    let database = PostgresDatabase::create();
    let data_dir = tempfile::tempdir().unwrap();
    let isolated = start(data_dir.path(), database.as_ref(), "60");
    let (plain_database, plain_dir) = (PostgresDatabase::create(), tempfile::tempdir().unwrap());
    let plain = Program::start(plain_dir.path(), plain_database.as_ref());
    let mut found = Vec::new();
    for program in [&isolated, &plain] {
        let client = &program.client;
        client.upload_model("digits", DIGITS).expect(201);
        client.upload_dataset("digits", fixtures::DIGITS_DATA).expect(201);
        let job = client.run_job(&fixtures::compress_digits());
        assert_eq!(job["status"], "succeeded", "{job}");
        let version = client.get("/api/v1/models/digits/versions/1").expect(200).json();
        let answers = [0, 1].map(|version| {
            let path = format!("/v2/models/digits/versions/{version}/infer");
            client.post_json(&path, &digits_request()).expect(200).json()["outputs"].clone()
        });
        found.push((version["sha256"].clone(), version["metrics"][0]["value"].clone(), answers));
        client.upload_model("bad", b"no model").expect_problem(422, "invalid_model", "");
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(children(isolated.id()).len(), 2, "the two loaded versions");
    assert!(children(plain.id()).is_empty());
}

/// Requests that a thread of the program works on.
fn running_requests(program: &Program) -> u32 {
    let metrics = String::from_utf8(program.client.get("/metrics").expect(200).body).unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("weightpress_executor_tasks{pool=\"requests\",state=\"running\"} "));
    line.unwrap_or("0").parse().unwrap()
}

/// `y = x` repeated along a new axis, far more often than memory allows.
fn exploding() -> Vec<u8> {
    let mut model = fixtures::matmul_model(vec![4, 3], (0..12).flat_map(|i: u8| f32::from(i).to_le_bytes()).collect());
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].output = vec!["product".into()];
    graph.initializer.push(pb::TensorProto {
        name: "extents".into(),
        dims: vec![3],
        data_type: pb::tensor_proto::DataType::Int64 as i32,
        raw_data: [LARGE / 6, 2, 3].iter().flat_map(|extent: &i64| extent.to_le_bytes()).collect(),
        ..pb::TensorProto::default()
    });
    graph.node.push(node("Expand", &["product", "extents"], "expanded"));
    graph.node.push(node("ReduceMax", &["expanded"], "y"));
    if let Some(Value::TensorType(y)) = graph.output[0].r#type.as_mut().and_then(|kind| kind.value.as_mut()) {
        y.shape = None;
    }
    onnx(&model)
}

fn node(op_type: &str, input: &[&str], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        op_type: op_type.into(),
        input: input.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        ..pb::NodeProto::default()
    }
}

#[test]
fn a_prediction_gets_no_more_memory_than_a_child_may_have() {
    let (database, data_dir) = (PostgresDatabase::create(), tempfile::tempdir().unwrap());
    let program = start(data_dir.path(), database.as_ref(), "60");
    let client = &program.client;
    client.upload_model("digits", DIGITS).expect(201);
    client.upload_model("exploding", &exploding()).expect(201);
    let request =
        json!({"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [0, 0, 0, 0, 0, 0, 0, 0]}]});
    for _ in 0..2 {
        let answer = client.post_json("/v2/models/exploding/infer", &request);
        answer.expect_problem(422, "prediction_failed", "failed to allocate");
        client.post_json("/v2/models/digits/infer", &digits_request()).expect(200);
    }
}

#[test]
fn a_child_that_dies_or_hangs_is_replaced() {
    let (database, data_dir) = (PostgresDatabase::create(), tempfile::tempdir().unwrap());
    let program = start(data_dir.path(), database.as_ref(), "2");
    let client = &program.client;
    client.upload_model("digits", DIGITS).expect(201);
    let infer = || client.post_json("/v2/models/digits/infer", &digits_request());
    let expected = infer().expect(200).json()["outputs"].clone();
    let [child] = children(program.id())[..] else { panic!("one child for one version") };
    signal(child, "KILL");
    // A request that was on its way to the dead one is told to come again.
    wait_until("the child is replaced", || infer().status == 200);
    assert_eq!(infer().expect(200).json()["outputs"], expected);
    let [child] = children(program.id())[..] else { panic!("one child again") };
    signal(child, "STOP");
    infer().expect_problem(422, "limits_exceeded", "longer than 2 s");
    assert_eq!(infer().expect(200).json()["outputs"], expected);
    // What ends a process that runs out of memory or of stack, while somebody waits for it.
    let [child] = children(program.id())[..] else { panic!("one child again") };
    signal(child, "STOP");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(infer);
        wait_until("the request waits", || running_requests(&program) == 1);
        signal(child, "ABRT");
        signal(child, "CONT");
        waiting.join().unwrap().expect_problem(422, "limits_exceeded", "aborted");
    });
    assert_eq!(infer().expect(200).json()["outputs"], expected);
}

#[test]
fn children_end_with_their_parent() {
    let (database, data_dir) = (PostgresDatabase::create(), tempfile::tempdir().unwrap());
    let mut program = start(data_dir.path(), database.as_ref(), "60");
    program.client.upload_model("digits", DIGITS).expect(201);
    program.client.post_json("/v2/models/digits/infer", &digits_request()).expect(200);
    let [child] = children(program.id())[..] else { panic!("one child for one version") };
    program.kill();
    let lives = || Path::new(&format!("/proc/{child}/exe")).read_link().is_ok();
    wait_until("the child is gone", || !lives());
}

#[test]
fn a_child_knows_no_secret_and_no_network() {
    let (database, data_dir) = (PostgresDatabase::create(), tempfile::tempdir().unwrap());
    let program = start(data_dir.path(), database.as_ref(), "60");
    program.client.upload_model("digits", DIGITS).expect(201);
    program.client.post_json("/v2/models/digits/infer", &digits_request()).expect(200);
    let [child] = children(program.id())[..] else { panic!("one child for one version") };
    let environment = std::fs::read_to_string(format!("/proc/{child}/environ")).unwrap();
    assert!(!environment.contains("WEIGHTPRESS") && !environment.contains("PATH"), "{environment}");
    let network = |process: u32| std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
    // Where the system allows it, which it does here if it does for anybody.
    if Command::new("unshare").args(["--map-root-user", "--net", "true"]).status().is_ok_and(|status| status.success())
    {
        assert_ne!(network(child), network(program.id()));
    }
}

/// It is not tried again.
#[test]
fn a_job_that_asks_for_too_much_memory_fails_with_the_reason() {
    let (database, data_dir) = (PostgresDatabase::create(), tempfile::tempdir().unwrap());
    let program = start(data_dir.path(), database.as_ref(), "60");
    let client = &program.client;
    client.upload_model("exploding", &exploding()).expect(201);
    client.upload_dataset("zeros", &fixtures::npz(&[("x", &[4, 4], 0.0), ("y", &[4, 3], 0.0)])).expect(201);
    let job = client.run_job(&json!({
        "kind": "evaluate", "model": "exploding", "version": 0,
        "evaluation": {"metrics": ["mse"], "data": {"dataset": "zeros", "inputs": {"x": {"array": "x"}}, "target": {"array": "y", "kind": "value"}}},
    }));
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(1)), "{job}");
    assert!(job["failure"]["detail"].as_str().unwrap().contains("failed to allocate"), "{job}");
}
