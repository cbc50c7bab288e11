//! A compressed matrix as an operator multiplies by it.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;

use crate::codec::CompressedMatrix;

/// A compressed matrix, or its transpose, that operators share.
#[derive(Clone)]
pub(crate) struct SharedWeight {
    matrix: Arc<CompressedMatrix>,
    /// This use multiplies by the transpose: another use of the same tensor, the other way round, chose the layout.
    transposed: bool,
}

// tract prints operators in its errors: a shape will do.
impl fmt::Debug for SharedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} {:?}", self.outputs(), self.inputs(), self.matrix.codec())
    }
}

impl PartialEq for SharedWeight {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.matrix, &other.matrix) && self.transposed == other.transposed
    }
}

impl SharedWeight {
    pub(crate) fn new(matrix: Arc<CompressedMatrix>, transposed: bool) -> Self {
        Self { matrix, transposed }
    }

    /// Output units of this use.
    pub(crate) fn outputs(&self) -> usize {
        let head = self.matrix.head();
        if self.transposed { head.cols } else { head.rows }
    }

    /// Inputs of one output unit in this use.
    pub(crate) fn inputs(&self) -> usize {
        let head = self.matrix.head();
        if self.transposed { head.rows } else { head.cols }
    }

    /// `out = W . x`, where `x` is inputs x `batch` and `out` outputs x `batch`, both row-major.
    pub(crate) fn multiply(&self, x: &[f32], batch: usize, out: &mut [f32]) {
        if self.transposed {
            self.multiply_transposed(x, batch, out);
        } else {
            self.matrix.multiply(x, batch, out);
        }
    }

    /// One product per group of outputs: `x` is (groups x inputs) x `batch`; see [`CompressedMatrix::multiply_grouped`].
    pub(crate) fn multiply_grouped(&self, groups: usize, x: &[f32], batch: usize, out: &mut [f32]) {
        if groups == 1 {
            self.multiply(x, batch, out);
        } else {
            self.matrix.multiply_grouped(groups, x, batch, out);
        }
    }

    /// Codecs walk rows, so the transpose is a sum over stored rows: a block of them is decoded at a time, and the
    /// outputs are shared out among the threads. Rows are added in their order, whatever the threads.
    fn multiply_transposed(&self, x: &[f32], batch: usize, out: &mut [f32]) {
        let head = self.matrix.head();
        out.fill(0.0);
        if batch == 0 || head.cols == 0 {
            return;
        }
        let step = head.rows_per_block.min(head.rows).max(1);
        let mut rows = vec![0.0; step * head.cols];
        for start in (0..head.rows).step_by(step) {
            let count = step.min(head.rows - start);
            let block = &mut rows[..count * head.cols];
            self.matrix.decode_rows(start..start + count, block);
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
}
