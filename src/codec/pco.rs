//! Pco: raw values, their bits coded as unsigned integers in the format of the `pco` crate.
//!
//! What a codebook cannot hold is coded here: of trained 32-bit weights about 27 bits a value remain.
//!
//! # Format
//! Only for raw values. Shared part: the header of pco's format, the bytes 4 and 1. Block: the words of its cells,
//! row-major, as binned numbers of the width of a word ([`super::numbers`]).

use std::ops::Range;

use super::numbers::{self, Delta, HEADER};
use super::{Cells, Codec, CodecId, DecodeError, EncodeError, Head, Visitor, Words};
use crate::tensor::{Matrix, Values};

/// See the module.
#[derive(Debug)]
pub(super) struct Pco;

impl Codec for Pco {
    type Plan = ();

    fn plan(matrix: &Matrix, _head: &Head) -> Result<(), EncodeError> {
        match matrix.values() {
            Values::Raw { .. } => Ok(()),
            Values::Shared { .. } => Err(EncodeError::NeedsRawValues { codec: CodecId::Pco }),
        }
    }

    fn write_shared(_plan: &(), _head: &Head, out: &mut Vec<u8>) {
        out.extend_from_slice(&HEADER);
    }

    fn write_block(_plan: &(), matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let cells = Cells::of(matrix);
        let first = rows.start * head.cols;
        numbers::encode(head.word_bytes(), rows.len() * head.cols, |i| cells.word(first + i), Delta::None)
    }

    fn least_bytes(head: &Head, _stored: usize) -> usize {
        numbers::least_bytes(head.cells())
    }

    fn read_shared(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError> {
        if let Words::Symbols(_) = head.words {
            return Err(DecodeError::NeedsRawValues { codec: CodecId::Pco });
        }
        numbers::take_header(input)?;
        Ok(Self)
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let check = head.word_check();
        let (mut row, mut col) = (rows.start, 0);
        numbers::decode(head.word_bytes(), rows.len() * head.cols, block, |word| {
            if word != 0 {
                visitor.cell(row, col, check.word(word)?);
            }
            col += 1;
            if col == head.cols {
                (row, col) = (row + 1, 0);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{raw_3x3, shared_3x3};
    use super::*;
    use crate::codec::{CompressedMatrix, encode};
    use crate::tensor::FloatType;

    #[test]
    fn symbols_are_refused() {
        let error = EncodeError::NeedsRawValues { codec: CodecId::Pco };
        assert_eq!(encode(&shared_3x3(), CodecId::Pco, 3), Err(error));
    }

    #[test]
    fn other_versions_of_pco_are_refused() {
        let mut payload = encode(&raw_3x3(), CodecId::Pco, 3).unwrap();
        assert_eq!(payload[..2], [4, 1]);
        payload[1] = 2;
        let head = Head::of(&raw_3x3(), 3).unwrap();
        let error = CompressedMatrix::open(CodecId::Pco, head, payload.into()).unwrap_err();
        assert_eq!(error, DecodeError::BinnedVersion { major: 4, minor: 2 });
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        let words = [0x3f80_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0001];
        for (cells, expected) in [(1, Ok(())), (4, Err(DecodeError::NonFinite))] {
            let block = numbers::encode(4, cells, |i| words[i], Delta::None);
            let head = Head { rows: 1, cols: cells, rows_per_block: 1, words: Words::Values(FloatType::F32) };
            let walked = Pco.visit_block(&head, &block, 0..1, &mut crate::codec::visitors::Count(0));
            assert_eq!(walked, expected);
        }
    }
}
