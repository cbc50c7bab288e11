//! What can be done with the cells of a block: count them, expand them, multiply by them.

use std::ops::Range;

use super::Visitor;
use super::head::Lookup;

/// Counts the cells that are visited.
pub(super) struct Count(pub(super) usize);

impl Visitor for Count {
    #[inline]
    fn cell(&mut self, _row: usize, _col: usize, _word: u64) {
        self.0 += 1;
    }
}

/// Writes the cells of `rows` into `out`, rows.len() x cols, row-major, which holds zeros before.
pub(super) struct Expand<'a, T, F> {
    rows: Range<usize>,
    cols: usize,
    value: F,
    out: &'a mut [T],
    row: usize,
    /// Where `row` begins in `out`; past its end if the row is not wanted.
    at: usize,
}

impl<'a, T, F: Fn(u64) -> T> Expand<'a, T, F> {
    pub(super) fn new(rows: Range<usize>, cols: usize, value: F, out: &'a mut [T]) -> Self {
        Self { rows, cols, value, out, row: usize::MAX, at: 0 }
    }

    fn turn_to(&mut self, row: usize) {
        self.row = row;
        self.at = if self.rows.contains(&row) { (row - self.rows.start) * self.cols } else { self.out.len() };
    }
}

impl<T, F: Fn(u64) -> T> Visitor for Expand<'_, T, F> {
    #[inline]
    fn cell(&mut self, row: usize, col: usize, word: u64) {
        if row != self.row {
            self.turn_to(row);
        }
        if let Some(cell) = self.out.get_mut(self.at + col) {
            *cell = (self.value)(word);
        }
    }

    #[inline]
    fn run(&mut self, row: usize, col: usize, symbols: &[u8], _zero: Option<u64>) {
        if row != self.row {
            self.turn_to(row);
        }
        if let Some(cells) = self.out.get_mut(self.at + col..) {
            cells.iter_mut().zip(symbols).for_each(|(cell, &symbol)| *cell = (self.value)(u64::from(symbol)));
        }
    }
}

/// The right-hand side of a product: inputs x batch, row-major, and which rows of the matrix read which of it.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) lookup: Lookup<'a>,
    pub(super) x: &'a [f32],
    pub(super) batch: usize,
    pub(super) cols: usize,
    /// Rows that read the same `cols` inputs; the next as many read the next.
    pub(super) rows_per_group: usize,
}

impl<'a> Inputs<'a> {
    /// What `row` reads: cols x batch.
    pub(super) fn of_row(&self, row: usize) -> &'a [f32] {
        let len = self.cols * self.batch;
        &self.x[row / self.rows_per_group * len..][..len]
    }
}

/// Adds the products of `rows` with one sample to `out`, rows.len().
pub(super) struct Dot<'a> {
    inputs: Inputs<'a>,
    rows: Range<usize>,
    out: &'a mut [f32],
    row: usize,
    /// The inputs of `row`; none if it is not wanted, so that its cells add nothing.
    x: &'a [f32],
    /// The sum of `row`, in as many parts as additions take cycles: none waits for the one before.
    sums: [f32; 4],
}

impl<'a> Dot<'a> {
    pub(super) fn new(inputs: Inputs<'a>, rows: Range<usize>, out: &'a mut [f32]) -> Self {
        Self { inputs, rows, out, row: usize::MAX, x: &[], sums: [0.0; 4] }
    }

    fn turn_to(&mut self, row: usize) {
        self.finish();
        self.row = row;
        self.x = if self.rows.contains(&row) { self.inputs.of_row(row) } else { &[] };
    }

    /// Adds the sum of the last row.
    pub(super) fn finish(&mut self) {
        if self.rows.contains(&self.row) {
            let [a, b, c, d] = self.sums;
            self.out[self.row - self.rows.start] += (a + b) + (c + d);
        }
        self.sums = [0.0; 4];
    }
}

impl Visitor for Dot<'_> {
    #[inline]
    fn cell(&mut self, row: usize, col: usize, word: u64) {
        if row != self.row {
            self.turn_to(row);
        }
        if let Some(x) = self.x.get(col) {
            self.sums[col % 4] += self.inputs.lookup.to_f32(word) * x;
        }
    }
}

/// Adds the products of `rows` with a batch to `out`, rows.len() x batch, row-major.
pub(super) struct Axpy<'a> {
    inputs: Inputs<'a>,
    rows: Range<usize>,
    out: &'a mut [f32],
    row: usize,
    /// The inputs of `row`; none if it is not wanted.
    x: &'a [f32],
    /// Where the sums of `row` begin in `out`.
    at: usize,
}

impl<'a> Axpy<'a> {
    pub(super) fn new(inputs: Inputs<'a>, rows: Range<usize>, out: &'a mut [f32]) -> Self {
        Self { inputs, rows, out, row: usize::MAX, x: &[], at: 0 }
    }

    fn turn_to(&mut self, row: usize) {
        self.row = row;
        self.x = &[];
        if self.rows.contains(&row) {
            self.x = self.inputs.of_row(row);
            self.at = (row - self.rows.start) * self.inputs.batch;
        }
    }
}

impl Visitor for Axpy<'_> {
    #[inline]
    fn cell(&mut self, row: usize, col: usize, word: u64) {
        if row != self.row {
            self.turn_to(row);
        }
        let batch = self.inputs.batch;
        if let Some(x) = self.x.get(col * batch..(col + 1) * batch) {
            let weight = self.inputs.lookup.to_f32(word);
            let sums = &mut self.out[self.at..self.at + batch];
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * x);
        }
    }
}
