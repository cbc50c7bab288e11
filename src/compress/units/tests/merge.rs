//! Copies of units, worked out by hand: one stays, with the sums of their weights.

use super::constants::network_of;
use super::*;

const MERGE: &str = r#"{"encode":{"merge":true}}"#;

/// Three hidden units, the first and the last alike, before `outputs` products with the columns of `c`.
fn copies(c: &[[f32; 3]]) -> Model {
    let outputs = c.len() as i64;
    let tensors = vec![
        fixture::floats("a", &[3, 2], &[1., 2., -1., 1., 1., 2.]),
        fixture::floats("b", &[3], &[0.5, 7., 0.5]),
        fixture::floats("c", &[outputs, 3], c.as_flattened()),
    ];
    let gemm = |inputs: &str, output: &str| with_int(node("Gemm", inputs, output), "transB", 1);
    let nodes = vec![gemm("x a b", "h"), node("Tanh", "h", "t"), gemm("t c", "y")];
    network_of(nodes, tensors, &[-1, 2], &[-1, outputs])
}

/// 1 or 2 for the copies, so that their sums are among the values of the other, and from 2 to 4.
fn columns() -> Vec<[f32; 3]> {
    let mut numbers = Numbers(9);
    let mut below = |count: f32| ((numbers.next() + 1.0) / 2.0 * count).floor();
    (0..200).map(|_| [1.0 + below(2.0), 2.0 + below(3.0), 1.0 + below(2.0)]).collect()
}

fn merged(model: &Model, recipe: &str) -> (Artifact, usize) {
    let (artifact, groups) = compressed(model, recipe);
    let before = predictions(&Predictor::from_model(model).unwrap());
    for residency in [Residency::Coded, Residency::Dense] {
        let after = predictions(&Predictor::from_artifact(&artifact, residency).unwrap());
        assert!(largest_difference(&after, &before) <= TOLERANCE, "{residency:?}");
    }
    (artifact, groups.iter().map(|group| group.merged).sum())
}

fn elements(artifact: &Artifact, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = artifact.tensors().iter().find(|tensor| tensor.name == name).unwrap();
    let bytes = artifact.raw_data(tensor).unwrap();
    (tensor.dims.clone(), bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

#[test]
fn copies_are_merged_with_exact_sums() {
    let rows = columns();
    let (artifact, count) = merged(&copies(&rows), MERGE);
    assert_eq!(count, 1);
    assert_eq!(elements(&artifact, "a"), (vec![2, 2], vec![1., 2., -1., 1.]));
    let expected = rows.iter().flat_map(|[first, other, copy]| [first + copy, *other]).collect();
    assert_eq!(elements(&artifact, "c"), (vec![200, 2], expected));
    let graph = artifact.graph().unwrap().unwrap().graph.unwrap();
    assert_eq!(graph.initializer[1].raw_data, [0.5f32, 7.0].map(f32::to_le_bytes).concat());
    assert_eq!(merged(&copies(&rows), r#"{"encode":{"remove":true,"merge":false}}"#).1, 0);
    assert_eq!(merged(&copies(&rows), "{}").1, 0, "a lossless recipe keeps copies");
}

#[test]
fn copies_stay_where_their_sums_are_too_many_values() {
    // 16 values; nearly every sum is another.
    let value = |i: usize| 1.0 + ((i % 16) as f32).sqrt();
    let rows: Vec<[f32; 3]> = (0..200).map(|i| [value(i), value(i / 3), value(i / 16)]).collect();
    assert_eq!(merged(&copies(&rows), MERGE).1, 0);
}

#[test]
fn a_shared_codebook_takes_no_sums() {
    let rows = columns();
    let recipe = |codebook: &str| format!(r#"{{"quantize":{{"levels":8,"codebook":"{codebook}"}}}}"#);
    assert_eq!(merged(&copies(&rows), &recipe("per_layer")).1, 1);
    assert_eq!(merged(&copies(&rows), &recipe("unified")).1, 0);
}

#[test]
fn units_that_differ_in_one_parameter_are_no_copies() {
    let rows = columns();
    let mut model = copies(&rows).skeleton().unwrap().clone();
    let graph = model.graph.as_mut().unwrap();
    graph.initializer[0] = fixture::floats("a", &[3, 2], &[1., 2., -1., 1., 1., 2.]);
    graph.initializer[1] = fixture::floats("b", &[3], &[0.5, 7., 0.75]);
    graph.initializer[2] = fixture::floats("c", &[200, 3], rows.as_flattened());
    assert_eq!(merged(&opened(&model), MERGE).1, 0);
}

#[test]
fn a_table_that_is_looked_up_and_multiplied_by_keeps_its_columns() {
    let nodes = vec![
        node("Gather", "e x", "h"),
        with_ints(node("Transpose", "e", "t"), "perm", &[1, 0]),
        node("MatMul", "h t", "y"),
    ];
    let table: Vec<f32> = (0..20).flat_map(|i| [i as f32, (i % 3) as f32, 1.0]).collect();
    let mut graph = fixture::graph(nodes, vec![fixture::floats("e", &[20, 3], &table)]);
    let mut ids = port("x", &[-1, 4]);
    if let Some(tract_onnx::pb::type_proto::Value::TensorType(tensor)) = &mut ids.r#type.as_mut().unwrap().value {
        tensor.elem_type = 7;
    }
    graph.input = vec![ids];
    graph.output = vec![port("y", &[-1, 4, 20])];
    let model = fixture::open(graph).unwrap();
    let (artifact, count) = merged(&model, r#"{"encode":{"merge":true,"remove":true}}"#);
    assert_eq!((count, elements(&artifact, "e").1), (0, table));
}
