//! The walk over the nodes of the main graph, from its constants and inputs to its outputs.

use std::collections::HashMap;
use std::rc::Rc;

use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use super::rules::Rules;
use super::value::{Axis, Node, Number, Value};
use super::{Member, Pinned, UnitGroup, UnitGroups};
use crate::model::{DataField, captured_names, constant_tensors, constant_value, is_standard, shape_of};

/// Most elements of a constant that the walk reads as numbers, such as a shape.
const MAX_NUMBERS: usize = 64;

/// Most axes of a constant or an input that the walk follows.
const MAX_RANK: usize = 16;

/// The groups of `graph`.
pub(super) fn groups(graph: &GraphProto) -> UnitGroups {
    walk(graph).finish(graph)
}

/// The extents of every value whose rank is known.
pub(super) fn extents(graph: &GraphProto) -> HashMap<&str, Vec<Number>> {
    let extents = |(name, value): (_, Value)| Some((name, value.axes?.iter().map(|axis| axis.extent).collect()));
    walk(graph).values.into_iter().filter_map(extents).collect()
}

fn walk(graph: &GraphProto) -> Walk<'_> {
    let mut walk = Walk { rules: Rules::default(), values: HashMap::new() };
    for (index, (name, tensor, _)) in constant_tensors(graph).enumerate() {
        let value = walk.constant(index, tensor);
        walk.define(name, value);
    }
    // An input with an initializer is a constant.
    for input in graph.input.iter().filter(|input| !walk.values.contains_key(input.name.as_str())).collect::<Vec<_>>() {
        let value = walk.input(input);
        walk.define(&input.name, value);
    }
    for node in graph.node.iter().filter(|node| constant_value(node).is_none()) {
        walk.node(node);
    }
    for output in &graph.output {
        walk.pin(&output.name, "an output of the graph");
    }
    walk
}

struct Walk<'a> {
    rules: Rules,
    /// By name. What was read before it was known is of unknown rank, and stays so.
    values: HashMap<&'a str, Value>,
}

impl<'a> Walk<'a> {
    /// A family for each axis of a float tensor; integers as numbers.
    fn constant(&mut self, index: usize, tensor: &TensorProto) -> Value {
        let Some((dims, element)) = shape_of(tensor) else { return Value::default() };
        if dims.len() > MAX_RANK {
            return Value::default();
        }
        let is_float = element.float().is_some();
        let axis = |(axis, &len): (usize, &usize)| {
            let units = if is_float && len > 1 { self.rules.families.axis(len) } else { Rc::default() };
            Axis { extent: extent(len), units, origin: Some((index, axis)) }
        };
        let axes = dims.iter().enumerate().map(axis).collect();
        Value { axes: Some(axes), numbers: numbers(tensor, &dims).map(Into::into), is_constant: true }
    }

    /// The caller's values stay where they are.
    fn input(&mut self, input: &ValueInfoProto) -> Value {
        let r#type = input.r#type.as_ref().and_then(|t| t.value.as_ref());
        let Some(shape) = r#type.and_then(|type_proto::Value::TensorType(tensor)| tensor.shape.as_ref()) else {
            return Value::default();
        };
        let known = |value: &Option<dimension::Value>| match value {
            Some(dimension::Value::DimValue(n @ 0..)) => Some(Number::Known(*n)),
            _ => None,
        };
        let extents = shape.dim.iter().map(|dim| known(&dim.value).unwrap_or_else(|| self.rules.unknown()));
        Value::of(extents.map(Axis::fixed).collect())
    }

    fn node(&mut self, node: &'a NodeProto) {
        for name in captured_names(node) {
            self.pin(name, "read inside a subgraph");
        }
        let names = node.input.iter().map(String::as_str);
        let inputs: Vec<Option<Value>> = names.map(|name| (!name.is_empty()).then(|| self.read(name))).collect();
        let inputs: Vec<Option<&Value>> = inputs.iter().map(Option::as_ref).collect();
        let outputs = if is_standard(node) { self.rules.apply(Node(node), &inputs) } else { None };
        if outputs.is_none() {
            for value in inputs.into_iter().flatten() {
                self.pin_value(value, &format!("read by {}", node.op_type));
            }
        }
        let outputs = outputs.unwrap_or_default().into_iter().chain(std::iter::repeat_with(Value::default));
        for (name, value) in node.output.iter().zip(outputs).filter(|(name, _)| !name.is_empty()) {
            self.define(name, value);
        }
    }

    fn read(&mut self, name: &'a str) -> Value {
        self.values.entry(name).or_default().clone()
    }

    /// Nothing moves on a value that was read before, or is defined twice.
    fn define(&mut self, name: &'a str, value: Value) {
        if self.values.contains_key(name) {
            self.pin_value(&value, "read before it is known");
            self.pin(name, "defined twice");
        } else {
            self.values.insert(name, value);
        }
    }

    fn pin(&mut self, name: &'a str, reason: &str) {
        let value = self.read(name);
        self.pin_value(&value, reason);
    }

    fn pin_value(&mut self, value: &Value, reason: &str) {
        for axis in value.axes.iter().flatten() {
            self.rules.pin(axis, reason);
        }
    }

    /// Gathers the members of every family that is still free.
    fn finish(mut self, graph: &'a GraphProto) -> UnitGroups {
        let mut found = UnitGroups::default();
        let mut group_of: HashMap<usize, usize> = HashMap::new();
        for (index, (name, ..)) in constant_tensors(graph).enumerate() {
            let axes = self.read(name).axes.unwrap_or_default();
            for (axis, units) in axes.iter().enumerate().map(|(i, axis)| (i, &axis.units)) {
                let (mut start, len) = (0, units.iter().map(|segment| segment.len).sum());
                for segment in self.rules.families.expand(units) {
                    let root = self.rules.families.root(segment.family);
                    let tensor = name.to_owned();
                    match &root.pinned {
                        Some(reason) => found.pinned.push(Pinned { tensor, axis, reason: reason.to_string() }),
                        None if root.units > 1 => {
                            let group = *group_of.entry(segment.family).or_insert_with(|| {
                                let fixed_size = root.sized.as_ref().map(|reason| reason.to_string());
                                found.groups.push(UnitGroup { units: root.units, members: Vec::new(), fixed_size });
                                found.groups.len() - 1
                            });
                            let block = segment.len / root.units;
                            let is_summed = self.rules.summed.contains(&(index, axis));
                            let member = Member { tensor, axis, len, start, block, is_summed };
                            found.groups[group].members.push(member);
                        }
                        None => {
                            let reason = "one unit alone".to_owned();
                            found.pinned.push(Pinned { tensor, axis, reason });
                        }
                    }
                    start += segment.len;
                }
            }
        }
        found
    }
}

fn extent(len: usize) -> Number {
    Number::Known(i64::try_from(len).unwrap_or(i64::MAX))
}

/// The elements of a short integer tensor of at most one axis.
pub(super) fn numbers(tensor: &TensorProto, dims: &[usize]) -> Option<Vec<Number>> {
    let elements = dims.iter().product::<usize>();
    let (_, element) = shape_of(tensor)?;
    if dims.len() > 1 || elements > MAX_NUMBERS || !matches!(element.name, "int64" | "int32") {
        return None;
    }
    let values: Vec<i64> = match element.field {
        DataField::Int64 if !tensor.int64_data.is_empty() => tensor.int64_data.clone(),
        DataField::Int32 if !tensor.int32_data.is_empty() => tensor.int32_data.iter().map(|&n| n.into()).collect(),
        DataField::Int64 => tensor.raw_data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        _ => tensor.raw_data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
    };
    (values.len() == elements).then(|| values.into_iter().map(Number::Known).collect())
}
