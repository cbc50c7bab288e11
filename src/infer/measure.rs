//! How long the operators of a weight take in each form: a graph of them alone, run a few times.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::tract_hir::internal::*;

use super::InferError;
use super::form::{Candidate, Form, Forms};
use super::plan::Plan;
use super::product::Held;
use super::restore::{from_artifact, restore};
use super::rewrite::{Operator, Operators, rewrite};
use super::widen::widen_halves;
use crate::model::Weight;

/// Samples that each form is timed with: a lone one, and a batch.
const SAMPLES: [usize; 2] = [1, 16];

/// Runs of one form: at least as many, and for at least as long.
const RUNS: (usize, Duration) = (3, Duration::from_millis(2));

/// Positions of a sample that look a row up, where the graph does not say how many there are.
const POSITIONS: usize = 64;

/// Most of them that are tried, and most floats that they look up in a batch: 16 MiB.
const MOST_POSITIONS: usize = 4096;
const MOST_FLOATS: usize = 1 << 22;

/// Times what uses `weight`, in each form, on the current rayon pool: seconds for one sample, summed over batches of
/// [`SAMPLES`]. What the extents of spatial axes are is known only when the graph runs, so they are assumed.
///
/// # Errors
/// Those of reading the artifact.
pub(super) fn candidates(
    forms: &Forms<'_>,
    graph: &pb::ModelProto,
    weight: &Weight,
) -> Result<Vec<Candidate>, InferError> {
    let mut candidates = Vec::new();
    let Some(Alone { graph: alone, users, positions }) = alone(forms, graph, weight)? else { return Ok(candidates) };
    let (operators, _) = rewritten(forms, &mut alone.clone(), Form::Coded)?;
    let inputs = |samples| users.iter().map(|user| example(operators.get(user)?, samples, positions)).collect();
    let inputs: Option<Vec<TVec<TValue>>> = SAMPLES.into_iter().map(inputs).collect();
    let Some(inputs) = inputs else { return Ok(candidates) };
    for form in [Form::Coded, Form::Packed, Form::Dense] {
        let mut graph = alone.clone();
        let (operators, mut bytes) = rewritten(forms, &mut graph, form)?;
        let Ok(plan) = Plan::new(&graph, operators, false) else { continue };
        if form == Form::Dense {
            bytes = plan.constant_bytes();
        }
        let seconds = inputs.iter().zip(SAMPLES).map(|(x, samples)| Some(seconds(&plan, x)? / samples as f64));
        candidates.extend(seconds.sum::<Option<f64>>().map(|seconds| Candidate { form, bytes, seconds }));
    }
    Ok(candidates)
}

/// What an operator may be given.
fn example(operator: &Operator, samples: usize, positions: usize) -> Option<TValue> {
    match operator {
        Operator::Product(product) => Some(product.kernel.example(samples)),
        Operator::Lookup(lookup) => Some(lookup.example(samples, positions)),
        Operator::MaxPool(_) | Operator::Indices(_) | Operator::Normalization(_) => None,
    }
}

/// The shortest of some runs of `plan`; `None` if it fails.
fn seconds(plan: &Plan, x: &TVec<TValue>) -> Option<f64> {
    let started = Instant::now();
    let mut shortest = f64::INFINITY;
    let mut runs = 0;
    while runs < RUNS.0 || started.elapsed() < RUNS.1 {
        let start = Instant::now();
        plan.run(x.clone()).ok()?;
        shortest = shortest.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    Some(shortest)
}

/// The operators that use a weight, by themselves.
struct Alone {
    /// One input and one output for each operator, in order; with its constants.
    graph: pb::ModelProto,
    /// The types that [`rewrite`] will give them.
    users: Vec<String>,
    /// Indices of a sample of the look-up, if there is one.
    positions: usize,
}

/// A graph of the first node that multiplies by `weight` and the first that looks it up.
fn alone(forms: &Forms<'_>, model: &pb::ModelProto, weight: &Weight) -> Result<Option<Alone>, InferError> {
    let Some(graph) = &model.graph else { return Ok(None) };
    let mut nodes: Vec<_> = weight.chain.iter().map(|&index| graph.node[index].clone()).collect();
    let (mut users, mut input, mut output, mut positions) = (Vec::new(), Vec::new(), Vec::new(), POSITIONS);
    for looks_up in [false, true] {
        let is_such = |node: &pb::NodeProto| (node.op_type == "Gather") == looks_up;
        let Some(usage) = weight.uses.iter().find(|usage| is_such(&graph.node[usage.node])) else { continue };
        let mut node = graph.node[usage.node].clone();
        let (Some(x), Some(y)) = (node.input.get_mut(1 - usage.slot.min(1)), node.output.first_mut()) else {
            return Ok(None);
        };
        if looks_up {
            let entry = weight.dims.iter().skip(1).product::<usize>().max(1);
            let most = (MOST_FLOATS / SAMPLES[1] / entry).clamp(1, MOST_POSITIONS);
            positions = positions_of(graph, x).unwrap_or(POSITIONS).clamp(1, most);
        }
        // One may read what the other returns: here each stands alone.
        (*x, *y) = (format!("weightpress.x{}", users.len()), format!("weightpress.y{}", users.len()));
        input.push(of_any_shape(x, if looks_up { DataType::Int64 } else { DataType::Float }));
        output.push(of_any_shape(y, DataType::Float));
        users.push(format!("weightpress.{}", nodes.len()));
        nodes.push(node);
    }
    let read: HashSet<&str> = nodes.iter().flat_map(|node| node.input.iter().map(String::as_str)).collect();
    let initializer = graph.initializer.iter().filter(|tensor| read.contains(tensor.name.as_str())).cloned().collect();
    let part =
        pb::GraphProto { name: "one weight".into(), initializer, input, output, node: nodes, ..Default::default() };
    let mut part = pb::ModelProto { graph: Some(part), ..model.clone() };
    restore(&mut part, from_artifact(forms.artifact))?;
    widen_halves(&mut part);
    Ok((!users.is_empty()).then_some(Alone { graph: part, users, positions }))
}

/// Elements of one sample of an input of the graph, as far as it says.
fn positions_of(graph: &pb::GraphProto, name: &str) -> Option<usize> {
    let info = graph.input.iter().find(|input| input.name == name)?;
    let Some(pb::type_proto::Value::TensorType(tensor)) = &info.r#type.as_ref()?.value else { return None };
    let extents = tensor.shape.as_ref()?.dim.iter().skip(1).map(|dim| match dim.value {
        Some(pb::tensor_shape_proto::dimension::Value::DimValue(extent)) => usize::try_from(extent).ok(),
        _ => None,
    });
    extents.product()
}

fn of_any_shape(name: &str, data_type: DataType) -> pb::ValueInfoProto {
    let tensor = pb::type_proto::Tensor { elem_type: data_type.into(), shape: None };
    let value = Some(pb::type_proto::Value::TensorType(tensor));
    let r#type = Some(pb::TypeProto { value, ..Default::default() });
    pb::ValueInfoProto { name: name.into(), r#type, ..Default::default() }
}

/// Replaces the operators of `graph`; returns them, and the bytes of their weights.
fn rewritten(forms: &Forms<'_>, graph: &mut pb::ModelProto, form: Form) -> Result<(Operators, u64), InferError> {
    let mut bytes = 0;
    let operators = rewrite(graph, |weight| {
        let held = forms.hold(weight, form)?;
        bytes += held.as_ref().map_or(0, Held::own_bytes);
        Ok(held)
    })?;
    Ok((operators, bytes))
}
