//! Where the stored cells of a block are: what CSR, CSC and sHAM have in common.
//!
//! A pattern is a list of lines (rows, or columns for CSC); each names the positions along it that are stored.

use super::DecodeError;
use super::ints::{Ints, index_width, push_int};

/// The stored positions of every line of a block, as read.
pub(super) struct Pattern<'a> {
    counts: Ints<'a>,
    positions: Ints<'a>,
    stored: usize,
    extent: usize,
}

impl<'a> Pattern<'a> {
    /// Takes the counts of `lines` lines, each `extent` cells long, and their positions from the front of `input`.
    pub(super) fn take(input: &mut &'a [u8], lines: usize, extent: usize) -> Result<Self, DecodeError> {
        let width = index_width(extent);
        let counts = Ints::take(input, lines, width)?;
        let stored = counts.sum();
        let positions = Ints::take(input, stored, width)?;
        Ok(Self { counts, positions, stored, extent })
    }

    /// Number of stored cells.
    pub(super) fn stored(&self) -> usize {
        self.stored
    }

    /// Calls `cell(line, position)` for every stored cell in order, once the position is known to be valid.
    #[inline]
    pub(super) fn walk(
        &self,
        mut cell: impl FnMut(usize, usize) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut i = 0;
        for (line, count) in self.counts.iter().enumerate() {
            let mut lowest = 0;
            for _ in 0..count {
                let position = rising(self.positions.get(i) as usize, &mut lowest, self.extent)?;
                cell(line, position)?;
                i += 1;
            }
        }
        Ok(())
    }
}

/// Checks that `index` is in `lowest..below`, and raises `lowest` past it.
#[inline]
pub(super) fn rising(index: usize, lowest: &mut usize, below: usize) -> Result<usize, DecodeError> {
    if index < *lowest || index >= below {
        return Err(DecodeError::IndexOutOfOrder { index, lowest: *lowest, below });
    }
    *lowest = index + 1;
    Ok(index)
}

/// Collects a pattern line by line.
pub(super) struct PatternWriter {
    width: usize,
    counts: Vec<u8>,
    positions: Vec<u8>,
    in_line: u64,
}

impl PatternWriter {
    /// A pattern of lines of `extent` cells.
    pub(super) fn new(extent: usize) -> Self {
        Self { width: index_width(extent), counts: Vec::new(), positions: Vec::new(), in_line: 0 }
    }

    /// Adds a stored cell to the current line.
    #[inline]
    pub(super) fn push(&mut self, position: usize) {
        push_int(&mut self.positions, position as u64, self.width);
        self.in_line += 1;
    }

    /// Goes on to the next line.
    pub(super) fn end_line(&mut self) {
        push_int(&mut self.counts, self.in_line, self.width);
        self.in_line = 0;
    }

    /// The counts, then the positions.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.counts.append(&mut self.positions);
        self.counts
    }
}
