//! In which form each weight is held while it is served, and how `auto` finds out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::tract_hir::internal::*;

use super::plan::Plan;
use super::product::{Held, ProductOp};
use super::restore::{from_artifact, restore};
use super::rewrite::{Operator, Operators, rewrite};
use super::widen::widen_halves;
use super::{InferError, Residency};
use crate::artifact::{Artifact, Body, StoredTensor};
use crate::codec::CompressedMatrix;
use crate::model::{self, Family, Role, Weight};
use crate::packed::{PackedMatrix, Reuse};

/// How one weight is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As encoded; products decode as they go.
    Coded,
    /// As 16-bit entries, or 4- or 8-bit symbols of all cells.
    Packed,
    /// Expanded at load.
    Dense,
}

/// A weight of a loaded version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct HeldWeight {
    pub name: String,
    pub form: Form,
    /// Bytes in memory, a codebook that several weights share apart; of a dense weight, those of its elements as f32.
    pub bytes: u64,
}

impl HeldWeight {
    pub(super) fn of(name: &str, held: &Held) -> Self {
        let form = match held {
            Held::Coded(_) => Form::Coded,
            Held::Packed(_) => Form::Packed,
        };
        Self { name: name.to_owned(), form, bytes: held.own_bytes() }
    }
}

/// The weights of an artifact that products can take as they are, and the forms made of them so far.
pub(super) struct Forms<'a> {
    artifact: &'a Artifact,
    tensors: HashMap<&'a str, &'a StoredTensor>,
}

impl<'a> Forms<'a> {
    pub(super) fn new(artifact: &'a Artifact) -> Self {
        let tensors = artifact.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Self { artifact, tensors }
    }

    /// `weight` in `form`, or in the nearest one that can hold it: a matrix of raw values, of more than 256 levels, or one
    /// that some node multiplies by the other way round stays coded. `None` where it has to be expanded.
    ///
    /// # Errors
    /// Those of reading the artifact.
    pub(super) fn hold(&self, weight: &Weight, form: Form) -> Result<Option<Held>, InferError> {
        let Some(tensor) = self.tensors.get(weight.name.as_str()).filter(|tensor| fits(tensor, weight)) else {
            return Ok(None);
        };
        if form == Form::Dense {
            return Ok(None);
        }
        let Some(matrix) = self.artifact.matrix(tensor)? else { return Ok(None) };
        Ok(Some(if form == Form::Packed { packed(matrix, weight) } else { Held::Coded(Arc::new(matrix)) }))
    }
}

/// Packs `matrix` where that can be done.
pub(super) fn packed(matrix: CompressedMatrix, weight: &Weight) -> Held {
    if weight.uses.iter().any(|usage| usage.transposed) {
        return Held::Coded(Arc::new(matrix));
    }
    // Equal channels of a convolution may read different groups.
    let reuse = if weight.family == Family::Convolution { Reuse::Nothing } else { Reuse::Differences };
    match PackedMatrix::from_compressed(&matrix, reuse) {
        Ok(packed) => Held::Packed(Arc::new(packed)),
        Err(_) => Held::Coded(Arc::new(matrix)),
    }
}

/// Whether a stored tensor is encoded as the matrix that the graph multiplies by.
fn fits(tensor: &StoredTensor, weight: &Weight) -> bool {
    matches!(&tensor.body, Body::Encoded { layout, .. } if *layout == weight.layout) && tensor.dims == weight.dims
}

/// The form of each weight of a version, by name; those not named are dense.
pub(super) type Choice = HashMap<String, Form>;

/// The same form for all weights of `graph`; for `auto`, whichever is fastest within `budget_bytes`.
///
/// # Errors
/// Those of reading the artifact.
pub(super) fn choose(
    forms: &Forms<'_>,
    graph: &pb::ModelProto,
    residency: Residency,
    budget_bytes: Option<u64>,
) -> Result<Choice, InferError> {
    let (weights, _) = model::analyze(graph);
    let weights: Vec<Weight> = weights.into_iter().filter(|weight| weight.role == Role::Product).collect();
    let all = |form| weights.iter().map(|weight| (weight.name.clone(), form)).collect();
    match residency {
        Residency::Coded => Ok(all(Form::Coded)),
        Residency::Packed => Ok(all(Form::Packed)),
        Residency::Dense => Ok(all(Form::Dense)),
        Residency::Auto => {
            let mut candidates = Vec::new();
            for weight in &weights {
                candidates.push((weight.name.clone(), measure(forms, graph, weight)?));
            }
            Ok(fastest_within(candidates, budget_bytes.unwrap_or(u64::MAX)))
        }
    }
}

/// What a form of one weight costs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    form: Form,
    bytes: u64,
    seconds: f64,
}

/// Memory is not spent on less than this share of a product's time: measurements vary by about as much.
const LEAST_GAIN: f64 = 0.1;

/// Begins with the smallest form of each weight, and takes the step that saves most time for a byte as long as one fits.
fn fastest_within(layers: Vec<(String, Vec<Candidate>)>, budget_bytes: u64) -> Choice {
    let smallest = |forms: &[Candidate]| forms.iter().copied().min_by_key(|form| form.bytes);
    let mut chosen: Vec<Candidate> = layers.iter().filter_map(|(_, forms)| smallest(forms)).collect();
    let layers: Vec<_> = layers.into_iter().filter(|(_, forms)| !forms.is_empty()).collect();
    let mut bytes: u64 = chosen.iter().map(|form| form.bytes).sum();
    loop {
        let steps =
            layers.iter().enumerate().flat_map(|(layer, (_, forms))| forms.iter().map(move |form| (layer, *form)));
        let gain = |&(layer, form): &(usize, Candidate)| {
            let now: Candidate = chosen[layer];
            (now.seconds - form.seconds) / (form.bytes.saturating_sub(now.bytes) + 1) as f64
        };
        let fits = |&(layer, form): &(usize, Candidate)| {
            let now: Candidate = chosen[layer];
            form.seconds < (1.0 - LEAST_GAIN) * now.seconds && bytes - now.bytes + form.bytes <= budget_bytes
        };
        let Some((layer, form)) = steps.filter(fits).max_by(|a, b| gain(a).total_cmp(&gain(b))) else { break };
        bytes = bytes - chosen[layer].bytes + form.bytes;
        chosen[layer] = form;
    }
    layers.into_iter().zip(chosen).map(|((name, _), form)| (name, form.form)).collect()
}

/// Samples that each form is timed with: a lone one, and a batch.
const SAMPLES: [usize; 2] = [1, 16];

/// Runs of one form: at least as many, and for at least as long.
const RUNS: (usize, Duration) = (3, Duration::from_millis(2));

/// Times the products of `weight` in each form, on the current rayon pool: seconds for one sample, summed over batches of
/// [`SAMPLES`]. What the extents of spatial axes are is known only when the graph runs, so they are assumed.
fn measure(forms: &Forms<'_>, graph: &pb::ModelProto, weight: &Weight) -> Result<Vec<Candidate>, InferError> {
    let mut candidates = Vec::new();
    let Some(alone) = alone(forms, graph, weight)? else { return Ok(candidates) };
    let Some(operator) = products(forms, &mut alone.clone(), Form::Coded)?.0 else { return Ok(candidates) };
    for form in [Form::Coded, Form::Packed, Form::Dense] {
        let mut graph = alone.clone();
        let (_, operators, mut bytes) = products(forms, &mut graph, form)?;
        let Ok(plan) = Plan::new(&graph, operators, false) else { continue };
        if form == Form::Dense {
            bytes = plan.constant_bytes();
        }
        let inputs = SAMPLES.map(|samples| operator.kernel.example(samples));
        let seconds = inputs.iter().zip(SAMPLES).map(|(x, samples)| Some(seconds(&plan, x)? / samples as f64));
        candidates.extend(seconds.sum::<Option<f64>>().map(|seconds| Candidate { form, bytes, seconds }));
    }
    Ok(candidates)
}

/// The shortest of some runs of `plan`; `None` if it fails.
fn seconds(plan: &Plan, x: &TValue) -> Option<f64> {
    let started = Instant::now();
    let mut shortest = f64::INFINITY;
    let mut runs = 0;
    while runs < RUNS.0 || started.elapsed() < RUNS.1 {
        let start = Instant::now();
        plan.run(tvec![x.clone()]).ok()?;
        shortest = shortest.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    Some(shortest)
}

/// A graph of the first node that multiplies by `weight`, with its constants.
fn alone(forms: &Forms<'_>, model: &pb::ModelProto, weight: &Weight) -> Result<Option<pb::ModelProto>, InferError> {
    let (Some(graph), Some(usage)) = (&model.graph, weight.uses.first()) else { return Ok(None) };
    let node = &graph.node[usage.node];
    let mut nodes: Vec<_> = weight.chain.iter().map(|&index| graph.node[index].clone()).collect();
    nodes.push(node.clone());
    let read: HashSet<&str> = nodes.iter().flat_map(|node| node.input.iter().map(String::as_str)).collect();
    let activation = if usage.slot == 0 { 1 } else { 0 };
    let (Some(x), Some(y)) = (node.input.get(activation), node.output.first()) else { return Ok(None) };
    let part = pb::GraphProto {
        name: "a product".into(),
        initializer: graph.initializer.iter().filter(|tensor| read.contains(tensor.name.as_str())).cloned().collect(),
        input: vec![float_of_any_shape(x)],
        output: vec![float_of_any_shape(y)],
        node: nodes.clone(),
        ..Default::default()
    };
    let mut part = pb::ModelProto { graph: Some(part), ..model.clone() };
    restore(&mut part, from_artifact(forms.artifact))?;
    widen_halves(&mut part);
    Ok(Some(part))
}

fn float_of_any_shape(name: &str) -> pb::ValueInfoProto {
    let tensor = pb::type_proto::Tensor { elem_type: DataType::Float.into(), shape: None };
    let value = Some(pb::type_proto::Value::TensorType(tensor));
    let r#type = Some(pb::TypeProto { value, ..Default::default() });
    pb::ValueInfoProto { name: name.into(), r#type, ..Default::default() }
}

/// Replaces the products of `graph`; returns one of them, all of them, and the bytes of their weights.
fn products(
    forms: &Forms<'_>,
    graph: &mut pb::ModelProto,
    form: Form,
) -> Result<(Option<ProductOp>, Operators, u64), InferError> {
    let mut bytes = 0;
    let operators = rewrite(graph, |weight| {
        let held = forms.hold(weight, form)?;
        bytes += held.as_ref().map_or(0, Held::own_bytes);
        Ok(held)
    })?;
    let product = operators.values().find_map(|operator| match operator {
        Operator::Product(product) => Some(product.clone()),
        Operator::MaxPool(_) => None,
    });
    Ok((product, operators, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(form: Form, bytes: u64, seconds: f64) -> Candidate {
        Candidate { form, bytes, seconds }
    }

    #[test]
    fn the_fastest_forms_that_fit_are_chosen() {
        let layers = || {
            let of = |times: [f64; 3]| {
                let [coded, packed, dense] = times;
                vec![
                    candidate(Form::Coded, 10, coded),
                    candidate(Form::Packed, 20, packed),
                    candidate(Form::Dense, 100, dense),
                ]
            };
            vec![("a".to_owned(), of([9.0, 5.0, 1.0])), ("b".to_owned(), of([3.0, 2.0, 4.0])), ("c".to_owned(), vec![])]
        };
        let chosen = |budget| {
            let choice = fastest_within(layers(), budget);
            (choice.get("a").copied(), choice.get("b").copied(), choice.get("c").copied())
        };
        assert_eq!(chosen(u64::MAX), (Some(Form::Dense), Some(Form::Packed), None));
        assert_eq!(chosen(110), (Some(Form::Packed), Some(Form::Packed), None));
        assert_eq!(chosen(30), (Some(Form::Packed), Some(Form::Coded), None));
        // Less than the smallest forms take is not to be had.
        assert_eq!(chosen(0), (Some(Form::Coded), Some(Form::Coded), None));
    }
}
