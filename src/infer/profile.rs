//! Where the time of a run goes: into the operators of each layer, and into the rest of the graph.
//!
//! The engine optimizes a graph before it runs it: a convolution becomes a few operators whose names begin with the
//! convolution's, or with that of the activation behind it, which it computes on the way. That is how the time of an
//! operator finds its layer, whether its weight is compressed or dense: a layer is a product and the element-wise
//! operators behind it, or the Gather of an embedding alone.

use std::collections::HashMap;
use std::time::Duration;

use tract_onnx::pb;

use crate::model;

/// What stands between the name of a node and what the engine adds to it.
const SEPARATORS: [char; 2] = ['.', '#'];

/// The time of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Of each layer that is multiplied or looked up, in the order of [`Predictor::layers`](super::Predictor::layers); the element-wise
    /// operators behind it included.
    pub layers: Vec<Duration>,
    /// Of all other operators.
    pub graph: Duration,
}

/// The layers that a graph multiplies by or looks up, and the nodes that do it.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Of the weights, in file order.
    pub(super) names: Vec<String>,
    /// Index into `names`, by the name that the engine gives a node.
    by_node: HashMap<String, usize>,
}

impl Layers {
    /// Those of a graph that was not rewritten yet.
    pub(super) fn of(model: &pb::ModelProto) -> Self {
        let mut layers = Self::default();
        let Some(graph) = &model.graph else { return layers };
        let (weights, _) = model::analyze(model);
        for weight in weights.into_iter().filter(|weight| weight.role.is_compressed()) {
            let nodes = weight.uses.iter().filter_map(|usage| graph.node.get(usage.node));
            let index = layers.names.len();
            layers.by_node.extend(nodes.filter_map(engine_name).map(|name| (name.to_owned(), index)));
            layers.names.push(weight.name);
        }
        let readers = readers(graph);
        let products = graph.node.iter().filter(|node| node.op_type != "Gather");
        let products = products.filter_map(|node| Some((node, *layers.by_node.get(engine_name(node)?)?)));
        for (product, layer) in products.collect::<Vec<_>>() {
            layers.add_followers(&readers, product, layer);
        }
        layers
    }

    /// Gives `layer` the chain of element-wise operators behind `product`, as far as nothing else reads what is between.
    fn add_followers(&mut self, readers: &HashMap<&str, Vec<&pb::NodeProto>>, product: &pb::NodeProto, layer: usize) {
        let mut last = product;
        while let Some(reader) = only_reader(readers, last).filter(|reader| is_element_wise(&reader.op_type)) {
            let Some(name) = engine_name(reader).filter(|name| !self.by_node.contains_key(*name)) else { return };
            self.by_node.insert(name.to_owned(), layer);
            last = reader;
        }
    }

    /// No time spent yet.
    pub(super) fn profile(&self) -> Profile {
        Profile { layers: vec![Duration::ZERO; self.names.len()], graph: Duration::ZERO }
    }

    /// Adds the time that the operator `node` took.
    pub(super) fn add(&self, profile: &mut Profile, node: &str, time: Duration) {
        match self.layer_of(node) {
            Some(layer) => profile.layers[layer] += time,
            None => profile.graph += time,
        }
    }

    /// The layer whose node has the longest name that `node` is, or begins with.
    fn layer_of(&self, node: &str) -> Option<usize> {
        let mut name = node;
        loop {
            if let Some(&layer) = self.by_node.get(name) {
                return Some(layer);
            }
            name = &name[..name.rfind(SEPARATORS)?];
        }
    }
}

/// The nodes that read each value.
fn readers(graph: &pb::GraphProto) -> HashMap<&str, Vec<&pb::NodeProto>> {
    let mut readers: HashMap<_, Vec<_>> = HashMap::new();
    for node in &graph.node {
        node.input.iter().for_each(|input| readers.entry(input.as_str()).or_default().push(node));
    }
    readers
}

/// The node that alone reads what `node` returns.
fn only_reader<'a>(readers: &HashMap<&str, Vec<&'a pb::NodeProto>>, node: &pb::NodeProto) -> Option<&'a pb::NodeProto> {
    match readers.get(node.output.first()?.as_str())?.as_slice() {
        [reader] => Some(reader),
        _ => None,
    }
}

/// Whether the engine can fuse an operator of this type into the product before it.
fn is_element_wise(op_type: &str) -> bool {
    let activation = matches!(op_type, "Clip" | "Elu" | "Gelu" | "LeakyRelu" | "PRelu" | "Relu" | "Selu" | "Softplus");
    let bounded = matches!(op_type, "HardSigmoid" | "HardSwish" | "Sigmoid" | "Tanh");
    let affine = matches!(op_type, "Add" | "BatchNormalization" | "Div" | "Mul" | "Sub");
    activation || bounded || affine || matches!(op_type, "Cast" | "Dropout" | "Identity")
}

/// What the engine's parser calls a node: by its name or else by its first output.
fn engine_name(node: &pb::NodeProto) -> Option<&str> {
    let names = [Some(&node.name), node.output.first()];
    names.into_iter().flatten().find(|name| !name.is_empty()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::{counting, floats, graph, model, node};

    #[test]
    fn a_layer_is_a_product_and_the_element_wise_operators_behind_it() {
        // Two branches read `a`, so their operators are nobody's; `y` and `z` belong to the second layer.
        let nodes = vec![
            node("MatMul", "x w", "h"),
            node("Relu", "h", "a"),
            node("Tanh", "a", "left"),
            node("MatMul", "a v", "y"),
            node("Add", "y left", "z"),
            node("Softmax", "z", "out"),
        ];
        let weights = vec![floats("w", &[2, 2], &[1.0; 4]), floats("v", &[2, 2], &[1.0; 4])];
        let layers = Layers::of(&model(graph(nodes, weights)));
        assert_eq!(layers.names, ["w", "v"]);
        let of = ["h", "a", "left", "y", "z", "out"].map(|node| layers.layer_of(node));
        assert_eq!(of, [Some(0), Some(0), None, Some(1), Some(1), None]);
    }

    #[test]
    fn an_embedding_is_a_layer_without_what_stands_behind_it() {
        let nodes = vec![node("Gather", "e ids", "h"), node("Add", "h p", "a"), node("MatMul", "a w", "y")];
        let layers = Layers::of(&model(graph(nodes, vec![counting("e", &[5, 2]), counting("w", &[2, 2])])));
        assert_eq!(layers.names, ["e", "w"]);
        assert_eq!(
            ["h", "h.cast_to_i64", "a", "y"].map(|node| layers.layer_of(node)),
            [Some(0), Some(0), None, Some(1)]
        );
    }

    #[test]
    fn an_operator_belongs_to_the_node_that_its_name_begins_with() {
        let names = ["/features/0.conv", "/features/0.conv.2"].map(str::to_owned);
        let by_node = names.iter().cloned().zip(0..).collect();
        let layers = Layers { names: names.to_vec(), by_node };
        for (node, layer) in [
            ("/features/0.conv", Some(0)),
            ("/features/0.conv.im2col#3", Some(0)),
            ("/features/0.conv.2.matmul", Some(1)),
            ("/features/0.convolution", None),
            ("relu", None),
        ] {
            assert_eq!(layers.layer_of(node), layer, "{node}");
        }
        let mut profile = layers.profile();
        layers.add(&mut profile, "/features/0.conv.2", Duration::from_micros(3));
        layers.add(&mut profile, "relu", Duration::from_micros(1));
        assert_eq!(profile.layers, [Duration::ZERO, Duration::from_micros(3)]);
        assert_eq!(profile.graph, Duration::from_micros(1));
    }
}
