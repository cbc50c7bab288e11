//! The units of small graphs, worked out by hand.

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::*;
use crate::model::fixture::{self, constant, counting, node, port, with_graph, with_int};

fn ints(mut node: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    node.attribute.push(AttributeProto { name: name.into(), ints: values.to_vec(), ..Default::default() });
    node
}

fn integers(name: &str, values: &[i64]) -> TensorProto {
    let (dims, raw_data) = (vec![values.len() as i64], values.iter().flat_map(|n| n.to_le_bytes()).collect());
    TensorProto { name: name.into(), dims, data_type: 7, raw_data, ..Default::default() }
}

/// A graph from `x` of `dims` to `y`.
fn graph(dims: &[i64], nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> GraphProto {
    let mut graph = fixture::graph(nodes, initializers);
    graph.input = vec![port("x", dims)];
    graph.output = vec![port("y", &[])];
    graph
}

fn found(dims: &[i64], nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> UnitGroups {
    analyze(&fixture::model(graph(dims, nodes, initializers)))
}

/// Each group as `units: tensor.axis[+start][*block][=] ...`, `=` where it is summed over.
fn groups(found: &UnitGroups) -> Vec<String> {
    let place = |m: &Member| {
        let start = if m.start > 0 { format!("+{}", m.start) } else { String::new() };
        let block = if m.block > 1 { format!("*{}", m.block) } else { String::new() };
        let summed = if m.is_summed { "=" } else { "" };
        format!("{}.{}{start}{block}{summed}", m.tensor, m.axis)
    };
    let row = |g: &UnitGroup| format!("{}: {}", g.units, g.members.iter().map(place).collect::<Vec<_>>().join(" "));
    found.groups.iter().map(row).collect()
}

fn reason<'a>(found: &'a UnitGroups, tensor: &str, axis: usize) -> &'a str {
    &found.pinned.iter().find(|p| p.tensor == tensor && p.axis == axis).unwrap().reason
}

#[test]
fn hidden_units_are_rows_biases_and_columns() {
    let nodes = vec![
        with_int(node("Gemm", "x w1 b1", "h"), "transB", 1),
        node("Relu", "h", "r"),
        node("MatMul", "r w2", "s"),
        node("Add", "s b2", "y"),
    ];
    let tensors = vec![counting("w1", &[5, 7]), counting("b1", &[5]), counting("w2", &[5, 3]), counting("b2", &[3])];
    let found = found(&[-1, 7], nodes, tensors);
    assert_eq!(groups(&found), ["5: w1.0 b1.0 w2.0="]);
    assert_eq!(reason(&found, "w1", 1), "tied to positions that stay where they are");
    assert_eq!(reason(&found, "w2", 1), "an output of the graph");
    assert_eq!(reason(&found, "b2", 0), "an output of the graph");
}

#[test]
fn a_channel_becomes_a_block_of_inputs() {
    for reshape in [node("Flatten", "p", "f"), node("Reshape", "p shape", "f"), node("Reshape", "p copied", "f")] {
        let nodes = vec![
            ints(node("Conv", "x c1 b1", "h"), "pads", &[1, 1, 1, 1]),
            node("BatchNormalization", "h scale shift mean var", "n"),
            ints(ints(node("MaxPool", "n", "p"), "kernel_shape", &[2, 2]), "strides", &[2, 2]),
            reshape,
            with_int(node("Gemm", "f w1", "y"), "transB", 1),
        ];
        let channels = ["b1", "scale", "shift", "mean", "var"].map(|name| counting(name, &[4]));
        let mut tensors = vec![counting("c1", &[4, 2, 3, 3])];
        tensors.extend(channels);
        tensors.extend([counting("w1", &[3, 36]), integers("shape", &[-1, 36]), integers("copied", &[0, -1])]);
        let found = found(&[-1, 2, 6, 6], nodes, tensors);
        assert_eq!(groups(&found), ["4: c1.0 b1.0 scale.0 shift.0 mean.0 var.0 w1.1*9="]);
    }
}

#[test]
fn a_spelled_out_extent_fixes_the_number_of_units() {
    let nodes = vec![node("Conv", "x c", "h"), node("Reshape", "h shape", "f"), node("MatMul", "f w", "y")];
    let with_shape = |shape: &[i64]| {
        let tensors = vec![counting("c", &[4, 2, 1, 1]), counting("w", &[36, 3]), integers("shape", shape)];
        found(&[-1, 2, 3, 3], nodes.clone(), tensors).groups[0].fixed_size.clone()
    };
    assert_eq!(with_shape(&[-1, 36]).as_deref(), Some("its extent stands in a Reshape"));
    assert_eq!(with_shape(&[0, -1]), None);
}

#[test]
fn the_shape_may_be_worked_out_in_the_graph() {
    let nodes = vec![
        node("Conv", "x c", "h"),
        node("Shape", "x", "s"),
        constant("zero", TensorProto { dims: vec![], ..integers("", &[0]) }),
        node("Gather", "s zero", "n"),
        ints(node("Unsqueeze", "n", "u"), "axes", &[0]),
        with_int(node("Concat", "u rest", "shape"), "axis", 0),
        node("Reshape", "h shape", "f"),
        node("MatMul", "f w", "y"),
    ];
    let tensors = vec![counting("c", &[4, 2, 1, 1]), counting("w", &[36, 3]), integers("rest", &[-1])];
    let found = found(&[-1, 2, 3, 3], nodes, tensors);
    assert_eq!(groups(&found), ["4: c.0 w.0*9="]);
    assert_eq!(found.groups[0].fixed_size, None);
}

#[test]
fn branches_that_are_added_move_together() {
    let nodes = vec![
        node("Conv", "x a", "h"),
        node("Conv", "h b", "i"),
        node("Conv", "i c", "j"),
        node("Add", "h j", "k"),
        node("GlobalAveragePool", "k", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f w", "y"),
    ];
    let conv = |name, o, i| counting(name, &[o, i, 1, 1]);
    let tensors = vec![conv("a", 6, 2), conv("b", 4, 6), conv("c", 6, 4), counting("w", &[6, 3])];
    let found = found(&[-1, 2, -1, -1], nodes, tensors);
    assert_eq!(groups(&found), ["6: a.0 b.1= c.0 w.0=", "4: b.0 c.1="]);
}

#[test]
fn joined_channels_keep_their_offsets() {
    let nodes = vec![
        node("Conv", "x a", "h"),
        node("Conv", "x b", "i"),
        with_int(node("Concat", "h x i", "j"), "axis", 1),
        node("Conv", "j c", "k"),
        node("Conv", "k d", "y"),
    ];
    let conv = |name, o, i| counting(name, &[o, i, 1, 1]);
    let tensors = vec![conv("a", 3, 2), conv("b", 4, 2), conv("c", 5, 9), conv("d", 2, 5)];
    let found = found(&[-1, 2, -1, -1], nodes, tensors);
    assert_eq!(groups(&found), ["3: a.0 c.1=", "4: b.0 c.1+5=", "5: c.0 d.1="]);
}

#[test]
fn groups_of_a_convolution_move_as_a_whole() {
    let conv = |name, o, i| counting(name, &[o, i, 1, 1]);
    let with_groups = |groups: i64, tensors: Vec<TensorProto>| {
        let grouped = with_int(node("Conv", "h b bias", "i"), "group", groups);
        let nodes = vec![node("Conv", "x a", "h"), grouped, node("Conv", "i c", "y")];
        found(&[-1, 2, -1, -1], nodes, tensors)
    };
    let bias = |n| counting("bias", &[n]);
    let depthwise = with_groups(4, vec![conv("a", 4, 2), conv("b", 8, 1), bias(8), conv("c", 3, 8)]);
    assert_eq!(groups(&depthwise), ["4: a.0 b.0*2 bias.0*2 c.1*2="]);
    let grouped = with_groups(2, vec![conv("a", 4, 2), conv("b", 6, 2), bias(6), conv("c", 3, 6)]);
    assert_eq!(groups(&grouped), ["2: a.0*2 b.0*3 bias.0*3 c.1*3="]);
    assert_eq!(grouped.groups[0].fixed_size.as_deref(), Some("as many as a convolution has groups"));
}

#[test]
fn columns_of_an_embedding_are_units() {
    let nodes = vec![
        node("Gather", "e x", "h"),
        ints(node("Transpose", "h", "t"), "perm", &[0, 2, 1]),
        node("Conv", "t c b", "i"),
        ints(with_int(node("ReduceMax", "i", "m"), "keepdims", 0), "axes", &[2]),
        node("MatMul", "m w", "y"),
    ];
    let tensors = vec![counting("e", &[9, 4]), counting("c", &[6, 4, 3]), counting("b", &[6]), counting("w", &[6, 2])];
    let found = found(&[-1, 20], nodes, tensors);
    assert_eq!(groups(&found), ["4: e.1 c.1=", "6: c.0 b.0 w.0="]);
    assert_eq!(reason(&found, "e", 0), "looked up by position");
    assert_eq!(reason(&found, "c", 2), "a kernel");
}

#[test]
fn a_normalised_residual_stream_is_one_group() {
    let nodes = vec![
        node("Gather", "e x", "h"),
        node("LayerNormalization", "h g1 b1", "n"),
        node("MatMul", "n up", "u"),
        node("Add", "u ub", "v"),
        node("Gelu", "v", "a"),
        node("MatMul", "a down", "d"),
        node("Add", "h d", "r"),
        node("MatMul", "r head", "y"),
    ];
    let tensors = vec![
        counting("e", &[9, 4]),
        counting("g1", &[4]),
        counting("b1", &[4]),
        counting("up", &[4, 8]),
        counting("ub", &[8]),
        counting("down", &[8, 4]),
        counting("head", &[4, 3]),
    ];
    let found = found(&[-1, 5], nodes, tensors);
    assert_eq!(groups(&found), ["4: e.1 g1.0 b1.0 up.0= down.1 head.0=", "8: up.1 ub.0 down.0="]);
    assert!(found.groups[0].fixed_size.is_some() && found.groups[1].fixed_size.is_none());
}

#[test]
fn what_a_rule_does_not_cover_stays() {
    let chain = |middle: Vec<NodeProto>, tensors: Vec<TensorProto>| {
        let mut nodes = vec![node("MatMul", "x a", "h")];
        nodes.extend(middle);
        nodes.push(node("MatMul", "i b", "y"));
        let mut all = vec![counting("a", &[3, 4]), counting("b", &[4, 2])];
        all.extend(tensors);
        found(&[-1, 3], nodes, all)
    };
    let stays = |middle: Vec<NodeProto>, tensors: Vec<TensorProto>, expected: &str| {
        let found = chain(middle, tensors);
        assert!(!groups(&found).iter().any(|g| g.contains("a.1")), "{:?}", groups(&found));
        assert_eq!(reason(&found, "a", 1), expected);
    };
    stays(vec![node("CumSum", "h one", "i")], vec![integers("one", &[1])], "read by CumSum");
    let own = NodeProto { domain: "com.example".into(), ..node("Relu", "h", "i") };
    stays(vec![own], vec![], "read by Relu");
    let branch = with_graph(node("If", "x", "z"), "then_branch", fixture::graph(vec![node("Relu", "h", "q")], vec![]));
    stays(vec![branch, node("Relu", "h", "i")], vec![], "read inside a subgraph");
    stays(
        vec![node("Relu", "later", "z"), node("Relu", "h", "later"), node("Relu", "h", "i")],
        vec![],
        "read before it is known",
    );
    let integer = vec![TensorProto { data_type: 7, ..counting("n", &[4]) }];
    stays(vec![node("Mul", "h n", "i")], integer, "tied to positions that stay where they are");
}

#[test]
fn a_weight_with_two_readers_is_tied_to_both() {
    let nodes = vec![
        node("Gather", "e x", "h"),
        node("Relu", "h", "r"),
        ints(node("Transpose", "e", "t"), "perm", &[1, 0]),
        node("MatMul", "r t", "y"),
    ];
    let found = found(&[-1], nodes, vec![counting("e", &[9, 4])]);
    assert_eq!(groups(&found), ["4: e.1="]);
    let square = vec![
        node("MatMul", "x a", "h"),
        node("MatMul", "h w", "i"),
        node("Add", "h i", "j"),
        node("MatMul", "j b", "y"),
    ];
    let tensors = vec![counting("a", &[3, 4]), counting("w", &[4, 4]), counting("b", &[4, 2])];
    assert_eq!(groups(&self::found(&[-1, 3], square, tensors)), ["4: a.1 w.0= w.1 b.0="]);
}

#[test]
fn units_pass_through_a_split_and_a_reshape_into_heads() {
    let nodes = vec![
        node("MatMul", "x a", "h"),
        with_int(node("Split", "h", "p q"), "axis", 1),
        node("Mul", "p q", "m"),
        node("Reshape", "m heads", "r"),
        node("Relu", "r", "s"),
        node("Reshape", "s flat", "t"),
        node("MatMul", "t b", "y"),
    ];
    let tensors = vec![
        counting("a", &[3, 16]),
        counting("b", &[8, 2]),
        integers("heads", &[0, 4, 2]),
        integers("flat", &[0, -1]),
    ];
    let found = found(&[-1, 3], nodes, tensors);
    assert_eq!(groups(&found), ["4: a.1*2 a.1+8*2 b.0*2="]);
}

#[test]
fn an_input_of_unknown_rank_pins() {
    let mut graph = graph(
        &[-1, 3],
        vec![node("MatMul", "x a", "h"), node("Add", "h z", "i"), node("MatMul", "i b", "y")],
        vec![counting("a", &[3, 4]), counting("b", &[4, 2])],
    );
    let mut unknown = port("z", &[]);
    unknown.r#type = None;
    graph.input.push(unknown);
    assert!(analyze(&fixture::model(graph)).groups.is_empty());
}

#[test]
fn units_that_meet_each_other_in_a_product_stay_as_many() {
    let nodes = vec![
        node("MatMul", "x q", "h"),
        node("MatMul", "x k", "i"),
        ints(node("Transpose", "i", "t"), "perm", &[0, 2, 1]),
        node("MatMul", "h t", "y"),
    ];
    let found = found(&[-1, 5, 3], nodes, vec![counting("q", &[3, 4]), counting("k", &[3, 4])]);
    assert_eq!(groups(&found), ["4: q.1 k.1"]);
    assert_eq!(found.groups[0].fixed_size.as_deref(), Some("multiplied by another value"));
}
