//! Products of a block: its entries are decoded some hundred at a time, and multiplied before the next are.

use std::ops::Range;

use super::super::Head;
use super::super::head::Lookup;
use super::super::visitors::Inputs;
use super::grid::Copies;
use super::stream::{BATCH, Batch, Decoder};
use super::{Block, Tables};

/// Samples that are added up together: their sums fit in half of the vector registers.
const PANEL: usize = 32;

/// What the classes of symbols stand for.
type Values = [f32; 256];

/// Some decoded entries.
pub(super) struct Entries<'a> {
    /// Cells of the grid between each and the one before.
    pub(super) gaps: &'a [u32],
    pub(super) symbols: &'a [u8],
    pub(super) values: &'a Values,
}

/// The sums of a block's rows. `out` is the rows of the grid x `batch`, row-major, and holds zeros at first.
pub(super) struct Sums<'a> {
    /// cols x batch, row-major, of the columns of the grid.
    x: &'a [f32],
    batch: usize,
    cols: usize,
    out: &'a mut [f32],
    /// The next cell.
    row: usize,
    col: usize,
}

impl Tables {
    /// `out = rows . x` for `wanted` of the `rows` of a block, which was checked; both count rows of the matrix. Returns
    /// false, and leaves `out`, where a walk does it: if symbols have low bits, or rows of several groups read different
    /// inputs.
    pub(super) fn multiply(
        &self,
        head: &Head,
        (block, rows): (&[u8], Range<usize>),
        wanted: Range<usize>,
        inputs: Inputs,
        out: &mut [f32],
    ) -> bool {
        let group = |row: usize| row / inputs.rows_per_group;
        if self.low_bits > 0 || group(rows.start) != group(rows.end - 1) {
            return false;
        }
        let Ok(Block { copies, decoder, distinct, .. }) = self.open(head, block, rows.len()) else { return false };
        let batch = inputs.batch;
        let x = self.live_inputs(inputs.of_row(rows.start), batch);
        let cols = self.cols(head);
        let values = values(inputs.lookup, head.levels());
        let multiply = |out: &mut [f32]| {
            let sums = Sums { x: x.as_deref().unwrap_or(inputs.of_row(rows.start)), batch, cols, out, row: 0, col: 0 };
            decoder.multiply(&values, sums);
        };
        if copies.is_none() && wanted == rows {
            out.fill(0.0);
            multiply(out);
            return true;
        }
        let mut distinct_out = vec![0.0; distinct * batch];
        multiply(&mut distinct_out);
        for (row, out) in wanted.zip(out.chunks_exact_mut(batch)) {
            let row = row - rows.start;
            let number = copies.as_ref().map_or(row, |Copies { numbers, .. }| numbers[row] as usize);
            out.copy_from_slice(&distinct_out[number * batch..][..batch]);
        }
        true
    }

    /// The inputs that live columns read; none if all are live.
    fn live_inputs(&self, x: &[f32], batch: usize) -> Option<Vec<f32>> {
        let live = self.live.as_ref()?;
        Some(live.iter().flat_map(|&col| &x[col as usize * batch..][..batch]).copied().collect())
    }
}

impl Decoder<'_> {
    fn multiply(mut self, values: &Values, mut sums: Sums) {
        let mut batch = Batch::new();
        let mut gaps = [0; BATCH];
        loop {
            let count = self.next(&mut batch).expect("the block was checked when the payload was opened");
            if count == 0 {
                return;
            }
            self.gaps(&batch.gaps[..count], &mut gaps[..count]).expect("the block was checked");
            sums.add(&Entries { gaps: &gaps[..count], symbols: &batch.symbols[..count], values });
        }
    }
}

impl Sums<'_> {
    /// Adds the products of entries, with fused operations where the processor has them: they round once instead of twice.
    fn add(&mut self, entries: &Entries) {
        #[cfg(target_arch = "x86_64")]
        if super::avx2::add(self, entries) {
            return;
        }
        self.add_with(entries, |weight, x, sum| sum + weight * x);
    }

    #[inline(always)]
    pub(super) fn add_with(&mut self, entries: &Entries, add: impl Fn(f32, f32, f32) -> f32 + Copy) {
        if self.batch == 1 {
            return self.add_sample(entries, add);
        }
        let start = (self.row, self.col);
        let mut first = 0;
        while first < self.batch {
            (self.row, self.col) = start;
            let width = self.batch - first;
            first += match width {
                PANEL.. => self.add_panel::<PANEL>(entries, first, add),
                8.. => self.add_panel::<8>(entries, first, add),
                _ => self.add_panel::<1>(entries, first, add),
            };
        }
    }

    /// Adds the products with one sample, eight entries at a time as long as they are of one row.
    #[inline(always)]
    fn add_sample(&mut self, entries: &Entries, add: impl Fn(f32, f32, f32) -> f32 + Copy) {
        let x = &self.x[..self.cols];
        let mut sums = [0.0; 4];
        let (gaps, last_gaps) = entries.gaps.as_chunks::<8>();
        let (symbols, last_symbols) = entries.symbols.as_chunks::<8>();
        for (gaps, symbols) in gaps.iter().zip(symbols) {
            let end = self.col + 8 + gaps.iter().map(|&gap| gap as usize).sum::<usize>();
            if end > self.cols {
                self.out[self.row] += sum(sums);
                sums = [0.0; 4];
                self.add_one_by_one(gaps, symbols, entries.values, add);
                continue;
            }
            for (i, (&gap, &symbol)) in gaps.iter().zip(symbols).enumerate() {
                self.col += gap as usize;
                sums[i % 4] = add(entries.values[usize::from(symbol)], x[self.col], sums[i % 4]);
                self.col += 1;
            }
        }
        if let Some(out) = self.out.get_mut(self.row) {
            *out += sum(sums);
        }
        self.add_one_by_one(last_gaps, last_symbols, entries.values, add);
    }

    #[inline(always)]
    fn add_one_by_one(
        &mut self,
        gaps: &[u32],
        symbols: &[u8],
        values: &Values,
        add: impl Fn(f32, f32, f32) -> f32 + Copy,
    ) {
        for (&gap, &symbol) in gaps.iter().zip(symbols) {
            self.advance(gap);
            let out = &mut self.out[self.row];
            *out = add(values[usize::from(symbol)], self.x[self.col], *out);
            self.col += 1;
        }
    }

    /// Adds the products with `WIDTH` samples from `first` on. Returns how many they are.
    #[inline(always)]
    fn add_panel<const WIDTH: usize>(
        &mut self,
        entries: &Entries,
        first: usize,
        add: impl Fn(f32, f32, f32) -> f32 + Copy,
    ) -> usize {
        let mut at = None;
        let mut sums = [0.0; WIDTH];
        for (&gap, &symbol) in entries.gaps.iter().zip(entries.symbols) {
            self.advance(gap);
            if at != Some(self.row) {
                if let Some(row) = at {
                    *self.panel(row, first) = sums;
                }
                sums = *self.panel(self.row, first);
                at = Some(self.row);
            }
            let weight = entries.values[usize::from(symbol)];
            let x: &[f32; WIDTH] = self.x[self.col * self.batch + first..].first_chunk().expect("x is cols x batch");
            sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum = add(weight, x, *sum));
            self.col += 1;
        }
        if let Some(row) = at {
            *self.panel(row, first) = sums;
        }
        WIDTH
    }

    #[inline(always)]
    fn panel<const WIDTH: usize>(&mut self, row: usize, first: usize) -> &mut [f32; WIDTH] {
        self.out[row * self.batch + first..].first_chunk_mut().expect("out is rows x batch")
    }

    /// Goes to the cell behind `gap` cells.
    #[inline(always)]
    fn advance(&mut self, gap: u32) {
        self.col += gap as usize;
        if self.col >= self.cols {
            self.row += self.col / self.cols;
            self.col %= self.cols;
        }
    }
}

fn sum([a, b, c, d]: [f32; 4]) -> f32 {
    (a + b) + (c + d)
}

/// The values of all symbols, as f32.
fn values(lookup: Lookup, levels: usize) -> Values {
    let mut values = [0.0; 256];
    values.iter_mut().take(levels).enumerate().for_each(|(symbol, value)| *value = lookup.to_f32(symbol as u64));
    values
}
