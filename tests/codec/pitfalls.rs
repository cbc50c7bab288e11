//! The faults of the base paper's reference code, each with a test that ours does not have it.

use crate::matrices::{Noise, bits, codebook, codecs_for, opened, pruned};

#[test]
fn a_row_that_starts_at_bit_31_of_a_word_is_right() {
    // One row of 31 cells of one bit, then rows of 32.
    let codebook = codebook(2, true);
    for cols in [31, 32 + 31] {
        let matrix = pruned(2, cols, &codebook, 0.5, 31);
        for id in codecs_for(&matrix) {
            assert_eq!(bits(&opened(&matrix, id, 2).decode()), bits(&matrix), "{id:?}");
        }
    }
}

#[test]
fn a_layer_of_three_symbols_is_multiplied() {
    let matrix = pruned(64, 48, &codebook(3, true), 0.9, 3);
    let x = Noise(1).vector(48);
    for id in codecs_for(&matrix) {
        let mut out = vec![0.0; 64];
        opened(&matrix, id, 16).multiply(&x, 1, &mut out);
        for (row, &sum) in out.iter().enumerate() {
            let expected: f64 = (0..48).map(|col| matrix.value(row * 48 + col) * f64::from(x[col])).sum();
            assert!((f64::from(sum) - expected).abs() < 1e-5, "{id:?}, row {row}");
        }
    }
}

#[test]
fn outputs_need_not_be_a_multiple_of_the_threads() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    for rows in [1, 2, 3, 5, 7, 13] {
        let matrix = pruned(rows, 10, &codebook(5, true), 0.5, 4);
        for id in codecs_for(&matrix) {
            for rows_per_block in [1, 2, 3] {
                let compressed = opened(&matrix, id, rows_per_block);
                let decoded = pool.install(|| compressed.decode());
                assert_eq!(bits(&decoded), bits(&matrix), "{id:?}, {rows} rows by {rows_per_block}");
            }
        }
    }
}

#[test]
fn two_layers_are_decoded_at_once() {
    let matrices = [(33, 0.3), (3, 0.9)].map(|(levels, sparsity)| pruned(90, 40, &codebook(levels, true), sparsity, 5));
    for (first, second) in codecs_for(&matrices[0]).into_iter().zip(codecs_for(&matrices[1]).into_iter().rev()) {
        let compressed = [opened(&matrices[0], first, 7), opened(&matrices[1], second, 11)];
        for _ in 0..20 {
            let (a, b) = rayon::join(|| compressed[0].decode(), || compressed[1].decode());
            assert_eq!((bits(&a), bits(&b)), (bits(&matrices[0]), bits(&matrices[1])), "{first:?} and {second:?}");
        }
    }
}
