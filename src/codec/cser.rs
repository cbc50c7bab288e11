//! CSER, compressed shared elements row: each row lists the symbols that occur in it but zero, and the columns of each.
//!
//! The paper leaves out the most frequent value; here that is zero, or nothing where the codebook has no zero.
//!
//! # Format
//! Shared part: empty. `w = index width of cols`.
//!
//! | block section | length | width |
//! |---|---|---|
//! | groups: distinct stored symbols of each row | rows of the block | `w` |
//! | symbols: of the groups, row by row, rising strictly within a row | G = sum of the groups | word width |
//! | counts: cells of each group, at least 1 | G | `w` |
//! | columns: group by group, rising strictly within a group | nnz = sum of the counts | `w` |
//!
//! No column stands in two groups of a row.
//!
//! # Source
//! Wiedemann, Müller, Samek, "Compact and computationally efficient representation of deep neural networks",
//! arXiv:1805.10692, section III.

use std::ops::Range;

use super::ints::{Ints, expect_end, index_width, push_int};
use super::pattern::rising;
use super::{Codec, CodecId, DecodeError, EncodeError, Head, Visitor, Words, symbols};
use crate::tensor::{MAX_LEVELS, Matrix};

/// See the module.
#[derive(Debug)]
pub(super) struct Cser;

impl Codec for Cser {
    type Plan = ();

    fn plan(matrix: &Matrix, _head: &Head) -> Result<(), EncodeError> {
        symbols(matrix).map(|_| ()).ok_or(EncodeError::NeedsCodebook { codec: CodecId::Cser })
    }

    fn write_block(_plan: &(), matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let (codebook, indices) = symbols(matrix).expect("plan() refused raw values");
        let zero = codebook.zero();
        let width = index_width(head.cols);
        let [mut groups, mut group_symbols, mut counts, mut columns] = [const { Vec::new() }; 4];
        let mut stored: Vec<(u16, u32)> = Vec::new();
        for row in rows {
            let cells = indices[row * head.cols..][..head.cols].iter().zip(0..);
            stored.clear();
            stored.extend(cells.filter(|&(&symbol, _)| Some(symbol) != zero).map(|(&symbol, col)| (symbol, col)));
            stored.sort_unstable();
            let same_symbol = || stored.chunk_by(|a, b| a.0 == b.0);
            push_int(&mut groups, same_symbol().count() as u64, width);
            for group in same_symbol() {
                push_int(&mut group_symbols, u64::from(group[0].0), head.word_bytes());
                push_int(&mut counts, group.len() as u64, width);
                group.iter().for_each(|&(_, col)| push_int(&mut columns, u64::from(col), width));
            }
        }
        [groups, group_symbols, counts, columns].concat()
    }

    fn least_bytes(head: &Head, stored: usize) -> usize {
        stored * index_width(head.cols)
    }

    fn read_shared(head: &Head, _input: &mut &[u8]) -> Result<Self, DecodeError> {
        match &head.words {
            Words::Symbols(_) => Ok(Self),
            Words::Values(_) => Err(DecodeError::NeedsCodebook { codec: CodecId::Cser }),
        }
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        mut block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let width = index_width(head.cols);
        let groups = Ints::take(&mut block, rows.len(), width)?;
        let total = groups.sum();
        let mut symbols = Ints::take(&mut block, total, head.word_bytes())?.iter();
        let counts = Ints::take(&mut block, total, width)?;
        let mut columns = Ints::take(&mut block, counts.sum(), width)?.iter();
        expect_end(block)?;
        let check = head.word_check();
        let mut counts = counts.iter();
        for (row, groups) in rows.zip(groups.iter()) {
            let mut lowest_symbol = 0;
            for (symbol, count) in (&mut symbols).zip(&mut counts).take(groups as usize) {
                let symbol = check.word(symbol)?;
                rising(symbol as usize, &mut lowest_symbol, MAX_LEVELS)?;
                if count == 0 {
                    return Err(DecodeError::EmptyGroup);
                }
                let mut lowest = 0;
                for col in (&mut columns).take(count as usize) {
                    visitor.cell(row, rising(col as usize, &mut lowest, head.cols)?, symbol);
                }
            }
        }
        Ok(())
    }

    /// Also refuses a column that stands in two groups of a row: one group does not know of another.
    fn check_block(&self, head: &Head, block: &[u8], rows: Range<usize>) -> Result<usize, DecodeError> {
        let mut stored = StoredCells::default();
        self.visit_block(head, block, rows, &mut stored)?;
        stored.end_row();
        match stored.duplicate {
            Some((row, col)) => Err(DecodeError::DuplicateCell { row, col }),
            None => Ok(stored.count),
        }
    }
}

/// Looks for cells that are visited twice, row by row.
#[derive(Default)]
struct StoredCells {
    count: usize,
    row: usize,
    cols: Vec<usize>,
    duplicate: Option<(usize, usize)>,
}

impl StoredCells {
    fn end_row(&mut self) {
        self.count += self.cols.len();
        self.cols.sort_unstable();
        if let Some(pair) = self.cols.windows(2).find(|pair| pair[0] == pair[1]) {
            self.duplicate.get_or_insert((self.row, pair[0]));
        }
        self.cols.clear();
    }
}

impl Visitor for StoredCells {
    fn cell(&mut self, row: usize, col: usize, _word: u64) {
        if row != self.row {
            self.end_row();
            self.row = row;
        }
        self.cols.push(col);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::shared_3x3;
    use super::super::{CodecId, CompressedMatrix, DecodeError, Head, encode};

    #[test]
    fn columns_are_grouped_by_symbol() {
        let payload = encode(&shared_3x3(), CodecId::Cser, 3).unwrap();
        assert_eq!(payload, [&[1, 0, 1][..], &[0, 2], &[1, 2], &[1, 0, 2]].concat());
    }

    #[test]
    fn a_column_in_two_groups_is_refused() {
        let head = Head::of(&shared_3x3(), 3).unwrap();
        let payload = [&[0, 0, 2][..], &[0, 2], &[1, 1], &[1, 1]].concat();
        let error = CompressedMatrix::open(CodecId::Cser, head, payload.into()).unwrap_err();
        let DecodeError::Block { source, .. } = error else { panic!("{error}") };
        assert_eq!(*source, DecodeError::DuplicateCell { row: 2, col: 1 });
    }
}
