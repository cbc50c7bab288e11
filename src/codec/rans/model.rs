//! Models: how often each class of an alphabet occurs, in numbers that rANS can code with.
//!
//! A model gives each of at most 256 classes a frequency; the frequencies of its classes add up to `2^precision`. Coded, it
//! is a part of a bit string:
//!
//! - `precision`, 4 bits, at most 12; `d`, 2 bits;
//! - for each class from 0 until the frequencies add up: `Rice(d)` of the zigzag of the bit length of its frequency minus
//!   that of the class before (0 before the first), then the frequency without its leading one, as many bits less one.
//!
//! A single class has precision 0 and spends no bits; with a precision above 0 at least two classes occur.

use super::super::DecodeError;
use super::super::bits::{BitReader, BitWriter};

/// Classes of an alphabet: a class is a byte.
pub(super) const MAX_CLASSES: usize = 1 << 8;

/// Largest precision: frequencies and what is added to a state fit in 12 bits each, beside a class of 8 bits.
const MAX_PRECISION: u32 = 12;

/// A coarser model is preferred where it costs less than this fraction of the stream: its table takes less of the cache.
const COARSER_FOR: f64 = 1.0 / 1024.0;

/// Frequencies of the classes of an alphabet. See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model {
    precision: u32,
    /// Of all classes up to the last that occurs.
    frequencies: Vec<u32>,
}

impl Model {
    /// The model for classes that occur `counts` times. Where none does, class 0 stands for all.
    pub(super) fn fit(counts: &[u64]) -> Self {
        let used = counts.iter().filter(|&&count| count > 0).count();
        if used < 2 {
            let only = counts.iter().position(|&count| count > 0).unwrap_or(0);
            let mut frequencies = vec![0; only + 1];
            frequencies[only] = 1;
            return Self { precision: 0, frequencies };
        }
        let coarsest = used.next_power_of_two().ilog2();
        let with_bits = |precision| {
            let model = Self { precision, frequencies: normalise(counts, precision) };
            let bits = model.bits(counts) + model.table_bits() as f64;
            (model, bits)
        };
        let models: Vec<(Self, f64)> = (coarsest..=MAX_PRECISION).map(with_bits).collect();
        let fewest = models.iter().map(|&(_, bits)| bits).fold(f64::INFINITY, f64::min);
        let good_enough = |(_, bits): &(Self, f64)| *bits <= fewest * (1.0 + COARSER_FOR);
        models.into_iter().find(good_enough).expect("the one with the fewest bits is among them").0
    }

    /// Bits that classes which occur `counts` times take.
    pub(super) fn bits(&self, counts: &[u64]) -> f64 {
        let bits = |(&count, &frequency): (&u64, &u32)| {
            count as f64 * (f64::from(self.precision) - libm::log2(f64::from(frequency)))
        };
        counts.iter().zip(&self.frequencies).filter(|(count, _)| **count > 0).map(bits).sum()
    }

    /// Appends the coded form.
    pub(super) fn write(&self, bits: &mut BitWriter) {
        let parameter = self.best_parameter();
        bits.push(self.precision, 4);
        bits.push(parameter, 2);
        let mut before = 0;
        for &frequency in &self.frequencies {
            let length = bit_length(frequency);
            bits.push_rice(zigzag(length as i32 - before as i32), parameter);
            if length > 1 {
                bits.push(frequency - (1 << (length - 1)), length - 1);
            }
            before = length;
        }
    }

    /// Takes the model of an alphabet of `classes` from the front of `bits`.
    pub(super) fn read(classes: usize, bits: &mut BitReader) -> Result<Self, DecodeError> {
        let precision = bits.take(4)?;
        if precision > MAX_PRECISION {
            return Err(DecodeError::Precision { precision });
        }
        let parameter = bits.take(2)?;
        let total = 1 << precision;
        // No frequency is the total, but that of a single class.
        let longest = i64::from(precision.max(1));
        let (mut frequencies, mut sum, mut length) = (Vec::new(), 0, 0i64);
        while sum < total && frequencies.len() < classes {
            length += unzigzag(bits.take_rice(parameter)?);
            if !(0..=longest).contains(&length) {
                return Err(DecodeError::Frequencies { precision });
            }
            let frequency = if length == 0 { 0 } else { 1 << (length - 1) | bits.take(length as u32 - 1)? };
            frequencies.push(frequency);
            sum += frequency;
        }
        if sum == total { Ok(Self { precision, frequencies }) } else { Err(DecodeError::Frequencies { precision }) }
    }

    /// What encoding needs to know of `class`, which occurs.
    pub(super) fn intervals(&self) -> Vec<Interval> {
        let mut start = 0;
        let interval = |&frequency: &u32| {
            let interval = Interval { start, frequency, precision: self.precision };
            start += frequency;
            interval
        };
        self.frequencies.iter().map(interval).collect()
    }

    /// Bits of the coded form.
    fn table_bits(&self) -> u32 {
        6 + self.bits_with(self.best_parameter())
    }

    fn best_parameter(&self) -> u32 {
        (0..4).min_by_key(|&parameter| self.bits_with(parameter)).unwrap_or(0)
    }

    fn bits_with(&self, parameter: u32) -> u32 {
        let lengths = || self.frequencies.iter().map(|&frequency| bit_length(frequency));
        let step = |(before, length): (u32, u32)| {
            (zigzag(length as i32 - before as i32) >> parameter) + 1 + parameter + length.saturating_sub(1)
        };
        std::iter::once(0).chain(lengths()).zip(lengths()).map(step).sum()
    }
}

/// The part of `0..2^precision` that stands for a class.
#[derive(Clone, Copy)]
pub(super) struct Interval {
    pub(super) start: u32,
    pub(super) frequency: u32,
    pub(super) precision: u32,
}

/// What each of the `2^precision` slots of a model stands for.
#[derive(Debug)]
pub(super) struct Table {
    precision: u32,
    /// Of each slot: frequency << 20 | slot - start << 8 | class.
    slots: Vec<u32>,
}

impl Table {
    pub(super) fn new(model: &Model) -> Self {
        let mut slots = Vec::with_capacity(1 << model.precision);
        for (class, &frequency) in model.frequencies.iter().enumerate() {
            slots.extend((0..frequency).map(|offset| frequency << 20 | offset << 8 | class as u32));
        }
        Self { precision: model.precision, slots }
    }

    pub(super) fn precision(&self) -> u32 {
        self.precision
    }

    /// `2^precision` slots.
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The class of `state`, and the state without it, before it is refilled.
    #[inline]
    pub(super) fn decode(&self, state: u32) -> (u8, u32) {
        let slot = self.slots[(state & ((1 << self.precision) - 1)) as usize];
        (slot as u8, (slot >> 20) * (state >> self.precision) + (slot >> 8 & 0xfff))
    }

    /// The only class, if there is no other.
    pub(super) fn only_class(&self) -> Option<u8> {
        if self.precision == 0 { Some(self.slots[0] as u8) } else { None }
    }

    pub(super) fn resident_bytes(&self) -> usize {
        size_of_val(&self.slots[..])
    }
}

/// Frequencies of `counts`, of which at least two and at most `2^precision` are not 0, that add up to `2^precision`: the
/// rounded shares, then one up or down where that gains most or costs least, until the sum is right.
fn normalise(counts: &[u64], precision: u32) -> Vec<u32> {
    let total = 1u32 << precision;
    let all: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    let share = |&count: &u64| match count {
        0 => 0,
        _ => ((u128::from(count) << (precision + 1)) / all).div_ceil(2).clamp(1, u128::from(total) - 1) as u32,
    };
    let last = counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    let counts = &counts[..last];
    let mut frequencies: Vec<u32> = counts.iter().map(share).collect();
    let mut sum: u32 = frequencies.iter().sum();
    // Going from f to f + 1 saves about count / (f + 1/2), in units that do not matter.
    let gain = |count: u64, twice: u32| count as f64 / f64::from(twice);
    let used = || (0..counts.len()).filter(|&class| counts[class] > 0);
    while sum < total {
        let up = |&class: &usize| gain(counts[class], 2 * frequencies[class] + 1);
        let class = used().max_by(|a, b| up(a).total_cmp(&up(b))).expect("two classes occur");
        frequencies[class] += 1;
        sum += 1;
    }
    while sum > total {
        let down = |&class: &usize| gain(counts[class], 2 * frequencies[class] - 1);
        let class = used().filter(|&class| frequencies[class] > 1).min_by(|a, b| down(a).total_cmp(&down(b)));
        frequencies[class.expect("no more classes than slots")] -= 1;
        sum -= 1;
    }
    frequencies
}

fn bit_length(n: u32) -> u32 {
    u32::BITS - n.leading_zeros()
}

/// 0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ...
fn zigzag(n: i32) -> u32 {
    (n << 1 ^ n >> 31) as u32
}

fn unzigzag(n: u32) -> i64 {
    i64::from(n >> 1) ^ -i64::from(n & 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coded(model: &Model) -> Vec<u8> {
        let mut bits = BitWriter::default();
        model.write(&mut bits);
        bits.into_bytes()
    }

    #[test]
    fn frequencies_are_written_by_their_lengths() {
        // 3, 0, 1 of 4: precision 2 (0010); d = 1 (01); 3 has 2 bits: +2 (4: 001 0), then 1; 0: -2 (3: 01 1); 1: +1 (2: 01 0).
        let model = Model { precision: 2, frequencies: vec![3, 0, 1] };
        assert_eq!((model.best_parameter(), model.table_bits()), (1, 6 + 5 + 3 + 3));
        assert_eq!(coded(&model), [0b0010_0100, 0b1010_1101, 0b0000_0000]);
    }

    #[test]
    fn one_class_has_precision_0_and_all_of_the_table() {
        for counts in [&[0, 0, 7][..], &[5], &[0; 9], &[]] {
            let model = Model::fit(counts);
            let only = counts.iter().position(|&count| count > 0).unwrap_or(0);
            assert_eq!((model.precision, model.bits(counts)), (0, 0.0));
            assert_eq!(Table::new(&model).only_class(), Some(only as u8));
            assert_eq!(Table::new(&model).decode(0xdead_beef), (only as u8, 0xdead_beef));
        }
    }

    #[test]
    fn sums_that_are_not_a_power_of_two_are_refused() {
        let read = |model: &Model, classes| Model::read(classes, &mut BitReader::new(&coded(model)));
        let short = Model { precision: 3, frequencies: vec![3, 4] };
        assert_eq!(read(&short, 2), Err(DecodeError::Frequencies { precision: 3 }));
        let long = Model { precision: 3, frequencies: vec![3, 6] };
        assert_eq!(read(&long, 2), Err(DecodeError::Frequencies { precision: 3 }));
        // The whole of a table of several slots is a single class, which has another form.
        let whole = Model { precision: 3, frequencies: vec![8] };
        assert_eq!(read(&whole, 2), Err(DecodeError::Frequencies { precision: 3 }));
        assert_eq!(Model::read(2, &mut BitReader::new(&[0xd0])), Err(DecodeError::Precision { precision: 13 }));
    }

    proptest! {
        #[test]
        fn models_survive_and_give_every_class_that_occurs_a_slot(
            counts in prop::collection::vec(prop_oneof![Just(0u64), 1..9u64, 1..1u64 << 40], 1..=MAX_CLASSES),
        ) {
            let model = Model::fit(&counts);
            prop_assert_eq!(Model::read(counts.len(), &mut BitReader::new(&coded(&model))), Ok(model.clone()));
            prop_assert_eq!(coded(&model).len(), (model.table_bits() as usize).div_ceil(8));
            let table = Table::new(&model);
            prop_assert_eq!(table.slots().len(), 1 << table.precision());
            for (class, &count) in counts.iter().enumerate() {
                let slots = table.slots().iter().filter(|&&slot| slot as u8 as usize == class).count();
                prop_assert_eq!(slots > 0, count > 0 || (class == 0 && counts.iter().all(|&count| count == 0)));
            }
        }
    }
}
