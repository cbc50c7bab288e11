//! sHAM, the sparse Huffman address map: raw positions of the cells that are not zero, and their symbols in a Huffman
//! code without zero.
//!
//! # Format
//! Shared part: the dictionary ([`super::huffman`]) over the symbols of the codebook but zero, in order; over all of them
//! where the codebook has no zero. `w = index width of cols`.
//!
//! | block section | length | width |
//! |---|---|---|
//! | counts: stored cells of each row | rows of the block | `w` |
//! | columns: of the stored cells, row by row, rising strictly within a row | nnz = sum of the counts | `w` |
//! | code words: in the same order, most significant bit first, then zero bits up to a whole byte | nnz | |
//!
//! # Source
//! Marinò, Ghidoli, Frasca, Malchiodi, "Compression strategies and space-conscious representations for deep neural
//! networks", arXiv:2007.07967, section III (their column is our row).

use std::ops::Range;

use super::bits::{BitReader, BitWriter};
use super::huffman::{Code, Decoder, read_lengths, write_lengths};
use super::ints::index_width;
use super::pattern::{Pattern, PatternWriter};
use super::{Codec, CodecId, DecodeError, EncodeError, Head, Visitor, Words, symbol_counts, symbols};
use crate::tensor::Matrix;

/// See the module.
#[derive(Debug)]
pub(super) struct Sham {
    decoder: Decoder,
}

impl Codec for Sham {
    /// A code that has no word for zero.
    type Plan = Code;

    fn plan(matrix: &Matrix, _head: &Head) -> Result<Code, EncodeError> {
        let (codebook, indices) = symbols(matrix).ok_or(EncodeError::NeedsCodebook { codec: CodecId::Sham })?;
        let mut counts = symbol_counts(indices, codebook.len());
        if let Some(zero) = codebook.zero() {
            counts[usize::from(zero)] = 0;
        }
        Ok(Code::for_counts(&counts))
    }

    fn write_shared(code: &Code, head: &Head, out: &mut Vec<u8>) {
        let mut lengths = code.lengths().to_vec();
        if let Some(zero) = head.zero_word() {
            lengths.remove(zero as usize);
        }
        write_lengths(&lengths, out);
    }

    fn write_block(code: &Code, matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let (codebook, indices) = symbols(matrix).expect("plan() refused raw values");
        let zero = codebook.zero();
        let mut pattern = PatternWriter::new(head.cols);
        let mut bits = BitWriter::default();
        for row in rows {
            for (col, &symbol) in indices[row * head.cols..][..head.cols].iter().enumerate() {
                if Some(symbol) != zero {
                    pattern.push(col);
                    code.push(symbol, &mut bits);
                }
            }
            pattern.end_line();
        }
        let mut out = pattern.into_bytes();
        out.extend(bits.into_bytes());
        out
    }

    fn least_bytes(head: &Head, stored: usize) -> usize {
        stored * index_width(head.cols)
    }

    fn read_shared(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let Words::Symbols(codebook) = &head.words else {
            return Err(DecodeError::NeedsCodebook { codec: CodecId::Sham });
        };
        let zero = codebook.zero().map(usize::from);
        let mut lengths = read_lengths(codebook.len() - usize::from(zero.is_some()), input)?;
        if let Some(zero) = zero {
            lengths.insert(zero, None);
        }
        Ok(Self { decoder: Decoder::new(&lengths, None, head.cells())? })
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        mut block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let pattern = Pattern::take(&mut block, rows.len(), head.cols)?;
        let mut bits = BitReader::new(block);
        pattern.walk(|line, col| {
            visitor.cell(rows.start + line, col, u64::from(self.decoder.symbol(&mut bits)?));
            Ok(())
        })?;
        bits.finish()
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
    fn counts_and_columns_come_before_the_code_words() {
        // Symbols 0 and 2, once and twice: lengths 1, 1. Dictionary: 2 used; d = 0 (00), 1 (00000), step 0 (1).
        let payload = encode(&shared_3x3(), CodecId::Sham, 3).unwrap();
        assert_eq!(payload, [&[2, 0b0000_0001][..], &[1, 0, 2], &[1, 0, 2], &[0b0110_0000]].concat());
    }

    #[test]
    fn raw_values_are_refused() {
        let error = EncodeError::NeedsCodebook { codec: CodecId::Sham };
        assert_eq!(encode(&raw_3x3(), CodecId::Sham, 3), Err(error));
    }
}
