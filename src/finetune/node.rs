//! A node as its operator reads it: attributes with their types checked.

use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

use super::error::TuneError;

/// A node and the version of the operator set that it is written in.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub proto: &'a NodeProto,
    pub opset: i64,
    /// The constant that stands in for a Constant node's own, whose data may lie elsewhere.
    pub constant: Option<&'a super::value::Value>,
}

impl<'a> Node<'a> {
    /// The operator's name.
    pub fn operator(&self) -> &'a str {
        &self.proto.op_type
    }

    /// The node's name, or where it has none that of its first output.
    pub fn name(&self) -> String {
        let output = || self.proto.output.first().cloned().unwrap_or_default();
        if self.proto.name.is_empty() { output() } else { self.proto.name.clone() }
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// Whether the node has this attribute.
    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// An integer.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    /// A real.
    pub fn float(&self, name: &str, default: f64) -> f64 {
        self.attribute(name).map_or(default, |attribute| f64::from(attribute.f))
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| &attribute.ints[..])
    }

    /// A list of reals.
    pub fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|attribute| &attribute.floats[..])
    }

    /// A word.
    pub fn word(&self, name: &str) -> Option<String> {
        self.attribute(name).map(|attribute| String::from_utf8_lossy(&attribute.s).into_owned())
    }

    /// A tensor.
    pub fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.attribute(name).and_then(|attribute| attribute.t.as_ref())
    }

    /// The error that the node lacks `attribute`.
    pub fn missing(&self, attribute: &'static str) -> TuneError {
        TuneError::MissingAttribute { node: self.name(), operator: self.operator().to_owned(), attribute }
    }

    /// The error that `attribute` has a value which is not supported.
    pub fn unsupported(&self, attribute: &'static str, value: impl ToString) -> TuneError {
        let (node, operator) = (self.name(), self.operator().to_owned());
        TuneError::UnsupportedAttribute { node, operator, attribute, value: value.to_string() }
    }
}
