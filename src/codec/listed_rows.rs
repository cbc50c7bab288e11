//! Rows decoded by their numbers, as a look-up asks for them.

use rayon::prelude::*;

use super::head::Lookup;
use super::{CompressedMatrix, Visitor};

impl CompressedMatrix {
    /// Decodes `rows`, which rise, into `out`, rows.len() x cols, row-major, rounded to f32. Walks the blocks that hold some
    /// of them, each once, in parallel on the current rayon pool; returns how many.
    ///
    /// # Panics
    /// If `out` is not of that size, or `rows` do not rise or go past the matrix.
    pub fn decode_listed_rows(&self, rows: &[u32], out: &mut [f32]) -> usize {
        let (cols, per_block) = (self.head().cols, self.head().rows_per_block);
        assert!(rows.is_sorted_by(|a, b| a < b), "rows rise");
        assert!(rows.last().is_none_or(|&row| (row as usize) < self.head().rows), "{rows:?} of {}", self.head().rows);
        assert_eq!(out.len(), rows.len() * cols, "out is rows x cols");
        if cols == 0 {
            return 0;
        }
        let mut parts = Vec::new();
        let mut rest = out;
        for rows in rows.chunk_by(|&a, &b| a as usize / per_block == b as usize / per_block) {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(rows.len() * cols);
            parts.push((rows, part));
            rest = after;
        }
        let count = parts.len();
        match count {
            1 => parts.into_iter().for_each(|(rows, out)| self.decode_rows_of_block(rows, out)),
            _ => parts.into_par_iter().for_each(|(rows, out)| self.decode_rows_of_block(rows, out)),
        }
        count
    }

    /// The same for `rows` of one block, at least one.
    fn decode_rows_of_block(&self, rows: &[u32], out: &mut [f32]) {
        let head = self.head();
        let block = rows[0] as usize / head.rows_per_block;
        let first = head.block_rows(block).start;
        let mut starts = vec![out.len(); head.block_rows(block).len()];
        rows.iter().enumerate().for_each(|(i, &row)| starts[row as usize - first] = i * head.cols);
        out.fill(0.0);
        self.visit(block, &mut Pick { lookup: head.words.lookup(), first, starts, out, row: usize::MAX, at: 0 });
    }
}

/// Writes the cells of some rows of a block into `out`, which holds zeros before.
struct Pick<'a> {
    lookup: Lookup<'a>,
    /// The first row of the block.
    first: usize,
    /// Where each row of the block begins in `out`; at its end if it is not wanted.
    starts: Vec<usize>,
    out: &'a mut [f32],
    row: usize,
    /// Where `row` begins.
    at: usize,
}

impl Pick<'_> {
    #[inline]
    fn turn_to(&mut self, row: usize) {
        self.row = row;
        self.at = self.starts[row - self.first];
    }
}

impl Visitor for Pick<'_> {
    #[inline]
    fn cell(&mut self, row: usize, col: usize, word: u64) {
        if row != self.row {
            self.turn_to(row);
        }
        if let Some(cell) = self.out.get_mut(self.at + col) {
            *cell = self.lookup.to_f32(word);
        }
    }

    #[inline]
    fn run(&mut self, row: usize, col: usize, symbols: &[u8], _zero: Option<u64>) {
        if row != self.row {
            self.turn_to(row);
        }
        if let Some(cells) = self.out.get_mut(self.at + col..) {
            cells.iter_mut().zip(symbols).for_each(|(cell, &symbol)| *cell = self.lookup.to_f32(u64::from(symbol)));
        }
    }
}
