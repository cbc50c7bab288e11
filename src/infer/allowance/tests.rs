//! Graphs that ask for far more than they are.

use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::tract_hir::internal::*;

use super::*;
use crate::infer::{Array, ArrayData, InferError, Predictor};
use crate::model::Model;
use crate::model::fixture::{floats, graph, model, node, port, with_graph, with_int};

/// An int64 constant.
fn ints(name: &str, dims: &[i64], values: &[i64]) -> pb::TensorProto {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let data_type = DataType::Int64 as i32;
    pb::TensorProto { name: name.into(), dims: dims.to_vec(), data_type, raw_data, ..Default::default() }
}

/// A port of another type than float.
fn typed(mut port: pb::ValueInfoProto, to: DataType) -> pb::ValueInfoProto {
    if let Some(pb::type_proto::Value::TensorType(tensor)) = port.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        tensor.elem_type = to as i32;
    }
    port
}

/// A graph that reads `x` (n, 3) and makes `y`.
fn of(nodes: Vec<pb::NodeProto>, constants: Vec<pb::TensorProto>) -> pb::GraphProto {
    let mut graph = graph(nodes, constants);
    graph.input = vec![port("x", &[-1, 3])];
    graph.output = vec![port("y", &[-1])];
    graph
}

fn load(graph: pb::GraphProto) -> Result<Predictor, InferError> {
    Predictor::from_model(&Model::from_bytes(model(graph).encode_to_vec().into())?)
}

fn excess<T>(outcome: Result<T, InferError>) -> Excess {
    match outcome {
        Err(InferError::TooLarge(excess)) => excess,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("granted"),
    }
}

fn matrix(dims: &[usize]) -> Array {
    Array { dims: dims.to_vec(), data: ArrayData::F32(vec![1.0; dims.iter().product()]) }
}

#[test]
fn graphs_that_always_make_too_much_are_refused_before_they_make_it() {
    let shape = |dims: &[i64]| ints("shape", &[dims.len() as i64], dims);
    let scalar = |name: &str, value: i64| ints(name, &[], &[value]);
    let range = |start, end, step| vec![scalar("start", start), scalar("end", end), scalar("step", step)];
    let ranged = || vec![node("Range", "start end step", "r"), node("Cast", "r", "f"), node("Add", "f x", "y")];
    let cast = |mut nodes: Vec<pb::NodeProto>| {
        nodes[1] = with_int(nodes[1].clone(), "to", 1);
        nodes
    };
    let one = || floats("one", &[1, 1], &[1.0]);
    let cases = vec![
        ("ConstantOfShape", vec![node("ConstantOfShape", "shape", "y")], vec![shape(&[1 << 20, 1 << 20])]),
        ("ConstantOfShape", vec![node("ConstantOfShape", "shape", "y")], vec![shape(&[1 << 40, 1 << 40])]),
        ("Expand", vec![node("Expand", "one shape", "y")], vec![one(), shape(&[1 << 40, 1])]),
        ("Expand", vec![node("Expand", "x shape", "y")], vec![shape(&[1 << 40, 1, 3])]),
        ("Tile", vec![node("Tile", "one shape", "y")], vec![one(), shape(&[1 << 40, 0])]),
        ("Tile", vec![node("Tile", "one shape", "y")], vec![one(), shape(&[1 << 20, 1 << 20])]),
        ("Range", cast(ranged()), range(0, 1 << 40, 1)),
        ("Range", cast(ranged()), range(-(1 << 62), 1 << 62, 1 << 23)),
        ("Pad", vec![node("Pad", "one shape", "y")], vec![one(), shape(&[0, 0, 1 << 40, 1 << 20])]),
        ("OneHot", vec![node("OneHot", "at shape two", "y")], {
            vec![ints("at", &[2], &[0, 1]), shape(&[1 << 40]), floats("two", &[2], &[0.0, 1.0])]
        }),
        (
            "ConstantOfShape",
            { vec![node("ConstantOfShape", "shape", "c"), node("EyeLike", "c", "e"), node("ReduceSum", "e", "y")] },
            vec![shape(&[1 << 20, 1 << 20])],
        ),
        (
            "MatMul",
            vec![
                node("ConstantOfShape", "column", "a"),
                node("ConstantOfShape", "row", "b"),
                node("MatMul", "a b", "p"),
                node("ReduceMax", "p", "y"),
            ],
            vec![ints("column", &[2], &[1 << 16, 1]), ints("row", &[2], &[1, 1 << 16])],
        ),
        (
            "Concat",
            vec![node("ConstantOfShape", "shape", "a"), with_int(node("Concat", &"a ".repeat(300), "y"), "axis", 0)],
            vec![shape(&[1 << 20])],
        ),
    ];
    for (operator, nodes, constants) in cases {
        let mut graph = of(nodes, constants);
        if graph.node[0].op_type == "ConstantOfShape" || !graph.node.iter().any(|n| n.input.iter().any(|i| i == "x")) {
            graph.input.clear();
        }
        let found = excess(load(graph));
        let Excess::Tensor { operator: named, bytes, max_bytes, .. } = &found else { panic!("{operator}: {found}") };
        assert_eq!((named.as_str(), *max_bytes), (operator, DEFAULT_TENSOR_BYTES), "{found}");
        assert!(*bytes > 1 << 30, "{found}");
    }
}

#[test]
fn requests_are_asked_what_they_make_before_they_run() {
    let mut outer = of(vec![node("MatMul", "x w", "y")], Vec::new());
    outer.input = vec![port("x", &[-1, 1]), port("w", &[1, 1 << 16])];
    let predictor = load(outer).unwrap();
    let run = |rows: usize| predictor.run(vec![("x".into(), matrix(&[rows, 1])), ("w".into(), matrix(&[1, 1 << 16]))]);
    assert_eq!(run(2).unwrap()[0].1.dims, [2, 1 << 16]);
    let found = excess(run(1 << 13));
    let bytes = 4 << 29;
    let (node, operator) = ("y".to_owned(), "MatMul".to_owned());
    assert_eq!(found, Excess::Tensor { node, operator, bytes, max_bytes: 1 << 30 });
    assert!(found.to_string().contains("node \"y\" (MatMul) would take 2147483648 bytes"));
    assert!(run(3).is_ok());
}

#[test]
fn extents_that_depend_on_values_are_asked_for_when_the_values_are_there() {
    let mut ranged =
        of(vec![node("Range", "start end step", "y")], vec![ints("start", &[], &[0]), ints("step", &[], &[1])]);
    ranged.input = vec![typed(port("end", &[]), DataType::Int64)];
    ranged.output = vec![typed(port("y", &[-1]), DataType::Int64)];
    let predictor = load(ranged).unwrap();
    let run = |end: i64| predictor.run(vec![("end".into(), Array { dims: vec![], data: ArrayData::I64(vec![end]) })]);
    assert_eq!(run(3).unwrap()[0].1.data, ArrayData::I64(vec![0, 1, 2]));
    assert!(
        matches!(excess(run(1 << 40)), Excess::Tensor { operator, bytes, .. } if operator == "Range" && bytes == 8 << 40)
    );
    assert_eq!(run(2).unwrap()[0].1.dims, [2]);

    let mut largest = of(vec![node("TopK", "x k", "y at")], Vec::new());
    largest.input.push(typed(port("k", &[1]), DataType::Int64));
    largest.output = vec![port("y", &[-1, -1])];
    let predictor = load(largest).unwrap();
    let run = |k: i64| {
        let k = Array { dims: vec![1], data: ArrayData::I64(vec![k]) };
        predictor.run(vec![("x".into(), matrix(&[2, 3])), ("k".into(), k)])
    };
    assert_eq!(run(2).unwrap()[0].1.dims, [2, 2]);
    assert!(matches!(excess(run(1 << 36)), Excess::Tensor { operator, .. } if operator == "TopK"));
}

#[test]
fn what_stands_behind_a_size_that_depends_on_values_is_asked_too() {
    // As many as there are non-zeros, squared.
    let nodes = vec![
        node("NonZero", "x", "at"),
        with_int(node("Cast", "at", "f"), "to", 1),
        node("Transpose", "f", "t"),
        node("MatMul", "t f", "y"),
    ];
    let mut graph = of(nodes, Vec::new());
    graph.output = vec![port("y", &[-1, -1])];
    let predictor = load(graph).unwrap();
    let run = |rows: usize| predictor.run(vec![("x".into(), matrix(&[rows, 3]))]);
    assert_eq!(run(2).unwrap()[0].1.dims, [6, 6]);
    assert!(matches!(excess(run(6000)), Excess::Tensor { operator, .. } if operator == "MatMul"));
}

#[test]
fn values_that_are_alive_at_once_are_added_up() {
    let expand = |at: usize| node("Expand", "x shape", &format!("y{at}"));
    let mut graph = of((0..5).map(expand).collect(), vec![ints("shape", &[3], &[1 << 20, 1, 3])]);
    graph.output = (0..5).map(|at| port(&format!("y{at}"), &[-1, -1, -1])).collect();
    let predictor = load(graph).unwrap();
    let found = excess(predictor.run(vec![("x".into(), matrix(&[80, 3]))]));
    assert!(matches!(found, Excess::Alive { max_bytes, .. } if max_bytes == 4 << 30), "{found}");
}

#[test]
fn branches_are_looked_into() {
    let body = |dims: &[i64]| {
        let mut body = graph(vec![node("Expand", "x shape", "b")], vec![ints("shape", &[dims.len() as i64], dims)]);
        body.output = vec![port("b", &[-1, -1, -1])];
        body
    };
    let branches = |dims: &[i64]| {
        let branch = with_graph(node("If", "c", "y"), "then_branch", body(dims));
        let mut graph = of(vec![with_graph(branch, "else_branch", body(dims))], Vec::new());
        graph.input.push(typed(port("c", &[]), DataType::Bool));
        graph.output = vec![port("y", &[-1, -1, -1])];
        graph
    };
    assert!(
        matches!(excess(load(branches(&[1 << 40, 1, 3]))), Excess::Tensor { operator, .. } if operator == "Expand")
    );
}

#[test]
fn loops_do_not_run_for_ever() {
    let mut body = graph(vec![node("Add", "state one", "next"), node("Identity", "next", "seen")], Vec::new());
    body.input = vec![port("state", &[]), port("one", &[])];
    body.output = vec![port("next", &[]), port("seen", &[])];
    let scan = with_int(with_graph(node("Scan", "zero x", "last all"), "body", body), "num_scan_inputs", 1);
    let mut graph = of(vec![scan], vec![floats("zero", &[], &[0.0])]);
    graph.input = vec![port("x", &[-1])];
    graph.output = vec![port("last", &[])];
    let predictor = load(graph).unwrap();
    let run = |steps: usize| predictor.run(vec![("x".into(), matrix(&[steps]))]);
    assert_eq!(run(5).unwrap()[0].1.data, ArrayData::F32(vec![5.0]));
    let found = excess(run((1 << 20) + 1));
    assert!(matches!(&found, Excess::Iterations { operator, max: 0x10_0000, .. } if operator == "Scan"), "{found}");
}

#[test]
fn constants_made_of_nothing_are_added_up() {
    let fill = |at: usize| {
        let value = floats("", &[1], &[at as f32]);
        let value = pb::AttributeProto { name: "value".into(), t: Some(value), r#type: 4, ..Default::default() };
        pb::NodeProto { attribute: vec![value], ..node("ConstantOfShape", "shape", &format!("c{at}")) }
    };
    let filled = |count: usize| {
        let mut nodes: Vec<_> = (0..count).map(fill).collect();
        let names: Vec<_> = (0..count).map(|at| format!("c{at}")).collect();
        nodes.push(node("Max", &names.join(" "), "m"));
        nodes.push(node("Add", "m x", "y"));
        of(nodes, vec![ints("shape", &[2], &[1 << 16, 3])])
    };
    let optimized = |count: usize| {
        let graph = model(filled(count));
        let allowance = Arc::new(Allowance { tensor_bytes: 1 << 20, made_bytes: 8 << 20, operators: HashMap::new() });
        let parsed = tract_onnx::onnx().with_ignore_value_info(true).parse(&graph, None)?;
        crate::infer::plan::attempt(|| optimize(parsed.model, &allowance)).map_err(TractError::from)
    };
    assert!(optimized(4).is_ok());
    let error = optimized(40).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(InferError::TooLarge(Excess::Constants { .. }))), "{error}");
}
