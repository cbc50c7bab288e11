//! The rows of a block made from their changes, one after the other along the trees.
//!
//! One row is held at a time: its changes are noted, and undone on the way back to the parent of the next row.

use std::ops::Range;

use super::super::{Codec, DecodeError, Visitor};
use super::Delta;
use super::forest::Forest;

/// Follows rows as they are made. Rows are numbered in their block.
pub(super) trait Follow {
    /// `row` is as its parent is, or as rows without a parent begin.
    fn begin(&mut self, row: usize, parent: Option<usize>);

    /// The cell in `col` of the row is changed.
    fn change(&mut self, col: usize, before: u16, now: u16);

    /// The row is done; these are its symbols.
    fn end(&mut self, row: usize, symbols: &[u16]);
}

impl<F: Follow> Follow for &mut F {
    fn begin(&mut self, row: usize, parent: Option<usize>) {
        (**self).begin(row, parent);
    }

    fn change(&mut self, col: usize, before: u16, now: u16) {
        (**self).change(col, before, now);
    }

    fn end(&mut self, row: usize, symbols: &[u16]) {
        (**self).end(row, symbols);
    }
}

/// Passes the cells of every row that are not zero to a visitor.
pub(super) struct Cells<'a, V> {
    /// The first row of the block.
    pub(super) first: usize,
    pub(super) zero: Option<u64>,
    pub(super) visitor: &'a mut V,
}

impl<V: Visitor> Follow for Cells<'_, V> {
    fn begin(&mut self, _row: usize, _parent: Option<usize>) {}

    fn change(&mut self, _col: usize, _before: u16, _now: u16) {}

    fn end(&mut self, row: usize, symbols: &[u16]) {
        let words = symbols.iter().map(|&symbol| u64::from(symbol)).enumerate();
        let stored = words.filter(|&(_, word)| Some(word) != self.zero);
        stored.for_each(|(col, word)| self.visitor.cell(self.first + row, col, word));
    }
}

/// Makes the rows of a block from `changes`, the bytes behind the parents; rows without a parent begin as `base` in every
/// cell.
///
/// # Errors
/// Those of the changes.
pub(super) fn replay(
    delta: &Delta,
    forest: &Forest,
    changes: &[u8],
    rows: Range<usize>,
    base: u16,
    follow: impl Follow,
) -> Result<(), DecodeError> {
    let mut made = Replay {
        first: rows.start,
        rows: forest.rows(),
        begun: 0,
        symbols: vec![base; delta.head.cols],
        path: Vec::new(),
        undo: Vec::new(),
        follow,
    };
    delta.changes.visit_block(&delta.head, changes, rows, &mut made)?;
    made.finish();
    Ok(())
}

struct Replay<I, F> {
    /// The first row of the block.
    first: usize,
    /// Rows that were not begun, with their parents.
    rows: I,
    /// Rows that were.
    begun: usize,
    /// Those of the row at the end of the path.
    symbols: Vec<u16>,
    /// The current row and those above it, and where the changes of each begin in `undo`.
    path: Vec<(usize, usize)>,
    /// The changes of the rows on the path: columns, and the symbols before.
    undo: Vec<(u32, u16)>,
    follow: F,
}

impl<I: ExactSizeIterator<Item = (usize, Option<usize>)>, F: Follow> Replay<I, F> {
    /// Goes on to the next row.
    fn turn(&mut self) {
        self.end();
        let Some((row, parent)) = self.rows.next() else { return };
        while let Some(&(_, start)) = self.path.last().filter(|(above, _)| Some(*above) != parent) {
            for (col, symbol) in self.undo.drain(start..).rev() {
                self.symbols[col as usize] = symbol;
            }
            self.path.pop();
        }
        self.path.push((row, self.undo.len()));
        self.begun += 1;
        self.follow.begin(row, parent);
    }

    fn end(&mut self) {
        if let Some(&(row, _)) = self.path.last() {
            self.follow.end(row, &self.symbols);
        }
    }

    /// Rows behind the last change are as their parents are.
    fn finish(mut self) {
        while self.rows.len() > 0 {
            self.turn();
        }
        self.end();
    }
}

impl<I: ExactSizeIterator<Item = (usize, Option<usize>)>, F: Follow> Visitor for Replay<I, F> {
    #[inline]
    fn cell(&mut self, row: usize, col: usize, word: u64) {
        // Changes stand row by row, in preorder; some rows have none.
        while self.begun <= row - self.first {
            self.turn();
        }
        let now = (word - 1) as u16;
        let before = std::mem::replace(&mut self.symbols[col], now);
        self.undo.push((col as u32, before));
        self.follow.change(col, before, now);
    }
}
