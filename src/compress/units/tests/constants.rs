//! Constant units, worked out by hand: what they add to a product is found in its bias.

use tract_onnx::pb::GraphProto;

use super::*;

/// Of three hidden units the second is always 7, behind the activation.
fn hidden() -> (Vec<NodeProto>, Vec<TensorProto>) {
    let nodes = vec![with_int(node("Gemm", "x a b", "h"), "transB", 1), node("Relu", "h", "r")];
    let tensors =
        vec![fixture::floats("a", &[3, 2], &[1., 2., 0., 0., 5., 6.]), fixture::floats("b", &[3], &[0.5, 7., -1.])];
    (nodes, tensors)
}

pub(super) fn network_of(nodes: Vec<NodeProto>, tensors: Vec<TensorProto>, inputs: &[i64], outputs: &[i64]) -> Model {
    let mut graph = fixture::graph(nodes, tensors);
    graph.input = vec![port("x", inputs)];
    graph.output = vec![port("y", outputs)];
    fixture::open(graph).unwrap()
}

/// Compresses `model`; every prediction must stay. The graph, and how many units of each group were removed and constant.
fn folded(model: &Model, recipe: &str) -> (GraphProto, Vec<(usize, usize)>) {
    let (artifact, groups) = compressed(model, recipe);
    let before = predictions(&Predictor::from_model(model).unwrap());
    for residency in [Residency::Coded, Residency::Dense] {
        let after = predictions(&Predictor::from_artifact(&artifact, residency).unwrap());
        assert!(largest_difference(&after, &before) <= TOLERANCE, "{residency:?}");
    }
    let graph = artifact.graph().unwrap().unwrap().graph.unwrap();
    (graph, groups.iter().map(|group| (group.removed, group.constant)).collect())
}

const REMOVE: &str = r#"{"encode":{"remove":true}}"#;

fn values(graph: &GraphProto, name: &str) -> Vec<f32> {
    let tensor = graph.initializer.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(tensor.dims.iter().product::<i64>() as usize, tensor.raw_data.len() / 4);
    tensor.raw_data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn a_constant_unit_goes_into_the_next_bias() {
    let (mut nodes, mut tensors) = hidden();
    let mut gemm = with_int(node("Gemm", "r c d", "y"), "transB", 1);
    let alpha = AttributeProto { name: "alpha".into(), f: 2.0, r#type: 1, ..Default::default() };
    let beta = AttributeProto { name: "beta".into(), f: 0.5, r#type: 1, ..Default::default() };
    gemm.attribute.extend([alpha, beta]);
    nodes.push(gemm);
    tensors.push(fixture::floats("c", &[2, 3], &[1., 2., 3., 4., -5., 6.]));
    tensors.push(fixture::floats("d", &[1, 2], &[0.25, 0.5]));
    let model = network_of(nodes, tensors, &[-1, 2], &[-1, 2]);
    let (graph, counts) = folded(&model, REMOVE);
    assert_eq!(counts, [(0, 1)]);
    assert_eq!(values(&graph, "b"), [0.5, -1.0]);
    // 2 x 7 x (2, -5), of which the bias counts half.
    assert_eq!(values(&graph, "d"), [0.25 + 56.0, 0.5 - 140.0]);
    assert_eq!(graph.initializer[0].dims, [2, 2]);
}

#[test]
fn a_product_without_a_bias_may_have_one_behind_it() {
    let (mut nodes, mut tensors) = hidden();
    nodes.extend([node("MatMul", "r c", "s"), node("Add", "d s", "y")]);
    tensors.push(fixture::floats("c", &[3, 2], &[1., 4., 2., -5., 3., 6.]));
    tensors.push(fixture::floats("d", &[2], &[0.25, 0.5]));
    let model = network_of(nodes, tensors, &[-1, 2], &[-1, 2]);
    let (graph, counts) = folded(&model, REMOVE);
    assert_eq!(counts, [(0, 1)]);
    assert_eq!(values(&graph, "d"), [14.25, -34.5]);
    assert_eq!(graph.node.len(), 4);
}

#[test]
fn a_unit_that_reads_constants_alone_is_constant() {
    let (mut nodes, mut tensors) = hidden();
    nodes.extend([
        node("MatMul", "r c", "s"),
        node("Add", "s d", "t"),
        node("Tanh", "t", "u"),
        node("MatMul", "u e", "v"),
        node("Add", "v f", "y"),
    ]);
    // The second unit of the second layer reads the 7 alone.
    tensors.push(fixture::floats("c", &[3, 2], &[1., 0., 2., -0.125, 3., 0.]));
    tensors.push(fixture::floats("d", &[2], &[0.25, 0.5]));
    tensors.push(fixture::floats("e", &[2, 1], &[1., 2.]));
    tensors.push(fixture::floats("f", &[1], &[0.]));
    let model = network_of(nodes, tensors, &[-1, 2], &[-1, 1]);
    let (graph, counts) = folded(&model, REMOVE);
    assert_eq!(counts, [(0, 1), (0, 1)]);
    assert_eq!(values(&graph, "d"), [14.25]);
    assert_eq!(values(&graph, "f"), [(2.0 * (-0.375f64).tanh()) as f32]);
}

/// `constant` hidden units that are always 1, and one that is not, before two outputs.
fn without_bias(constant: usize) -> Model {
    let units = constant + 1;
    let mut rows = vec![0.0; 2 * units];
    rows[..2].copy_from_slice(&[1.0, 2.0]);
    let tensors = vec![
        fixture::floats("a", &[units as i64, 2], &rows),
        fixture::floats("b", &[units as i64], &vec![1.0; units]),
        fixture::counting("c", &[units as i64, 2]),
    ];
    let nodes = vec![with_int(node("Gemm", "x a b", "h"), "transB", 1), node("MatMul", "h c", "y")];
    network_of(nodes, tensors, &[-1, 2], &[-1, 2])
}

#[test]
fn a_new_bias_is_made_where_it_pays() {
    let (graph, counts) = folded(&without_bias(9), REMOVE);
    assert_eq!((counts, graph.node.len()), (vec![(0, 0)], 2));
    let (graph, counts) = folded(&without_bias(40), REMOVE);
    assert_eq!((counts, graph.node.len()), (vec![(0, 40)], 3));
    // 3 + 5 + ... + 81, 4 + 6 + ... + 82.
    assert_eq!(values(&graph, "c.bias"), [1680.0, 1720.0]);
}

#[test]
fn a_new_bias_is_listed_where_initializers_are() {
    let mut model = without_bias(40).skeleton().unwrap().clone();
    let graph = model.graph.as_mut().unwrap();
    let tensors = [
        fixture::floats("a", &[41, 2], &[[1.0, 2.0].as_slice(), &[0.0; 80]].concat()),
        fixture::counting("c", &[41, 2]),
    ];
    (graph.initializer[0], graph.initializer[2]) = tensors.into();
    graph.input.extend([port("a", &[41, 2]), port("b", &[41]), port("c", &[41, 2])]);
    let (graph, counts) = folded(&opened(&model), REMOVE);
    assert_eq!(counts, [(0, 40)]);
    assert_eq!(graph.input[1..], [port("a", &[1, 2]), port("b", &[1]), port("c", &[1, 2]), port("c.bias", &[2])]);
}

/// Three channels: one that is live, one that is always 2 and one that is always 0 behind the activation.
fn channels(pads: &[i64], bias: &str) -> Model {
    let tensors = vec![
        fixture::floats("a", &[3, 1, 1, 1], &[1., 0., 0.]),
        fixture::floats("b", &[3], &[0.5, 2., -1.]),
        fixture::counting("c", &[2, 3, 3, 3]),
        fixture::floats("d", &[2], &[1., 2.]),
    ];
    let last = with_ints(node("Conv", &format!("r c {bias}"), "y"), "pads", pads);
    let nodes = vec![node("Conv", "x a b", "h"), node("Relu", "h", "r"), last];
    network_of(nodes, tensors, &[-1, 1, 6, 6], &[-1, 2, -1, -1])
}

#[test]
fn a_padded_convolution_loses_zeros_only() {
    let (graph, counts) = folded(&channels(&[0, 0, 0, 0], "d"), REMOVE);
    assert_eq!(counts, [(0, 2)]);
    // Twice 10 + ... + 18, and 37 + ... + 45.
    assert_eq!(values(&graph, "d"), [1.0 + 252.0, 2.0 + 738.0]);
    let (graph, counts) = folded(&channels(&[1, 1, 1, 1], "d"), REMOVE);
    assert_eq!((counts, values(&graph, "d")), (vec![(0, 1)], vec![1.0, 2.0]));
}

#[test]
fn a_convolution_gets_a_bias_where_it_has_none() {
    let tensors = vec![
        fixture::floats("a", &[3, 1, 1, 1], &[1., 0., 0.]),
        fixture::floats("b", &[3], &[0.5, 2., -1.]),
        fixture::counting("c", &[2, 3, 5, 5]),
        fixture::counting("w", &[2, 3]),
    ];
    let nodes = vec![
        node("Conv", "x a b", "h"),
        node("Conv", "h c", "i"),
        node("GlobalAveragePool", "i", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f w", "y"),
    ];
    let model = network_of(nodes, tensors, &[-1, 1, 6, 6], &[-1, 3]);
    let (graph, counts) = folded(&model, REMOVE);
    assert_eq!(counts, [(0, 2), (0, 0)]);
    // Twice 26 + ... + 50 less 51 + ... + 75, and so for the second.
    assert_eq!(values(&graph, "c.bias"), [2.0 * 950.0 - 1575.0, 2.0 * 2825.0 - 3450.0]);
}

#[test]
fn a_bias_that_others_read_or_that_is_to_stay_is_not_changed() {
    let (mut nodes, mut tensors) = hidden();
    nodes.extend([node("MatMul", "r c", "s"), node("Add", "s d", "t"), node("Add", "t d", "y")]);
    tensors.push(fixture::floats("c", &[3, 2], &[1., 4., 2., -5., 3., 6.]));
    tensors.push(fixture::floats("d", &[2], &[0.25, 0.5]));
    let shared = network_of(nodes.clone(), tensors.clone(), &[-1, 2], &[-1, 2]);
    assert_eq!(folded(&shared, REMOVE).1, [(0, 0)]);
    nodes.truncate(4);
    nodes[3].output = vec!["y".into()];
    let own = network_of(nodes, tensors, &[-1, 2], &[-1, 2]);
    assert_eq!(folded(&own, REMOVE).1, [(0, 1)]);
    let kept = r#"{"encode":{"remove":true},"layers":[{"match":"d","encode":{"remove":false}}]}"#;
    assert_eq!(folded(&own, kept).1, [(0, 0)]);
}

#[test]
fn a_bias_outside_the_graph_takes_constants_too() {
    let (mut nodes, mut tensors) = hidden();
    nodes.extend([node("MatMul", "r c", "s"), node("Add", "s d", "y")]);
    tensors.push(fixture::counting("c", &[3, 1200]));
    tensors.push(fixture::counting("d", &[1200]));
    let model = network_of(nodes, tensors, &[-1, 2], &[-1, 1200]);
    assert_eq!(model.detached().count(), 1);
    assert_eq!(folded(&model, REMOVE).1, [(0, 1)]);
}

#[test]
fn one_unit_of_constants_alone_stays() {
    let (mut nodes, mut tensors) = hidden();
    tensors[0] = fixture::floats("a", &[3, 2], &[0.; 6]);
    nodes.extend([node("MatMul", "r c", "s"), node("Add", "s d", "y")]);
    tensors.push(fixture::counting("c", &[3, 2]));
    tensors.push(fixture::counting("d", &[2]));
    let model = network_of(nodes, tensors, &[-1, 2], &[-1, 2]);
    assert_eq!(folded(&model, REMOVE).1, [(0, 2)]);
}
