//! Hidden units put in an order that takes fewer bytes: which groups of units may move, in which order they then stand, and
//! every tensor rearranged to it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tract_onnx::pb::{ModelProto, TensorProto};

use super::layer::Task;
use super::meter::Meter;
use super::spool::{Spool, Spooled};
use super::{CompressError, FreeUnits, Goal, LayerSettings, Recipe};
use crate::artifact::ArtifactError;
use crate::model::{Model, Weight, constants_mut};
use crate::tensor::{FloatData, Matrix, Values};
use crate::units::{self, Cells, Member, Picks, UnitGroup};

/// What became of the units of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct UnitGroupReport {
    /// The tensors in which the units are found, in the order of the model.
    pub tensors: Vec<String>,
    /// How many units there are.
    pub units: usize,
    /// Whether they stand in another order than in the uploaded file, in all these tensors. False where no order was found
    /// that puts units side by side which are more alike.
    pub reordered: bool,
}

/// The groups whose units the recipe lets change places.
pub(super) struct FreeGroups {
    groups: Vec<UnitGroup>,
    /// Positions among the tasks, by name.
    tasks: HashMap<String, usize>,
}

impl FreeGroups {
    pub(super) fn find(model: &Model, recipe: &Recipe, tasks: &[Task]) -> Self {
        let ops: HashMap<&str, &str> = model.weights().iter().map(|w| (w.name.as_str(), w.op.as_str())).collect();
        let found = match model.skeleton() {
            Some(graph) => units::analyze(graph).groups,
            None => tasks.iter().flat_map(lone_groups).collect(),
        };
        let settings = |member: &Member| {
            let op = ops.get(member.tensor.as_str()).copied();
            (recipe.resolve(&member.tensor, op.unwrap_or_default()), op.is_some())
        };
        let may_move = |group: &UnitGroup| reorders(group.members.iter().map(settings));
        let tasks = tasks.iter().enumerate().map(|(position, task)| (task.weight.name.clone(), position)).collect();
        Self { groups: found.into_iter().filter(may_move).collect(), tasks }
    }

    /// Whether some of the task's tensor may move.
    pub(super) fn contain(&self, task: &Task) -> bool {
        self.groups.iter().flat_map(|group| &group.members).any(|member| member.tensor == task.weight.name)
    }

    /// Work of [`FreeGroups::order`], in weights read.
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

    /// Finds an order for each group from its pruned and shared layers, `spooled` in the order of the tasks.
    pub(super) fn order(
        &self,
        tasks: &[Task],
        spooled: &[Option<Spooled>],
        spool: &Spool,
        meter: &Meter,
    ) -> Result<Reordered, CompressError> {
        let (mut orders, mut reports) = (Vec::new(), Vec::new());
        for group in &self.groups {
            let cells = self.cells(group, tasks, spooled, spool)?;
            let order = units::find_order(&cells, &meter.inner())?;
            let mut tensors: Vec<String> = group.members.iter().map(|member| member.tensor.clone()).collect();
            tensors.dedup();
            meter.advance(self.group_work(group, tasks), "order", &tensors[0])?;
            reports.push(UnitGroupReport { tensors, units: group.units, reordered: order.is_some() });
            orders.extend(order.map(|order| (group, order)));
        }
        let picks = Picks::new(orders.iter().map(|(group, order)| (*group, order.as_slice())));
        Ok(Reordered { picks, reports })
    }

    /// What the units of a group look like in the compressed tensors.
    fn cells(
        &self,
        group: &UnitGroup,
        tasks: &[Task],
        spooled: &[Option<Spooled>],
        spool: &Spool,
    ) -> Result<Cells, CompressError> {
        let places: Vec<_> =
            self.members(group).map(|(member, at)| (Place::of(member, tasks[at].weight), at)).collect();
        let total = places.iter().map(|(place, _)| place.cells()).sum();
        let mut cells = Cells::new(group.units, total);
        let (sample, mut first) = (cells.sample(), 0);
        for (place, at) in places {
            let Some(spooled) = &spooled[at] else { continue };
            let matrix = spool.get(spooled).map_err(ArtifactError::from)?.matrix;
            let bytes = tasks[at].weight.layout.to_tensor(&tasks[at].weight.dims, bytes_of(&matrix));
            // Sampled cell `s` is cell `s x total / sample` of all members.
            let end = first + place.cells();
            for s in (first * sample).div_ceil(total)..(end * sample).div_ceil(total) {
                let cell = s * total / sample - first;
                (0..group.units).for_each(|unit| cells.set(unit, s, bytes[place.offset(unit, cell)]));
            }
            first = end;
        }
        Ok(cells)
    }
}

/// Whether the units that these tensors share may move, from the settings of each and whether it is a weight.
fn reorders(members: impl Iterator<Item = (LayerSettings, bool)>) -> bool {
    let mut wanted = false;
    for (settings, is_weight) in members {
        wanted |= match settings.encode.reorder {
            Some(false) => return false,
            Some(true) => true,
            None if settings.skip => return false,
            None => {
                let is_lossy = settings.prune.is_some() || settings.quantize.is_some();
                let asked = settings.encode.free_units.is_some();
                is_weight && settings.encode.goal == Goal::Smallest && (is_lossy || asked)
            }
        };
    }
    wanted
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
        let member = Member { tensor: name.clone(), axis, start: 0, block: 1 };
        UnitGroup { units: dims[axis], members: vec![member], fixed_size: None }
    };
    movable.map(group).collect()
}

/// Where the units of a group are in a tensor.
struct Place<'a> {
    member: &'a Member,
    /// Cells before, along and behind the member's axis.
    outer: usize,
    len: usize,
    inner: usize,
}

impl<'a> Place<'a> {
    fn of(member: &'a Member, weight: &Weight) -> Self {
        let (before, behind) = weight.dims.split_at(member.axis);
        let (outer, inner) = (before.iter().product(), behind[1..].iter().product());
        Self { member, outer, len: behind[0], inner }
    }

    /// Cells of one unit.
    fn cells(&self) -> usize {
        self.outer * self.member.block * self.inner
    }

    /// Where cell `cell` of `unit` is in the tensor.
    fn offset(&self, unit: usize, cell: usize) -> usize {
        let Member { start, block, .. } = *self.member;
        let (behind, rest) = (cell % self.inner, cell / self.inner);
        let (within, before) = (rest % block, rest / block);
        (before * self.len + start + unit * block + within) * self.inner + behind
    }
}

/// A byte for each cell: 0 for zero, and for other values bytes that differ as far as bytes can.
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

/// Orders that were found, to be carried out on every tensor that they touch.
#[derive(Default)]
pub(super) struct Reordered {
    picks: Picks,
    pub reports: Vec<UnitGroupReport>,
}

impl Reordered {
    /// A layer with its units in their places.
    pub(super) fn matrix(&self, weight: &Weight, matrix: Matrix) -> Matrix {
        let Weight { name, dims, layout, .. } = weight;
        if !self.picks.contain(name) {
            return matrix;
        }
        let (rows, cols) = (matrix.rows(), matrix.cols());
        fn moved<T: Copy>(picks: &Picks, weight: &Weight, cells: Vec<T>) -> Vec<T> {
            let Weight { name, dims, layout, .. } = weight;
            layout.to_matrix(dims, picks.apply(name, dims, 1, layout.to_tensor(dims, cells)))
        }
        debug_assert_eq!(layout.shape(dims), Some((rows, cols)));
        let moved = match matrix.into_values() {
            Values::Shared { codebook, indices } => {
                Matrix::shared(rows, cols, codebook, moved(&self.picks, weight, indices))
            }
            Values::Raw { dtype, data: FloatData::F32(values) } => {
                Matrix::raw(rows, cols, dtype, FloatData::F32(moved(&self.picks, weight, values)))
            }
            Values::Raw { dtype, data: FloatData::F64(values) } => {
                Matrix::raw(rows, cols, dtype, FloatData::F64(moved(&self.picks, weight, values)))
            }
        };
        moved.expect("cells that changed places are as valid as before")
    }

    /// The elements of a tensor that is not compressed, `width` bytes each.
    pub(super) fn bytes(&self, name: &str, dims: &[usize], bytes: Vec<u8>) -> Vec<u8> {
        let elements = dims.iter().product::<usize>();
        match self.picks.contain(name) && elements > 0 {
            true => self.picks.apply(name, dims, bytes.len() / elements, bytes),
            false => bytes,
        }
    }

    /// The graph with the constants inside it rearranged.
    pub(super) fn graph(&self, skeleton: &ModelProto) -> ModelProto {
        let mut model = skeleton.clone();
        for (name, tensor) in constants_mut(&mut model).filter(|(name, _)| self.picks.contain(name)) {
            let dims: Vec<usize> = tensor.dims.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
            let moved = self.bytes(&name, &dims, element_bytes(tensor));
            (tensor.float_data, tensor.double_data, tensor.int32_data) = Default::default();
            tensor.raw_data = moved;
        }
        model
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
