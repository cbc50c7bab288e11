//! Units in another order: predictions stay what they were, on random graphs, on bundled networks and on weights alone.

mod constants;
mod merge;
mod network;

use std::path::Path;

use proptest::prelude::*;
use prost::Message;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, TensorProto};

use self::network::{Numbers, network, with_ints};
use super::super::compress;
use super::*;
use crate::artifact::Artifact;
use crate::infer::{Array, ArrayData, Predictor, Residency};
use crate::model::fixture::{self, node, port, with_int};
use crate::progress::Silent;
use crate::tensor::FloatData;

/// max |a - b| <= TOLERANCE max |b|: what separates two orders of summation in f32.
const TOLERANCE: f32 = 1e-4;

fn opened(model: &ModelProto) -> Model {
    Model::from_bytes(model.encode_to_vec().into()).unwrap()
}

/// The outputs of `predictor` for random inputs of a batch of 3; integers are below 20.
fn predictions(predictor: &Predictor) -> Vec<f32> {
    let mut numbers = Numbers(7);
    let mut input = |port: &crate::model::Port| {
        let dims: Vec<usize> = port.dims.iter().map(|dim| dim.unwrap_or(3)).collect();
        let values = numbers.take(dims.iter().product());
        let data = match port.datatype.as_str() {
            "INT64" => ArrayData::I64(values.iter().map(|v| (v * 10.0) as i64 + 10).collect()),
            _ => ArrayData::F32(values),
        };
        (port.name.clone(), Array { dims, data })
    };
    let inputs = predictor.inputs().iter().map(&mut input).collect();
    let outputs = predictor.run(inputs).unwrap();
    let values = outputs.into_iter().flat_map(|(_, array)| match array.data {
        ArrayData::F32(values) => values,
        other => panic!("{other:?}"),
    });
    values.collect()
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(f32::MIN_POSITIVE, |max, v| max.max(v.abs()));
    found.iter().zip(expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs())) / scale
}

/// Every group of `model` put in a random order.
fn shuffled(model: &ModelProto, seed: u64) -> ModelProto {
    let found = units::analyze(model).groups;
    let mut numbers = Numbers(seed);
    let orders: Vec<Vec<u32>> = found.iter().map(|group| numbers.order(group.units)).collect();
    let picks = Picks::new(found.iter().zip(&orders).map(|(group, order)| (group, order.as_slice())));
    Rearranged { reordered: picks, ..Default::default() }.graph(model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..Default::default() })]

    #[test]
    fn taking_unread_units_out_and_reordering_changes_no_prediction(
        seed in any::<u64>(),
        steps in proptest::collection::vec(any::<(u8, u8)>(), 0..9),
    ) {
        let groups = assert_rearranging_changes_nothing(&opened(&network(seed, &steps)), COARSE);
        prop_assert!(groups.iter().all(|group| group.left() > 0));
    }

    #[test]
    fn shuffling_free_units_changes_no_prediction(
        seed in any::<u64>(),
        steps in proptest::collection::vec(any::<(u8, u8)>(), 0..9),
    ) {
        let model = network(seed, &steps);
        let moved = shuffled(&model, seed ^ 1);
        prop_assert_ne!(&moved, &model, "the dense layer at least is free");
        let expected = predictions(&Predictor::from_model(&opened(&model)).unwrap());
        let found = predictions(&Predictor::from_model(&opened(&moved)).unwrap());
        let difference = largest_difference(&found, &expected);
        prop_assert!(difference <= TOLERANCE, "{} of the largest output", difference);
    }
}

/// The artifact of `model`, and what became of its groups.
fn compressed(model: &Model, recipe: &str) -> (Artifact, Vec<UnitGroupReport>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let report = compress(model, &Recipe::from_json(recipe).unwrap(), &out, &Silent).unwrap();
    (Artifact::open(&out).unwrap(), report.unit_groups)
}

const LOSSY: &str = r#""prune":{"sparsity":0.9},"quantize":{"levels":31}"#;

/// Few levels, and a good part of the weights: rows that are copies stay copies.
const COARSE: &str = r#""prune":{"sparsity":0.5},"quantize":{"levels":7}"#;

fn assert_rearranging_changes_nothing(model: &Model, lossy: &str) -> Vec<UnitGroupReport> {
    let (kept, none) = compressed(
        model,
        &format!(r#"{{{lossy},"encode":{{"codec":"sham","reorder":false,"remove":false,"merge":false}}}}"#),
    );
    let (moved, groups) = compressed(model, &format!(r#"{{{lossy},"encode":{{"codec":"sham"}}}}"#));
    assert_eq!(none, []);
    let run = |artifact| predictions(&Predictor::from_artifact(artifact, Residency::Coded).unwrap());
    let difference = largest_difference(&run(&moved), &run(&kept));
    assert!(difference <= TOLERANCE, "{difference} of the largest output");
    groups
}

#[test]
fn networks_of_branches_have_units_of_every_kind() {
    let steps: Vec<(u8, u8)> = (0..9).map(|i| (i * 5 + 1, i * 37)).collect();
    let groups = (0..6).flat_map(|seed| assert_rearranging_changes_nothing(&opened(&network(seed, &steps)), COARSE));
    let groups: Vec<_> = groups.collect();
    assert!(groups.iter().any(|group| group.removed > 0));
    assert!(groups.iter().any(|group| group.constant > 0));
    assert!(groups.iter().any(|group| group.merged > 0));
}

#[test]
fn bundled_networks_predict_the_same_with_their_units_rearranged() {
    let units = |groups: Vec<UnitGroupReport>| {
        assert!(groups.iter().any(|group| group.reordered), "{groups:?}");
        assert!(groups.iter().any(|group| group.constant > 0), "{groups:?}");
        assert!(groups.iter().any(|group| group.removed > 0), "{groups:?}");
        groups.iter().map(|group| group.units).collect::<Vec<_>>()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, expected) in [
        ("tests/fixtures/digits_mlp.onnx", &[64, 32][..]),
        ("examples/mnist/lenet300.onnx", &[300, 100]),
        ("examples/mnist/lenet5.onnx", &[20, 50, 500]),
    ] {
        let model = Model::open(&root.join(file)).unwrap();
        // Much of the first layer goes, while what reads it stays.
        let first = &model.weights()[0].name;
        let harder = format!(r#"{LOSSY},"layers":[{{"match":"{first}","prune":{{"sparsity":0.99}}}}]"#);
        assert_eq!(units(assert_rearranging_changes_nothing(&model, &harder)), expected, "{file}");
    }
}

#[test]
fn an_embedding_with_branches_predicts_the_same() {
    let mut numbers = Numbers(5);
    let mut floats = |name: &str, dims: &[i64]| {
        let count = dims.iter().product::<i64>() as usize;
        fixture::floats(name, dims, &numbers.take(count))
    };
    // Large enough for the bias of the first layer to be stored outside the graph.
    let tensors = vec![
        floats("e", &[25, 16]),
        floats("c", &[1200, 16, 3]),
        floats("b", &[1200]),
        floats("d", &[8, 1200, 1]),
        floats("w", &[1208, 2]),
    ];
    let nodes = vec![
        node("Gather", "e x", "h"),
        with_ints(node("Transpose", "h", "t"), "perm", &[0, 2, 1]),
        node("Conv", "t c b", "i"),
        node("Relu", "i", "j"),
        node("Conv", "j d", "k"),
        with_ints(with_int(node("ReduceMax", "j", "p"), "keepdims", 0), "axes", &[2]),
        with_ints(with_int(node("ReduceMax", "k", "q"), "keepdims", 0), "axes", &[2]),
        with_int(node("Concat", "p q", "r"), "axis", 1),
        node("MatMul", "r w", "y"),
    ];
    let mut graph = fixture::graph(nodes, tensors);
    let mut ids = port("x", &[-1, 20]);
    if let Some(tract_onnx::pb::type_proto::Value::TensorType(tensor)) = &mut ids.r#type.as_mut().unwrap().value {
        tensor.elem_type = 7;
    }
    graph.input = vec![ids];
    graph.output = vec![port("y", &[-1, 2])];
    let model = fixture::open(graph).unwrap();
    assert_eq!(model.detached().map(|kept| kept.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let groups = assert_rearranging_changes_nothing(&model, LOSSY);
    let found: Vec<_> = groups.iter().map(|group| (group.units, group.tensors.join(" "))).collect();
    assert_eq!(found, [(16, "e c".to_owned()), (1200, "c b d w".to_owned()), (8, "d w".to_owned())]);
}

#[test]
fn an_unread_unit_goes_from_every_tensor() {
    // Of three hidden units the second is multiplied by zero; each has a bias of its own.
    let tensors = vec![
        fixture::floats("a", &[3, 2], &[1., 2., 3., 4., 5., 6.]),
        fixture::floats("b", &[3], &[0.5, 7., -1.]),
        fixture::floats("c", &[3, 2], &[1., 0., 0., 0., 2., 3.]),
    ];
    let nodes =
        vec![with_int(node("Gemm", "x a b", "h"), "transB", 1), node("Relu", "h", "r"), node("MatMul", "r c", "y")];
    let mut graph = fixture::graph(nodes, tensors);
    // Older files list initializers among the inputs, and some the extents in between.
    graph.input = vec![port("x", &[-1, 2]), port("b", &[3])];
    graph.value_info = vec![port("h", &[-1, 3])];
    graph.output = vec![port("y", &[-1, 2])];
    let model = fixture::open(graph).unwrap();
    let (artifact, groups) = compressed(&model, r#"{"encode":{"remove":true}}"#);
    let tensors = ["a", "b", "c"].map(str::to_owned).to_vec();
    assert_eq!(groups, [UnitGroupReport { tensors, units: 3, removed: 1, constant: 0, merged: 0, reordered: false }]);
    let dims: Vec<_> = artifact.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.dims.clone())).collect();
    assert_eq!(dims, [("a", vec![2, 2]), ("c", vec![2, 2])]);
    let graph = artifact.graph().unwrap().unwrap().graph.unwrap();
    assert_eq!(graph.initializer[1].raw_data, [0.5f32, -1.0].map(f32::to_le_bytes).concat());
    assert_eq!((&graph.initializer[0].dims, graph.value_info.len()), (&vec![2, 2], 0));
    assert_eq!(graph.input[1], port("b", &[2]));
    let before = predictions(&Predictor::from_model(&model).unwrap());
    for residency in [Residency::Coded, Residency::Dense] {
        let after = predictions(&Predictor::from_artifact(&artifact, residency).unwrap());
        assert!(largest_difference(&after, &before) <= TOLERANCE, "{residency:?}");
    }
}

/// Rows A, D, A, Z: from the empty one, the copies are nearest. Columns a, b, c: from b with one value, c shares it.
const PUBLISHED: [f32; 12] = [1., 0., 1., 0., 2., 2., 1., 0., 1., 0., 0., 0.];

fn lone(values: &[f32]) -> Model {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let file = fixture::npz(&[("w", fixture::npy("<f4", false, "(4, 3)", &bytes))], false);
    Model::from_bytes(file.into()).unwrap()
}

#[test]
fn weights_alone_move_on_the_sides_that_the_recipe_frees() {
    let model = lone(&PUBLISHED);
    let stored = |recipe: &str| {
        let (artifact, groups) = compressed(&model, recipe);
        let bytes = artifact.raw_data(&artifact.tensors()[0]).unwrap();
        let FloatData::F32(values) = FloatData::from_le_bytes(crate::tensor::FloatType::F32, &bytes) else { panic!() };
        (values, groups.len())
    };
    let published = (PUBLISHED.to_vec(), 0);
    assert_eq!(stored("{}"), published);
    let rows = vec![0., 0., 0., 1., 0., 1., 1., 0., 1., 0., 2., 2.];
    assert_eq!(stored(r#"{"encode":{"free_units":"outputs"}}"#), (rows, 1));
    let columns = vec![0., 1., 1., 2., 2., 0., 0., 1., 1., 0., 0., 0.];
    assert_eq!(stored(r#"{"encode":{"free_units":"inputs"}}"#), (columns, 1));
    let both = vec![0., 0., 0., 0., 1., 1., 0., 1., 1., 2., 2., 0.];
    assert_eq!(stored(r#"{"encode":{"free_units":"both"}}"#), (both, 2));
    assert_eq!(stored(r#"{"encode":{"free_units":"both","reorder":false}}"#), published);
    assert_eq!(stored(r#"{"encode":{"free_units":"both","reorder":false,"remove":true}}"#), published);
}

#[test]
fn the_recipe_decides_which_groups_move() {
    let model = opened(&network(3, &[(0, 20), (4, 9)]));
    let groups = |recipe: &str| compressed(&model, recipe).1.len();
    let all = groups(&format!("{{{LOSSY}}}"));
    assert!(all >= 3);
    assert_eq!(groups("{}"), 0, "a lossless recipe keeps the order");
    assert_eq!(groups(r#"{"encode":{"reorder":true}}"#), all);
    assert_eq!(groups(r#"{"encode":{"remove":true}}"#), all);
    assert_eq!(groups(&format!(r#"{{{LOSSY},"encode":{{"goal":"serving"}}}}"#)), 0);
    let but_the_last = |rule: &str| groups(&format!(r#"{{{LOSSY},"layers":[{{"match":"t8",{rule}}}]}}"#));
    assert_eq!(but_the_last(r#""skip":true"#), all - 1, "what is skipped stays as it was uploaded");
    assert_eq!(but_the_last(r#""encode":{"reorder":false,"remove":false,"merge":false}"#), all - 1);
}
