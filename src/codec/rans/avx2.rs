//! Decoding with AVX2: 32 lanes in four vectors of eight states.
//!
//! The one file of this codec with `unsafe`. What it decodes is what [`super::stream`] decodes, bit by bit: it stops where
//! the words come near the end of the block, and leaves the rest to it.
//!
//! # Source
//! Giesen, "Interleaved entropy coders", arXiv:1402.3392, section 4.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm_loadl_epi64, _mm_loadu_si128, _mm256_add_epi32, _mm256_and_si256,
    _mm256_blendv_epi8, _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_cvtepu8_epi32, _mm256_cvtepu16_epi32,
    _mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_movemask_ps, _mm256_mullo_epi32, _mm256_or_si256,
    _mm256_packus_epi16, _mm256_packus_epi32, _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srl_epi32, _mm256_srli_epi32, _mm256_storeu_si256,
};

use super::model::Table;
use super::product::{Entries, Sums};
use super::stream::{Batch, MAX_LANES};

/// States in a vector.
const WIDTH: usize = 8;

/// Most bytes that a group of entries reads: each of its eight vectors of classes looks at eight words.
const GROUP_BYTES: usize = 2 * (MAX_LANES / WIDTH) * WIDTH * size_of::<u16>();

/// For each set of states that take a word, which of the next words each takes.
static WORD_OF_LANE: [[u8; WIDTH]; 1 << WIDTH] = words_of_lanes();

const fn words_of_lanes() -> [[u8; WIDTH]; 1 << WIDTH] {
    let mut words = [[0; WIDTH]; 1 << WIDTH];
    let mut set = 0;
    while set < words.len() {
        let (mut lane, mut word) = (0, 0);
        while lane < WIDTH {
            if set >> lane & 1 == 1 {
                words[set][lane] = word;
                word += 1;
            }
            lane += 1;
        }
        set += 1;
    }
    words
}

/// Decodes whole groups among the next `entries` from `words` (the bytes, and how many were read), as long as words are
/// far from the end. Returns how many entries were decoded; 0 where the processor has no AVX2.
pub(super) fn decode(
    gaps: Option<&Table>,
    symbols: &Table,
    states: &mut [u32; MAX_LANES],
    words: (&[u8], &mut usize),
    batch: &mut Batch,
    entries: usize,
) -> usize {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")) {
        return 0;
    }
    let (bytes, at) = words;
    // SAFETY: the processor has what the function is compiled for.
    unsafe {
        match gaps {
            Some(gaps) => decode_groups::<true>(gaps, symbols, states, bytes, at, batch, entries),
            None => decode_groups::<false>(symbols, symbols, states, bytes, at, batch, entries),
        }
    }
}

/// Adds the products of `entries` with fused operations. Returns false where the processor has none.
pub(super) fn add(sums: &mut Sums, entries: &Entries) -> bool {
    let has_them = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    if has_them {
        // SAFETY: the processor has what the function is compiled for.
        unsafe { add_fused(sums, entries) }
    }
    has_them
}

#[target_feature(enable = "avx2,fma")]
fn add_fused(sums: &mut Sums, entries: &Entries) {
    sums.add_with(entries, f32::mul_add);
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_groups<const GAPS: bool>(
    gaps: &Table,
    symbols: &Table,
    states: &mut [u32; MAX_LANES],
    bytes: &[u8],
    at: &mut usize,
    batch: &mut Batch,
    entries: usize,
) -> usize {
    let (gaps, symbols) = (Slots::new(gaps), Slots::new(symbols));
    let mut vectors = load(states);
    let mut done = 0;
    let pairs = batch.gaps.as_chunks_mut::<MAX_LANES>().0.iter_mut().zip(batch.symbols.as_chunks_mut::<MAX_LANES>().0);
    for (gap_classes, symbol_classes) in pairs.take(entries / MAX_LANES) {
        let Some(ahead) = bytes.get(*at..).filter(|ahead| ahead.len() >= GROUP_BYTES) else { break };
        let mut read = 0;
        if GAPS {
            store(gap_classes, gaps.decode_group(&mut vectors, ahead, &mut read));
        }
        store(symbol_classes, symbols.decode_group(&mut vectors, ahead, &mut read));
        *at += read;
        done += MAX_LANES;
    }
    for (states, vector) in states.as_chunks_mut::<WIDTH>().0.iter_mut().zip(vectors) {
        // SAFETY: `states` are the 32 bytes that are written.
        unsafe { _mm256_storeu_si256(states.as_mut_ptr().cast(), vector) }
    }
    done
}

/// A number for each lane.
type Vectors = [__m256i; MAX_LANES / WIDTH];

/// A table as the vectors read it.
struct Slots<'a> {
    slots: &'a [u32],
    mask: __m256i,
    precision: __m128i,
}

impl<'a> Slots<'a> {
    #[target_feature(enable = "avx2")]
    fn new(table: &'a Table) -> Self {
        let slots = table.slots();
        assert_eq!(slots.len(), 1 << table.precision(), "a slot for every number of `precision` bits");
        Self {
            slots,
            mask: _mm256_set1_epi32((1 << table.precision()) - 1),
            precision: _mm_cvtsi32_si128(table.precision() as i32),
        }
    }

    /// Decodes a class from each of all states.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn decode_group(&self, states: &mut Vectors, ahead: &[u8], read: &mut usize) -> Vectors {
        let mut slots = [_mm256_setzero_si256(); MAX_LANES / WIDTH];
        for (slots, states) in slots.iter_mut().zip(states) {
            *slots = self.decode(states, ahead, read);
        }
        slots
    }

    /// Decodes a class from each of `states`; `read` bytes of `ahead`, which has [`GROUP_BYTES`], were read by the vectors
    /// of its group before. Returns the slots, whose low bytes are the classes.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn decode(&self, states: &mut __m256i, ahead: &[u8], read: &mut usize) -> __m256i {
        // SAFETY: the mask leaves indices below the number of slots, which `new` compared with it.
        let slots =
            unsafe { _mm256_i32gather_epi32::<4>(self.slots.as_ptr().cast(), _mm256_and_si256(*states, self.mask)) };
        let frequencies = _mm256_srli_epi32::<20>(slots);
        let offsets = _mm256_and_si256(_mm256_srli_epi32::<8>(slots), _mm256_set1_epi32(0xfff));
        let rest = _mm256_srl_epi32(*states, self.precision);
        let without = _mm256_add_epi32(_mm256_mullo_epi32(frequencies, rest), offsets);
        let is_low = _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(without), _mm256_setzero_si256());
        let set = _mm256_movemask_ps(_mm256_castsi256_ps(is_low)) as usize;
        // SAFETY: each of the vectors of a group reads at most 16 bytes, so `read` is at most 16 times those before, and 16
        // bytes more are within `ahead`. A set has 8 bits, and its row 8 bytes.
        let words = unsafe {
            let next = _mm256_cvtepu16_epi32(_mm_loadu_si128(ahead.as_ptr().add(*read).cast()));
            let word_of_lane = _mm_loadl_epi64(WORD_OF_LANE.get_unchecked(set).as_ptr().cast());
            _mm256_permutevar8x32_epi32(next, _mm256_cvtepu8_epi32(word_of_lane))
        };
        let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(without), words);
        *states = _mm256_blendv_epi8(without, refilled, is_low);
        *read += size_of::<u16>() * set.count_ones() as usize;
        slots
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(states: &[u32; MAX_LANES]) -> Vectors {
    let mut vectors = [_mm256_setzero_si256(); MAX_LANES / WIDTH];
    for (vector, states) in vectors.iter_mut().zip(states.as_chunks::<WIDTH>().0) {
        // SAFETY: `states` are the 32 bytes that are read.
        *vector = unsafe { _mm256_loadu_si256(states.as_ptr().cast()) };
    }
    vectors
}

/// Stores the low bytes of all lanes, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn store(classes: &mut [u8; MAX_LANES], [a, b, c, d]: Vectors) {
    let low = |slots| _mm256_and_si256(slots, _mm256_set1_epi32(0xff));
    // Packing works on halves of vectors, so fours of bytes end up as 0 2 4 6 1 3 5 7.
    let packed = _mm256_packus_epi16(_mm256_packus_epi32(low(a), low(b)), _mm256_packus_epi32(low(c), low(d)));
    let in_order = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: `classes` are the 32 bytes that are written.
    unsafe { _mm256_storeu_si256(classes.as_mut_ptr().cast(), in_order) }
}
