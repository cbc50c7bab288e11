//! An encoded matrix in memory: validated once, then decoded by rows or multiplied without being expanded.

use std::ops::Range;

use bytes::Bytes;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use super::any::AnyCodec;
use super::ints::take_varint;
use super::visitors::{Axpy, Dot, Expand, Inputs};
use super::{CodecId, DecodeError, Head, Visitor, Words};
use crate::progress::Silent;
use crate::tensor::{FloatData, FloatType, Matrix};

/// Samples that one walk multiplies by: more would push the inputs out of the second-level cache, fewer would decode
/// too often.
const SAMPLES_PER_WALK: usize = 256;

/// Most cells of a block that a product expands, in a buffer of the thread that multiplies by it: 1 MiB.
const MOST_EXPANDED_CELLS: usize = 1 << 18;

/// An encoded matrix that was checked from end to end when it was opened.
///
/// Products are sums in f32, whose order depends on the matrix and the size of the batch, never on the threads.
#[derive(Debug)]
pub struct CompressedMatrix {
    id: CodecId,
    head: Head,
    codec: AnyCodec,
    payload: Bytes,
    shared_bytes: usize,
    /// Cells that a walk visits.
    stored_cells: usize,
    /// Where each block starts in the payload, and where the last one ends.
    starts: Vec<usize>,
}

/// The parts of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadSizes {
    /// What all blocks share: the dictionary of a Huffman code.
    pub shared_bytes: usize,
    /// The lengths of the blocks.
    pub table_bytes: usize,
    /// Codes, values and positions.
    pub block_bytes: usize,
}

impl PayloadSizes {
    /// All of it.
    pub fn total_bytes(&self) -> usize {
        self.shared_bytes + self.table_bytes + self.block_bytes
    }
}

impl CompressedMatrix {
    /// Checks `payload` completely, every block walked, before it is believed. Parallel over blocks on the current
    /// rayon pool.
    ///
    /// Holds `payload` itself, 8 bytes a block (each but the last has a byte in the payload), and for Huffman codecs
    /// tables of at most 8 KiB and 2 bytes a symbol of the codebook. Takes time in proportion to the payload; of rANS, whose
    /// likely entries take next to no bits, in proportion to the stored cells. Of mix it checks lengths alone, since any
    /// bytes of the right length mean something.
    ///
    /// # Errors
    /// A [`DecodeError`]; of several, that of the first block.
    pub fn open(id: CodecId, head: Head, payload: Bytes) -> Result<Self, DecodeError> {
        head.check()?;
        let mut input = &payload[..];
        let codec = AnyCodec::read_shared(id, &head, &mut input)?;
        let shared_bytes = payload.len() - input.len();
        let starts = read_block_table(head.blocks(), payload.len(), &mut input)?;
        let mut matrix = Self { id, head, codec, payload, shared_bytes, stored_cells: 0, starts };
        matrix.stored_cells = (0..matrix.head.blocks())
            .into_par_iter()
            .map(|block| matrix.check_block(block))
            // The parts are joined in order, so of two errors the first is kept.
            .reduce(|| Ok(0), |a, b| Ok(a? + b?))?;
        Ok(matrix)
    }

    /// The same matrix in a codec that products run on: this one, or the smallest. Mix is decoded once and encoded again, which
    /// takes 2 bytes a cell while it lasts.
    pub fn into_serving(self) -> Self {
        if self.id.is_serving() {
            return self;
        }
        let matrix = self.decode();
        let rows_per_block = super::rows_per_block_for(&matrix);
        let smallest = super::encode_smallest(&matrix, CodecId::SERVING, rows_per_block, &Silent);
        let super::Smallest { codec, rows_per_block, payload } = smallest.expect("an index map holds every symbol");
        let head = Head { rows_per_block, ..self.head };
        Self::open(codec, head, payload.into()).expect("an encoder's bytes are valid")
    }

    /// Its bytes: shared part, block table, blocks.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }

    /// The codec that the payload was encoded with.
    pub fn codec(&self) -> CodecId {
        self.id
    }

    /// Shape, blocks and words.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// `out = self . x`: `x` is cols x `batch`, row-major (all samples of input 0 first); `out` is rows x `batch`,
    /// row-major, and is overwritten. Parallel over blocks, and over the samples of a large batch, on the current rayon
    /// pool.
    ///
    /// # Panics
    /// If `x` or `out` is not of that size.
    pub fn multiply(&self, x: &[f32], batch: usize, out: &mut [f32]) {
        self.multiply_rows(0..self.head.rows, x, batch, out);
    }

    /// The same for some rows only: `out` is rows.len() x `batch`. Walks whole blocks; for all groups of a convolution
    /// use [`CompressedMatrix::multiply_grouped`].
    ///
    /// # Panics
    /// If `x` or `out` is not of that size, or `rows` ends past the matrix.
    pub fn multiply_rows(&self, rows: Range<usize>, x: &[f32], batch: usize, out: &mut [f32]) {
        assert_eq!(x.len(), self.head.cols * batch, "x is cols x batch");
        self.product(rows, self.head.rows.max(1), x, batch, out);
    }

    /// One product per group of rows, all in one walk: what grouped and depthwise convolutions need. Rows are split
    /// into `groups` equal parts; `x` is (groups x cols) x `batch`, and part `g` of the rows reads part `g` of `x`. `out`
    /// is as in [`CompressedMatrix::multiply`].
    ///
    /// # Panics
    /// If `x` or `out` is not of that size, or `groups` does not divide the rows.
    pub fn multiply_grouped(&self, groups: usize, x: &[f32], batch: usize, out: &mut [f32]) {
        assert!(groups > 0 && self.head.rows.is_multiple_of(groups), "{groups} groups of {} rows", self.head.rows);
        assert_eq!(x.len(), groups * self.head.cols * batch, "x is (groups x cols) x batch");
        self.product(0..self.head.rows, (self.head.rows / groups).max(1), x, batch, out);
    }

    /// Decodes `rows` into `out`, rows.len() x cols, row-major, rounded to f32.
    ///
    /// # Panics
    /// If `out` is not of that size, or `rows` ends past the matrix.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let lookup = self.head.words.lookup();
        self.expand(rows, out, 0.0, |word| lookup.to_f32(word));
    }

    /// Decodes `rows` into symbols of the codebook, rows.len() x cols, row-major.
    ///
    /// # Panics
    /// If the matrix holds raw values, `out` is not of that size, or `rows` ends past the matrix.
    pub fn decode_symbols(&self, rows: Range<usize>, out: &mut [u16]) {
        let Words::Symbols(codebook) = &self.head.words else { panic!("raw values have no symbols") };
        self.expand(rows, out, codebook.zero().unwrap_or_default(), |word| word as u16);
    }

    /// Decodes the whole matrix, bit by bit as it was encoded. Allocates rows x cols cells, at most
    /// [`super::MAX_CELLS`].
    pub fn decode(&self) -> Matrix {
        let Head { rows, cols, words, .. } = &self.head;
        let (all, cells) = (0..*rows, self.head.cells());
        let matrix = match words {
            Words::Symbols(codebook) => {
                let mut indices = vec![0; cells];
                self.decode_symbols(all, &mut indices);
                Matrix::shared(*rows, *cols, codebook.clone(), indices)
            }
            Words::Values(FloatType::F64) => {
                let mut data = vec![0.0; cells];
                self.expand(all, &mut data, 0.0, f64::from_bits);
                Matrix::raw(*rows, *cols, FloatType::F64, FloatData::F64(data))
            }
            Words::Values(dtype) => {
                let mut data = vec![0.0; cells];
                self.decode_rows(all, &mut data);
                Matrix::raw(*rows, *cols, *dtype, FloatData::F32(data))
            }
        };
        matrix.expect("every cell was checked when the payload was opened")
    }

    /// Cells that the codec stores and products visit: the others are zero, or, of the codec delta, as in another row.
    pub fn stored_cells(&self) -> usize {
        self.stored_cells
    }

    /// Bytes of the payload: codes, dictionary, indices and block table; codebook and header apart.
    pub fn size_bytes(&self) -> usize {
        self.payload.len()
    }

    /// What those bytes are.
    pub fn sizes(&self) -> PayloadSizes {
        let first_block = self.starts[0];
        PayloadSizes {
            shared_bytes: self.shared_bytes,
            table_bytes: first_block - self.shared_bytes,
            block_bytes: self.payload.len() - first_block,
        }
    }

    /// Bytes this holds in memory, codebook apart (it may be shared).
    pub fn resident_bytes(&self) -> usize {
        self.payload.len() + self.codec.resident_bytes() + size_of_val(&self.starts[..]) + size_of::<Self>()
    }

    fn block(&self, block: usize) -> &[u8] {
        &self.payload[self.starts[block]..self.starts[block + 1]]
    }

    fn check_block(&self, block: usize) -> Result<usize, DecodeError> {
        self.codec
            .check_block(&self.head, self.block(block), self.head.block_rows(block))
            .map_err(|source| DecodeError::Block { block, offset: self.starts[block], source: Box::new(source) })
    }

    pub(super) fn visit<V: Visitor>(&self, block: usize, visitor: &mut V) {
        let rows = self.head.block_rows(block);
        let walked = self.codec.visit_block(&self.head, self.block(block), rows, visitor);
        debug_assert_eq!(walked, Ok(()), "the block was checked when the payload was opened");
    }

    /// Whether the codec has a faster way to multiply by a block than a walk; then it was taken.
    fn multiply_block(&self, block: usize, wanted: Range<usize>, inputs: Inputs, out: &mut [f32]) -> bool {
        let of_block = (self.block(block), self.head.block_rows(block));
        self.codec.multiply_block(&self.head, of_block, wanted, inputs, out)
    }

    fn expand<T, F>(&self, rows: Range<usize>, out: &mut [T], zero: T, value: F)
    where
        T: Copy + Send + Sync,
        F: Fn(u64) -> T + Copy + Sync,
    {
        let cols = self.head.cols;
        self.for_each_block(rows, cols, out, |block, rows, out| {
            out.fill(zero);
            self.visit(block, &mut Expand::new(rows, cols, value, out));
        });
    }

    /// The product of `rows`; `x` is as large as their groups need.
    fn product(&self, rows: Range<usize>, rows_per_group: usize, x: &[f32], batch: usize, out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * batch, "out is rows x batch");
        let inputs = Inputs { lookup: self.head.words.lookup(), x, batch, cols: self.head.cols, rows_per_group };
        if batch > SAMPLES_PER_WALK {
            self.product_of_tiles(rows, inputs, out);
        } else {
            self.product_of_tile(rows, inputs, out);
        }
    }

    /// A product with few samples.
    fn product_of_tile(&self, rows: Range<usize>, inputs: Inputs, out: &mut [f32]) {
        out.fill(0.0);
        self.for_each_block(rows, inputs.batch, out, |block, rows, out| match inputs.batch {
            0 => {}
            _ if self.is_faster_expanded(inputs) => self.product_of_expanded(block, rows, inputs, out),
            _ if self.multiply_block(block, rows.clone(), inputs, out) => {}
            1 => {
                let mut dot = Dot::new(inputs, rows, out);
                self.visit(block, &mut dot);
                dot.finish();
            }
            _ => self.visit(block, &mut Axpy::new(inputs, rows, out)),
        });
    }

    /// Whether a block had better be expanded for a product: a dense product takes so much less time for a cell than a
    /// sparse one that it may visit the zeros too.
    fn is_faster_expanded(&self, inputs: Inputs) -> bool {
        self.expands() && inputs.rows_per_group >= 4
    }

    /// Whether products of many samples expand a block of rows at a time.
    pub(crate) fn expands(&self) -> bool {
        let block_cells = self.head.rows_per_block.min(self.head.rows).saturating_mul(self.head.cols);
        block_cells <= MOST_EXPANDED_CELLS && 4 * self.stored_cells >= self.head.cells()
    }

    /// A product by a block that is expanded into a buffer of its own: at most [`MOST_EXPANDED_CELLS`] at a time.
    fn product_of_expanded(&self, block: usize, rows: Range<usize>, inputs: Inputs, out: &mut [f32]) {
        let Inputs { cols, batch, rows_per_group, .. } = inputs;
        let mut cells = vec![0.0; rows.len() * cols];
        let value = |word| inputs.lookup.to_f32(word);
        self.visit(block, &mut Expand::new(rows.clone(), cols, value, &mut cells));
        let mut row = rows.start;
        while row < rows.end {
            let end = rows.end.min((row / rows_per_group + 1) * rows_per_group);
            let part = row - rows.start..end - rows.start;
            let size = "slices are as long as their shape says";
            let weights = ArrayView2::from_shape((part.len(), cols), &cells[part.start * cols..part.end * cols]);
            let x = ArrayView2::from_shape((cols, batch), inputs.of_row(row));
            let out = ArrayViewMut2::from_shape((part.len(), batch), &mut out[part.start * batch..part.end * batch]);
            general_mat_mul(1.0, &weights.expect(size), &x.expect(size), 0.0, &mut out.expect(size));
            row = end;
        }
    }

    /// A product with many samples, a tile of them after the other: gathered, multiplied, and put in place.
    fn product_of_tiles(&self, rows: Range<usize>, inputs: Inputs, out: &mut [f32]) {
        let samples = inputs.batch;
        let tiles: Vec<Vec<f32>> = (0..samples.div_ceil(SAMPLES_PER_WALK))
            .into_par_iter()
            .map(|tile| {
                let start = tile * SAMPLES_PER_WALK;
                let batch = SAMPLES_PER_WALK.min(samples - start);
                let x: Vec<f32> =
                    inputs.x.chunks_exact(samples).flat_map(|input| &input[start..start + batch]).copied().collect();
                let mut out = vec![0.0; rows.len() * batch];
                self.product_of_tile(rows.clone(), Inputs { x: &x, batch, ..inputs }, &mut out);
                out
            })
            .collect();
        out.par_chunks_mut(samples).enumerate().for_each(|(row, out)| {
            for (out, tile) in out.chunks_mut(SAMPLES_PER_WALK).zip(&tiles) {
                out.copy_from_slice(&tile[row * out.len()..][..out.len()]);
            }
        });
    }

    /// Calls `work(block, rows, out)` for every block that holds some of `rows`, with those it holds and their part of
    /// `out`, `width` elements a row. In parallel.
    fn for_each_block<T: Send>(
        &self,
        rows: Range<usize>,
        width: usize,
        out: &mut [T],
        work: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
    ) {
        assert!(rows.start <= rows.end && rows.end <= self.head.rows, "{rows:?} of {} rows", self.head.rows);
        assert_eq!(out.len(), rows.len() * width, "out is rows x {width}");
        if rows.is_empty() || self.head.cols == 0 {
            return;
        }
        let per_block = self.head.rows_per_block;
        let mut rest = out;
        let mut parts = Vec::new();
        for block in rows.start / per_block..=(rows.end - 1) / per_block {
            let of_block = self.head.block_rows(block);
            let wanted = rows.start.max(of_block.start)..rows.end.min(of_block.end);
            let (part, after) = std::mem::take(&mut rest).split_at_mut(wanted.len() * width);
            parts.push((block, wanted, part));
            rest = after;
        }
        match parts.len() {
            1 => parts.into_iter().for_each(|(block, rows, out)| work(block, rows, out)),
            _ => parts.into_par_iter().for_each(|(block, rows, out)| work(block, rows, out)),
        }
    }
}

/// Takes the lengths of all of `blocks` but the last from the front of `input`, which ends where the payload ends, at
/// `end`. Returns where each block starts, and `end`.
fn read_block_table(blocks: usize, end: usize, input: &mut &[u8]) -> Result<Vec<usize>, DecodeError> {
    let Some(entries) = blocks.checked_sub(1) else {
        super::ints::expect_end(input)?;
        return Ok(vec![end]);
    };
    if entries > input.len() {
        return Err(DecodeError::UnexpectedEof { needed: entries, found: input.len() });
    }
    let mut starts = Vec::with_capacity(blocks + 1);
    let mut start = 0usize;
    for _ in 0..entries {
        starts.push(start);
        start = start.saturating_add(take_varint(input)? as usize);
    }
    starts.push(start);
    if start > input.len() {
        return Err(DecodeError::UnexpectedEof { needed: start, found: input.len() });
    }
    let first = end - input.len();
    starts.iter_mut().for_each(|start| *start += first);
    starts.push(end);
    Ok(starts)
}
