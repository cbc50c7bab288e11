//! Batch normalisations folded into the convolutions and dense layers in front of them, so that a layer is calibrated with the
//! scale that its outputs will have, and with a bias that can take up what changes in the mean.
//!
//! # Source
//! Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018,
//! arXiv:1712.05877, section 3.2.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

use crate::infer::NORMALIZATION_EPSILON;
use crate::model::{self, Model, ModelError, Role, Weight};
use crate::tensor::{FloatData, FloatType};

/// A model without the normalisations that could be folded.
pub(crate) struct Folded {
    pub(crate) model: Model,
    /// Remarks for people, one for each normalisation.
    pub(crate) notes: Vec<String>,
}

/// Folds every BatchNormalization that alone reads a Conv or a Gemm, all its parameters constants; `None` where there is none.
/// Predictions are the same but for rounding.
///
/// # Errors
/// A [`ModelError`] where a tensor cannot be read.
pub(crate) fn fold_normalisations(model: &Model) -> Result<Option<Folded>, ModelError> {
    let Some(skeleton) = model.skeleton() else { return Ok(None) };
    let Some(graph) = &skeleton.graph else { return Ok(None) };
    let reads = reads(graph);
    let mut skeleton = skeleton.clone();
    let (mut tensors, mut notes, mut gone) = (HashMap::new(), Vec::new(), HashSet::new());
    for (index, node) in graph.node.iter().enumerate() {
        let Some(found) = Found::at(model, graph, &reads, node)? else { continue };
        let Some(changed) = skeleton.graph.as_mut() else { continue };
        let Found { layer, weight, scales, bias, bias_name } = found;
        let mut bytes = Vec::new();
        scaled(model, weight, &scales)?.write_le_bytes(weight.dtype, &mut bytes);
        tensors.insert(weight.name.clone(), bytes);
        tensors.insert(bias_name.clone(), bias.iter().flat_map(|value| value.to_le_bytes()).collect());
        let inputs = &mut changed.node[layer].input;
        inputs.resize(2, String::new());
        inputs.push(bias_name);
        changed.node[layer].output[0].clone_from(&node.output[0]);
        gone.insert(index);
        notes.push(format!("{}: the normalisation behind it is folded into it", weight.name));
    }
    if gone.is_empty() {
        return Ok(None);
    }
    if let Some(graph) = skeleton.graph.as_mut() {
        let mut index = 0..;
        graph.node.retain(|_| !index.next().is_some_and(|index| gone.contains(&index)));
        let left = self::reads(graph);
        let unread: HashSet<String> =
            reads.keys().filter(|name| !left.contains_key(*name)).map(|name| (*name).to_owned()).collect();
        graph.initializer.retain(|tensor| !unread.contains(&tensor.name));
        graph.input.retain(|input| !unread.contains(&input.name));
    }
    Ok(Some(Folded { model: model.with_graph(skeleton)?.with_tensors(tensors)?, notes }))
}

/// A normalisation that can be folded.
struct Found<'a> {
    /// The node in front of it.
    layer: usize,
    weight: &'a Weight,
    /// What each output is multiplied by.
    scales: Vec<f64>,
    /// What is added to each output then.
    bias: Vec<f32>,
    /// The tensor that holds it from now on: the normalisation's.
    bias_name: String,
}

impl<'a> Found<'a> {
    fn at(
        model: &'a Model,
        graph: &pb::GraphProto,
        reads: &HashMap<&str, usize>,
        node: &pb::NodeProto,
    ) -> Result<Option<Self>, ModelError> {
        let [x, scale, shift, mean, variance] = &node.input[..] else { return Ok(None) };
        let is_inference = node.attribute.iter().all(|a| a.name != "training_mode" || a.i == 0);
        let one_output = node.output.iter().filter(|name| !name.is_empty()).count() == 1 && !node.output[0].is_empty();
        let is_normalisation = node.op_type == "BatchNormalization" && node.domain.is_empty();
        let reads_once = |name: &str| reads.get(name) == Some(&1);
        if !is_normalisation || !is_inference || !one_output || !reads_once(x) || !reads_once(shift) {
            return Ok(None);
        }
        let Some(layer) = graph.node.iter().position(|node| node.output.first() == Some(x)) else { return Ok(None) };
        let weights = model.weights().iter();
        let Some(weight) = weights.into_iter().find(|weight| is_weight_of(weight, layer, &graph.node[layer])) else {
            return Ok(None);
        };
        let rows = weight.layout.shape(&weight.dims).map_or(0, |(rows, _)| rows);
        let values = |name: &str| constant(model, graph, name, rows);
        let (Some(scale), Some(offset), Some(mean), Some(variance)) =
            (values(scale)?, values(shift)?, values(mean)?, values(variance)?)
        else {
            return Ok(None);
        };
        let own = match graph.node[layer].input.get(2).filter(|name| !name.is_empty()) {
            None => vec![0.0; rows],
            Some(name) => match values(name)? {
                Some(values) => values,
                None => return Ok(None),
            },
        };
        let epsilon = node.attribute.iter().find(|a| a.name == "epsilon").map_or(NORMALIZATION_EPSILON, |a| a.f);
        let factor =
            |(scale, variance): (&f32, &f32)| f64::from(*scale) / (f64::from(*variance) + f64::from(epsilon)).sqrt();
        let scales: Vec<f64> = scale.iter().zip(&variance).map(factor).collect();
        let bias = (0..rows)
            .map(|row| (f64::from(offset[row]) + (f64::from(own[row]) - f64::from(mean[row])) * scales[row]) as f32);
        let bias: Vec<f32> = bias.collect();
        let is_finite = scales.iter().all(|scale| scale.is_finite()) && bias.iter().all(|bias| bias.is_finite());
        Ok(is_finite.then(|| Self { layer, weight, scales, bias, bias_name: shift.clone() }))
    }
}

/// Whether `node`, at `index`, is a Conv or a plain Gemm that alone multiplies by `weight`, as it is stored.
fn is_weight_of(weight: &Weight, index: usize, node: &pb::NodeProto) -> bool {
    let is_plain = node.op_type == "Conv" || (node.op_type == "Gemm" && is_plain_gemm(node));
    let is_only_use =
        matches!(&weight.uses[..], [usage] if usage.node == index && usage.slot == 1 && !usage.transposed);
    let is_stored = weight.role == Role::Product && weight.dtype == FloatType::F32 && weight.chain.is_empty();
    is_plain && is_only_use && is_stored
}

fn is_plain_gemm(node: &pb::NodeProto) -> bool {
    let is_one = |name: &str| node.attribute.iter().all(|a| a.name != name || a.f == 1.0);
    is_one("alpha") && is_one("beta")
}

/// The weights of a layer, each row times its factor, in tensor order.
fn scaled(model: &Model, weight: &Weight, scales: &[f64]) -> Result<FloatData, ModelError> {
    let values = weight.layout.to_matrix(&weight.dims, model.read(weight)?.to_f32().into_owned());
    let cols = values.len() / scales.len().max(1);
    let scale = |(cell, value): (usize, &f32)| (f64::from(*value) * scales[cell / cols.max(1)]) as f32;
    let values = values.iter().enumerate().map(scale).collect();
    Ok(FloatData::F32(weight.layout.to_tensor(&weight.dims, values)))
}

/// The values of an initializer of `count` float32 numbers in one dimension.
fn constant(model: &Model, graph: &pb::GraphProto, name: &str, count: usize) -> Result<Option<Vec<f32>>, ModelError> {
    let tensor = graph.initializer.iter().find(|tensor| tensor.name == name);
    let is_float =
        |tensor: &&pb::TensorProto| tensor.data_type == i32::from(DataType::Float) && tensor.dims == [count as i64];
    let Some(tensor) = tensor.filter(is_float) else { return Ok(None) };
    let bytes = match model.detached().find(|kept| kept.name == name) {
        Some(kept) => model.read_detached(kept)?,
        None if tensor.float_data.len() == count => return Ok(Some(tensor.float_data.clone())),
        None => tensor.raw_data.clone(),
    };
    let values = FloatData::from_le_bytes(FloatType::F32, &bytes).to_f32().into_owned();
    Ok((values.len() == count).then_some(values))
}

/// How often each value is read, by subgraphs and as an output of the graph too.
fn reads(graph: &pb::GraphProto) -> HashMap<&str, usize> {
    let mut reads = HashMap::new();
    for node in &graph.node {
        let inputs = node.input.iter().map(String::as_str).filter(|name| !name.is_empty());
        inputs.chain(model::captured_names(node)).for_each(|name| *reads.entry(name).or_default() += 1);
    }
    graph.output.iter().for_each(|output| *reads.entry(output.name.as_str()).or_default() += 1);
    reads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::{Array, ArrayData, Predictor};
    use crate::model::fixture::{floats, graph, node, open, port, with_int};

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i + seed) * 7919 % 211) as f32 / 100.0 - 1.0).collect()
    }

    /// A convolution with a bias and a dense layer without, each normalised; and one normalisation of a sum.
    fn network() -> Model {
        let normalise = |x: &str, name: &str, y: &str| {
            node("BatchNormalization", &format!("{x} {name}.s {name}.b {name}.m {name}.v"), y)
        };
        let nodes = vec![
            node("Conv", "x conv.weight conv.bias", "c"),
            normalise("c", "first", "n"),
            node("Relu", "n", "r"),
            node("Flatten", "r", "f"),
            with_int(node("Gemm", "f fc.weight", "g"), "transB", 1),
            normalise("g", "second", "h"),
            node("Add", "h h", "a"),
            normalise("a", "third", "y"),
        ];
        let mut tensors = vec![
            floats("conv.weight", &[3, 2, 2, 2], &numbers(24, 1)),
            floats("conv.bias", &[3], &numbers(3, 2)),
            floats("fc.weight", &[5, 12], &numbers(60, 3)),
        ];
        for (name, count) in [("first", 3), ("second", 5), ("third", 5)] {
            for part in ["s", "b", "m"] {
                tensors.push(floats(&format!("{name}.{part}"), &[count], &numbers(count as usize, count as usize)));
            }
            let variance: Vec<f32> = numbers(count as usize, 9).iter().map(|v| v.abs() + 0.1).collect();
            tensors.push(floats(&format!("{name}.v"), &[count], &variance));
        }
        let mut graph = graph(nodes, tensors);
        graph.input = vec![port("x", &[-1, 2, 3, 3])];
        graph.output = vec![port("y", &[-1, 5])];
        open(graph).unwrap()
    }

    fn outputs(model: &Model) -> Vec<f32> {
        let x = Array { dims: vec![4, 2, 3, 3], data: ArrayData::F32(numbers(72, 5)) };
        let outputs = Predictor::from_model(model).unwrap().run(vec![("x".into(), x)]).unwrap();
        let ArrayData::F32(values) = &outputs[0].1.data else { unreachable!() };
        values.clone()
    }

    #[test]
    fn predictions_stay_and_normalisations_go() {
        let model = network();
        let folded = fold_normalisations(&model).unwrap().unwrap();
        assert_eq!(folded.notes.len(), 2);
        let graph = folded.model.skeleton().unwrap().graph.as_ref().unwrap();
        let left = graph.node.iter().filter(|node| node.op_type == "BatchNormalization").count();
        assert_eq!(left, 1, "a sum has no weights to fold into");
        assert!(graph.initializer.iter().all(|t| !["conv.bias", "first.s", "second.m"].contains(&t.name.as_str())));
        for (found, expected) in outputs(&folded.model).iter().zip(outputs(&model)) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{found} for {expected}");
        }
    }

    #[test]
    fn a_convolution_that_others_read_too_keeps_its_normalisation() {
        let nodes =
            vec![node("Conv", "x w", "c"), node("BatchNormalization", "c s b m v", "n"), node("Add", "c n", "y")];
        let parts = ["s", "b", "m", "v"].map(|name| floats(name, &[2], &[1.0, 2.0]));
        let tensors = [&[floats("w", &[2, 1, 1], &[1.0, 2.0])], &parts[..]].concat();
        assert!(fold_normalisations(&open(graph(nodes, tensors)).unwrap()).unwrap().is_none());
    }
}
