//! What the names, dims and nodes of a graph say, looked up by name: the ground on which constants are followed and folded.

use std::collections::{BTreeMap, HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::product::Product;
use crate::model::{Use, Weight, captured_names, constant_tensors, constant_value, is_standard, shape_of};
use crate::units::value::Number;
use crate::units::walk;

/// A graph and its weights.
pub(in crate::units) struct Facts<'a> {
    pub graph: &'a GraphProto,
    /// Of every value whose rank is known.
    pub extents: HashMap<&'a str, Vec<Number>>,
    /// The nodes that multiply by a weight, by their index.
    pub products: BTreeMap<usize, Product<'a>>,
    /// How often each value is read, subgraphs and outputs of the graph included, and by which node last.
    readers: HashMap<&'a str, (usize, Option<usize>)>,
    tensors: HashMap<&'a str, &'a TensorProto>,
    weights: HashMap<&'a str, &'a Weight>,
}

impl<'a> Facts<'a> {
    pub(in crate::units) fn of(graph: &'a GraphProto, weights: &'a [Weight]) -> Self {
        let mut readers: HashMap<&str, (usize, Option<usize>)> = HashMap::new();
        let mut read = |name, reader| {
            let (count, last) = readers.entry(name).or_default();
            (*count, *last) = (*count + 1, reader);
        };
        for (index, node) in graph.node.iter().enumerate() {
            node.input.iter().for_each(|name| read(name, Some(index)));
            captured_names(node).into_iter().for_each(|name| read(name, None));
        }
        graph.output.iter().for_each(|output| read(&output.name, None));
        let uses = weights.iter().flat_map(|weight| weight.uses.iter().map(move |usage| (weight, usage)));
        let product = |(weight, usage): (&'a Weight, &'a Use)| Some((usage.node, Product::of(graph, weight, usage)?));
        Self {
            graph,
            extents: walk::extents(graph),
            readers,
            products: uses.filter_map(product).collect(),
            tensors: constant_tensors(graph).map(|(name, tensor, _)| (name, tensor)).collect(),
            weights: weights.iter().map(|weight| (weight.name.as_str(), weight)).collect(),
        }
    }

    /// Whether rules may say something of what a node computes.
    pub(in crate::units) fn is_followed(&self, node: &NodeProto) -> bool {
        is_standard(node) && constant_value(node).is_none()
    }

    /// The node that reads a value, if nobody else does.
    pub(in crate::units) fn only_reader(&self, name: &str) -> Option<&'a NodeProto> {
        match self.readers.get(name)? {
            (1, Some(index)) => self.graph.node.get(*index),
            _ => None,
        }
    }

    /// The weight of this name.
    pub(in crate::units) fn weight(&self, name: &str) -> Option<&'a Weight> {
        self.weights.get(name).copied()
    }

    /// The constant of this name.
    pub(in crate::units) fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.tensors.get(name).copied()
    }

    /// The dims of a constant of floats.
    pub(super) fn float_dims(&self, name: &str) -> Option<Vec<usize>> {
        let (dims, element) = shape_of(self.tensor(name)?)?;
        element.float().map(|_| dims)
    }

    /// The elements of a short list of integers.
    pub(super) fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.tensor(name)?;
        let numbers = walk::numbers(tensor, &shape_of(tensor)?.0)?;
        let known = |number| match number {
            Number::Known(n) => Some(n),
            Number::Symbol(_) => None,
        };
        numbers.into_iter().map(known).collect()
    }

    /// `stem`, made different from every name in the graph and from those that were `taken`.
    pub(in crate::units) fn new_name(&self, stem: String, taken: &mut HashSet<String>) -> String {
        if taken.is_empty() {
            let nodes = self.graph.node.iter().flat_map(|node| node.input.iter().chain(&node.output));
            let captured = self.graph.node.iter().flat_map(captured_names).map(str::to_owned);
            let ports = self.graph.input.iter().chain(&self.graph.output).map(|value| value.name.clone());
            taken.extend(nodes.cloned().chain(captured).chain(ports));
            taken.extend(self.tensors.keys().map(|name| (*name).to_owned()));
            // Never an empty set again.
            taken.insert(String::new());
        }
        let names = std::iter::once(stem.clone()).chain((2..).map(|i: u64| format!("{stem}.{i}")));
        let free = names.into_iter().find(|name| !taken.contains(name)).unwrap_or(stem);
        taken.insert(free.clone());
        free
    }
}
