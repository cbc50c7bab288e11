//! Hidden units that nobody reads taken out, and the others put in an order that takes fewer bytes: which groups of units may
//! change, what becomes of them, and every tensor rearranged to it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{ModelProto, TensorProto, ValueInfoProto, type_proto};

use super::layer::Task;
use super::meter::Meter;
use super::spool::{Spool, Spooled};
use super::{CompressError, Encode, FreeUnits, Goal, LayerSettings, Recipe};
use crate::artifact::ArtifactError;
use crate::model::{Model, Weight, constants_mut};
use crate::progress::Progress;
use crate::tensor::{FloatData, Matrix, Values};
use crate::units::{self, Cells, Member, Picks, UnitGroup};

/// What became of the units of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct UnitGroupReport {
    /// The tensors in which the units are found, in the order of the model.
    pub tensors: Vec<String>,
    /// How many units the uploaded file has.
    pub units: usize,
    /// How many of them were taken out of all these tensors, since every product that sums over them multiplies them by zero.
    pub removed: usize,
    /// Whether they stand in another order than in the uploaded file, in all these tensors. False where that is not wanted,
    /// and where no order was found that puts units side by side which are more alike.
    pub reordered: bool,
}

/// The groups whose units the recipe lets change.
pub(super) struct FreeGroups {
    groups: Vec<UnitGroup>,
    /// For each group, whether its units may change places.
    reorder: Vec<bool>,
    /// Positions among the tasks, by name.
    tasks: HashMap<String, usize>,
}

/// Pruned and shared layers on their way to be encoded.
#[derive(Clone, Copy)]
pub(super) struct Layers<'a> {
    pub tasks: &'a [Task<'a>],
    /// In the order of the tasks; those whose units may not change are not there.
    pub waiting: &'a [Option<Spooled>],
    pub spool: &'a Spool,
}

impl FreeGroups {
    pub(super) fn find(model: &Model, recipe: &Recipe, tasks: &[Task]) -> Self {
        let ops: HashMap<&str, &str> = model.weights().iter().map(|w| (w.name.as_str(), w.op.as_str())).collect();
        let found = match model.skeleton() {
            Some(graph) => units::analyze(graph).groups,
            None => tasks.iter().flat_map(lone_groups).collect(),
        };
        let positions = tasks.iter().enumerate().map(|(position, task)| (task.weight.name.clone(), position));
        let mut free = Self { groups: Vec::new(), reorder: Vec::new(), tasks: positions.collect() };
        for mut group in found {
            let settings = |member: &Member| {
                let op = ops.get(member.tensor.as_str()).copied();
                (recipe.resolve(&member.tensor, op.unwrap_or_default()), op.is_some())
            };
            let settings: Vec<_> = group.members.iter().map(settings).collect();
            let (reorder, remove) =
                (allow(&settings, |encode| encode.reorder), allow(&settings, |encode| encode.remove));
            if !remove {
                group.fixed_size.get_or_insert_with(|| "the recipe keeps it".into());
            }
            if reorder || group.fixed_size.is_none() {
                free.groups.push(group);
                free.reorder.push(reorder);
            }
        }
        free
    }

    /// Whether some of the task's tensor may change.
    pub(super) fn contain(&self, task: &Task) -> bool {
        self.groups.iter().flat_map(|group| &group.members).any(|member| member.tensor == task.weight.name)
    }

    /// Work of [`FreeGroups::rearrange`], in weights read.
    pub(super) fn work(&self, tasks: &[Task]) -> u64 {
        self.groups.iter().map(|group| self.group_work(group, tasks)).sum()
    }

    fn group_work(&self, group: &UnitGroup, tasks: &[Task]) -> u64 {
        self.members(group).map(|(_, position)| tasks[position].elements()).sum()
    }

    /// The members of a group that are compressed, with the positions of their tasks.
    fn members<'a>(&self, group: &'a UnitGroup) -> impl Iterator<Item = (&'a Member, usize)> {
        group.members.iter().filter_map(|member| Some((member, *self.tasks.get(&member.tensor)?)))
    }

    /// Finds the units that go, and an order for those that stay.
    pub(super) fn rearrange(&self, layers: Layers, meter: &Meter) -> Result<Rearranged, CompressError> {
        let mut done = Rearranged::default();
        let kept = self.find_read(layers, meter)?;
        let fewer = self.groups.iter().zip(&kept).filter(|(group, kept)| kept.len() < group.units);
        done.removed = Picks::new(fewer.map(|(group, kept)| (group, kept.as_slice())));
        let mut orders = Vec::new();
        for ((group, kept), reorder) in self.groups.iter().zip(&kept).zip(&self.reorder) {
            let mut tensors: Vec<String> = group.members.iter().map(|member| member.tensor.clone()).collect();
            tensors.dedup();
            let left = done.removed.group(group, kept.len());
            let order = match reorder {
                true => units::find_order(&self.cells(&left, layers, &done.removed)?, &meter.inner())?,
                false => None,
            };
            meter.advance(self.group_work(group, layers.tasks), "units", &tensors[0])?;
            let (removed, reordered) = (group.units - kept.len(), order.is_some());
            done.reports.push(UnitGroupReport { tensors, units: group.units, removed, reordered });
            orders.extend(order.map(|order| (left, order)));
        }
        done.reordered = Picks::new(orders.iter().map(|(group, order)| (group, order.as_slice())));
        Ok(done)
    }

    /// The units of each group that some product reads.
    fn find_read(&self, layers: Layers, meter: &Meter) -> Result<Vec<Vec<u32>>, CompressError> {
        units::find_read(&self.groups, |name| {
            meter.inner().check()?;
            // What is not compressed is not looked at: it counts as read.
            let Some(&at) = self.tasks.get(name) else { return Ok(None) };
            let dims = layers.tasks[at].weight.dims.clone();
            Ok(layers.bytes(at)?.map(|bytes| (dims, bytes)))
        })
    }

    /// What the units of a group look like in the compressed tensors, from which some are `removed`.
    fn cells(&self, group: &UnitGroup, layers: Layers, removed: &Picks) -> Result<Cells, CompressError> {
        let place = |(member, at): (&'_ Member, usize)| {
            let Weight { name, dims, .. } = layers.tasks[at].weight;
            (Place::of(member, &removed.dims(name, dims)), at)
        };
        let places: Vec<_> = self.members(group).map(|(member, at)| (place((member, at)), member)).collect();
        let total = places.iter().map(|((place, _), _)| place.cells).sum();
        let mut cells = Cells::new(group.units, total);
        let (sample, mut first) = (cells.sample(), 0);
        for ((place, at), member) in places {
            let Weight { name, dims, .. } = layers.tasks[at].weight;
            let Some(bytes) = layers.bytes(at)? else { continue };
            let bytes = removed.apply(name, dims, 1, bytes);
            // Sampled cell `s` is cell `s x total / sample` of all members.
            let end = first + place.cells;
            for s in (first * sample).div_ceil(total)..(end * sample).div_ceil(total) {
                let cell = s * total / sample - first;
                (0..group.units).for_each(|unit| cells.set(unit, s, bytes[place.offset(member, unit, cell)]));
            }
            first = end;
        }
        Ok(cells)
    }
}

impl Layers<'_> {
    /// The layer of task `at` in the order of its tensor, a byte for each element: 0 for zero, and for other values bytes that
    /// differ as far as bytes can.
    fn bytes(self, at: usize) -> Result<Option<Vec<u8>>, CompressError> {
        let Some(spooled) = &self.waiting[at] else { return Ok(None) };
        let matrix = self.spool.get(spooled).map_err(ArtifactError::from)?.matrix;
        let Weight { dims, layout, .. } = self.tasks[at].weight;
        Ok(Some(layout.to_tensor(dims, bytes_of(&matrix))))
    }
}

/// Whether what `wanted` asks for may happen to the units that these tensors share, from the settings of each and whether it is
/// a weight.
fn allow(members: &[(LayerSettings, bool)], wanted: impl Fn(&Encode) -> Option<bool>) -> bool {
    let mut asked = false;
    for (settings, is_weight) in members {
        asked |= match wanted(&settings.encode) {
            Some(false) => return false,
            Some(true) => true,
            None if settings.skip => return false,
            None => {
                let is_lossy = settings.prune.is_some() || settings.quantize.is_some();
                let is_free = is_lossy || settings.encode.free_units.is_some();
                *is_weight && settings.encode.goal == Goal::Smallest && is_free
            }
        };
    }
    asked
}

/// The sides of a weight without a graph that its recipe says may move: outputs are its first dimension, inputs its second.
fn lone_groups(task: &Task) -> Vec<UnitGroup> {
    let axes: &[usize] = match task.settings.encode.free_units {
        None => &[],
        Some(FreeUnits::Outputs) => &[0],
        Some(FreeUnits::Inputs) => &[1],
        Some(FreeUnits::Both) => &[0, 1],
    };
    let Weight { name, dims, .. } = task.weight;
    let movable = axes.iter().filter(|&&axis| dims.get(axis).is_some_and(|&units| units > 1));
    let group = |&axis: &usize| {
        let len = dims[axis];
        let member = Member { tensor: name.clone(), axis, len, start: 0, block: 1, is_summed: false };
        let fixed_size = Some("a weight without a graph".to_owned());
        UnitGroup { units: len, members: vec![member], fixed_size }
    };
    movable.map(group).collect()
}

/// How the cells of a unit lie in a tensor.
struct Place {
    /// Cells behind a position of the member's axis, and positions along it.
    inner: usize,
    len: usize,
    /// Cells of one unit.
    cells: usize,
}

impl Place {
    fn of(member: &Member, dims: &[usize]) -> Self {
        let (before, behind) = dims.split_at(member.axis);
        let inner = behind[1..].iter().product();
        Self { inner, len: behind[0], cells: before.iter().product::<usize>() * member.block * inner }
    }

    /// Where cell `cell` of `unit` is in the tensor.
    fn offset(&self, member: &Member, unit: usize, cell: usize) -> usize {
        let Member { start, block, .. } = *member;
        let (behind, rest) = (cell % self.inner, cell / self.inner);
        let (within, before) = (rest % block, rest / block);
        (before * self.len + start + unit * block + within) * self.inner + behind
    }
}

/// A byte for each cell, row-major, as [`Layers::bytes`] has them.
fn bytes_of(matrix: &Matrix) -> Vec<u8> {
    let other = |bits: u64| 1 + (bits % 255) as u8;
    match matrix.values() {
        Values::Shared { codebook, indices } => {
            let zero = codebook.zero();
            indices.iter().map(|&s| if Some(s) == zero { 0 } else { other(s.into()) }).collect()
        }
        Values::Raw { data, .. } => {
            let byte = |bits: u64| if bits == 0 { 0 } else { other(bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) };
            (0..data.len()).map(|i| byte(data.get(i).to_bits())).collect()
        }
    }
}

/// What was found, to be carried out on every tensor that it touches.
#[derive(Default)]
pub(super) struct Rearranged {
    /// First, units go.
    removed: Picks,
    /// Then those that stay change places.
    reordered: Picks,
    pub reports: Vec<UnitGroupReport>,
}

impl Rearranged {
    fn contain(&self, name: &str) -> bool {
        self.removed.contain(name) || self.reordered.contain(name)
    }

    /// The dimensions of a tensor.
    pub(super) fn dims(&self, name: &str, dims: &[usize]) -> Vec<usize> {
        self.removed.dims(name, dims)
    }

    /// A layer with its units in their places.
    pub(super) fn matrix(&self, weight: &Weight, matrix: Matrix) -> Matrix {
        if !self.contain(&weight.name) {
            return matrix;
        }
        let shape = weight.layout.shape(&self.dims(&weight.name, &weight.dims));
        let (rows, cols) = shape.expect("a layout fits fewer units too");
        let moved = match matrix.into_values() {
            Values::Shared { codebook, indices } => Matrix::shared(rows, cols, codebook, self.cells(weight, indices)),
            Values::Raw { dtype, data: FloatData::F32(values) } => {
                Matrix::raw(rows, cols, dtype, FloatData::F32(self.cells(weight, values)))
            }
            Values::Raw { dtype, data: FloatData::F64(values) } => {
                Matrix::raw(rows, cols, dtype, FloatData::F64(self.cells(weight, values)))
            }
        };
        moved.expect("cells that changed places are as valid as before")
    }

    /// The cells of a matrix, row-major.
    fn cells<T: Copy>(&self, weight: &Weight, cells: Vec<T>) -> Vec<T> {
        let Weight { name, dims, layout, .. } = weight;
        let elements = self.elements(name, dims, 1, layout.to_tensor(dims, cells));
        layout.to_matrix(&self.dims(name, dims), elements)
    }

    fn elements<T: Copy>(&self, name: &str, dims: &[usize], width: usize, elements: Vec<T>) -> Vec<T> {
        let left = self.removed.apply(name, dims, width, elements);
        self.reordered.apply(name, &self.dims(name, dims), width, left)
    }

    /// The elements of a tensor that is not compressed.
    pub(super) fn bytes(&self, name: &str, dims: &[usize], bytes: Vec<u8>) -> Vec<u8> {
        let elements = dims.iter().product::<usize>();
        match self.contain(name) && elements > 0 {
            true => self.elements(name, dims, bytes.len() / elements, bytes),
            false => bytes,
        }
    }

    /// The graph with its constants rearranged. What it says of the extents in between is left out where they changed.
    pub(super) fn graph(&self, skeleton: &ModelProto) -> ModelProto {
        let mut model = skeleton.clone();
        let mut shapes = HashMap::new();
        for (name, tensor) in constants_mut(&mut model).filter(|(name, _)| self.contain(name)) {
            let dims: Vec<usize> = tensor.dims.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
            let moved = self.bytes(&name, &dims, element_bytes(tensor));
            (tensor.float_data, tensor.double_data, tensor.int32_data) = Default::default();
            tensor.raw_data = moved;
            tensor.dims = self.dims(&name, &dims).into_iter().map(|d| d as i64).collect();
            shapes.insert(name, tensor.dims.clone());
        }
        if let Some(graph) = model.graph.as_mut().filter(|_| self.reports.iter().any(|group| group.removed > 0)) {
            graph.value_info.clear();
            for input in &mut graph.input {
                if let Some(dims) = shapes.get(&input.name) {
                    set_extents(input, dims);
                }
            }
        }
        model
    }
}

/// Declares the extents of an initializer that is listed among the inputs.
fn set_extents(input: &mut ValueInfoProto, dims: &[i64]) {
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut()) else {
        return;
    };
    for (dim, &extent) in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).zip(dims) {
        dim.value = Some(dimension::Value::DimValue(extent));
    }
}

/// The elements of a float tensor as `raw_data` holds them; none where they are stored elsewhere.
fn element_bytes(tensor: &TensorProto) -> Vec<u8> {
    let mut bytes = tensor.raw_data.to_vec();
    bytes.extend(tensor.float_data.iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend(tensor.double_data.iter().flat_map(|v| v.to_le_bytes()));
    // Half-width floats are the low two bytes of an entry.
    bytes.extend(tensor.int32_data.iter().flat_map(|v| (*v as u16).to_le_bytes()));
    bytes
}
