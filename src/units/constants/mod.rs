//! What does not depend on the input of a graph: for each value, which positions of one axis hold a known number, the same
//! wherever the other axes are.
//!
//! Pruning leaves rows of zeros, so units that are their bias, or what an activation makes of it. An abstract interpretation
//! follows such numbers from node to node, in f64 and from the weights as they are stored; a rule per operator says what it makes
//! of them. What no rule proves is not constant.
//!
//! # Source
//! Cousot and Cousot, "Abstract interpretation", POPL 1977: this is constant propagation, with the units of an axis as variables.

mod arithmetic;
mod facts;
mod product;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::rc::Rc;

use super::value::{Node, Number};
use crate::tensor::Matrix;

pub(super) use facts::Facts;
pub(super) use product::Product;

/// Most numbers that are worked out in all: a bound on memory and time for graphs made to exhaust them.
const BUDGET: usize = 1 << 24;

/// Most nodes that may multiply by one weight, which is read anew for each.
pub(super) const MAX_USES: usize = 16;

/// The numbers along an axis of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub axis: usize,
    /// `None` where a position depends on the input.
    pub values: Rc<[Option<f64>]>,
}

impl Known {
    fn new(axis: usize, values: Vec<Option<f64>>) -> Self {
        Self { axis, values: values.into_iter().map(|value| value.filter(is_sound)).collect() }
    }

    fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }
}

/// Whether the runtime, which computes in f32, has this number too.
fn is_sound(value: &f64) -> bool {
    (*value as f32).is_finite()
}

/// What is known of the values of a graph, by name.
pub(super) type Constants<'a> = HashMap<&'a str, Known>;

/// Follows constants through a graph. `load` gives a constant of the graph as it is stored: a weight as its matrix, any other
/// tensor as one row; `None` for what is not known.
///
/// # Errors
/// Those of `load`.
pub(super) fn find<'a, E>(
    facts: &Facts<'a>,
    load: &mut dyn FnMut(&str) -> Result<Option<Matrix>, E>,
) -> Result<Constants<'a>, E> {
    let mut walk = Walk { facts, load, known: HashMap::new(), spent: 0 };
    for (index, node) in facts.graph.node.iter().enumerate() {
        let [output] = &node.output[..] else { continue };
        if !facts.is_followed(node) || walk.known.contains_key(output.as_str()) {
            continue;
        }
        if let Some(known) = walk.node(index, Node(node))?.filter(|known| !known.is_empty()) {
            walk.known.insert(output, known);
        }
    }
    Ok(walk.known)
}

struct Walk<'w, 'a, E> {
    facts: &'w Facts<'a>,
    load: &'w mut dyn FnMut(&str) -> Result<Option<Matrix>, E>,
    known: Constants<'a>,
    /// Of [`BUDGET`].
    spent: usize,
}

impl<'a, E> Walk<'_, 'a, E> {
    /// What is known of the output of a node. A value that is read before it is there is not known.
    fn node(&mut self, index: usize, node: Node<'a>) -> Result<Option<Known>, E> {
        match node.0.op_type.as_str() {
            "Gemm" | "MatMul" | "Conv" => return self.product(index, node),
            "BatchNormalization" => return self.batch_normalization(node),
            "Add" | "Sub" | "Mul" | "Div" | "PRelu" => return self.broadcast(node),
            "Clip" => return self.clip(node),
            "Gather" => return self.gather(node),
            "Concat" => return Ok(self.concat(node)),
            _ => {}
        }
        let Some(x) = self.input(node, 0).cloned() else { return Ok(None) };
        if !self.afford(x.values.len()) {
            return Ok(None);
        }
        let extents = |name: &String| self.facts.extents.get(name.as_str()).map(Vec::as_slice);
        let (from, to) = (node.0.input.first().and_then(extents), node.0.output.first().and_then(extents));
        Ok(match node.0.op_type.as_str() {
            "MaxPool" | "AveragePool" => shape::pool(node, &x),
            "GlobalMaxPool" | "GlobalAveragePool" => (x.axis == 1).then_some(x),
            "ReduceMean" | "ReduceMax" | "ReduceMin" => shape::reduce(node, &x, from, self.integers(node, 1)),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => shape::regroup(&x, from, to, BUDGET - self.spent),
            "Transpose" => shape::transpose(node, &x, from),
            _ => arithmetic::unary(node).map(|function| each(&x, function)),
        })
    }

    /// What is known of input `slot` of a node.
    fn input(&self, node: Node, slot: usize) -> Option<&Known> {
        self.known.get(node.0.input.get(slot)?.as_str())
    }

    /// The extents of input `slot` of a node.
    fn extents(&self, node: Node, slot: usize) -> Option<&[Number]> {
        Some(self.facts.extents.get(node.0.input.get(slot)?.as_str())?)
    }

    /// The integers in a constant that is input `slot` of a node: an empty list where it is left out, `None` where they are not
    /// known.
    fn integers(&self, node: Node, slot: usize) -> Option<Vec<i64>> {
        match node.0.input.get(slot).filter(|name| !name.is_empty()) {
            Some(name) => self.facts.integers(name),
            None => Some(Vec::new()),
        }
    }

    /// A constant that has one number, or `len`, along `axis` of `rank`, and none along others.
    fn vector(&mut self, name: &str, (axis, rank): (usize, usize), len: usize) -> Result<Option<Vec<f64>>, E> {
        let Some(dims) = self.facts.float_dims(name).filter(|dims| dims.len() <= rank) else { return Ok(None) };
        let shift = rank - dims.len();
        let fits = |(i, &dim): (usize, &usize)| dim == 1 || i + shift == axis && dim == len;
        if !dims.iter().enumerate().all(fits) || !self.afford(len) {
            return Ok(None);
        }
        let Some(matrix) = (self.load)(name)? else { return Ok(None) };
        let cells = matrix.rows() * matrix.cols();
        Ok(match cells {
            1 => Some(vec![matrix.value(0); len]),
            _ => (cells == len).then(|| (0..len).map(|i| matrix.value(i)).collect()),
        })
    }

    /// Whether `len` more numbers may be worked out.
    fn afford(&mut self, len: usize) -> bool {
        self.spent = self.spent.saturating_add(len);
        self.spent < BUDGET
    }
}

/// The same positions, of other numbers.
fn each(x: &Known, function: impl Fn(f64) -> f64) -> Known {
    Known::new(x.axis, x.values.iter().map(|value| value.map(&function)).collect())
}
