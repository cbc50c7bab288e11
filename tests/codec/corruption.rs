//! Damaged payloads: an error or a value, never a panic, and never an allocation that the input has not earned.

use proptest::prelude::*;
use weightpress::codec::{self, CodecId, CompressedMatrix, DecodeError, Head, Words};
use weightpress::tensor::{FloatType, Matrix};

use crate::allocation::largest_allocation;
use crate::matrices::{FLOAT_TYPES, Noise, codebook, codecs_for, pruned, raw};

/// Opens `payload`; if that succeeds, uses the matrix in every way. Checks that opening allocates no more than 16 times
/// the payload, 2 bytes per symbol of the codebook and a decoding table; for binned numbers, the tables of pco.
fn open_and_use(id: CodecId, head: &Head, payload: &[u8]) -> Result<(), DecodeError> {
    let levels = if let Words::Symbols(codebook) = &head.words { codebook.len() } else { 0 };
    let tables = if id == CodecId::Pco { 512 << 10 } else { 16 << 10 };
    let allowed = 16 * payload.len() + 16 * levels + tables;
    let (opened, largest) = largest_allocation(|| CompressedMatrix::open(id, head.clone(), payload.to_vec().into()));
    assert!(largest <= allowed, "{id:?} allocated {largest} bytes for a payload of {}", payload.len());
    let compressed = opened?;
    assert_eq!((compressed.decode().rows(), compressed.codec()), (head.rows, id));
    for batch in [1, 2] {
        compressed.multiply(&vec![1.0; head.cols * batch], batch, &mut vec![0.0; head.rows * batch]);
    }
    Ok(())
}

/// Runs `work` on a pool of one thread, where allocations can be watched.
fn on_one_thread(work: impl FnOnce() + Send) {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work);
}

/// Small matrices that reach every section of every codec; rows per block.
fn samples() -> Vec<(Matrix, usize)> {
    let of_levels = |levels| pruned(11, 13, &codebook(levels, true), 0.6, levels as u64);
    let mut samples: Vec<_> = [2, 3, 17, 300].into_iter().map(|levels| (of_levels(levels), 4)).collect();
    samples.push((of_levels(3), 11));
    samples.push((pruned(3, 300, &codebook(3, true), 0.9, 1), 2));
    samples.push((pruned(11, 13, &codebook(1, false), 0.0, 1), 4));
    let value = |i: usize| if i.is_multiple_of(3) { i as f64 - 50.0 } else { 0.0 };
    samples.extend(FLOAT_TYPES.map(|dtype| (raw(7, 9, dtype, (0..63).map(value).collect()), 3)));
    samples
}

#[test]
fn every_truncation_is_an_error() {
    on_one_thread(|| {
        for (matrix, rows_per_block) in samples() {
            let head = Head::of(&matrix, rows_per_block).unwrap();
            for id in codecs_for(&matrix) {
                let payload = codec::encode(&matrix, id, rows_per_block).unwrap();
                for len in 0..payload.len() {
                    assert!(open_and_use(id, &head, &payload[..len]).is_err(), "{id:?} cut to {len} bytes");
                }
                assert_eq!(open_and_use(id, &head, &payload), Ok(()));
            }
        }
    });
}

#[test]
fn bytes_after_the_end_are_an_error() {
    on_one_thread(|| {
        for (matrix, rows_per_block) in samples() {
            let head = Head::of(&matrix, rows_per_block).unwrap();
            for id in codecs_for(&matrix) {
                let payload = codec::encode(&matrix, id, rows_per_block).unwrap();
                for extra in [0x00, 0xff] {
                    let longer = [&payload[..], &[extra]].concat();
                    assert!(open_and_use(id, &head, &longer).is_err(), "{id:?} and {extra:#x}");
                }
            }
        }
    });
}

#[test]
fn every_one_bit_flip_is_an_error_or_a_value() {
    on_one_thread(|| {
        for (matrix, rows_per_block) in samples() {
            let head = Head::of(&matrix, rows_per_block).unwrap();
            for id in codecs_for(&matrix) {
                let payload = codec::encode(&matrix, id, rows_per_block).unwrap();
                for bit in 0..payload.len() * 8 {
                    let mut flipped = payload.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    let _ = open_and_use(id, &head, &flipped);
                }
            }
        }
    });
}

/// `bytes` with a few of them changed, cut out, doubled, or taken from another place of it: what flips of single bits do
/// not reach.
fn mutated(bytes: &[u8], noise: &mut Noise) -> Vec<u8> {
    let mut below = |limit: usize| (noise.next() % limit.max(1) as u64) as usize;
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(3) {
        let (at, len) = (below(bytes.len()), below(8));
        let end = bytes.len().min(at + len);
        match below(4) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            2 => bytes[at..end].fill([0x00, 0x7f, 0x80, 0xff][below(4)]),
            _ => bytes[at..end].iter_mut().for_each(|byte| *byte = below(256) as u8),
        }
    }
    bytes
}

#[test]
fn mutations_are_an_error_or_a_value() {
    on_one_thread(|| {
        for (seed, (matrix, rows_per_block)) in samples().into_iter().enumerate() {
            let mut head = Head::of(&matrix, rows_per_block).unwrap();
            for id in codecs_for(&matrix) {
                let payload = codec::encode(&matrix, id, rows_per_block).unwrap();
                let mut noise = Noise((seed as u64) << 8 | id as u64);
                for _ in 0..150 {
                    // Now and then the head is another too.
                    head.cols = if noise.next().is_multiple_of(8) { matrix.cols() + 1 } else { matrix.cols() };
                    let _ = open_and_use(id, &head, &mutated(&payload, &mut noise));
                }
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_are_an_error_or_a_value(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        (rows, cols, rows_per_block) in (0..20usize, 0..20usize, 0..25usize),
        levels in prop::sample::select(vec![1usize, 2, 3, 300, 65_536]),
        raw in prop::option::weighted(0.2, prop::sample::select(&FLOAT_TYPES[..])),
    ) {
        let words = raw.map_or_else(|| Words::Symbols(codebook(levels, true)), Words::Values);
        let head = Head { rows, cols, rows_per_block, words };
        on_one_thread(|| CodecId::ALL.iter().for_each(|&id| drop(open_and_use(id, &head, &bytes))));
    }

    #[test]
    fn shapes_that_the_bytes_do_not_bear_out_are_refused_without_allocating(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        (rows, cols) in (1_000..40_000usize, 1_000..40_000usize),
        rows_per_block in prop::sample::select(vec![1usize, 100, usize::MAX]),
    ) {
        let head = Head { rows, cols, rows_per_block, words: Words::Symbols(codebook(300, true)) };
        on_one_thread(|| CodecId::ALL.iter().for_each(|&id| assert!(open_and_use(id, &head, &bytes).is_err())));
    }
}

#[test]
fn faults_are_named_with_their_block_and_offset() {
    let matrix = pruned(4, 8, &codebook(5, true), 0.5, 9);
    let head = Head::of(&matrix, 2).unwrap();
    let payload = codec::encode(&matrix, CodecId::Dense, 2).unwrap();
    assert_eq!(payload.len(), 1 + 32);
    let mut wrong = payload.clone();
    wrong[1 + 16 + 3] = 5;
    let error = CompressedMatrix::open(CodecId::Dense, head.clone(), wrong.into()).unwrap_err();
    assert_eq!(error.to_string(), "block 1 at byte 17: symbol 5 is outside a codebook of 5 values");
    let error = CompressedMatrix::open(CodecId::Dense, head, payload[..32].to_vec().into()).unwrap_err();
    assert_eq!(error.to_string(), "block 1 at byte 17: need 16 bytes, found 15");
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let matrix = raw(2, 2, FloatType::F16, vec![1.0; 4]);
    let head = Head::of(&matrix, 2).unwrap();
    // The last bytes of binned numbers are no value; `codec::pco` tests those.
    for id in codecs_for(&matrix).into_iter().filter(|&id| id != CodecId::Pco) {
        let mut payload = codec::encode(&matrix, id, 2).unwrap();
        *payload.last_mut().unwrap() = 0x7c;
        let error = CompressedMatrix::open(id, head.clone(), payload.into()).unwrap_err();
        assert!(error.to_string().ends_with("a value is not finite"), "{id:?}: {error}");
    }
}

#[test]
fn codecs_of_symbols_refuse_heads_of_raw_values() {
    let head = Head { rows: 1, cols: 1, rows_per_block: 1, words: Words::Values(FloatType::F32) };
    let takes_raw = codecs_for(&raw(1, 1, FloatType::F32, vec![1.0]));
    for &codec in CodecId::ALL.iter().filter(|id| !takes_raw.contains(id)) {
        let error = CompressedMatrix::open(codec, head.clone(), vec![0; 4].into()).unwrap_err();
        assert_eq!(error, DecodeError::NeedsCodebook { codec });
    }
    let head = Head { words: Words::Symbols(codebook(3, true)), ..head };
    let error = CompressedMatrix::open(CodecId::Pco, head, vec![4, 1, 0, 0].into()).unwrap_err();
    assert_eq!(error, DecodeError::NeedsRawValues { codec: CodecId::Pco });
}
