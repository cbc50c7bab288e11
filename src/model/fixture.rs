//! Small models and array files for tests. ONNX models are built with the protobuf messages that the decoder uses.

use std::collections::{BTreeSet, HashSet};
use std::io::{Cursor, Write};

use bytes::Bytes;
use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::Model;

/// A float32 initializer with `raw_data`.
pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

/// A float32 initializer that counts up: 1, 2, 3, ...
pub(crate) fn counting(name: &str, dims: &[i64]) -> TensorProto {
    let values: Vec<f32> = (1..=dims.iter().product()).map(|i| i as f32).collect();
    floats(name, dims, &values)
}

/// A node; inputs and outputs are separated by spaces.
pub(crate) fn node(op: &str, inputs: &str, outputs: &str) -> NodeProto {
    let names = |list: &str| list.split_whitespace().map(str::to_owned).collect();
    NodeProto { op_type: op.into(), input: names(inputs), output: names(outputs), ..NodeProto::default() }
}

/// A Constant node.
pub(crate) fn constant(output: &str, value: TensorProto) -> NodeProto {
    let attribute = AttributeProto { name: "value".into(), t: Some(value), r#type: 4, ..AttributeProto::default() };
    NodeProto { attribute: vec![attribute], ..node("Constant", "", output) }
}

/// `node` with an integer attribute.
pub(crate) fn with_int(mut node: NodeProto, name: &str, value: i64) -> NodeProto {
    node.attribute.push(AttributeProto { name: name.into(), i: value, r#type: 2, ..AttributeProto::default() });
    node
}

/// `node` with a subgraph as attribute.
pub(crate) fn with_graph(mut node: NodeProto, name: &str, graph: GraphProto) -> NodeProto {
    node.attribute.push(AttributeProto { name: name.into(), g: Some(graph), r#type: 5, ..AttributeProto::default() });
    node
}

/// A float32 input or output; a negative dimension is a symbol.
pub(crate) fn port(name: &str, dims: &[i64]) -> ValueInfoProto {
    let value = |&d: &i64| match d {
        0.. => dimension::Value::DimValue(d),
        _ => dimension::Value::DimParam("n".into()),
    };
    let dim = dims.iter().map(|d| Dimension { value: Some(value(d)), ..Dimension::default() }).collect();
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

/// A graph from its nodes and initializers.
pub(crate) fn graph(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> GraphProto {
    GraphProto { name: "test".into(), node, initializer, ..GraphProto::default() }
}

/// A model of opset 17 around `graph`.
pub(crate) fn model(graph: GraphProto) -> ModelProto {
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
}

/// Encodes `graph` as a model file and opens it. What nothing produces becomes an input.
pub(crate) fn open(mut graph: GraphProto) -> Result<Model, super::ModelError> {
    let given = graph.input.iter().map(|v| &v.name).chain(graph.initializer.iter().map(|t| &t.name));
    let known: HashSet<&String> = given.chain(graph.node.iter().flat_map(|node| &node.output)).collect();
    let read: BTreeSet<&String> = graph.node.iter().flat_map(|node| &node.input).filter(|n| !n.is_empty()).collect();
    let missing: Vec<_> = read.into_iter().filter(|name| !known.contains(name)).map(|name| port(name, &[])).collect();
    graph.input.extend(missing);
    Model::from_bytes(Bytes::from(model(graph).encode_to_vec()))
}

/// A `.npy` file of version 1.0 as NumPy writes it.
pub(crate) fn npy(descr: &str, column_major: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if column_major { "True" } else { "False" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A `.npz` file of the `.npy` files `members`, stored; unlike [`npz`] it may repeat a name, as no zip library allows.
pub(crate) fn npz_renamed(members: &[(&str, Vec<u8>)], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let (mut bytes, from) = (npz(members, false), format!("{from}.npy"));
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

/// A `.npz` file of the `.npy` files `members`.
pub(crate) fn npz(members: &[(&str, Vec<u8>)], deflated: bool) -> Vec<u8> {
    let method = if deflated { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let options = SimpleFileOptions::default().compression_method(method);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(format!("{name}.npy"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
