//! Compressed sparse row: for each row the columns and the words of the cells that are not zero.
//!
//! # Format
//! Shared part: empty. `w = index width of cols`.
//!
//! | block section | length | width |
//! |---|---|---|
//! | counts: stored cells of each row | rows of the block | `w` |
//! | columns: of the stored cells, row by row, rising strictly within a row | nnz = sum of the counts | `w` |
//! | words: in the same order | nnz | word width |
//!
//! A count is at most cols, a column below it. Where there is no zero word every cell is stored.

use std::ops::Range;

use super::ints::{Ints, expect_end, index_width, push_int};
use super::pattern::{Pattern, PatternWriter};
use super::{Cells, Codec, DecodeError, EncodeError, Head, Visitor};
use crate::tensor::Matrix;

/// See the module.
#[derive(Debug)]
pub(super) struct Csr;

impl Codec for Csr {
    type Plan = ();

    fn plan(_matrix: &Matrix, _head: &Head) -> Result<(), EncodeError> {
        Ok(())
    }

    fn write_block(_plan: &(), matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let cells = Cells::of(matrix);
        let mut pattern = PatternWriter::new(head.cols);
        let mut words = Vec::new();
        for row in rows {
            for col in 0..head.cols {
                if let Some(word) = cells.stored(row * head.cols + col) {
                    pattern.push(col);
                    push_int(&mut words, word, head.word_bytes());
                }
            }
            pattern.end_line();
        }
        let mut out = pattern.into_bytes();
        out.append(&mut words);
        out
    }

    fn least_bytes(head: &Head, stored: usize) -> usize {
        stored * (index_width(head.cols) + head.word_bytes())
    }

    fn read_shared(_head: &Head, _input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        mut block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let pattern = Pattern::take(&mut block, rows.len(), head.cols)?;
        let words = Ints::take(&mut block, pattern.stored(), head.word_bytes())?;
        expect_end(block)?;
        let check = head.word_check();
        let mut words = words.iter();
        pattern.walk(|line, col| {
            let word = words.next().expect("as many words as positions were taken");
            visitor.cell(rows.start + line, col, check.word(word)?);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{raw_3x3, shared_3x3};
    use super::super::{CodecId, encode};

    #[test]
    fn rows_list_their_columns_then_their_symbols() {
        assert_eq!(encode(&shared_3x3(), CodecId::Csr, 3).unwrap(), [1, 0, 2, 1, 0, 2, 0, 2, 2]);
    }

    #[test]
    fn a_second_block_starts_anew_and_the_table_holds_the_length_of_the_first() {
        let payload = encode(&shared_3x3(), CodecId::Csr, 2).unwrap();
        assert_eq!(payload, [&[4][..], &[1, 0, 1, 0], &[2, 0, 2, 2, 2]].concat());
    }

    #[test]
    fn negative_zero_is_stored() {
        let payload = encode(&raw_3x3(), CodecId::Csr, 3).unwrap();
        assert_eq!(payload, [1, 1, 2, 1, 2, 0, 2, 0, 0xbc, 0, 0x80, 0, 0x40, 0, 0x40]);
    }
}
