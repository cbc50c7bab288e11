//! Weights that a codec encodes and decodes in a second, on one thread: 4096 x 4096 Gaussian weights shared by CWS, nine in
//! ten of them zero, and 2048 x 2048 of 256 values without zeros. Each time is the shortest of several; a block of rows at
//! a time is decoded, to one buffer.
//!
//! `cargo bench --bench coders` exits with status 1 if rANS decodes fewer than 1,000 M weights/s of the first or 200 M
//! of the second, or mix codes fewer than 1 M either way.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weightpress::codec::{self, CodecId, CompressedMatrix, Head};
use weightpress::progress::Silent;
use weightpress::prune::{Criterion, Prune, Scope, Sparsity};
use weightpress::quantize::{Cws, Distribution, Levels, Quantizer};
use weightpress::tensor::{FloatType, LayerContext, Matrix};

/// Times are the shortest of so many, or of those that fit in a while.
const RUNS: usize = 9;
const WHILE: Duration = Duration::from_secs(5);

/// M weights/s that mix encodes and decodes at least.
const MIX_CODES: f64 = 1.0;

/// A matrix, and M weights/s that rANS decodes at least.
struct Case {
    side: usize,
    sparsity: f64,
    /// Values besides zero.
    levels: i64,
    rans_decodes: f64,
}

const CASES: [Case; 2] = [
    Case { side: 4096, sparsity: 0.9, levels: 31, rans_decodes: 1000.0 },
    Case { side: 2048, sparsity: 0.0, levels: 256, rans_decodes: 200.0 },
];

fn main() -> ExitCode {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let misses: usize = pool.install(|| CASES.iter().map(measure).sum());
    if misses > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints the table of a case and returns how many bars were missed.
fn measure(case: &Case) -> usize {
    let matrix = gaussian(case);
    let weights = (case.side * case.side) as f64;
    println!("{0} x {0}, {1} % zeros, {2} levels; M weights/s", case.side, 100.0 * case.sparsity, case.levels);
    println!("  codec         bytes  bits/weight   encodes     opens   decodes  multiplies");
    let mut misses = 0;
    // Symbols, which pco does not take.
    for &id in CodecId::ALL.iter().filter(|&&id| id != CodecId::Pco) {
        let rows_per_block = codec::rows_per_block_for(&matrix)(id);
        let (encode, payload) = shortest(|| codec::encode(&matrix, id, rows_per_block).unwrap());
        let bytes = payload.len();
        let payload = bytes::Bytes::from(payload);
        let head = Head::of(&matrix, rows_per_block).unwrap();
        let (open, compressed) = shortest(|| CompressedMatrix::open(id, head.clone(), payload.clone()).unwrap());
        let mut block = vec![0.0; rows_per_block.min(case.side) * case.side];
        let (decode, ()) = shortest(|| {
            for start in (0..case.side).step_by(rows_per_block) {
                let rows = start..case.side.min(start + rows_per_block);
                let cells = rows.len() * case.side;
                compressed.decode_rows(rows, &mut block[..cells]);
            }
        });
        let (x, mut out) = (vec![0.5; case.side], vec![0.0; case.side]);
        let multiply = id.is_serving().then(|| shortest(|| compressed.multiply(&x, 1, &mut out)).0);
        let speed = |seconds: f64| weights / seconds / 1e6;
        print!("  {:<9} {bytes:>9}  {:>11.4}", id.name(), 8.0 * bytes as f64 / weights);
        [encode, open, decode].iter().for_each(|&seconds| print!("  {:>8.1}", speed(seconds)));
        print!("  {:>10}", multiply.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1}", speed(seconds))));
        let expected = match id {
            CodecId::Rans => case.rans_decodes,
            CodecId::Mix => MIX_CODES,
            _ => 0.0,
        };
        if speed(decode) < expected || (id == CodecId::Mix && speed(encode) < expected) {
            print!("  {expected} EXPECTED");
            misses += 1;
        }
        println!();
    }
    println!();
    misses
}

fn shortest<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut timed = || {
        let started = Instant::now();
        let value = work();
        (started.elapsed().as_secs_f64(), value)
    };
    let started = Instant::now();
    let first = timed();
    let others = (1..RUNS).map_while(|_| (started.elapsed() < WHILE).then(&mut timed));
    others.fold(first, |a, b| if b.0 < a.0 { b } else { a })
}

/// Gaussian weights, pruned by magnitude and shared by CWS.
fn gaussian(case: &Case) -> Matrix {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut uniform = || (random.next_u32() as f32 + 0.5) / 4_294_967_296.0;
    let draw = |_| (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos();
    let mut weights: Vec<f32> = (0..case.side * case.side).map(draw).collect();
    if case.sparsity > 0.0 {
        let sparsity = Sparsity::new(case.sparsity).unwrap();
        let context = LayerContext::new("gaussian", case.side, case.side, &weights);
        let prune = Prune { criterion: Criterion::Magnitude, sparsity, scope: Scope::Tensor, pattern: None };
        let mask = prune.mask(&context, prune.threshold(&context));
        weights.iter_mut().enumerate().filter(|(i, _)| !mask.is_kept(*i)).for_each(|(_, weight)| *weight = 0.0);
    }
    let quantizer = Quantizer::Cws(Cws { levels: Levels::new(case.levels).unwrap() });
    let fitted = quantizer.fit(&Distribution::of(&weights), FloatType::F32, &Silent).unwrap();
    fitted.assign(&LayerContext::new("gaussian", case.side, case.side, &weights), &Silent).unwrap()
}
