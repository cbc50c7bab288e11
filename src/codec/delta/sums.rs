//! Products along the trees: that of a row is its parent's, and what its changes add.
//!
//! Sums are kept in f64, beside which those of 32 differences add no error that f32 would show.

use std::ops::Range;

use super::super::visitors::Inputs;
use super::replay::Follow;

/// The products of the rows of a block.
pub(super) struct Sums<'a> {
    /// The values of the symbols.
    values: Vec<f64>,
    /// Inputs x batch.
    x: &'a [f32],
    batch: usize,
    /// The product of a row that changes none.
    unchanged: Vec<f64>,
    /// Rows x batch.
    sums: Vec<f64>,
    /// Where the current row begins in `sums`.
    at: usize,
}

impl<'a> Sums<'a> {
    /// For `rows`, which read the same of `inputs`, of a codebook of `levels` values; rows that change none hold `base`.
    pub(super) fn new(inputs: Inputs<'a>, rows: Range<usize>, levels: usize, base: u16) -> Self {
        let values: Vec<f64> = (0..levels as u64).map(|symbol| f64::from(inputs.lookup.to_f32(symbol))).collect();
        let (x, batch) = (inputs.of_row(rows.start), inputs.batch);
        let mut unchanged = vec![0.0; batch];
        if values[usize::from(base)] != 0.0 {
            x.chunks_exact(batch).for_each(|x| add(&mut unchanged, values[usize::from(base)], x));
        }
        Self { values, x, batch, unchanged, sums: vec![0.0; rows.len() * batch], at: 0 }
    }

    /// Writes the products of the rows `wanted` of the block to `out`, wanted.len() x batch.
    pub(super) fn write(self, wanted: Range<usize>, out: &mut [f32]) {
        let sums = &self.sums[wanted.start * self.batch..wanted.end * self.batch];
        out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = sum as f32);
    }
}

impl Follow for Sums<'_> {
    fn begin(&mut self, row: usize, parent: Option<usize>) {
        self.at = row * self.batch;
        match parent.map(|parent| parent * self.batch) {
            Some(parent) => self.sums.copy_within(parent..parent + self.batch, self.at),
            None => self.sums[self.at..][..self.batch].copy_from_slice(&self.unchanged),
        }
    }

    #[inline]
    fn change(&mut self, col: usize, before: u16, now: u16) {
        let difference = self.values[usize::from(now)] - self.values[usize::from(before)];
        let x = &self.x[col * self.batch..][..self.batch];
        add(&mut self.sums[self.at..][..self.batch], difference, x);
    }

    fn end(&mut self, _row: usize, _symbols: &[u16]) {}
}

/// Adds `weight` times the inputs of each sample.
#[inline]
fn add(sums: &mut [f64], weight: f64, x: &[f32]) {
    sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += weight * f64::from(x));
}
