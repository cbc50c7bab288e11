//! Export to plain ONNX, one tensor in memory at a time.
//!
//! A protobuf message states its length before its content, so the lengths are worked out from the skeleton first; then
//! the messages are written by hand from the outside in, each tensor's data streamed into its place.
//!
//! # Source
//! <https://protobuf.dev/programming-guides/encoding/>; field numbers from `onnx.proto`.

use std::collections::HashMap;
use std::io::Write;

use prost::Message;
use tract_onnx::pb;

use super::super::wire::{put_varint, varint_len};
use super::{Artifact, ArtifactError, StoredTensor, by_name, plain_bytes, write_values};
use crate::model::shape_of;

/// Keys of the length-delimited fields on the way to a tensor's data: field number, wire type 2.
const MODEL_GRAPH: u8 = 7 << 3 | 2;
const GRAPH_NODE: u8 = 1 << 3 | 2;
const GRAPH_INITIALIZER: u8 = 5 << 3 | 2;
const NODE_ATTRIBUTE: u8 = 5 << 3 | 2;
const ATTRIBUTE_TENSOR: u8 = 5 << 3 | 2;
const TENSOR_RAW_DATA: u8 = 9 << 3 | 2;

pub(super) fn write(artifact: &Artifact, out: &mut dyn Write) -> Result<(), ArtifactError> {
    let mut model = artifact.graph()?.ok_or(ArtifactError::NoGraph)?;
    let mut graph = model.graph.take().unwrap_or_default();
    let stored = by_name(artifact);
    let mut parts = Vec::with_capacity(graph.node.len() + graph.initializer.len());
    for node in std::mem::take(&mut graph.node) {
        parts.push(Part::node(node, &stored)?);
    }
    for tensor in std::mem::take(&mut graph.initializer) {
        let data = data_of(&tensor, &tensor.name, &stored)?;
        parts.push(Part { key: GRAPH_INITIALIZER, around: Vec::new(), tensor: tensor.encode_to_vec(), data });
    }
    let rest = graph.encode_to_vec();
    let graph_len = rest.len() as u64 + parts.iter().map(Part::field_len).sum::<u64>();

    out.write_all(&model.encode_to_vec())?;
    write_key(MODEL_GRAPH, graph_len, out)?;
    for part in &parts {
        part.write(artifact, out)?;
    }
    Ok(out.write_all(&rest)?)
}

/// A field of the graph: messages nested around at most one tensor whose data is stored.
struct Part<'a> {
    key: u8,
    /// The enclosing messages, outermost first: the rest of their bytes, and the key of the next one inside.
    around: Vec<(Vec<u8>, u8)>,
    /// The innermost message, all but the stored data.
    tensor: Vec<u8>,
    data: Option<&'a StoredTensor>,
}

impl<'a> Part<'a> {
    /// A node, with the value of a Constant restored.
    fn node(mut node: pb::NodeProto, stored: &HashMap<&str, &'a StoredTensor>) -> Result<Self, ArtifactError> {
        let is_value = |a: &pb::AttributeProto| a.name == "value" && a.t.is_some();
        let value = node.attribute.iter().position(is_value).filter(|_| node.op_type == "Constant");
        if let (Some(index), Some(name)) = (value, node.output.first().cloned()) {
            let tensor = node.attribute[index].t.clone().unwrap_or_default();
            if let Some(data) = data_of(&tensor, &name, stored)? {
                let mut attribute = node.attribute.remove(index);
                attribute.t = None;
                let around =
                    vec![(node.encode_to_vec(), NODE_ATTRIBUTE), (attribute.encode_to_vec(), ATTRIBUTE_TENSOR)];
                return Ok(Self { key: GRAPH_NODE, around, tensor: tensor.encode_to_vec(), data: Some(data) });
            }
        }
        Ok(Self { key: GRAPH_NODE, around: Vec::new(), tensor: node.encode_to_vec(), data: None })
    }

    fn field_len(&self) -> u64 {
        field_len(self.lengths()[0])
    }

    /// Lengths of the nested messages, outermost first.
    fn lengths(&self) -> Vec<u64> {
        let data = self.data.map_or(0, |tensor| field_len(plain_bytes(tensor)));
        let mut lengths = vec![self.tensor.len() as u64 + data];
        for (rest, _) in self.around.iter().rev() {
            lengths.push(rest.len() as u64 + field_len(lengths[lengths.len() - 1]));
        }
        lengths.reverse();
        lengths
    }

    fn write(&self, artifact: &Artifact, out: &mut dyn Write) -> Result<(), ArtifactError> {
        let mut key = self.key;
        let lengths = self.lengths();
        for ((rest, next), length) in self.around.iter().zip(&lengths) {
            write_key(key, *length, out)?;
            out.write_all(rest)?;
            key = *next;
        }
        write_key(key, lengths[self.around.len()], out)?;
        out.write_all(&self.tensor)?;
        if let Some(tensor) = self.data {
            write_key(TENSOR_RAW_DATA, plain_bytes(tensor), out)?;
            write_values(artifact, tensor, out)?;
        }
        Ok(())
    }
}

/// The stored data of an emptied tensor; `None` where the graph holds its data itself.
fn data_of<'a>(
    tensor: &pb::TensorProto,
    name: &str,
    stored: &HashMap<&str, &'a StoredTensor>,
) -> Result<Option<&'a StoredTensor>, ArtifactError> {
    let shape = shape_of(tensor);
    let elements = shape.as_ref().map_or(0, |(dims, _)| dims.iter().product::<usize>());
    if elements == 0 || holds_data(tensor) {
        return Ok(None);
    }
    let missing = || ArtifactError::MissingTensor { tensor: name.to_owned() };
    let found = *stored.get(name).ok_or_else(missing)?;
    if shape.is_some_and(|(dims, _)| dims == found.dims) { Ok(Some(found)) } else { Err(missing()) }
}

/// True where a tensor of the graph carries its own elements.
pub(super) fn holds_data(tensor: &pb::TensorProto) -> bool {
    !(tensor.raw_data.is_empty()
        && tensor.float_data.is_empty()
        && tensor.int32_data.is_empty()
        && tensor.string_data.is_empty()
        && tensor.int64_data.is_empty()
        && tensor.double_data.is_empty()
        && tensor.uint64_data.is_empty()
        && tensor.external_data.is_empty())
}

/// Bytes of a length-delimited field with `content` bytes: all keys here fit one byte.
fn field_len(content: u64) -> u64 {
    1 + varint_len(content) as u64 + content
}

fn write_key(key: u8, length: u64, out: &mut dyn Write) -> Result<(), ArtifactError> {
    let mut bytes = vec![key];
    put_varint(&mut bytes, length);
    Ok(out.write_all(&bytes)?)
}
