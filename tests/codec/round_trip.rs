//! What is decoded is what was encoded, bit by bit.

use proptest::prelude::*;
use weightpress::codec::{self, CodecId};
use weightpress::progress::Silent;
use weightpress::tensor::{FloatType, Matrix};

use crate::matrices::{
    FLOAT_TYPES, Noise, any_raw, any_shared, bits, codebook, codecs_for, opened, raw, serving_codecs_for, shared,
};

fn check(matrix: &Matrix, rows_per_block: usize) {
    for id in codecs_for(matrix) {
        let compressed = opened(matrix, id, rows_per_block);
        let decoded = compressed.decode();
        assert_eq!((decoded.rows(), decoded.cols()), (matrix.rows(), matrix.cols()));
        assert_eq!(decoded.dtype(), matrix.dtype());
        assert_eq!(bits(&decoded), bits(matrix), "{id:?}, {rows_per_block} rows a block");
        assert_eq!(compressed.size_bytes(), codec::encode(matrix, id, rows_per_block).unwrap().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn symbols_survive(matrix in any_shared(), rows_per_block in 1..50usize) {
        check(&matrix, rows_per_block);
    }

    #[test]
    fn raw_values_survive(matrix in any_raw(), rows_per_block in 1..50usize) {
        check(&matrix, rows_per_block);
    }

    #[test]
    fn some_rows_are_decoded_as_all_are(
        matrix in any_shared(), rows_per_block in 1..50usize, ends in any::<[u16; 2]>(),
    ) {
        let [a, b] = ends.map(|end| usize::from(end) % (matrix.rows() + 1));
        let rows = a.min(b)..a.max(b);
        for id in codecs_for(&matrix) {
            let mut some = vec![f32::NAN; rows.len() * matrix.cols()];
            opened(&matrix, id, rows_per_block).decode_rows(rows.clone(), &mut some);
            let cells = rows.start * matrix.cols()..rows.end * matrix.cols();
            let expected: Vec<u32> = cells.map(|i| (matrix.value(i) as f32).to_bits()).collect();
            prop_assert_eq!(some.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn listed_rows_are_decoded_as_all_are_and_each_block_of_them_once(
        matrix in prop_oneof![any_shared(), any_raw()], rows_per_block in 1..50usize, seed in any::<u64>(),
    ) {
        let mut numbers = Noise(seed);
        let rows: Vec<u32> = (0..matrix.rows() as u32).filter(|_| numbers.next().is_multiple_of(3)).collect();
        let mut blocks: Vec<_> = rows.iter().map(|&row| row as usize / rows_per_block).collect();
        blocks.dedup();
        let cells = rows.iter().flat_map(|&row| (0..matrix.cols()).map(move |col| (row as usize, col)));
        let value = |(row, col)| (matrix.value(row * matrix.cols() + col) as f32).to_bits();
        let expected: Vec<u32> = cells.map(value).collect();
        for id in serving_codecs_for(&matrix) {
            let mut listed = vec![f32::NAN; rows.len() * matrix.cols()];
            let walked = opened(&matrix, id, rows_per_block).decode_listed_rows(&rows, &mut listed);
            prop_assert_eq!(walked, if matrix.cols() == 0 { 0 } else { blocks.len() }, "{:?}", id);
            prop_assert_eq!(listed.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected.clone(), "{:?}", id);
        }
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_threads(matrix in any_shared(), rows_per_block in 1..10usize) {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for id in codecs_for(&matrix) {
            let encoded = |threads| pool(threads).install(|| codec::encode(&matrix, id, rows_per_block).unwrap());
            prop_assert_eq!(encoded(1), encoded(4));
        }
    }
}

#[test]
fn one_row_is_decoded_by_a_walk_over_its_block_alone() {
    let matrix = shared(100, 3, &codebook(4, true), |i| (i % 4) as u16);
    for id in serving_codecs_for(&matrix) {
        let compressed = opened(&matrix, id, 10);
        let mut out = vec![f32::NAN; 9];
        assert_eq!(compressed.decode_listed_rows(&[57], &mut out[..3]), 1, "{id:?}");
        assert_eq!(compressed.decode_listed_rows(&[0, 9, 10], &mut out), 2, "{id:?}");
        assert_eq!(compressed.decode_listed_rows(&[], &mut []), 0, "{id:?}");
    }
}

#[test]
fn a_full_codebook_survives_with_every_symbol_in_use() {
    let matrix = shared(256, 256, &codebook(65_536, true), |i| (i * 40_503 % 65_536) as u16);
    check(&matrix, codec::rows_per_block(256, 256));
}

#[test]
fn negative_zero_is_a_value_with_and_without_a_codebook() {
    for dtype in FLOAT_TYPES {
        check(&raw(2, 3, dtype, vec![0.0, -0.0, 1.0, -0.0, 0.0, -1.0]), 1);
    }
    let both = weightpress::tensor::Codebook::new(FloatType::F32, vec![-0.0, 0.0, 0.5]).unwrap();
    check(&shared(3, 5, &both.into(), |i| (i % 3) as u16), 2);
    let negative = weightpress::tensor::Codebook::new(FloatType::F32, vec![-0.0, 0.5]).unwrap();
    check(&shared(3, 5, &negative.into(), |i| (i % 2) as u16), 2);
}

#[test]
fn several_blocks_of_the_usual_size_survive() {
    let matrix = crate::matrices::pruned(600, 512, &codebook(33, true), 0.9, 1);
    let rows_per_block = codec::rows_per_block(600, 512);
    assert_eq!(rows_per_block, 200);
    check(&matrix, rows_per_block);
}

#[test]
fn the_smallest_codec_decodes_too() {
    let matrix = crate::matrices::pruned(64, 64, &codebook(17, true), 0.5, 2);
    let codec::Smallest { codec: id, payload, .. } =
        codec::encode_smallest(&matrix, CodecId::ALL, |_| 64, &Silent).unwrap();
    assert!(codecs_for(&matrix).iter().all(|&other| codec::encode(&matrix, other, 64).unwrap().len() >= payload.len()));
    assert_eq!(opened(&matrix, id, 64).size_bytes(), payload.len());
}
