//! What goes into a graph and comes out of it, and the extents that inputs must agree on.

use std::collections::HashMap;

use tract_onnx::pb;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Extent;
use tract_onnx::pb::type_proto;

use super::{Array, Datatype, InferError};
use crate::model::{self, Port};

/// The inputs or the outputs of a graph, in graph order.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    pub(super) ports: Vec<Port>,
    /// Of each port, its element type.
    pub(super) datatypes: Vec<Datatype>,
    /// Of each input, the names of its free extents; extents of one name are equal.
    symbols: Vec<Vec<Option<String>>>,
}

/// The name of every first extent that has none, which no model would give: mostly a batch, the same for all inputs; see
/// [`Checked::disagreement`].
const BATCH: &str = "the batch";

/// Inputs in graph order that fit their ports.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) arrays: Vec<Array>,
    /// Set where first extents without a name differ: the graph may allow it, but not where it was optimized for one batch.
    pub(super) disagreement: Option<InferError>,
}

/// Inputs and outputs of `model`. Names every free extent of an input inside the graph, as tract wants it.
///
/// # Errors
/// [`InferError::UnsupportedType`]; [`InferError::Load`] for an input without a rank.
pub(super) fn ports(model: &mut pb::ModelProto) -> Result<(Ports, Ports), InferError> {
    let (inputs, outputs) = model::ports(model);
    let mut symbols = Vec::new();
    let mut plain_names = HashMap::new();
    for port in &inputs {
        let graph = model.graph.as_mut().ok_or(InferError::NoGraph)?;
        let shape = graph.input.iter_mut().find(|input| input.name == port.name).and_then(shape_mut);
        let Some(shape) = shape else {
            return Err(InferError::Load { reason: format!("input {} declares no rank", port.name) });
        };
        let mut names = Vec::new();
        for (axis, dim) in shape.dim.iter_mut().enumerate() {
            let name = port.dims.get(axis).is_none_or(Option::is_none).then(|| symbol(dim, &port.name, axis));
            if let Some(name) = &name {
                // tract would read `batch-size` as a difference, so every name gives way to a plain one.
                let count = plain_names.len();
                let plain = plain_names.entry(name.clone()).or_insert_with(|| format!("extent{count}"));
                dim.value = Some(Extent::DimParam(plain.clone()));
            }
            names.push(name);
        }
        symbols.push(names);
    }
    Ok((Ports::new(inputs, symbols)?, Ports::new(outputs, Vec::new())?))
}

fn shape_mut(value: &mut pb::ValueInfoProto) -> Option<&mut pb::TensorShapeProto> {
    let type_proto::Value::TensorType(tensor) = value.r#type.as_mut()?.value.as_mut()?;
    tensor.shape.as_mut()
}

/// What a free extent is called: as the model says, or a name of its own.
fn symbol(dim: &Dimension, input: &str, axis: usize) -> String {
    match &dim.value {
        Some(Extent::DimParam(name)) if !name.is_empty() && name != "?" => name.clone(),
        _ if axis == 0 => BATCH.to_owned(),
        _ => format!("{input}[{axis}]"),
    }
}

impl Ports {
    /// Whether several inputs share a first extent only because it has no name.
    pub(super) fn assume_a_batch(&self) -> bool {
        self.symbols.iter().flatten().flatten().filter(|symbol| *symbol == BATCH).count() > 1
    }

    /// Whether every one of these inputs has the same free first extent, and so has every one of `outputs`, as far as the
    /// model says.
    pub(super) fn share_a_batch(&self, outputs: &Self) -> bool {
        let mut symbols = self.symbols.iter().map(|symbols| symbols.first().and_then(Option::as_ref));
        let first = symbols.next().flatten();
        let is_free = |port: &Port| port.dims.first() == Some(&None);
        first.is_some() && symbols.all(|symbol| symbol == first) && outputs.ports.iter().all(is_free)
    }

    fn new(ports: Vec<Port>, symbols: Vec<Vec<Option<String>>>) -> Result<Self, InferError> {
        let parse = |port: &Port| {
            let (name, datatype) = (port.name.clone(), port.datatype.clone());
            port.datatype.parse().map_err(|_| InferError::UnsupportedType { name, datatype })
        };
        let datatypes = ports.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { ports, datatypes, symbols })
    }

    /// Puts `given` into graph order and checks every array against its port.
    ///
    /// # Errors
    /// An [`InferError`] for which [`InferError::is_bad_input`] holds.
    pub(super) fn check(&self, given: Vec<(String, Array)>) -> Result<Checked, InferError> {
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
        let mut disagreement = None;
        for (i, (port, array)) in self.ports.iter().zip(&slots).enumerate() {
            let name = || port.name.clone();
            let array = array.as_ref().ok_or_else(|| InferError::MissingInput { name: name() })?;
            check_array(port, self.datatypes[i], array)?;
            for (symbol, &extent) in self.symbols[i].iter().zip(&array.dims) {
                let Some(symbol) = symbol else { continue };
                let (first, expected) = *extents.entry(symbol).or_insert((&port.name, extent));
                if extent != expected {
                    let is_assumed = symbol == BATCH;
                    let (symbol, first) = (symbol.clone(), first.to_owned());
                    let error = InferError::ExtentMismatch { symbol, first, expected, name: name(), found: extent };
                    if !is_assumed {
                        return Err(error);
                    }
                    disagreement.get_or_insert(error);
                }
            }
        }
        Ok(Checked { arrays: slots.into_iter().flatten().collect(), disagreement })
    }
}

fn check_array(port: &Port, expected: Datatype, array: &Array) -> Result<(), InferError> {
    let name = || port.name.clone();
    let found = array.datatype();
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
