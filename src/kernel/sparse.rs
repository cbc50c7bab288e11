//! Sparse rows as 16-bit entries: how they are held, and their product with one sample.
//!
//! # Format
//! The low byte of an entry is its *gap*, the columns skipped since the column after the entry before it (at first since
//! column 0); the high byte is its symbol, an index into 256 values. Where more than 255 columns are skipped, a *filler*
//! of gap 255 and value 0 stands for 256 of them.
//!
//! A product adds each row in four parts, one entry after the other, so that no addition waits for the one before: plain
//! indexing costs a tenth more than none here, and gathers of eight lanes are slower than eight loads on every processor
//! that was measured.

use std::ops::Range;

use super::has_avx2_fma;

/// Values that symbols stand for.
pub(crate) type Values = [f32; 256];

/// See the module. Every entry lies on a column below `cols`.
#[derive(Debug, Clone)]
pub(crate) struct SparseRows {
    cols: usize,
    values: Box<Values>,
    /// Symbol of a filler; its value is 0.
    filler: u8,
    entries: Vec<u16>,
    /// Where each row ends in `entries`.
    ends: Vec<u32>,
    /// Column after the last entry of the row that is being written.
    next: usize,
}

impl SparseRows {
    /// No rows yet. `filler` is the symbol of +0.0; without one, no column may be skipped farther than 255.
    pub(crate) fn new(cols: usize, values: Box<Values>, filler: Option<u8>) -> Self {
        let filler = filler.unwrap_or_default();
        Self { cols, values, filler, entries: Vec::new(), ends: Vec::new(), next: 0 }
    }

    /// The same without rows.
    pub(crate) fn empty(&self) -> Self {
        Self::new(self.cols, self.values.clone(), Some(self.filler))
    }

    /// Adds an entry to the row that is being written.
    ///
    /// # Panics
    /// If `col` is not past the entry before it and below `cols`, or too far for want of a filler.
    #[inline]
    pub(crate) fn push(&mut self, col: usize, symbol: u8) {
        assert!(self.next <= col && col < self.cols, "column {col} of {}, {} expected", self.cols, self.next);
        let mut gap = col - self.next;
        while gap > 255 {
            assert!(self.values[usize::from(self.filler)] == 0.0, "no symbol of value 0");
            self.entries.push(u16::from_le_bytes([255, self.filler]));
            gap -= 256;
        }
        self.entries.push(u16::from_le_bytes([gap as u8, symbol]));
        self.next = col + 1;
    }

    /// Ends the row that is being written.
    ///
    /// # Panics
    /// If there are more entries than a u32 counts.
    pub(crate) fn end_row(&mut self) {
        self.ends.push(u32::try_from(self.entries.len()).expect("a matrix has at most 2^31 cells"));
        self.next = 0;
    }

    /// Adds a row: the symbols of its cells, of which those that are `zero` are left out.
    pub(crate) fn push_row(&mut self, cells: &[u8], zero: Option<u8>) {
        for (col, &symbol) in cells.iter().enumerate() {
            if Some(symbol) != zero {
                self.push(col, symbol);
            }
        }
        self.end_row();
    }

    /// Adds copies of `rows` of `other`, which has the same columns and values.
    pub(crate) fn append(&mut self, other: &Self, rows: impl IntoIterator<Item = usize>) {
        for row in rows {
            self.entries.extend_from_slice(other.entries(row));
            self.end_row();
        }
    }

    /// Gives back memory that was reserved for more rows.
    pub(crate) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    pub(crate) fn rows(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    /// The symbol of zero, if there is one.
    pub(crate) fn zero(&self) -> Option<u8> {
        (self.values[usize::from(self.filler)] == 0.0).then_some(self.filler)
    }

    fn start(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.ends[row - 1] as usize }
    }

    /// The entries of `row`, fillers among them.
    pub(crate) fn entries(&self, row: usize) -> &[u16] {
        &self.entries[self.start(row)..self.ends[row] as usize]
    }

    /// Number of entries of `rows`, fillers among them.
    pub(crate) fn count(&self, rows: Range<usize>) -> usize {
        if rows.is_empty() { 0 } else { self.ends[rows.end - 1] as usize - self.start(rows.start) }
    }

    /// The columns and the values of `row`; a filler is a term of value 0.
    #[inline]
    pub(crate) fn terms(&self, row: usize) -> impl Iterator<Item = (usize, f32)> + Clone {
        self.symbols(row).map(|(col, symbol)| (col, self.values[usize::from(symbol)]))
    }

    /// The columns and the symbols of `row`, fillers among them.
    #[inline]
    pub(crate) fn symbols(&self, row: usize) -> impl Iterator<Item = (usize, u8)> + Clone {
        self.entries(row).iter().scan(0, |next, entry| {
            let [gap, symbol] = entry.to_le_bytes();
            let col = *next + usize::from(gap);
            *next = col + 1;
            Some((col, symbol))
        })
    }

    /// Bytes of memory.
    pub(crate) fn resident_bytes(&self) -> usize {
        size_of::<Values>() + size_of_val(&self.entries[..]) + size_of_val(&self.ends[..])
    }

    /// `out = rows . x` for one sample: `x` has `cols` inputs, `out` as many elements as there are `rows`.
    ///
    /// Fused operations round once where the portable path rounds twice: both lie within `(n + 2) 2^-24 sum |w x|` of the
    /// exact sum of n terms.
    ///
    /// # Panics
    /// If `x` or `out` is not of that size.
    pub(crate) fn dot(&self, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        assert_eq!((x.len(), out.len()), (self.cols, rows.len()), "x has cols inputs, out rows outputs");
        #[cfg(target_arch = "x86_64")]
        if has_avx2_fma() {
            // SAFETY: the processor has both.
            return unsafe { self.dot_fused(rows, x, out) };
        }
        self.dot_with(rows, x, out, |a, b, sum| sum + a * b);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn dot_fused(&self, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        self.dot_with(rows, x, out, f32::mul_add);
    }

    #[inline(always)]
    fn dot_with(&self, rows: Range<usize>, x: &[f32], out: &mut [f32], add: impl Fn(f32, f32, f32) -> f32 + Copy) {
        let values = &*self.values;
        let mut start = self.start(rows.start);
        for (out, &end) in out.iter_mut().zip(&self.ends[rows]) {
            let (fours, rest) = self.entries[start..end as usize].as_chunks::<4>();
            start = end as usize;
            let mut sums = [0.0; 4];
            let mut next = 0;
            let mut term = |entry: u16, sum: &mut f32| {
                let [gap, symbol] = entry.to_le_bytes();
                let col = next + usize::from(gap);
                next = col + 1;
                *sum = add(values[usize::from(symbol)], x[col], *sum);
            };
            for four in fours {
                four.iter().zip(&mut sums).for_each(|(&entry, sum)| term(entry, sum));
            }
            rest.iter().zip(&mut sums).for_each(|(&entry, sum)| term(entry, sum));
            let [a, b, c, d] = sums;
            *out = (a + b) + (c + d);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_values() -> Box<Values> {
        let mut values = Box::new([0.0; 256]);
        values[..3].copy_from_slice(&[-1.0, 0.0, 2.0]);
        values
    }

    #[test]
    fn a_gap_of_more_than_255_columns_takes_fillers() {
        let mut rows = SparseRows::new(1000, three_values(), Some(1));
        rows.push(255, 0);
        rows.push(512, 2);
        rows.push(513, 2);
        rows.end_row();
        rows.push(999, 0);
        rows.end_row();
        rows.end_row();
        // 256 columns are skipped between 255 and 512; 999 = 3 x 256 + 231.
        assert_eq!(rows.entries(0), [0x00ff, 0x01ff, 0x0200, 0x0200]);
        assert_eq!(rows.entries(1), [0x01ff, 0x01ff, 0x01ff, 231]);
        assert!(rows.entries(2).is_empty());
        assert_eq!(rows.terms(0).collect::<Vec<_>>(), [(255, -1.0), (511, 0.0), (512, 2.0), (513, 2.0)]);
        assert_eq!((rows.count(0..3), rows.count(1..2), rows.count(2..2)), (8, 4, 0));
    }

    #[test]
    #[should_panic(expected = "column 7 of 9, 8 expected")]
    fn columns_rise() {
        let mut rows = SparseRows::new(9, three_values(), Some(1));
        rows.push(7, 0);
        rows.push(7, 0);
    }

    #[test]
    fn both_paths_are_the_sum() {
        let (cols, count) = (700, 9);
        let mut rows = SparseRows::new(cols, three_values(), Some(1));
        for row in 0..count {
            (row..cols).step_by(1 + row * row * 5).for_each(|col| rows.push(col, (col % 2 * 2) as u8));
            rows.end_row();
        }
        let x: Vec<f32> = (0..cols).map(|i| (i * 37 % 64) as f32 / 16.0 - 2.0).collect();
        let (mut fast, mut portable) = (vec![0.0; count], vec![0.0; count]);
        rows.dot(0..count, &x, &mut fast);
        rows.dot_with(0..count, &x, &mut portable, |a, b, sum| sum + a * b);
        for row in 0..count {
            // Small multiples of a power of two: every sum is exact.
            let sum: f32 = rows.terms(row).map(|(col, value)| value * x[col]).sum();
            assert_eq!((fast[row], portable[row]), (sum, sum), "row {row}");
        }
    }
}
