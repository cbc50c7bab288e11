//! The grid: the cells that are coded. Rows that copy a row of their block, and columns without a stored cell, are not
//! among them.
//!
//! The *live columns* are one bit for each column, as a bit string. The *copies* of a block are a bit string: one bit, 0
//! where no row is a copy, and nothing else then; else a bit for each row, and behind a 1 the number of the row that it
//! copies, among the rows of the block so far that are no copies, in as many bits as the largest such number has.

use super::super::DecodeError;
use super::super::bits::{BitReader, BitWriter};

/// Appends one bit for each column: whether it is live.
pub(super) fn write_live(live: &[bool], out: &mut Vec<u8>) {
    let mut bits = BitWriter::with_capacity(live.len().div_ceil(8));
    live.iter().for_each(|&live| bits.push(u32::from(live), 1));
    out.extend(bits.into_bytes());
}

/// Takes the live ones of `cols` columns from the front of `input`.
pub(super) fn read_live(cols: usize, input: &mut &[u8]) -> Result<Vec<u32>, DecodeError> {
    let needed = cols.div_ceil(8);
    if needed > input.len() {
        return Err(DecodeError::UnexpectedEof { needed, found: input.len() });
    }
    let mut bits = BitReader::new(input);
    let mut live = Vec::new();
    for col in 0..cols {
        if bits.take(1)? == 1 {
            live.push(col as u32);
        }
    }
    *input = bits.into_rest()?;
    Ok(live)
}

/// Appends the copies of a block: of each row the number of the row that it equals among those that are no copies, which
/// is a new number if it is none.
pub(super) fn write_copies(numbers: &[u32], out: &mut Vec<u8>) {
    let mut bits = BitWriter::default();
    let distinct = numbers.iter().max().map_or(0, |&last| last as usize + 1);
    bits.push(u32::from(distinct < numbers.len()), 1);
    let mut known = 0;
    for &number in numbers.iter().take_while(|_| distinct < numbers.len()) {
        bits.push(u32::from(number < known), 1);
        match number < known {
            true => bits.push(number, number_bits(known)),
            false => known += 1,
        }
    }
    out.extend(bits.into_bytes());
}

/// Takes the copies of a block of `rows` from the front of `input`. None if no row is a copy.
pub(super) fn read_copies(rows: usize, input: &mut &[u8]) -> Result<Option<Copies>, DecodeError> {
    let mut bits = BitReader::new(input);
    let mut copies = None;
    if bits.take(1)? == 1 {
        let needed = (1 + rows).div_ceil(8);
        if needed > input.len() {
            return Err(DecodeError::UnexpectedEof { needed, found: input.len() });
        }
        let (mut numbers, mut known) = (Vec::with_capacity(rows), 0);
        for row in 0..rows {
            if bits.take(1)? == 0 {
                numbers.push(known);
                known += 1;
                continue;
            }
            let number = bits.take(number_bits(known))?;
            if number >= known {
                return Err(DecodeError::CopyOfNoRow { row, number, rows: known });
            }
            numbers.push(number);
        }
        copies = Some(Copies { numbers, distinct: known as usize });
    }
    *input = bits.into_rest()?;
    Ok(copies)
}

/// Bits of the largest number below `count`.
fn number_bits(count: u32) -> u32 {
    count.saturating_sub(1).checked_ilog2().map_or(0, |bits| bits + 1)
}

/// Which rows of a block equal which.
pub(super) struct Copies {
    /// Of each row of the block, the number of the row that it equals among those that are no copies.
    pub(super) numbers: Vec<u32>,
    /// Rows that are no copies.
    pub(super) distinct: usize,
}

impl Copies {
    /// The rows of the block by the number of the row that they equal.
    pub(super) fn by_number(&self) -> ByNumber {
        let mut starts = vec![0; self.distinct + 1];
        self.numbers.iter().for_each(|&number| starts[number as usize + 1] += 1);
        (0..self.distinct).for_each(|number| starts[number + 1] += starts[number]);
        let mut rows = vec![0; self.numbers.len()];
        let mut next = starts.clone();
        for (&number, row) in self.numbers.iter().zip(0..) {
            let next = &mut next[number as usize];
            rows[*next as usize] = row;
            *next += 1;
        }
        ByNumber { starts, rows }
    }
}

/// The rows of a block, those that are equal together.
pub(super) struct ByNumber {
    /// Where those of each number start in `rows`, and where the last end.
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl ByNumber {
    /// The rows that equal row `number` of those that are no copies, itself first.
    #[inline]
    pub(super) fn rows(&self, number: usize) -> &[u32] {
        &self.rows[self.starts[number] as usize..self.starts[number + 1] as usize]
    }
}

/// Walks the coded cells of a block from entry to entry.
pub(super) struct Cursor {
    /// Of the next cell, in the grid.
    pub(super) row: usize,
    pub(super) col: usize,
    rows: usize,
    cols: usize,
}

impl Cursor {
    /// Before the first cell of a grid.
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        Self { row: 0, col: 0, rows, cols }
    }

    /// Skips `gap` cells, and returns row and column of the one behind them, in the grid.
    #[inline]
    pub(super) fn advance(&mut self, gap: u32) -> Result<(usize, usize), DecodeError> {
        self.col += gap as usize;
        if self.col >= self.cols {
            self.turn()?;
        }
        let at = (self.row, self.col);
        self.col += 1;
        Ok(at)
    }

    /// Columns of the grid.
    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Checks that `entries`, each behind `gap` cells, are within the grid.
    pub(super) fn check(&self, entries: usize, gap: u32) -> Result<(), DecodeError> {
        let cells = self.rows * self.cols;
        let needed = entries.saturating_mul(gap as usize + 1);
        if needed > cells { Err(DecodeError::TooManyEntries { cells }) } else { Ok(()) }
    }

    fn turn(&mut self) -> Result<(), DecodeError> {
        let rows = self.col.checked_div(self.cols).unwrap_or(usize::MAX);
        self.row = self.row.saturating_add(rows);
        if self.row >= self.rows {
            return Err(DecodeError::TooManyEntries { cells: self.rows * self.cols });
        }
        self.col -= rows * self.cols;
        Ok(())
    }
}
