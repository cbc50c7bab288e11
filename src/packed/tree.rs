//! Sparse rows held as differences from one another, along a [`DeltaTree`].
//!
//! A difference's product is added to the output of the row it differs from. Each level of the tree adds a rounding of
//! at most `2^-24` of the largest output, and the error of a sum of differences, whose terms are no larger than those of
//! two rows: with at most [`DEPTH`] rows above it an output is off by less than
//! `2^-24 (DEPTH max |y| + 2 (DEPTH + 1) (n + 2) max sum |w x|)` for rows of n terms. On the layers of the base paper's
//! authors it is off by 1e-6 of the largest output, as it is without the tree.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::PRODUCTS_PER_TASK;
use crate::kernel::sparse::{SparseRows, Values};
use crate::kernel::tree::{DeltaTree, Rows};

/// Most rows above a row. An unbounded tree has 1 to 3 % fewer entries, and is up to 137 rows deep, on the layers of the
/// base paper's authors.
pub(super) const DEPTH: u32 = 32;

/// A tree pays where it leaves at most this share of the entries, the addition of a parent counted as one.
const MOST_LEFT: f64 = 0.75;

/// Which held row is the parent of which. Rows stand in levels: those held in full, then their children, and so on.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where each level ends.
    ends: Vec<usize>,
    /// The parents of the rows past the first level: held rows of levels before theirs.
    parents: Vec<u32>,
}

/// Rows held along a tree.
pub(super) struct Differences {
    pub(super) rows: SparseRows,
    pub(super) tree: Tree,
    /// Where each of the original rows is held.
    pub(super) places: Vec<u32>,
}

impl Tree {
    /// Turns products of differences into outputs: `held` has `batch` elements for each held row.
    pub(super) fn add_parents(&self, batch: usize, held: &mut [f32]) {
        let mut parents = &self.parents[..];
        for level in self.ends.windows(2) {
            let (above, rows) = held[..level[1] * batch].split_at_mut(level[0] * batch);
            let (of_level, after) = parents.split_at(level[1] - level[0]);
            parents = after;
            let add = |(row, &parent): (&mut [f32], &u32)| {
                let parent = &above[parent as usize * batch..][..batch];
                row.iter_mut().zip(parent).for_each(|(sum, parent)| *sum += parent);
            };
            if rows.len() <= PRODUCTS_PER_TASK {
                rows.chunks_exact_mut(batch).zip(of_level).for_each(add);
            } else {
                let fewest = PRODUCTS_PER_TASK.div_ceil(batch);
                rows.par_chunks_exact_mut(batch).zip(of_level).with_min_len(fewest).for_each(add);
            }
        }
    }

    /// Bytes of memory.
    pub(super) fn resident_bytes(&self) -> usize {
        size_of_val(&self.ends[..]) + size_of_val(&self.parents[..])
    }
}

impl Differences {
    /// Finds a tree for `rows`, of symbols below `levels`; `None` where it does not pay.
    pub(super) fn find(rows: &SparseRows, levels: usize) -> Option<Self> {
        let zero = rows.zero()?;
        let count = rows.rows();
        // Swaps the symbols of zero and 0, pair by pair, which keeps all below the power of two that holds them.
        let read = |row: usize, cells: &mut [u8]| {
            cells.fill(0);
            rows.symbols(row).for_each(|(col, symbol)| cells[col] = symbol ^ zero);
        };
        let mut tree = DeltaTree::find(&Rows { count, cols: rows.cols(), read: &read, levels }, DEPTH)?;
        let table = Table::of(rows, &tree, levels, zero);
        for row in 0..count {
            let parent = tree.parents[row].map(|parent| parent as usize);
            if parent.is_some_and(|parent| !table.holds(rows, row, parent)) {
                tree.parents[row] = None;
            }
        }
        let found = Self::along(&tree, rows, &table);
        let left = found.rows.count(0..count) + found.tree.parents.len();
        (left as f64 <= MOST_LEFT * rows.count(0..count) as f64).then_some(found)
    }

    /// Holds `rows` along `tree`, whose differences are all in `table`. Within a level, rows of equally many entries
    /// follow each other, so that the processor foresees where each ends.
    fn along(tree: &DeltaTree, rows: &SparseRows, table: &Table) -> Self {
        let depths = tree.depths();
        let entries = |row: usize| match tree.parents[row] {
            Some(parent) => differences(rows, row, parent as usize).count(),
            None => rows.count(row..row + 1),
        };
        let mut order: Vec<_> = (0..rows.rows()).map(|row| (depths[row], entries(row), row)).collect();
        order.sort_unstable();

        let mut held = SparseRows::new(rows.cols(), Box::new(table.values), Some(0));
        let (mut places, mut parents, mut ends) = (vec![0; order.len()], Vec::new(), Vec::new());
        for (place, &(depth, _, row)) in order.iter().enumerate() {
            places[row] = place as u32;
            match tree.parents[row] {
                None => rows.terms(row).filter(|&(_, w)| w != 0.0).for_each(|(col, w)| held.push(col, table.symbol(w))),
                Some(parent) => {
                    parents.push(places[parent as usize]);
                    differences(rows, row, parent as usize).for_each(|(col, w)| held.push(col, table.symbol(w)));
                }
            }
            held.end_row();
            ends.resize(depth as usize + 1, 0);
            ends[depth as usize] = place + 1;
        }
        held.shrink();
        parents.shrink_to_fit();
        Self { rows: held, tree: Tree { ends, parents }, places }
    }
}

/// The columns in which `row` differs from `parent`, and by how much.
fn differences(rows: &SparseRows, row: usize, parent: usize) -> impl Iterator<Item = (usize, f32)> {
    let (mut of_row, mut of_parent) = (rows.terms(row).peekable(), rows.terms(parent).peekable());
    std::iter::from_fn(move || {
        let col = |term: Option<&(usize, f32)>| term.map_or(usize::MAX, |term| term.0);
        let next = col(of_row.peek()).min(col(of_parent.peek()));
        let take = |term: Option<(usize, f32)>| term.map_or(0.0, |term| term.1);
        let value = take(of_row.next_if(|term| term.0 == next));
        let difference = value - take(of_parent.next_if(|term| term.0 == next));
        (next < usize::MAX).then_some((next, difference))
    })
    .filter(|&(_, difference)| difference != 0.0)
}

/// The values that rows and differences are made of.
struct Table {
    values: Values,
    symbols: HashMap<u32, u8>,
}

impl Table {
    /// Zero, the values of `rows`, and then the differences along `tree` that occur most often, as many as there is room
    /// for.
    fn of(rows: &SparseRows, tree: &DeltaTree, levels: usize, zero: u8) -> Self {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for (row, parent) in tree.parents.iter().enumerate() {
            let Some(parent) = *parent else { continue };
            differences(rows, row, parent as usize).for_each(|(_, w)| *counts.entry(w.to_bits()).or_default() += 1);
        }
        let mut by_count: Vec<_> = counts.into_iter().map(|(bits, count)| (Reverse(count), bits)).collect();
        by_count.sort_unstable();

        let mut table = Self { values: [0.0; 256], symbols: HashMap::new() };
        let own = (0..levels).filter(|&symbol| symbol != usize::from(zero)).map(|symbol| rows.values()[symbol]);
        for value in [0.0].into_iter().chain(own).chain(by_count.into_iter().map(|(_, bits)| f32::from_bits(bits))) {
            let symbol = table.symbols.len();
            if symbol < table.values.len() && !table.symbols.contains_key(&value.to_bits()) {
                table.symbols.insert(value.to_bits(), symbol as u8);
                table.values[symbol] = value;
            }
        }
        table
    }

    fn symbol(&self, value: f32) -> u8 {
        self.symbols[&value.to_bits()]
    }

    /// Whether all differences of `row` from `parent` are in the table.
    fn holds(&self, rows: &SparseRows, row: usize, parent: usize) -> bool {
        differences(rows, row, parent).all(|(_, difference)| self.symbols.contains_key(&difference.to_bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of digits, which are also their values.
    fn rows(cells: &[&str]) -> SparseRows {
        let values = std::array::from_fn(|symbol| if symbol < 10 { symbol as f32 } else { 0.0 });
        let mut rows = SparseRows::new(cells[0].len(), Box::new(values), Some(0));
        for cells in cells {
            let symbols: Vec<u8> = cells.bytes().map(|digit| digit - b'0').collect();
            rows.push_row(&symbols, Some(0));
        }
        rows
    }

    #[test]
    fn rows_are_held_as_differences_and_their_sums_restored() {
        let plain = rows(&["11123330", "00000001", "11123335", "41123335", "11123330"]);
        let found = Differences::find(&plain, 10).unwrap();
        assert_eq!((&found.tree.ends[..], &found.tree.parents[..]), (&[2, 4, 5][..], &[1, 1, 3][..]));
        assert_eq!(found.places, [1, 0, 3, 4, 2]);
        assert_eq!(found.rows.terms(3).collect::<Vec<_>>(), [(7, 5.0)]);
        assert_eq!(found.rows.terms(4).collect::<Vec<_>>(), [(0, 3.0)]);
        let x: Vec<f32> = (0..8).map(|i| 0.5 + i as f32).collect();
        let (mut held, mut expected) = (vec![0.0; 5], vec![0.0; 5]);
        found.rows.dot(0..5, &x, &mut held);
        found.tree.add_parents(1, &mut held);
        plain.dot(0..5, &x, &mut expected);
        let restored: Vec<f32> = found.places.iter().map(|&place| held[place as usize]).collect();
        assert_eq!(restored, expected);
    }

    #[test]
    fn a_tree_that_saves_little_is_not_grown() {
        assert!(Differences::find(&rows(&["12340000", "00001234", "12000034"]), 10).is_none());
    }

    #[test]
    fn differences_that_find_no_room_leave_rows_in_full() {
        // 256 values leave no room for differences other than these values.
        let values = Box::new(std::array::from_fn(|symbol| (symbol * symbol) as f32));
        let mut plain = SparseRows::new(40, values, Some(0));
        for symbol in [2, 3, 5, 5, 5] {
            let cells: [u8; 40] = std::array::from_fn(|col| if col == 0 { symbol } else { 7 });
            plain.push_row(&cells, Some(0));
        }
        // The second and the third row would differ from the first by 5 and by 21, which are no squares.
        let found = Differences::find(&plain, 256).unwrap();
        assert_eq!(found.tree.parents.len(), 2);
        let mut held = [0.0; 5];
        found.rows.dot(0..5, &[1.0; 40], &mut held);
        found.tree.add_parents(1, &mut held);
        let sums: Vec<f32> = found.places.iter().map(|&place| held[place as usize]).collect();
        assert_eq!(sums, [4.0, 9.0, 25.0, 25.0, 25.0].map(|first| first + 39.0 * 49.0));
    }
}
