//! Units that are exact copies: whatever they are worked out from is the same bit by bit, so they are the same for every input.

use super::Member;

/// Units told apart by the cells of one member after the other; those that stay together are copies.
#[derive(Debug)]
pub struct Copies {
    /// Of two units and more, in their order.
    classes: Vec<Vec<u32>>,
}

impl Copies {
    /// The first `units`, none of them told apart yet.
    pub fn new(units: usize) -> Self {
        let all: Vec<u32> = (0u32..).take(units).collect();
        Self { classes: if units > 1 { vec![all] } else { Vec::new() } }
    }

    /// Tells units apart by their cells in a tensor of `dims`, whose elements are `width` bytes each.
    ///
    /// # Panics
    /// If the member is beyond the tensor.
    pub fn tell_apart(&mut self, member: &Member, dims: &[usize], width: usize, bytes: &[u8]) {
        let inner = dims[member.axis + 1..].iter().product::<usize>() * width;
        let (slab, run) = (dims[member.axis] * inner, member.block * inner);
        let cells = |unit: u32| {
            let first = member.start * inner + unit as usize * run;
            bytes.chunks_exact(slab.max(1)).map(move |slab| &slab[first..first + run])
        };
        let mut told = Vec::new();
        for mut class in std::mem::take(&mut self.classes) {
            class.sort_by(|&a, &b| cells(a).cmp(cells(b)));
            told.extend(
                class.chunk_by(|&a, &b| cells(a).eq(cells(b))).filter(|copies| copies.len() > 1).map(<[_]>::to_vec),
            );
        }
        told.sort_unstable();
        self.classes = told;
    }

    /// Whether no two are alike.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Sets of copies, in the order of their first units; in each the units ascend.
    pub fn classes(&self) -> &[Vec<u32>] {
        &self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(axis: usize, len: usize, start: usize, block: usize) -> Member {
        Member { tensor: "w".into(), axis, len, start, block, is_summed: false }
    }

    #[test]
    fn units_are_copies_where_all_their_cells_are() {
        let mut copies = Copies::new(5);
        copies.tell_apart(&member(0, 5, 0, 1), &[5, 2], 1, &[1, 2, 3, 4, 1, 2, 3, 4, 1, 2]);
        assert_eq!(copies.classes(), [vec![0, 2, 4], vec![1, 3]]);
        // Columns behind one of another kind, of two bytes each.
        let columns = [9, 9, 0, 1, 0, 2, 0, 1, 0, 3, 1, 1, 9, 9, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1];
        copies.tell_apart(&member(1, 6, 1, 1), &[2, 6], 2, &columns);
        assert_eq!(copies.classes(), [vec![0, 2]]);
    }

    #[test]
    fn blocks_are_compared_as_a_whole() {
        let mut copies = Copies::new(3);
        copies.tell_apart(&member(0, 6, 0, 2), &[6], 1, &[1, 2, 2, 1, 1, 2]);
        assert_eq!(copies.classes(), [vec![0, 2]]);
        copies.tell_apart(&member(0, 3, 0, 1), &[3], 1, &[1, 1, 2]);
        assert!(copies.is_empty());
        assert!(Copies::new(1).is_empty());
    }
}
