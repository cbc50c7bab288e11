//! A graph ready to run: loaded from an artifact or from an uploaded model.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tract_onnx::pb;
use tract_onnx::tract_hir::prelude::{IntoTValue, TValue, TVec};

use super::absorb::absorb;
use super::form::{Form, Forms, HeldWeight, choose};
use super::plan::Plan;
use super::ports::{Checked, Ports, ports};
use super::product::Held;
use super::profile::{Layers, Profile};
use super::rewrite::{Operators, check_indices, leaves_misread, misread_by_tract, product_nodes, rewrite};
use super::widen::widen_halves;
use super::{Array, ArrayData, Datatype, InferError, Residency, restore};
use crate::artifact::Artifact;
use crate::codec::Words;
use crate::model::{self, Model, Port, Weight};

/// What predictions lack of an operator that the graph engine knows: it serves weights of the main graph in f32 only.
const MISREAD: &str = "ConvTranspose with output_shape";
/// The graph engine leaves out a factor of alpha.
const MISREAD_CELU: &str = "Celu with an alpha that is not 1";

/// A graph ready to run; shared by threads.
pub struct Predictor {
    plan: Plan,
    inputs: Ports,
    outputs: Ports,
    layers: Layers,
    /// Bytes of the weights that our operators hold, codebooks and tables included.
    held_bytes: u64,
    weights: Vec<HeldWeight>,
}

impl Predictor {
    /// Loads a compressed version. With [`Residency::Coded`] and [`Residency::Packed`] no dense weight is held, but those
    /// that operators read of which we have none of our own ([`Role::Expanded`](crate::model::Role::Expanded)).
    ///
    /// # Errors
    /// An [`InferError`] that says what predictions lack or what does not fit.
    pub fn from_artifact(artifact: &Artifact, residency: Residency) -> Result<Self, InferError> {
        Self::from_artifact_within(artifact, residency, None)
    }

    /// The same; [`Residency::Auto`] times every form of every weight, and takes the fastest that `budget_bytes` allow for
    /// all weights that are multiplied or looked up. Where the smallest forms exceed it, it takes those.
    ///
    /// # Errors
    /// As [`Predictor::from_artifact`].
    pub fn from_artifact_within(
        artifact: &Artifact,
        residency: Residency,
        budget_bytes: Option<u64>,
    ) -> Result<Self, InferError> {
        let mut graph = artifact.graph()?.ok_or(InferError::NoGraph)?;
        check_operators(&graph)?;
        let (misread, layers) = (misread_by_tract(&graph), Layers::of(&graph));
        let artifact = &artifact.to_serving()?;
        let forms = Forms::new(artifact);
        let choice = choose(&forms, &graph, residency, budget_bytes)?;
        let mut held = Vec::new();
        let operators = rewrite(&mut graph, |weight| {
            let form = match choice.get(&weight.name).copied().unwrap_or(Form::Dense) {
                Form::Dense if misread.contains(&weight.name) => Form::Coded,
                form => form,
            };
            Ok(forms.hold(weight, form)?.inspect(|matrix| held.push((weight.name.clone(), matrix.clone()))))
        })?;
        let expanded = expanded(&graph);
        restore::restore(&mut graph, restore::from_artifact(artifact))?;
        Self::new(graph, layers, operators, held, expanded)
    }

    /// Loads an uploaded model, version 0: all weights dense.
    ///
    /// # Errors
    /// As [`Predictor::from_artifact`].
    pub fn from_model(model: &Model) -> Result<Self, InferError> {
        let mut graph = model.skeleton().ok_or(InferError::NoGraph)?.clone();
        check_operators(&graph)?;
        let (misread, layers) = (misread_by_tract(&graph), Layers::of(&graph));
        let mut held = Vec::new();
        let operators = rewrite(&mut graph, |weight| {
            if misread.contains(&weight.name) {
                let matrix = Held::Coded(Arc::new(restore::matrix_of(model, weight)?));
                held.push((weight.name.clone(), matrix.clone()));
                return Ok(Some(matrix));
            }
            Ok(None)
        })?;
        let expanded = expanded(&graph);
        restore::restore(&mut graph, restore::from_model(model))?;
        Self::new(graph, layers, operators, held, expanded)
    }

    fn new(
        mut model: pb::ModelProto,
        layers: Layers,
        mut operators: Operators,
        mut held: Vec<(String, Held)>,
        expanded: Vec<HeldWeight>,
    ) -> Result<Self, InferError> {
        // Those that no operator took up go away again.
        held.retain(|(_, matrix)| matrix.is_shared());
        // A weight that could not be replaced after all.
        if model.graph.as_ref().is_some_and(|graph| leaves_misread(graph, &|_| false)) {
            return Err(InferError::UnsupportedOperators { operators: vec![MISREAD.into()] });
        }
        let held_bytes = held_bytes(&held);
        let weights = held.iter().map(|(name, matrix)| HeldWeight::of(name, matrix)).chain(expanded).collect();
        let (inputs, outputs) = ports(&mut model)?;
        widen_halves(&mut model);
        if !operators.is_empty() {
            absorb(&mut model, &mut operators);
        }
        check_indices(&mut model, &mut operators);
        let plan = Plan::new(&model, operators, inputs.assume_a_batch())?;
        Ok(Self { plan, inputs, outputs, layers, held_bytes, weights })
    }

    /// What the graph reads, in graph order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs.ports
    }

    /// What the graph returns, in graph order.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs.ports
    }

    /// Runs one batch. `inputs` are named and in any order; all outputs come back in graph order. Products run on the
    /// current rayon pool.
    ///
    /// # Errors
    /// An [`InferError`] that names the input at fault, or [`InferError::Run`].
    pub fn run(&self, inputs: Vec<(String, Array)>) -> Result<Vec<(String, Array)>, InferError> {
        let (values, disagreement) = self.values(inputs)?;
        let values = match disagreement {
            None => self.plan.run(values)?,
            Some(disagreement) => self.plan.run_per_shape(values).map_err(|_| disagreement)?,
        };
        let ports = self.outputs.ports.iter().zip(&self.outputs.datatypes);
        let named = ports.zip(&values).map(|((port, &datatype), value)| {
            let array = Array::from_tensor(value).map_err(|error| InferError::Run { reason: error.to_string() })?;
            Ok((port.name.clone(), narrowed(array, datatype)))
        });
        named.collect()
    }

    /// Whether any number of samples can be run at a time without preparing for it: all inputs and outputs share a free
    /// first extent. That each sample is answered for itself does not follow.
    pub fn takes_any_batch(&self) -> bool {
        self.inputs.share_a_batch(&self.outputs) && self.plan.is_symbolic()
    }

    /// Names of the weights that the graph multiplies by or looks up: the layers of a [`Profile`].
    pub fn layers(&self) -> &[String] {
        &self.layers.names
    }

    /// Runs one batch for the time that each of its operators takes. First extents that the graph does not name must
    /// agree here.
    ///
    /// # Errors
    /// As [`Predictor::run`].
    pub fn profile(&self, inputs: Vec<(String, Array)>) -> Result<Profile, InferError> {
        let (values, disagreement) = self.values(inputs)?;
        if let Some(disagreement) = disagreement {
            return Err(disagreement);
        }
        let mut profile = self.layers.profile();
        self.plan.run_watched(values, |node, time| self.layers.add(&mut profile, node, time))?;
        Ok(profile)
    }

    /// Checked inputs as the graph reads them, in graph order; and [`Checked::disagreement`].
    fn values(&self, inputs: Vec<(String, Array)>) -> Result<(TVec<TValue>, Option<InferError>), InferError> {
        let Checked { arrays, disagreement } = self.inputs.check(inputs)?;
        let mut values: TVec<TValue> = TVec::new();
        for (array, port) in arrays.into_iter().zip(&self.inputs.ports) {
            let tensor = widened(array).into_tensor();
            let tensor = tensor.map_err(|source| InferError::Array { name: port.name.clone(), source })?;
            values.push(tensor.into_tvalue());
        }
        Ok((values, disagreement))
    }

    /// Bytes of the weights as they are held in memory: those of our operators with their tables and codebooks, and every
    /// constant of the graph. While it runs, each product expands up to one block more, at most 1 MiB, per thread
    /// (of the codec delta it holds 8 bytes for each output of a block instead), and each look-up the rows that it is asked
    /// for, every one once.
    pub fn weights_resident_bytes(&self) -> u64 {
        self.held_bytes + self.plan.constant_bytes()
    }

    /// How each weight is held.
    pub fn weights(&self) -> &[HeldWeight] {
        &self.weights
    }
}

/// The weights that are left in `graph`, dense.
fn expanded(graph: &pb::ModelProto) -> Vec<HeldWeight> {
    let (weights, _) = model::analyze(graph);
    let bytes = |weight: &Weight| 4 * weight.dims.iter().map(|&dim| dim as u64).product::<u64>();
    weights.iter().map(|w| HeldWeight { name: w.name.clone(), form: Form::Dense, bytes: bytes(w) }).collect()
}

/// Operators of `model` that predictions lack, each once, sorted; empty when it can be served.
pub fn unsupported_operators(model: &Model) -> Vec<String> {
    model.skeleton().map(missing_operators).unwrap_or_default()
}

fn missing_operators(model: &pb::ModelProto) -> Vec<String> {
    fn visit(graph: &pb::GraphProto, known: &dyn Fn(&str) -> bool, missing: &mut BTreeSet<String>) {
        for node in &graph.node {
            if !known(&node.op_type) {
                missing.insert(node.op_type.clone());
            }
            let attributes = node.attribute.iter();
            attributes.flat_map(|a| a.g.iter().chain(&a.graphs)).for_each(|graph| visit(graph, known, missing));
        }
    }
    let registry = tract_onnx::onnx().op_register.0;
    let mut missing = BTreeSet::new();
    if let Some(graph) = &model.graph {
        visit(graph, &|op_type| registry.contains_key(op_type), &mut missing);
        let products = product_nodes(model);
        if leaves_misread(graph, &|index| products.contains(&index)) {
            missing.insert(MISREAD.to_owned());
        }
        let has_alpha = |node: &pb::NodeProto| node.attribute.iter().any(|a| a.name == "alpha" && a.f != 1.0);
        if graph.node.iter().any(|node| node.op_type == "Celu" && has_alpha(node)) {
            missing.insert(MISREAD_CELU.to_owned());
        }
    }
    missing.into_iter().collect()
}

fn check_operators(model: &pb::ModelProto) -> Result<(), InferError> {
    model::check_limits(model)?;
    let operators = missing_operators(model);
    if operators.is_empty() { Ok(()) } else { Err(InferError::UnsupportedOperators { operators }) }
}

/// Bytes of distinct matrices and of the codebooks that they share.
fn held_bytes(held: &[(String, Held)]) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for (_, matrix) in held {
        bytes += matrix.own_bytes();
        if let Held::Coded(matrix) = matrix
            && let Words::Symbols(codebook) = &matrix.head().words
            && seen.insert(Arc::as_ptr(codebook))
        {
            bytes += size_of_val(codebook.values()) as u64;
        }
    }
    bytes
}

/// Halves as f32, which is what the graph computes in.
pub(super) fn widened(array: Array) -> Array {
    let data = match array.data {
        ArrayData::F16(values) => ArrayData::F32(values.iter().map(|v| v.to_f32()).collect()),
        ArrayData::Bf16(values) => ArrayData::F32(values.iter().map(|v| v.to_f32()).collect()),
        data => data,
    };
    Array { dims: array.dims, data }
}

/// An output that the graph computed in f32, in the half type that the model declares.
fn narrowed(array: Array, datatype: Datatype) -> Array {
    let data = match (array.data, datatype) {
        (ArrayData::F32(values), Datatype::F16) => {
            ArrayData::F16(values.into_iter().map(half::f16::from_f32).collect())
        }
        (ArrayData::F32(values), Datatype::Bf16) => {
            ArrayData::Bf16(values.into_iter().map(half::bf16::from_f32).collect())
        }
        (data, _) => data,
    };
    Array { dims: array.dims, data }
}
