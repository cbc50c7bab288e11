//! From a matrix to a payload.

use std::sync::Arc;

use rayon::prelude::*;

use super::any::encode_any;
use super::ints::push_varint;
use super::{Codec, CodecId, EncodeError, Head};
use crate::tensor::{Codebook, Matrix, Values};

/// Cells of a block that [`rows_per_block`] aims at. A block costs 3 to 4 bytes (its length, and a partly filled last
/// byte), which is 0.1 % at a quarter of a bit per cell; and it takes a thread a fraction of a millisecond.
const CELLS_PER_BLOCK: usize = 1 << 17;

/// Encodes `matrix` with `codec`. Deterministic whatever the number of threads. Returns the payload: shared part,
/// block table, blocks.
///
/// # Errors
/// [`EncodeError::NeedsCodebook`] for raw values, but with dense, CSR and CSC; [`EncodeError::TooManyCells`].
pub fn encode(matrix: &Matrix, codec: CodecId, rows_per_block: usize) -> Result<Vec<u8>, EncodeError> {
    encode_any(codec, matrix, &Head::of(matrix, rows_per_block)?)
}

/// The rows per block that [`encode`] callers should use: blocks large enough that their offsets do not show, small
/// enough to decode in parallel.
pub fn rows_per_block(rows: usize, cols: usize) -> usize {
    let blocks = rows.saturating_mul(cols).div_ceil(CELLS_PER_BLOCK).max(1);
    rows.div_ceil(blocks).max(1)
}

/// Encodes `matrix` with each of `codecs` that can represent it and keeps the smallest payload; of equal ones, that of
/// the codec with the lowest number.
///
/// # Errors
/// [`EncodeError::NoCodec`] if `codecs` is empty; as [`encode`] if none of them can represent the matrix.
pub fn encode_smallest(
    matrix: &Matrix,
    codecs: &[CodecId],
    rows_per_block: usize,
) -> Result<(CodecId, Vec<u8>), EncodeError> {
    let mut best = Err(EncodeError::NoCodec);
    // One after the other: each is parallel in itself, and two payloads at a time are enough to hold.
    for &codec in codecs {
        match (encode(matrix, codec, rows_per_block), &best) {
            (Ok(payload), Ok((id, smallest))) if (payload.len(), codec) >= (Vec::len(smallest), *id) => {}
            (Ok(payload), _) => best = Ok((codec, payload)),
            (Err(error), Err(EncodeError::NoCodec)) => best = Err(error),
            (Err(_), _) => {}
        }
    }
    best
}

/// Encodes `matrix` with codec `C`.
pub(super) fn encode_with<C: Codec>(matrix: &Matrix, head: &Head) -> Result<Vec<u8>, EncodeError> {
    let plan = C::plan(matrix)?;
    let mut payload = Vec::new();
    C::write_shared(&plan, head, &mut payload);
    let write = |block| C::write_block(&plan, matrix, head, head.block_rows(block));
    let blocks: Vec<Vec<u8>> = (0..head.blocks()).into_par_iter().map(write).collect();
    if let [but_the_last @ .., _] = &blocks[..] {
        but_the_last.iter().for_each(|block| push_varint(&mut payload, block.len() as u64));
    }
    payload.reserve_exact(blocks.iter().map(Vec::len).sum());
    blocks.iter().for_each(|block| payload.extend_from_slice(block));
    Ok(payload)
}

/// The codebook and the row-major symbols of `matrix`, unless it holds raw values.
pub(super) fn symbols(matrix: &Matrix) -> Option<(&Arc<Codebook>, &[u16])> {
    match matrix.values() {
        Values::Shared { codebook, indices } => Some((codebook, indices)),
        Values::Raw { .. } => None,
    }
}

/// How often each of `levels` symbols occurs.
pub(super) fn symbol_counts(indices: &[u16], levels: usize) -> Vec<u64> {
    let count = |symbols: &[u16]| {
        let mut counts = vec![0u64; levels];
        symbols.iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
        counts
    };
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    // Chunks are large against the largest codebook.
    indices.par_chunks(1 << 20).map(count).reduce(|| vec![0; levels], add)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{raw_3x3, shared_3x3};
    use super::*;

    #[test]
    fn the_smallest_payload_wins_and_ties_go_to_the_lowest_number() {
        // Nine cells of three symbols: index map 3 bytes, HAM 5.
        let (id, payload) = encode_smallest(&shared_3x3(), CodecId::ALL, 3).unwrap();
        assert_eq!((id, payload.len()), (CodecId::IndexMap, 3));
        // CSR and CSC take nine bytes each.
        let tied = encode_smallest(&shared_3x3(), &[CodecId::Csc, CodecId::Csr], 3).unwrap();
        assert_eq!((tied.0, tied.1.len()), (CodecId::Csr, 9));
    }

    #[test]
    fn codecs_that_cannot_represent_a_matrix_are_passed_over() {
        let (id, _) = encode_smallest(&raw_3x3(), &[CodecId::Ham, CodecId::Dense], 3).unwrap();
        assert_eq!(id, CodecId::Dense);
        let error = EncodeError::NeedsCodebook { codec: CodecId::Ham };
        assert_eq!(encode_smallest(&raw_3x3(), &[CodecId::Ham, CodecId::Sham], 3), Err(error));
        assert_eq!(encode_smallest(&raw_3x3(), &[], 3), Err(EncodeError::NoCodec));
    }

    #[test]
    fn small_matrices_are_one_block_and_large_ones_several() {
        assert_eq!(rows_per_block(300, 100), 300);
        assert_eq!(rows_per_block(4096, 512), 256);
        assert_eq!(rows_per_block(3, 1 << 20), 1);
        assert_eq!((rows_per_block(0, 0), rows_per_block(0, 5), rows_per_block(7, 0)), (1, 1, 7));
    }
}
