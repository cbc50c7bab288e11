//! Products on packed matrices against a dense product in f64.
//!
//! Tolerance: `(cols + 2) * 2^-24 * sum(|w| |x|)`, the bound on the error of a sum of `cols` products in f32, plus the
//! rounding of the weights themselves.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use weightpress::codec::CodecId;
use weightpress::packed::{PackError, PackedMatrix, Reuse};
use weightpress::tensor::{Codebook, FloatType, Matrix, Values};

use crate::layer;
use crate::matrices::{Noise, codebook, opened, pruned, raw, shared};

const REUSES: [Reuse; 3] = [Reuse::Nothing, Reuse::Copies, Reuse::Differences];

/// Checks `out`, rows x batch, against `matrix . x`.
fn assert_is_product(matrix: &Matrix, x: &[f32], batch: usize, out: &[f32]) {
    let cols = matrix.cols();
    for row in 0..matrix.rows() {
        for sample in 0..batch {
            let terms = (0..cols).map(|col| matrix.value(row * cols + col) * f64::from(x[col * batch + sample]));
            let (sum, magnitude) = terms.fold((0.0, 0.0), |(sum, magnitude), t| (sum + t, magnitude + t.abs()));
            let error = (f64::from(out[row * batch + sample]) - sum).abs();
            let tolerance = (cols + 2) as f64 * f64::exp2(-24.0) * magnitude + f64::from(f32::MIN_POSITIVE);
            assert!(error <= tolerance, "row {row}, sample {sample}: off by {error}, {tolerance} allowed");
        }
    }
}

fn product(packed: &PackedMatrix, x: &[f32], batch: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; packed.rows() * batch];
    packed.multiply(x, batch, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Any shape; gaps of more than 255 columns; every number of levels that has a path of its own; some rows copied.
fn any_matrix() -> impl Strategy<Value = Matrix> {
    let shape = prop_oneof![
        8 => (1..40usize, 1..150usize),
        1 => (1..4usize, 250..1200usize),
        1 => (250..300usize, 1..4usize),
        1 => (Just(0usize), 1..4usize),
        1 => (1..4usize, Just(0usize)),
    ];
    let levels = prop::sample::select(vec![1usize, 2, 3, 16, 17, 32, 33, 64, 65, 255, 256]);
    let sparsity = prop_oneof![0.0..=1.0, 0.98..=1.0];
    (shape, levels, any::<bool>(), sparsity, any::<u64>(), 1..5usize).prop_map(
        |((rows, cols), levels, with_zero, sparsity, seed, kinds)| {
            let matrix = pruned(rows, cols, &codebook(levels, with_zero), sparsity, seed);
            let Values::Shared { codebook, indices } = matrix.values() else { unreachable!() };
            let kinds = if kinds == 4 { rows.max(1) } else { kinds };
            shared(rows, cols, codebook, |i| indices[i / cols % kinds * cols + i % cols])
        },
    )
}

/// Rows that differ from one of few kinds in a few cells.
fn any_similar() -> impl Strategy<Value = Matrix> {
    let levels = prop::sample::select(vec![2usize, 3, 10, 40, 255, 256]);
    (2..120usize, 30..700usize, levels, 0.0..0.97, any::<u64>(), 1..6usize, 0..9u64).prop_map(
        |(rows, cols, levels, sparsity, seed, kinds, changes)| {
            let values = codebook(levels, true);
            let matrix = pruned(rows, cols, &values, sparsity, seed);
            let Values::Shared { indices, .. } = matrix.values() else { unreachable!() };
            let mut noise = Noise(seed ^ 1);
            let mut symbols: Vec<u16> = (0..rows * cols).map(|i| indices[i / cols % kinds * cols + i % cols]).collect();
            for row in symbols.chunks_exact_mut(cols) {
                for _ in 0..changes {
                    row[noise.next() as usize % cols] = (noise.next() % levels as u64) as u16;
                }
            }
            shared(rows, cols, &values, |i| symbols[i])
        },
    )
}

/// The bound on the rounding errors of outputs along a tree at most 32 rows deep.
fn assert_is_near(matrix: &Matrix, x: &[f32], batch: usize, out: &[f32]) {
    let cols = matrix.cols();
    for sample in 0..batch {
        let (mut sums, mut most, mut magnitude) = (vec![], 0f64, 0f64);
        for row in 0..matrix.rows() {
            let terms = (0..cols).map(|col| matrix.value(row * cols + col) * f64::from(x[col * batch + sample]));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            (most, magnitude) = (most.max(f64::abs(sum)), magnitude.max(size));
            sums.push(sum);
        }
        let bound = f64::exp2(-24.0) * (32.0 * most + 2.0 * 33.0 * (cols + 2) as f64 * magnitude);
        for (row, sum) in sums.iter().enumerate() {
            let error = (f64::from(out[row * batch + sample]) - sum).abs();
            assert!(error <= bound, "row {row}, sample {sample}: off by {error}, {bound} allowed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_along_a_tree_are_those_of_the_dense_matrix(
        matrix in any_similar(), batch in prop::sample::select(vec![1usize, 2, 7, 32]), rows_per_block in 1..50usize,
    ) {
        let x = Noise(7).vector(matrix.cols() * batch);
        let packed = PackedMatrix::from_matrix(&matrix, Reuse::Differences).unwrap();
        let out = product(&packed, &x, batch);
        assert_is_near(&matrix, &x, batch, &out);
        let compressed = opened(&matrix, CodecId::Csc, rows_per_block);
        let packed = PackedMatrix::from_compressed(&compressed, Reuse::Differences).unwrap();
        prop_assert_eq!(bits(&out), bits(&product(&packed, &x, batch)));
    }

    #[test]
    fn products_are_those_of_the_dense_matrix(
        matrix in any_matrix(),
        batch in prop::sample::select(vec![0usize, 1, 2, 7, 32, 130]),
        rows_per_block in 1..50usize,
    ) {
        let x = Noise(7).vector(matrix.cols() * batch);
        let compressed = opened(&matrix, CodecId::Ham, rows_per_block);
        for reuse in REUSES {
            let packed = PackedMatrix::from_matrix(&matrix, reuse).unwrap();
            let out = product(&packed, &x, batch);
            match packed.has_tree() {
                true => assert_is_near(&matrix, &x, batch, &out),
                false => assert_is_product(&matrix, &x, batch, &out),
            }
            let packed = PackedMatrix::from_compressed(&compressed, reuse).unwrap();
            prop_assert_eq!(bits(&out), bits(&product(&packed, &x, batch)));
        }
    }

    #[test]
    fn groups_are_multiplied_as_matrices_of_their_own(
        seed in any::<u64>(), groups in 1..6usize, rows in 1..6usize, cols in 1..40usize, sparsity in 0.0..1.0,
    ) {
        let values = codebook(5, true);
        let matrix = pruned(groups * rows, cols, &values, sparsity, seed);
        let Values::Shared { indices, .. } = matrix.values() else { unreachable!() };
        let packed = PackedMatrix::from_matrix(&matrix, Reuse::Nothing).unwrap();
        for batch in [1, 4] {
            let x = Noise(9).vector(groups * cols * batch);
            let mut out = vec![f32::NAN; groups * rows * batch];
            packed.multiply_grouped(groups, &x, batch, &mut out);
            for group in 0..groups {
                let of_group = shared(rows, cols, &values, |i| indices[group * rows * cols + i]);
                let x = &x[group * cols * batch..][..cols * batch];
                assert_is_product(&of_group, x, batch, &out[group * rows * batch..][..rows * batch]);
            }
        }
    }
}

#[test]
fn a_row_is_the_same_bit_by_bit_on_one_thread_and_on_four() {
    for (sparsity, batch) in [(0.9, 1), (0.9, 32), (0.9, 600), (0.1, 1), (0.1, 32), (0.1, 600)] {
        let matrix = pruned(901, 467, &codebook(33, true), sparsity, 3);
        let x = Noise(10).vector(467 * batch);
        let packed = PackedMatrix::from_matrix(&matrix, Reuse::Differences).unwrap();
        let [one, four] = [1, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| product(&packed, &x, batch))
        });
        assert_eq!(bits(&one), bits(&four), "sparsity {sparsity}, batch {batch}");
    }
}

#[test]
fn what_a_byte_cannot_tell_apart_is_refused() {
    let wide = pruned(3, 5, &codebook(257, true), 0.5, 1);
    let refused = PackedMatrix::from_matrix(&wide, Reuse::Nothing).unwrap_err();
    assert_eq!(refused, PackError::TooManyLevels { levels: 257 });
    let values = raw(1, 2, FloatType::F32, vec![1.0, 2.0]);
    for reuse in REUSES {
        assert_eq!(PackedMatrix::from_matrix(&values, reuse).unwrap_err(), PackError::RawValues);
        let compressed = opened(&values, CodecId::Dense, 1);
        assert_eq!(PackedMatrix::from_compressed(&compressed, reuse).unwrap_err(), PackError::RawValues);
    }
}

#[test]
fn the_smaller_form_is_taken() {
    let memory = |levels, sparsity| {
        let matrix = pruned(256, 1024, &codebook(levels, true), sparsity, 5);
        let packed = PackedMatrix::from_matrix(&matrix, Reuse::Copies).unwrap();
        (packed.is_sparse(), packed.resident_bytes() as f64 / (256 * 1024) as f64)
    };
    // Bytes a cell: 2 a non-zero and 4 a row; half a byte for 16 levels; one for more.
    for (levels, sparsity, is_sparse, most) in
        [(33, 0.9, true, 0.22), (33, 0.2, false, 1.02), (16, 0.5, false, 0.52), (16, 0.9, true, 0.22)]
    {
        let (found, bytes) = memory(levels, sparsity);
        assert_eq!(found, is_sparse, "{levels} levels, {sparsity}");
        assert!(bytes <= most, "{levels} levels, {sparsity}: {bytes} bytes a cell");
    }
}

/// The layers of the base paper's authors: entries along the tree against the non-zeros, and errors.
#[test]
fn a_real_layer_is_held_as_differences() {
    let matrix = layer::read(&Path::new(layer::BUNDLED).join("vgg_99-0-32-0-0.9955.npz"));
    let plain = PackedMatrix::from_matrix(&matrix, Reuse::Nothing).unwrap();
    let packed = PackedMatrix::from_matrix(&matrix, Reuse::Differences).unwrap();
    assert!(packed.has_tree() && packed.held_rows() == 529, "{} rows held", packed.held_rows());
    assert!(
        11 * packed.visited_cells() < plain.visited_cells(),
        "{} of {} entries",
        packed.visited_cells(),
        plain.visited_cells()
    );
    assert!(2 * packed.resident_bytes() < plain.resident_bytes());
    for batch in [1, 32] {
        let x = Noise(4).vector(matrix.cols() * batch);
        let (found, expected) = (product(&packed, &x, batch), product(&plain, &x, batch));
        let largest = expected.iter().fold(0f32, |most, y| most.max(y.abs()));
        let error = found.iter().zip(&expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(error < 2e-6 * largest, "off by {error} of {largest}");
    }
}

#[test]
fn copies_are_held_once() {
    let values = Arc::new(Codebook::new(FloatType::F32, vec![-1.0, 0.0, 2.0]).unwrap());
    let matrix = shared(300, 70, &values, |i| (i / 70 % 3 * (i % 70) % 3) as u16);
    let packed = PackedMatrix::from_matrix(&matrix, Reuse::Copies).unwrap();
    assert_eq!((packed.rows(), packed.held_rows()), (300, 3));
    let plain = PackedMatrix::from_matrix(&matrix, Reuse::Nothing).unwrap();
    let x = Noise(2).vector(70 * 5);
    assert_eq!(bits(&product(&packed, &x, 5)), bits(&product(&plain, &x, 5)));
}
