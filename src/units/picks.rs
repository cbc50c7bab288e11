//! Tensors rearranged to orders of units: for each axis, which old position each new one takes.

use std::collections::HashMap;

use super::{Member, UnitGroup};

/// What the positions take on the axes that change, by tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picks {
    by_tensor: HashMap<String, Vec<Pick>>,
}

/// One axis: new position `i` takes what is at `source[i]`.
#[derive(Debug, Clone, PartialEq)]
struct Pick {
    axis: usize,
    source: Vec<u32>,
}

/// A stretch of an axis, the positions that it takes up and those that it takes.
type Stretch = (usize, usize, Vec<u32>);

impl Picks {
    /// Puts the units of each group in the places that its order says, in all its members: place `i` is for unit
    /// `order[i]`, and units that are not listed go.
    pub fn new<'a>(orders: impl Iterator<Item = (&'a UnitGroup, &'a [u32])>) -> Self {
        let mut axes: HashMap<(&str, usize, usize), Vec<Stretch>> = HashMap::new();
        for (group, order) in orders {
            for Member { tensor, axis, len, start, block, .. } in &group.members {
                let positions = |unit: &u32| {
                    let first = start + *unit as usize * block;
                    (first..first + block).map(|position| position as u32)
                };
                let source = order.iter().flat_map(positions).collect();
                axes.entry((tensor, *axis, *len)).or_default().push((*start, group.units * block, source));
            }
        }
        let mut picks = Self::default();
        for ((tensor, axis, len), stretches) in axes {
            let pick = Pick { axis, source: joined(len, stretches) };
            picks.by_tensor.entry(tensor.to_owned()).or_default().push(pick);
        }
        picks
    }

    /// Leaves the units of each group that are `kept`, where they are fewer.
    pub fn without<'a>(kept: impl Iterator<Item = (&'a UnitGroup, &'a [u32])>) -> Self {
        Self::new(kept.filter(|(group, kept)| kept.len() < group.units))
    }

    /// Whether `tensor` changes.
    pub fn contain(&self, tensor: &str) -> bool {
        self.by_tensor.contains_key(tensor)
    }

    /// The dimensions of `tensor` afterwards, from those before.
    pub fn dims(&self, tensor: &str, dims: &[usize]) -> Vec<usize> {
        let mut dims = dims.to_vec();
        for pick in self.of(tensor) {
            dims[pick.axis] = pick.source.len();
        }
        dims
    }

    /// Where the units of `group` are afterwards, of which `units` are left, all in the order of before.
    pub fn group(&self, group: &UnitGroup, units: usize) -> UnitGroup {
        let moved = |member: &Member| {
            let Some(pick) = self.of(&member.tensor).iter().find(|pick| pick.axis == member.axis) else {
                return member.clone();
            };
            let start = pick.source.partition_point(|&position| (position as usize) < member.start);
            Member { start, len: pick.source.len(), ..member.clone() }
        };
        UnitGroup { units, members: group.members.iter().map(moved).collect(), ..group.clone() }
    }

    /// Rearranges the elements of `tensor`, in row-major order of `dims`, each `width` items of `data`.
    ///
    /// # Panics
    /// If `data` holds another number of items.
    pub fn apply<T: Copy>(&self, tensor: &str, dims: &[usize], width: usize, mut data: Vec<T>) -> Vec<T> {
        let mut dims = dims.to_vec();
        assert_eq!(data.len(), dims.iter().product::<usize>() * width);
        for Pick { axis, source } in self.of(tensor) {
            let inner = dims[axis + 1..].iter().product::<usize>() * width;
            let mut moved = Vec::with_capacity(data.len() / dims[*axis].max(1) * source.len());
            for slab in data.chunks_exact((dims[*axis] * inner).max(1)) {
                for &position in source {
                    moved.extend_from_slice(&slab[position as usize * inner..][..inner]);
                }
            }
            data = moved;
            dims[*axis] = source.len();
        }
        data
    }

    fn of(&self, tensor: &str) -> &[Pick] {
        self.by_tensor.get(tensor).map_or(&[], Vec::as_slice)
    }
}

/// The positions of an axis of `len`: those of the stretches where they are, and in between the same as before.
fn joined(len: usize, mut stretches: Vec<Stretch>) -> Vec<u32> {
    stretches.sort_unstable_by_key(|(start, ..)| *start);
    let (mut source, mut end) = (Vec::with_capacity(len), 0);
    for (start, len, taken) in stretches {
        source.extend(end as u32..start as u32);
        source.extend(taken);
        end = start + len;
    }
    source.extend(end as u32..len as u32);
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(units: usize, members: &[(&str, usize, usize, usize, usize)]) -> UnitGroup {
        let member = |&(tensor, axis, len, start, block): &(&str, usize, usize, usize, usize)| Member {
            tensor: tensor.into(),
            axis,
            len,
            start,
            block,
            is_summed: false,
        };
        UnitGroup { units, members: members.iter().map(member).collect(), fixed_size: None }
    }

    #[test]
    fn every_member_changes_and_the_rest_stays() {
        let (a, b) = (group(2, &[("w", 1, 4, 1, 1), ("v", 0, 4, 0, 2)]), group(3, &[("w", 0, 3, 0, 1)]));
        let orders: [(&UnitGroup, &[u32]); 2] = [(&a, &[1, 0]), (&b, &[2, 0, 1])];
        let picks = Picks::new(orders.into_iter());
        let w = picks.apply("w", &[3, 4], 1, (0..12).collect());
        assert_eq!(w, [8, 10, 9, 11, 0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(picks.apply("v", &[4], 2, (0..8).collect()), [4, 5, 6, 7, 0, 1, 2, 3]);
        assert_eq!(picks.apply("other", &[2], 1, vec![1, 2]), [1, 2]);
        assert!(picks.contain("v") && !picks.contain("other"));
    }

    #[test]
    fn units_that_are_not_listed_go_and_others_close_up() {
        let (a, b) = (group(3, &[("w", 1, 8, 0, 2), ("v", 0, 4, 1, 1)]), group(2, &[("w", 1, 8, 6, 1)]));
        let orders: [(&UnitGroup, &[u32]); 1] = [(&a, &[0, 2])];
        let picks = Picks::new(orders.into_iter());
        assert_eq!(picks.dims("w", &[2, 8]), [2, 6]);
        assert_eq!(picks.apply("w", &[2, 8], 1, (0..16).collect()), [0, 1, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15]);
        assert_eq!(picks.apply("v", &[4], 1, vec![9, 0, 1, 2]), [9, 0, 2]);
        assert_eq!(picks.group(&a, 2), group(2, &[("w", 1, 6, 0, 2), ("v", 0, 3, 1, 1)]));
        assert_eq!(picks.group(&b, 2), group(2, &[("w", 1, 6, 4, 1)]));
    }
}
