//! Constant units taken out of a graph: what each would always have added to a product goes into the product's bias.
//!
//! A unit may go where every product that sums over it can do without: it is zero there, or the product has, or may be given, a
//! bias for each of its outputs. A product that leaves inputs out at a border can do without zeros only.

use std::collections::{BTreeMap, HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

use super::constants::{self, Constants, Facts, MAX_USES, Product};
use super::{Member, UnitGroup};
use crate::model::Weight;
use crate::tensor::{FloatType, Matrix};

/// What a new bias takes beside its elements, about: a node, an entry, names.
const NEW_BIAS_BYTES: usize = 64;

/// Which units are constant and go, and where what they were is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folds {
    /// For each group, the units that go.
    pub units: Vec<Vec<u32>>,
    /// What is added to the elements of float32 constants that are there already.
    added: BTreeMap<String, Vec<f64>>,
    /// In the order of their nodes.
    biases: Vec<NewBias>,
}

/// A bias for a node that has none.
#[derive(Debug, Clone, PartialEq)]
struct NewBias {
    node: usize,
    name: String,
    /// What the sum is called before the bias is added, where that takes a node of its own.
    sum: String,
    values: Vec<f32>,
    /// The weight, and its axis that has as many positions.
    weight: String,
    axis: usize,
}

/// The graph as far as it is needed to look for constant units.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// Without the elements of large tensors.
    pub graph: &'a GraphProto,
    /// What products multiply by.
    pub weights: &'a [Weight],
    /// As [`analyze`](super::analyze) finds them.
    pub groups: &'a [UnitGroup],
    /// For each group, the units that some product reads.
    pub read: &'a [Vec<u32>],
    /// Constants that stay as they are.
    pub fixed: &'a HashSet<String>,
}

/// Finds the units that are constant and can go, all but one of each group at most. `load` gives a constant of the graph as it is
/// stored: a weight as its matrix, any other tensor as one row; `None` for what is not known.
///
/// # Errors
/// Those of `load`.
pub fn find_constants<E>(search: Search, load: &mut dyn FnMut(&str) -> Result<Option<Matrix>, E>) -> Result<Folds, E> {
    let none = Folds { units: vec![Vec::new(); search.groups.len()], ..Folds::default() };
    if !search.groups.iter().any(is_open) {
        return Ok(none);
    }
    let facts = Facts::of(search.graph, search.weights);
    let constants = constants::find(&facts, load)?;
    let folder = Folder::new(&facts, &constants, search.fixed);
    let mut folds = none.clone();
    for ((group, read), units) in search.groups.iter().zip(search.read).zip(&mut folds.units) {
        if is_open(group) {
            *units = folder.units(group, read, load)?;
        }
    }
    Ok(if folder.fold(search.groups, &mut folds, load)? { folds } else { none })
}

fn is_open(group: &UnitGroup) -> bool {
    group.fixed_size.is_none() && group.members.iter().any(|member| member.is_summed)
}

/// Where a product keeps what constant units add to it.
enum Sink<'a> {
    /// A constant that is there.
    Tensor(&'a str),
    New,
}

struct Folder<'f, 'a> {
    facts: &'f Facts<'a>,
    constants: &'f Constants<'a>,
    fixed: &'f HashSet<String>,
    by_weight: HashMap<&'a str, Vec<Product<'a>>>,
}

/// A member, and the units that go from it.
type Loss<'a> = (&'a Member, &'a [u32]);

/// What can be done with one unit.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Stays,
    /// Some product needs a new bias.
    NeedsBias,
    Goes,
}

impl<'f, 'a> Folder<'f, 'a> {
    fn new(facts: &'f Facts<'a>, constants: &'f Constants<'a>, fixed: &'f HashSet<String>) -> Self {
        let mut by_weight: HashMap<&str, Vec<Product>> = HashMap::new();
        for product in facts.products.values() {
            by_weight.entry(&product.weight.name).or_default().push(*product);
        }
        Self { facts, constants, fixed, by_weight }
    }

    /// The products that sum over a member's axis; none where some reader of its tensor is not a product, or there are too many.
    fn products(&self, member: &Member) -> impl Iterator<Item = &Product<'a>> {
        let of_weight = self.by_weight.get(member.tensor.as_str()).map_or(&[][..], Vec::as_slice);
        let is_whole = of_weight
            .first()
            .is_some_and(|product| product.weight.uses.len() == of_weight.len() && of_weight.len() <= MAX_USES);
        of_weight.iter().filter(move |product| is_whole && product.weight_axis() == member.axis)
    }

    /// What is known of the axis that `product` sums over.
    fn inputs(&self, product: &Product<'a>) -> Option<&'f [Option<f64>]> {
        let known = self.constants.get(product.input())?;
        let rank = self.facts.extents.get(product.input())?.len();
        (product.summed_axis(rank) == Some(known.axis)).then_some(&known.values)
    }

    /// The units of a group, of those that are read, that can go.
    fn units<E>(
        &self,
        group: &UnitGroup,
        read: &[u32],
        load: &mut dyn FnMut(&str) -> Result<Option<Matrix>, E>,
    ) -> Result<Vec<u32>, E> {
        let verdicts = self.verdicts(group);
        let of = |unit: &u32| verdicts[*unit as usize];
        let mut units: Vec<u32> = read.iter().copied().filter(|unit| of(unit) != Verdict::Stays).collect();
        if units.iter().any(|unit| of(unit) == Verdict::NeedsBias) && !self.pays(group, &units, &verdicts, load)? {
            units.retain(|unit| of(unit) == Verdict::Goes);
        }
        // One stays, so that no axis is empty.
        if units.len() == read.len() && !units.is_empty() {
            units.remove(0);
        }
        Ok(units)
    }

    fn verdicts(&self, group: &UnitGroup) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Goes; group.units];
        for member in group.members.iter().filter(|member| member.is_summed) {
            let mut products = self.products(member).peekable();
            if products.peek().is_none() {
                return vec![Verdict::Stays; group.units];
            }
            for product in products {
                let inputs = self.inputs(product).filter(|inputs| inputs.len() == member.len);
                let Some(inputs) = inputs else { return vec![Verdict::Stays; group.units] };
                let sink = self.sink(product);
                for (verdict, positions) in verdicts.iter_mut().zip(inputs[member.start..].chunks(member.block)) {
                    let now = match (positions.iter().all(Option::is_some), &sink) {
                        (false, _) => Verdict::Stays,
                        (true, _) if positions.iter().flatten().all(|value| *value == 0.0) => Verdict::Goes,
                        (true, None) => Verdict::Stays,
                        (true, Some(Sink::New)) => Verdict::NeedsBias,
                        (true, Some(Sink::Tensor(_))) => Verdict::Goes,
                    };
                    *verdict = match (*verdict, now) {
                        (Verdict::Stays, _) | (_, Verdict::Stays) => Verdict::Stays,
                        (Verdict::Goes, now) => now,
                        (Verdict::NeedsBias, _) => Verdict::NeedsBias,
                    };
                }
            }
        }
        verdicts
    }

    /// Whether the weights of units that need new biases, at a byte each, and their parameters take more bytes than those biases.
    fn pays<E>(
        &self,
        group: &UnitGroup,
        units: &[u32],
        verdicts: &[Verdict],
        load: &mut dyn FnMut(&str) -> Result<Option<Matrix>, E>,
    ) -> Result<bool, E> {
        let needy: Vec<u32> = units.iter().copied().filter(|&u| verdicts[u as usize] == Verdict::NeedsBias).collect();
        let (mut gain, mut cost) = (0usize, 0usize);
        for member in &group.members {
            if !member.is_summed {
                let is_kept = self.facts.weight(&member.tensor).is_none();
                gain += if is_kept { size_of::<f32>() * member.block * needy.len() } else { 0 };
                continue;
            }
            for product in self.products(member).filter(|product| matches!(self.sink(product), Some(Sink::New))) {
                cost += size_of::<f32>() * product.outputs() + NEW_BIAS_BYTES;
                let goes = positions(member, &needy);
                if let Some(matrix) = load(&member.tensor)? {
                    product.each_term(&matrix, |_, input, _| gain += usize::from(goes[input]));
                }
            }
        }
        Ok(gain > cost)
    }

    /// Works out what the units that go add to each product. False where that is beyond float32.
    fn fold<E>(
        &self,
        groups: &[UnitGroup],
        folds: &mut Folds,
        load: &mut dyn FnMut(&str) -> Result<Option<Matrix>, E>,
    ) -> Result<bool, E> {
        let mut taken = HashSet::new();
        let mut losses: HashMap<(&str, usize), Vec<Loss>> = HashMap::new();
        for (group, units) in groups.iter().zip(&folds.units).filter(|(_, units)| !units.is_empty()) {
            for member in group.members.iter().filter(|member| member.is_summed) {
                losses.entry((&member.tensor, member.axis)).or_default().push((member, units));
            }
        }
        for (&index, product) in &self.facts.products {
            let lost = losses.get(&(product.weight.name.as_str(), product.weight_axis()));
            let Some(amounts) = lost.and_then(|lost| self.amounts(product, lost)) else { continue };
            let (Some(sink), Some(matrix)) = (self.sink(product), load(&product.weight.name)?) else {
                return Ok(false);
            };
            let mut sums = vec![0.0; product.outputs()];
            product.each_term(&matrix, |output, input, weight| sums[output] += weight * amounts[input]);
            let factor = product.alpha() / product.beta();
            sums.iter_mut().for_each(|sum| *sum *= factor);
            if !sums.iter().all(|sum| (*sum as f32).is_finite()) {
                return Ok(false);
            }
            match sink {
                Sink::Tensor(name) => {
                    folds.added.insert(name.to_owned(), sums);
                }
                Sink::New => folds.biases.push(NewBias {
                    node: index,
                    name: self.facts.new_name(format!("{}.bias", product.weight.name), &mut taken),
                    sum: self.facts.new_name(format!("{}.sum", product.node.0.output[0]), &mut taken),
                    values: sums.into_iter().map(|sum| sum as f32 + 0.0).collect(),
                    weight: product.weight.name.clone(),
                    axis: 1 - product.weight_axis(),
                }),
            }
        }
        Ok(true)
    }

    /// The constants that `product` loses with the units of `lost`, position by position, and 0 elsewhere; `None` where it loses nothing but zeros.
    fn amounts(&self, product: &Product<'a>, lost: &[Loss]) -> Option<Vec<f64>> {
        let inputs = self.inputs(product)?;
        let mut amounts = vec![0.0; inputs.len()];
        for (member, units) in lost {
            for (position, _) in positions(member, units).into_iter().enumerate().filter(|(_, goes)| *goes) {
                amounts[position] = inputs[position].unwrap_or(0.0);
            }
        }
        amounts.iter().any(|amount| *amount != 0.0).then_some(amounts)
    }

    /// Where `product` can keep a constant for each of its outputs.
    fn sink(&self, product: &Product<'a>) -> Option<Sink<'a>> {
        if !product.is_sum() || product.beta() == 0.0 {
            return None;
        }
        let outputs = product.outputs();
        let node = product.node.0;
        if node.op_type == "MatMul" {
            return match self.addend(&node.output[0], outputs) {
                Some(bias) => Some(Sink::Tensor(bias)),
                None => is_float32(product, self.facts).then_some(Sink::New),
            };
        }
        match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(bias) => self.is_bias(bias, outputs).then_some(Sink::Tensor(bias)),
            None => is_float32(product, self.facts).then_some(Sink::New),
        }
    }

    /// The bias that the only reader of `sum` adds to it.
    fn addend(&self, sum: &str, outputs: usize) -> Option<&'a str> {
        let reader = self.facts.only_reader(sum).filter(|node| node.op_type == "Add")?;
        let bias = reader.input.iter().find(|name| *name != sum)?;
        (reader.input.len() == 2 && self.facts.is_followed(reader) && self.is_bias(bias, outputs)).then_some(bias)
    }

    /// Whether `name` is a float32 constant of a number for each output that nobody else reads.
    fn is_bias(&self, name: &str, outputs: usize) -> bool {
        let fits = |tensor: &TensorProto| {
            let dims = tensor.dims.split_last().filter(|(_, rest)| rest.iter().all(|&dim| dim == 1));
            let fits = dims.is_some_and(|(&last, _)| usize::try_from(last) == Ok(outputs));
            fits && tensor.data_type == DataType::Float as i32
        };
        self.facts.weight(name).is_none()
            && !self.fixed.contains(name)
            && self.facts.only_reader(name).is_some()
            && self.facts.tensor(name).is_some_and(fits)
    }
}

/// A vector of float32 among the inputs of a graph.
fn listed(name: &str, len: usize) -> ValueInfoProto {
    let dim = Dimension { value: Some(dimension::Value::DimValue(len as i64)), ..Dimension::default() };
    let shape = Some(TensorShapeProto { dim: vec![dim] });
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

/// Whether a product computes in float32, as its weight is.
fn is_float32(product: &Product, facts: &Facts) -> bool {
    let is_cast = |&index: &usize| facts.graph.node.get(index).is_none_or(|node| node.op_type == "Cast");
    product.weight.dtype == FloatType::F32 && !product.weight.chain.iter().any(is_cast)
}

/// Which positions of a member's axis are those of `units`.
fn positions(member: &Member, units: &[u32]) -> Vec<bool> {
    let mut positions = vec![false; member.len];
    for &unit in units {
        positions[member.start + unit as usize * member.block..][..member.block].fill(true);
    }
    positions
}

impl Folds {
    /// Adds to the elements of the constant `name`, where they are here and it takes up what was constant.
    pub fn add(&self, name: &str, bytes: &mut [u8]) {
        let Some(added) = self.added.get(name).filter(|added| added.len() * size_of::<f32>() == bytes.len()) else {
            return;
        };
        for (bytes, added) in bytes.as_chunks_mut().0.iter_mut().zip(added) {
            // Not -0.0.
            let sum = (f64::from(f32::from_le_bytes(*bytes)) + added) as f32 + 0.0;
            *bytes = sum.to_le_bytes();
        }
    }

    /// Whether something is added to the constant `name`.
    pub fn contain(&self, name: &str) -> bool {
        self.added.contains_key(name)
    }

    /// The elements of a bias that is made, all units still there.
    pub fn new_bias(&self, name: &str) -> Option<&[f32]> {
        self.biases.iter().find(|bias| bias.name == name).map(|bias| bias.values.as_slice())
    }

    /// Gives the nodes of the graph that need one a bias, all of whose units are still there.
    pub fn edit(&self, graph: &mut GraphProto) {
        // Older files list initializers among the inputs.
        let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        let is_listed = graph.initializer.iter().any(|tensor| inputs.contains(tensor.name.as_str()));
        // From the last on: a node that is put in moves those behind it.
        for NewBias { node: index, name, sum, values, .. } in self.biases.iter().rev() {
            let Some(node) = graph.node.get_mut(*index) else { continue };
            match (node.op_type.as_str(), node.output.first_mut()) {
                ("MatMul", Some(output)) => {
                    let output = std::mem::replace(output, sum.clone());
                    let (input, output) = (vec![sum.clone(), name.clone()], vec![output]);
                    let add = NodeProto { op_type: "Add".into(), input, output, ..NodeProto::default() };
                    graph.node.insert(index + 1, add);
                }
                _ => {
                    node.input.truncate(2);
                    node.input.push(name.clone());
                }
            }
            if is_listed {
                graph.input.push(listed(name, values.len()));
            }
            graph.initializer.push(TensorProto {
                name: name.clone(),
                dims: vec![values.len() as i64],
                data_type: DataType::Float as i32,
                raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                ..TensorProto::default()
            });
        }
    }

    /// `group` with its places in the new biases.
    pub fn with_biases(&self, group: &UnitGroup) -> UnitGroup {
        let mut group = group.clone();
        for bias in &self.biases {
            let here = |m: &&Member| m.tensor == bias.weight && m.axis == bias.axis;
            let places: Vec<Member> = group.members.iter().filter(here).cloned().collect();
            let place = |member| Member { tensor: bias.name.clone(), axis: 0, is_summed: false, ..member };
            group.members.extend(places.into_iter().map(place));
        }
        group
    }
}
