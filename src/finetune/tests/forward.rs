//! Outputs that no gradient passes: shapes that are computed as the graph runs, and refusals.

use super::Attribute::{Int, Ints};
use super::Graph;
use crate::finetune::{OperatorError, TuneError};

#[test]
fn shapes_are_computed_as_the_graph_runs() {
    // x.view(x.size(0), -1) as exporters write it.
    let graph = Graph::new().random("x", &[2, 3, 4], 1).ints("zero", &[], &[0]).ints("axes", &[1], &[0]);
    let graph = graph.ints("rest", &[1], &[-1]).node("Shape", "x", "s", &[]).node("Gather", "s zero", "n", &[]);
    let graph = graph.node("Unsqueeze", "n axes", "u", &[]).node("Concat", "u rest", "to", &[("axis", Int(0))]);
    let graph = graph.node("Reshape", "x to", "y", &[]);
    assert_eq!(graph.run().unwrap().0, [2, 12]);
    graph.assert_like_tract();
    graph.assert_gradients();
}

#[test]
fn slices_run_both_ways() {
    let far = i64::MAX;
    let cases = [
        ((0, far, 2), vec![0.0, 2.0, 4.0]),
        ((-3, -1, 1), vec![2.0, 3.0]),
        ((4, 1, 1), vec![]),
        ((-1, -far, -1), vec![4.0, 3.0, 2.0, 1.0, 0.0]),
        ((far, 1, -2), vec![4.0, 2.0]),
        ((2, 0, -1), vec![2.0, 1.0]),
        ((0, 3, -1), vec![]),
    ];
    for ((start, end, step), expected) in cases {
        let graph = Graph::new().reals("x", &[5], &[0.0, 1.0, 2.0, 3.0, 4.0]).ints("axes", &[1], &[0]);
        let graph = graph.ints("start", &[1], &[start]).ints("end", &[1], &[end]).ints("step", &[1], &[step]);
        let (_, values) = graph.node("Slice", "x start end axes step", "y", &[]).run().unwrap();
        assert_eq!(values, expected, "{start} {end} {step}");
    }
}

#[test]
fn bad_shapes_are_errors_that_name_the_node() {
    let source = |graph: Graph| match graph.run() {
        Err(TuneError::Node { source, node, .. }) => (node, source),
        other => panic!("{other:?}"),
    };
    let x = || Graph::new().random("x", &[2, 3], 1).random("w", &[4, 5], 2);
    let mismatch = OperatorError::Mismatch { left: vec![2, 3], right: vec![4, 5] };
    for op in ["Add", "MatMul", "Gemm", "Max"] {
        assert_eq!(source(x().node(op, "x w", "y", &[])), ("y".into(), mismatch.clone()), "{op}");
    }
    let conv = Graph::new().random("x", &[1, 3, 2, 2], 1).random("w", &[2, 3, 3, 3], 2).node("Conv", "x w", "y", &[]);
    assert_eq!(source(conv).1, OperatorError::Window { kernel: vec![3, 3], input: vec![2, 2] });
    let gather = x().ints("i", &[1], &[2]).node("Gather", "x i", "y", &[]);
    assert_eq!(source(gather).1, OperatorError::Index { index: 2, extent: 2 });
    let reshape = x().ints("to", &[2], &[4, -1]).node("Reshape", "x to", "y", &[]);
    assert_eq!(source(reshape).1, OperatorError::Reshape { from: vec![2, 3], to: vec![4, -1] });
    let transpose = x().node("Transpose", "x", "y", &[("perm", Ints(vec![0, 0]))]);
    assert_eq!(source(transpose).1, OperatorError::Mismatch { left: vec![2, 3], right: vec![0, 0] });
    let huge = x().ints("to", &[4], &[1 << 30, 1 << 30, 2, 3]).node("Expand", "x to", "y", &[]);
    assert!(matches!(source(huge).1, OperatorError::TooLarge { .. }));
    let softmax = x().node("Softmax", "x", "y", &[("axis", Int(2))]);
    assert_eq!(source(softmax).1, OperatorError::Axis { axis: 2, rank: 2 });
}
