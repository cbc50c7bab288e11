//! The bundled real layers: sizes against the published ones, and every codec end to end.

use std::path::Path;

use weightpress::codec::{CodecId, rows_per_block, rows_per_block_for, rows_per_block_of};

use crate::layer::{BUNDLED, PUBLISHED, Published, read};
use crate::matrices::{Noise, codecs_for, opened};

const LAYERS: [&str; 2] = ["dta_80-0-16-0-0.23378", "vgg_99-0-32-0-0.9955"];

#[test]
fn ham_and_sham_take_no_more_than_the_published_streams() {
    for published in PUBLISHED.iter().filter(|published| LAYERS.contains(&published.layer)) {
        let matrix = read(&Path::new(BUNDLED).join(format!("{}.npz", published.layer)));
        let head = (matrix.rows(), matrix.cols());
        for (id, stream_bytes) in [(CodecId::Ham, published.ham_bytes), (CodecId::Sham, published.sham_bytes)] {
            let compressed = opened(&matrix, id, rows_per_block(head.0, head.1));
            let levels = if published.layer.starts_with("vgg") { 3 } else { 8 };
            let allowed = Published::allowed_bytes(stream_bytes, levels);
            let size = compressed.size_bytes();
            assert!(size <= allowed, "{} {id:?}: {size} bytes, {allowed} allowed", published.layer);
        }
    }
}

#[test]
fn rans_takes_no_more_than_the_entropy_of_gaps_and_values_and_3_percent() {
    for published in PUBLISHED.iter().filter(|published| LAYERS.contains(&published.layer)) {
        let matrix = read(&Path::new(BUNDLED).join(format!("{}.npz", published.layer)));
        let size = opened(&matrix, CodecId::Rans, rows_per_block_of(&matrix)).size_bytes();
        let allowed = published.allowed_above_entropy();
        assert!(size <= allowed, "{}: {size} bytes, {allowed} allowed", published.layer);
    }
}

#[test]
fn mix_takes_no_more_than_the_rivals() {
    for published in PUBLISHED.iter().filter(|published| LAYERS.contains(&published.layer)) {
        let matrix = read(&Path::new(BUNDLED).join(format!("{}.npz", published.layer)));
        let size = opened(&matrix, CodecId::Mix, rows_per_block_for(&matrix)(CodecId::Mix)).size_bytes();
        let allowed = published.allowed_beside_rival();
        assert!(size <= allowed, "{}: {size} bytes, {allowed} allowed", published.layer);
    }
}

#[test]
fn delta_takes_less_than_half_of_rans_where_rows_are_alike() {
    let matrix = read(&Path::new(BUNDLED).join(format!("{}.npz", LAYERS[1])));
    let bytes = |id| opened(&matrix, id, rows_per_block_for(&matrix)(id)).size_bytes();
    assert!(2 * bytes(CodecId::Delta) < bytes(CodecId::Rans));
}

#[test]
fn every_codec_decodes_and_multiplies_a_real_layer() {
    for layer in LAYERS {
        let matrix = read(&Path::new(BUNDLED).join(format!("{layer}.npz")));
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let x = Noise(2).vector(cols);
        let dense: Vec<f64> = (0..rows)
            .map(|row| (0..cols).map(|col| matrix.value(row * cols + col) * f64::from(x[col])).sum())
            .collect();
        let largest = dense.iter().fold(0.0, |largest: f64, y| largest.max(y.abs()));
        for id in codecs_for(&matrix) {
            let compressed = opened(&matrix, id, rows_per_block(rows, cols));
            assert!(compressed.decode() == matrix, "{layer} {id:?}");
            let mut out = vec![0.0; rows];
            compressed.into_serving().multiply(&x, 1, &mut out);
            let error = dense.iter().zip(&out).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
            assert!(error <= 1e-5 * largest, "{layer} {id:?}: off by {error} of {largest}");
        }
    }
}
