//! Unsigned integers in the `pco` format: what the codec of that name and plain tensors have in common.
//!
//! The format cuts the range of the numbers into bins, codes the bin of each number by ANS, and writes its place in the
//! bin as it is: of trained floats, seen as integers, the sign, the exponent and the first bits of the fraction shrink.
//!
//! # Format
//! *Binned numbers* are unsigned integers of 1, 2, 4 or 8 bytes, in chunks of 2^18, the last of the rest. A chunk is the
//! metadata of a chunk of pco's wrapped format, version 4.1, and its one page. Its mode is classic (0) or integer multiples
//! (1), its delta encoding none (0) or consecutive (1): the others may claim memory that the bytes do not warrant. Zero
//! bytes follow the last chunk up to one byte for every 256 numbers, so that the time to decode is bounded.
//!
//! # Source
//! Loncaric, Jeppesen, Zinberg, "Pcodec: Better Compression for Numerical Sequences", arXiv:2502.06112; its format is
//! specified in the repository of the crate.

use ::pco::wrapped::{FileCompressor, FileDecompressor};
use ::pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};
use rayon::prelude::*;

use super::DecodeError;

/// The header of pco's wrapped format: its version.
pub(crate) const HEADER: [u8; 2] = [4, 1];

/// Numbers in every chunk but the last.
pub(crate) const CHUNK_NUMBERS: usize = 1 << 18;

/// Most numbers for each byte: those of a batch of pco.
const NUMBERS_PER_BYTE: usize = 256;

/// Numbers that are decoded at a time.
const BATCH_NUMBERS: usize = 4 * NUMBERS_PER_BYTE;

/// What numbers are coded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delta {
    /// The numbers themselves.
    None,
    /// The differences between neighbours, wrapping around.
    Consecutive,
}

/// An unsigned integer that pco takes.
trait Number: ::pco::data_types::Number {
    fn of_word(word: u64) -> Self;
    fn to_word(self) -> u64;
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Number for $number {
            fn of_word(word: u64) -> Self {
                word as Self
            }

            fn to_word(self) -> u64 {
                self.into()
            }
        })*
    };
}

numbers!(u8 u16 u32 u64);

/// Encodes `count` numbers of `width` bytes, the `i`-th of which is `word(i)`. Deterministic whatever the number of threads.
///
/// # Panics
/// If `width` is not 1, 2, 4 or 8.
pub(crate) fn encode(width: usize, count: usize, word: impl Fn(usize) -> u64 + Sync, delta: Delta) -> Vec<u8> {
    match width {
        1 => encode_as::<u8>(count, word, delta),
        2 => encode_as::<u16>(count, word, delta),
        4 => encode_as::<u32>(count, word, delta),
        8 => encode_as::<u64>(count, word, delta),
        _ => panic!("numbers of {width} bytes"),
    }
}

/// Decodes `count` numbers of `width` bytes from the whole of `input`, and passes each on to `take`. Whatever the bytes
/// are, holds no more than 1 MiB, and takes time in proportion to `input`.
///
/// # Errors
/// A [`DecodeError`], or that of `take`.
///
/// # Panics
/// If `width` is not 1, 2, 4 or 8.
pub(crate) fn decode(
    width: usize,
    count: usize,
    input: &[u8],
    take: impl FnMut(u64) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    match width {
        1 => decode_as::<u8>(count, input, take),
        2 => decode_as::<u16>(count, input, take),
        4 => decode_as::<u32>(count, input, take),
        8 => decode_as::<u64>(count, input, take),
        _ => panic!("numbers of {width} bytes"),
    }
}

/// Takes [`HEADER`] from the front of `input`.
pub(crate) fn take_header(input: &mut &[u8]) -> Result<(), DecodeError> {
    let needed = HEADER.len();
    let (&version, rest) =
        input.split_first_chunk().ok_or(DecodeError::UnexpectedEof { needed, found: input.len() })?;
    if version != HEADER {
        return Err(DecodeError::BinnedVersion { major: version[0], minor: version[1] });
    }
    *input = rest;
    Ok(())
}

/// The fewest bytes that `count` numbers take.
pub(super) fn least_bytes(count: usize) -> usize {
    count.div_ceil(NUMBERS_PER_BYTE)
}

fn encode_as<N: Number>(count: usize, word: impl Fn(usize) -> u64 + Sync, delta: Delta) -> Vec<u8> {
    let encode_chunk = |start: usize| {
        let words = (start..count.min(start + CHUNK_NUMBERS)).map(&word);
        let common = words.clone().fold(0, |bits, word| bits | word);
        let numbers: Vec<N> = words.map(N::of_word).collect();
        encode_chunk(&numbers, common, delta)
    };
    let starts = (0..count.div_ceil(CHUNK_NUMBERS)).into_par_iter().map(|chunk| chunk * CHUNK_NUMBERS);
    let mut out = starts.map(encode_chunk).collect::<Vec<_>>().concat();
    out.resize(out.len().max(least_bytes(count)), 0);
    out
}

/// Encodes at most [`CHUNK_NUMBERS`]; `common` has every bit set that one of them has.
fn encode_chunk<N: Number>(numbers: &[N], common: u64, delta: Delta) -> Vec<u8> {
    // Narrow floats that were widened end in zeros, which the classic mode would store.
    let mode = match common.trailing_zeros() {
        0 | 64 => ModeSpec::Classic,
        zeros => ModeSpec::TryIntMult(1 << zeros),
    };
    let delta = match delta {
        Delta::None => DeltaSpec::NoOp,
        Delta::Consecutive => DeltaSpec::TryConsecutive(1),
    };
    let config = ChunkConfig::default()
        .with_mode_spec(mode)
        .with_delta_spec(delta)
        .with_paging_spec(PagingSpec::Exact(vec![numbers.len()]))
        .with_enable_8_bit(true);
    let write = || {
        let mut chunk = FileCompressor::default().chunk_compressor(numbers, &config)?;
        chunk.write_page(0, chunk.write_meta(Vec::new())?)
    };
    write().expect("a chunk of at most 2^18 numbers in one page is what pco takes, and memory takes all bytes")
}

fn decode_as<N: Number>(
    count: usize,
    input: &[u8],
    mut take: impl FnMut(u64) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let needed = least_bytes(count);
    if input.len() < needed {
        return Err(DecodeError::UnexpectedEof { needed, found: input.len() });
    }
    let (file, _) = FileDecompressor::new(&HEADER[..])?;
    let mut numbers = [N::default(); BATCH_NUMBERS];
    let mut rest = input;
    for start in (0..count).step_by(CHUNK_NUMBERS) {
        check_variants::<N>(rest)?;
        let (mut chunk, after) = file.chunk_decompressor::<N, _>(rest)?;
        let mut page = chunk.page_decompressor(after, CHUNK_NUMBERS.min(count - start))?;
        loop {
            let progress = page.read(&mut numbers)?;
            numbers[..progress.n_processed].iter().try_for_each(|number| take(number.to_word()))?;
            if progress.finished {
                break;
            }
        }
        rest = page.into_src();
    }
    let used = input.len() - rest.len();
    if input.len() > used.max(needed) {
        return Err(DecodeError::TrailingBytes { found: input.len() - used.max(needed) });
    }
    if rest.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(DecodeError::NonZeroPadding) }
}

/// Refuses modes and delta encodings that allocate what their bytes have not earned. The mode is in the low four bits of a
/// chunk; that of integer multiples is followed by the multiple; the delta encoding is in the next four bits.
fn check_variants<N: Number>(chunk: &[u8]) -> Result<(), DecodeError> {
    let byte = |at| chunk.get(at).copied().ok_or(DecodeError::UnexpectedEof { needed: at + 1, found: chunk.len() });
    let mode = byte(0)? & 0xf;
    let delta_at = match mode {
        0 => 0,
        1 => size_of::<N>(),
        _ => return Err(DecodeError::BinnedMode { mode }),
    };
    match byte(delta_at)? >> 4 {
        0 | 1 => Ok(()),
        delta => Err(DecodeError::BinnedDelta { delta }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(width: usize, count: usize, input: &[u8]) -> Result<Vec<u64>, DecodeError> {
        let mut words = Vec::new();
        decode(width, count, input, |word| {
            words.push(word);
            Ok(())
        })?;
        Ok(words)
    }

    /// SplitMix64.
    fn noise(i: usize) -> u64 {
        let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    #[test]
    fn numbers_of_every_width_come_back_with_and_without_differences() {
        for width in [1, 2, 4, 8] {
            for delta in [Delta::None, Delta::Consecutive] {
                for count in [0, 1, 2, 255, 256, 257, 5000] {
                    for shift in [0, 3] {
                        let word = |i| noise(i) >> (64 - 8 * width) >> shift << shift;
                        let binned = encode(width, count, word, delta);
                        let expected: Vec<u64> = (0..count).map(word).collect();
                        assert_eq!(decoded(width, count, &binned), Ok(expected), "{width} {delta:?} {count}");
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_of_several_chunks_come_back() {
        let count = CHUNK_NUMBERS + 77;
        let binned = encode(4, count, |i| noise(i) >> 40, Delta::None);
        assert_eq!(decoded(4, count, &binned), Ok((0..count).map(|i| noise(i) >> 40).collect()));
    }

    #[test]
    fn the_zeros_at_the_end_of_widened_floats_cost_nothing() {
        let narrow = encode(2, 10_000, |i| noise(i) >> 50, Delta::None);
        let widened = encode(4, 10_000, |i| noise(i) >> 50 << 16, Delta::None);
        assert!(widened.len() < narrow.len() + 100, "{} and {}", widened.len(), narrow.len());
    }

    #[test]
    fn numbers_that_cost_no_bits_are_paid_for_by_zero_bytes() {
        let count = 100 * NUMBERS_PER_BYTE;
        let binned = encode(4, count, |_| 7, Delta::None);
        assert_eq!(binned.len(), 100);
        assert_eq!(decoded(4, count, &binned), Ok(vec![7; count]));
        let found = binned.len();
        let short = decoded(4, count + 1, &binned);
        assert_eq!(short, Err(DecodeError::UnexpectedEof { needed: found + 1, found }));
        let mut dirty = binned.clone();
        *dirty.last_mut().unwrap() = 1;
        assert_eq!(decoded(4, count, &dirty), Err(DecodeError::NonZeroPadding));
        let longer = [&binned[..], &[0]].concat();
        assert_eq!(decoded(4, count, &longer), Err(DecodeError::TrailingBytes { found: 1 }));
    }

    #[test]
    fn variants_that_claim_memory_are_refused_before_pco_sees_them() {
        // A dictionary of 2^25 - 1 numbers, and a window of 2^24.
        let dictionary = [0xf4, 0xff, 0xff, 0x1f, 0, 0, 0, 0];
        assert_eq!(decoded(8, 1, &dictionary), Err(DecodeError::BinnedMode { mode: 4 }));
        let lookback = [0x20, 0xff, 0xff, 0, 0, 0, 0, 0];
        assert_eq!(decoded(8, 1, &lookback), Err(DecodeError::BinnedDelta { delta: 2 }));
        let convolution = [0x01, 0x10, 0x30, 0, 0, 0, 0];
        assert_eq!(decoded(2, 1, &convolution), Err(DecodeError::BinnedDelta { delta: 3 }));
    }
}
