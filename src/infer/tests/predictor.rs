//! Whole graphs: what the plan holds, what inputs are refused.

use prost::Message;

use super::graph::{GraphBuilder, float, int, named_node, node};
use super::*;
use crate::infer::{Array, ArrayData, Predictor, unsupported_operators};
use crate::model::Model;

#[test]
fn a_plan_on_encoded_weights_holds_no_dense_weight() {
    let mut graph = GraphBuilder::new();
    graph.input("x", &[None, Some(3), Some(16), Some(16)]);
    let (kernel, bias) = (graph.weight(&[8, 3, 3, 3]), graph.bias(&[8]));
    graph.node(named_node("Conv", &["x", &kernel, &bias], "c", vec![]));
    graph.node(named_node("Flatten", &["c"], "f", vec![]));
    let (weight, bias) = (graph.weight(&[10, 8 * 14 * 14]), graph.bias(&[10]));
    graph.node(named_node("Gemm", &["f", &weight, &bias], "y", vec![int("transB", 1)]));
    graph.output("y");
    let model = graph.build();

    let biases = 4 * (8 + 10);
    let weights = 4 * (8 * 27 + 10 * 8 * 14 * 14);
    assert!(dense(&model).constant_bytes() >= weights + biases);
    assert_eq!(coded(&model, CodecId::Sham).constant_bytes(), biases);
    assert_agree("a small network", &model, CodecId::Sham, &[&[3, 3, 16, 16]]);
}

#[test]
fn an_operator_that_the_engine_computes_otherwise_is_refused() {
    let missing = |alpha: f32| {
        let mut graph = GraphBuilder::new();
        graph.input("x", &[None, Some(3)]);
        graph.node(named_node("Celu", &["x"], "y", vec![float("alpha", alpha)]));
        graph.output("y");
        unsupported_operators(&Model::from_bytes(graph.build().encode_to_vec().into()).unwrap())
    };
    assert_eq!(missing(1.0), Vec::<String>::new());
    assert_eq!(missing(0.5), ["Celu with an alpha that is not 1"]);
}

#[test]
fn a_sequence_may_have_any_length() {
    let mut graph = GraphBuilder::new();
    graph.input("x", &[None, None, Some(8)]);
    let (query, key) = (graph.weight(&[8, 8]), graph.weight(&[8, 8]));
    graph.node(named_node("MatMul", &["x", &query], "q", vec![]));
    graph.node(named_node("MatMul", &["x", &key], "k", vec![]));
    let perm = super::graph::ints("perm", &[0, 2, 1]);
    graph.node(named_node("Transpose", &["k"], "kt", vec![perm]));
    graph.node(named_node("MatMul", &["q", "kt"], "s", vec![]));
    graph.node(named_node("Softmax", &["s"], "p", vec![int("axis", -1)]));
    graph.node(named_node("MatMul", &["p", "x"], "y", vec![]));
    graph.output("y");
    let model = graph.build();
    for (batch, length) in [(1, 1), (2, 5), (7, 3)] {
        assert_agree(&format!("{batch} x {length}"), &model, CodecId::Ham, &[&[batch, length, 8]]);
    }
}

#[test]
fn first_extents_without_a_name_may_differ_where_the_graph_allows_it() {
    let run = |op: &str, rows: [usize; 2]| {
        let mut graph = GraphBuilder::new();
        graph.input("a", &[None, Some(4)]);
        graph.input("b", &[None, Some(4)]);
        let transposed = if op == "Gemm" { vec![int("transB", 1)] } else { vec![] };
        graph.node(node(op, &["a", "b"], transposed));
        graph.output("y");
        let predictor = Predictor::from_model(&Model::from_bytes(graph.build().encode_to_vec().into()).unwrap());
        let array = |rows| Array { dims: vec![rows, 4], data: ArrayData::F32(vec![0.5; rows * 4]) };
        let inputs = vec![("a".into(), array(rows[0])), ("b".into(), array(rows[1]))];
        predictor.unwrap().run(inputs).map(|outputs| outputs[0].1.clone())
    };
    for rows in [[2, 7], [3, 3]] {
        let product = run("Gemm", rows).unwrap();
        assert_eq!(product, Array { dims: rows.to_vec(), data: ArrayData::F32(vec![1.0; rows[0] * rows[1]]) });
    }
    let refused = run("Add", [2, 7]).unwrap_err();
    assert!(refused.is_bad_input(), "{refused}");
    assert_eq!(refused.to_string(), "inputs a and b share the batch, but have 2 and 7");
}

#[test]
fn a_panic_inside_the_engine_is_an_error() {
    // A pooling window of 0 makes tract divide by zero or overflow somewhere; whatever it does, it must not get out.
    let model = one_node(&[None, Some(1), Some(4)], |_| {
        let window = super::graph::ints("kernel_shape", &[0]);
        node("MaxPool", &["x"], vec![window, super::graph::ints("strides", &[0])])
    });
    let outcome = planned(model, Operators::new()).and_then(|plan| plan.run(random_inputs(&[&[1, 1, 4]])));
    assert!(matches!(outcome, Err(InferError::Load { .. } | InferError::Run { .. })));
}

#[test]
fn inputs_at_fault_are_named_with_their_numbers() {
    let mut graph = GraphBuilder::new();
    graph.input("a", &[None, Some(3)]);
    graph.input("b", &[None, Some(3)]);
    let mut model = graph.build();
    let (ports, _) = ports(&mut model).unwrap();
    let array = |dims: &[usize]| Array { dims: dims.to_vec(), data: ArrayData::F32(vec![0.0; dims.iter().product()]) };
    let good = || array(&[2, 3]);
    let message = |given: Vec<(&str, Array)>| {
        let given = given.into_iter().map(|(name, array)| (name.to_owned(), array)).collect();
        let error = ports.check(given).unwrap_err();
        assert!(error.is_bad_input());
        error.to_string()
    };

    assert!(ports.check(vec![("b".into(), good()), ("a".into(), good())]).is_ok());
    assert_eq!(message(vec![("a", good())]), "input b is missing");
    assert_eq!(message(vec![("c", good())]), "the graph has no input c; it has a, b");
    assert_eq!(message(vec![("a", good()), ("a", good())]), "input a is given twice");
    assert_eq!(message(vec![("a", array(&[6])), ("b", good())]), "input a has 2 dimensions, found 1");
    assert_eq!(message(vec![("a", array(&[2, 4])), ("b", good())]), "dimension 1 of input a is 3, found 4");
    let extents = ports.check(vec![("a".into(), good()), ("b".into(), array(&[5, 3]))]).unwrap();
    let batch = "inputs a and b share the batch, but have 2 and 5";
    assert_eq!(extents.disagreement.map(|error| error.to_string()).as_deref(), Some(batch));
    let short = Array { dims: vec![2, 3], data: ArrayData::F32(vec![0.0; 5]) };
    assert_eq!(message(vec![("a", short), ("b", good())]), "array a: the shape [2, 3] needs 6 elements, found 5");
    let integers = Array { dims: vec![2, 3], data: ArrayData::I64(vec![0; 6]) };
    assert_eq!(message(vec![("a", integers), ("b", good())]), "input a is FP32, found INT64");
}
