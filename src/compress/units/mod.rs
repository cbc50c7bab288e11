//! Hidden units that nobody reads, or that are constant, taken out, copies merged, and the others put in an order that takes fewer
//! bytes: which groups of units may change, what becomes of them, and every tensor rearranged to it.

mod merge;
mod rearranged;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::layer::Task;
use super::meter::Meter;
use super::{CompressError, Encode, FreeUnits, Goal, LayerSettings, Recipe};
use crate::model::{Model, Weight};
use crate::progress::Progress;
use crate::units::{self, Cells, Folds, Member, Picks, Search, UnitGroup};

pub(super) use rearranged::Rearranged;
pub(super) use stored::Layers;

use merge::Merger;
use stored::Plain;

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
    /// How many more were taken out since they are the same for every input: what they add to a product went into its bias.
    #[serde(default)]
    pub constant: usize,
    /// How many more were taken out since they are copies of others, which are multiplied by the sums of their weights.
    #[serde(default)]
    pub merged: usize,
    /// Whether they stand in another order than in the uploaded file, in all these tensors. False where that is not wanted,
    /// and where no order was found that puts units side by side which are more alike.
    pub reordered: bool,
}

impl UnitGroupReport {
    /// How many units are left.
    pub fn left(&self) -> usize {
        self.units - self.removed - self.constant - self.merged
    }

    /// Whether units were taken out.
    fn has_fewer(&self) -> bool {
        self.left() < self.units
    }
}

/// The groups whose units the recipe lets change.
pub(super) struct FreeGroups {
    groups: Vec<UnitGroup>,
    /// For each group, whether its units may change places.
    reorder: Vec<bool>,
    /// For each group, whether copies among its units may be merged.
    merge: Vec<bool>,
    /// Positions among the tasks, by name.
    tasks: HashMap<String, usize>,
    /// Tensors that are not compressed and stay bit by bit.
    fixed: HashSet<String>,
}

impl FreeGroups {
    pub(super) fn find(model: &Model, recipe: &Recipe, tasks: &[Task]) -> Self {
        let ops: HashMap<&str, &str> = model.weights().iter().map(|w| (w.name.as_str(), w.op.as_str())).collect();
        let found = match model.skeleton() {
            Some(graph) => units::analyze(graph).groups,
            None => tasks.iter().flat_map(lone_groups).collect(),
        };
        let positions = tasks.iter().enumerate().map(|(position, task)| (task.weight.name.clone(), position));
        let stays = |name: &String| {
            let settings = recipe.resolve(name, "");
            settings.skip || settings.encode.remove == Some(false)
        };
        let fixed = model.kept().iter().map(|kept| kept.name.clone()).filter(stays).collect();
        let (tasks, none) = (positions.collect(), Vec::new);
        let mut free = Self { groups: Vec::new(), reorder: none(), merge: none(), tasks, fixed };
        for mut group in found {
            let settings = |member: &Member| {
                let op = ops.get(member.tensor.as_str()).copied();
                (recipe.resolve(&member.tensor, op.unwrap_or_default()), op.is_some())
            };
            let settings: Vec<_> = group.members.iter().map(settings).collect();
            let (reorder, remove) =
                (allow(&settings, |encode| encode.reorder), allow(&settings, |encode| encode.remove));
            let merge = group.fixed_size.is_none() && allow(&settings, |encode| encode.merge);
            if !remove {
                group.fixed_size.get_or_insert_with(|| "the recipe keeps it".into());
            }
            if reorder || merge || group.fixed_size.is_none() {
                free.groups.push(group);
                free.reorder.push(reorder);
                free.merge.push(merge);
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
    pub(super) fn rearrange(&self, layers: &mut Layers, meter: &Meter) -> Result<Rearranged, CompressError> {
        let mut done = Rearranged::default();
        let mut kept = self.find_read(layers, &[], meter)?;
        done.folds = self.find_constants(layers, &kept, meter)?;
        if done.folds.units.iter().any(|units| !units.is_empty()) {
            kept = self.find_read(layers, &done.folds.units, meter)?;
        }
        let groups: Vec<UnitGroup> = self.groups.iter().map(|group| done.folds.with_biases(group)).collect();
        done.removed = Picks::without(groups.iter().zip(kept.iter().map(Vec::as_slice)));
        let before: Vec<usize> = kept.iter().map(Vec::len).collect();
        let plain = Plain::of(layers.model);
        Merger { free: self, layers, meter, plain, groups: &groups, done: &mut done }.merge(&mut kept)?;
        let mut orders = Vec::new();
        for (index, (group, kept)) in groups.iter().zip(&kept).enumerate() {
            let mut tensors: Vec<String> = self.groups[index].members.iter().map(|m| m.tensor.clone()).collect();
            tensors.dedup();
            let left = done.removed.group(group, kept.len());
            let order = match self.reorder[index] {
                true => units::find_order(&self.cells(&left, layers, &done.removed)?, &meter.inner())?,
                false => None,
            };
            meter.advance(self.group_work(group, layers.tasks), "units", &tensors[0])?;
            let constant = done.folds.units.get(index).map_or(0, Vec::len);
            let (removed, merged) = (group.units - before[index] - constant, before[index] - kept.len());
            let (units, reordered) = (group.units, order.is_some());
            done.reports.push(UnitGroupReport { tensors, units, removed, constant, merged, reordered });
            orders.extend(order.map(|order| (left, order)));
        }
        done.reordered = Picks::new(orders.iter().map(|(group, order)| (group, order.as_slice())));
        Ok(done)
    }

    /// The units of each group that some product reads, where those of `taken` are gone.
    fn find_read(&self, layers: &Layers, taken: &[Vec<u32>], meter: &Meter) -> Result<Vec<Vec<u32>>, CompressError> {
        units::find_read(&self.groups, taken, |name| {
            meter.inner().check()?;
            // What is not compressed is not looked at: it counts as read.
            let Some(&at) = self.tasks.get(name) else { return Ok(None) };
            let dims = layers.tasks[at].weight.dims.clone();
            Ok(layers.bytes(at)?.map(|bytes| (dims, bytes)))
        })
    }

    /// The units that are the same for every input, of those that are `read`.
    fn find_constants(&self, layers: &Layers, read: &[Vec<u32>], meter: &Meter) -> Result<Folds, CompressError> {
        let skeleton = layers.model.skeleton().and_then(|skeleton| skeleton.graph.as_ref());
        let Some(graph) = skeleton else { return Ok(Folds::default()) };
        let (weights, groups, fixed) = (layers.model.weights(), self.groups.as_slice(), &self.fixed);
        let plain = Plain::of(layers.model);
        units::find_constants(Search { graph, weights, groups, read, fixed }, &mut |name| {
            meter.inner().check()?;
            match self.tasks.get(name) {
                Some(&at) => layers.matrix(at),
                None => plain.row(name),
            }
        })
    }

    /// What the units of a group look like in the compressed tensors, from which some are `removed`.
    fn cells(&self, group: &UnitGroup, layers: &Layers, removed: &Picks) -> Result<Cells, CompressError> {
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
