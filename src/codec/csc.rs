//! Compressed sparse column: for each column the rows and the words of the cells that are not zero.
//!
//! # Format
//! Shared part: empty. `h` = rows of the block, `w` = index width of `h`.
//!
//! | block section | length | width |
//! |---|---|---|
//! | counts: stored cells of each column | cols | `w` |
//! | rows: of the stored cells, column by column, rising strictly within a column | nnz = sum of the counts | `w` |
//! | words: in the same order | nnz | word width |
//!
//! Rows are counted from the block's first one. A count is at most `h`, a row below it. Where there is no zero word every cell is stored.

use std::ops::Range;

use super::ints::{Ints, expect_end, push_int};
use super::pattern::{Pattern, PatternWriter};
use super::{Cells, Codec, DecodeError, EncodeError, Head, Visitor};
use crate::tensor::Matrix;

/// See the module.
#[derive(Debug)]
pub(super) struct Csc;

impl Codec for Csc {
    type Plan = ();

    fn plan(_matrix: &Matrix, _head: &Head) -> Result<(), EncodeError> {
        Ok(())
    }

    fn write_block(_plan: &(), matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let cells = Cells::of(matrix);
        let mut pattern = PatternWriter::new(rows.len());
        let mut words = Vec::new();
        for col in 0..head.cols {
            for row in rows.clone() {
                if let Some(word) = cells.stored(row * head.cols + col) {
                    pattern.push(row - rows.start);
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
        // An index takes at least a byte; how many it takes follows the rows of its block.
        stored * (1 + head.word_bytes())
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
        let pattern = Pattern::take(&mut block, head.cols, rows.len())?;
        let words = Ints::take(&mut block, pattern.stored(), head.word_bytes())?;
        expect_end(block)?;
        let check = head.word_check();
        let mut words = words.iter();
        pattern.walk(|col, line| {
            let word = words.next().expect("as many words as positions were taken");
            visitor.cell(rows.start + line, col, check.word(word)?);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::shared_3x3;
    use super::super::{CodecId, encode};

    #[test]
    fn columns_list_their_rows_then_their_symbols() {
        assert_eq!(encode(&shared_3x3(), CodecId::Csc, 3).unwrap(), [1, 1, 1, 2, 0, 2, 2, 0, 2]);
    }

    #[test]
    fn rows_are_counted_from_the_start_of_their_block() {
        let payload = encode(&shared_3x3(), CodecId::Csc, 2).unwrap();
        assert_eq!(payload, [&[5][..], &[0, 1, 0, 0, 0], &[1, 0, 1, 0, 0, 2, 2]].concat());
    }
}
