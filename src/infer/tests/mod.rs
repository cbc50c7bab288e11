//! Rewritten graphs against tract's own operators on the same graph, dense.

mod convolution;
mod graph;
mod linear;
mod lookup;
mod predictor;

use std::sync::Arc;

use tract_onnx::pb;
use tract_onnx::tract_hir::prelude::{IntoTValue, TValue, TVec, Tensor};

use super::absorb::absorb;
use super::plan::Plan;
use super::ports::ports;
use super::product::Held;
use super::rewrite::{Operators, rewrite};
use super::{InferError, form};
use crate::codec::{self, CodecId, CompressedMatrix, Head, Words};
use crate::model::Weight;
use crate::tensor::{Codebook, FloatData, FloatType, Matrix};
use graph::{GraphBuilder, Numbers};

/// max |a - b| <= TOLERANCE max |b|: what separates two orders of summation in f32.
const TOLERANCE: f32 = 1e-4;

/// Plans `model` as it is: dense weights, tract's operators.
fn dense(model: &pb::ModelProto) -> Plan {
    planned(model.clone(), Operators::new()).expect("the dense graph loads")
}

/// Plans `model` with every product on encoded weights. Panics where a weight stayed behind.
fn coded(model: &pb::ModelProto, codec: CodecId) -> Plan {
    compressed(model, |weight| Held::Coded(Arc::new(encode(model, weight, codec))))
}

/// The same on packed weights.
fn packed(model: &pb::ModelProto) -> Plan {
    compressed(model, |weight| form::packed(encode(model, weight, CodecId::Sham), weight))
}

fn compressed(model: &pb::ModelProto, hold: impl Fn(&Weight) -> Held) -> Plan {
    let mut rewritten = model.clone();
    let mut operators = rewrite(&mut rewritten, |weight| Ok(Some(hold(weight)))).unwrap();
    assert!(!operators.is_empty(), "no node was rewritten");
    let left = rewritten.graph.as_ref().unwrap().initializer.iter().find(|tensor| tensor.name.starts_with('w'));
    assert_eq!(left.map(|tensor| &tensor.name), None, "a weight stayed in the graph");
    absorb(&mut rewritten, &mut operators);
    planned(rewritten, operators).expect("the rewritten graph loads")
}

fn planned(mut model: pb::ModelProto, operators: Operators) -> Result<Plan, InferError> {
    let (inputs, _) = ports(&mut model).unwrap();
    Plan::new(&model, operators, inputs.assume_a_batch())
}

/// The weight of `model`, encoded.
fn encode(model: &pb::ModelProto, weight: &Weight, codec: CodecId) -> CompressedMatrix {
    let tensors = &model.graph.as_ref().unwrap().initializer;
    let tensor = tensors.iter().find(|tensor| tensor.name == weight.name).expect("weights are initializers here");
    let FloatData::F32(values) = FloatData::from_le_bytes(FloatType::F32, &tensor.raw_data) else { unreachable!() };
    let (rows, cols) = weight.layout.shape(&weight.dims).unwrap();
    let values = weight.layout.to_matrix(&weight.dims, values);
    let codebook = Codebook::from_unsorted(FloatType::F32, values.iter().map(|&v| f64::from(v))).unwrap();
    let codebook = Arc::new(codebook);
    let symbol = |value: &f32| codebook.values().iter().position(|v| *v == f64::from(*value)).unwrap() as u16;
    let matrix = Matrix::shared(rows, cols, codebook.clone(), values.iter().map(symbol).collect()).unwrap();
    let rows_per_block = 3;
    let payload = codec::encode(&matrix, codec, rows_per_block).unwrap();
    let head = Head { rows, cols, rows_per_block, words: Words::Symbols(codebook) };
    CompressedMatrix::open(codec, head, payload.into()).unwrap()
}

/// Runs both plans on the same random inputs and compares every output.
fn assert_agree(name: &str, model: &pb::ModelProto, codec: CodecId, shapes: &[&[usize]]) {
    let inputs = random_inputs(shapes);
    let expected = dense(model).run(inputs.clone()).unwrap_or_else(|error| panic!("{name}: dense: {error}"));
    for (form, plan) in [("coded", coded(model, codec)), ("packed", packed(model))] {
        let found = plan.run(inputs.clone()).unwrap_or_else(|error| panic!("{name}: {form}: {error}"));
        assert_close(&format!("{name}: {form}"), &found, &expected);
    }
}

fn random_inputs(shapes: &[&[usize]]) -> TVec<TValue> {
    let mut numbers = Numbers::new(99);
    let tensor = |shape: &&[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| numbers.uniform()).collect();
        Tensor::from_shape(shape, &values).unwrap().into_tvalue()
    };
    shapes.iter().map(tensor).collect()
}

fn assert_close(name: &str, found: &[TValue], expected: &[TValue]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let (found, expected) = (values(found), values(expected));
        let scale = expected.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        let error = found.iter().zip(&expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(error <= TOLERANCE * scale, "{name}: {error} of {scale}");
    }
}

fn values(tensor: &TValue) -> Vec<f32> {
    tensor.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
}

/// One codec per case, so that all of them take part.
fn codec_for(case: usize) -> CodecId {
    const CODECS: [CodecId; 4] = [CodecId::Sham, CodecId::Ham, CodecId::IndexMap, CodecId::Dense];
    CODECS[case % CODECS.len()]
}

/// A graph of one operator: input `x`, weights and biases from `build`, output `y`.
fn one_node(x: &[Option<i64>], build: impl FnOnce(&mut GraphBuilder) -> pb::NodeProto) -> pb::ModelProto {
    let mut graph = GraphBuilder::new();
    graph.input("x", x);
    let node = build(&mut graph);
    graph.node(node);
    graph.output("y");
    graph.build()
}
