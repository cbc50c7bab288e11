//! Reading code words: a table over the first bits, and a search by length for words longer than it.

use super::{MAX_CODE_BITS, canonical_order, check_complete};
use crate::codec::DecodeError;
use crate::codec::bits::BitReader;

/// Most bits a table looks at: 2^11 entries of 4 bytes stay in the first-level cache.
const MAX_TABLE_BITS: u32 = 11;

/// A code, ready to read symbols.
///
/// Most weights of a pruned matrix are zero, and zero's code word is short. So one look at the table may stand for
/// several zeros and the symbol after them; see [`Decoder::step`].
#[derive(Debug, Clone)]
pub(in crate::codec) struct Decoder {
    /// Symbols in the order of their code words.
    symbols: Vec<u16>,
    /// `ends[l]`: one past the last code word of at most `l` bits, its bits at the top of 32.
    ends: [u64; MAX_CODE_BITS as usize + 1],
    /// Lookup by the next `table_bits` bits.
    table: Vec<Entry>,
    table_bits: u32,
}

/// What the bits at the front of a stream stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Entry {
    symbol: u16,
    /// Bits of the zeros and the symbol together; 0 with `zeros` where the first code word does not fit the table.
    length: u8,
    /// The zeros before the symbol in the low bits, and [`HAS_SYMBOL`].
    zeros: u8,
}

/// Flag in [`Entry::zeros`]: a symbol follows the zeros.
const HAS_SYMBOL: u8 = 0x80;

/// Some zeros, then perhaps another symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec) struct Step {
    pub(in crate::codec) zeros: usize,
    pub(in crate::codec) symbol: Option<u16>,
}

impl Step {
    /// Most cells that one step stands for: each takes a bit at least.
    pub(in crate::codec) const MAX_CELLS: usize = MAX_TABLE_BITS as usize;
}

impl Decoder {
    /// The canonical code of `lengths`. `zero` is the symbol that [`Decoder::step`] gathers; `symbols` is the number of
    /// symbols that the code was made for: the table stays small beside them.
    pub(in crate::codec) fn new(
        lengths: &[Option<u8>],
        zero: Option<u16>,
        symbols: usize,
    ) -> Result<Self, DecodeError> {
        let order = canonical_order(lengths);
        check_complete(&order)?;
        let longest = order.last().map_or(1, |&(length, _)| length.max(1));
        let budget = symbols.checked_ilog2().unwrap_or(0).saturating_sub(4).clamp(1, MAX_TABLE_BITS);
        // Longer than the longest code word only pays where several fit.
        let table_bits = if zero.is_some() { budget } else { budget.min(longest) };
        let mut ends = [0; MAX_CODE_BITS as usize + 1];
        for &(length, _) in &order {
            ends[length as usize] += 1u64 << (MAX_CODE_BITS - length);
        }
        for length in 1..ends.len() {
            ends[length] += ends[length - 1];
        }
        let symbols = order.iter().map(|&(_, symbol)| symbol).collect();
        let mut decoder = Self { symbols, ends, table: Vec::new(), table_bits };
        decoder.table = decoder.single_symbol_table(&order);
        if let Some(zero) = zero {
            decoder.table = decoder.gather_zeros(zero);
        }
        Ok(decoder)
    }

    /// A table whose entries stand for at most one symbol.
    fn single_symbol_table(&self, order: &[(u32, u16)]) -> Vec<Entry> {
        let mut table = Vec::with_capacity(1 << self.table_bits);
        for &(length, symbol) in order.iter().take_while(|&&(length, _)| length <= self.table_bits) {
            let entry = Entry { symbol, length: length as u8, zeros: HAS_SYMBOL };
            table.extend(std::iter::repeat_n(entry, 1 << (self.table_bits - length)));
        }
        table.resize(1 << self.table_bits, Entry::default());
        table
    }

    /// Turns a single-symbol table into one whose entries stand for as many zeros as fit, and the symbol after them.
    fn gather_zeros(&self, zero: u16) -> Vec<Entry> {
        let mask = (1 << self.table_bits) - 1;
        let gather = |bits: usize| {
            let mut gathered = Entry::default();
            loop {
                let rest = bits << gathered.length & mask;
                let next = self.table[rest];
                let fits = u32::from(gathered.length + next.length) <= self.table_bits;
                // A code of one symbol has no bits to count its zeros by.
                if next.zeros != HAS_SYMBOL || !fits || next.length == 0 {
                    return gathered;
                }
                gathered.length += next.length;
                if next.symbol != zero {
                    return Entry { symbol: next.symbol, zeros: gathered.zeros | HAS_SYMBOL, ..gathered };
                }
                gathered.zeros += 1;
            }
        };
        (0..=mask).map(gather).collect()
    }

    /// The symbol that the code consists of, if it is the only one.
    pub(in crate::codec) fn only_symbol(&self) -> Option<u16> {
        if let [symbol] = self.symbols[..] { Some(symbol) } else { None }
    }

    /// Reads one symbol of a code made without a zero.
    #[inline]
    pub(in crate::codec) fn symbol(&self, bits: &mut BitReader) -> Result<u16, DecodeError> {
        bits.refill();
        let entry = self.table[bits.peek(self.table_bits) as usize];
        if entry.zeros == HAS_SYMBOL {
            bits.consume(u32::from(entry.length))?;
            return Ok(entry.symbol);
        }
        self.search(bits)
    }

    /// Reads up to [`Step::MAX_CELLS`] symbols: zeros, and at most one other. So many must be left to read.
    #[inline]
    pub(in crate::codec) fn step(&self, bits: &mut BitReader) -> Result<Step, DecodeError> {
        bits.refill();
        let entry = self.table[bits.peek(self.table_bits) as usize];
        if entry.length == 0 {
            return Ok(Step { zeros: 0, symbol: Some(self.search(bits)?) });
        }
        bits.consume(u32::from(entry.length))?;
        let symbol = (entry.zeros & HAS_SYMBOL != 0).then_some(entry.symbol);
        Ok(Step { zeros: usize::from(entry.zeros & !HAS_SYMBOL), symbol })
    }

    /// Reads one symbol by looking for the length of its code word.
    #[inline(never)]
    pub(in crate::codec) fn search(&self, bits: &mut BitReader) -> Result<u16, DecodeError> {
        bits.refill();
        let front = u64::from(bits.peek(MAX_CODE_BITS));
        let mut shorter = 0;
        let mut below = 0;
        for length in 0..=MAX_CODE_BITS {
            let end = self.ends[length as usize];
            let share = MAX_CODE_BITS - length;
            if front < end {
                bits.consume(length)?;
                return Ok(self.symbols[shorter + ((front - below) >> share) as usize]);
            }
            shorter += ((end - below) >> share) as usize;
            below = end;
        }
        Err(DecodeError::EmptyCode)
    }

    /// Bytes that this holds in memory.
    pub(in crate::codec) fn resident_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&self.symbols[..]) + size_of_val(&self.table[..])
    }
}

#[cfg(test)]
mod tests {
    use super::super::Code;
    use super::*;
    use crate::codec::bits::BitWriter;

    /// Zero is symbol 1; code words 10 0 110 111.
    const LENGTHS: [Option<u8>; 4] = [Some(2), Some(1), Some(3), Some(3)];

    #[test]
    fn a_step_stands_for_zeros_and_the_symbol_after_them() {
        let decoder = Decoder::new(&LENGTHS, Some(1), 1 << 20).unwrap();
        // 000 10 | 0 110 | nine zeros, and two more that end the look-up.
        let bytes = [0b0001_0011, 0b0000_0000, 0b0000_1100];
        let mut bits = BitReader::new(&bytes);
        assert_eq!(decoder.step(&mut bits), Ok(Step { zeros: 3, symbol: Some(0) }));
        assert_eq!(decoder.step(&mut bits), Ok(Step { zeros: 1, symbol: Some(2) }));
        assert_eq!(decoder.step(&mut bits), Ok(Step { zeros: 11, symbol: None }));
        assert_eq!(decoder.step(&mut bits), Ok(Step { zeros: 0, symbol: Some(2) }));
    }

    #[test]
    fn words_beyond_the_table_are_found_by_length() {
        // Lengths 1, 2, ..., 31, 32, 32: all but the shortest lie beyond a table of one bit.
        let lengths: Vec<_> = (1..=32).chain([32]).map(Some).collect();
        let code = Code::canonical(lengths.clone());
        for budget in [1, 1 << 20] {
            let decoder = Decoder::new(&lengths, None, budget).unwrap();
            let mut writer = BitWriter::default();
            (0..33).for_each(|symbol| code.push(symbol, &mut writer));
            let bytes = writer.into_bytes();
            let mut bits = BitReader::new(&bytes);
            assert!((0..33).all(|symbol| decoder.symbol(&mut bits) == Ok(symbol)));
            bits.finish().unwrap();
        }
    }

    #[test]
    fn a_code_of_one_symbol_reads_no_bits_and_one_of_none_fails() {
        let one = Decoder::new(&[None, Some(0)], None, 1 << 20).unwrap();
        let mut bits = BitReader::new(&[]);
        assert_eq!((one.symbol(&mut bits), one.only_symbol()), (Ok(1), Some(1)));
        let none = Decoder::new(&[None, None], None, 1 << 20).unwrap();
        assert_eq!((none.symbol(&mut bits), none.only_symbol()), (Err(DecodeError::EmptyCode), None));
    }

    #[test]
    fn a_small_matrix_gets_a_small_table() {
        let decoder = Decoder::new(&LENGTHS, Some(1), 500).unwrap();
        assert_eq!(decoder.table.len(), 16);
    }
}
