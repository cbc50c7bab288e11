//! Tensors rearranged to orders of units: for each axis, which old position each new one takes.

use std::collections::HashMap;

use super::{Member, UnitGroup};

/// What every position takes on the axes that change, by tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picks {
    by_tensor: HashMap<String, Vec<Pick>>,
}

/// A stretch of an axis: position `start + i` takes what is at `source[i]`. The rest of the axis stays.
#[derive(Debug, Clone, PartialEq)]
struct Pick {
    axis: usize,
    start: usize,
    source: Vec<u32>,
}

impl Picks {
    /// Puts the units of each group in the places that its order says, in all its members: place `i` is for unit
    /// `order[i]`.
    pub fn new<'a>(orders: impl Iterator<Item = (&'a UnitGroup, &'a [u32])>) -> Self {
        let mut picks = Self::default();
        for (group, order) in orders {
            for Member { tensor, axis, start, block } in &group.members {
                let position = |unit: &u32| {
                    let first = start + *unit as usize * block;
                    (first..first + block).map(|position| position as u32)
                };
                let source = order.iter().flat_map(position).collect();
                let pick = Pick { axis: *axis, start: *start, source };
                picks.by_tensor.entry(tensor.clone()).or_default().push(pick);
            }
        }
        picks
    }

    /// Whether `tensor` changes.
    pub fn contain(&self, tensor: &str) -> bool {
        self.by_tensor.contains_key(tensor)
    }

    /// Rearranges the elements of `tensor`, in row-major order of `dims`, each `width` items of `data`.
    ///
    /// # Panics
    /// If `data` holds another number of items.
    pub fn apply<T: Copy>(&self, tensor: &str, dims: &[usize], width: usize, mut data: Vec<T>) -> Vec<T> {
        assert_eq!(data.len(), dims.iter().product::<usize>() * width);
        for Pick { axis, start, source } in self.by_tensor.get(tensor).into_iter().flatten() {
            let inner = dims[axis + 1..].iter().product::<usize>() * width;
            let mut moved = Vec::with_capacity(source.len() * inner);
            for slab in data.chunks_exact_mut((dims[*axis] * inner).max(1)) {
                moved.clear();
                for &position in source {
                    moved.extend_from_slice(&slab[position as usize * inner..][..inner]);
                }
                slab[start * inner..][..moved.len()].copy_from_slice(&moved);
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(units: usize, members: &[(&str, usize, usize, usize)]) -> UnitGroup {
        let member = |&(tensor, axis, start, block): &(&str, usize, usize, usize)| Member {
            tensor: tensor.into(),
            axis,
            start,
            block,
        };
        UnitGroup { units, members: members.iter().map(member).collect(), fixed_size: None }
    }

    #[test]
    fn every_member_changes_and_the_rest_stays() {
        let (a, b) = (group(2, &[("w", 1, 1, 1), ("v", 0, 0, 2)]), group(3, &[("w", 0, 0, 1)]));
        let orders: [(&UnitGroup, &[u32]); 2] = [(&a, &[1, 0]), (&b, &[2, 0, 1])];
        let picks = Picks::new(orders.into_iter());
        let w = picks.apply("w", &[3, 4], 1, (0..12).collect());
        assert_eq!(w, [8, 10, 9, 11, 0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(picks.apply("v", &[4], 2, (0..8).collect()), [4, 5, 6, 7, 0, 1, 2, 3]);
        assert_eq!(picks.apply("other", &[2], 1, vec![1, 2]), [1, 2]);
        assert!(picks.contain("v") && !picks.contain("other"));
    }
}
