//! The dictionary on the wire: which symbols have a code word, and how long it is. The format is in [`super`].

use super::{Lengths, MAX_CODE_BITS};
use crate::codec::DecodeError;
use crate::codec::bits::{BitReader, BitWriter};
use crate::codec::ints::{push_varint, take_varint};

/// Widths of the fields that name a Rice parameter, and of the first length.
const GAP_PARAMETER_BITS: u32 = 4;
const STEP_PARAMETER_BITS: u32 = 2;
const FIRST_LENGTH_BITS: u32 = 5;

/// Appends the dictionary of `lengths`.
pub(in crate::codec) fn write_lengths(lengths: &[Option<u8>], out: &mut Vec<u8>) {
    let used: Vec<(usize, u8)> = lengths.iter().enumerate().filter_map(|(i, l)| Some((i, (*l)?))).collect();
    push_varint(out, used.len() as u64);
    let mut bits = BitWriter::default();
    if !used.is_empty() && used.len() < lengths.len() {
        let mut next = 0;
        let gaps: Vec<u32> =
            used.iter().map(|&(symbol, _)| (symbol - std::mem::replace(&mut next, symbol + 1)) as u32).collect();
        let parameter = best_parameter(&gaps, GAP_PARAMETER_BITS);
        bits.push(parameter, GAP_PARAMETER_BITS);
        gaps.iter().for_each(|&gap| bits.push_rice(gap, parameter));
    }
    if used.len() >= 2 {
        let steps: Vec<u32> = used.windows(2).map(|pair| zigzag(i32::from(pair[1].1) - i32::from(pair[0].1))).collect();
        let parameter = best_parameter(&steps, STEP_PARAMETER_BITS);
        bits.push(parameter, STEP_PARAMETER_BITS);
        bits.push(u32::from(used[0].1) - 1, FIRST_LENGTH_BITS);
        steps.iter().for_each(|&step| bits.push_rice(step, parameter));
    }
    out.extend(bits.into_bytes());
}

/// Takes the dictionary of an alphabet of `symbols` symbols from the front of `input`. Whether the lengths make a code
/// is checked where they become one.
pub(in crate::codec) fn read_lengths(symbols: usize, input: &mut &[u8]) -> Result<Lengths, DecodeError> {
    let used = take_varint(input)?;
    if used > symbols as u64 {
        return Err(DecodeError::TooManyCodeWords { used, symbols });
    }
    let used = used as usize;
    let mut bits = BitReader::new(input);
    let named = if 0 < used && used < symbols { read_gaps(used, symbols, &mut bits)? } else { (0..used).collect() };
    let mut lengths = vec![None; symbols];
    if let [only] = named[..] {
        lengths[only] = Some(0);
    } else if !named.is_empty() {
        let parameter = bits.take(STEP_PARAMETER_BITS)?;
        let mut length = i64::from(bits.take(FIRST_LENGTH_BITS)?) + 1;
        lengths[named[0]] = Some(length as u8);
        for &symbol in &named[1..] {
            length += unzigzag(bits.take_rice(parameter)?);
            if !(1..=i64::from(MAX_CODE_BITS)).contains(&length) {
                return Err(DecodeError::CodeLength { length });
            }
            lengths[symbol] = Some(length as u8);
        }
    }
    *input = bits.into_rest()?;
    Ok(lengths)
}

/// The symbols that have a code word, from the gaps between them.
fn read_gaps(used: usize, symbols: usize, bits: &mut BitReader) -> Result<Vec<usize>, DecodeError> {
    let parameter = bits.take(GAP_PARAMETER_BITS)?;
    let mut next = 0;
    let mut named = Vec::with_capacity(used);
    for _ in 0..used {
        let symbol = next + bits.take_rice(parameter)? as usize;
        if symbol >= symbols {
            return Err(DecodeError::SymbolOutOfRange { symbol: symbol as u64, levels: symbols });
        }
        named.push(symbol);
        next = symbol + 1;
    }
    Ok(named)
}

/// The smallest Rice parameter of those that make `values` shortest.
fn best_parameter(values: &[u32], field_bits: u32) -> u32 {
    let cost = |p: u32| values.iter().map(|&v| u64::from((v >> p) + 1 + p)).sum::<u64>();
    (0..1 << field_bits).min_by_key(|&p| cost(p)).unwrap_or(0)
}

/// 0, -1, 1, -2, 2, ... to 0, 1, 2, 3, 4, ...
fn zigzag(n: i32) -> u32 {
    (n << 1 ^ n >> 31) as u32
}

fn unzigzag(n: u32) -> i64 {
    i64::from(n >> 1) ^ -i64::from(n & 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lengths: &[Option<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        write_lengths(lengths, &mut out);
        let mut input = &out[..];
        assert_eq!(read_lengths(lengths.len(), &mut input).unwrap(), lengths);
        assert!(input.is_empty());
        out
    }

    #[test]
    fn dictionaries_are_the_bits_written_by_hand() {
        assert_eq!(written(&[None, None]), [0]);
        assert_eq!(written(&[Some(0)]), [1]);
        // Symbol 2 of 4: g = 0 (0000), gap 2 (001).
        assert_eq!(written(&[None, None, Some(0), None]), [1, 0b0000_0010]);
        // All used: d = 0 (00), 3 (00010), steps 0 (1), -1 (01), -1 (01).
        assert_eq!(written(&[3, 3, 2, 1].map(Some)), [4, 0b0000_0101, 0b0101_0000]);
        // Symbols 0 and 2 of 3: g = 0 (0000), gaps 0 (1), 1 (01); d = 0 (00), length 1 (00000), step 0 (1).
        assert_eq!(written(&[Some(1), None, Some(1)]), [2, 0b0000_1010, 0b0000_0010]);
    }

    #[test]
    fn a_few_symbols_of_a_large_codebook_cost_a_few_bytes() {
        let mut lengths = vec![None; 1 << 16];
        for symbol in [100, 30_000, 30_001, 65_535] {
            lengths[symbol] = Some(2);
        }
        assert!(written(&lengths).len() <= 11);
    }

    #[test]
    fn codes_that_rise_and_fall_cost_about_two_bits_a_symbol() {
        let lengths: Vec<_> = (0..31u8).map(|i| Some(9 - i.min(30 - i) / 3)).collect();
        assert!(written(&lengths).len() <= 8);
    }

    #[test]
    fn lengths_outside_their_range_are_refused() {
        // d = 0, first length 1, step -1.
        let input = [2, 0b0000_0000, 0b1000_0000];
        assert_eq!(read_lengths(2, &mut &input[..]), Err(DecodeError::CodeLength { length: 0 }));
        assert_eq!(read_lengths(1, &mut &[2][..]), Err(DecodeError::TooManyCodeWords { used: 2, symbols: 1 }));
        assert_eq!(read_lengths(2, &mut &[2][..]), Err(DecodeError::UnexpectedEndOfBits));
    }
}
