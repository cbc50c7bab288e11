//! The graph rewritten before tract sees it: weights go out, products and look-ups on their encoded form come in.
//!
//! A rewritten node keeps its activation and bias and gets an operator type that tract does not know, so tract's parser
//! leaves a placeholder, into which [`install`] puts the operator. tract's own way, a builder registered for the type,
//! would have to carry the weight in an attribute: builders are plain functions.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cnn::PaddingSpec;

use super::InferError;
use super::product::{
    Bounds, CheckedIndices, Convolution, Direction, Held, Kernel, Linear, Lookup, MaxPool, NORMALIZATION_EPSILON,
    Normalization, ProductOp, SharedWeight,
};
use crate::model::{self, Use, Weight};
use crate::tensor::FloatType;

/// Operators by the type of the nodes that stand in for them.
pub(super) type Operators = HashMap<String, Operator>;

/// An operator of ours.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operator {
    Product(ProductOp),
    Lookup(Lookup),
    MaxPool(MaxPool),
    Indices(CheckedIndices),
    Normalization(Normalization),
}

/// Replaces every use of the weights that `open` returns a matrix for, and takes those weights out of the graph.
///
/// A weight that some node uses in a way that our operators lack stays in the graph, to be expanded like those that other
/// operators read.
///
/// # Errors
/// Those of `open`.
pub(super) fn rewrite(
    model: &mut pb::ModelProto,
    mut open: impl FnMut(&Weight) -> Result<Option<Held>, InferError>,
) -> Result<Operators, InferError> {
    let (weights, _) = model::analyze(model);
    let mut operators = Operators::new();
    let Some(graph) = &mut model.graph else { return Ok(operators) };
    let (mut dropped, mut removed) = (HashSet::new(), HashSet::new());
    for weight in &weights {
        if !weight.role.is_compressed() || computes_in_f64(graph, weight) {
            continue;
        }
        let Some(held) = open(weight)? else { continue };
        let Some(nodes) = replacements(graph, weight, &held) else { continue };
        for (index, inputs, operator) in nodes {
            let op_type = format!("weightpress.{index}");
            let node = &mut graph.node[index];
            node.op_type.clone_from(&op_type);
            node.domain.clear();
            node.attribute.clear();
            node.input = inputs;
            operators.insert(op_type, operator);
        }
        dropped.extend(weight.chain.iter().copied());
        removed.insert(weight.name.as_str());
    }
    let mut index = 0..;
    graph.node.retain(|_| !index.next().is_some_and(|i| dropped.contains(&i)));
    graph.initializer.retain(|tensor| !removed.contains(tensor.name.as_str()));
    graph.input.retain(|input| !removed.contains(input.name.as_str()));
    Ok(operators)
}

/// Weights that tract itself would use wrongly: a ConvTranspose with `output_shape`, whose padding tract takes from
/// `pads` where ONNX derives it from the output's extents. Such a weight is a product even where all others are dense.
pub(super) fn misread_by_tract(model: &pb::ModelProto) -> HashSet<String> {
    let (weights, _) = model::analyze(model);
    let Some(graph) = &model.graph else { return HashSet::new() };
    let misread = |usage: &Use| has_output_shape(&graph.node[usage.node]);
    weights.into_iter().filter(|weight| weight.uses.iter().any(misread)).map(|weight| weight.name).collect()
}

/// Whether a ConvTranspose with `output_shape` stands anywhere in `graph` but at the nodes for which `is_product` holds.
/// tract would answer with another padding, so such a graph is refused.
pub(super) fn leaves_misread(graph: &pb::GraphProto, is_product: &dyn Fn(usize) -> bool) -> bool {
    let misread = |node: &pb::NodeProto| node.op_type == "ConvTranspose" && has_output_shape(node);
    graph.node.iter().enumerate().any(|(index, node)| {
        let mut subgraphs = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
        misread(node) && !is_product(index) || subgraphs.any(|graph| leaves_misread(graph, &|_| false))
    })
}

/// The nodes of the main graph that use a weight which [`rewrite`] may take out of it.
pub(super) fn product_nodes(model: &pb::ModelProto) -> HashSet<usize> {
    let (weights, _) = model::analyze(model);
    let Some(graph) = &model.graph else { return HashSet::new() };
    let products = weights.iter().filter(|weight| weight.role.is_compressed() && !computes_in_f64(graph, weight));
    products.flat_map(|weight| weight.uses.iter().map(|usage| usage.node)).collect()
}

fn has_output_shape(node: &pb::NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.name == "output_shape")
}

/// Puts a check in front of every Gather of float constants that is left to tract, which would take any index. Constants are in
/// place.
pub(super) fn check_indices(model: &mut pb::ModelProto, operators: &mut Operators) {
    let Some(graph) = &mut model.graph else { return };
    let constants: HashMap<String, Vec<usize>> = model::constant_tensors(graph)
        .filter_map(|(name, tensor, _)| Some((name.to_owned(), model::shape_of(tensor)?)))
        .map(|(name, (dims, element))| (name, if element.float().is_some() { dims } else { Vec::new() }))
        .collect();
    let mut index = 0;
    while index < graph.node.len() {
        let node = &mut graph.node[index];
        index += 1;
        let ("Gather", [data, indices]) = (node.op_type.as_str(), &mut node.input[..]) else { continue };
        let axis = node.attribute.iter().find(|a| a.name == "axis").map_or(0, |a| a.i);
        let Some(dims) = constants.get(data).filter(|_| !constants.contains_key(indices)) else { continue };
        let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
        let Some(&rows) = usize::try_from(axis).ok().and_then(|axis| dims.get(axis)) else { continue };
        let op_type = format!("weightpress.indices.{index}");
        let given = std::mem::replace(indices, op_type.clone());
        let name = data.clone();
        let check = pb::NodeProto {
            name: op_type.clone(),
            op_type: op_type.clone(),
            input: vec![given],
            output: vec![op_type.clone()],
            ..Default::default()
        };
        graph.node.insert(index - 1, check);
        index += 1;
        operators.insert(op_type, Operator::Indices(CheckedIndices { rows, name }));
    }
}

/// Puts an operator of ours in the place of every BatchNormalization whose statistics are constants of its own. Constants are
/// in place.
pub(super) fn replace_normalizations(model: &mut pb::ModelProto, operators: &mut Operators) {
    let Some(graph) = &mut model.graph else { return };
    let mut reads: HashMap<String, usize> = HashMap::new();
    for node in &graph.node {
        let inputs = node.input.iter().map(String::as_str).chain(model::captured_names(node));
        inputs.for_each(|name| *reads.entry(name.to_owned()).or_default() += 1);
    }
    let floats = graph.initializer.iter().filter(|tensor| tensor.data_type == i32::from(DataType::Float));
    let constants: HashSet<String> = floats.map(|tensor| tensor.name.clone()).collect();
    for (index, node) in graph.node.iter_mut().enumerate() {
        let ("BatchNormalization", "", [_, _, _, mean, variance]) =
            (node.op_type.as_str(), node.domain.as_str(), &node.input[..])
        else {
            continue;
        };
        let is_own = |name: &String| constants.contains(name) && reads.get(name) == Some(&1);
        let is_other =
            |a: &pb::AttributeProto| a.name == "training_mode" && a.i != 0 || a.name == "spatial" && a.i != 1;
        if node.attribute.iter().any(is_other) || node.output.len() != 1 || !is_own(mean) || !is_own(variance) {
            continue;
        }
        let epsilon = node.attribute.iter().find(|a| a.name == "epsilon").map_or(NORMALIZATION_EPSILON, |a| a.f);
        let operator = Normalization { mean: mean.clone(), variance: variance.clone(), epsilon };
        node.op_type = format!("weightpress.normalization.{index}");
        node.attribute.clear();
        operators.insert(node.op_type.clone(), Operator::Normalization(operator));
    }
}

/// Puts the operators where the parser left placeholders.
pub(super) fn install(model: &mut InferenceModel, mut operators: Operators) {
    for node in model.nodes_mut() {
        let name = node.op.name();
        let op_type = name.strip_prefix("Unimplemented(").and_then(|name| name.strip_suffix(')'));
        match op_type.and_then(|op_type| operators.remove(op_type)) {
            Some(Operator::Product(op)) => node.op = expand(op),
            Some(Operator::Lookup(op)) => node.op = expand(op),
            Some(Operator::MaxPool(op)) => node.op = expand(op),
            Some(Operator::Indices(op)) => node.op = expand(op),
            Some(Operator::Normalization(op)) => node.op = expand(op),
            None => {}
        }
    }
}

/// Whether `weight` meets f64 activations: a product sums in f32, which is not what such a model asks for.
fn computes_in_f64(graph: &pb::GraphProto, weight: &Weight) -> bool {
    let casts = weight.chain.iter().filter_map(|&index| graph.node.get(index)).filter(|node| node.op_type == "Cast");
    let mut to = casts.flat_map(|node| &node.attribute).filter(|attribute| attribute.name == "to");
    weight.dtype == FloatType::F64 || to.any(|attribute| attribute.i == i64::from(i32::from(DataType::Double)))
}

type Replacement = (usize, Vec<String>, Operator);

/// What takes the place of each node that uses `weight`; `None` where one of them cannot be replaced.
fn replacements(graph: &pb::GraphProto, weight: &Weight, held: &Held) -> Option<Vec<Replacement>> {
    let mut seen = HashSet::new();
    let replace = |usage: &Use| {
        let node = graph.node.get(usage.node).filter(|_| seen.insert(usage.node))?;
        let shared = SharedWeight::new(held.clone(), usage.transposed)?;
        let (kernel, inputs) = match node.op_type.as_str() {
            "Gemm" | "MatMul" => linear(node, usage, shared).ok()?,
            "Conv" | "ConvTranspose" if !usage.transposed => convolution(node, weight, shared).ok()?,
            "Gather" if !usage.transposed && usage.slot == 0 => {
                let entry = weight.dims.get(1..)?.into();
                let lookup = Lookup { weight: shared, name: weight.name.clone(), entry };
                return Some((usage.node, vec![node.input.get(1)?.clone()], Operator::Lookup(lookup)));
            }
            _ => return None,
        };
        Some((usage.node, inputs, Operator::Product(ProductOp { kernel, bounds: Bounds::NONE })))
    };
    weight.uses.iter().map(replace).collect()
}

fn linear(node: &pb::NodeProto, usage: &Use, weight: SharedWeight) -> TractResult<(Kernel, Vec<String>)> {
    ensure!(node.input.len() >= 2 && usage.slot < 2, "a matrix product has two sides");
    let trans_a = node.get_attr_opt("transA")?.unwrap_or(false);
    let trans_b = node.get_attr_opt("transB")?.unwrap_or(false);
    let beta = node.get_attr_opt("beta")?.unwrap_or(1.0);
    let weight_on_the_right = usage.slot == 1;
    let mut inputs = vec![node.input[1 - usage.slot].clone()];
    inputs.extend(node.input.get(2).filter(|bias| !bias.is_empty() && beta != 0.0).cloned());
    let kernel = Linear {
        weight,
        features_last: if weight_on_the_right { !trans_a } else { trans_b },
        units_last: weight_on_the_right,
        alpha: node.get_attr_opt("alpha")?.unwrap_or(1.0),
        beta,
    };
    Ok((Kernel::Linear(kernel), inputs))
}

fn convolution(node: &pb::NodeProto, weight: &Weight, shared: SharedWeight) -> TractResult<(Kernel, Vec<String>)> {
    let kernel: TVec<usize> = weight.dims.get(2..).unwrap_or_default().into();
    let rank = kernel.len();
    let axes = |name: &str, default: usize| -> TractResult<TVec<usize>> {
        let values = node.get_attr_opt_tvec(name)?.unwrap_or_else(|| tvec![default; rank]);
        ensure!(values.len() == rank, "{name} has {} entries for {rank} axes", values.len());
        Ok(values)
    };
    let groups = node.get_attr_opt("group")?.unwrap_or(1);
    let (strides, dilations) = (axes("strides", 1)?, axes("dilations", 1)?);
    let direction = if node.op_type == "Conv" { Direction::Forward } else { Direction::Transposed };
    let output_shape = match node.get_attr_opt_tvec::<usize>("output_shape")? {
        Some(_) => Some(axes("output_shape", 0)?),
        None => None,
    };
    ensure!((1..=3).contains(&rank), "{rank} spatial axes");
    ensure!(kernel.iter().chain(&strides).chain(&dilations).all(|&n| n > 0), "a kernel, stride or dilation of 0");
    ensure!(groups > 0 && shared.outputs().is_multiple_of(groups), "{groups} groups");
    ensure!(node.get_attr_opt_tvec::<usize>("kernel_shape")?.is_none_or(|shape| shape == kernel), "another kernel");

    let mut inputs = vec![node.input[0].clone()];
    inputs.extend(node.input.get(2).filter(|bias| !bias.is_empty()).cloned());
    let kernel = Convolution {
        weight: shared,
        channels_last: false,
        direction,
        groups,
        padding: padding(node, rank)?,
        kernel,
        strides,
        dilations,
        output_padding: axes("output_padding", 0)?,
        output_shape,
    };
    Ok((Kernel::Convolution(Box::new(kernel)), inputs))
}

/// The padding of a convolution or a pool of `rank` spatial axes.
pub(super) fn padding(node: &pb::NodeProto, rank: usize) -> TractResult<PaddingSpec> {
    Ok(match node.get_attr_opt::<&str>("auto_pad")? {
        Some("SAME_UPPER") => PaddingSpec::SameUpper,
        Some("SAME_LOWER") => PaddingSpec::SameLower,
        Some("VALID") => PaddingSpec::Valid,
        None | Some("NOTSET" | "") => match node.get_attr_opt_vec::<usize>("pads")? {
            None => PaddingSpec::Valid,
            Some(pads) => {
                ensure!(pads.len() == 2 * rank, "{} pads for {rank} axes", pads.len());
                PaddingSpec::Explicit(pads[..rank].into(), pads[rank..].into())
            }
        },
        Some(other) => bail!("auto_pad {other}"),
    })
}
