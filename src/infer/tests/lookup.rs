//! Gather of the rows of a compressed weight.

use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;

use super::graph::{GraphBuilder, int, ints, named_node};
use super::*;
use crate::artifact::Artifact;
use crate::compress::{Recipe, compress};
use crate::infer::{Array, ArrayData, Form, Predictor, Residency};
use crate::model::Model;
use crate::progress::Silent;

/// A Gather of a weight with `dims`, by indices with these extents.
fn gather(dims: &[usize], data_type: DataType, extents: &[Option<i64>]) -> pb::ModelProto {
    let mut graph = GraphBuilder::new();
    graph.indices("x", data_type, extents);
    let weight = graph.weight(dims);
    graph.node(named_node("Gather", &[&weight, "x"], "y", vec![]));
    graph.output("y");
    graph.build()
}

fn indices(shape: &[usize], values: &[i64]) -> TVec<TValue> {
    [Tensor::from_shape(shape, values).unwrap().into_tvalue()].into_iter().collect()
}

/// Plans on encoded weights, of symbols and of raw values, by every codec that serves; and on packed ones.
fn plans(model: &pb::ModelProto) -> Vec<(String, Plan)> {
    let mut plans = vec![("packed".to_owned(), packed(model))];
    for &codec in CodecId::SERVING.iter().filter(|&&codec| codec != CodecId::Pco) {
        plans.push((format!("{codec:?}"), coded(model, codec)));
    }
    for codec in [CodecId::Dense, CodecId::Csr, CodecId::Csc, CodecId::Pco] {
        let plan = compressed(model, |weight| Held::Coded(Arc::new(encode_raw(model, weight, codec))));
        plans.push((format!("raw {codec:?}"), plan));
    }
    plans
}

fn encode_raw(model: &pb::ModelProto, weight: &Weight, codec: CodecId) -> CompressedMatrix {
    let matrix = encode(model, weight, CodecId::Dense).decode();
    let values = (0..matrix.rows() * matrix.cols()).map(|i| matrix.value(i) as f32).collect();
    let matrix = Matrix::raw(matrix.rows(), matrix.cols(), FloatType::F32, FloatData::F32(values)).unwrap();
    let payload = codec::encode(&matrix, codec, 3).unwrap();
    CompressedMatrix::open(codec, Head::of(&matrix, 3).unwrap(), payload.into()).unwrap()
}

fn bits(outputs: &[TValue]) -> Vec<u32> {
    outputs.iter().flat_map(values).map(f32::to_bits).collect()
}

fn assert_same(name: &str, found: &[TValue], expected: &[TValue]) {
    assert_eq!(found[0].shape(), expected[0].shape(), "{name}");
    assert_eq!(bits(found), bits(expected), "{name}");
}

#[test]
fn a_look_up_is_the_dense_gather_for_every_codec_and_shape() {
    let cases: [(&[usize], &[usize], &[i64]); 6] = [
        (&[10, 4], &[], &[7]),
        (&[10, 4], &[5], &[9, 0, -1, 9, -10]),
        (&[10, 4], &[2, 3], &[0, 1, 2, 3, 4, 5]),
        (&[10, 4], &[2, 0, 3], &[]),
        (&[7, 3, 5], &[2, 1, 2], &[6, 6, -7, 3]),
        (&[1, 4], &[3], &[0, -1, 0]),
    ];
    for (dims, shape, values) in cases {
        let model = gather(dims, DataType::Int64, &shape.iter().map(|&d| Some(d as i64)).collect::<Vec<_>>());
        let expected = dense(&model).run(indices(shape, values)).unwrap();
        for (name, plan) in plans(&model) {
            assert_same(&format!("{name} {dims:?} {shape:?}"), &plan.run(indices(shape, values)).unwrap(), &expected);
        }
    }
}

#[test]
fn indices_may_be_32_bits_wide_and_of_any_extents() {
    let model = gather(&[200, 3], DataType::Int32, &[None, None]);
    let plans = plans(&model);
    let reference = dense(&model);
    let mut numbers = Numbers::new(3);
    for (batch, length) in [(1, 1), (2, 5), (40, 30)] {
        let values: Vec<i32> = (0..batch * length).map(|_| numbers.below(400) as i32 - 200).collect();
        let x: TVec<TValue> =
            [Tensor::from_shape(&[batch, length], &values).unwrap().into_tvalue()].into_iter().collect();
        let expected = reference.run(x.clone()).unwrap();
        for (name, plan) in &plans {
            assert_same(&format!("{name} {batch} x {length}"), &plan.run(x.clone()).unwrap(), &expected);
        }
    }
}

#[test]
fn an_index_outside_is_an_error_that_names_it() {
    let model = gather(&[10, 4], DataType::Int64, &[None]);
    for (name, plan) in plans(&model) {
        for index in [10, -11, i64::MIN, i64::MAX] {
            let error = plan.run(indices(&[3], &[0, index, 9])).unwrap_err();
            assert!(error.is_bad_input(), "{name}: {error}");
            assert_eq!(error.to_string(), format!("index {index} is outside the 10 entries of w0"), "{name}");
        }
        assert!(plan.run(indices(&[3], &[0, 1, 9])).is_ok(), "{name}");
    }
}

#[test]
fn vectors_and_other_axes_are_left_to_the_engine() {
    let mut graph = GraphBuilder::new();
    graph.indices("x", DataType::Int64, &[Some(2)]);
    graph.constant("vector", &[3], &[5.0, 6.0, 7.0]);
    graph.constant("matrix", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    graph.node(named_node("Gather", &["vector", "x"], "v", vec![]));
    graph.node(named_node("Gather", &["matrix", "x"], "m", vec![int("axis", 1)]));
    graph.output("v");
    graph.output("m");
    let mut model = graph.build();
    assert!(rewrite(&mut model, |_| unreachable!("nothing is looked up")).unwrap().is_empty());
    let outputs = dense(&model).run(indices(&[2], &[2, 0])).unwrap();
    assert_eq!((values(&outputs[0]), values(&outputs[1])), (vec![7.0, 5.0], vec![3.0, 1.0, 6.0, 4.0]));
}

/// Tokens to vectors and back to scores of tokens, by one weight.
fn tied(is_transposed: bool) -> pb::ModelProto {
    let mut graph = GraphBuilder::new();
    graph.indices("x", DataType::Int64, &[None, None]);
    let weight = graph.weight(&[20, 6]);
    if is_transposed {
        graph.node(named_node("Transpose", &[&weight], "t", vec![ints("perm", &[1, 0])]));
        graph.node(named_node("Gather", &[&weight, "x"], "h", vec![]));
        graph.node(named_node("MatMul", &["h", "t"], "y", vec![]));
    } else {
        graph.node(named_node("Gather", &[&weight, "x"], "h", vec![]));
        graph.node(named_node("Transpose", &["h"], "t", vec![ints("perm", &[0, 2, 1])]));
        graph.node(named_node("MatMul", &[&weight, "t"], "s", vec![]));
        graph.node(named_node("Transpose", &["s"], "u", vec![ints("perm", &[0, 2, 1])]));
        graph.node(named_node("MatMul", &["u", &weight], "y", vec![]));
    }
    graph.output("y");
    graph.build()
}

#[test]
fn tied_embeddings_are_held_once_for_both_uses() {
    for is_transposed in [true, false] {
        let model = tied(is_transposed);
        let reference = dense(&model);
        for (name, plan) in plans(&model) {
            assert_eq!(plan.constant_bytes(), 0, "{name}");
            for (batch, length) in [(1, 1), (2, 7)] {
                let tokens: Vec<i64> = (0..batch * length).map(|i| (i * i % 20) as i64).collect();
                let expected = reference.run(indices(&[batch, length], &tokens)).unwrap();
                let found = plan.run(indices(&[batch, length], &tokens)).unwrap();
                assert_close(&format!("{name} {batch} x {length}"), &found, &expected);
            }
        }
    }
}

#[test]
fn every_residency_of_an_artifact_looks_up_and_says_how_the_weight_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tied.wp");
    let model = Model::from_bytes(tied(true).encode_to_vec().into()).unwrap();
    let recipe = Recipe::from_json(r#"{"encode":{"codec":"sham"}}"#).unwrap();
    compress(&model, &recipe, &path, &Silent).unwrap();
    let artifact = Artifact::open(&path).unwrap();
    let x = Array { dims: vec![2, 3], data: ArrayData::I64(vec![3, 19, -1, 0, 3, 3]) };
    let answer = |predictor: &Predictor| predictor.run(vec![("x".into(), x.clone())]).unwrap()[0].1.clone();
    let refuses = |predictor: &Predictor| {
        // Six floats an entry: the last index would wrap around to the third.
        for index in [20, -21, 3_074_457_345_618_258_603] {
            let x = Array { dims: vec![1, 2], data: ArrayData::I64(vec![0, index]) };
            let error = predictor.run(vec![("x".into(), x)]).unwrap_err();
            assert!(error.is_bad_input(), "{error}");
            assert_eq!(error.to_string(), format!("index {index} is outside the 20 entries of w0"));
        }
    };
    let version_0 = Predictor::from_model(&model).unwrap();
    refuses(&version_0);
    let expected = answer(&version_0);
    for residency in [Residency::Packed, Residency::Coded, Residency::Dense, Residency::Auto] {
        let predictor = Predictor::from_artifact(&artifact, residency).unwrap();
        refuses(&predictor);
        let [held] = predictor.weights() else { panic!("one weight") };
        match residency {
            Residency::Packed => assert_eq!(held.form, Form::Packed),
            Residency::Coded => assert_eq!(held.form, Form::Coded),
            Residency::Dense => assert_eq!((held.form, held.bytes), (Form::Dense, 4 * 20 * 6)),
            Residency::Auto => {}
        }
        assert_eq!((held.name.as_str(), predictor.layers()), ("w0", &["w0".to_owned()][..]));
        assert!(predictor.weights_resident_bytes() >= held.bytes, "{residency:?}");
        let found = answer(&predictor);
        assert_eq!(found.dims, expected.dims);
        let error = (0..found.data.len()).map(|i| (found.data.get_f64(i) - expected.data.get_f64(i)).abs());
        assert!(error.fold(0.0, f64::max) < 1e-5, "{residency:?}");
    }
}
