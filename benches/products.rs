//! Products on weights in memory against a dense f32 product of the `gemm` crate, in one run and on one thread.
//!
//! `cargo bench --bench products [-- FILE_OR_FOLDER...]`: 4096 x 4096 Gaussian weights shared by CWS, then layers of the
//! base paper's authors (npz files; without a path the bundled ones), where plain packed rows are the rival of the delta
//! tree. Rivals take turns, and each time is the shortest of many: a ratio that a busy machine does not spoil. The dense
//! product is the faster of two layouts of the weights. A ratio above its bar is marked.

#[path = "../tests/codec/layer.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod layer;

use std::path::{Path, PathBuf};
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weightpress::codec::{self, CodecId, CompressedMatrix, Head};
use weightpress::packed::{PackedMatrix, Reuse};
use weightpress::progress::Silent;
use weightpress::prune::{Criterion, Prune, Scope, Sparsity};
use weightpress::quantize::{Cws, Distribution, Levels, Quantizer};
use weightpress::tensor::{FloatType, LayerContext, Matrix};

const SIDE: usize = 4096;

/// A product of Gaussian weights, and the most that it may take of the dense product's time and memory.
struct Case {
    sparsity: f64,
    /// Values besides zero.
    levels: i64,
    batch: usize,
    packed_time: f64,
    packed_memory: Option<f64>,
    coded_time: Option<f64>,
    coded_memory: Option<f64>,
}

const CASES: [Case; 4] = [
    Case {
        sparsity: 0.9,
        levels: 31,
        batch: 1,
        packed_time: 0.45,
        packed_memory: Some(1.0 / 18.0),
        coded_time: Some(1.0),
        coded_memory: Some(1.0 / 32.0),
    },
    Case {
        sparsity: 0.95,
        levels: 31,
        batch: 1,
        packed_time: 0.25,
        packed_memory: None,
        coded_time: Some(0.6),
        coded_memory: None,
    },
    Case {
        sparsity: 0.9,
        levels: 31,
        batch: 32,
        packed_time: 0.5,
        packed_memory: None,
        coded_time: Some(0.6),
        coded_memory: None,
    },
    Case {
        sparsity: 0.0,
        levels: 16,
        batch: 1,
        packed_time: 0.6,
        packed_memory: Some(1.0 / 7.0),
        coded_time: None,
        coded_memory: None,
    },
];

/// The most that a product along the tree may take of the time of plain packed rows: layers by the start of their names.
const TREE_BARS: [(&str, usize, f64); 6] = [
    ("vgg_90", 1, 0.35),
    ("vgg_90", 32, 0.35),
    ("vgg_97", 1, 0.35),
    ("vgg_97", 32, 0.35),
    ("vgg_99", 1, 0.35),
    ("vgg_99", 32, 0.6),
];

fn main() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one_thread.install(|| {
        println!("{SIDE} x {SIDE}, ratios to dense f32: time (bar), memory (bar)\n");
        println!("zeros  levels  batch   dense ms   packed time   packed memory     coded time    coded memory");
        CASES.iter().for_each(print_case);
        println!("\nlayers, ratios to plain packed rows (no tree, no copies): time (bar), entries, memory\n");
        println!("layer                     batch   plain us     tree time  entries   memory   largest error");
        layers().iter().for_each(|file| print_layer(file));
    });
}

/// The files named on the command line, or those bundled. Cargo passes `--bench` to every benchmark.
fn layers() -> Vec<PathBuf> {
    let named: Vec<PathBuf> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(PathBuf::from).collect();
    let paths = if named.is_empty() { vec![PathBuf::from(layer::BUNDLED)] } else { named };
    let mut files: Vec<PathBuf> = paths.iter().flat_map(|path| npz_files(path)).collect();
    files.sort();
    files
}

fn npz_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "npz")).collect()
}

fn print_case(case: &Case) {
    let matrix = gaussian(case.sparsity, case.levels);
    let dense = Dense::of(&matrix);
    let packed = PackedMatrix::from_matrix(&matrix, Reuse::Differences).unwrap();
    let coded = case.coded_time.map(|_| opened(&matrix, CodecId::Rans));
    let x = inputs(SIDE * case.batch);
    let [mut out, mut out_columns, mut out_packed, mut out_coded] =
        std::array::from_fn(|_| vec![0.0; SIDE * case.batch]);
    let [by_rows, by_columns, packed_time, coded_time] = times([
        &mut || dense.by_rows(&x, case.batch, &mut out),
        &mut || dense.by_columns(&x, case.batch, &mut out_columns),
        &mut || packed.multiply(&x, case.batch, &mut out_packed),
        &mut || {
            if let Some(coded) = &coded {
                coded.multiply(&x, case.batch, &mut out_coded);
            }
        },
    ]);
    let dense_time = by_rows.min(by_columns);
    let dense_bytes = (4 * SIDE * SIDE) as f64;
    print!(
        "{:>4.0} % {:>7} {:>6} {:>10.3}  {}  {}",
        100.0 * case.sparsity,
        case.levels,
        case.batch,
        1e3 * dense_time,
        ratio(packed_time / dense_time, Some(case.packed_time)),
        ratio(packed.resident_bytes() as f64 / dense_bytes, case.packed_memory)
    );
    if let Some(coded) = coded {
        print!(
            "  {}  {}",
            ratio(coded_time / dense_time, case.coded_time),
            ratio(coded.resident_bytes() as f64 / dense_bytes, case.coded_memory)
        );
    }
    println!();
    assert!(largest_error(&out, &out_packed) < 1e-5, "the products differ");
}

fn print_layer(file: &Path) {
    let name = file.file_stem().unwrap().to_string_lossy();
    let matrix = layer::read(file);
    let plain = PackedMatrix::from_matrix(&matrix, Reuse::Nothing).unwrap();
    let started = Instant::now();
    let packed = PackedMatrix::from_matrix(&matrix, Reuse::Differences).unwrap();
    let pack_seconds = started.elapsed().as_secs_f64();
    for batch in [1, 32] {
        let x = inputs(matrix.cols() * batch);
        let (mut out, mut out_plain) = (vec![0.0; matrix.rows() * batch], vec![0.0; matrix.rows() * batch]);
        let [plain_time, time] =
            times([&mut || plain.multiply(&x, batch, &mut out_plain), &mut || packed.multiply(&x, batch, &mut out)]);
        let bar = TREE_BARS.iter().find(|bar| name.starts_with(bar.0) && bar.1 == batch).map(|bar| bar.2);
        println!(
            "{name:<25} {batch:>5} {:>10.1}  {} {:>8.3} {:>8.3} {:>15.1e}",
            1e6 * plain_time,
            ratio(time / plain_time, bar),
            packed.visited_cells() as f64 / plain.visited_cells() as f64,
            packed.resident_bytes() as f64 / plain.resident_bytes() as f64,
            largest_error(&out_plain, &out)
        );
    }
    println!("    packed in {:.0} ms, {} of {} rows held", 1e3 * pack_seconds, packed.held_rows(), packed.rows());
}

/// `value` beside its bar, if it has one.
fn ratio(value: f64, bar: Option<f64>) -> String {
    match bar {
        Some(bar) if value > bar => format!("{value:.3} ({bar:.3})!"),
        Some(bar) => format!("{value:.3} ({bar:.3}) "),
        None => format!("{value:.3}         "),
    }
}

/// The largest difference, as a part of the largest output.
fn largest_error(expected: &[f32], found: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |most, y| most.max(y.abs()));
    expected.iter().zip(found).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// The shortest time of each, in seconds: they take turns for at least a second and 20 rounds.
fn times<const N: usize>(mut works: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut least = [f64::INFINITY; N];
    let (started, mut rounds) = (Instant::now(), 0);
    while rounds < 20 || started.elapsed().as_secs_f64() < 1.0 {
        for (work, least) in works.iter_mut().zip(&mut least) {
            let started = Instant::now();
            work();
            *least = least.min(started.elapsed().as_secs_f64());
        }
        rounds += 1;
    }
    least
}

/// Gaussian weights, the smallest pruned and the others shared by CWS.
fn gaussian(sparsity: f64, levels: i64) -> Matrix {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut uniform = || ((random.next_u32() >> 9) as f32 + 0.5) / 8_388_608.0;
    let mut weights: Vec<f32> =
        (0..SIDE * SIDE).map(|_| (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos()).collect();
    if sparsity > 0.0 {
        let context = LayerContext::new("gaussian", SIDE, SIDE, &weights);
        let prune = Prune {
            criterion: Criterion::Magnitude,
            sparsity: Sparsity::new(sparsity).unwrap(),
            scope: Scope::Tensor,
            pattern: None,
        };
        let mask = prune.mask(&context, prune.threshold(&context));
        weights.iter_mut().enumerate().filter(|(i, _)| !mask.is_kept(*i)).for_each(|(_, weight)| *weight = 0.0);
    }
    let quantizer = Quantizer::Cws(Cws { levels: Levels::new(levels).unwrap() });
    let fitted = quantizer.fit(&Distribution::of(&weights), FloatType::F32, &Silent).unwrap();
    fitted.assign(&LayerContext::new("gaussian", SIDE, SIDE, &weights), &Silent).unwrap()
}

fn inputs(len: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    (0..len).map(|_| random.next_u32() as f32 / 2_147_483_648.0 - 1.0).collect()
}

fn opened(matrix: &Matrix, id: CodecId) -> CompressedMatrix {
    let rows_per_block = codec::rows_per_block_for(matrix)(id);
    let payload = codec::encode(matrix, id, rows_per_block).unwrap();
    CompressedMatrix::open(id, Head::of(matrix, rows_per_block).unwrap(), payload.into()).unwrap()
}

/// The weights in full, row-major and column-major.
struct Dense {
    rows: Vec<f32>,
    columns: Vec<f32>,
}

impl Dense {
    fn of(matrix: &Matrix) -> Self {
        let rows: Vec<f32> = (0..SIDE * SIDE).map(|i| matrix.value(i) as f32).collect();
        let columns = (0..SIDE * SIDE).map(|i| rows[i % SIDE * SIDE + i / SIDE]).collect();
        Self { rows, columns }
    }

    fn by_rows(&self, x: &[f32], batch: usize, out: &mut [f32]) {
        dense_product(&self.rows, (1, SIDE as isize), x, batch, out);
    }

    fn by_columns(&self, x: &[f32], batch: usize, out: &mut [f32]) {
        dense_product(&self.columns, (SIDE as isize, 1), x, batch, out);
    }
}

/// `strides`: of the weights, from one column and from one row to the next.
fn dense_product(weights: &[f32], strides: (isize, isize), x: &[f32], batch: usize, out: &mut [f32]) {
    assert_eq!((weights.len(), x.len(), out.len()), (SIDE * SIDE, SIDE * batch, SIDE * batch));
    let (column, row) = strides;
    let (x, samples) = (x.as_ptr(), batch as isize);
    // SAFETY: the slices hold all that these sizes and strides reach, and `out` is no part of the others.
    unsafe {
        gemm::gemm(
            SIDE,
            batch,
            SIDE,
            out.as_mut_ptr(),
            1,
            samples,
            false,
            weights.as_ptr(),
            column,
            row,
            x,
            1,
            samples,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
