//! Shapes and contents at the edge: each has gone wrong in some implementation.

use std::sync::Arc;

use weightpress::codec::{self, CodecId, CompressedMatrix, DecodeError, Head, Words};
use weightpress::tensor::{Codebook, FloatType, Matrix};

use crate::matrices::{bits, codebook, codecs_for, opened, pruned, raw, shared};

/// Decodes `matrix` from every codec, in one block and in blocks of one row, and multiplies it by ones.
fn check(matrix: &Matrix) {
    for id in codecs_for(matrix) {
        for rows_per_block in [1, 3, matrix.rows().max(1)] {
            let compressed = opened(matrix, id, rows_per_block);
            let shape = format!("{id:?} {} x {}", matrix.rows(), matrix.cols());
            assert_eq!(bits(&compressed.decode()), bits(matrix), "{shape}");
            for batch in [1, 2] {
                let mut out = vec![f32::NAN; matrix.rows() * batch];
                compressed.multiply(&vec![1.0; matrix.cols() * batch], batch, &mut out);
                for (row, sums) in out.chunks(batch).enumerate() {
                    let cells = row * matrix.cols()..(row + 1) * matrix.cols();
                    let sum: f64 = cells.clone().map(|i| matrix.value(i)).sum();
                    let magnitude: f64 = cells.map(|i| matrix.value(i).abs()).sum();
                    let tolerance = (matrix.cols() + 2) as f64 * f64::exp2(-24.0) * magnitude;
                    assert!(
                        sums.iter().all(|&s| (f64::from(s) - sum).abs() <= tolerance),
                        "{shape}: {sums:?} for {sum}"
                    );
                }
            }
        }
    }
}

#[test]
fn matrices_of_one_row_or_column_or_none() {
    for (rows, cols) in [(1, 1), (1, 70), (70, 1), (1, 300), (300, 1), (0, 5), (5, 0), (0, 0)] {
        for levels in [1, 2, 3, 300] {
            check(&pruned(rows, cols, &codebook(levels, true), 0.5, 5));
        }
        check(&raw(rows, cols, FloatType::F32, (0..rows * cols).map(|i| (i % 3) as f64).collect()));
    }
}

#[test]
fn matrices_of_one_value() {
    for levels in [1, 2, 3, 65_536] {
        for with_zero in [true, false] {
            let codebook = codebook(levels, with_zero);
            for symbol in [0, levels - 1] {
                check(&shared(9, 7, &codebook, |_| symbol as u16));
            }
        }
    }
    let only_zero = Arc::new(Codebook::new(FloatType::F32, vec![0.0]).unwrap());
    check(&shared(9, 7, &only_zero, |_| 0));
    check(&raw(9, 7, FloatType::F16, vec![0.0; 63]));
    check(&raw(9, 7, FloatType::Bf16, vec![-2.0; 63]));
}

#[test]
fn matrices_with_empty_rows_and_columns() {
    let codebook = codebook(4, true);
    let zero = codebook.zero().unwrap();
    for kept in [0, 3, 8] {
        check(&shared(9, 9, &codebook, |i| if i / 9 == kept { 3 } else { zero }));
        check(&shared(9, 9, &codebook, |i| if i % 9 == kept { 0 } else { zero }));
    }
}

#[test]
fn rows_that_start_at_every_bit_offset() {
    // A row of c cells of one bit each starts at every multiple of c: all offsets in words of 8, 32 and 64 bits.
    for cols in 1..=65 {
        check(&pruned(70, cols, &codebook(2, true), 0.7, 6));
    }
    for cols in [31, 32, 33] {
        check(&pruned(70, cols, &codebook(40, true), 0.6, 7));
    }
}

#[test]
fn index_widths_change_between_255_and_256() {
    for n in [255, 256, 257] {
        // Full lines: the count is the extent itself.
        check(&shared(2, n, &codebook(3, false), |i| (i % 3) as u16));
        check(&shared(n, 2, &codebook(3, false), |i| (i % 3) as u16));
    }
    check(&pruned(1, 65_536, &codebook(3, true), 0.5, 8));
}

#[test]
fn a_matrix_of_two_billion_cells_in_one_byte_opens_at_once_and_a_larger_one_is_refused() {
    let words = Words::Symbols(codebook(1, true));
    let head = |rows, cols| Head { rows, cols, rows_per_block: rows, words: words.clone() };
    let open = |id, head: Head, bytes: &'static [u8]| CompressedMatrix::open(id, head, bytes.into());
    assert_eq!(open(CodecId::Ham, head(1 << 15, 1 << 16), &[1]).unwrap().size_bytes(), 1);
    assert_eq!(open(CodecId::IndexMap, head(1 << 15, 1 << 16), &[]).unwrap().size_bytes(), 0);
    for (rows, cols) in [(1 << 16, 1 << 16), (1 << 40, 1 << 40), (usize::MAX, 2)] {
        assert_eq!(open(CodecId::Ham, head(rows, cols), &[1]).unwrap_err(), DecodeError::TooManyCells { rows, cols });
    }
}

#[test]
fn a_matrix_without_cells_has_no_blocks() {
    let matrix = shared(5, 0, &codebook(3, true), |_| 0);
    let sizes = codecs_for(&matrix).into_iter().map(|id| codec::encode(&matrix, id, 1).unwrap().len());
    // HAM and sHAM: an empty dictionary. rANS: flags and two models of a single class. Mix: the period. Delta: as rANS.
    assert_eq!(sizes.collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1, 0, 3, 1, 3]);
}
