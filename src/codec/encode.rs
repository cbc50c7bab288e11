//! From a matrix to a payload.

use std::sync::Arc;

use rayon::prelude::*;

use super::any::encode_any;
use super::ints::push_varint;
use super::{Cells, Codec, CodecId, EncodeError, Head};
use crate::progress::{Progress, Silent, Whole};
use crate::tensor::{Codebook, Matrix, Values};

/// Cells of a block that [`rows_per_block`] aims at. A block costs 3 to 4 bytes (its length, and a partly filled last
/// byte), which is 0.1 % at a quarter of a bit per cell; and it takes a thread a fraction of a millisecond.
const CELLS_PER_BLOCK: usize = 1 << 17;

/// Stored cells of a block that [`rows_per_block_of`] aims at where most cells are not stored: enough that the states of 32
/// lanes are less than 1 % of them.
const STORED_PER_BLOCK: usize = 1 << 15;

/// Encodes `matrix` with `codec`. Deterministic whatever the number of threads. Returns the payload: shared part,
/// block table, blocks.
///
/// # Errors
/// [`EncodeError::NeedsCodebook`] for raw values, but with dense, CSR, CSC and pco; [`EncodeError::NeedsRawValues`] for
/// symbols with pco; [`EncodeError::TooManyCells`].
pub fn encode(matrix: &Matrix, codec: CodecId, rows_per_block: usize) -> Result<Vec<u8>, EncodeError> {
    encode_cancellable(matrix, codec, rows_per_block, &Silent)
}

/// As [`encode`], asking `progress` at least before every block whether to go on. Codecs that take long tell it how far they
/// are.
///
/// # Errors
/// As [`encode`]; [`EncodeError::Cancelled`].
pub fn encode_cancellable(
    matrix: &Matrix,
    codec: CodecId,
    rows_per_block: usize,
    progress: &dyn Progress,
) -> Result<Vec<u8>, EncodeError> {
    encode_any(codec, matrix, &Head::of(matrix, rows_per_block)?, progress)
}

/// The rows per block that [`encode`] callers should use: blocks large enough that their offsets do not show, small
/// enough to decode in parallel.
pub fn rows_per_block(rows: usize, cols: usize) -> usize {
    let blocks = rows.saturating_mul(cols).div_ceil(CELLS_PER_BLOCK).max(1);
    rows.div_ceil(blocks).max(1)
}

/// The same for a matrix whose cells are known: where most are zero, a block has more rows.
pub fn rows_per_block_of(matrix: &Matrix) -> usize {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let blocks = stored_cells(matrix).div_ceil(STORED_PER_BLOCK).max(1);
    rows.div_ceil(blocks).max(rows_per_block(rows, cols)).min(rows.max(1))
}

/// The rows per block of an encoder that writes `matrix`, by codec.
pub fn rows_per_block_for(matrix: &Matrix) -> impl Fn(CodecId) -> usize + use<> {
    let (rows, cols, of_most) = (matrix.rows(), matrix.cols(), rows_per_block_of(matrix));
    move |codec| match codec {
        CodecId::Mix => super::mix::rows_per_block(rows, cols),
        CodecId::Delta => super::delta::rows_per_block(rows, cols),
        _ => of_most,
    }
}

/// A matrix in the codec that makes it smallest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smallest {
    /// Which one.
    pub codec: CodecId,
    /// Rows in each block.
    pub rows_per_block: usize,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Encodes `matrix` with each of `codecs` that can represent it, in blocks of `rows_per_block` rows, and keeps the smallest
/// payload; of equal ones, that of the codec with the lowest number. Codecs whose indices alone make them larger than one
/// before are not tried. Tells `progress` how far it is, and asks it at least once a block whether to go on.
///
/// # Errors
/// [`EncodeError::NoCodec`] if `codecs` is empty; [`EncodeError::Cancelled`]; as [`encode`] if none of them can represent
/// the matrix.
pub fn encode_smallest(
    matrix: &Matrix,
    codecs: &[CodecId],
    rows_per_block: impl Fn(CodecId) -> usize,
    progress: &dyn Progress,
) -> Result<Smallest, EncodeError> {
    let stored = stored_cells(matrix);
    let whole = Whole::new(progress, codecs.iter().map(|codec| codec.encoding_work()).sum());
    let mut best: Result<Smallest, EncodeError> = Err(EncodeError::NoCodec);
    // One after the other: each is parallel in itself, and two payloads at a time are enough to hold.
    for &codec in codecs {
        let share = whole.share(codec.encoding_work());
        let head = Head::of(matrix, rows_per_block(codec))?;
        let is_beaten_by = |bytes, best: &Smallest| (bytes, codec) >= (best.payload.len(), best.codec);
        if !best.as_ref().is_ok_and(|best| is_beaten_by(codec.least_bytes(&head, stored), best)) {
            match (encode_any(codec, matrix, &head, &share), &best) {
                (Err(EncodeError::Cancelled), _) => return Err(EncodeError::Cancelled),
                (Ok(payload), Ok(best)) if is_beaten_by(payload.len(), best) => {}
                (Ok(payload), _) => best = Ok(Smallest { codec, rows_per_block: head.rows_per_block, payload }),
                (Err(error), Err(EncodeError::NoCodec)) => best = Err(error),
                (Err(_), _) => {}
            }
        }
        share.report(1.0, "encode", codec.name());
    }
    best
}

/// Encodes `matrix` with codec `C`.
pub(super) fn encode_with<C: Codec>(
    matrix: &Matrix,
    head: &Head,
    progress: &dyn Progress,
) -> Result<Vec<u8>, EncodeError> {
    let plan = C::plan(matrix, head)?;
    let mut payload = Vec::new();
    C::write_shared(&plan, head, &mut payload);
    let whole = Whole::new(progress, head.cells() as u64);
    let write = |block| {
        let rows = head.block_rows(block);
        let share = whole.share((rows.len() * head.cols) as u64);
        C::write_block_reporting(&plan, matrix, head, rows, &share)
    };
    let blocks = (0..head.blocks()).into_par_iter().map(write).collect::<Result<Vec<_>, EncodeError>>()?;
    if let [but_the_last @ .., _] = &blocks[..] {
        but_the_last.iter().for_each(|block| push_varint(&mut payload, block.len() as u64));
    }
    payload.reserve_exact(blocks.iter().map(Vec::len).sum());
    // Each block is freed once it is copied, so that a large layer is not held twice.
    blocks.into_iter().for_each(|block| payload.extend_from_slice(&block));
    Ok(payload)
}

/// Number of cells that sparse codecs store.
fn stored_cells(matrix: &Matrix) -> usize {
    let cells = Cells::of(matrix);
    (0..matrix.rows() * matrix.cols()).into_par_iter().filter(|&i| cells.stored(i).is_some()).count()
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::testing::{raw_3x3, shared_3x3};
    use super::*;
    use crate::tensor::{FloatData, FloatType};

    #[test]
    fn the_smallest_payload_wins_and_ties_go_to_the_lowest_number() {
        // Nine cells of three symbols: index map 3 bytes, HAM 5.
        let smallest = encode_smallest(&shared_3x3(), CodecId::ALL, |_| 3, &Silent).unwrap();
        assert_eq!((smallest.codec, smallest.payload.len()), (CodecId::IndexMap, 3));
        // CSR and CSC take nine bytes each.
        let tied = encode_smallest(&shared_3x3(), &[CodecId::Csc, CodecId::Csr], |_| 3, &Silent).unwrap();
        assert_eq!((tied.codec, tied.payload.len()), (CodecId::Csr, 9));
    }

    #[test]
    fn codecs_that_cannot_represent_a_matrix_are_passed_over() {
        let smallest = encode_smallest(&raw_3x3(), &[CodecId::Ham, CodecId::Dense], |_| 3, &Silent).unwrap();
        assert_eq!(smallest.codec, CodecId::Dense);
        let error = EncodeError::NeedsCodebook { codec: CodecId::Ham };
        assert_eq!(encode_smallest(&raw_3x3(), &[CodecId::Ham, CodecId::Sham], |_| 3, &Silent), Err(error));
        assert_eq!(encode_smallest(&raw_3x3(), &[], |_| 3, &Silent), Err(EncodeError::NoCodec));
    }

    #[test]
    fn no_codec_is_left_out_that_could_have_won() {
        for zeros in 0..=9 {
            let cells: Vec<f32> = (0..9).map(|i| if i < zeros { 0.0 } else { 1.0 + i as f32 }).collect();
            let matrix = Matrix::raw(3, 3, FloatType::F32, FloatData::F32(cells)).unwrap();
            let head = Head::of(&matrix, 2).unwrap();
            let codecs = [CodecId::Dense, CodecId::Csr, CodecId::Csc];
            let sizes = codecs.map(|codec| encode(&matrix, codec, 2).unwrap().len());
            for (codec, size) in codecs.into_iter().zip(sizes) {
                assert!(codec.least_bytes(&head, stored_cells(&matrix)) <= size, "{codec:?} of {zeros} zeros");
            }
            let smallest = encode_smallest(&matrix, CodecId::ALL, |_| 2, &Silent).unwrap();
            assert_eq!(Some(smallest.payload.len()), sizes.into_iter().min(), "{zeros} zeros");
        }
    }

    /// Asks to stop after a number of questions.
    struct StopAfter(AtomicUsize);

    impl Progress for StopAfter {
        fn report(&self, _fraction: f64, _stage: &str, _message: &str) {}

        fn is_cancelled(&self) -> bool {
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        }
    }

    #[test]
    fn cancelling_stops_between_blocks_and_between_codecs() {
        // Three blocks a codec: the last question of all is asked before the last block of the last codec.
        let after = |questions| StopAfter(AtomicUsize::new(questions));
        for questions in 0..3 {
            let stopped = encode_cancellable(&shared_3x3(), CodecId::Sham, 1, &after(questions));
            assert_eq!(stopped, Err(EncodeError::Cancelled), "{questions}");
        }
        assert!(encode_cancellable(&shared_3x3(), CodecId::Sham, 1, &after(3)).is_ok());
        let smallest =
            |questions| encode_smallest(&shared_3x3(), &[CodecId::Ham, CodecId::Dense], |_| 1, &after(questions));
        assert!((0..6).all(|questions| smallest(questions) == Err(EncodeError::Cancelled)));
        assert!(smallest(6).is_ok());
    }

    #[test]
    fn small_matrices_are_one_block_and_large_ones_several() {
        assert_eq!(rows_per_block(300, 100), 300);
        assert_eq!(rows_per_block(4096, 512), 256);
        assert_eq!(rows_per_block(3, 1 << 20), 1);
        assert_eq!((rows_per_block(0, 0), rows_per_block(0, 5), rows_per_block(7, 0)), (1, 1, 7));
    }

    #[test]
    fn blocks_of_sparse_matrices_have_more_rows() {
        let with_zeros = |rows: usize, cols: usize, every: usize| {
            let cells = (0..rows * cols).map(|i| if i % every == 0 { 1.0 } else { 0.0 }).collect();
            rows_per_block_of(&Matrix::raw(rows, cols, FloatType::F32, FloatData::F32(cells)).unwrap())
        };
        assert_eq!((with_zeros(4096, 512, 1), with_zeros(4096, 512, 4)), (256, 256));
        assert_eq!((with_zeros(4096, 512, 8), with_zeros(4096, 512, 100)), (512, 4096));
        assert_eq!((with_zeros(0, 5, 1), with_zeros(7, 0, 1), with_zeros(1, 1 << 18, 1)), (1, 7, 1));
    }
}
