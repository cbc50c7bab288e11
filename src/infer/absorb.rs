//! Neighbours of products taken into them, before tract sees the graph: a constant that is added becomes a bias, an activation
//! bounds of the result, a transposition of the input a way to read it. Max pools are replaced by ours.
//!
//! tract would fuse an activation into its own products only.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::tract_hir::internal::*;

use super::rewrite::{Operator, Operators, padding};
use crate::model;

use super::product::{Bounds, Kernel, MaxPool};

/// Rewrites what stands around `operators` in the main graph of `model`, whose constants are in place.
pub(super) fn absorb(model: &mut pb::ModelProto, operators: &mut Operators) {
    let Some(graph) = &mut model.graph else { return };
    absorb_biases(graph, operators);
    absorb_activations(graph, operators);
    absorb_transpositions(graph, operators);
    replace_max_pools(graph, operators);
}

/// How often each value is read, subgraphs and outputs of the graph included.
fn uses(graph: &pb::GraphProto) -> HashMap<String, usize> {
    let mut uses = HashMap::new();
    for node in &graph.node {
        let inputs = node.input.iter().map(String::as_str);
        inputs.chain(model::captured_names(node)).for_each(|name| *uses.entry(name.to_owned()).or_default() += 1);
    }
    graph.output.iter().for_each(|output| *uses.entry(output.name.clone()).or_default() += 1);
    uses
}

/// A constant, one value a unit, that is added to what a MatMul gives.
fn absorb_biases(graph: &mut pb::GraphProto, operators: &mut Operators) {
    let uses = uses(graph);
    let mut absorbed = HashSet::new();
    for index in 0..graph.node.len() {
        let Some(Operator::Product(product)) = operators.get_mut(&graph.node[index].op_type) else { continue };
        let Kernel::Linear(linear) = &product.kernel else { continue };
        let node = &graph.node[index];
        let is_plain = node.input.len() == 1 && linear.units_last && (linear.alpha, linear.beta) == (1.0, 1.0);
        let ([output], true) = (&node.output[..], is_plain) else { continue };
        let Some((at, bias)) = added(graph, output).filter(|_| uses.get(output) == Some(&1)) else { continue };
        let is_per_unit = |tensor: &pb::TensorProto| {
            tensor.data_type == i32::from(DataType::Float) && tensor.dims == [linear.weight.outputs() as i64]
        };
        if graph.initializer.iter().any(|tensor| tensor.name == bias && is_per_unit(tensor)) {
            let (bias, output) = (bias.to_owned(), graph.node[at].output[0].clone());
            graph.node[index].input.push(bias);
            graph.node[index].output[0] = output;
            absorbed.insert(at);
        }
    }
    remove_nodes(graph, &absorbed);
}

/// The node that adds something to the value `output`, and what.
pub(super) fn added<'a>(graph: &'a pb::GraphProto, output: &str) -> Option<(usize, &'a str)> {
    graph.node.iter().enumerate().find_map(|(at, node)| match (node.op_type.as_str(), &node.input[..]) {
        ("Add", [a, b]) if a == output && b != output && node.output.len() == 1 => Some((at, b.as_str())),
        ("Add", [a, b]) if b == output && a != output && node.output.len() == 1 => Some((at, a.as_str())),
        _ => None,
    })
}

fn absorb_activations(graph: &mut pb::GraphProto, operators: &mut Operators) {
    let uses = uses(graph);
    let mut producers: HashMap<String, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        if matches!(operators.get(&node.op_type), Some(Operator::Product(_))) {
            producers.extend(node.output.first().map(|output| (output.clone(), index)));
        }
    }
    let mut absorbed = HashSet::new();
    for index in 0..graph.node.len() {
        let node = &graph.node[index];
        let (Some(input), [output]) = (node.input.first(), &node.output[..]) else { continue };
        let (Some(&producer), Some(1)) = (producers.get(input), uses.get(input)) else { continue };
        let Some(bounds) = bounds(graph, node) else { continue };
        let output = output.clone();
        if let Some(Operator::Product(product)) = operators.get_mut(&graph.node[producer].op_type)
            && product.bounds == Bounds::NONE
        {
            product.bounds = bounds;
            graph.node[producer].output[0] = output;
            absorbed.insert(index);
        }
    }
    remove_nodes(graph, &absorbed);
}

/// What an activation does, if it is one that bounds its input by constants.
fn bounds(graph: &pb::GraphProto, node: &pb::NodeProto) -> Option<Bounds> {
    if !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return None;
    }
    let bound = |slot: usize, name: &str, open: f32| match node.input.get(slot).filter(|name| !name.is_empty()) {
        Some(input) => scalar(graph, input),
        None => node.get_attr_opt(name).ok().map(|value| value.unwrap_or(open)),
    };
    let bounds = match node.op_type.as_str() {
        "Relu" => Bounds { low: 0.0, ..Bounds::NONE },
        "Clip" => Bounds { low: bound(1, "min", Bounds::NONE.low)?, high: bound(2, "max", Bounds::NONE.high)? },
        _ => return None,
    };
    (bounds.low <= bounds.high).then_some(bounds)
}

/// The value of a constant of one f32.
fn scalar(graph: &pb::GraphProto, name: &str) -> Option<f32> {
    let initializer = graph.initializer.iter().find(|tensor| tensor.name == name);
    let constant = || {
        let node =
            graph.node.iter().find(|node| node.op_type == "Constant" && node.output.iter().any(|n| n == name))?;
        node.attribute.iter().find_map(|attribute| attribute.t.as_ref())
    };
    let tensor = initializer.or_else(constant)?;
    if tensor.data_type != i32::from(DataType::Float) || tensor.dims.iter().any(|&dim| dim != 1) {
        return None;
    }
    let raw = tensor.raw_data.first_chunk().filter(|_| tensor.raw_data.len() == 4);
    raw.map(|bytes| f32::from_le_bytes(*bytes)).or_else(|| tensor.float_data.first().copied())
}

/// A transposition that puts the channels of a one-dimensional convolution first, such as after an embedding.
fn absorb_transpositions(graph: &mut pb::GraphProto, operators: &mut Operators) {
    let uses = uses(graph);
    let mut absorbed = HashSet::new();
    for index in 0..graph.node.len() {
        let node = &graph.node[index];
        let Some(Operator::Product(product)) = operators.get_mut(&node.op_type) else { continue };
        let Kernel::Convolution(convolution) = &mut product.kernel else { continue };
        let Some(input) = node.input.first().filter(|input| uses.get(*input) == Some(&1)) else { continue };
        let Some(at) = graph.node.iter().position(|node| node.output.first() == Some(input)) else { continue };
        if convolution.kernel.len() == 1 && swaps_last_two_of_three(&graph.node[at]) {
            convolution.channels_last = true;
            let source = graph.node[at].input[0].clone();
            graph.node[index].input[0] = source;
            absorbed.insert(at);
        }
    }
    remove_nodes(graph, &absorbed);
}

fn swaps_last_two_of_three(node: &pb::NodeProto) -> bool {
    let permutation = node.get_attr_opt_vec::<i64>("perm").ok().flatten();
    node.op_type == "Transpose" && node.input.len() == 1 && permutation.is_some_and(|perm| perm == [0, 2, 1])
}

fn replace_max_pools(graph: &mut pb::GraphProto, operators: &mut Operators) {
    for (index, node) in graph.node.iter_mut().enumerate() {
        if node.op_type == "MaxPool"
            && node.domain.is_empty()
            && let Some(pool) = max_pool(node)
        {
            node.op_type = format!("weightpress.pool.{index}");
            node.attribute.clear();
            operators.insert(node.op_type.clone(), Operator::MaxPool(pool));
        }
    }
}

/// The pool that `node` is, if ours is of its kind.
fn max_pool(node: &pb::NodeProto) -> Option<MaxPool> {
    let list = |name: &str| node.get_attr_opt_tvec::<usize>(name).ok();
    let number = |name: &str| node.get_attr_opt::<i64>(name).ok().map(Option::unwrap_or_default);
    let kernel = list("kernel_shape")??;
    let ones = || tvec![1; kernel.len()];
    let (strides, dilations) = (list("strides")?.unwrap_or_else(ones), list("dilations")?.unwrap_or_else(ones));
    let known = matches!(kernel.len(), 1 | 2)
        && strides.len() == kernel.len()
        && kernel.iter().chain(&strides).all(|&n| n > 0)
        && dilations.iter().all(|&dilation| dilation == 1)
        && (number("ceil_mode")?, number("storage_order")?, node.output.len()) == (0, 0, 1);
    let padding = padding(node, kernel.len()).ok()?;
    known.then_some(MaxPool { kernel, strides, padding })
}

fn remove_nodes(graph: &mut pb::GraphProto, removed: &HashSet<usize>) {
    let mut index = 0..;
    graph.node.retain(|_| !index.next().is_some_and(|i| removed.contains(&i)));
}
