//! Index map: the symbol of every cell in `ceil(log2 k)` bits, `k` the size of the codebook.
//!
//! # Format
//! Shared part: empty. Block: the symbols of its cells, row-major, `ceil(log2 k)` bits each, most significant bit
//! first, then zero bits up to a whole byte. With `k = 1` a block is empty.

use std::ops::Range;

use super::bits::{BitReader, BitWriter};
use super::visitors::Count;
use super::{Codec, CodecId, DecodeError, EncodeError, Head, Visitor, Words, symbols};
use crate::tensor::{Codebook, Matrix};

/// See the module.
#[derive(Debug)]
pub(super) struct IndexMap {
    symbol_bits: u32,
}

/// `ceil(log2 k)`.
fn symbol_bits(codebook: &Codebook) -> u32 {
    codebook.len().next_power_of_two().ilog2()
}

impl Codec for IndexMap {
    /// Bits of a symbol.
    type Plan = u32;

    fn plan(matrix: &Matrix, _head: &Head) -> Result<u32, EncodeError> {
        let (codebook, _) = symbols(matrix).ok_or(EncodeError::NeedsCodebook { codec: CodecId::IndexMap })?;
        Ok(symbol_bits(codebook))
    }

    fn write_block(symbol_bits: &u32, matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let (_, indices) = symbols(matrix).expect("plan() refused raw values");
        let cells = &indices[rows.start * head.cols..rows.end * head.cols];
        let mut bits = BitWriter::with_capacity((cells.len() * *symbol_bits as usize).div_ceil(8));
        for &symbol in cells {
            bits.push(u32::from(symbol), *symbol_bits);
        }
        bits.into_bytes()
    }

    fn read_shared(head: &Head, _input: &mut &[u8]) -> Result<Self, DecodeError> {
        match &head.words {
            Words::Symbols(codebook) => Ok(Self { symbol_bits: symbol_bits(codebook) }),
            Words::Values(_) => Err(DecodeError::NeedsCodebook { codec: CodecId::IndexMap }),
        }
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let check = head.word_check();
        let mut bits = BitReader::new(block);
        for row in rows {
            for col in 0..head.cols {
                let symbol = u64::from(bits.take(self.symbol_bits)?);
                visitor.cell(row, col, check.word(symbol)?);
            }
        }
        bits.finish()
    }

    /// One symbol has no bits to check, and no bytes that would bound the time to do so.
    fn check_block(&self, head: &Head, block: &[u8], rows: Range<usize>) -> Result<usize, DecodeError> {
        match self.symbol_bits {
            0 => BitReader::new(block).finish()?,
            _ => self.visit_block(head, block, rows.clone(), &mut Count(0))?,
        }
        Ok(rows.len() * head.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::shared_3x3;
    use super::super::{CodecId, encode};

    #[test]
    fn three_symbols_take_two_bits_each() {
        // 01 00 01 01 | 01 01 10 01 | 10.
        let payload = encode(&shared_3x3(), CodecId::IndexMap, 3).unwrap();
        assert_eq!(payload, [0b0100_0101, 0b0101_1001, 0b1000_0000]);
    }
}
