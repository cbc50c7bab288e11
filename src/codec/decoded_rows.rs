//! Consecutive rows decoded to what a product walks: columns and weights of the cells that are not zero.

use std::ops::Range;

use rayon::prelude::*;

use super::head::Lookup;
use super::{CompressedMatrix, Visitor};

/// Consecutive rows as their terms: (column, weight) of every cell that is not zero.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecodedRows {
    rows: Range<usize>,
    /// Where the terms of each row start, and where those of the last one end.
    starts: Vec<usize>,
    terms: Vec<(u32, f32)>,
}

impl DecodedRows {
    /// Which rows of the matrix these are.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The terms of `row`, which is counted from the first row of the matrix.
    ///
    /// # Panics
    /// If `row` is not among these.
    pub(crate) fn terms(&self, row: usize) -> &[(u32, f32)] {
        let at = row - self.rows.start;
        &self.terms[self.starts[at]..self.starts[at + 1]]
    }

    fn append(&mut self, next: Self) {
        let before = self.terms.len();
        self.rows.end = next.rows.end;
        self.starts.extend(next.starts[1..].iter().map(|start| before + start));
        self.terms.extend(next.terms);
    }
}

impl CompressedMatrix {
    /// Decodes the blocks from `first` on, as many as hold about `most_terms` cells that are stored, one at least, in
    /// parallel on the current rayon pool. Returns them and the block after, or `None` past the last; rows without cells
    /// are in no block.
    pub(crate) fn decoded_rows(&self, first: usize, most_terms: usize) -> Option<(DecodedRows, usize)> {
        let blocks = self.head().blocks();
        if first >= blocks {
            return None;
        }
        let per_block = self.stored_cells().div_ceil(blocks).max(1);
        let count = (most_terms / per_block).clamp(1, blocks - first);
        let decode = |block: usize| {
            let rows = self.head().block_rows(block);
            let mut gather = Gather::new(rows, self.head().words.lookup(), per_block);
            self.visit(block, &mut gather);
            gather.finish()
        };
        let mut parts: Vec<_> = match count {
            1 => vec![decode(first)],
            _ => (first..first + count).into_par_iter().map(decode).collect(),
        };
        let mut rows = parts.remove(0);
        parts.into_iter().for_each(|part| rows.append(part));
        Some((rows, first + count))
    }
}

/// Gathers the terms of a block.
struct Gather<'a> {
    rows: Range<usize>,
    lookup: Lookup<'a>,
    /// (row, column, weight), as they were visited.
    cells: Vec<(u32, u32, f32)>,
}

impl<'a> Gather<'a> {
    fn new(rows: Range<usize>, lookup: Lookup<'a>, cells: usize) -> Self {
        Self { rows, lookup, cells: Vec::with_capacity(cells) }
    }

    fn finish(mut self) -> DecodedRows {
        if !self.cells.is_sorted_by_key(|cell| cell.0) {
            self.cells.sort_by_key(|cell| cell.0);
        }
        let mut starts = Vec::with_capacity(self.rows.len() + 1);
        let mut start = 0;
        for row in self.rows.clone() {
            starts.push(start);
            start += self.cells[start..].iter().take_while(|cell| cell.0 as usize == row).count();
        }
        starts.push(start);
        let terms = self.cells.into_iter().map(|(_, column, weight)| (column, weight)).collect();
        DecodedRows { rows: self.rows, starts, terms }
    }
}

impl Visitor for Gather<'_> {
    #[inline]
    fn cell(&mut self, row: usize, col: usize, word: u64) {
        let weight = self.lookup.to_f32(word);
        if weight != 0.0 {
            // Both are below `MAX_CELLS`, which fits 32 bits.
            self.cells.push((row as u32, col as u32, weight));
        }
    }
}
