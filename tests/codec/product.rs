//! Products on encoded matrices against a dense product in f64.
//!
//! Tolerance: `(cols + 2) * 2^-24 * sum(|w| |x|)`, the bound on the error of a sum of `cols` products in f32, plus the
//! rounding of the weights themselves.

use proptest::prelude::*;
use weightpress::codec::{CodecId, CompressedMatrix};
use weightpress::tensor::Matrix;

use crate::matrices::{Noise, any_raw, any_shared, codebook, codecs_for, opened, pruned, serving_codecs_for};

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

fn product(compressed: &CompressedMatrix, x: &[f32], batch: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; compressed.head().rows * batch];
    compressed.multiply(x, batch, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_are_those_of_the_dense_matrix(
        matrix in prop_oneof![3 => any_shared(), 1 => any_raw()],
        batch in prop::sample::select(vec![0usize, 1, 2, 7, 32]),
        rows_per_block in 1..50usize,
    ) {
        let x = Noise(7).vector(matrix.cols() * batch);
        for id in serving_codecs_for(&matrix) {
            let compressed = opened(&matrix, id, rows_per_block);
            assert_is_product(&matrix, &x, batch, &product(&compressed, &x, batch));
        }
    }

    #[test]
    fn some_rows_are_multiplied_as_all_are(
        matrix in any_shared(), rows_per_block in 1..50usize, ends in any::<[u16; 2]>(),
    ) {
        let [a, b] = ends.map(|end| usize::from(end) % (matrix.rows() + 1));
        let rows = a.min(b)..a.max(b);
        for batch in [1, 3] {
            let x = Noise(8).vector(matrix.cols() * batch);
            for id in serving_codecs_for(&matrix) {
                let compressed = opened(&matrix, id, rows_per_block);
                let mut some = vec![f32::NAN; rows.len() * batch];
                compressed.multiply_rows(rows.clone(), &x, batch, &mut some);
                let all = product(&compressed, &x, batch);
                prop_assert_eq!(bits(&some), bits(&all[rows.start * batch..rows.end * batch]));
            }
        }
    }

    #[test]
    fn groups_are_multiplied_as_their_rows_are(
        seed in any::<u64>(), groups in 1..6usize, rows in 1..6usize, cols in 1..9usize, rows_per_block in 1..9usize,
    ) {
        let matrix = pruned(groups * rows, cols, &codebook(5, true), 0.4, seed);
        for batch in [1, 4] {
            let x = Noise(9).vector(groups * cols * batch);
            for id in serving_codecs_for(&matrix) {
                let compressed = opened(&matrix, id, rows_per_block);
                let mut grouped = vec![f32::NAN; groups * rows * batch];
                compressed.multiply_grouped(groups, &x, batch, &mut grouped);
                for group in 0..groups {
                    let mut one = vec![f32::NAN; rows * batch];
                    let x = &x[group * cols * batch..][..cols * batch];
                    compressed.multiply_rows(group * rows..(group + 1) * rows, x, batch, &mut one);
                    let of_group = &grouped[group * rows * batch..][..rows * batch];
                    prop_assert!(one.iter().zip(of_group).all(|(a, b)| (a - b).abs() < 1e-5), "{:?}", id);
                }
            }
        }
    }
}

#[test]
fn a_row_is_the_same_bit_by_bit_on_one_thread_and_on_four() {
    for (sparsity, batch) in [(0.9, 1), (0.9, 32), (0.9, 600), (0.1, 32), (0.1, 600)] {
        let matrix = pruned(101, 67, &codebook(33, true), sparsity, 3);
        let x = Noise(10).vector(67 * batch);
        for id in serving_codecs_for(&matrix) {
            let compressed = opened(&matrix, id, 9);
            let [one, four] = [1, 4].map(|threads| on_threads(threads, || product(&compressed, &x, batch)));
            assert_eq!(bits(&one), bits(&four), "{id:?}, batch {batch}");
        }
    }
}

#[test]
fn large_batches_are_multiplied_in_tiles() {
    let (rows, cols, batch) = (40, 50, 600);
    for sparsity in [0.95, 0.2] {
        let matrix = pruned(rows, cols, &codebook(9, true), sparsity, 4);
        let x = Noise(11).vector(cols * batch);
        for id in serving_codecs_for(&matrix) {
            let compressed = opened(&matrix, id, 16);
            assert_is_product(&matrix, &x, batch, &product(&compressed, &x, batch));
        }
    }
}

#[test]
fn stored_cells_are_those_that_are_not_left_out() {
    let matrix = pruned(20, 30, &codebook(9, true), 0.7, 5);
    let non_zeros = (0..600).filter(|&i| matrix.value(i) != 0.0).count();
    for id in codecs_for(&matrix) {
        let all = matches!(id, CodecId::Dense | CodecId::IndexMap | CodecId::Mix);
        assert_eq!(opened(&matrix, id, 7).stored_cells(), if all { 600 } else { non_zeros }, "{id:?}");
    }
}

#[test]
fn mix_is_multiplied_as_it_is_and_transcoded() {
    let matrix = pruned(23, 40, &codebook(9, true), 0.7, 6);
    let x = Noise(7).vector(40);
    let product = |compressed: &CompressedMatrix| {
        let mut out = vec![0.0; 23];
        compressed.multiply(&x, 1, &mut out);
        out
    };
    let mix = opened(&matrix, CodecId::Mix, 10);
    let as_it_is = product(&mix);
    let serving = mix.into_serving();
    assert!(serving.codec().is_serving());
    assert!(serving.decode() == matrix);
    for (a, b) in as_it_is.iter().zip(product(&serving)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    let index_map = opened(&matrix, CodecId::IndexMap, 10).into_serving();
    assert_eq!((index_map.codec(), index_map.head().rows_per_block), (CodecId::IndexMap, 10), "left as it is");
}
