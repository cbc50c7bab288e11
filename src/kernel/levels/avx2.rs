//! [`super::LevelRows`] with AVX2 and FMA: the four bytes of 32 values are looked up in tables of 16 and put together.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{CHUNK, LANES, LevelRows, Width};

/// Levels that one table holds.
const PAGE: usize = 16;

/// The values of up to `PAGES` x 16 levels, split in bytes: byte `b` of the values of page `p` is `[p][b]`, twice over.
type Tables<const PAGES: usize> = [[__m256i; 4]; PAGES];

/// See [`LevelRows::dot`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn dot(levels: &LevelRows, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
    match levels.levels.div_ceil(PAGE) {
        0 | 1 => dot_paged::<1>(levels, rows, x, out),
        2 => dot_paged::<2>(levels, rows, x, out),
        3 | 4 => dot_paged::<4>(levels, rows, x, out),
        _ => rows.zip(out).for_each(|(row, out)| *out = levels.dot_portable(levels.row(row), x)),
    }
}

/// See [`LevelRows::expand`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn expand(levels: &LevelRows, rows: Range<usize>, out: &mut [f32]) {
    match levels.levels.div_ceil(PAGE) {
        0 | 1 => expand_paged::<1>(levels, rows, out),
        2 => expand_paged::<2>(levels, rows, out),
        3 | 4 => expand_paged::<4>(levels, rows, out),
        _ => {
            let outs = out.chunks_mut(levels.cols.max(1));
            rows.zip(outs).for_each(|(row, out)| levels.expand_portable(levels.row(row), out));
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn dot_paged<const PAGES: usize>(levels: &LevelRows, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
    let tables = tables::<PAGES>(levels);
    for (row, out) in rows.zip(out) {
        let mut sums = [_mm256_setzero_ps(); 4];
        let mut xs = x.as_chunks::<LANES>().0.iter();
        let rest = for_each_lanes(levels, levels.row(row), &tables, |values| {
            let Some(x) = xs.next() else { return };
            for (i, (sum, value)) in sums.iter_mut().zip(values).enumerate() {
                // SAFETY: `i` is below 4, so the vector ends within the 32 floats of `x`.
                let x = unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) };
                *sum = _mm256_fmadd_ps(value, x, *sum);
            }
        });
        let x = &x[levels.cols - levels.cols % levels.chunk_cells()..];
        let of_rest = x.iter().enumerate().fold(0.0, |sum, (i, x)| levels.of_rest(rest, i).mul_add(*x, sum));
        *out = sum(sums) + of_rest;
    }
}

#[target_feature(enable = "avx2,fma")]
fn expand_paged<const PAGES: usize>(levels: &LevelRows, rows: Range<usize>, out: &mut [f32]) {
    let tables = tables::<PAGES>(levels);
    for (row, out) in rows.zip(out.chunks_mut(levels.cols.max(1))) {
        let mut outs = out.as_chunks_mut::<LANES>().0.iter_mut();
        let rest = for_each_lanes(levels, levels.row(row), &tables, |values| {
            let Some(out) = outs.next() else { return };
            for (i, value) in values.into_iter().enumerate() {
                // SAFETY: `i` is below 4, so the vector ends within the 32 floats of `out`.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(8 * i), value) };
            }
        });
        let out = &mut out[levels.cols - levels.cols % levels.chunk_cells()..];
        out.iter_mut().enumerate().for_each(|(i, out)| *out = levels.of_rest(rest, i));
    }
}

/// Passes the values of every 32 cells of the chunks of `row` to `work`, and returns the rest.
#[target_feature(enable = "avx2,fma")]
fn for_each_lanes<'a, const PAGES: usize>(
    levels: &LevelRows,
    row: &'a [u8],
    tables: &Tables<PAGES>,
    mut work: impl FnMut([__m256; 4]),
) -> &'a [u8] {
    let (chunks, rest) = levels.split(row);
    let low = _mm256_set1_epi8(15);
    for chunk in chunks {
        const { assert!(CHUNK == size_of::<__m256i>()) };
        // SAFETY: a chunk is as long as a vector.
        let bytes = unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) };
        match levels.width {
            Width::Eight => work(look_up(tables, bytes)),
            Width::Four => {
                work(look_up(tables, _mm256_and_si256(bytes, low)));
                work(look_up(tables, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low)));
            }
        }
    }
    rest
}

/// The values of 32 symbols, in the order of their columns.
#[target_feature(enable = "avx2,fma")]
fn look_up<const PAGES: usize>(tables: &Tables<PAGES>, symbols: __m256i) -> [__m256; 4] {
    let mut bytes = [_mm256_setzero_si256(); 4];
    for (page, table) in tables.iter().enumerate() {
        // A shuffle gives 0 where the highest bit is set: added with saturation, 0x70 sets it for all symbols but the 16
        // of the page.
        let of_page = _mm256_xor_si256(symbols, _mm256_set1_epi8((page * PAGE) as i8));
        let of_page = if PAGES == 1 { symbols } else { _mm256_adds_epu8(of_page, _mm256_set1_epi8(0x70)) };
        for (bytes, table) in bytes.iter_mut().zip(table) {
            *bytes = _mm256_or_si256(*bytes, _mm256_shuffle_epi8(*table, of_page));
        }
    }
    let [b0, b1, b2, b3] = bytes;
    let halves = [
        (_mm256_unpacklo_epi8(b0, b1), _mm256_unpacklo_epi8(b2, b3)),
        (_mm256_unpackhi_epi8(b0, b1), _mm256_unpackhi_epi8(b2, b3)),
    ];
    let [(a01, a23), (b01, b23)] = halves;
    [
        _mm256_castsi256_ps(_mm256_unpacklo_epi16(a01, a23)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi16(a01, a23)),
        _mm256_castsi256_ps(_mm256_unpacklo_epi16(b01, b23)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi16(b01, b23)),
    ]
}

#[target_feature(enable = "avx2,fma")]
fn tables<const PAGES: usize>(levels: &LevelRows) -> Tables<PAGES> {
    std::array::from_fn(|page| {
        std::array::from_fn(|byte| {
            let table: [u8; CHUNK] = std::array::from_fn(|i| levels.values[page * PAGE + i % PAGE].to_le_bytes()[byte]);
            // SAFETY: the table is as long as a vector.
            unsafe { _mm256_loadu_si256(table.as_ptr().cast()) }
        })
    })
}

/// The sum of all lanes.
#[target_feature(enable = "avx2,fma")]
fn sum([a, b, c, d]: [__m256; 4]) -> f32 {
    let eight = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
