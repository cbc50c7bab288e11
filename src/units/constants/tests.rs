//! What is known of the values of small graphs, worked out by hand.

use std::convert::Infallible;

use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

use super::*;
use crate::model::Model;
use crate::model::fixture::{self, counting, floats, node, port, with_int};
use crate::tensor::{FloatData, FloatType};

fn with_ints(mut node: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    node.attribute.push(AttributeProto { name: name.into(), ints: values.to_vec(), r#type: 7, ..Default::default() });
    node
}

/// What is known of each value: `name: axis [numbers]`, `?` where one depends on the input.
fn known(dims: &[i64], nodes: Vec<NodeProto>, tensors: Vec<TensorProto>) -> Vec<String> {
    let mut graph = fixture::graph(nodes, tensors.clone());
    graph.input = vec![port("x", dims)];
    let model = fixture::open(graph).unwrap();
    let facts = Facts::of(model.skeleton().unwrap().graph.as_ref().unwrap(), model.weights());
    let constants = find(&facts, &mut |name: &str| Ok::<_, Infallible>(stored(&model, &tensors, name))).unwrap();
    let number = |value: &Option<f64>| value.map_or("?".to_owned(), |value| format!("{}", value as f32));
    let row = |(name, known): (&&str, &Known)| {
        let numbers: Vec<String> = known.values.iter().map(number).collect();
        format!("{name}: {} [{}]", known.axis, numbers.join(" "))
    };
    let mut rows: Vec<String> = constants.iter().map(row).collect();
    rows.sort();
    rows
}

/// A weight as its matrix, another tensor as one row.
fn stored(model: &Model, tensors: &[TensorProto], name: &str) -> Option<Matrix> {
    if let Some(weight) = model.weights().iter().find(|weight| weight.name == name) {
        let FloatData::F32(values) = model.read(weight).unwrap() else { panic!("a float64 weight") };
        let (rows, cols) = weight.layout.shape(&weight.dims).unwrap();
        let values = FloatData::F32(weight.layout.to_matrix(&weight.dims, values));
        return Some(Matrix::raw(rows, cols, weight.dtype, values).unwrap());
    }
    let tensor = tensors.iter().find(|tensor| tensor.name == name)?;
    let data = FloatData::from_le_bytes(FloatType::F32, &tensor.raw_data);
    Some(Matrix::raw(1, data.len(), FloatType::F32, data).unwrap())
}

/// A first layer, `h`: of four units, the second is 2 and the third -1.
fn first() -> (Vec<NodeProto>, Vec<TensorProto>) {
    let tensors = vec![floats("a", &[2, 4], &[1., 0., 0., 2., 3., 0., 0., 0.]), floats("b", &[4], &[5., 2., -1., 0.])];
    (vec![node("Gemm", "x a b", "h")], tensors)
}

/// What is known of `y` behind `middle`, which reads `h`.
fn behind(middle: Vec<NodeProto>, tensors: Vec<TensorProto>) -> Option<String> {
    let (mut nodes, mut all) = first();
    nodes.extend(middle);
    all.extend(tensors);
    let rows = known(&[-1, 2], nodes, all);
    rows.into_iter().find_map(|row| row.strip_prefix("y: ").map(str::to_owned))
}

#[test]
fn a_row_of_zeros_is_its_bias() {
    let (nodes, tensors) = first();
    assert_eq!(known(&[-1, 2], nodes, tensors), ["h: 1 [? 2 -1 ?]"]);
}

#[test]
fn activations_are_applied_to_constants() {
    let float = |mut node: NodeProto, name: &str, value: f32| {
        node.attribute.push(AttributeProto { name: name.into(), f: value, r#type: 1, ..Default::default() });
        node
    };
    let cases = [
        (node("Identity", "h", "y"), "2 -1"),
        (node("Dropout", "h", "y"), "2 -1"),
        (with_int(node("Cast", "h", "y"), "to", 11), "2 -1"),
        (node("Relu", "h", "y"), "2 0"),
        (float(node("LeakyRelu", "h", "y"), "alpha", 0.5), "2 -0.5"),
        (node("Elu", "h", "y"), "2 -0.63212055"),
        (node("HardSigmoid", "h", "y"), "0.9 0.3"),
        (node("HardSwish", "h", "y"), "1.6666666 -0.33333334"),
        (node("Sigmoid", "h", "y"), "0.8807971 0.26894143"),
        (node("Tanh", "h", "y"), "0.9640276 -0.7615942"),
        (node("Erf", "h", "y"), "0.9953223 -0.8427008"),
        (node("Exp", "h", "y"), "7.389056 0.36787945"),
        (node("Neg", "h", "y"), "-2 1"),
        (node("Abs", "h", "y"), "2 1"),
        (float(float(node("Clip", "h", "y"), "min", -0.5), "max", 1.5), "1.5 -0.5"),
    ];
    for (node, expected) in cases {
        let op = node.op_type.clone();
        assert_eq!(behind(vec![node], vec![]), Some(format!("1 [? {expected} ?]")), "{op}");
    }
    let bounds = vec![floats("low", &[], &[-0.5]), floats("high", &[1], &[1.5])];
    assert_eq!(behind(vec![node("Clip", "h low high", "y")], bounds), Some("1 [? 1.5 -0.5 ?]".into()));
    for op in ["Softmax", "Floor", "Sign", "Log"] {
        assert_eq!(behind(vec![node(op, "h", "y")], vec![]), None, "{op}");
    }
    assert_eq!(behind(vec![with_int(node("Cast", "h", "y"), "to", 7)], vec![]), None);
}

#[test]
fn constants_meet_constants_position_by_position() {
    let row = || vec![floats("c", &[1, 4], &[1., 4., 8., 0.]), floats("s", &[], &[2.])];
    let cases = [
        ("Add", "h c", "? 6 7 ?"),
        ("Sub", "c h", "? 2 9 ?"),
        ("Mul", "h c", "? 8 -8 0"),
        ("Div", "h s", "? 1 -0.5 ?"),
        ("PRelu", "h c", "? 2 -8 ?"),
        ("Mul", "h h", "? 4 1 ?"),
    ];
    for (op, inputs, expected) in cases {
        let found = behind(vec![node(op, inputs, "y")], row());
        assert_eq!(found, Some(format!("1 [{expected}]")), "{op} {inputs}");
    }
    // By zero, and beyond float32.
    let zero = vec![floats("z", &[], &[0.]), floats("l", &[], &[3e38])];
    assert_eq!(behind(vec![node("Div", "h z", "y")], zero.clone()), None);
    assert_eq!(
        behind(vec![node("Mul", "h l", "y")], zero),
        Some("1 [? ? -300000000000000000000000000000000000000 ?]".into())
    );
    // A row of its own for each sample.
    assert_eq!(behind(vec![node("Add", "h c", "y")], vec![counting("c", &[3, 4])]), None);
    assert_eq!(behind(vec![node("Softmax", "h", "i"), node("Add", "h i", "y")], vec![]), None);
}

#[test]
fn a_row_of_constants_is_constant() {
    let c = floats("c", &[3, 4], &[0., 1., 2., 0., 0., 0., 0., 0., 1., 1., 1., 0.]);
    let transposed = with_int(node("Gemm", "h c", "y"), "transB", 1);
    assert_eq!(behind(vec![transposed], vec![c]), Some("1 [0 0 ?]".into()));
    let c = floats("c", &[4, 2], &[0., 1., 3., 0., 0.5, 0., 0., 0.]);
    assert_eq!(behind(vec![node("MatMul", "h c", "y")], vec![c]), Some("1 [5.5 ?]".into()));
}

/// Three channels of 6 x 6, `h`: the second is 2 and the third 0.
fn image(middle: Vec<NodeProto>, tensors: Vec<TensorProto>) -> Option<String> {
    let mut nodes = vec![node("Conv", "x a b", "h")];
    nodes.extend(middle);
    let mut all = vec![floats("a", &[3, 1, 1, 1], &[1., 0., 0.]), floats("b", &[3], &[5., 2., 0.])];
    all.extend(tensors);
    let rows = known(&[-1, 1, 6, 6], nodes, all);
    rows.into_iter().find_map(|row| row.strip_prefix("y: ").map(str::to_owned))
}

#[test]
fn at_a_border_only_zeros_are_constant() {
    let mut weights = vec![0.0; 4 * 3 * 9];
    // The outputs read nothing, the 2 once, the 0 twice, and the first.
    (weights[27 + 9 + 4], weights[2 * 27 + 18], weights[2 * 27 + 19], weights[3 * 27]) = (3., 1., 1., 1.);
    let conv = |pads: &[i64]| {
        image(
            vec![with_ints(node("Conv", "h c d", "y"), "pads", pads)],
            vec![floats("c", &[4, 3, 3, 3], &weights), counting("d", &[4])],
        )
    };
    assert_eq!(conv(&[0, 0, 0, 0]), Some("1 [1 8 3 ?]".into()));
    assert_eq!(conv(&[0, 1, 0, 0]), Some("1 [1 ? 3 ?]".into()));
    let depthwise = with_int(node("Conv", "h e", "y"), "group", 3);
    assert_eq!(image(vec![depthwise], vec![counting("e", &[6, 1, 1, 1])]), Some("1 [? ? 6 8 0 0]".into()));
}

#[test]
fn channels_are_pooled_and_flattened() {
    let pool = |op: &str, pads: &[i64]| with_ints(with_ints(node(op, "h", "y"), "kernel_shape", &[2, 2]), "pads", pads);
    assert_eq!(image(vec![pool("MaxPool", &[1, 1, 1, 1])], vec![]), Some("1 [? 2 0]".into()));
    assert_eq!(image(vec![pool("MaxPool", &[2, 1, 1, 1])], vec![]), None);
    assert_eq!(image(vec![pool("AveragePool", &[0; 4])], vec![]), Some("1 [? 2 0]".into()));
    assert_eq!(image(vec![pool("AveragePool", &[1; 4])], vec![]), None);
    let global = || node("GlobalAveragePool", "h", "g");
    assert_eq!(image(vec![global(), node("Flatten", "g", "y")], vec![]), Some("1 [? 2 0]".into()));
    let squeezed = with_ints(node("Squeeze", "g", "y"), "axes", &[2, 3]);
    assert_eq!(image(vec![global(), squeezed], vec![]), Some("1 [? 2 0]".into()));
    let reduced = with_int(with_ints(node("ReduceMean", "h", "y"), "axes", &[-1, 2]), "keepdims", 0);
    assert_eq!(image(vec![reduced], vec![]), Some("1 [? 2 0]".into()));
    assert_eq!(image(vec![with_ints(node("ReduceMean", "h", "y"), "axes", &[1])], vec![]), None);
    let small = with_ints(with_ints(node("MaxPool", "h", "p"), "kernel_shape", &[3, 6]), "strides", &[3, 1]);
    assert_eq!(image(vec![small, node("Flatten", "p", "y")], vec![]), Some("1 [? ? 2 2 0 0]".into()));
    let moved = with_ints(node("Transpose", "h", "y"), "perm", &[0, 2, 3, 1]);
    assert_eq!(image(vec![moved], vec![]), Some("3 [? 2 0]".into()));
    let joined = with_int(node("Concat", "x h", "y"), "axis", 1);
    assert_eq!(image(vec![joined], vec![]), Some("1 [? ? 2 0]".into()));
    assert_eq!(image(vec![with_int(node("Concat", "h h", "y"), "axis", 2)], vec![]), None);
}

#[test]
fn a_normalised_channel_is_constant_with_its_input_or_without_a_scale() {
    let parameters = ["s", "t", "m", "v"].map(|name| match name {
        "s" => floats(name, &[3], &[0., 3., 2.]),
        "t" => floats(name, &[3], &[7., 1., 5.]),
        "m" => floats(name, &[3], &[1., 1., 0.]),
        _ => floats(name, &[3], &[1., 2.25 - 1e-5, 4. - 1e-5]),
    });
    let normalised = node("BatchNormalization", "h s t m v", "y");
    assert_eq!(image(vec![normalised], parameters.to_vec()), Some("1 [7 3 5]".into()));
}

#[test]
fn a_column_of_one_number_is_constant() {
    let nodes = vec![node("Gather", "e x", "h"), with_ints(node("Transpose", "h", "y"), "perm", &[0, 2, 1])];
    let table = floats("e", &[3, 3], &[1., 0., 4., 2., 0., 4., 1., 0., 4.]);
    assert_eq!(known(&[-1, 5], nodes, vec![table]), ["h: 2 [? 0 4]", "y: 1 [? 0 4]"]);
}

#[test]
fn repeated_doubling_ends() {
    let (mut nodes, tensors) = first();
    let mut last = "h".to_owned();
    for i in 0..40 {
        let next = format!("d{i}");
        nodes.push(with_int(node("Concat", &format!("{last} {last}"), &next), "axis", 1));
        last = next;
    }
    let found = known(&[-1, 2], nodes, tensors);
    assert!(found.len() < 25 && found.len() > 15, "{}", found.len());
}
