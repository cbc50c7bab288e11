//! Fine-tuning as a whole: gradients against finite differences, outputs against tract, runs against each other and PyTorch.

mod forward;
mod gradients;
mod network;
mod pytorch;
mod training;

use std::collections::BTreeMap;

use burn_backend::DType;
use burn_backend::backend::AutodiffBackend;
use prost::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
    type_proto,
};
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, tvec};

use super::program::Program;
use super::scalar::Scalar;
use super::tape::record;
use super::value::{Tape, Tensor, Value, to_f64};
use super::{Batch, Network, Parameters, Samples, TuneError};
use crate::infer::{Array, ArrayData};

/// A graph under construction, whose tensors are all in the file.
#[derive(Default)]
struct Graph {
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
    opset: i64,
}

/// A value of an attribute.
enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Word(&'static str),
}

impl Graph {
    fn new() -> Self {
        Self { opset: 17, ..Self::default() }
    }

    /// Adds a node whose inputs and outputs are separated by spaces; `_` leaves an input out.
    fn node(mut self, op: &str, inputs: &str, outputs: &str, attributes: &[(&str, Attribute)]) -> Self {
        let names = |list: &str| list.split_whitespace().map(|name| name.replace('_', "")).collect();
        let attribute = attributes.iter().map(|(name, value)| {
            let mut proto = AttributeProto { name: (*name).into(), ..AttributeProto::default() };
            match value {
                Attribute::Int(value) => (proto.i, proto.r#type) = (*value, 2),
                Attribute::Ints(list) => (proto.ints, proto.r#type) = (list.clone(), 7),
                Attribute::Float(value) => (proto.f, proto.r#type) = (*value, 1),
                Attribute::Word(word) => (proto.s, proto.r#type) = (word.as_bytes().to_vec(), 3),
            }
            proto
        });
        let (attribute, op_type) = (attribute.collect(), op.into());
        self.nodes.push(NodeProto {
            op_type,
            input: names(inputs),
            output: names(outputs),
            attribute,
            ..NodeProto::default()
        });
        self
    }

    /// An input of reals or of 64-bit integers, of any extents.
    fn input(mut self, name: &str, is_real: bool) -> Self {
        let tensor = type_proto::Tensor { elem_type: if is_real { 1 } else { 7 }, ..type_proto::Tensor::default() };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
        self.inputs.push(ValueInfoProto { name: name.into(), r#type: Some(r#type), ..ValueInfoProto::default() });
        self
    }

    fn reals(mut self, name: &str, dims: &[usize], values: &[f64]) -> Self {
        self.tensors.push(TensorProto {
            name: name.into(),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: 1,
            float_data: values.iter().map(|&value| value as f32).collect(),
            ..TensorProto::default()
        });
        self
    }

    /// A tensor of distinct numbers, none near zero, which `seed` shuffles.
    fn random(self, name: &str, dims: &[usize], seed: u64) -> Self {
        let values = spaced(dims.iter().product(), seed, -2.0, 2.0);
        self.reals(name, dims, &values)
    }

    /// Such a tensor between 0.5 and 2.
    fn positive(self, name: &str, dims: &[usize], seed: u64) -> Self {
        let values = spaced(dims.iter().product(), seed, 0.5, 2.0);
        self.reals(name, dims, &values)
    }

    fn ints(mut self, name: &str, dims: &[usize], values: &[i64]) -> Self {
        self.tensors.push(TensorProto {
            name: name.into(),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: 7,
            int64_data: values.to_vec(),
            ..TensorProto::default()
        });
        self
    }

    fn model(&self, output: &str) -> ModelProto {
        let value = ValueInfoProto { name: output.into(), ..ValueInfoProto::default() };
        let graph = GraphProto {
            name: "test".into(),
            node: self.nodes.clone(),
            initializer: self.tensors.clone(),
            input: self.inputs.clone(),
            output: vec![value],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { domain: String::new(), version: self.opset };
        ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
    }

    /// The output `y` in f32.
    fn run(&self) -> Result<(Vec<usize>, Vec<f64>), TuneError> {
        let network = Network::new(&self.model("y"), None, &|_| None)?;
        let program = Program::new(&network, &Parameters::new(), network.output)?;
        let value = program.run_live(&network, Vec::new(), &[])?;
        Ok((value.dims(), numbers(&value)))
    }

    /// Asserts that tract computes the same.
    fn assert_like_tract(&self) {
        let mut bytes = std::io::Cursor::new(self.model("y").encode_to_vec());
        let model = tract_onnx::onnx().model_for_read(&mut bytes).unwrap().into_optimized().unwrap();
        let expected = model.into_runnable().unwrap().run(tvec!()).unwrap().remove(0);
        let (dims, values) = self.run().unwrap();
        assert_eq!(dims, expected.shape());
        let expected = expected
            .cast_to::<f64>()
            .unwrap()
            .to_plain_array_view::<f64>()
            .unwrap()
            .iter()
            .copied()
            .collect::<Vec<_>>();
        for (place, (own, expected)) in values.iter().zip(&expected).enumerate() {
            assert!((own - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{place}: {own}, tract {expected}");
        }
    }

    /// Asserts that the gradients of all tensors of reals are those of central differences, in f64.
    fn assert_gradients(&self) {
        let network = Network::in_type(&self.model("y"), None, &|_| None, DType::F64).unwrap();
        let program = Program::new(&network, &Parameters::of(&network), network.output).unwrap();
        let slots: BTreeMap<&str, usize> = program.trained.iter().map(|(name, slot)| (&name[..], *slot)).collect();
        let mut tensors: Vec<(Vec<usize>, Vec<f64>)> = slots
            .values()
            .map(|&slot| network.constants[slot].as_ref().map(|value| (value.dims(), numbers(value))).unwrap())
            .collect();
        let names: Vec<String> = slots.keys().map(|name| (*name).to_owned()).collect();
        let loss = |tensors: &[(Vec<usize>, Vec<f64>)]| {
            let tensors: Vec<Tensor> =
                tensors.iter().map(|(dims, values)| Tensor::Plain(f64::tensor(dims, values.clone()))).collect();
            let output = numbers(&program.run_live(&network, Vec::new(), &tensors).unwrap());
            output.iter().zip(factors(output.len())).map(|(value, factor)| value * factor).sum::<f64>()
        };
        let gradients = analytic(&network, &program, &tensors);
        let step = 1e-5;
        for (place, name) in names.iter().enumerate() {
            for i in 0..tensors[place].1.len() {
                let value = tensors[place].1[i];
                let mut at = |value: f64| {
                    tensors[place].1[i] = value;
                    loss(&tensors)
                };
                let expected = (at(value + step) - at(value - step)) / (2.0 * step);
                at(value);
                let own = gradients[place].as_ref().map_or(0.0, |gradient| gradient[i]);
                assert!((own - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{name}[{i}]: {own}, not {expected}");
            }
        }
    }
}

/// Samples of one input `x`, in memory.
struct Given {
    /// Extents of a sample.
    dims: Vec<usize>,
    x: Vec<f32>,
    target: Option<Target>,
    len: usize,
}

enum Target {
    Classes(Vec<i64>),
    Values(Vec<f32>),
}

impl Samples for Given {
    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, indices: &[usize]) -> Result<Batch, TuneError> {
        let row: usize = self.dims.iter().product();
        let x = indices.iter().flat_map(|&i| self.x[i * row..][..row].iter().copied()).collect();
        let x = Array { dims: [&[indices.len()], &self.dims[..]].concat(), data: ArrayData::F32(x) };
        let target = self.target.as_ref().map(|target| match target {
            Target::Classes(list) => {
                let list = indices.iter().map(|&i| list[i]).collect();
                Array { dims: vec![indices.len()], data: ArrayData::I64(list) }
            }
            Target::Values(list) => {
                let each = list.len() / self.len;
                let list = indices.iter().flat_map(|&i| list[i * each..][..each].iter().copied()).collect();
                Array { dims: vec![indices.len(), each], data: ArrayData::F32(list) }
            }
        });
        Ok(Batch { inputs: vec![("x".into(), x)], target })
    }
}

/// The gradients of the sum of outputs times [`factors`].
fn analytic(network: &Network, program: &Program, tensors: &[(Vec<usize>, Vec<f64>)]) -> Vec<Option<Vec<f64>>> {
    let leaves: Vec<Tensor> =
        tensors.iter().map(|(dims, values)| Tensor::leaf(f64::tensor(dims, values.clone()))).collect();
    let Value::Float(output) = program.run_live(network, Vec::new(), &leaves).unwrap() else { panic!("reals") };
    let (dims, total) = (output.dims(), f64::tensor(&[1], vec![0.0]));
    let factors = f64::tensor(&dims, factors(dims.iter().product()));
    let Tensor::Traced(root) = record([&output], total, move |_, _| [Some(factors.clone())]) else { panic!("traced") };
    let mut gradients = Tape::backward(root);
    leaves.into_iter().map(|leaf| Tape::grad_remove(&leaf.traced(), &mut gradients).map(|g| to_f64(&g))).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Float(tensor) => to_f64(tensor.inner()),
        Value::Int(tensor) => tensor.data.iter().map(|&value| value as f64).collect(),
    }
}

/// What outputs are weighed with, so that none of them can hide behind another.
fn factors(count: usize) -> Vec<f64> {
    (0..count).map(|i| 0.3 + (i as f64 * 0.7).sin()).collect()
}

/// Distinct numbers that lie evenly between two, shuffled.
fn spaced(count: usize, seed: u64, low: f64, high: f64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f64> =
        (0..count).map(|i| low + (high - low) * (i as f64 + 0.37) / count as f64 + 0.0137).collect();
    for i in (1..count).rev() {
        values.swap(i, random.next_u64() as usize % (i + 1));
    }
    values
}
