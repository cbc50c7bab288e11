//! What goes into a graph and what comes out of it.

use std::collections::HashSet;

use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{ModelProto, TensorShapeProto, ValueInfoProto, type_proto};

use super::Port;
use super::element::ElementType;

/// The inputs that a caller must give (those with an initializer have their value) and the outputs, in graph order.
pub fn ports(model: &ModelProto) -> (Vec<Port>, Vec<Port>) {
    let Some(graph) = &model.graph else { return (Vec::new(), Vec::new()) };
    let initialized: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|input| !initialized.contains(input.name.as_str()));
    (inputs.map(port).collect(), graph.output.iter().map(port).collect())
}

fn port(info: &ValueInfoProto) -> Port {
    let tensor = info.r#type.as_ref().and_then(|t| t.value.as_ref()).map(|type_proto::Value::TensorType(t)| t);
    let element = tensor.and_then(|t| ElementType::from_onnx(i64::from(t.elem_type)));
    let datatype = element.and_then(|e| e.datatype).unwrap_or("UNKNOWN").to_owned();
    let shape = tensor.and_then(|t| t.shape.as_ref());
    let dims = shape.map(|s| s.dim.iter().map(extent).collect()).unwrap_or_default();
    Port { name: info.name.clone(), datatype, dims }
}

/// The extents of `shape` that are numbers.
pub(super) fn fixed_extents(shape: &TensorShapeProto) -> impl Iterator<Item = usize> {
    shape.dim.iter().filter_map(extent)
}

/// `None` for a symbolic, unknown or negative dimension.
fn extent(dim: &Dimension) -> Option<usize> {
    match dim.value {
        Some(dimension::Value::DimValue(value)) => usize::try_from(value).ok(),
        _ => None,
    }
}
