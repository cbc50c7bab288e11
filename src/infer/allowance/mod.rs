//! How much memory a graph may take, asked before it is taken.
//!
//! tract allocates whatever a graph asks for: an Expand to a million million elements, while it folds constants as much as while
//! it runs. So a graph passes gates. [`guard::guard`] wraps its operators before tract analyses them, and lets none be evaluated
//! whose output is too large, or not known. [`graph::check`] looks at the typed graph before and after each step of its
//! optimization. [`Demand`] adds up, for the extents of a request, what each node of the optimized graph makes; and it holds up
//! the nodes whose extents depend on values (Range, TopK, NonZero) until their inputs are there, and asks them then.
//!
//! What counts is the largest tensor: at most [`max_tensor_bytes`]. All values that are alive at once may take
//! [`ALIVE_TENSORS`] times as much.

mod demand;
mod graph;
mod guard;
mod size;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;
use tract_onnx::pb;
use tract_onnx::tract_hir::internal::*;

pub(super) use demand::Demand;

use crate::model;

/// Most bytes of one tensor, unless [`set_max_tensor_bytes`] says otherwise.
pub const DEFAULT_TENSOR_BYTES: u64 = 1 << 30;
/// The values of a graph that are alive at once take at most as much as so many tensors.
pub(super) const ALIVE_TENSORS: u64 = 4;
/// Constants that a graph makes of its own take at most as much as so many times those that it was given, and one tensor.
const MADE_PER_GIVEN: u64 = 4;
/// Iterations of loops within loops, all together.
const MAX_ITERATIONS: u64 = 1 << 20;

static TENSOR_BYTES: AtomicU64 = AtomicU64::new(DEFAULT_TENSOR_BYTES);

/// Grants a tensor `bytes` in every graph that this process loads from now on.
pub fn set_max_tensor_bytes(bytes: u64) {
    TENSOR_BYTES.store(bytes, Ordering::Relaxed);
}

/// Most bytes that a tensor of a graph may take.
pub fn max_tensor_bytes() -> u64 {
    TENSOR_BYTES.load(Ordering::Relaxed)
}

/// More than a graph is granted. Nodes are named as the model names them, operators as ONNX does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Excess {
    /// One node makes too much.
    #[error("node {node:?} ({operator}) would take {bytes} bytes, a tensor is granted {max_bytes}")]
    Tensor { node: String, operator: String, bytes: u64, max_bytes: u64 },
    /// One node lays out too much beside what it makes.
    #[error("node {node:?} ({operator}) would take {bytes} bytes while it runs, it is granted {max_bytes}")]
    Buffers { node: String, operator: String, bytes: u64, max_bytes: u64 },
    /// The values that are alive at once are too many.
    #[error(
        "the values of the graph would take {bytes} bytes at once by node {node:?} ({operator}), they are granted {max_bytes}"
    )]
    Alive { node: String, operator: String, bytes: u64, max_bytes: u64 },
    /// The graph makes too many constants out of those that it has.
    #[error("with node {node:?} ({operator}) the graph makes constants of {bytes} bytes, it is granted {max_bytes}")]
    Constants { node: String, operator: String, bytes: u64, max_bytes: u64 },
    /// A loop, or loops within loops, that would run for too long.
    #[error("node {node:?} ({operator}) would run its body {iterations} times, at most {max} are granted")]
    Iterations { node: String, operator: String, iterations: u64, max: u64 },
    /// Nobody can say how much a node makes before it has.
    #[error("how much node {node:?} ({operator}) would make cannot be told beforehand")]
    Untold { node: String, operator: String },
}

/// What one graph may take.
#[derive(Debug)]
pub(super) struct Allowance {
    tensor_bytes: u64,
    /// Of constants that the graph makes.
    made_bytes: u64,
    /// The operator of each node by the name that tract gives the node.
    operators: HashMap<String, String>,
}

impl Allowance {
    /// What `model`, whose constants are in place, may take by the settings of the process.
    pub(super) fn of(model: &pb::ModelProto) -> Arc<Self> {
        let tensor_bytes = max_tensor_bytes();
        let graph = model.graph.iter();
        let given = graph.clone().flat_map(model::constant_tensors).map(|(_, tensor, _)| tensor.encoded_len() as u64);
        let made_bytes = given.sum::<u64>().saturating_mul(MADE_PER_GIVEN).saturating_add(tensor_bytes);
        let mut operators = HashMap::new();
        graph.for_each(|graph| collect_operators(graph, &mut operators));
        Arc::new(Self { tensor_bytes, made_bytes, operators })
    }

    /// The node of the model that `node`, a name of tract's, is or is part of, and its operator.
    fn label(&self, node: &str, operator: &str) -> (String, String) {
        let mut known = node;
        loop {
            if let Some(operator) = self.operators.get(known) {
                return (known.to_owned(), operator.clone());
            }
            match known.rsplit_once('.') {
                Some((head, _)) => known = head,
                None => return (node.to_owned(), operator.to_owned()),
            }
        }
    }

    /// The operator that the model has at `node`.
    fn operator<'a>(&'a self, node: &str, operator: &'a str) -> &'a str {
        self.operators.get(node).map_or(operator, String::as_str)
    }

    /// # Errors
    /// [`Excess::Tensor`] where `bytes` are more than a tensor is granted.
    fn admit(&self, node: &str, operator: &str, bytes: u64) -> Result<(), Excess> {
        if bytes <= self.tensor_bytes {
            return Ok(());
        }
        let (node, operator) = self.label(node, operator);
        Err(Excess::Tensor { node, operator, bytes, max_bytes: self.tensor_bytes })
    }

    /// # Errors
    /// [`Excess::Buffers`] where buffers of `bytes` are more than all tensors together are granted.
    fn admit_buffers(&self, node: &str, operator: &str, bytes: u64) -> Result<(), Excess> {
        let max_bytes = self.alive_bytes();
        if bytes <= max_bytes {
            return Ok(());
        }
        let (node, operator) = self.label(node, operator);
        Err(Excess::Buffers { node, operator, bytes, max_bytes })
    }

    /// Most bytes of all values that are alive at once.
    fn alive_bytes(&self) -> u64 {
        self.tensor_bytes.saturating_mul(ALIVE_TENSORS)
    }

    /// # Errors
    /// [`Excess::Constants`] where the graph may not make constants of `bytes`.
    fn admit_constants(&self, node: &str, operator: &str, bytes: u64) -> Result<(), Excess> {
        if bytes <= self.made_bytes {
            return Ok(());
        }
        let (node, operator) = self.label(node, operator);
        Err(Excess::Constants { node, operator, bytes, max_bytes: self.made_bytes })
    }

    fn untold(&self, node: &str, operator: &str) -> Excess {
        let (node, operator) = self.label(node, operator);
        Excess::Untold { node, operator }
    }
}

fn collect_operators(graph: &pb::GraphProto, operators: &mut HashMap<String, String>) {
    for node in &graph.node {
        // As tract's parser names nodes. Stand-ins of ours say themselves what they are.
        let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
        if let Some(name) = name.filter(|_| !node.op_type.starts_with("weightpress.")) {
            operators.insert(name.clone(), node.op_type.clone());
        }
        let subgraphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        subgraphs.for_each(|graph| collect_operators(graph, operators));
    }
}

/// Optimizes a parsed graph as tract does, within `allowance`.
///
/// # Errors
/// An [`Excess`], or tract's reason.
pub(super) fn optimize(mut model: InferenceModel, allowance: &Arc<Allowance>) -> TractResult<TypedModel> {
    guard::guard(&mut model, allowance);
    let mut model = model.into_typed()?;
    graph::check(&model, false, allowance)?;
    model.declutter()?;
    graph::check(&model, false, allowance)?;
    model.optimize()?;
    graph::check(&model, true, allowance)?;
    Ok(model)
}
