//! HAM, the Huffman address map: one Huffman code over all symbols, zero included.
//!
//! # Format
//! Shared part: the dictionary ([`super::huffman`]) over all `k` symbols of the codebook. Block: the code words of its
//! cells, row-major, most significant bit first, then zero bits up to a whole byte. Where only one symbol occurs its
//! code word has no bits and a block is empty.
//!
//! # Source
//! Marinò, Ghidoli, Frasca, Malchiodi, "Compression strategies and space-conscious representations for deep neural
//! networks", arXiv:2007.07967, section III (their column is our row).

use std::ops::Range;

use super::bits::{BitReader, BitWriter};
use super::huffman::{Code, Decoder, Step, read_lengths, write_lengths};
use super::visitors::Count;
use super::{Codec, CodecId, DecodeError, EncodeError, Head, Visitor, Words, symbol_counts, symbols};
use crate::tensor::Matrix;

/// See the module.
#[derive(Debug)]
pub(super) struct Ham {
    decoder: Decoder,
}

impl Codec for Ham {
    type Plan = Code;

    fn plan(matrix: &Matrix, _head: &Head) -> Result<Code, EncodeError> {
        let (codebook, indices) = symbols(matrix).ok_or(EncodeError::NeedsCodebook { codec: CodecId::Ham })?;
        Ok(Code::for_counts(&symbol_counts(indices, codebook.len())))
    }

    fn write_shared(code: &Code, _head: &Head, out: &mut Vec<u8>) {
        write_lengths(code.lengths(), out);
    }

    fn write_block(code: &Code, matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let (_, indices) = symbols(matrix).expect("plan() refused raw values");
        let mut bits = BitWriter::default();
        for &symbol in &indices[rows.start * head.cols..rows.end * head.cols] {
            code.push(symbol, &mut bits);
        }
        bits.into_bytes()
    }

    fn read_shared(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let Words::Symbols(codebook) = &head.words else {
            return Err(DecodeError::NeedsCodebook { codec: CodecId::Ham });
        };
        let lengths = read_lengths(codebook.len(), input)?;
        Ok(Self { decoder: Decoder::new(&lengths, codebook.zero(), head.cells())? })
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let mut bits = BitReader::new(block);
        let zero = head.zero_word();
        let (mut row, mut col) = (rows.start, 0);
        let mut left = rows.len() * head.cols;
        while left > 0 {
            let step = if left >= Step::MAX_CELLS {
                self.decoder.step(&mut bits)?
            } else {
                Step { zeros: 0, symbol: Some(self.decoder.search(&mut bits)?) }
            };
            left -= step.zeros + usize::from(step.symbol.is_some());
            col += step.zeros;
            while col >= head.cols {
                (row, col) = (row + 1, col - head.cols);
            }
            if let Some(symbol) = step.symbol {
                if Some(u64::from(symbol)) != zero {
                    visitor.cell(row, col, u64::from(symbol));
                }
                col += 1;
            }
        }
        bits.finish()
    }

    /// A code of one symbol has no bits to check, and no bytes that would bound the time to do so.
    fn check_block(&self, head: &Head, block: &[u8], rows: Range<usize>) -> Result<usize, DecodeError> {
        let mut stored = Count(0);
        match self.decoder.only_symbol().map(u64::from) {
            None => self.visit_block(head, block, rows, &mut stored)?,
            Some(symbol) => {
                BitReader::new(block).finish()?;
                stored.0 = if Some(symbol) == head.zero_word() { 0 } else { rows.len() * head.cols };
            }
        }
        Ok(stored.0)
    }

    fn resident_bytes(&self) -> usize {
        self.decoder.resident_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{raw_3x3, shared_3x3};
    use super::super::{CodecId, EncodeError, encode};

    #[test]
    fn code_words_follow_each_other_row_by_row() {
        // Counts 1, 6, 2: lengths 2, 1, 2. Dictionary: 3 used; d = 0 (00), 2 (00001), steps -1 (01), 1 (001).
        // Cells 1 0 1 | 1 1 1 | 2 1 2: 0 10 0 | 0 0 0 | 11 0 11.
        let payload = encode(&shared_3x3(), CodecId::Ham, 3).unwrap();
        assert_eq!(payload, [3, 0b0000_0010, 0b1001_0000, 0b0100_0001, 0b1011_0000]);
    }

    #[test]
    fn raw_values_are_refused() {
        let error = EncodeError::NeedsCodebook { codec: CodecId::Ham };
        assert_eq!(encode(&raw_3x3(), CodecId::Ham, 3), Err(error));
    }
}
