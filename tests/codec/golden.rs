//! Payloads whose bytes are frozen: a file written today is read for ever, and encoders do not change by accident.
//!
//! `UPDATE_GOLDEN=1 cargo test --test codec` writes the files of codecs that have none yet. A file that exists is never
//! written again: bytes that change need a new codec number.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use weightpress::codec::{self, CodecId, CompressedMatrix, Head};
use weightpress::tensor::{Codebook, FloatType, Matrix, Values};

use crate::matrices::{FLOAT_TYPES, bits, codecs_for, opened, raw, shared};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden");
const ROWS_PER_BLOCK: usize = 5;

/// 12 x 20 cells of seven symbols, one of which never occurs, -0.0 and 0.0 among them; a row and a column of zeros.
fn of_symbols() -> Matrix {
    let values = vec![-1.5, -0.25, -0.0, 0.0, 0.125, 0.5, 3.0];
    let codebook = Arc::new(Codebook::new(FloatType::F32, values).unwrap());
    let symbol = |i: usize| match (i / 20, i % 20) {
        (4, _) | (_, 7) => 3,
        (row, col) => [3, 0, 3, 1, 3, 3, 4, 2, 3, 6, 3][(row * row + 3 * col + row * col) % 11],
    };
    shared(12, 20, &codebook, symbol)
}

/// 4 x 6 raw values of `dtype`.
fn of_values(dtype: FloatType) -> Matrix {
    let value = |i: usize| [0.0, -1.0, 0.0, 0.5, -0.0, 0.0, 65504.0][i * i % 7];
    raw(4, 6, dtype, (0..24).map(|i| dtype.round(value(i))).collect())
}

fn check(matrix: &Matrix, id: CodecId, rows_per_block: usize, file: &str) {
    let path = Path::new(GOLDEN).join(file);
    let encoded = codec::encode(matrix, id, rows_per_block).unwrap();
    if !path.exists() && std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &encoded).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(encoded, golden, "{file}: the encoder writes other bytes");
    let head = Head::of(matrix, rows_per_block).unwrap();
    let decoded = CompressedMatrix::open(id, head, golden.into()).unwrap().decode();
    assert_eq!(bits(&decoded), bits(matrix), "{file}: the decoder reads other values");
}

#[test]
fn payloads_of_symbols_are_frozen() {
    for id in codecs_for(&of_symbols()) {
        check(&of_symbols(), id, ROWS_PER_BLOCK, &format!("{}.bin", id.name()));
    }
}

/// Of symbols, rows that differ from others in a cell or two.
fn of_similar_rows() -> Matrix {
    let codebook = of_symbols();
    let Values::Shared { codebook, .. } = codebook.values() else { unreachable!("it is made of symbols") };
    let symbol = |i: usize| match (i / 40, i % 40) {
        (row, col) if col == row * 7 % 40 => 1,
        (row, col) if col % 4 == row % 3 => 5,
        _ => 3,
    };
    shared(12, 40, codebook, symbol)
}

#[test]
fn a_payload_of_trees_is_frozen() {
    let matrix = of_similar_rows();
    check(&matrix, CodecId::Delta, 12, "delta_trees.bin");
    let non_zeros = (0..480).filter(|&cell| matrix.value(cell) != 0.0).count();
    assert!(2 * opened(&matrix, CodecId::Delta, 12).stored_cells() < non_zeros, "it has no trees");
}

#[test]
fn payloads_of_raw_values_are_frozen() {
    for dtype in FLOAT_TYPES {
        for id in codecs_for(&of_values(dtype)) {
            check(&of_values(dtype), id, 2, &format!("{}_{}.bin", id.name(), dtype.name()));
        }
    }
}
