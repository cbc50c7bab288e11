//! Dense: every word in full, the representation that the others are measured against.
//!
//! # Format
//! Shared part: empty.
//!
//! | block section | length | width |
//! |---|---|---|
//! | words, row-major | rows of the block x cols | word width |

use std::ops::Range;

use super::ints::{expect_end, push_int};
use super::{Cells, Codec, DecodeError, EncodeError, Head, Visitor};
use crate::tensor::Matrix;

/// See the module.
#[derive(Debug)]
pub(super) struct Dense;

impl Codec for Dense {
    type Plan = ();

    fn plan(_matrix: &Matrix, _head: &Head) -> Result<(), EncodeError> {
        Ok(())
    }

    fn write_block(_plan: &(), matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let cells = Cells::of(matrix);
        let width = head.word_bytes();
        let mut out = Vec::with_capacity(rows.len() * head.cols * width);
        for i in rows.start * head.cols..rows.end * head.cols {
            push_int(&mut out, cells.word(i), width);
        }
        out
    }

    fn read_shared(_head: &Head, _input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let bytes = rows.len() * head.cols * head.word_bytes();
        if block.len() < bytes {
            return Err(DecodeError::UnexpectedEof { needed: bytes, found: block.len() });
        }
        expect_end(&block[bytes..])?;
        // A loop of its own for each width.
        match head.word_bytes() {
            1 => walk(block.iter().map(|&word| u64::from(word)), head, rows, visitor),
            2 => walk(block.as_chunks().0.iter().map(|&word| u64::from(u16::from_le_bytes(word))), head, rows, visitor),
            4 => walk(block.as_chunks().0.iter().map(|&word| u64::from(u32::from_le_bytes(word))), head, rows, visitor),
            _ => walk(block.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)), head, rows, visitor),
        }
    }
}

fn walk<V: Visitor>(
    mut words: impl Iterator<Item = u64>,
    head: &Head,
    rows: Range<usize>,
    visitor: &mut V,
) -> Result<(), DecodeError> {
    let check = head.word_check();
    for row in rows {
        for (col, word) in (0..head.cols).zip(&mut words) {
            visitor.cell(row, col, check.word(word)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{raw_3x3, shared_3x3};
    use super::super::{CodecId, encode};

    #[test]
    fn a_matrix_of_symbols_is_its_symbols() {
        assert_eq!(encode(&shared_3x3(), CodecId::Dense, 3).unwrap(), [1, 0, 1, 1, 1, 1, 2, 1, 2]);
    }

    #[test]
    fn raw_values_are_their_bits() {
        let payload = encode(&raw_3x3(), CodecId::Dense, 3).unwrap();
        // 0 -1 0 | 0 0 -0 | 2 0 2 as f16.
        assert_eq!(payload, [0, 0, 0, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x40, 0, 0, 0, 0x40]);
    }
}
