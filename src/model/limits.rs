//! Bounds of a graph's structure, beyond which a file is an attack and no model: they keep an engine's tables small and its
//! arithmetic from overflowing, whatever it is asked to predict. What the tensors of a prediction may take is bounded by
//! [`infer`](crate::infer).

use std::collections::HashMap;

use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use super::element::element_count;
use super::error::ModelError;
use super::operators::int;
use super::wiring::label;

/// Axes of a tensor.
pub(super) const MAX_RANK: usize = 16;
/// Nodes of a graph and of those inside it, all together.
const MAX_NODES: usize = 1 << 16;
/// Taps of a convolution's or a pool's window.
const MAX_TAPS: u64 = 1 << 16;
/// A stride, a dilation, or the padding of one end of an axis.
const MAX_STEP: i64 = 1 << 20;
/// Bytes of the largest element, a complex one.
const MAX_ELEMENT_BYTES: usize = 16;
/// Elements that a byte of packed weights holds at most.
const PACKED_PER_BYTE: u64 = 8;

/// The attributes of windows that are steps.
const STEPS: [&str; 4] = ["strides", "dilations", "pads", "output_padding"];

/// Checks every graph of `model`, whose tensors may be emptied.
///
/// # Errors
/// A [`ModelError`] that names the node, or the value, at fault.
pub(crate) fn check_limits(model: &ModelProto) -> Result<(), ModelError> {
    let mut nodes = MAX_NODES;
    if let Some(graph) = &model.graph {
        check_graph(graph, &mut nodes)?;
    }
    for node in model.functions.iter().flat_map(|function| &function.node) {
        check_node(node, &HashMap::new(), &mut nodes)?;
    }
    Ok(())
}

/// `nodes` are those that may still come.
fn check_graph(graph: &GraphProto, nodes: &mut usize) -> Result<(), ModelError> {
    graph.initializer.iter().try_for_each(|tensor| check_tensor(tensor, &tensor.name))?;
    let ports = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
    ports.into_iter().try_for_each(check_port)?;
    let constants = super::constant_tensors(graph).map(|(name, tensor, _)| (name, tensor.dims.as_slice())).collect();
    graph.node.iter().try_for_each(|node| check_node(node, &constants, nodes))
}

fn check_node(node: &NodeProto, constants: &HashMap<&str, &[i64]>, nodes: &mut usize) -> Result<(), ModelError> {
    *nodes = nodes.checked_sub(1).ok_or(ModelError::TooManyNodes { max: MAX_NODES })?;
    match node.op_type.as_str() {
        "Conv" | "ConvInteger" | "ConvTranspose" => check_window(node, constants.get(input(node, 1)))?,
        "QLinearConv" => check_window(node, constants.get(input(node, 3)))?,
        "MaxPool" | "AveragePool" | "LpPool" => check_window(node, None)?,
        "MatMulNBits" => check_packed(node, constants.get(input(node, 1)))?,
        _ => {}
    }
    for attribute in &node.attribute {
        let holder = node.output.first().map_or("", String::as_str);
        attribute.t.iter().chain(&attribute.tensors).try_for_each(|tensor| check_tensor(tensor, holder))?;
        attribute.g.iter().chain(&attribute.graphs).try_for_each(|graph| check_graph(graph, nodes))?;
    }
    Ok(())
}

fn input(node: &NodeProto, slot: usize) -> &str {
    node.input.get(slot).map_or("", String::as_str)
}

fn check_tensor(tensor: &TensorProto, name: &str) -> Result<(), ModelError> {
    let external = tensor.data_location.is_some_and(|location| location != 0) || !tensor.external_data.is_empty();
    match () {
        () if external => Err(ModelError::ExternalData { tensor: name.to_owned() }),
        () => check_rank(name, tensor.dims.len()),
    }
}

/// Checks what an input, an output or another value declares, as far as it does.
fn check_port(info: &ValueInfoProto) -> Result<(), ModelError> {
    let value = info.r#type.as_ref().and_then(|r#type| r#type.value.as_ref());
    let Some(shape) = value.and_then(|type_proto::Value::TensorType(tensor)| tensor.shape.as_ref()) else {
        return Ok(());
    };
    check_rank(&info.name, shape.dim.len())?;
    let extents: Vec<usize> = super::ports::fixed_extents(shape).collect();
    match element_count(&extents).and_then(|count| count.checked_mul(MAX_ELEMENT_BYTES)) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => {
            let dims = extents.into_iter().map(|extent| extent as u64).collect();
            Err(ModelError::Overflow { tensor: info.name.clone(), dims })
        }
    }
}

fn check_rank(name: &str, rank: usize) -> Result<(), ModelError> {
    match rank > MAX_RANK {
        true => Err(ModelError::Rank { name: name.to_owned(), rank, max: MAX_RANK }),
        false => Ok(()),
    }
}

/// Checks a window over the spatial axes of an input: its taps, of which a constant weight has dimensions too, and its steps.
fn check_window(node: &NodeProto, weight: Option<&&[i64]>) -> Result<(), ModelError> {
    let fault = |attribute: &str, reason: String| {
        Err(ModelError::Attribute { node: label(node), attribute: attribute.to_owned(), reason })
    };
    let listed = node.attribute.iter().find(|attribute| attribute.name == "kernel_shape");
    for kernel in listed.map(|attribute| attribute.ints.as_slice()).into_iter().chain(weight.and_then(|w| w.get(2..))) {
        let taps = kernel.iter().map(|&extent| u64::try_from(extent).unwrap_or(0));
        let taps = taps.fold(1u64, |product, extent| product.saturating_mul(extent.max(1)));
        if taps > MAX_TAPS || kernel.len() > MAX_RANK {
            return fault("kernel_shape", format!("a window of {taps} taps, at most {MAX_TAPS} are supported"));
        }
    }
    let is_far = |attribute: &&AttributeProto| {
        STEPS.contains(&attribute.name.as_str())
            && (attribute.ints.len() > 2 * MAX_RANK
                || attribute.ints.iter().any(|step| !(-MAX_STEP..=MAX_STEP).contains(step)))
    };
    match node.attribute.iter().find(is_far) {
        Some(attribute) => fault(&attribute.name, format!("a step of more than {MAX_STEP}")),
        None => Ok(()),
    }
}

/// Checks that the packed weight of a product holds as many elements as its attributes say.
fn check_packed(node: &NodeProto, weight: Option<&&[i64]>) -> Result<(), ModelError> {
    let extent = |name: &str| u64::try_from(int(node, name).unwrap_or(0)).unwrap_or(0);
    let bytes = weight.map_or(0, |dims| {
        dims.iter().fold(1u64, |product, &dim| product.saturating_mul(u64::try_from(dim).unwrap_or(0)))
    });
    let (elements, found) = (extent("N").saturating_mul(extent("K")), bytes.saturating_mul(PACKED_PER_BYTE));
    if elements <= found {
        return Ok(());
    }
    let reason = format!("{elements} elements in all, the weight holds {found} at most");
    Err(ModelError::Attribute { node: label(node), attribute: "N".to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{floats, graph, model, node, port, with_graph, with_int};
    use super::*;

    fn with_ints(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
        let (name, ints) = (name.into(), ints.to_vec());
        node.attribute.push(AttributeProto { name, ints, r#type: 7, ..AttributeProto::default() });
        node
    }

    fn fault(nodes: Vec<NodeProto>) -> Option<String> {
        let weight = TensorProto { dims: vec![1, 1, 300, 300], ..floats("wide", &[], &[]) };
        let graph = graph(nodes, vec![weight, floats("packed", &[4, 2], &[])]);
        check_limits(&model(graph)).err().map(|error| error.to_string())
    }

    #[test]
    fn windows_have_bounds() {
        assert_eq!(fault(vec![with_ints(node("MaxPool", "x", "y"), "kernel_shape", &[256, 256])]), None);
        assert_eq!(fault(vec![with_ints(node("Conv", "x w", "y"), "pads", &[1 << 20, 0, -1, 0])]), None);
        let cases = [
            (with_ints(node("MaxPool", "x", "y"), "kernel_shape", &[1 << 40, 1 << 40]), "taps"),
            (with_ints(node("AveragePool", "x", "y"), "kernel_shape", &[257, 256]), "a window of 65792 taps"),
            (node("Conv", "x wide", "y"), "a window of 90000 taps"),
            (with_ints(node("Conv", "x w", "y"), "pads", &[0, 0, 0, (1 << 20) + 1]), "\"pads\""),
            (with_ints(node("ConvTranspose", "x w", "y"), "strides", &[i64::MAX]), "\"strides\""),
            (with_ints(node("Conv", "x w", "y"), "dilations", &[i64::MIN]), "\"dilations\""),
        ];
        for (node, message) in cases {
            let found = fault(vec![node.clone()]).unwrap_or_default();
            assert!(found.contains(message), "{found}");
            let body = graph(vec![node], Vec::new());
            let nested = fault(vec![with_graph(super::super::fixture::node("If", "c", "y"), "then_branch", body)]);
            assert!(message == "a window of 90000 taps" || nested.is_some_and(|found| found.contains(message)));
        }
    }

    #[test]
    fn packed_weights_hold_what_they_announce() {
        let product = |n: i64, k: i64| with_int(with_int(node("MatMulNBits", "x packed s", "y"), "N", n), "K", k);
        assert_eq!(fault(vec![product(8, 8)]), None);
        assert!(fault(vec![product(1 << 40, 1 << 40)]).is_some_and(|found| found.contains("holds 64 at most")));
    }

    #[test]
    fn nodes_are_counted_in_subgraphs_too() {
        let body = graph(vec![node("Relu", "x", "y"); MAX_NODES / 2], Vec::new());
        let branch = |name| with_graph(node("If", "c", ""), name, body.clone());
        assert_eq!(fault(vec![branch("then_branch")]), None);
        let both = fault(vec![branch("then_branch"), branch("else_branch")]);
        assert!(both.is_some_and(|found| found.contains("65536 nodes")));
    }

    #[test]
    fn ranks_and_declared_extents_have_bounds() {
        let declared = |dims: &[i64]| {
            let mut graph = graph(Vec::new(), Vec::new());
            graph.input = vec![port("x", dims)];
            check_limits(&model(graph)).err().map(|error| error.to_string())
        };
        assert_eq!(declared(&[1; 16]), None);
        assert_eq!(declared(&[-1, 0, 1 << 40]), None);
        assert!(declared(&[1; 17]).is_some_and(|found| found.contains("17 axes")));
        assert!(declared(&[1 << 40, 1 << 40]).is_some_and(|found| found.contains("overflow")));
        assert!(declared(&[1 << 40, 0, 1 << 40]).is_some_and(|found| found.contains("overflow")));
    }
}
