//! The binary arithmetic coder: bits in, bytes out, at a probability for each bit.
//!
//! # Source
//! The carry-less coder of Mahoney, "Adaptive weighing of context models for lossless data compression", Florida Tech.
//! CS-2005-16, 2005; with probabilities of 16 bits.

/// Codes one bit after the other: a writer codes the bits that it is given, a reader finds the same ones.
pub(super) trait Coder {
    /// Codes a bit that is 1 with a probability of `p / 2^16`, 0 < `p` < 2^16. A writer codes `bit`; a reader ignores it.
    fn code(&mut self, p: i32, bit: bool) -> bool;
}

/// The numbers that all streams with the same past begin with: `low..=high`, as fractions of 2^32.
struct Interval {
    low: u32,
    high: u32,
}

impl Interval {
    const ALL: Self = Self { low: 0, high: u32::MAX };

    /// The last number that stands for a 1.
    fn split(&self, p: i32) -> u32 {
        self.low + ((u64::from(self.high - self.low) * p as u64) >> 16) as u32
    }

    fn narrow(&mut self, split: u32, bit: bool) {
        if bit { self.high = split } else { self.low = split + 1 }
    }

    /// The first byte, once it is the same for all numbers; it is then cut off.
    fn next_byte(&mut self) -> Option<u8> {
        if (self.low ^ self.high) >> 24 != 0 {
            return None;
        }
        let byte = (self.high >> 24) as u8;
        (self.low, self.high) = (self.low << 8, self.high << 8 | 0xff);
        Some(byte)
    }
}

pub(super) struct Writer {
    interval: Interval,
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { interval: Interval::ALL, out: Vec::new() }
    }

    /// The bytes of all bits, zero bytes at their end left out: a reader finds zeros there.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let Interval { low, high } = self.interval;
        // The number of the interval with the most zero bits at its end.
        let rounded = (0..32).rev().find_map(|zeros| {
            let up = (u64::from(low) + (1 << zeros) - 1) >> zeros << zeros;
            (up <= u64::from(high)).then_some(up as u32)
        });
        self.out.extend_from_slice(&rounded.unwrap_or(low).to_be_bytes());
        let used = self.out.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        self.out.truncate(used);
        self.out
    }
}

impl Coder for Writer {
    #[inline]
    fn code(&mut self, p: i32, bit: bool) -> bool {
        self.interval.narrow(self.interval.split(p), bit);
        while let Some(byte) = self.interval.next_byte() {
            self.out.push(byte);
        }
        bit
    }
}

/// Reads the bits of any bytes; those after the end are zeros.
pub(super) struct Reader<'a> {
    interval: Interval,
    number: u32,
    input: std::slice::Iter<'a, u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        let mut reader = Self { interval: Interval::ALL, number: 0, input: input.iter() };
        (0..4).for_each(|_| reader.shift());
        reader
    }

    fn shift(&mut self) {
        self.number = self.number << 8 | u32::from(self.input.next().copied().unwrap_or(0));
    }
}

impl Coder for Reader<'_> {
    #[inline]
    fn code(&mut self, p: i32, _bit: bool) -> bool {
        let split = self.interval.split(p);
        let bit = self.number <= split;
        self.interval.narrow(split, bit);
        while self.interval.next_byte().is_some() {
            self.shift();
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits that look random, and probabilities from one end to the other.
    fn sample() -> Vec<(i32, bool)> {
        let mut state = 1u32;
        let mut draw = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as i32
        };
        (0..20_000).map(|i| ([1, 65_535, 32_768, draw().clamp(1, 65_535)][i % 4], draw() < 20_000)).collect()
    }

    #[test]
    fn a_reader_finds_the_bits_that_were_written() {
        let bits = sample();
        for len in [0, 1, 2, 3, 100, bits.len()] {
            let mut writer = Writer::new();
            for &(p, bit) in &bits[..len] {
                writer.code(p, bit);
            }
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert!(bits[..len].iter().all(|&(p, bit)| reader.code(p, !bit) == bit), "{len}");
        }
    }

    #[test]
    fn likely_bits_take_no_bytes() {
        // 2^15 bits of probability 1 - 2^-16 each: less than a bit in all, and zeros are the number found at the end.
        let mut writer = Writer::new();
        for _ in 0..1 << 15 {
            writer.code(65_535, true);
        }
        assert!(writer.finish().is_empty());
    }
}
