//! Which tensors of a graph are weights, and who reads each: found from names, dims and types alone, so that the
//! graph of an artifact, whose tensors are empty, gives the same answer as the uploaded model.
//!
//! One pass over the nodes resolves every value name to the constant behind it, through Identity, Transpose and Cast;
//! a second question, what each reader does with it, is answered by [`super::operators`].

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::element::{ElementType, shape_of};
use super::nested::{captured_names, nested_tensors};
use super::operators::{Operand, Reading, is_standard, reading};
use super::{Family, Kept, Role, Use, Weight};
use crate::tensor::{FloatType, Layout};

/// Finds the weights and the kept tensors of a graph, each in file order: initializers, then Constant nodes, then what
/// lies inside subgraphs and functions.
pub fn analyze(model: &ModelProto) -> (Vec<Weight>, Vec<Kept>) {
    let (weights, mut kept) = analyze_main(model);
    kept.extend(elsewhere(model));
    (weights, kept)
}

/// What [`analyze`] finds outside the main graph's own initializers and Constant nodes: names may repeat there, and may be
/// those of tensors in the main graph.
pub(super) fn elsewhere(model: &ModelProto) -> Vec<Kept> {
    let sparse = model.graph.iter().flat_map(|graph| &graph.sparse_initializer).filter_map(|sparse| {
        let values = sparse.values.as_ref()?;
        keep_tensor(values, values.name.clone(), "a sparse initializer".into())
    });
    sparse.chain(nested_tensors(model)).collect()
}

/// The part of [`analyze`] that is about the main graph, where every name stands for one tensor.
pub(super) fn analyze_main(model: &ModelProto) -> (Vec<Weight>, Vec<Kept>) {
    let mut weights = Vec::new();
    let mut kept = Vec::new();
    let Some(graph) = &model.graph else { return (weights, kept) };
    let constants = constants(graph);
    let (readers, chains) = find_readers(graph, &constants);
    for ((constant, readers), chain) in constants.iter().zip(&readers).zip(chains) {
        match classify(graph, constant, readers) {
            Ok(mut weight) => {
                if weight.role.is_compressed() {
                    weight.chain = chain;
                }
                weights.push(weight);
            }
            // A single number in a Constant node belongs to the graph, not to what was trained.
            Err(_) if constant.node.is_some() && constant.dims.iter().product::<usize>() == 1 => {}
            Err(reason) => kept.push(constant.keep(reason)),
        }
    }
    (weights, kept)
}

/// The tensor that a Constant node holds.
pub(crate) fn constant_value(node: &NodeProto) -> Option<&TensorProto> {
    node.attribute.iter().find_map(|a| a.t.as_ref()).filter(|_| node.op_type == "Constant")
}

/// Every tensor that may have been emptied or detached, by the name that [`Weight::name`] and [`Kept::name`] use: each
/// top-level initializer, and the tensor of each top-level Constant node under the node's output name. Fill in
/// `raw_data` to restore one.
pub fn constants_mut(model: &mut ModelProto) -> impl Iterator<Item = (String, &mut TensorProto)> {
    model.graph.as_mut().into_iter().flat_map(|graph| {
        let initializers = graph.initializer.iter_mut().map(|t| (t.name.clone(), t));
        initializers.chain(graph.node.iter_mut().filter(|n| n.op_type == "Constant").filter_map(|node| {
            let name = node.output.first()?.clone();
            Some((name, node.attribute.iter_mut().find_map(|a| a.t.as_mut())?))
        }))
    })
}

/// Describes `tensor` as kept; `None` if its dims or type make no sense.
pub(super) fn keep_tensor(tensor: &TensorProto, name: String, reason: String) -> Option<Kept> {
    let (dims, element) = shape_of(tensor)?;
    let elements = dims.iter().product();
    let strings = tensor.string_data.iter().map(|s| s.len() as u64).sum();
    let size_bytes = if element.bits == 0 { strings } else { element.size_bytes(elements)? };
    Some(Kept { name, dims, dtype: element.name.into(), size_bytes, reason })
}

/// A tensor of the main graph that is known before it runs.
struct Constant<'a> {
    name: &'a str,
    tensor: &'a TensorProto,
    dims: Vec<usize>,
    element: &'static ElementType,
    /// The Constant node that holds it; `None` for an initializer.
    node: Option<usize>,
}

impl Constant<'_> {
    fn keep(&self, reason: String) -> Kept {
        keep_tensor(self.tensor, self.name.into(), reason).expect("constants have sound dims and types")
    }
}

fn constants(graph: &GraphProto) -> Vec<Constant<'_>> {
    let with_shape = |(name, tensor, node)| {
        let (dims, element) = shape_of(tensor)?;
        Some(Constant { name, tensor, dims, element, node })
    };
    constant_tensors(graph).filter_map(with_shape).collect()
}

/// The initializers of a graph and the tensors of its Constant nodes, which have the node's output name and are found at
/// its index.
pub(crate) fn constant_tensors(graph: &GraphProto) -> impl Iterator<Item = (&str, &TensorProto, Option<usize>)> {
    let initializers = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor, None));
    let nodes = graph.node.iter().enumerate();
    let nodes =
        nodes.filter_map(|(index, node)| Some((node.output.first()?.as_str(), constant_value(node)?, Some(index))));
    initializers.chain(nodes)
}

/// What a value name stands for: a constant, perhaps transposed on the way.
#[derive(Clone, Copy)]
struct View {
    constant: usize,
    swapped: bool,
    /// Type after any casts; all of them widen, so no value has changed.
    dtype: FloatType,
}

/// Somebody who reads a constant.
enum Reader {
    /// An input of a node of the main graph.
    Input { node: usize, slot: usize, swapped: bool, both_constant: bool },
    /// A node's subgraph reads it from outside.
    Capture { node: usize },
    /// It is an output of the graph.
    Output,
}

/// The readers of each constant, in node order, and the nodes between it and them.
fn find_readers(graph: &GraphProto, constants: &[Constant]) -> (Vec<Vec<Reader>>, Vec<Vec<usize>>) {
    let mut readers: Vec<Vec<Reader>> = constants.iter().map(|_| Vec::new()).collect();
    let mut chains: Vec<Vec<usize>> = constants.iter().map(|c| c.node.into_iter().collect()).collect();
    let mut views: HashMap<&str, View> = HashMap::new();
    for (index, constant) in constants.iter().enumerate() {
        if let Some(dtype) = constant.element.float() {
            views.entry(constant.name).or_insert(View { constant: index, swapped: false, dtype });
        }
    }
    let names: HashSet<&str> = constants.iter().map(|constant| constant.name).collect();
    let outputs: HashSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    for (index, node) in graph.node.iter().enumerate() {
        if let Some((output, view)) = pass_through(node, &views, constants)
            && !outputs.contains(output)
            && !views.contains_key(output)
        {
            views.insert(output, view);
            chains[view.constant].push(index);
            continue;
        }
        let is_constant = |name: &&String| views.contains_key(name.as_str()) || names.contains(name.as_str());
        let constant_inputs = node.input.iter().take(2).filter(is_constant).count();
        for (slot, name) in node.input.iter().enumerate() {
            if let Some(&View { constant, swapped, .. }) = views.get(name.as_str()) {
                let both_constant = constant_inputs == 2;
                readers[constant].push(Reader::Input { node: index, slot, swapped, both_constant });
            }
        }
        for name in captured_names(node) {
            if let Some(view) = views.get(name) {
                readers[view.constant].push(Reader::Capture { node: index });
            }
        }
    }
    for output in &graph.output {
        if let Some(view) = views.get(output.name.as_str()) {
            readers[view.constant].push(Reader::Output);
        }
    }
    for chain in &mut chains {
        chain.sort_unstable();
    }
    (readers, chains)
}

/// The output of `node` as a view, where it hands a constant on without changing a value.
fn pass_through<'a>(
    node: &'a NodeProto,
    views: &HashMap<&str, View>,
    constants: &[Constant],
) -> Option<(&'a str, View)> {
    let view = *views.get(node.input.first()?.as_str())?;
    let output = node.output.first()?.as_str();
    let rank = constants[view.constant].dims.len();
    let attribute = |name: &str| node.attribute.iter().find(|a: &&AttributeProto| a.name == name);
    let view = match node.op_type.as_str() {
        _ if !is_standard(node) => return None,
        "Identity" => view,
        "Transpose" if rank == 2 => match attribute("perm").map(|a| a.ints.as_slice()) {
            None | Some([] | [1, 0]) => View { swapped: !view.swapped, ..view },
            Some([0, 1]) => view,
            _ => return None,
        },
        "Cast" => {
            let dtype = ElementType::from_onnx(attribute("to")?.i)?.float()?;
            View { dtype: widened(view.dtype, dtype)?, ..view }
        }
        _ => return None,
    };
    Some((output, view))
}

/// `to`, if it holds every value of `from`.
fn widened(from: FloatType, to: FloatType) -> Option<FloatType> {
    let exact = from == to || to == FloatType::F64 || to == FloatType::F32 && from.size_bytes() == 2;
    exact.then_some(to)
}

/// Makes a weight of `constant`, or says why it stays as it is.
fn classify(graph: &GraphProto, constant: &Constant, readers: &[Reader]) -> Result<Weight, String> {
    let Some(dtype) = constant.element.float() else { return Err(format!("{} tensor", constant.element.name)) };
    if constant.dims.contains(&0) {
        return Err("an empty tensor".into());
    }
    let mut verdict = Verdict::default();
    for reader in readers {
        verdict.hear(graph, constant, reader);
    }
    let layout = verdict.settle_layout();
    let Some((op, family)) = verdict.first else {
        return Err(verdict.parameter.unwrap_or_else(|| "read by no node".into()));
    };
    let uses = verdict.uses.into_iter().map(|(usage, _)| usage).collect();
    let (role, layout, uses) = match (layout, verdict.expanded.or(verdict.parameter)) {
        (Some(layout), None) if verdict.is_looked_up => (Role::Lookup, layout, uses),
        (Some(layout), None) => (Role::Product, layout, uses),
        (layout, Some(reason)) => (Role::Expanded { reason }, layout.unwrap_or(Layout::RowsFirst), Vec::new()),
        (None, None) => return Err("read by no node".into()),
    };
    Ok(Weight {
        name: constant.name.into(),
        op,
        dims: constant.dims.clone(),
        dtype,
        layout,
        family,
        role,
        uses,
        chain: Vec::new(),
    })
}

/// What the readers heard so far make of a constant.
#[derive(Default)]
struct Verdict {
    /// Operator and family of the first reader that takes it for a weight.
    first: Option<(String, Family)>,
    /// Those that take it in compressed form, each with the layout that suits it.
    uses: Vec<(Use, Layout)>,
    /// Whether one of them looks up rows.
    is_looked_up: bool,
    /// Why it must be expanded.
    expanded: Option<String>,
    /// Why it would stay as it is, were there no other readers.
    parameter: Option<String>,
}

impl Verdict {
    fn hear(&mut self, graph: &GraphProto, constant: &Constant, reader: &Reader) {
        let (node, reading, slot) = match *reader {
            Reader::Input { node, slot, swapped, both_constant } => {
                let operand = Operand { slot, dims: &constant.dims, swapped, both_constant };
                (node, reading(&graph.node[node], &operand), slot)
            }
            Reader::Capture { node } => {
                let reason = format!("read inside {}", graph.node[node].op_type);
                match constant.dims.len() {
                    0 | 1 => return self.keep(reason),
                    _ => (node, Reading::Weight { reason, family: Family::Dense }, 0),
                }
            }
            Reader::Output => return self.keep("an output of the graph".into()),
        };
        let op = graph.node[node].op_type.clone();
        match reading {
            Reading::Parameter { reason } => self.keep(reason),
            Reading::Weight { reason, family } => {
                self.first.get_or_insert((op, family));
                self.expanded.get_or_insert(reason);
            }
            Reading::Product { layout, family } => {
                self.first.get_or_insert((op, family));
                self.uses.push((Use { node, slot, transposed: false }, layout));
            }
            Reading::Lookup => {
                self.first.get_or_insert((op, Family::Dense));
                self.is_looked_up = true;
                self.uses.push((Use { node, slot, transposed: false }, Layout::RowsFirst));
            }
        }
    }

    /// The layout of the first product, or where rows are looked up, theirs; every use is told how it sees it.
    fn settle_layout(&mut self) -> Option<Layout> {
        use Layout::{RowsFirst, Transposed};
        let stored = if self.is_looked_up { RowsFirst } else { self.uses.first()?.1 };
        for (usage, layout) in &mut self.uses {
            usage.transposed = matches!((stored, *layout), (RowsFirst, Transposed) | (Transposed, RowsFirst));
            if stored != *layout && !usage.transposed {
                self.expanded.get_or_insert_with(|| "operators that need different layouts".into());
            }
        }
        Some(stored)
    }

    fn keep(&mut self, reason: String) {
        self.parameter.get_or_insert(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{constant, counting, graph, model, node, with_graph, with_int};
    use super::*;

    fn roles(nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> (Vec<Weight>, Vec<Kept>) {
        analyze(&model(graph(nodes, initializers)))
    }

    fn expanded(reason: &str) -> Role {
        Role::Expanded { reason: reason.into() }
    }

    #[test]
    fn chains_lead_back_to_the_weight_and_may_be_dropped() {
        let nodes = vec![
            constant("w", counting("", &[3, 4])),
            node("Identity", "w", "a"),
            node("Transpose", "a", "b"),
            with_int(node("Cast", "b", "c"), "to", 1),
            node("MatMul", "x c", "y"),
        ];
        let (weights, kept) = roles(nodes, vec![]);
        assert_eq!(kept, []);
        assert_eq!((weights[0].role.clone(), weights[0].layout), (Role::Product, Layout::RowsFirst));
        assert_eq!(weights[0].uses, [Use { node: 4, slot: 1, transposed: false }]);
        assert_eq!(weights[0].chain, [0, 1, 2, 3]);
    }

    #[test]
    fn a_weight_used_both_ways_is_stored_once() {
        let nodes = vec![node("MatMul", "x w", "h"), with_int(node("Gemm", "h w", "y"), "transB", 1)];
        let (weights, _) = roles(nodes, vec![counting("w", &[4, 4])]);
        assert_eq!(weights.len(), 1);
        assert_eq!(weights[0].layout, Layout::Transposed);
        let uses = weights[0].uses.iter().map(|u| u.transposed).collect::<Vec<_>>();
        assert_eq!(uses, [false, true]);
    }

    #[test]
    fn tied_embeddings_are_stored_by_the_rows_that_are_looked_up() {
        let gather = || node("Gather", "w ids", "h");
        let uses = |nodes| {
            let (weights, _) = roles(nodes, vec![counting("w", &[8, 4])]);
            assert_eq!((weights[0].role.clone(), weights[0].layout), (Role::Lookup, Layout::RowsFirst));
            (weights[0].uses.iter().map(|u| (u.node, u.transposed)).collect::<Vec<_>>(), weights[0].chain.clone())
        };
        let head = vec![gather(), node("Transpose", "w", "t"), node("MatMul", "h t", "y")];
        assert_eq!(uses(head), (vec![(0, false), (2, false)], vec![1]));
        // Whatever comes first: a product by the other side sees the transpose.
        assert_eq!(uses(vec![node("MatMul", "x w", "y"), gather()]), (vec![(0, true), (1, false)], vec![]));
        let cast = vec![with_int(node("Cast", "w", "c"), "to", 1), node("Gather", "c ids", "h")];
        assert_eq!(uses(cast), (vec![(1, false)], vec![0]));
    }

    #[test]
    fn a_gather_by_constant_indices_is_left_to_be_folded() {
        let ids = TensorProto { data_type: 7, raw_data: vec![0; 16], dims: vec![2], ..TensorProto::default() };
        let initializer = TensorProto { name: "ids".into(), ..ids.clone() };
        let gather = || node("Gather", "w ids", "h");
        for (nodes, more) in [(vec![gather()], vec![initializer]), (vec![constant("ids", ids), gather()], vec![])] {
            let (weights, _) = roles(nodes, [vec![counting("w", &[8, 4])], more].concat());
            assert_eq!(weights[0].role, expanded("Gather by constant indices"));
        }
    }

    #[test]
    fn any_other_reader_makes_a_weight_expand() {
        let moved = vec![node("Gather", "w ids", "h"), node("Einsum", "h w", "y")];
        let (weights, _) = roles(moved, vec![counting("w", &[8, 4])]);
        assert_eq!((weights[0].op.as_str(), weights[0].role.clone()), ("Gather", expanded("Einsum")));
        assert_eq!((weights[0].uses.len(), weights[0].chain.len()), (0, 0));

        let added = vec![node("MatMul", "x w", "h"), node("Add", "h w", "y")];
        let (weights, _) = roles(added, vec![counting("w", &[4, 4])]);
        assert_eq!(weights[0].role, expanded("read by Add as a bias or an element-wise constant"));

        let narrowed = vec![with_int(node("Cast", "w", "c"), "to", 10), node("MatMul", "x c", "y")];
        let (weights, _) = roles(narrowed, vec![counting("w", &[4, 4])]);
        assert_eq!(weights[0].role, expanded("Cast"));

        let permuted = vec![node("Transpose", "w", "t"), node("Conv", "x t", "y")];
        let (weights, _) = roles(permuted, vec![counting("w", &[4, 4, 3])]);
        assert_eq!(weights[0].role, expanded("Transpose"));
    }

    #[test]
    fn an_output_of_the_graph_must_keep_its_tensor() {
        let mut graph = graph(vec![node("MatMul", "x w", "y")], vec![counting("w", &[4, 4])]);
        graph.output.push(super::super::fixture::port("w", &[4, 4]));
        let (weights, _) = analyze(&model(graph));
        assert_eq!(weights[0].role, expanded("an output of the graph"));
    }

    #[test]
    fn what_lies_in_or_is_read_by_a_subgraph_is_named() {
        let inner = graph(vec![node("MatMul", "x v", "a"), node("MatMul", "a w", "b")], vec![counting("v", &[4, 4])]);
        let nodes = vec![with_graph(node("If", "condition", "y"), "then_branch", inner)];
        let (weights, kept) = roles(nodes, vec![counting("w", &[4, 4])]);
        assert_eq!(weights[0].role, expanded("read inside If"));
        assert_eq!((kept[0].name.as_str(), kept[0].reason.as_str()), ("v", "inside an If branch"));
    }

    #[test]
    fn tensors_that_are_no_weights_are_kept_with_their_reason() {
        let mut int8 = counting("q", &[2, 2]);
        int8.data_type = 3;
        int8.raw_data = vec![1; 4];
        let nodes = vec![
            node("DequantizeLinear", "q scale zero", "d"),
            node("MatMul", "x d", "h"),
            node("LayerNormalization", "h gamma", "n"),
            constant("one", counting("", &[1])),
            node("Mul", "n one", "y"),
        ];
        let initializers = vec![int8, counting("gamma", &[2]), counting("unused", &[2, 2]), counting("none", &[0, 2])];
        let (weights, kept) = roles(nodes, initializers);
        assert_eq!(weights, []);
        let reasons: Vec<_> = kept.iter().map(|k| (k.name.as_str(), k.reason.as_str())).collect();
        assert_eq!(
            reasons,
            [
                ("q", "int8 tensor"),
                ("gamma", "read by LayerNormalization as a parameter of the normalisation"),
                ("unused", "read by no node"),
                ("none", "an empty tensor"),
            ]
        );
    }
}
