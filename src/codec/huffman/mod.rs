//! Canonical Huffman codes of at most 32 bits, and their dictionary on the wire: the code lengths alone.
//!
//! # Format
//! **Code.** Symbols that have a code word are ordered by (length, symbol). The first code word is all zeros; each next
//! one is the one before plus 1, shifted left by the growth in length. A code is complete: the sum of 2^-length is 1.
//! A single symbol has a code word of no bits.
//!
//! **Dictionary** of an alphabet of `k` symbols:
//!
//! 1. `used`: varint, the number of symbols that have a code word, at most `k`.
//! 2. A bit string, most significant bit first, zero bits up to a whole byte at its end (no bytes when neither part
//!    is present):
//!    - if 0 < used < k: `g`, 4 bits; then for each used symbol in rising order `Rice(g)` of the number of unused symbols
//!      between it and the used symbol before it (or the start of the alphabet);
//!    - if used >= 2: `d`, 2 bits; the first used symbol's length minus 1, 5 bits; then for every other used symbol in
//!      rising order `Rice(d)` of its length minus the length before, zigzag (0, -1, 1, -2, 2, ... are 0, 1, 2, 3, 4, ...).
//!
//! `Rice(p)` of `v`: `v >> p` zero bits, a one bit, then the low `p` bits of `v`. Encoders choose the smallest `g` and
//! `d` that make the string shortest.

mod decoder;
mod dictionary;
mod lengths;

use super::DecodeError;
use super::bits::BitWriter;

pub(super) use decoder::{Decoder, Step};
pub(super) use dictionary::{read_lengths, write_lengths};

/// Longest code word in bits.
pub(super) const MAX_CODE_BITS: u32 = 32;

/// The length in bits of each symbol's code word; `None` where it has none.
pub(super) type Lengths = Vec<Option<u8>>;

/// The symbols that have a code word, in the order of their code words, which is (length, symbol).
fn canonical_order(lengths: &[Option<u8>]) -> Vec<(u32, u16)> {
    let used = lengths.iter().enumerate().filter_map(|(symbol, length)| Some((u32::from((*length)?), symbol as u16)));
    let mut order: Vec<_> = used.collect();
    order.sort_unstable();
    order
}

/// A code, ready to write symbols.
#[derive(Debug)]
pub(super) struct Code {
    lengths: Lengths,
    /// Code word and length of each symbol; unspecified for those that have none.
    words: Vec<(u32, u32)>,
}

impl Code {
    /// The best code for symbols that occur `counts` times.
    pub(super) fn for_counts(counts: &[u64]) -> Self {
        Self::canonical(lengths::code_lengths(counts, MAX_CODE_BITS))
    }

    /// The canonical code of `lengths`, which are complete.
    fn canonical(lengths: Lengths) -> Self {
        let mut words = vec![(0, 0); lengths.len()];
        let mut next = 0u64;
        let mut last = 0;
        for (length, symbol) in canonical_order(&lengths) {
            next <<= length - last;
            last = length;
            words[usize::from(symbol)] = (next as u32, length);
            next += 1;
        }
        Self { lengths, words }
    }

    /// The length of each symbol's code word.
    pub(super) fn lengths(&self) -> &[Option<u8>] {
        &self.lengths
    }

    /// Appends the code word of `symbol`.
    #[inline]
    pub(super) fn push(&self, symbol: u16, out: &mut BitWriter) {
        let (word, length) = self.words[usize::from(symbol)];
        out.push(word, length);
    }
}

/// Checks that every bit string has exactly one meaning. A code of one symbol has no bits; one of none no meaning.
fn check_complete(order: &[(u32, u16)]) -> Result<(), DecodeError> {
    let share = |&(length, _): &(u32, u16)| 1u64 << (MAX_CODE_BITS - length);
    match order {
        [] => Ok(()),
        _ if order.iter().map(share).sum::<u64>() == 1 << MAX_CODE_BITS => Ok(()),
        _ => Err(DecodeError::IncompleteCode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_words_are_ordered_by_length_then_symbol() {
        // The example of RFC 1951, section 3.2.2: symbols A to H.
        let lengths: Lengths = [3, 3, 3, 3, 3, 2, 4, 4].map(Some).to_vec();
        let words = [(0b010, 3), (0b011, 3), (0b100, 3), (0b101, 3), (0b110, 3), (0b00, 2), (0b1110, 4), (0b1111, 4)];
        assert_eq!(Code::canonical(lengths).words, words);
    }

    #[test]
    fn codes_that_are_not_complete_are_refused() {
        let check = |lengths: &[Option<u8>]| check_complete(&canonical_order(lengths));
        assert_eq!(check(&[Some(1), None, Some(2), Some(2)]), Ok(()));
        assert_eq!(check(&[Some(1), Some(2)]), Err(DecodeError::IncompleteCode));
        assert_eq!(check(&[Some(1), Some(1), Some(1)]), Err(DecodeError::IncompleteCode));
        assert_eq!(check(&[None, Some(0)]), Ok(()));
        assert_eq!(check(&[Some(1)]), Err(DecodeError::IncompleteCode));
        assert_eq!(check(&[None, None]), Ok(()));
    }
}
