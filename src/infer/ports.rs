//! What goes into a graph and comes out of it, and the extents that inputs must agree on.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Extent;
use tract_onnx::pb::type_proto;

use super::{Array, Datatype, InferError};
use crate::model::Port;

/// An input or output with its type parsed.
#[derive(Debug, Clone)]
pub(super) struct TypedPort {
    pub(super) datatype: Datatype,
    /// The name of each extent that is not fixed; extents of one name are equal.
    pub(super) symbols: Vec<Option<String>>,
}

/// The ports of a graph, in graph order, and the same typed.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    pub(super) ports: Vec<Port>,
    pub(super) typed: Vec<TypedPort>,
}

/// The name of every first extent that has none: a batch, in practice, and the same for all inputs.
const BATCH: &str = "batch";

/// Inputs of `graph`, initializers apart; names every free extent of an input, as tract wants it.
///
/// # Errors
/// [`InferError::UnsupportedType`]; [`InferError::Load`] for an input without a rank.
pub(super) fn inputs(graph: &mut pb::GraphProto) -> Result<Ports, InferError> {
    let constants: HashSet<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
    let mut names = HashMap::new();
    let mut found = Ports { ports: Vec::new(), typed: Vec::new() };
    for input in graph.input.iter_mut().filter(|input| !constants.contains(&input.name)) {
        let name = input.name.as_str();
        let tensor = tensor_type(name, &mut input.r#type)?;
        let Some(shape) = &mut tensor.shape else {
            return Err(InferError::Load { reason: format!("input {name} declares no rank") });
        };
        let datatype = datatype(name, tensor.elem_type)?;
        let symbols: Vec<_> = shape.dim.iter().enumerate().map(|(axis, dim)| symbol(dim, name, axis)).collect();
        for (dim, symbol) in shape.dim.iter_mut().zip(&symbols) {
            if let Some(symbol) = symbol {
                // tract would read `batch-size` as a difference, so every name gives way to a plain one.
                let count = names.len();
                let plain = names.entry(symbol.clone()).or_insert_with(|| format!("extent{count}"));
                dim.value = Some(Extent::DimParam(plain.clone()));
            }
        }
        found.ports.push(port(name, datatype, &shape.dim));
        found.typed.push(TypedPort { datatype, symbols });
    }
    Ok(found)
}

/// Outputs of `graph`.
///
/// # Errors
/// [`InferError::UnsupportedType`].
pub(super) fn outputs(graph: &mut pb::GraphProto) -> Result<Ports, InferError> {
    let mut found = Ports { ports: Vec::new(), typed: Vec::new() };
    for output in &mut graph.output {
        let tensor = tensor_type(&output.name, &mut output.r#type)?;
        let datatype = datatype(&output.name, tensor.elem_type)?;
        let dims = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
        found.ports.push(port(&output.name, datatype, dims));
        found.typed.push(TypedPort { datatype, symbols: Vec::new() });
    }
    Ok(found)
}

fn tensor_type<'a>(name: &str, of: &'a mut Option<pb::TypeProto>) -> Result<&'a mut type_proto::Tensor, InferError> {
    match of {
        Some(pb::TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) => Ok(tensor),
        _ => Err(InferError::UnsupportedType { name: name.to_owned(), datatype: "anything but tensors".into() }),
    }
}

fn datatype(name: &str, elem_type: i32) -> Result<Datatype, InferError> {
    Ok(match DataType::try_from(elem_type) {
        Ok(DataType::Bool) => Datatype::Bool,
        Ok(DataType::Uint8) => Datatype::U8,
        Ok(DataType::Uint16) => Datatype::U16,
        Ok(DataType::Uint32) => Datatype::U32,
        Ok(DataType::Uint64) => Datatype::U64,
        Ok(DataType::Int8) => Datatype::I8,
        Ok(DataType::Int16) => Datatype::I16,
        Ok(DataType::Int32) => Datatype::I32,
        Ok(DataType::Int64) => Datatype::I64,
        Ok(DataType::Float16) => Datatype::F16,
        Ok(DataType::Bfloat16) => Datatype::Bf16,
        Ok(DataType::Float) => Datatype::F32,
        Ok(DataType::Double) => Datatype::F64,
        other => {
            let datatype = other.map_or_else(|_| format!("type {elem_type}"), |t| t.as_str_name().to_lowercase());
            return Err(InferError::UnsupportedType { name: name.to_owned(), datatype });
        }
    })
}

fn port(name: &str, datatype: Datatype, dims: &[Dimension]) -> Port {
    let dims = dims.iter().map(fixed).collect();
    Port { name: name.to_owned(), datatype: datatype.name().to_owned(), dims }
}

/// The extent of a dimension that has one. Exporters write 0 and -1 for "any".
fn fixed(dim: &Dimension) -> Option<usize> {
    match dim.value {
        Some(Extent::DimValue(extent)) if extent > 0 => usize::try_from(extent).ok(),
        _ => None,
    }
}

/// What a free extent is called: as the model says, or a name of its own.
fn symbol(dim: &Dimension, input: &str, axis: usize) -> Option<String> {
    match &dim.value {
        _ if fixed(dim).is_some() => None,
        Some(Extent::DimParam(name)) if !name.is_empty() && name != "?" => Some(name.clone()),
        _ if axis == 0 => Some(BATCH.to_owned()),
        _ => Some(format!("{input}[{axis}]")),
    }
}

impl Ports {
    /// Puts `given` into graph order and checks every array against its port.
    ///
    /// # Errors
    /// An [`InferError`] for which [`InferError::is_bad_input`] holds.
    pub(super) fn check(&self, given: Vec<(String, Array)>) -> Result<Vec<Array>, InferError> {
        let mut slots: Vec<Option<Array>> = vec![None; self.ports.len()];
        for (name, array) in given {
            let Some(slot) = self.ports.iter().position(|port| port.name == name) else {
                let known = self.ports.iter().map(|port| port.name.clone()).collect();
                return Err(InferError::UnknownInput { name, known });
            };
            if slots[slot].replace(array).is_some() {
                return Err(InferError::DuplicateInput { name });
            }
        }
        let mut extents: HashMap<&str, (&str, usize)> = HashMap::new();
        for ((port, typed), array) in self.ports.iter().zip(&self.typed).zip(&slots) {
            let name = || port.name.clone();
            let array = array.as_ref().ok_or_else(|| InferError::MissingInput { name: name() })?;
            check_array(port, typed, array)?;
            for (symbol, &extent) in typed.symbols.iter().zip(&array.dims) {
                let Some(symbol) = symbol else { continue };
                let (first, expected) = *extents.entry(symbol).or_insert((&port.name, extent));
                if extent != expected {
                    let (symbol, first) = (symbol.clone(), first.to_owned());
                    return Err(InferError::ExtentMismatch { symbol, first, expected, name: name(), found: extent });
                }
            }
        }
        Ok(slots.into_iter().flatten().collect())
    }
}

fn check_array(port: &Port, typed: &TypedPort, array: &Array) -> Result<(), InferError> {
    let name = || port.name.clone();
    let (expected, found) = (typed.datatype, array.datatype());
    if expected != found {
        return Err(InferError::WrongDatatype { name: name(), expected, found });
    }
    let (expected, found) = (port.dims.len(), array.dims.len());
    if expected != found {
        return Err(InferError::WrongRank { name: name(), expected, found });
    }
    for (axis, (expected, &found)) in port.dims.iter().zip(&array.dims).enumerate() {
        if let Some(expected) = *expected
            && expected != found
        {
            return Err(InferError::WrongExtent { name: name(), axis, expected, found });
        }
    }
    array.check().map_err(|source| InferError::Array { name: name(), source })
}
