//! Walks an ONNX file in protobuf wire format and leaves the bytes of its large tensors behind.
//!
//! `tract_onnx::pb` copies every tensor, so it is given a pruned copy of the file: the same messages without the data
//! of the tensors that may be read later from the file. Memory is bounded by a budget that counts what decoding will
//! cost, not what the file holds: two bytes on the wire may decode to a struct of a kilobyte.

use std::collections::HashMap;
use std::mem::size_of;
use std::ops::Range;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tract_onnx::pb;

use super::INLINE_LIMIT;
use super::element::ElementType;
use super::error::ModelError;
use super::source::Source;
use super::tensor_proto::{TensorHead, is_data};
use super::wire::{Cursor, Field, Value};

/// Graphs within graphs; each level is three protobuf messages, and the decoder stops at a hundred.
const MAX_GRAPH_DEPTH: usize = 16;
/// Memory that the graph and the tensors inside it may take.
const GRAPH_BUDGET_BYTES: usize = 256 << 20;

/// An ONNX file without the data of its large tensors, and where every top-level tensor lies.
#[derive(Debug)]
pub(super) struct Scan {
    pub skeleton: pb::ModelProto,
    /// The TensorProto of each top-level initializer, by its name, and of each top-level Constant node's value, by the
    /// node's output name.
    pub tensors: HashMap<String, StoredTensor>,
}

/// A tensor whose data was checked and stays in the file.
#[derive(Debug)]
pub(super) struct StoredTensor {
    /// Its TensorProto.
    pub range: Range<u64>,
    pub element: &'static ElementType,
}

/// The messages that the scanner steps into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    TrainingInfo,
    Function,
}

impl Kind {
    /// The message in field `number`, where the scanner steps into it.
    fn child(self, number: u32) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::TrainingInfo, 1 | 2) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Model, 20) => Some(Self::TrainingInfo),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Some(Self::Tensor),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::SparseTensor),
            (Self::Node, 5) => Some(Self::Attribute),
            _ => None,
        }
    }

    /// True for doc strings, and for the notes of exporters on single nodes and tensors: stack traces that may outgrow the
    /// graph, and that nothing reads.
    fn is_prose(self, number: u32) -> bool {
        matches!(
            (self, number),
            (Self::Model, 6)
                | (Self::Graph, 10 | 16)
                | (Self::Node, 6 | 9)
                | (Self::Attribute, 13)
                | (Self::Tensor, 12 | 16)
                | (Self::Function, 8 | 14)
        )
    }

    /// What one message costs in memory once decoded.
    fn decoded_bytes(self) -> usize {
        match self {
            Self::Model => size_of::<pb::ModelProto>(),
            Self::Graph => size_of::<pb::GraphProto>(),
            Self::Node => size_of::<pb::NodeProto>(),
            Self::Attribute => size_of::<pb::AttributeProto>(),
            Self::Tensor => size_of::<pb::TensorProto>(),
            Self::SparseTensor => size_of::<pb::SparseTensorProto>(),
            Self::TrainingInfo => size_of::<pb::TrainingInfoProto>(),
            Self::Function => size_of::<pb::FunctionProto>(),
        }
    }
}

/// True where `field` may start a ModelProto: tells ONNX, which has no magic number, from anything else.
pub(super) fn opens_a_model(field: &Field) -> bool {
    match field.number {
        1 | 5 => matches!(field.value, Value::Varint(_)),
        2..=4 | 6..=8 | 14 | 20 | 25 | 26 => matches!(field.value, Value::Bytes(_)),
        _ => false,
    }
}

/// Scans a whole ONNX file.
///
/// # Errors
/// A [`ModelError`] for the first fault found; every length was checked against the file before it was believed.
pub(super) fn scan(source: &Source) -> Result<Scan, ModelError> {
    let cursor = Cursor::new(source);
    let mut scanner = Scanner { cursor, tensors: HashMap::new(), budget: GRAPH_BUDGET_BYTES, depth: 0 };
    let mut pruned = Vec::new();
    scanner.prune(&Place { kind: Kind::Model, range: 0..source.len(), home: Home::Main }, &mut pruned)?;
    let Scanner { tensors, .. } = scanner;
    Ok(Scan { skeleton: pb::ModelProto::decode(&*pruned)?, tensors })
}

/// Walks a ModelProto whose tensors may be emptied, in full in `bytes`, and fails where decoding it would cost more memory
/// than [`scan`] grants a file.
///
/// # Errors
/// [`ModelError::GraphTooLarge`], or the first fault of structure.
pub(crate) fn check_decodable(bytes: Bytes) -> Result<(), ModelError> {
    let source = Source::Memory(bytes);
    let cursor = Cursor::new(&source);
    let mut scanner = Scanner { cursor, tensors: HashMap::new(), budget: GRAPH_BUDGET_BYTES, depth: 0 };
    scanner.measure(Kind::Model, source.len())
}

/// A message to walk.
struct Place<'a> {
    kind: Kind,
    range: Range<u64>,
    home: Home<'a>,
}

/// Where a message stands, which decides whether its tensors can be restored by name.
#[derive(Clone, Copy)]
enum Home<'a> {
    /// The main graph: its tensors are initializers.
    Main,
    /// A Constant node of the main graph, with its output name.
    Constant(&'a str),
    /// A subgraph, a function, or an attribute of another operator.
    Elsewhere,
}

impl<'a> Place<'a> {
    /// Where the message in field `number` stands. `constant` is the output name when this is a Constant node.
    fn child_home(&self, number: u32, constant: Option<&'a str>) -> Home<'a> {
        match (self.kind, number, self.home, constant) {
            (Kind::Model, 7, home, _) | (Kind::Graph, 1 | 5, home, _) | (Kind::Attribute, 5, home, _) => home,
            (Kind::Node, 5, Home::Main, Some(output)) => Home::Constant(output),
            _ => Home::Elsewhere,
        }
    }
}

struct Scanner<'a> {
    cursor: Cursor<'a>,
    tensors: HashMap<String, StoredTensor>,
    /// Bytes of memory that the graph may still take.
    budget: usize,
    /// Graphs around the current message.
    depth: usize,
}

impl Scanner<'_> {
    /// Appends the message at `place` to `out`, without the data that can be read later.
    fn prune(&mut self, place: &Place, out: &mut Vec<u8>) -> Result<(), ModelError> {
        self.charge(place.kind.decoded_bytes() as u64)?;
        match place.kind {
            Kind::Tensor => return self.prune_tensor(place, out),
            kind => self.enter(kind)?,
        }
        let constant = self.constant_output(place)?;
        self.cursor.seek(place.range.start);
        while let Some(field) = self.cursor.field(place.range.end)? {
            match (place.kind.child(field.number), &field.value) {
                (_, Value::Bytes(range)) if place.kind.is_prose(field.number) => self.cursor.seek(range.end),
                (Some(kind), Value::Bytes(range)) => {
                    let home = place.child_home(field.number, constant.as_deref());
                    let mut child = Vec::new();
                    self.prune(&Place { kind, range: range.clone(), home }, &mut child)?;
                    encode_key(field.number, WireType::LengthDelimited, out);
                    encode_varint(child.len() as u64, out);
                    out.append(&mut child);
                    self.cursor.seek(range.end);
                }
                _ => self.copy_field(place.kind, &field, out)?,
            }
        }
        self.leave(place.kind);
        Ok(())
    }

    /// The output name, where `place` is a Constant node of the main graph.
    fn constant_output(&mut self, place: &Place) -> Result<Option<String>, ModelError> {
        if !matches!((place.kind, place.home), (Kind::Node, Home::Main)) {
            return Ok(None);
        }
        let (mut operator, mut output) = (Vec::new(), None);
        self.cursor.seek(place.range.start);
        while let Some(field) = self.cursor.field(place.range.end)? {
            let Value::Bytes(range) = field.value else { continue };
            if field.number == 2 && output.is_none() {
                self.charge(range.end - range.start)?;
                let mut name = Vec::new();
                self.cursor.copy(range.clone(), &mut name)?;
                output = Some(name);
            } else if field.number == 4 {
                operator.clear();
                self.cursor.copy(range.start..range.end.min(range.start + 16), &mut operator)?;
            }
            self.cursor.seek(range.end);
        }
        let output = output.filter(|_| operator == b"Constant");
        Ok(output.map(|name| String::from_utf8_lossy(&name).into_owned()))
    }

    /// Copies a tensor, its data only where that is small or could not be found again by name.
    fn prune_tensor(&mut self, place: &Place, out: &mut Vec<u8>) -> Result<(), ModelError> {
        let holder = if let Home::Constant(output) = place.home { output } else { "(no name)" };
        let head = TensorHead::parse(&mut self.cursor, &place.range, holder)?;
        let name = match place.home {
            Home::Main if head.name.is_empty() => return Err(ModelError::Unnamed),
            Home::Main => Some(head.name.as_str()),
            Home::Constant(output) => Some(output),
            Home::Elsewhere => None,
        };
        if let Some(name) = name {
            let stored = StoredTensor { range: place.range.clone(), element: head.element };
            if self.tensors.insert(name.to_owned(), stored).is_some() {
                return Err(ModelError::DuplicateName { name: name.to_owned() });
            }
        }
        let detached = name.is_some() && is_detachable(&head);
        self.cursor.seek(place.range.start);
        while let Some(field) = self.cursor.field(place.range.end)? {
            match &field.value {
                Value::Bytes(range) if Kind::Tensor.is_prose(field.number) || detached && is_data(field.number) => {
                    self.cursor.seek(range.end);
                }
                _ if detached && is_data(field.number) => {}
                _ => self.copy_field(Kind::Tensor, &field, out)?,
            }
        }
        Ok(())
    }

    /// Copies a field as it stands, and charges what it will cost.
    fn copy_field(&mut self, kind: Kind, field: &Field, out: &mut Vec<u8>) -> Result<(), ModelError> {
        let end = self.charge_field(kind, field)?;
        self.cursor.copy(field.start..end, out)
    }

    /// Charges the message of `kind` from here to `end`, as [`Scanner::prune`] does what it copies.
    fn measure(&mut self, kind: Kind, end: u64) -> Result<(), ModelError> {
        self.charge(kind.decoded_bytes() as u64)?;
        self.enter(kind)?;
        while let Some(field) = self.cursor.field(end)? {
            match (kind.child(field.number), &field.value) {
                (Some(kind), Value::Bytes(range)) => {
                    self.measure(kind, range.end)?;
                    self.cursor.seek(range.end);
                }
                _ => {
                    let end = self.charge_field(kind, &field)?;
                    self.cursor.seek(end);
                }
            }
        }
        self.leave(kind);
        Ok(())
    }

    fn enter(&mut self, kind: Kind) -> Result<(), ModelError> {
        self.depth += usize::from(kind == Kind::Graph);
        if self.depth > MAX_GRAPH_DEPTH { Err(ModelError::TooDeep { max: MAX_GRAPH_DEPTH }) } else { Ok(()) }
    }

    fn leave(&mut self, kind: Kind) {
        self.depth -= usize::from(kind == Kind::Graph);
    }

    /// Charges what `field` will cost once decoded, and returns where it ends.
    fn charge_field(&mut self, kind: Kind, field: &Field) -> Result<u64, ModelError> {
        let end = match &field.value {
            Value::Bytes(range) => range.end,
            _ => self.cursor.position(),
        };
        // The most that a byte on the wire decodes to: itself in text, raw and float data, a number of 8 bytes in a packed
        // list, half of a small struct in the messages that the scanner does not step into (value infos, type protos).
        let growth = match (kind, field.number) {
            (Kind::Tensor, 4 | 6 | 8 | 9 | 10) => 1,
            (Kind::Model, 2..=4 | 14) | (Kind::Graph, 2) | (Kind::Node, _) | (Kind::Attribute, 1 | 4 | 7 | 9 | 21) => 1,
            (Kind::Tensor | Kind::SparseTensor, _) | (Kind::Attribute, 8) => 8,
            _ => 40,
        };
        // Every field may be the one element of a list of strings, or of pairs of them.
        let header_bytes = 2 * size_of::<String>() as u64;
        self.charge((end - field.start).saturating_mul(growth).saturating_add(header_bytes))?;
        Ok(end)
    }

    fn charge(&mut self, bytes: u64) -> Result<(), ModelError> {
        let left = usize::try_from(bytes).ok().and_then(|bytes| self.budget.checked_sub(bytes));
        self.budget = left.ok_or(ModelError::GraphTooLarge { max_bytes: GRAPH_BUDGET_BYTES })?;
        Ok(())
    }
}

/// True for tensors whose data leaves the graph whatever they are: the large ones. Strings have no raw form.
fn is_detachable(head: &TensorHead) -> bool {
    head.size_bytes >= INLINE_LIMIT && head.element.bits > 0
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{NodeProto, StringStringEntryProto};

    use super::super::fixture::{counting, graph, model, node};
    use super::*;

    fn scanned(model: &pb::ModelProto) -> pb::ModelProto {
        scan(&Source::Memory(model.encode_to_vec().into())).unwrap().skeleton
    }

    #[test]
    fn prose_costs_nothing_and_is_left_behind() {
        // 300 MB of stack traces would spend the budget.
        let documented = NodeProto { doc_string: "at line 1\n".repeat(10_000), ..node("Relu", "x", "") };
        let mut tensor = counting("w", &[2]);
        tensor.doc_string = "prose".into();
        let mut documented = model(graph(vec![documented; 3_000], vec![tensor]));
        documented.doc_string = "prose".into();
        let entry = StringStringEntryProto { key: "names".into(), value: "cat dog".into() };
        documented.metadata_props.push(entry);
        let skeleton = scanned(&documented);
        assert_eq!((skeleton.doc_string.as_str(), skeleton.metadata_props.len()), ("", 1));
        let graph = skeleton.graph.unwrap();
        assert_eq!((graph.node.len(), graph.initializer[0].doc_string.as_str()), (3_000, ""));
        assert!(graph.node.iter().all(|node| node.op_type == "Relu" && node.doc_string.is_empty()));
    }

    #[test]
    fn long_names_cost_what_they_are_long() {
        let name = "/encoder/layer".repeat(4_000);
        let nodes = (0..1_000).map(|i| node("Relu", &format!("{name}{i}"), &format!("{name}{}", i + 1)));
        let graph = graph(nodes.collect(), vec![]);
        assert_eq!(scanned(&model(graph)).graph.unwrap().node.len(), 1_000);
    }
}
