//! Tensors inside subgraphs (If, Loop, Scan) and functions, which stay as they are; and what such subgraphs read from
//! the graph around them.

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::Kept;
use super::graph::{constant_value, keep_tensor};

/// Names that the subgraphs of `node` mention, at any depth; a name they define themselves may be among them.
pub(crate) fn captured_names(node: &NodeProto) -> Vec<&str> {
    let mut names = Vec::new();
    for graph in subgraphs(node) {
        names.extend(graph.output.iter().map(|output| output.name.as_str()));
        for inner in &graph.node {
            names.extend(inner.input.iter().map(String::as_str));
            names.extend(captured_names(inner));
        }
    }
    names
}

fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

/// Every tensor of two or more elements that is neither a top-level initializer nor in a top-level Constant node.
pub(super) fn nested_tensors(model: &ModelProto) -> Vec<Kept> {
    let mut kept = Vec::new();
    for node in model.graph.iter().flat_map(|graph| &graph.node) {
        in_attributes(node, &mut kept);
        in_subgraphs(node, &mut kept);
    }
    for function in &model.functions {
        let reason = format!("inside the function {}", function.name.as_deref().unwrap_or_default());
        for node in &function.node {
            in_constant(node, &reason, &mut kept);
            in_subgraphs(node, &mut kept);
        }
    }
    for graph in model.training_info.iter().flat_map(|info| info.initialization.iter().chain(&info.algorithm)) {
        in_graph(graph, "inside training information", &mut kept);
    }
    kept
}

/// Tensors in attributes of top-level nodes other than Constant, and lists in Constant nodes.
fn in_attributes(node: &NodeProto, kept: &mut Vec<Kept>) {
    let output = node.output.first().cloned().unwrap_or_default();
    for attribute in &node.attribute {
        let reason = format!("in attribute {} of {}", attribute.name, node.op_type);
        let single = attribute.t.iter().filter(|_| node.op_type != "Constant");
        let sparse = attribute.sparse_tensor.iter().filter_map(|s| s.values.as_ref());
        let tensors = single.chain(&attribute.tensors).chain(sparse);
        kept.extend(tensors.filter_map(|t| keep_tensor(t, output.clone(), reason.clone())).filter(is_listed));
        if node.op_type == "Constant" && attribute.floats.len() > 1 {
            let (dims, size_bytes) = (vec![attribute.floats.len()], 4 * attribute.floats.len() as u64);
            kept.push(Kept { name: output.clone(), dims, dtype: "float32".into(), size_bytes, reason });
        }
    }
}

fn in_subgraphs(node: &NodeProto, kept: &mut Vec<Kept>) {
    let reason = match node.op_type.as_str() {
        "If" => "inside an If branch".to_owned(),
        op => format!("inside the body of {op}"),
    };
    for graph in subgraphs(node) {
        in_graph(graph, &reason, kept);
    }
}

fn in_graph(graph: &GraphProto, reason: &str, kept: &mut Vec<Kept>) {
    let initializers = graph.initializer.iter().filter_map(|t| keep_tensor(t, t.name.clone(), reason.into()));
    kept.extend(initializers.filter(is_listed));
    for node in &graph.node {
        in_constant(node, reason, kept);
        in_subgraphs(node, kept);
    }
}

fn in_constant(node: &NodeProto, reason: &str, kept: &mut Vec<Kept>) {
    let name = node.output.first().cloned().unwrap_or_default();
    let tensor = constant_value(node).and_then(|t| keep_tensor(t, name, reason.into()));
    kept.extend(tensor.filter(is_listed));
}

/// A single number belongs to the graph, not to what was trained.
fn is_listed(kept: &Kept) -> bool {
    kept.dims.iter().product::<usize>() > 1
}
