//! Copies among units merged: one stays, and what reads it multiplies by the sum of the weights that read them all.
//!
//! The sums are new values in codebooks, so copies are merged where the tensors that change take fewer bytes without them, as a
//! fast codec measures it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::layer::Task;
use super::super::meter::Meter;
use super::super::spool::Spooled;
use super::super::{CompressError, layer::Prepared};
use super::stored::{Layers, Plain};
use super::{FreeGroups, Place, Rearranged};
use crate::artifact::ArtifactError;
use crate::codec::{self, CodecId, EncodeError};
use crate::model::{Role, Weight};
use crate::progress::Progress;
use crate::tensor::{Codebook, FloatData, FloatType, MAX_LEVELS, Matrix, Values};
use crate::units::{Copies, Member, Picks, UnitGroup};

/// Looks for copies in one group after the other, from the inputs on: what is merged there makes copies of what reads it.
pub(super) struct Merger<'a, 'l> {
    pub free: &'a FreeGroups,
    pub layers: &'a mut Layers<'l>,
    pub meter: &'a Meter<'a>,
    pub plain: Plain<'a>,
    /// With their places in new biases.
    pub groups: &'a [UnitGroup],
    pub done: &'a mut Rearranged,
}

/// A group that would lose copies.
struct Plan {
    /// Layers with sums in them, by task.
    sums: BTreeMap<usize, Spooled>,
    /// What would be left.
    kept: Vec<u32>,
    removed: Picks,
}

impl Merger<'_, '_> {
    /// Merges the copies among the units that are `kept` of each group, where it pays.
    pub(super) fn merge(self, kept: &mut [Vec<u32>]) -> Result<(), CompressError> {
        for index in 0..self.groups.len() {
            if !self.free.merge[index] || kept[index].len() < 2 || !self.may_merge(&self.groups[index]) {
                continue;
            }
            self.meter.inner().check()?;
            let copies = self.copies(&self.groups[index], kept[index].len())?;
            if copies.is_empty() {
                continue;
            }
            if let Some(plan) = self.plan(index, &copies, kept)? {
                plan.sums.into_iter().for_each(|(at, spooled)| self.layers.waiting[at] = Some(spooled));
                kept[index] = plan.kept;
                self.done.removed = plan.removed;
            }
        }
        Ok(())
    }

    /// Whether something tells a group's units apart, and all their readers are products whose weights may hold sums.
    fn may_merge(&self, group: &UnitGroup) -> bool {
        let holds_sums = |member: &Member| {
            let task = self.free.tasks.get(&member.tensor).map(|&at| &self.layers.tasks[at]);
            task.is_some_and(|task| {
                let Weight { role, uses, .. } = task.weight;
                let is_read_so = uses.iter().all(|usage| task.weight.summed_axis(usage) == member.axis);
                *role == Role::Product && is_read_so && task.unified.is_none()
            })
        };
        let (summed, others): (Vec<_>, Vec<_>) = group.members.iter().partition(|member| member.is_summed);
        !others.is_empty() && !summed.is_empty() && summed.into_iter().all(holds_sums)
    }

    /// The copies among the `left` units of a group, numbered as those that are left.
    fn copies(&self, group: &UnitGroup, left: usize) -> Result<Copies, CompressError> {
        let now = self.done.removed.group(group, left);
        let mut copies = Copies::new(left);
        for member in now.members.iter().filter(|member| !member.is_summed) {
            if copies.is_empty() {
                break;
            }
            let Some(Cells { dims, width, bytes }) = self.cells(&member.tensor)? else {
                return Ok(Copies::new(0));
            };
            copies.tell_apart(member, &dims, width, &bytes);
        }
        Ok(copies)
    }

    /// A tensor as far as units went from it; `None` where it is not known.
    fn cells(&self, name: &str) -> Result<Option<Cells>, CompressError> {
        let (dims, bytes) = match self.free.tasks.get(name) {
            Some(&at) => {
                let Some(matrix) = self.layers.matrix(at)? else { return Ok(None) };
                let weight = self.layers.tasks[at].weight;
                (weight.dims.clone(), bytes_of(weight, matrix))
            }
            None => match self.done.folds.new_bias(name) {
                Some(bias) => (vec![bias.len()], bias.iter().flat_map(|value| value.to_le_bytes()).collect()),
                None => match self.plain.floats(name)? {
                    Some((dims, _, bytes)) => (dims, bytes),
                    None => return Ok(None),
                },
            },
        };
        let bytes = self.done.bytes(name, &dims, bytes);
        let dims = self.done.dims(name, &dims);
        let elements = dims.iter().product::<usize>().max(1);
        Ok(Some(Cells { width: bytes.len() / elements, dims, bytes }))
    }

    /// What merging the copies of group `index` comes to; `None` where it does not pay, or sums are beyond what a codebook holds.
    fn plan(&self, index: usize, copies: &Copies, kept: &[Vec<u32>]) -> Result<Option<Plan>, CompressError> {
        let group = &self.groups[index];
        let units = |class: &Vec<u32>| class.iter().map(|&copy| kept[index][copy as usize]).collect::<Vec<_>>();
        let classes: Vec<Vec<u32>> = copies.classes().iter().map(units).collect();
        let gone: HashSet<u32> = classes.iter().flat_map(|class| &class[1..]).copied().collect();
        let left: Vec<u32> = kept[index].iter().copied().filter(|unit| !gone.contains(unit)).collect();
        let lists = kept.iter().enumerate().map(|(i, kept)| if i == index { &left } else { kept });
        let removed = Picks::without(self.groups.iter().zip(lists.map(Vec::as_slice)));
        let now = Rearranged { removed: self.done.removed.clone(), ..Rearranged::default() };
        let then = Rearranged { removed: removed.clone(), ..Rearranged::default() };
        let mut touched: BTreeMap<usize, Vec<&Member>> = BTreeMap::new();
        for (member, at) in self.free.members(group) {
            touched.entry(at).or_default().extend(member.is_summed.then_some(member));
        }
        let (mut before, mut after, mut sums) = (0, 0, BTreeMap::new());
        for (at, members) in touched {
            let task = &self.layers.tasks[at];
            let Some(spooled) = &self.layers.waiting[at] else { return Ok(None) };
            let Prepared { matrix, weight_snr_db } = self.layers.spool.get(spooled).map_err(ArtifactError::from)?;
            let sums_of = Sums { weight: task.weight, classes: &classes, is_left: self.left(task.weight) };
            let mut merged = matrix.clone();
            for member in &members {
                let Some(matrix) = sums_of.put(member, merged) else { return Ok(None) };
                merged = matrix;
            }
            let old = self.size(task, now.matrix(task.weight, matrix))?;
            let new = self.size(task, then.matrix(task.weight, merged.clone()))?;
            let (Some(old), Some(new)) = (old, new) else { return Ok(None) };
            (before, after) = (before + old, after + new);
            if !members.is_empty() {
                let spooled = self.layers.spool.put(Prepared { matrix: merged, weight_snr_db });
                sums.insert(at, spooled.map_err(ArtifactError::from)?);
            }
        }
        Ok((after < before).then_some(Plan { sums, kept: left, removed }))
    }

    /// Which elements of a weight no unit took along.
    fn left(&self, weight: &Weight) -> Vec<bool> {
        let Weight { name, dims, .. } = weight;
        let elements = dims.iter().product::<usize>();
        let mut is_left = vec![!self.done.removed.contain(name); elements];
        if self.done.removed.contain(name) {
            let left = self.done.removed.apply(name, dims, 1, (0..elements).collect());
            left.into_iter().for_each(|element| is_left[element] = true);
        }
        is_left
    }

    /// Bytes that a layer takes; `None` for one without a codebook.
    fn size(&self, task: &Task, matrix: Matrix) -> Result<Option<usize>, CompressError> {
        let Values::Shared { codebook, .. } = matrix.values() else { return Ok(None) };
        let rows_per_block = codec::rows_per_block_for(&matrix)(CodecId::Rans);
        match codec::encode_cancellable(&matrix, CodecId::Rans, rows_per_block, &self.meter.inner()) {
            Ok(payload) => Ok(Some(payload.len() + codebook.len() * codebook.dtype().size_bytes())),
            Err(error @ EncodeError::Cancelled) => Err(CompressError::encode(&task.weight.name, error)),
            Err(_) => Ok(None),
        }
    }
}

/// The elements of a tensor.
struct Cells {
    dims: Vec<usize>,
    /// Bytes of each; equal bytes are equal elements.
    width: usize,
    bytes: Vec<u8>,
}

/// The symbols, or the values, of a layer in the order of its tensor.
fn bytes_of(weight: &Weight, matrix: Matrix) -> Vec<u8> {
    let Weight { dims, layout, .. } = weight;
    let mut bytes = Vec::new();
    match matrix.into_values() {
        Values::Shared { indices, .. } => {
            bytes.extend(layout.to_tensor(dims, indices).into_iter().flat_map(u16::to_le_bytes));
        }
        Values::Raw { data: FloatData::F32(values), .. } => {
            bytes.extend(layout.to_tensor(dims, values).into_iter().flat_map(f32::to_le_bytes));
        }
        Values::Raw { data: FloatData::F64(values), .. } => {
            bytes.extend(layout.to_tensor(dims, values).into_iter().flat_map(f64::to_le_bytes));
        }
    }
    bytes
}

/// Sums of the weights that read copies.
struct Sums<'a> {
    weight: &'a Weight,
    /// Units that are copies of each other.
    classes: &'a [Vec<u32>],
    /// Elements of the weight that count.
    is_left: Vec<bool>,
}

impl Sums<'_> {
    /// A layer that multiplies the first unit of each class by the sum of what it multiplied them all by; the others are as the
    /// first, to be taken out. `None` where no codebook holds the sums.
    fn put(&self, member: &Member, matrix: Matrix) -> Option<Matrix> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let Weight { dims, layout, .. } = self.weight;
        let Values::Shared { codebook, indices } = matrix.into_values() else { return None };
        let mut symbols = layout.to_tensor(dims, indices);
        let (mut values, mut sums) = (codebook.values().to_vec(), HashMap::new());
        let place = Place::of(member, dims);
        for class in self.classes {
            let (&first, others) = class.split_first()?;
            let at = |unit: u32, cell: usize| place.offset(member, unit as usize, cell);
            for cell in (0..place.cells).filter(|&cell| self.is_left[at(first, cell)]) {
                let value = |unit: &u32| values[usize::from(symbols[at(*unit, cell)])];
                if others.iter().any(|unit| value(unit) != 0.0) {
                    // Not -0.0.
                    let sum = codebook.dtype().round(class.iter().map(value).sum()) + 0.0;
                    let known = codebook.symbol(sum).or_else(|| sums.get(&sum.to_bits()).copied());
                    if known.is_none() && (!sum.is_finite() || values.len() == MAX_LEVELS) {
                        return None;
                    }
                    let symbol = known.or_else(|| u16::try_from(values.len()).ok())?;
                    if known.is_none() {
                        values.push(sum);
                        sums.insert(sum.to_bits(), symbol);
                    }
                    symbols[at(first, cell)] = symbol;
                }
                others.iter().for_each(|&unit| symbols[at(unit, cell)] = symbols[at(first, cell)]);
            }
        }
        let (codebook, symbols) = self.in_use(codebook.dtype(), &values, symbols)?;
        Matrix::shared(rows, cols, Arc::new(codebook), layout.to_matrix(dims, symbols)).ok()
    }

    /// The values of elements that count, as a codebook, and the symbols in it.
    fn in_use(&self, dtype: FloatType, values: &[f64], mut symbols: Vec<u16>) -> Option<(Codebook, Vec<u16>)> {
        let mut is_used = vec![false; values.len()];
        let counted = symbols.iter().zip(&self.is_left).filter(|(_, is_left)| **is_left);
        counted.for_each(|(&symbol, _)| is_used[usize::from(symbol)] = true);
        let mut used: Vec<usize> = (0..values.len()).filter(|&symbol| is_used[symbol]).collect();
        used.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut renamed = vec![0u16; values.len()];
        (0u16..=u16::MAX).zip(&used).for_each(|(now, &before)| renamed[before] = now);
        symbols.iter_mut().for_each(|symbol| *symbol = renamed[usize::from(*symbol)]);
        Some((Codebook::new(dtype, used.iter().map(|&symbol| values[symbol]).collect()).ok()?, symbols))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;
    use crate::tensor::Layout;

    fn merged(values: &[f32], dims: [usize; 2], layout: Layout, classes: &[Vec<u32>]) -> Option<Vec<f64>> {
        let weight = weight(dims, layout);
        let matrix = matrix(&weight, values);
        let sums = Sums { weight: &weight, classes, is_left: vec![true; values.len()] };
        let matrix = sums.put(&member(&weight), matrix)?;
        let Values::Shared { codebook, indices } = matrix.values() else { panic!("its values are shared") };
        assert!((0..codebook.len()).all(|symbol| indices.contains(&(symbol as u16))), "a value that is not used");
        let values = (0..values.len()).map(|i| matrix.value(i)).collect();
        Some(layout.to_tensor(&weight.dims, values))
    }

    fn weight(dims: [usize; 2], layout: Layout) -> Weight {
        let role = Role::Product;
        let (name, op, dims) = ("w".to_owned(), "MatMul".to_owned(), dims.to_vec());
        let dtype = FloatType::F32;
        Weight { name, op, dims, dtype, layout, family: Family::Dense, role, uses: Vec::new(), chain: Vec::new() }
    }

    fn matrix(weight: &Weight, values: &[f32]) -> Matrix {
        let codebook = Codebook::from_unsorted(weight.dtype, values.iter().map(|&v| v.into())).unwrap();
        let symbols = values.iter().map(|&v| codebook.symbol(v.into()).unwrap()).collect();
        let (rows, cols) = weight.layout.shape(&weight.dims).unwrap();
        let symbols = weight.layout.to_matrix(&weight.dims, symbols);
        Matrix::shared(rows, cols, Arc::new(codebook), symbols).unwrap()
    }

    /// The inputs of a weight.
    fn member(weight: &Weight) -> Member {
        let axis = usize::from(weight.layout == Layout::RowsFirst);
        Member { tensor: "w".into(), axis, len: weight.dims[axis], start: 0, block: 1, is_summed: true }
    }

    #[test]
    fn the_first_copy_is_multiplied_by_all_weights() {
        let found = merged(&[1., 2., 4., 0., -2., 0.5], [2, 3], Layout::RowsFirst, &[vec![0, 2]]);
        assert_eq!(found.unwrap(), [5., 2., 5., 0.5, -2., 0.5]);
        let found = merged(&[1., 0., 2., -2., 4., 0.5], [3, 2], Layout::Transposed, &[vec![0, 2]]);
        assert_eq!(found.unwrap(), [5., 0.5, 2., -2., 5., 0.5]);
    }

    #[test]
    fn rows_that_are_gone_need_no_sums() {
        let weight = weight([2, 3], Layout::RowsFirst);
        let is_left = vec![true, true, true, false, false, false];
        let sums = Sums { weight: &weight, classes: &[vec![0, 2]], is_left };
        let merged = sums.put(&member(&weight), matrix(&weight, &[1., 2., 4., 7., 8., 9.])).unwrap();
        let Values::Shared { codebook, .. } = merged.values() else { panic!("its values are shared") };
        assert_eq!(codebook.values(), [2.0, 5.0]);
    }

    #[test]
    fn a_sum_of_zero_has_no_sign() {
        let found = merged(&[1., -1., -0., -0., 2., -2.], [2, 3], Layout::RowsFirst, &[vec![0, 1]]).unwrap();
        assert!(found[0].to_bits() == 0 && found[3] == 2.0, "{found:?}");
    }

    #[test]
    fn a_sum_beyond_the_type_is_not_made() {
        assert_eq!(merged(&[3e38, 3e38], [1, 2], Layout::RowsFirst, &[vec![0, 1]]), None);
    }

    #[test]
    fn sums_beyond_a_codebook_are_not_made() {
        // 65,536 values; the one sum is another.
        let mut values: Vec<f32> = (1..=MAX_LEVELS).map(|i| i as f32).collect();
        assert_eq!(merged(&values, [1 << 15, 2], Layout::RowsFirst, &[vec![0, 1]]), None);
        values.iter_mut().skip(1).step_by(2).for_each(|value| *value = 0.0);
        assert!(merged(&values, [1 << 15, 2], Layout::RowsFirst, &[vec![0, 1]]).is_some());
    }
}
