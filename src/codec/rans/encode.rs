//! What the blocks of a matrix share when they are written, and how one is.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::super::bits::BitWriter;
use super::super::ints::push_varint;
use super::super::{CodecId, EncodeError, Head, symbols};
use super::model::{MAX_CLASSES, Model};
use super::stream::{Encoder, Entry, MAX_LANES};
use super::{ALL_CELLS, COPIES, LIVE, gap, grid, low_bits};
use crate::tensor::Matrix;

/// Lanes and offsets may take this fraction of a block.
const FRAME_FRACTION: f64 = 0.01;

/// Bytes of a block's length in the table and of its number of entries, about.
const OFFSET_BYTES: f64 = 4.0;

/// What decodes faster may be larger by this part.
const FASTER_FOR: f64 = 0.01;

/// What all blocks of a matrix share.
pub(in super::super) struct Plan {
    lanes: usize,
    /// None where all cells are entries.
    gaps: Option<Model>,
    symbols: Model,
    grid: Grid,
}

/// Which cells are coded.
struct Grid {
    cols: usize,
    /// Bits of a symbol that are not in its class.
    low_bits: u32,
    /// The symbol that is no entry.
    zero: Option<u16>,
    /// Of each column whether it is live; none if all are.
    live: Option<Vec<bool>>,
    /// Of each row of the matrix, its number among the rows of its block that are no copies; none if no row is one.
    numbers: Option<Vec<u32>>,
}

/// A matrix of symbols, seen by blocks.
struct Source<'a> {
    indices: &'a [u16],
    levels: usize,
    zero: Option<u16>,
    head: &'a Head,
}

/// How often each class occurs, and what follows them.
struct Counts {
    gaps: Vec<u64>,
    symbols: Vec<u64>,
    extra_bits: u64,
    entries: u64,
    /// Cells of the grid.
    cells: u64,
}

impl Plan {
    pub(super) fn of(matrix: &Matrix, head: &Head) -> Result<Self, EncodeError> {
        Self::with(matrix, head, true)
    }

    /// The same, without rows that are copies.
    pub(in super::super) fn without_copies(matrix: &Matrix, head: &Head) -> Result<Self, EncodeError> {
        Self::with(matrix, head, false)
    }

    fn with(matrix: &Matrix, head: &Head, may_copy: bool) -> Result<Self, EncodeError> {
        let (codebook, indices) = symbols(matrix).ok_or(EncodeError::NeedsCodebook { codec: CodecId::Rans })?;
        let source = Source { indices, levels: codebook.len(), zero: codebook.zero(), head };
        let mut grid = source.grid(may_copy);
        let counts = source.count(&grid);
        let (gaps, symbols) = (Model::fit(&counts.gaps), Model::fit(&counts.symbols));
        let bits_of_gaps = gaps.bits(&counts.gaps) + symbols.bits(&counts.symbols) + counts.extra_bits as f64;
        let low_bits = f64::from(grid.low_bits);
        let sparse_bits = bits_of_gaps + low_bits * counts.entries as f64;
        let of_all = counts.of_all_cells(source.zero, grid.low_bits);
        let all = Model::fit(&of_all);
        let dense_bits = all.bits(&of_all) + low_bits * counts.cells as f64;
        // A cell takes one class, an entry two: the fewer there are to decode, the better.
        let worse = if 2 * counts.entries < counts.cells { 1.0 + FASTER_FOR } else { 1.0 - FASTER_FOR };
        let is_dense = source.zero.is_none() || dense_bits * worse <= sparse_bits;
        let lanes = lanes(sparse_bits.min(dense_bits) / 8.0 / head.blocks().max(1) as f64);
        if is_dense {
            grid.zero = None;
            return Ok(Self { lanes, gaps: None, symbols: all, grid });
        }
        Ok(Self { lanes, gaps: Some(gaps), symbols, grid })
    }

    pub(in super::super) fn write_shared(&self, out: &mut Vec<u8>) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.gaps.is_none(), ALL_CELLS)
            | flag(self.grid.live.is_some(), LIVE)
            | flag(self.grid.numbers.is_some(), COPIES);
        out.push(self.lanes.ilog2() as u8 | flags);
        if let Some(live) = &self.grid.live {
            grid::write_live(live, out);
        }
        let mut bits = BitWriter::default();
        self.gaps.iter().chain([&self.symbols]).for_each(|model| model.write(&mut bits));
        out.extend(bits.into_bytes());
    }

    pub(in super::super) fn write_block(&self, matrix: &Matrix, rows: Range<usize>) -> Vec<u8> {
        let (_, indices) = symbols(matrix).expect("plan() refused raw values");
        let (mut entries, mut tail) = (Vec::new(), BitWriter::default());
        let low_bits = self.grid.low_bits;
        self.grid.for_each_entry(indices, rows.clone(), |gap, symbol| {
            entries.push(Entry { gap: gap::class(gap), symbol: (symbol >> low_bits) as u8 });
            gap::push_extra(gap, &mut tail);
            tail.push(u32::from(symbol) & ((1 << low_bits) - 1), low_bits);
        });
        let mut out = Vec::new();
        if let Some(numbers) = &self.grid.numbers {
            grid::write_copies(&numbers[rows], &mut out);
        }
        let gaps = self.gaps.as_ref().map(Model::intervals);
        if gaps.is_some() {
            push_varint(&mut out, entries.len() as u64);
        }
        out.extend(Encoder::encode(self.lanes, gaps.as_deref(), &self.symbols.intervals(), &entries));
        out.extend(tail.into_bytes().iter().rev());
        out
    }
}

impl Grid {
    /// Calls `entry(gap, symbol)` for every entry of a block.
    #[inline]
    fn for_each_entry(&self, indices: &[u16], rows: Range<usize>, mut entry: impl FnMut(u32, u16)) {
        // Cells of the grid since the last entry.
        let mut gap = 0;
        let mut known = 0;
        let ranks = self.live.as_ref().map(|live| ranks(live));
        let live = self.live.as_ref().map_or(self.cols, |live| live.iter().filter(|&&live| live).count());
        for row in rows {
            if let Some(numbers) = &self.numbers {
                if numbers[row] < known {
                    continue;
                }
                known += 1;
            }
            let cells = &indices[row * self.cols..][..self.cols];
            let mut next = 0;
            for_each_other(cells, self.zero, |col, symbol| {
                let Some(rank) = ranks.as_ref().map_or(Some(col as u32), |ranks| ranks[col]) else { return };
                entry(gap + (rank - next), symbol);
                (gap, next) = (0, rank + 1);
            });
            gap += live as u32 - next;
        }
    }
}

impl Source<'_> {
    /// Chooses columns and rows.
    fn grid(&self, may_copy: bool) -> Grid {
        let Head { rows, cols, .. } = *self.head;
        let low_bits = low_bits(self.levels);
        let none = Grid { cols, low_bits, zero: self.zero, live: None, numbers: None };
        let live: Vec<AtomicBool> = (0..cols).map(|_| AtomicBool::new(false)).collect();
        let stored = self.count_and_mark(&live);
        let bits = self.bits_of_entry(&stored);
        let live: Vec<bool> = live.into_iter().map(AtomicBool::into_inner).collect();
        let alive = live.iter().filter(|&&live| live).count();
        let entries: u64 = stored.iter().sum();
        let saved = entries as f64 * libm::log2(cols as f64 / alive.max(1) as f64);
        let live = (self.zero.is_some() && saved > cols as f64).then_some(live);
        // Where a code of one symbol codes all cells, copies would not make it smaller.
        let copies: Vec<BlockCopies> = match may_copy && bits > 0.0 && rows > 0 {
            true => {
                (0..self.head.blocks()).into_par_iter().map(|block| self.copies(self.head.block_rows(block))).collect()
            }
            false => Vec::new(),
        };
        let copied: u64 = copies.iter().map(|block| block.entries).sum();
        let cost: u64 = copies.iter().map(|block| block.bits).sum();
        let numbers =
            (copied as f64 * bits > cost as f64).then(|| copies.into_iter().flat_map(|block| block.numbers).collect());
        Grid { live, numbers, ..none }
    }

    /// How often each symbol but zero occurs. Marks the columns that hold one.
    fn count_and_mark(&self, live: &[AtomicBool]) -> Vec<u64> {
        let cols = self.head.cols.max(1);
        let rows_at_a_time = (1usize << 20).div_ceil(cols);
        let count = |cells: &[u16]| {
            let mut counts = vec![0u64; self.levels];
            for row in cells.chunks(cols) {
                for_each_other(row, self.zero, |col, symbol| {
                    counts[usize::from(symbol)] += 1;
                    if self.zero.is_some() && !live[col].load(Ordering::Relaxed) {
                        live[col].store(true, Ordering::Relaxed);
                    }
                });
            }
            counts
        };
        self.indices.par_chunks(rows_at_a_time * cols).map(count).reduce(|| vec![0; self.levels], added)
    }

    /// Bits that an entry takes, zeros included, if no cell tells of another. 0 where one symbol fills the matrix.
    fn bits_of_entry(&self, stored: &[u64]) -> f64 {
        let (entries, cells) = (stored.iter().sum::<u64>(), self.head.cells() as u64);
        let bits = |&count: &u64| count as f64 * libm::log2(cells as f64 / count as f64);
        let zeros = cells - entries;
        let all: f64 = stored.iter().chain([&zeros]).filter(|count| **count > 0).map(bits).sum();
        all / entries.max(1) as f64
    }

    /// Finds the rows of a block that equal one before, other than rows of zeros.
    fn copies(&self, rows: Range<usize>) -> BlockCopies {
        let cols = self.head.cols;
        let cells = |row: usize| &self.indices[row * cols..][..cols];
        // The first row of each hash, and its number.
        let mut first: HashMap<u64, (usize, u32)> = HashMap::new();
        let mut copies =
            BlockCopies { numbers: Vec::with_capacity(rows.len()), entries: 0, bits: 8 + rows.len() as u64 };
        let mut known = 0;
        for row in rows {
            let (of, number) = *first.entry(hash(cells(row))).or_insert((row, known));
            let is_equal = of < row && cells(of) == cells(row);
            let entries = || cells(row).iter().filter(|&&symbol| Some(symbol) != self.zero).count();
            if let Some(entries) = is_equal.then(entries).filter(|&entries| entries > 0) {
                copies.numbers.push(number);
                copies.entries += entries as u64;
                copies.bits += u64::from(u32::BITS - known.leading_zeros());
            } else {
                copies.numbers.push(known);
                known += 1;
            }
        }
        copies
    }

    fn count(&self, grid: &Grid) -> Counts {
        let none = || Counts {
            gaps: vec![0; gap::CLASSES],
            symbols: vec![0; MAX_CLASSES],
            extra_bits: 0,
            entries: 0,
            cells: 0,
        };
        let alive = grid.live.as_ref().map_or(grid.cols, |live| live.iter().filter(|&&live| live).count());
        let count = |block: usize| {
            let rows = self.head.block_rows(block);
            let mut counts = none();
            grid.for_each_entry(self.indices, rows.clone(), |gap, symbol| {
                let class = gap::class(gap);
                counts.gaps[usize::from(class)] += 1;
                counts.extra_bits += u64::from(gap::extra_bits(class));
                counts.symbols[usize::from(symbol >> grid.low_bits)] += 1;
                counts.entries += 1;
            });
            let distinct =
                grid.numbers.as_ref().map_or(rows.len(), |n| n[rows].iter().max().map_or(0, |&n| n as usize + 1));
            counts.cells = (distinct * alive) as u64;
            counts
        };
        let add = |a: Counts, b: Counts| Counts {
            gaps: added(a.gaps, b.gaps),
            symbols: added(a.symbols, b.symbols),
            extra_bits: a.extra_bits + b.extra_bits,
            entries: a.entries + b.entries,
            cells: a.cells + b.cells,
        };
        (0..self.head.blocks()).into_par_iter().map(count).reduce(none, add)
    }
}

impl Counts {
    /// How often each class of symbols occurs if all cells are coded.
    fn of_all_cells(&self, zero: Option<u16>, low_bits: u32) -> Vec<u64> {
        let mut counts = self.symbols.clone();
        if let Some(zero) = zero {
            counts[usize::from(zero >> low_bits)] += self.cells - self.entries;
        }
        counts
    }
}

/// The rows of a block that are copies.
struct BlockCopies {
    /// As [`Grid::numbers`], of the rows of the block.
    numbers: Vec<u32>,
    /// Entries that are saved.
    entries: u64,
    /// Bits that saying so takes.
    bits: u64,
}

/// The lanes of a block of about `bytes`: as many as its frame allows.
fn lanes(bytes: f64) -> usize {
    let most = (bytes * FRAME_FRACTION - OFFSET_BYTES) / 4.0;
    let lanes = [32, 16, 8, 4, 2].into_iter().find(|&lanes| lanes as f64 <= most).unwrap_or(1);
    lanes.min(MAX_LANES)
}

/// Of each live column its number among them.
fn ranks(live: &[bool]) -> Vec<Option<u32>> {
    let mut rank = 0;
    let of_column = |&live: &bool| {
        rank += u32::from(live);
        live.then(|| rank - 1)
    };
    live.iter().map(of_column).collect()
}

/// Calls `entry(col, symbol)` for every symbol of a row other than `zero`, or for all.
#[inline]
fn for_each_other(row: &[u16], zero: Option<u16>, mut entry: impl FnMut(usize, u16)) {
    let Some(zero) = zero else {
        return row.iter().enumerate().for_each(|(col, &symbol)| entry(col, symbol));
    };
    let (fours, rest) = row.as_chunks::<4>();
    for (four, symbols) in fours.iter().enumerate() {
        if *symbols != [zero; 4] {
            for (i, &symbol) in symbols.iter().enumerate() {
                if symbol != zero {
                    entry(4 * four + i, symbol);
                }
            }
        }
    }
    for (i, &symbol) in rest.iter().enumerate() {
        if symbol != zero {
            entry(4 * fours.len() + i, symbol);
        }
    }
}

/// A hash of `symbols`; equal hashes are followed by a comparison.
fn hash(symbols: &[u16]) -> u64 {
    // The multiplier of FxHash.
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (fours, rest) = symbols.as_chunks::<4>();
    let word = |&[a, b, c, d]: &[u16; 4]| u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48;
    let hash = fours.iter().map(word).fold(0, mix);
    rest.iter().map(|&symbol| u64::from(symbol)).fold(hash, mix)
}

fn added(mut a: Vec<u64>, b: Vec<u64>) -> Vec<u64> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}
