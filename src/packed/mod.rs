//! A matrix of at most 256 values in memory, made for products rather than for size.
//!
//! Two forms, whichever is smaller: [sparse](SparseRows), 16 bits a non-zero, or [dense](LevelRows), 4 or 8 bits a cell.
//! Both are exact. Rows that are copies of one another are held, and computed, once; a sparse row may be held as its
//! difference from another one.

mod build;
mod copies;
mod tree;

use std::cell::Cell;
use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use crate::kernel::axpy::{Epilogue, Planes, Strided, weighted_sum};
use crate::kernel::levels::LevelRows;
use crate::kernel::sparse::SparseRows;

use tree::Tree;

pub use build::PackError;

/// Products of a cell or an entry with a sample that are worth a task of their own: some tens of microseconds.
const PRODUCTS_PER_TASK: usize = 1 << 16;

/// Cells whose expansion is worth a task of its own.
const CELLS_PER_TASK: usize = 1 << 17;

/// Bytes of the inputs that a product walks over: half of a second-level cache.
const PANEL_BYTES: usize = 1 << 18;

/// Cells of a matrix of few levels that a product expands at a time: 256 KiB, in a buffer of the thread.
const EXPANDED_CELLS: usize = 1 << 16;

/// Most floats that a thread keeps between products: 4 MiB.
const MOST_KEPT_FLOATS: usize = 1 << 20;

/// What rows may take from other rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Nothing: every row is held. The only choice for the rows of several groups.
    Nothing,
    /// A row that is a copy of another one is held as that one.
    Copies,
    /// And where it pays, a row is held as another one and a sparse difference, along a tree at most 32 rows deep.
    Differences,
}

/// See the module. Products are sums in f32 whose order depends on the matrix, the size of the batch and the instructions
/// of the processor, never on the threads.
#[derive(Debug)]
pub struct PackedMatrix {
    rows: usize,
    cols: usize,
    held: Held,
    /// Which held row each row is; absent where each is its own.
    places: Option<Vec<u32>>,
    /// Which held rows are differences from which.
    tree: Option<Tree>,
}

/// The distinct rows, or their differences.
#[derive(Debug)]
enum Held {
    Sparse(SparseRows),
    Levels { rows: usize, levels: LevelRows },
}

impl PackedMatrix {
    /// Output units.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of one output unit.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether cells that are zero take no memory and no time.
    pub fn is_sparse(&self) -> bool {
        matches!(self.held, Held::Sparse(_))
    }

    /// Rows that are held and computed; the others are copies of them.
    pub fn held_rows(&self) -> usize {
        self.held.rows()
    }

    /// Whether rows are held through others, as copies or as differences.
    pub fn has_copies(&self) -> bool {
        self.places.is_some()
    }

    /// Whether rows are held as differences from one another.
    pub fn has_tree(&self) -> bool {
        self.tree.is_some()
    }

    /// Cells or entries that a product visits for each sample.
    pub fn visited_cells(&self) -> usize {
        self.held.visited(self.cols)
    }

    /// Bytes of memory.
    pub fn resident_bytes(&self) -> usize {
        let places = self.places.as_ref().map_or(0, |places| size_of_val(&places[..]));
        let tree = self.tree.as_ref().map_or(0, Tree::resident_bytes);
        size_of::<Self>() + self.held.resident_bytes() + places + tree
    }

    /// The columns and the values of the cells of `row` that are not zero, and perhaps some that are; `None` in the dense
    /// form, and where rows are held as differences.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn terms(&self, row: usize) -> Option<impl Iterator<Item = (usize, f32)> + Clone> {
        match &self.held {
            Held::Sparse(_) if self.tree.is_some() => None,
            Held::Sparse(rows) => Some(rows.terms(self.places.as_ref().map_or(row, |places| places[row] as usize))),
            Held::Levels { .. } => None,
        }
    }

    /// Writes the cells of `rows` to `out`, rows.len() x cols, row-major. Parallel over rows on the current rayon pool.
    ///
    /// # Panics
    /// If `out` is not of that size, there is no such row, or rows are held as differences.
    pub fn expand_rows(&self, rows: &[u32], out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * self.cols, "out is rows x cols");
        assert!(self.tree.is_none(), "rows that are differences cannot be read on their own");
        if self.cols == 0 {
            return;
        }
        let expand = |(&row, out): (&u32, &mut [f32])| {
            self.held.expand_row(self.places.as_ref().map_or(row, |places| places[row as usize]) as usize, out);
        };
        match out.len() > CELLS_PER_TASK {
            true => {
                let out = out.par_chunks_exact_mut(self.cols);
                rows.par_iter().zip(out).with_min_len(CELLS_PER_TASK.div_ceil(self.cols)).for_each(expand);
            }
            false => rows.iter().zip(out.chunks_exact_mut(self.cols)).for_each(expand),
        }
    }

    /// `out = self . x`: `x` is cols x `batch`, row-major (all samples of input 0 first); `out` is rows x `batch`,
    /// row-major, and is overwritten. Parallel over rows on the current rayon pool.
    ///
    /// # Panics
    /// If `x` or `out` is not of that size.
    pub fn multiply(&self, x: &[f32], batch: usize, out: &mut [f32]) {
        self.multiply_grouped(1, x, batch, out);
    }

    /// One product per group of rows: what grouped and depthwise convolutions need. Rows are split into `groups` equal
    /// parts; `x` is (groups x cols) x `batch`, and part `g` of the rows reads part `g` of `x`. `out` is as in
    /// [`PackedMatrix::multiply`].
    ///
    /// # Panics
    /// If `x` or `out` is not of that size, `groups` does not divide the rows, or there are several and the matrix was
    /// not packed with [`Reuse::Nothing`].
    pub fn multiply_grouped(&self, groups: usize, x: &[f32], batch: usize, out: &mut [f32]) {
        assert!(groups > 0 && self.rows.is_multiple_of(groups), "{groups} groups of {} rows", self.rows);
        assert!(groups == 1 || self.places.is_none(), "rows of several groups read different inputs");
        assert_eq!(x.len(), groups * self.cols * batch, "x is (groups x cols) x batch");
        assert_eq!(out.len(), self.rows * batch, "out is rows x batch");
        if out.is_empty() {
            return;
        }
        let inputs = Inputs { x, batch, cols: self.cols, rows_per_group: self.rows / groups };
        let Some(places) = &self.places else { return self.held.product(inputs, out) };
        with_scratch(self.held.rows() * batch, |held| {
            self.held.product(inputs, held);
            if let Some(tree) = &self.tree {
                tree.add_parents(batch, held);
            }
            spread(held, batch, places, out);
        });
    }
}

/// Lends `len` floats of any value, which the thread keeps for the next time if they are not too many: fresh memory would
/// take longer to map than a small product takes.
fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    thread_local!(static KEPT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) });
    // While it is lent, a task that the thread takes over while it waits finds none, and allocates its own.
    let mut scratch = KEPT.take();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = work(&mut scratch[..len]);
    if scratch.len() <= MOST_KEPT_FLOATS {
        KEPT.set(scratch);
    }
    result
}

/// Copies the output of each held row to its rows.
fn spread(held: &[f32], batch: usize, places: &[u32], out: &mut [f32]) {
    let copy = |(out, &place): (&mut [f32], &u32)| out.copy_from_slice(&held[place as usize * batch..][..batch]);
    match batch {
        1 => out.iter_mut().zip(places).for_each(|(out, &place)| *out = held[place as usize]),
        _ if out.len() <= PRODUCTS_PER_TASK => out.chunks_exact_mut(batch).zip(places).for_each(copy),
        _ => {
            let fewest = PRODUCTS_PER_TASK.div_ceil(batch);
            out.par_chunks_exact_mut(batch).zip(places).with_min_len(fewest).for_each(copy);
        }
    }
}

/// The right-hand side of a product.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    x: &'a [f32],
    batch: usize,
    cols: usize,
    rows_per_group: usize,
}

impl<'a> Inputs<'a> {
    /// `rows` cut where another group begins, each with its inputs, cols x batch.
    fn by_group(self, rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, &'a [f32])> {
        let len = self.cols * self.batch;
        let groups = rows.start / self.rows_per_group..rows.end.div_ceil(self.rows_per_group);
        groups.map(move |group| {
            let of_group = group * self.rows_per_group..(group + 1) * self.rows_per_group;
            (rows.start.max(of_group.start)..rows.end.min(of_group.end), &self.x[group * len..][..len])
        })
    }
}

impl Held {
    fn rows(&self) -> usize {
        match self {
            Self::Sparse(rows) => rows.rows(),
            Self::Levels { rows, .. } => *rows,
        }
    }

    fn resident_bytes(&self) -> usize {
        match self {
            Self::Sparse(rows) => rows.resident_bytes(),
            Self::Levels { levels, .. } => levels.resident_bytes(),
        }
    }

    /// Writes the cells of held row `row` to `out`, which has as many.
    fn expand_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Sparse(rows) => {
                out.fill(0.0);
                rows.terms(row).for_each(|(col, value)| out[col] = value);
            }
            Self::Levels { levels, .. } => levels.expand(row..row + 1, out),
        }
    }

    /// Cells or entries that a product visits for each sample.
    fn visited(&self, cols: usize) -> usize {
        match self {
            Self::Sparse(rows) => rows.count(0..rows.rows()),
            Self::Levels { rows, .. } => rows * cols,
        }
    }

    /// The product of all held rows, cut in tasks of equal numbers of rows.
    fn product(&self, inputs: Inputs, out: &mut [f32]) {
        let (rows, batch) = (self.rows(), inputs.batch);
        let tasks = self.visited(inputs.cols).saturating_mul(batch).div_ceil(PRODUCTS_PER_TASK);
        let step = rows.div_ceil(tasks.clamp(1, 4 * rayon::current_num_threads()));
        let work = |(task, out): (usize, &mut [f32])| {
            let first = task * step;
            for (rows, x) in inputs.by_group(first..first + out.len() / batch) {
                let out = &mut out[(rows.start - first) * batch..(rows.end - first) * batch];
                self.product_of_rows(rows, x, batch, out);
            }
        };
        match step == rows {
            true => work((0, out)),
            false => out.par_chunks_mut(step * batch).enumerate().for_each(work),
        }
    }

    fn product_of_rows(&self, rows: Range<usize>, x: &[f32], batch: usize, out: &mut [f32]) {
        match self {
            Self::Sparse(held) if batch == 1 => held.dot(rows, x, out),
            Self::Sparse(held) => sparse_product(held, rows, x, batch, out),
            Self::Levels { levels, .. } if batch == 1 => levels.dot(rows, x, out),
            Self::Levels { levels, .. } => expanded_product(levels, rows, x, batch, out),
        }
    }
}

/// A product with several samples: each row's entries are walked once for a panel of samples.
fn sparse_product(held: &SparseRows, rows: Range<usize>, x: &[f32], batch: usize, out: &mut [f32]) {
    let planes = Planes::new(x, Strided { columns: held.cols(), stride: batch }, batch);
    let panel = (PANEL_BYTES / (4 * held.cols().max(1))).clamp(32, 96).min(batch);
    for first in (0..batch).step_by(panel) {
        let width = panel.min(batch - first);
        for (row, out) in rows.clone().zip(out.chunks_exact_mut(batch)) {
            weighted_sum(held.terms(row), planes, first, Epilogue::NONE, &mut out[first..first + width]);
        }
    }
}

/// A product with several samples: some rows are expanded, then multiplied as a dense matrix.
fn expanded_product(levels: &LevelRows, rows: Range<usize>, x: &[f32], batch: usize, out: &mut [f32]) {
    let cols = x.len() / batch;
    let step = (EXPANDED_CELLS / cols.max(1)).clamp(1, rows.len().max(1));
    let mut cells = vec![0.0; step * cols];
    let size = "the slices were cut to this shape";
    for (start, out) in rows.clone().step_by(step).zip(out.chunks_mut(step * batch)) {
        let count = out.len() / batch;
        let cells = &mut cells[..count * cols];
        levels.expand(start..start + count, cells);
        let weights = ArrayView2::from_shape((count, cols), &*cells).expect(size);
        let x = ArrayView2::from_shape((cols, batch), x).expect(size);
        let mut out = ArrayViewMut2::from_shape((count, batch), out).expect(size);
        general_mat_mul(1.0, &weights, &x, 0.0, &mut out);
    }
}
