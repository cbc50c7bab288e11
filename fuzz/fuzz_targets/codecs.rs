//! Payloads of every codec under any head: an error, or a matrix that decodes and multiplies.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weightpress::codec::{CodecId, CompressedMatrix, Head, Words};
use weightpress::tensor::{Codebook, FloatType};

const FLOAT_TYPES: [FloatType; 4] = [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64];
const LEVELS: [usize; 6] = [1, 2, 3, 17, 300, 65_536];

/// Codec, rows, columns, rows of a block, and what words are; then the payload.
fuzz_target!(|input: ([u8; 5], &[u8])| {
    let ([codec, rows, cols, rows_per_block, words], payload) = input;
    let id = CodecId::ALL[usize::from(codec) % CodecId::ALL.len()];
    let words = match usize::from(words) % (FLOAT_TYPES.len() + LEVELS.len()) {
        raw if raw < FLOAT_TYPES.len() => Words::Values(FLOAT_TYPES[raw]),
        shared => Words::Symbols(codebook(LEVELS[shared - FLOAT_TYPES.len()])),
    };
    let head = Head { rows: rows.into(), cols: cols.into(), rows_per_block: rows_per_block.into(), words };
    if let Ok(matrix) = CompressedMatrix::open(id, head, payload.to_vec().into()) {
        let decoded = matrix.decode();
        let (rows, cols) = (decoded.rows(), decoded.cols());
        for batch in [1, 3] {
            matrix.multiply(&vec![1.0; cols * batch], batch, &mut vec![0.0; rows * batch]);
        }
    }
});

/// `levels` values around zero, which is one of them.
fn codebook(levels: usize) -> Arc<Codebook> {
    let values = (0..levels).map(|i| i as f64 - (levels / 2) as f64).collect();
    Arc::new(Codebook::new(FloatType::F32, values).expect("whole numbers that rise"))
}
