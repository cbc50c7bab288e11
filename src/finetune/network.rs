//! A graph validated into a list of steps over slots, in the order in which they run.

use std::collections::{BTreeMap, HashMap};

use burn_backend::{DType, TensorMetadata};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto};

use super::error::TuneError;
use super::initializer;
use super::node::Node;
use super::operator::{self, Inputs, Kind, Operator};
use super::value::{Tensor, Value, tensor_of, to_f64};
use crate::infer::Array;

/// A network as it is trained: a graph whose operators all have gradients, and its tensors.
///
/// Invariant: a step reads slots that inputs, constants and steps before it fill, and each slot is filled once.
#[derive(Debug)]
pub struct Network {
    pub(super) steps: Vec<Step>,
    /// What each slot holds.
    pub(super) kinds: Vec<Kind>,
    /// The graph's inputs.
    pub(super) inputs: Vec<(String, usize)>,
    /// Tensors of the file by slot; absent for all other slots.
    pub(super) constants: Vec<Option<Value>>,
    /// Slots of the tensors that gradients reach.
    pub(super) trainable: BTreeMap<String, usize>,
    /// The output that is trained.
    pub(super) output: usize,
    /// Where the output is a softmax over its last axis, what that was computed from.
    pub(super) logits: Option<usize>,
    /// The element type that is computed in.
    pub(super) dtype: DType,
}

/// A node of the graph.
#[derive(Debug)]
pub(super) struct Step {
    pub name: String,
    pub op_type: String,
    pub operator: Box<dyn Operator>,
    pub inputs: Vec<Option<usize>>,
    pub outputs: Vec<Option<usize>>,
}

impl Network {
    /// Reads the graph of `model`, whose first output, or that of the name `output`, is to be trained.
    ///
    /// `constants` returns initializers and the values of Constant nodes by the name of the tensor; what it does not know
    /// is read from the model itself.
    ///
    /// # Errors
    /// [`TuneError::UnsupportedOperator`] and [`TuneError::UnsupportedAttribute`] where there is no gradient;
    /// [`TuneError::Undefined`], [`TuneError::ProducedTwice`] for graphs that are none.
    pub fn new(
        model: &ModelProto,
        output: Option<&str>,
        constants: &dyn Fn(&str) -> Option<Array>,
    ) -> Result<Self, TuneError> {
        Self::in_type(model, output, constants, DType::F32)
    }

    pub(super) fn in_type(
        model: &ModelProto,
        output: Option<&str>,
        constants: &dyn Fn(&str) -> Option<Array>,
        dtype: DType,
    ) -> Result<Self, TuneError> {
        let graph = model.graph.as_ref().filter(|graph| !graph.node.is_empty()).ok_or(TuneError::NoGraph)?;
        let opset = model.opset_import.iter().filter(|set| matches!(&set.domain[..], "" | "ai.onnx"));
        let opset = opset.map(|set| set.version).max().unwrap_or(1);
        let mut builder =
            Builder { slots: HashMap::new(), names: Vec::new(), network: Self::empty(dtype), constants, opset };
        builder.add_tensors(graph)?;
        builder.add_inputs(graph)?;
        for node in &graph.node {
            builder.add_node(node)?;
        }
        builder.finish(graph, output)
    }

    fn empty(dtype: DType) -> Self {
        Self {
            steps: Vec::new(),
            kinds: Vec::new(),
            inputs: Vec::new(),
            constants: Vec::new(),
            trainable: BTreeMap::new(),
            output: 0,
            logits: None,
            dtype,
        }
    }

    /// The tensors that can be trained, with their shapes: reals of the file that gradients reach.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        self.trainable.iter().map(|(name, &slot)| (name.as_str(), self.tensor_at(slot).dims()))
    }

    /// The values of a tensor that can be trained, as the file has them.
    ///
    /// # Errors
    /// [`TuneError::UnknownParameter`].
    pub fn values(&self, name: &str) -> Result<Vec<f32>, TuneError> {
        let slot = self.trainable.get(name).ok_or_else(|| TuneError::UnknownParameter { name: name.to_owned() })?;
        Ok(to_f64(self.tensor_at(*slot).inner()).into_iter().map(|value| value as f32).collect())
    }

    fn tensor_at(&self, slot: usize) -> &Tensor {
        match &self.constants[slot] {
            Some(Value::Float(tensor)) => tensor,
            _ => unreachable!("trainable slots hold real constants"),
        }
    }

    /// The position of the first node that reads a tensor which can be trained, in the order in which nodes run.
    pub fn first_reader(&self, name: &str) -> Option<usize> {
        let slot = self.trainable.get(name)?;
        self.steps.iter().position(|step| step.inputs.contains(&Some(*slot)))
    }

    /// Whether the output is a softmax, which the loss of classes looks through.
    pub fn ends_in_softmax(&self) -> bool {
        self.logits.is_some()
    }

    /// Runs a step, whose inputs have been filled.
    ///
    /// # Errors
    /// [`TuneError::Node`].
    pub(super) fn run(&self, step: &Step, values: &mut [Option<Value>]) -> Result<(), TuneError> {
        let inputs: Vec<Option<Value>> =
            step.inputs.iter().map(|slot| slot.and_then(|slot| values[slot].clone())).collect();
        let outputs = step.operator.run(&Inputs(&inputs)).map_err(|source| {
            let (node, operator) = (step.name.clone(), step.op_type.clone());
            TuneError::Node { node, operator, source }
        })?;
        for (slot, output) in step.outputs.iter().zip(outputs) {
            if let Some(slot) = *slot {
                values[slot] = Some(self.in_own_type(output));
            }
        }
        Ok(())
    }

    /// The value in the element type of this network.
    pub(super) fn in_own_type(&self, value: Value) -> Value {
        match value {
            Value::Float(Tensor::Plain(tensor)) if tensor.dtype() != self.dtype => {
                let values = to_f64(&tensor).into_iter();
                Value::Float(Tensor::Plain(tensor_of(self.dtype, tensor.shape().as_slice(), values)))
            }
            value => value,
        }
    }
}

struct Builder<'a> {
    slots: HashMap<String, usize>,
    /// The name of each slot.
    names: Vec<String>,
    network: Network,
    constants: &'a dyn Fn(&str) -> Option<Array>,
    opset: i64,
}

impl Builder<'_> {
    /// A new slot for `name`.
    fn slot(&mut self, name: &str, kind: Kind, constant: Option<Value>) -> Result<usize, TuneError> {
        let slot = self.network.kinds.len();
        if self.slots.insert(name.to_owned(), slot).is_some() {
            return Err(TuneError::ProducedTwice { name: name.to_owned() });
        }
        self.names.push(name.to_owned());
        self.network.kinds.push(kind);
        self.network.constants.push(constant);
        Ok(slot)
    }

    fn add_tensors(&mut self, graph: &GraphProto) -> Result<(), TuneError> {
        for tensor in &graph.initializer {
            let value = match (self.constants)(&tensor.name) {
                Some(array) => initializer::from_array(&tensor.name, array)?,
                None => initializer::read(tensor)?,
            };
            self.slot(&tensor.name, operator::kind(&value), Some(self.network.in_own_type(value)))?;
        }
        Ok(())
    }

    fn add_inputs(&mut self, graph: &GraphProto) -> Result<(), TuneError> {
        for input in graph.input.iter().filter(|input| !self.slots.contains_key(&input.name)).collect::<Vec<_>>() {
            let kind = kind_of(input)?;
            let slot = self.slot(&input.name, kind, None)?;
            self.network.inputs.push((input.name.clone(), slot));
        }
        Ok(())
    }

    fn add_node(&mut self, proto: &NodeProto) -> Result<(), TuneError> {
        if !matches!(&proto.domain[..], "" | "ai.onnx") && proto.op_type != "Gelu" {
            let operator = format!("{}.{}", proto.domain, proto.op_type);
            return Err(TuneError::UnsupportedOperator { operator, node: proto.name.clone() });
        }
        let output = proto.output.first().map_or("", |name| &name[..]);
        let given = if proto.op_type == "Constant" { (self.constants)(output) } else { None };
        let given = given.map(|array| initializer::from_array(output, array)).transpose()?;
        let node = Node { proto, opset: self.opset, constant: given.as_ref() };
        let operator = operator::parse(&node)?;
        let find = |name: &String| match self.slots.get(name) {
            _ if name.is_empty() => Ok(None),
            Some(&slot) => Ok(Some(slot)),
            None => Err(TuneError::Undefined { node: node.name(), name: name.clone() }),
        };
        let inputs: Vec<Option<usize>> = proto.input.iter().map(find).collect::<Result<_, _>>()?;
        let kinds: Vec<Kind> = inputs.iter().map(|slot| slot.map_or(Kind::Float, |s| self.network.kinds[s])).collect();
        for &slot in inputs.iter().take(operator.differentiable()).flatten() {
            self.offer(slot);
        }
        let kind = operator.kind(&kinds);
        let mut step =
            Step { name: node.name(), op_type: proto.op_type.clone(), operator, inputs, outputs: Vec::new() };
        for name in &proto.output {
            let slot = if name.is_empty() { None } else { Some(self.slot(name, kind, None)?) };
            step.outputs.push(slot);
        }
        if let ("Constant", [Some(slot)]) = (&proto.op_type[..], &step.outputs[..]) {
            // A Constant's value is a tensor of the file like any other.
            let mut values = vec![None; self.network.kinds.len()];
            self.network.run(&step, &mut values)?;
            self.network.constants[*slot] = values[*slot].take();
            return Ok(());
        }
        self.network.steps.push(step);
        Ok(())
    }

    /// Notes that a gradient passes into `slot`.
    fn offer(&mut self, slot: usize) {
        // Scalars are settings of the graph's formulas, not parameters.
        let is_real = matches!(&self.network.constants[slot], Some(Value::Float(tensor)) if !tensor.dims().is_empty());
        if is_real {
            self.network.trainable.insert(self.names[slot].clone(), slot);
        }
    }

    fn finish(mut self, graph: &GraphProto, output: Option<&str>) -> Result<Network, TuneError> {
        let first = graph.output.first().map(|output| output.name.as_str());
        let name = output.or(first).unwrap_or_default();
        let is_output = graph.output.iter().any(|output| output.name == name);
        let slot = self.slots.get(name).filter(|_| is_output);
        self.network.output = *slot.ok_or_else(|| TuneError::NoOutput { name: name.to_owned() })?;
        let last = self.network.steps.iter().find(|step| step.outputs.contains(&Some(self.network.output)));
        self.network.logits = last.filter(|step| step.operator.is_softmax()).and_then(|step| step.inputs[0]);
        Ok(self.network)
    }
}

/// What an input of the graph holds.
fn kind_of(input: &ValueInfoProto) -> Result<Kind, TuneError> {
    let value = input.r#type.as_ref().and_then(|r#type| r#type.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = value else { return Ok(Kind::Float) };
    match DataType::try_from(tensor.elem_type) {
        Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16) => Ok(Kind::Float),
        Ok(
            DataType::Int64
            | DataType::Int32
            | DataType::Int16
            | DataType::Int8
            | DataType::Uint8
            | DataType::Uint16
            | DataType::Uint32
            | DataType::Bool,
        ) => Ok(Kind::Int),
        _ => Err(TuneError::UnsupportedType { name: input.name.clone(), code: tensor.elem_type }),
    }
}
