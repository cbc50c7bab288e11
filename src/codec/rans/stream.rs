//! Interleaved rANS: entries in groups of one for each lane, every lane with a state of its own.
//!
//! A state is a number from 2^16 to 2^32 - 1. With a model of precision p, its low p bits are the slot that says which
//! class comes next; `frequency * (state >> p) + slot - start` is the state without it, and where that is below 2^16 it is
//! shifted up by 16 bits, to which the next word of the stream is added. A decoder ends with all states at 2^16.
//!
//! Entry i belongs to lane i mod lanes. A group of entries, one for each lane, has first the gaps of all, in order, then the
//! symbols of all. Bits that follow a class as they are stand at the end of the stream, last byte first.
//!
//! # Source
//! Duda, "Asymmetric numeral systems", arXiv:1311.2540; Giesen, "Interleaved entropy coders", arXiv:1402.3392.

use super::super::DecodeError;
use super::gap;
use super::model::{Interval, Table};

/// Most lanes.
pub(super) const MAX_LANES: usize = 32;

/// Entries that are decoded at a time.
pub(super) const BATCH: usize = 16 * MAX_LANES;

/// The lowest state, with which encoders start and decoders end.
pub(super) const LOWEST: u32 = 1 << 16;

/// The classes of some entries.
pub(super) struct Batch {
    pub(super) gaps: [u8; BATCH],
    pub(super) symbols: [u8; BATCH],
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { gaps: [0; BATCH], symbols: [0; BATCH] }
    }
}

/// Reads the entries of one block.
pub(super) struct Decoder<'a> {
    /// None where the gaps are all 0.
    gaps: Option<&'a Table>,
    symbols: &'a Table,
    states: [u32; MAX_LANES],
    lanes: usize,
    /// Words, and the bits that follow classes at the end.
    bytes: &'a [u8],
    /// First byte after the words that were read.
    at: usize,
    /// Bits that were taken from the end.
    taken: usize,
    /// Entries to come.
    left: usize,
    /// Whether vectors may be used. What is decoded is the same.
    vectors: bool,
}

impl<'a> Decoder<'a> {
    /// Takes the states of `lanes` lanes (of as many as there are entries, if they are fewer) from the front of `bytes`,
    /// which hold `entries` entries.
    pub(super) fn new(
        gaps: Option<&'a Table>,
        symbols: &'a Table,
        lanes: usize,
        entries: usize,
        bytes: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let used = lanes.min(entries);
        let (given, bytes) = bytes
            .split_at_checked(4 * used)
            .ok_or(DecodeError::UnexpectedEof { needed: 4 * used, found: bytes.len() })?;
        let mut states = [LOWEST; MAX_LANES];
        for (state, bytes) in states.iter_mut().zip(given.as_chunks().0) {
            *state = u32::from_le_bytes(*bytes);
            if *state < LOWEST {
                return Err(DecodeError::LowState { state: *state });
            }
        }
        Ok(Self { gaps, symbols, states, lanes, bytes, at: 0, taken: 0, left: entries, vectors: true })
    }

    /// Decodes the classes of the next entries. Returns how many: [`BATCH`], or all that are left.
    pub(super) fn next(&mut self, batch: &mut Batch) -> Result<usize, DecodeError> {
        let entries = self.left.min(BATCH);
        let mut done = self.next_on_vectors(batch, entries);
        while done < entries {
            let group = done..entries.min(done + self.lanes);
            if let Some(table) = self.gaps {
                self.decode(table, &mut batch.gaps[group.clone()])?;
            }
            self.decode(self.symbols, &mut batch.symbols[group.clone()])?;
            done = group.end;
        }
        self.left -= entries;
        Ok(entries)
    }

    /// Decodes some of the next `entries` with vectors, where the processor has them. Returns how many.
    #[cfg(target_arch = "x86_64")]
    fn next_on_vectors(&mut self, batch: &mut Batch, entries: usize) -> usize {
        if self.lanes != MAX_LANES || !self.vectors {
            return 0;
        }
        super::avx2::decode(self.gaps, self.symbols, &mut self.states, (self.bytes, &mut self.at), batch, entries)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn next_on_vectors(&mut self, _batch: &mut Batch, _entries: usize) -> usize {
        0
    }

    /// Decodes a class from each of the first lanes.
    fn decode(&mut self, table: &Table, classes: &mut [u8]) -> Result<(), DecodeError> {
        for (state, class) in self.states.iter_mut().zip(classes) {
            (*class, *state) = table.decode(*state);
            if *state < LOWEST {
                let word = self.bytes[self.at..].first_chunk().ok_or(DecodeError::UnexpectedEndOfBits)?;
                *state = *state << 16 | u32::from(u16::from_le_bytes(*word));
                self.at += 2;
            }
        }
        Ok(())
    }

    /// Turns the classes of gaps into gaps, with the bits that follow them. Only where no bits follow symbols.
    pub(super) fn gaps(&mut self, classes: &[u8], gaps: &mut [u32]) -> Result<(), DecodeError> {
        for (gap, &class) in gaps.iter_mut().zip(classes) {
            *gap = u32::from(class);
        }
        for (gaps, classes) in gaps.chunks_mut(16).zip(classes.chunks(16)) {
            if classes.iter().fold(0, |all, class| all | class) < gap::FIRST_LONG {
                continue;
            }
            for (gap, &class) in gaps.iter_mut().zip(classes) {
                *gap = gap::gap(class, self.take(gap::extra_bits(class))?);
            }
        }
        Ok(())
    }

    /// Takes `count` of the bits that follow classes, at most 28.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> Result<u32, DecodeError> {
        if count == 0 {
            return Ok(0);
        }
        let end = self.taken + count as usize;
        let needed = end.div_ceil(8);
        if needed > self.bytes.len() {
            return Err(DecodeError::UnexpectedEndOfBits);
        }
        // At most five bytes, the last of the stream first.
        let from_end = &self.bytes[self.bytes.len() - needed..self.bytes.len() - self.taken / 8];
        let window = from_end.iter().rev().fold(0, |window, &byte| window << 8 | u64::from(byte));
        self.taken = end;
        Ok((window >> (needed * 8 - end) & ((1 << count) - 1)) as u32)
    }

    /// Checks that all was read, and that the states are what the encoder began with.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        let bit_bytes = self.taken.div_ceil(8);
        let used = self.at + bit_bytes;
        if used > self.bytes.len() {
            return Err(DecodeError::UnexpectedEndOfBits);
        }
        super::super::ints::expect_end(&self.bytes[used..])?;
        let padding = self.taken.next_multiple_of(8) - self.taken;
        if padding > 0 && self.bytes[self.at] & ((1 << padding) - 1) != 0 {
            return Err(DecodeError::NonZeroPadding);
        }
        match self.states.iter().find(|&&state| state != LOWEST) {
            Some(&state) => Err(DecodeError::FinalState { state }),
            None => Ok(()),
        }
    }
}

/// Writes the entries of one block, the last first.
pub(super) struct Encoder {
    states: [u32; MAX_LANES],
    /// Words, in the reverse of the order in which they are read.
    words: Vec<u16>,
}

impl Encoder {
    /// Encodes entries, each the interval of its gap (where gaps are coded) and that of its symbol. Returns states and
    /// words as they are read.
    pub(super) fn encode(lanes: usize, gaps: Option<&[Interval]>, symbols: &[Interval], entries: &[Entry]) -> Vec<u8> {
        let mut encoder = Self { states: [LOWEST; MAX_LANES], words: Vec::with_capacity(entries.len()) };
        for group in entries.chunks(lanes).rev() {
            encoder.push(symbols, group.iter().map(|entry| entry.symbol));
            if let Some(gaps) = gaps {
                encoder.push(gaps, group.iter().map(|entry| entry.gap));
            }
        }
        let states = encoder.states[..lanes.min(entries.len())].iter().flat_map(|state| state.to_le_bytes());
        states.chain(encoder.words.iter().rev().flat_map(|word| word.to_le_bytes())).collect()
    }

    /// Encodes a class for each of the first lanes.
    fn push(&mut self, intervals: &[Interval], classes: impl DoubleEndedIterator<Item = u8> + ExactSizeIterator) {
        for (state, class) in self.states.iter_mut().zip(classes).rev() {
            let Interval { start, frequency, precision } = intervals[usize::from(class)];
            if u64::from(*state) >= u64::from(frequency) << (32 - precision) {
                self.words.push(*state as u16);
                *state >>= 16;
            }
            *state = ((*state / frequency) << precision) + *state % frequency + start;
        }
    }
}

/// The classes of an entry.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) gap: u8,
    pub(super) symbol: u8,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Model;
    use super::*;

    /// Models of entries that look random, and the entries.
    fn entries(len: usize, classes: (u64, u64), seed: u64) -> (Model, Model, Vec<Entry>) {
        let mut state = seed;
        let mut skewed = |classes: u64| {
            let mut draw = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % classes
            };
            draw().min(draw()) as u8
        };
        let entries: Vec<Entry> =
            (0..len).map(|_| Entry { gap: skewed(classes.0), symbol: skewed(classes.1) }).collect();
        let count = |class: fn(&Entry) -> u8| {
            let mut counts = vec![0; 256];
            entries.iter().for_each(|entry| counts[usize::from(class(entry))] += 1);
            Model::fit(&counts)
        };
        (count(|entry| entry.gap), count(|entry| entry.symbol), entries)
    }

    proptest! {
        #[test]
        fn entries_survive_with_vectors_and_without(
            len in 0..3_000usize,
            classes in (1..256u64, 1..256u64),
            lanes in (0..=5u32).prop_map(|log| 1usize << log),
            has_gaps in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let (gaps, symbols, entries) = entries(len, classes, seed);
            let intervals = has_gaps.then(|| gaps.intervals());
            let bytes = Encoder::encode(lanes, intervals.as_deref(), &symbols.intervals(), &entries);
            let (gaps, symbols) = (has_gaps.then(|| Table::new(&gaps)), Table::new(&symbols));
            for vectors in [false, true] {
                let mut decoder = Decoder::new(gaps.as_ref(), &symbols, lanes, len, &bytes).unwrap();
                decoder.vectors = vectors;
                let (mut batch, mut decoded) = (Batch::new(), 0);
                loop {
                    let found = decoder.next(&mut batch).unwrap();
                    for i in 0..found {
                        let entry = entries[decoded + i];
                        prop_assert_eq!(batch.symbols[i], entry.symbol);
                        prop_assert_eq!(batch.gaps[i], if has_gaps { entry.gap } else { 0 });
                    }
                    decoded += found;
                    if found == 0 {
                        break;
                    }
                }
                prop_assert_eq!(decoded, len);
                prop_assert_eq!(decoder.finish(), Ok(()));
            }
        }
    }

    #[test]
    fn bits_are_taken_from_the_last_byte_on() {
        let (_, symbols, _) = entries(1, (1, 1), 0);
        let table = Table::new(&symbols);
        let taken = |bytes: &[u8], counts: &[u32]| {
            let mut decoder = Decoder::new(None, &table, 1, 0, bytes).unwrap();
            let bits: Result<Vec<u32>, _> = counts.iter().map(|&count| decoder.take(count)).collect();
            bits.and_then(|bits| decoder.finish().map(|()| bits))
        };
        assert_eq!(taken(&[0xc0, 0x34, 0x12], &[4, 0, 14]), Ok(vec![1, 0, 0x8d3]));
        assert_eq!(taken(&[0xe0, 0x34, 0x12], &[4, 14]), Err(DecodeError::NonZeroPadding));
        assert_eq!(taken(&[0, 0, 0x34, 0x12], &[16]), Err(DecodeError::TrailingBytes { found: 2 }));
        assert_eq!(taken(&[0x34, 0x12], &[17]), Err(DecodeError::UnexpectedEndOfBits));
    }
}
