//! Encode, decode and multiply, for every codec, on a real layer; a dense f32 product as the rival in the same run.
//!
//! `cargo bench --bench codec` runs on one thread of rayon's pool unless `RAYON_NUM_THREADS` says otherwise.

#[path = "../tests/codec/layer.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod layer;

use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::ArrayView2;
use weightpress::codec::{self, CodecId, CompressedMatrix, Head};
use weightpress::tensor::Matrix;

const LAYERS: [&str; 2] = ["vgg_99-0-32-0-0.9955", "dta_80-0-16-0-0.23378"];

/// These layers are symbols, which pco does not take.
fn codecs() -> impl Iterator<Item = CodecId> {
    CodecId::ALL.iter().copied().filter(|&id| id != CodecId::Pco)
}

fn read(layer: &str) -> Matrix {
    layer::read(&Path::new(layer::BUNDLED).join(format!("{layer}.npz")))
}

fn opened(matrix: &Matrix, id: CodecId) -> CompressedMatrix {
    let rows_per_block = codec::rows_per_block_for(matrix)(id);
    let payload = codec::encode(matrix, id, rows_per_block).unwrap();
    CompressedMatrix::open(id, Head::of(matrix, rows_per_block).unwrap(), payload.into()).unwrap()
}

fn encode_and_decode(c: &mut Criterion) {
    for layer in LAYERS {
        let matrix = read(layer);
        let weights = Throughput::Elements((matrix.rows() * matrix.cols()) as u64);
        let mut group = c.benchmark_group(format!("encode/{layer}"));
        group.throughput(weights.clone());
        for id in codecs() {
            group.bench_function(id.name(), |b| {
                b.iter(|| codec::encode(&matrix, id, codec::rows_per_block_for(&matrix)(id)))
            });
        }
        group.finish();
        let mut group = c.benchmark_group(format!("decode/{layer}"));
        group.throughput(weights);
        for id in codecs() {
            let compressed = opened(&matrix, id);
            let mut out = vec![0.0; matrix.rows() * matrix.cols()];
            group.bench_function(id.name(), |b| b.iter(|| compressed.decode_rows(0..matrix.rows(), &mut out)));
        }
        group.finish();
    }
}

fn multiply(c: &mut Criterion) {
    for layer in LAYERS {
        let matrix = read(layer);
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let mut group = c.benchmark_group(format!("multiply/{layer}"));
        for batch in [1, 32] {
            let x: Vec<f32> = (0..cols * batch).map(|i| (i % 17) as f32 - 8.0).collect();
            let mut out = vec![0.0; rows * batch];
            group.throughput(Throughput::Elements((rows * cols * batch) as u64));
            let dense: Vec<f32> = (0..rows * cols).map(|i| matrix.value(i) as f32).collect();
            let dense = ArrayView2::from_shape((rows, cols), &dense).unwrap();
            let inputs = ArrayView2::from_shape((cols, batch), &x).unwrap();
            group.bench_function(BenchmarkId::new("dense_f32_rival", batch), |b| b.iter(|| dense.dot(&inputs)));
            for id in codecs() {
                let compressed = opened(&matrix, id);
                let bench = BenchmarkId::new(id.name(), batch);
                group.bench_function(bench, |b| b.iter(|| compressed.multiply(&x, batch, &mut out)));
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = encode_and_decode, multiply
}
criterion_main!(benches);
