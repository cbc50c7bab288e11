//! Models that ask for far more memory, or time, than they are: each is refused where it is uploaded, or where it is to predict, by an
//! answer that names its fault; and the process stays small.
#![cfg(target_os = "linux")]

use prost::Message;
use serde_json::{Value, json};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

use crate::client::Answer;
use crate::fixtures::{floats, ints, model, node, onnx, with_graph, with_ints};
use crate::harness::{PostgresDatabase, TestApp};
use crate::memory::peak_resident_bytes;
use crate::program::Program;

/// What a tensor is granted here.
const TENSOR_BYTES: u64 = 32 << 20;
/// What all of these models together may add to the memory of a process that grants each of them four tensors at once.
const GROWTH_BYTES: u64 = 512 << 20;

/// `h` (n, 3) is the product of `x` (n, 4) and a weight; `nodes` make `y` of it.
fn behind_a_product(mut nodes: Vec<pb::NodeProto>, mut constants: Vec<pb::TensorProto>) -> pb::ModelProto {
    nodes.insert(0, node("MatMul", "x weight", "h"));
    constants.push(floats("weight", &[4, 3], &[0.5; 12]));
    model(nodes, constants, &[-1, 4], &[-1, 3])
}

fn shape(extents: &[i64]) -> pb::TensorProto {
    ints("shape", &[extents.len() as i64], extents)
}

/// Valid models that no prediction may run: the operator at fault, and the model.
fn too_large() -> Vec<(&'static str, pb::ModelProto)> {
    let scalar = |name: &str, value: i64| ints(name, &[], &[value]);
    let summed = |of: &str| vec![node("ReduceSum", of, "s"), node("Add", "h s", "y")];
    let with = |mut nodes: Vec<pb::NodeProto>, of: &str| {
        nodes.extend(summed(of));
        nodes
    };
    let branch = || {
        let graph = pb::GraphProto {
            name: "branch".into(),
            node: vec![node("Expand", "h far", "b")],
            initializer: vec![ints("far", &[3], &[1 << 40, 1, 3])],
            output: vec![crate::fixtures::port("b", &[-1, -1, 3])],
            ..Default::default()
        };
        with_graph(with_graph(node("If", "c", "big"), "then_branch", graph.clone()), "else_branch", graph)
    };
    vec![
        ("Expand", behind_a_product(vec![node("Expand", "h shape", "y")], vec![shape(&[1 << 40, 1, 3])])),
        ("Tile", behind_a_product(vec![node("Tile", "h shape", "y")], vec![shape(&[1 << 20, 1 << 20])])),
        ("Pad", behind_a_product(vec![node("Pad", "h shape", "y")], vec![shape(&[0, 0, 1 << 40, 0])])),
        (
            "ConstantOfShape",
            behind_a_product(with(vec![node("ConstantOfShape", "shape", "big")], "big"), vec![shape(&[1 << 40])]),
        ),
        (
            "Expand",
            behind_a_product(
                with(vec![node("Expand", "one shape", "big")], "big"),
                vec![floats("one", &[1], &[1.0]), shape(&[1 << 20, 1 << 20])],
            ),
        ),
        (
            "Range",
            behind_a_product(
                with(vec![node("Range", "from to by", "r"), with_int(node("Cast", "r", "big"), "to", 1)], "big"),
                vec![scalar("from", 0), scalar("to", 1 << 40), scalar("by", 1)],
            ),
        ),
        (
            "OneHot",
            behind_a_product(
                with(vec![node("OneHot", "at depth two", "big")], "big"),
                vec![ints("at", &[2], &[0, 1]), ints("depth", &[1], &[1 << 40]), floats("two", &[2], &[0.0, 1.0])],
            ),
        ),
        ("Resize", behind_a_product(vec![node("Resize", "h   shape", "y")], vec![shape(&[1 << 20, 1 << 20])])),
        (
            "MatMul",
            behind_a_product(
                with(
                    vec![
                        node("ConstantOfShape", "column", "a"),
                        node("ConstantOfShape", "row", "b"),
                        node("MatMul", "a b", "big"),
                    ],
                    "big",
                ),
                vec![ints("column", &[2], &[1 << 16, 1]), ints("row", &[2], &[1, 1 << 16])],
            ),
        ),
        (
            "Expand",
            behind_a_product(
                with(vec![node("ReduceSum", "h", "t"), cast_to_bool("t", "c"), branch()], "big"),
                Vec::new(),
            ),
        ),
    ]
}

fn with_int(mut node: pb::NodeProto, name: &str, value: i64) -> pb::NodeProto {
    node.attribute.push(pb::AttributeProto { name: name.into(), i: value, r#type: 2, ..Default::default() });
    node
}

fn cast_to_bool(from: &str, to: &str) -> pb::NodeProto {
    with_int(node("Cast", from, to), "to", DataType::Bool as i64)
}

/// Rows of `x` for a prediction.
fn rows(count: usize) -> Value {
    json!({"inputs": [{"name": "x", "shape": [count, 4], "datatype": "FP32", "data": vec![0.5; 4 * count]}]})
}

/// Refused for `operator`, whatever the request or for this one.
#[track_caller]
fn expect_too_large(answer: &Answer, operator: &str) {
    let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
    assert!(["not_predictable", "prediction_too_large"].contains(&code.as_str()), "{operator}: {code}");
    answer.expect_problem(422, &code, &format!("({operator}) would take "));
}

#[test]
fn predictions_that_would_take_too_much_are_refused_by_name() {
    let data_dir = tempfile::tempdir().unwrap();
    let database = PostgresDatabase::create();
    let flags = ["--max-prediction-bytes", "32MiB"];
    let program = Program::start_at("127.0.0.1:0", &flags, data_dir.path(), database.as_ref());
    let client = &program.client;
    client.upload_model("sound", &onnx(&behind_a_product(vec![node("Relu", "h", "y")], vec![]))).expect(201);
    client.post_json("/v2/models/sound/infer", &rows(2)).expect(200);
    let before = peak_resident_bytes(program.id());

    for (at, (operator, model)) in too_large().into_iter().enumerate() {
        let name = format!("hostile{at}");
        client.upload_model(&name, &onnx(&model)).expect(201);
        expect_too_large(&client.post_json(&format!("/v2/models/{name}/infer"), &rows(2)), operator);
    }

    // What depends on the request is refused by the request: 96 rows would do.
    let wide = behind_a_product(vec![node("Expand", "h shape", "y")], vec![shape(&[1 << 13, 1, 3])]);
    client.upload_model("wide", &onnx(&wide)).expect(201);
    client.post_json("/v2/models/wide/infer", &rows(1)).expect(200);
    let fault = format!("node \"y\" (Expand) would take {} bytes, a tensor is granted {TENSOR_BYTES}", 12_u64 << 23);
    client.post_json("/v2/models/wide/infer", &rows(1024)).expect_problem(422, "prediction_too_large", &fault);
    client.post_json("/v2/models/wide/infer", &rows(2)).expect(200);

    let growth = peak_resident_bytes(program.id()) - before;
    assert!(growth <= GROWTH_BYTES, "{} MiB more", growth >> 20);
    client.post_json("/v2/models/sound/infer", &rows(2)).expect(200);
}

#[test]
fn jobs_on_models_that_would_take_too_much_fail_by_name() {
    let data_dir = tempfile::tempdir().unwrap();
    let database = PostgresDatabase::create();
    let flags = ["--max-prediction-bytes", "32MiB"];
    let program = Program::start_at("127.0.0.1:0", &flags, data_dir.path(), database.as_ref());
    let client = &program.client;
    client.upload_dataset("rows", &crate::fixtures::npz(&[("x", &[32, 4], 0.5), ("t", &[32, 3], 0.5)])).expect(201);
    let before = peak_resident_bytes(program.id());
    let data = json!({"dataset": "rows", "inputs": {"x": {"array": "x"}}, "target": {"array": "t", "kind": "value"}});
    for (at, (operator, model)) in too_large().into_iter().enumerate() {
        let name = format!("hostile{at}");
        client.upload_model(&name, &onnx(&model)).expect(201);
        let evaluation = json!({"metrics": ["mse"], "data": data});
        let jobs = [
            json!({"kind": "evaluate", "model": name, "version": 0, "evaluation": evaluation}),
            json!({"kind": "compress", "model": name, "evaluation": evaluation,
                "recipe": {"prune": {"criterion": "magnitude", "sparsity": 0.5}}}),
            json!({"kind": "compress", "model": name, "data": {"train": {"dataset": "rows", "inputs": {"x": {"array": "x"}}}},
                "recipe": {"prune": {"criterion": "obs", "sparsity": 0.5}}}),
        ];
        for job in jobs {
            let done = client.run_job(&job);
            assert_eq!(done["status"], "failed", "{operator}: {job} {done}");
            assert!(done.to_string().contains(&format!("({operator})")), "{operator}: {job} {done}");
        }
        // Its weights are as good as any.
        let plain = json!({"kind": "compress", "model": name, "recipe": {"prune": {"criterion": "magnitude", "sparsity": 0.5}}});
        assert_eq!(client.run_job(&plain)["status"], "succeeded", "{operator}");
        expect_too_large(&client.post_json(&format!("/v2/models/{name}/versions/1/infer"), &rows(2)), operator);
    }
    let growth = peak_resident_bytes(program.id()) - before;
    assert!(growth <= GROWTH_BYTES, "{} MiB more", growth >> 20);
}

#[test]
fn graphs_beyond_any_model_are_refused_where_they_are_uploaded() {
    let app = TestApp::start();
    let empty = app.contents();
    let pool = |kernel: &[i64]| with_ints(node("MaxPool", "h", "y"), "kernel_shape", kernel);
    let nested = (0..40).fold(node("Identity", "h", "y"), |inner, _| {
        let graph = pb::GraphProto { name: "g".into(), node: vec![inner], ..Default::default() };
        with_graph(node("If", "h", "y"), "then_branch", graph)
    });
    let outside = || {
        let value = crate::fixtures::external_model().graph.unwrap().initializer.remove(0);
        let value = pb::AttributeProto { name: "value".into(), t: Some(value), r#type: 4, ..Default::default() };
        let constant = pb::NodeProto { attribute: vec![value], ..node("Constant", "", "c") };
        let graph = pb::GraphProto { name: "g".into(), node: vec![constant], ..Default::default() };
        with_graph(node("If", "h", "y"), "then_branch", graph)
    };
    let cases = [
        ("a huge window", vec![pool(&[1 << 40, 1 << 40])], vec![], "taps"),
        ("a huge step", vec![with_ints(pool(&[2, 2]), "pads", &[1 << 40; 4])], vec![], "\"pads\""),
        ("too many nodes", vec![node("Relu", "h", ""); 70_000], vec![], "65536 nodes"),
        ("too many axes", vec![node("Relu", "h", "y")], vec![floats("deep", &[1; 17], &[1.0])], "16 dimensions"),
        ("graphs in graphs", vec![nested], vec![], "16 deep"),
        ("data outside, inside a branch", vec![outside()], vec![], "another file"),
        (
            "sizes beyond the bytes",
            vec![node("Relu", "h", "y")],
            vec![floats("w2", &[1 << 40], &[1.0])],
            "bytes, found 4",
        ),
    ];
    for (case, nodes, constants, fault) in cases {
        let answer = app.upload_model("bad", &behind_a_product(nodes, constants).encode_to_vec());
        assert_eq!(answer.status, 422, "{case}: {}", String::from_utf8_lossy(&answer.body));
        answer.expect_problem(422, "invalid_model", fault);
        assert_eq!(app.contents(), empty, "{case}");
    }
}

#[test]
fn loops_of_a_trip_count_are_kept_but_do_not_predict() {
    let app = TestApp::start();
    let body = pb::GraphProto { name: "body".into(), node: vec![node("Relu", "v", "w")], ..Default::default() };
    let forever = with_graph(node("Loop", "trips go h", "y"), "body", body);
    let trips =
        vec![ints("trips", &[], &[i64::MAX]), pb::TensorProto { data_type: DataType::Bool as i32, ..bool_true() }];
    app.upload_model("forever", &onnx(&behind_a_product(vec![forever], trips))).expect(201);
    app.post_json("/v2/models/forever/infer", &rows(1)).expect_problem(422, "not_predictable", "Loop");
}

fn bool_true() -> pb::TensorProto {
    pb::TensorProto { name: "go".into(), raw_data: vec![1], ..Default::default() }
}
