//! Dense rows of few levels: how their symbols are held, and their products.
//!
//! # Format
//! A row is cut in chunks of 64 cells at 4 bits or 32 cells at 8 bits, 32 bytes each way, and a rest. A symbol of a chunk
//! stands where table look-ups of 16 lanes leave it in the order of the columns: cell `8 k + 4 h + r` (`r` < 4) of 32 in
//! byte `16 h + 4 k + r`. With 4 bits, the low half of a byte belongs to the first 32 cells, the high half to the others.
//! The rest is in the order of the columns, with 4 bits the first of two cells in the low half.
//!
//! The look-up splits values in their four bytes and takes each from tables of 16 in registers. With 65 levels and more
//! that would take longer than loads.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::ops::Range;

use super::has_avx2_fma;
use super::sparse::Values;

/// Bytes of a chunk.
const CHUNK: usize = 32;

/// Symbols that a chunk holds in each half of its bytes.
const LANES: usize = 32;

/// Bits of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Four,
    Eight,
}

impl Width {
    /// The smallest that tells `levels` symbols apart.
    pub(crate) fn of(levels: usize) -> Self {
        if levels <= 16 { Self::Four } else { Self::Eight }
    }

    fn cells_per_byte(self) -> usize {
        match self {
            Self::Four => 2,
            Self::Eight => 1,
        }
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(self, cols: usize) -> usize {
        let chunk = CHUNK * self.cells_per_byte();
        cols / chunk * CHUNK + (cols % chunk).div_ceil(self.cells_per_byte())
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct LevelRows {
    cols: usize,
    levels: usize,
    values: Box<Values>,
    width: Width,
    bytes: Vec<u8>,
}

/// Where symbol `i` of 32 stands in a chunk.
const fn place(i: usize) -> usize {
    16 * (i % 8 / 4) + 4 * (i / 8) + i % 4
}

impl LevelRows {
    /// No rows yet, of symbols below `levels`.
    ///
    /// # Panics
    /// If there are more than 256 levels.
    pub(crate) fn new(cols: usize, values: Box<Values>, levels: usize) -> Self {
        assert!(levels <= 256, "{levels} levels");
        Self { cols, levels, values, width: Width::of(levels), bytes: Vec::new() }
    }

    /// The same without rows.
    pub(crate) fn empty(&self) -> Self {
        Self::new(self.cols, self.values.clone(), self.levels)
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If there are not `cols` symbols.
    pub(crate) fn push_row(&mut self, symbols: &[u8]) {
        assert_eq!(symbols.len(), self.cols);
        let per_byte = self.width.cells_per_byte();
        let chunks = symbols.chunks_exact(LANES * per_byte);
        let rest = chunks.remainder();
        for chunk in chunks {
            let start = self.bytes.len();
            self.bytes.resize(start + CHUNK, 0);
            for (i, symbol) in chunk.iter().enumerate() {
                self.bytes[start + place(i % LANES)] |= symbol << (4 * (i / LANES));
            }
        }
        for pair in rest.chunks(per_byte) {
            self.bytes.push(pair.iter().rev().fold(0, |byte, symbol| byte << 4 | symbol));
        }
    }

    /// Adds copies of `rows` of `other`, which has the same columns and levels.
    pub(crate) fn append(&mut self, other: &Self, rows: impl IntoIterator<Item = usize>) {
        rows.into_iter().for_each(|row| self.bytes.extend_from_slice(other.row(row)));
    }

    /// Gives back memory that was reserved for more rows.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Bytes of memory.
    pub(crate) fn resident_bytes(&self) -> usize {
        size_of::<Values>() + self.bytes.len()
    }

    /// The bytes of `row`.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        let len = self.width.row_bytes(self.cols);
        &self.bytes[row * len..][..len]
    }

    /// `out = rows . x` for one sample: `x` has `cols` inputs, `out` as many elements as there are `rows`.
    ///
    /// Both paths add in eight or more parts; each lies within `(cols + 2) 2^-24 sum |w x|` of the exact sum.
    ///
    /// # Panics
    /// If `x` or `out` is not of that size.
    pub(crate) fn dot(&self, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        assert_eq!((x.len(), out.len()), (self.cols, rows.len()), "x has cols inputs, out rows outputs");
        #[cfg(target_arch = "x86_64")]
        if has_avx2_fma() {
            // SAFETY: the processor has both.
            return unsafe { avx2::dot(self, rows, x, out) };
        }
        rows.map(|row| self.row(row)).zip(out).for_each(|(row, out)| *out = self.dot_portable(row, x));
    }

    #[inline(always)]
    fn dot_portable(&self, row: &[u8], x: &[f32]) -> f32 {
        let mut sums = [0.0; 8];
        let (chunks, rest) = self.split(row);
        let (of_chunks, of_rest) = x.split_at(chunks.len() * self.chunk_cells());
        for (chunk, x) in chunks.iter().zip(of_chunks.chunks_exact(self.chunk_cells())) {
            for (first, x) in (0..).step_by(8).zip(x.as_chunks::<8>().0) {
                let values: [f32; 8] = std::array::from_fn(|i| self.of_chunk(chunk, first + i));
                sums.iter_mut().zip(values).zip(x).for_each(|((sum, value), x)| *sum += value * x);
            }
        }
        of_rest.iter().enumerate().for_each(|(i, x)| sums[i % 8] += self.of_rest(rest, i) * x);
        let [a, b, c, d, e, f, g, h] = sums;
        ((a + b) + (c + d)) + ((e + f) + (g + h))
    }

    /// Writes the values of `rows` to `out`, rows x cols.
    ///
    /// # Panics
    /// If `out` is not of that size.
    pub(crate) fn expand(&self, rows: Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * self.cols, "out is rows x cols");
        #[cfg(target_arch = "x86_64")]
        if has_avx2_fma() {
            // SAFETY: the processor has both.
            return unsafe { avx2::expand(self, rows, out) };
        }
        rows.map(|row| self.row(row))
            .zip(out.chunks_mut(self.cols.max(1)))
            .for_each(|(row, out)| self.expand_portable(row, out));
    }

    #[inline(always)]
    fn expand_portable(&self, row: &[u8], out: &mut [f32]) {
        let (chunks, rest) = self.split(row);
        let (of_chunks, of_rest) = out.split_at_mut(chunks.len() * self.chunk_cells());
        for (chunk, out) in chunks.iter().zip(of_chunks.chunks_exact_mut(self.chunk_cells())) {
            out.iter_mut().enumerate().for_each(|(i, out)| *out = self.of_chunk(chunk, i));
        }
        of_rest.iter_mut().enumerate().for_each(|(i, out)| *out = self.of_rest(rest, i));
    }

    fn chunk_cells(&self) -> usize {
        LANES * self.width.cells_per_byte()
    }

    /// The chunks of a row and its rest, which may be as long as a chunk.
    fn split<'a>(&self, row: &'a [u8]) -> (&'a [[u8; CHUNK]], &'a [u8]) {
        let (chunks, rest) = row.split_at(self.cols / self.chunk_cells() * CHUNK);
        (chunks.as_chunks().0, rest)
    }

    /// The value of cell `i` of a chunk.
    #[inline(always)]
    fn of_chunk(&self, chunk: &[u8; CHUNK], i: usize) -> f32 {
        self.value(chunk[place(i % LANES)], i / LANES)
    }

    /// The value of cell `i` of a rest.
    #[inline(always)]
    fn of_rest(&self, rest: &[u8], i: usize) -> f32 {
        let per_byte = self.width.cells_per_byte();
        self.value(rest[i / per_byte], i % per_byte)
    }

    /// The value of one symbol of a byte.
    #[inline(always)]
    fn value(&self, byte: u8, half: usize) -> f32 {
        let symbol = match self.width {
            Width::Four => byte >> (4 * half) & 15,
            Width::Eight => byte,
        };
        self.values[usize::from(symbol)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(count: usize, cols: usize, levels: usize, symbol: impl Fn(usize) -> usize) -> LevelRows {
        let values = Box::new(std::array::from_fn(|i| i as f32 * 0.37 - 3.0));
        let mut rows = LevelRows::new(cols, values, levels);
        let symbols: Vec<u8> = (0..count * cols).map(|i| (symbol(i) % levels) as u8).collect();
        (0..count).for_each(|row| rows.push_row(&symbols[row * cols..][..cols]));
        rows
    }

    #[test]
    fn symbols_take_half_a_byte_where_sixteen_suffice() {
        assert_eq!(rows(1, 5, 16, |i| i + 1).bytes, [0x21, 0x43, 0x05]);
        assert_eq!(rows(1, 5, 17, |i| i + 1).bytes, [1, 2, 3, 4, 5]);
        let chunk = rows(1, 32, 256, |i| i).bytes;
        assert_eq!(chunk[..8], [0, 1, 2, 3, 8, 9, 10, 11]);
        assert_eq!(chunk[16..24], [4, 5, 6, 7, 12, 13, 14, 15]);
        // Cell 36 is the fifth of the second half.
        assert_eq!(rows(1, 64, 16, |i| usize::from(i == 36) * 9).bytes[16], 0x90);
    }

    proptest! {
        #[test]
        fn both_paths_hold_the_values_and_their_sums(
            count in 1usize..4,
            cols in 0usize..200,
            levels in prop::sample::select(vec![1usize, 2, 15, 16, 17, 32, 33, 64, 65, 200, 256]),
            seed in 0usize..1000,
        ) {
            let symbol = |i: usize| (i * 7 + i / 3 + seed) % 251 + i % 6;
            let rows = rows(count, cols, levels, symbol);
            let mut expanded = vec![f32::NAN; count * cols];
            rows.expand(0..count, &mut expanded);
            let x: Vec<f32> = (0..cols).map(|i| (i * 37 % 64) as f32 / 16.0 - 2.0).collect();
            let mut sums = vec![f32::NAN; count];
            rows.dot(0..count, &x, &mut sums);
            for row in 0..count {
                let mut portable = vec![f32::NAN; cols];
                rows.expand_portable(rows.row(row), &mut portable);
                let of_row = &expanded[row * cols..][..cols];
                prop_assert_eq!(of_row, &portable[..]);
                let expected = (0..cols).map(|col| rows.values[symbol(row * cols + col) % levels]);
                prop_assert!(portable.iter().copied().eq(expected));
                let terms = of_row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                let bound = (cols + 2) as f64 * f64::exp2(-24.0) * size;
                for found in [sums[row], rows.dot_portable(rows.row(row), &x)] {
                    prop_assert!((f64::from(found) - sum).abs() <= bound, "{} {}", found, sum);
                }
            }
        }
    }
}
