//! Whether the nodes of a graph can run at all, as far as names and the groups of convolutions tell.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::error::ModelError;
use super::operators::{int, is_standard};

/// Fails when a node waits for a value that nothing produces, or for its own output, when nothing produces an output of
/// the graph, and when the groups of a convolution cannot divide its weight. What subgraphs read is not looked at.
pub(super) fn check(graph: &GraphProto) -> Result<(), ModelError> {
    let mut producers = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        producers.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), index)));
    }
    let given = given(graph);
    let is_known = |name: &str| name.is_empty() || given.contains(name) || producers.contains_key(name);
    for node in &graph.node {
        if let Some(input) = node.input.iter().find(|name| !is_known(name)) {
            return Err(ModelError::UndefinedInput { node: label(node), input: input.clone() });
        }
    }
    if let Some(output) = graph.output.iter().find(|output| !is_known(&output.name)) {
        return Err(ModelError::UndefinedOutput { output: output.name.clone() });
    }
    check_order(graph, &producers, &given)?;
    check_groups(graph)
}

/// Values that are there before a node runs.
fn given(graph: &GraphProto) -> HashSet<&str> {
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    let initializers = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str()));
    inputs.chain(initializers).chain(sparse).collect()
}

/// Lets every node run once what it reads is there; those that are left wait for each other.
fn check_order(graph: &GraphProto, producers: &HashMap<&str, usize>, given: &HashSet<&str>) -> Result<(), ModelError> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.node.len()];
    let mut waits_for = vec![0usize; graph.node.len()];
    for (index, node) in graph.node.iter().enumerate() {
        let awaited = node.input.iter().filter(|name| !given.contains(name.as_str()));
        for producer in awaited.filter_map(|name| producers.get(name.as_str())) {
            readers[*producer].push(index);
            waits_for[index] += 1;
        }
    }
    let mut ready: Vec<usize> = (0..graph.node.len()).filter(|&index| waits_for[index] == 0).collect();
    while let Some(index) = ready.pop() {
        for &reader in &readers[index] {
            waits_for[reader] -= 1;
            if waits_for[reader] == 0 {
                ready.push(reader);
            }
        }
    }
    match waits_for.iter().position(|&count| count > 0) {
        Some(index) => Err(ModelError::Cycle { node: label(&graph.node[index]) }),
        None => Ok(()),
    }
}

/// The outputs of a Conv, and the inputs of a ConvTranspose, are its weight's first dimension.
fn check_groups(graph: &GraphProto) -> Result<(), ModelError> {
    let weights: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    for node in &graph.node {
        if !is_standard(node) || !matches!(node.op_type.as_str(), "Conv" | "ConvTranspose") {
            continue;
        }
        let groups = int(node, "group").unwrap_or(1);
        let weight = node.input.get(1).and_then(|name| weights.get(name.as_str()));
        let channels = weight.and_then(|weight| weight.dims.first()).copied();
        if groups < 1 || channels.is_some_and(|channels| channels % groups != 0) {
            return Err(ModelError::Groups { node: label(node), groups, channels });
        }
    }
    Ok(())
}

/// The node's name, and its operator.
pub(super) fn label(node: &NodeProto) -> String {
    match node.name.as_str() {
        "" => format!("a node {}", node.op_type),
        name => format!("node {name:?} ({})", node.op_type),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{counting, graph, node, port, with_int};
    use super::*;

    fn fault(nodes: Vec<NodeProto>) -> Option<String> {
        let mut graph = graph(nodes, vec![counting("w", &[4, 2, 3])]);
        graph.input = vec![port("x", &[1, 4, 8])];
        graph.output = vec![port("y", &[1, 4, 8])];
        check(&graph).err().map(|error| error.to_string())
    }

    #[test]
    fn graphs_that_can_run_pass_in_any_order() {
        assert_eq!(fault(vec![node("Relu", "h", "y"), node("Conv", "x w", "h")]), None);
        assert_eq!(fault(vec![with_int(node("Conv", "x w", "y"), "group", 2)]), None);
        assert_eq!(fault(vec![node("Identity", "x", "y")]), None);
    }

    #[test]
    fn graphs_that_can_never_run_name_the_node() {
        let cases = [
            (vec![node("Conv", "x v", "y")], "a node Conv reads \"v\", which nothing produces"),
            (vec![node("Conv", "x w", "h")], "nothing produces the graph's output \"y\""),
            (vec![node("Add", "x b", "y"), node("Relu", "y", "b")], "a node Add waits for its own output"),
            (vec![node("Add", "x y", "y")], "a node Add waits for its own output"),
            (
                vec![with_int(node("Conv", "x w", "y"), "group", 3)],
                "a node Conv has 3 groups, its weight 4 channels to divide among them",
            ),
        ];
        for (nodes, message) in cases {
            assert_eq!(fault(nodes).as_deref(), Some(message));
        }
        for groups in [0, -1] {
            assert!(fault(vec![with_int(node("Conv", "x w", "y"), "group", groups)]).is_some(), "{groups}");
        }
    }
}
