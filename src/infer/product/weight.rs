//! A compressed matrix as an operator multiplies by it, or looks up its rows.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::codec::{CodecId, CompressedMatrix, DecodedRows};
use crate::kernel::axpy::{Epilogue, Offsets, Planes, weighted_sum};
use crate::packed::PackedMatrix;

/// Terms that are decoded at a time for a batch: 1 MiB of them, about what a second-level cache holds.
const TERMS_PER_CHUNK: usize = 1 << 17;

/// A matrix in memory, shared by those that use it.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// As it is encoded in the artifact.
    Coded(Arc<CompressedMatrix>),
    Packed(Arc<PackedMatrix>),
}

impl Held {
    /// Rows and columns.
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Coded(matrix) => (matrix.head().rows, matrix.head().cols),
            Self::Packed(matrix) => (matrix.rows(), matrix.cols()),
        }
    }

    /// Bytes of memory; the codebook of a coded matrix apart, which it may share.
    pub(crate) fn own_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Coded(matrix) => matrix.resident_bytes(),
            Self::Packed(matrix) => matrix.resident_bytes(),
        };
        bytes as u64
    }

    /// Whether somebody else holds it too.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::Coded(matrix) => Arc::strong_count(matrix) > 1,
            Self::Packed(matrix) => Arc::strong_count(matrix) > 1,
        }
    }

    /// What tells it from others.
    pub(crate) fn address(&self) -> *const () {
        match self {
            Self::Coded(matrix) => Arc::as_ptr(matrix).cast(),
            Self::Packed(matrix) => Arc::as_ptr(matrix).cast(),
        }
    }
}

/// A compressed matrix, or its transpose, as an operator uses it.
#[derive(Clone)]
pub(crate) struct SharedWeight {
    held: Held,
    /// This use multiplies by the transpose: another use of the same tensor, the other way round, chose the layout.
    transposed: bool,
}

// tract prints operators in its errors: a shape will do.
impl fmt::Debug for SharedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.outputs(), self.inputs())
    }
}

impl PartialEq for SharedWeight {
    fn eq(&self, other: &Self) -> bool {
        self.held.address() == other.held.address() && self.transposed == other.transposed
    }
}

impl Eq for SharedWeight {}

impl SharedWeight {
    /// `None` for the transpose of a packed matrix: it is walked by rows.
    pub(crate) fn new(held: Held, transposed: bool) -> Option<Self> {
        (!transposed || matches!(held, Held::Coded(_))).then_some(Self { held, transposed })
    }

    /// Whether this use multiplies by the transpose of what is held.
    pub(crate) fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// What tells the held matrix from others.
    pub(crate) fn address(&self) -> *const () {
        self.held.address()
    }

    /// Output units of this use.
    pub(crate) fn outputs(&self) -> usize {
        let (rows, cols) = self.held.shape();
        if self.transposed { cols } else { rows }
    }

    /// Inputs of one output unit in this use.
    pub(crate) fn inputs(&self) -> usize {
        let (rows, cols) = self.held.shape();
        if self.transposed { rows } else { cols }
    }

    /// `out = W . x`, where `x` is inputs x `batch` and `out` outputs x `batch`, both row-major.
    pub(crate) fn multiply(&self, x: &[f32], batch: usize, out: &mut [f32]) {
        match &self.held {
            Held::Coded(matrix) if self.transposed => multiply_transposed(matrix, x, batch, out),
            Held::Coded(matrix) => matrix.multiply(x, batch, out),
            Held::Packed(matrix) => matrix.multiply(x, batch, out),
        }
    }

    /// One product per group of outputs: `x` is (groups x inputs) x `batch`; see [`CompressedMatrix::multiply_grouped`].
    pub(crate) fn multiply_grouped(&self, groups: usize, x: &[f32], batch: usize, out: &mut [f32]) {
        match &self.held {
            _ if groups == 1 => self.multiply(x, batch, out),
            Held::Coded(matrix) => matrix.multiply_grouped(groups, x, batch, out),
            Held::Packed(matrix) => matrix.multiply_grouped(groups, x, batch, out),
        }
    }

    /// Expands `rows`, which rise, into `out`, rows.len() x inputs.
    ///
    /// # Panics
    /// For the transpose, a matrix whose rows are differences, rows that do not rise, and an `out` of another size.
    pub(crate) fn expand_rows(&self, rows: &[u32], out: &mut [f32]) {
        assert!(!self.transposed, "columns are not looked up");
        match &self.held {
            Held::Coded(matrix) => _ = matrix.decode_listed_rows(rows, out),
            Held::Packed(matrix) => matrix.expand_rows(rows, out),
        }
    }

    /// Whether [`Self::for_each_rows`] is the way to multiply by many positions: not where a block of rows had better be
    /// expanded, nor where rows are copies or differences, which a product of the whole computes once.
    pub(crate) fn walks_rows(&self) -> bool {
        match &self.held {
            Held::Coded(matrix) => {
                let stores_cells = matrix.codec() != CodecId::Delta;
                !self.transposed && matrix.head().cells() > 0 && !matrix.expands() && stores_cells
            }
            Held::Packed(matrix) => matrix.is_sparse() && !matrix.has_copies() && !matrix.has_tree(),
        }
    }

    /// Cells that a product visits for each position.
    pub(crate) fn visited_cells(&self) -> usize {
        match &self.held {
            Held::Coded(matrix) => matrix.stored_cells(),
            Held::Packed(matrix) => matrix.visited_cells(),
        }
    }

    /// Calls `work` with all rows, consecutive ones at a time, each decoded once.
    pub(crate) fn for_each_rows(&self, mut work: impl FnMut(&Rows)) {
        match &self.held {
            Held::Coded(matrix) => {
                let mut block = 0;
                while let Some((rows, next)) = matrix.decoded_rows(block, TERMS_PER_CHUNK) {
                    work(&Rows::Decoded(rows));
                    block = next;
                }
            }
            Held::Packed(matrix) => work(&Rows::Packed(matrix)),
        }
    }
}

/// Codecs walk rows, so the transpose is a sum over stored rows: a block of them is decoded at a time, and the outputs are
/// shared out among the threads. Rows are added in their order, whatever the threads.
fn multiply_transposed(matrix: &CompressedMatrix, x: &[f32], batch: usize, out: &mut [f32]) {
    let head = matrix.head();
    out.fill(0.0);
    if batch == 0 || head.cols == 0 {
        return;
    }
    let step = head.rows_per_block.min(head.rows).max(1);
    let mut rows = vec![0.0; step * head.cols];
    for start in (0..head.rows).step_by(step) {
        let count = step.min(head.rows - start);
        let block = &mut rows[..count * head.cols];
        matrix.decode_rows(start..start + count, block);
        let block = &*block;
        out.par_chunks_mut(batch).with_min_len(64).enumerate().for_each(|(col, out)| {
            for (row, x) in x[start * batch..][..count * batch].chunks_exact(batch).enumerate() {
                let weight = block[row * head.cols + col];
                if weight != 0.0 {
                    out.iter_mut().zip(x).for_each(|(out, x)| *out += weight * x);
                }
            }
        });
    }
}

/// Rows that can be walked.
pub(crate) enum Rows<'a> {
    Decoded(DecodedRows),
    Packed(&'a PackedMatrix),
}

impl Rows<'_> {
    pub(crate) fn range(&self) -> Range<usize> {
        match self {
            Self::Decoded(rows) => rows.rows(),
            Self::Packed(matrix) => 0..matrix.rows(),
        }
    }

    /// The weighted sums of `row`; see [`weighted_sum`].
    pub(crate) fn sum<O: Offsets>(
        &self,
        row: usize,
        planes: Planes<'_, O>,
        first: usize,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        match self {
            Self::Decoded(rows) => {
                let terms = rows.terms(row).iter().map(|&(column, weight)| (column as usize, weight));
                weighted_sum(terms, planes, first, epilogue, out);
            }
            Self::Packed(matrix) => {
                let terms = matrix.terms(row).expect("only sparse rows are walked");
                weighted_sum(terms, planes, first, epilogue, out);
            }
        }
    }
}
