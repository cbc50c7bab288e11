//! Makes the first weights of mix's mixers anew: `cargo bench --bench mix_priors -- FILE_OR_FOLDER...`
//!
//! Reads npz files with `indices` (inputs, outputs) and `codebook`, codes each from the priors as they are, and prints the
//! means of what the mixers had learned at the end, as `src/codec/mix/priors.rs` holds them. Run it again on what it
//! printed until the bytes stay the same; ARCHITECTURE.md says which networks the released ones come from. Other priors are
//! another codec, with a number of its own.

#![cfg_attr(test, allow(dead_code, unused_imports, reason = "the tests of the codec's files are run with the codec"))]

#[path = "../src/codec/mix/coder.rs"]
mod coder;
#[path = "../src/codec/mix/contexts.rs"]
mod contexts;
#[path = "../src/codec/mix/counter.rs"]
mod counter;
#[path = "../src/kernel/integer.rs"]
mod integer;
#[path = "../tests/codec/layer.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod layer;
#[path = "../src/codec/mix/lines.rs"]
#[allow(dead_code, reason = "the codec uses all of it")]
mod lines;
#[path = "../src/codec/mix/logistic.rs"]
mod logistic;
#[path = "../src/codec/mix/mixer.rs"]
mod mixer;
#[path = "../src/codec/mix/model.rs"]
#[allow(dead_code, reason = "the codec uses all of it")]
mod model;
#[path = "../src/codec/mix/predictor.rs"]
mod predictor;
#[path = "../src/codec/mix/priors.rs"]
mod priors;
#[path = "../src/codec/mix/references.rs"]
mod references;
#[path = "../src/codec/mix/refiner.rs"]
mod refiner;

/// Where the codec's files look for it.
mod kernel {
    pub(crate) use super::integer;
}

use std::path::{Path, PathBuf};

use coder::Writer;
use lines::Lines;
use model::{Alphabet, Model};
use weightpress::tensor::{Matrix, Values};

/// The sums of what was learned, and how many layers had something to learn from.
struct Learned {
    name: &'static str,
    prior: &'static [i32],
    sums: Vec<i64>,
    layers: i64,
}

fn main() {
    let mut learned =
        [("ZERO", contexts::ZERO.prior), ("SIGN", contexts::SIGN.prior), ("MAGNITUDE", contexts::MAGNITUDE.prior)]
            .map(|(name, prior)| Learned { name, prior, sums: vec![0; prior.len()], layers: 0 });
    let mut total = 0;
    // Cargo passes `--bench` to every benchmark.
    for path in std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).flat_map(|arg| files(Path::new(&arg))) {
        let (bytes, model) = code(&layer::read(&path));
        eprintln!("{bytes:>9}  {}", path.display());
        total += bytes;
        for (learned, predictor) in learned.iter_mut().zip(model.predictors()) {
            let Some(weights) = predictor.mean_weights(learned.prior) else { continue };
            learned.layers += 1;
            learned.sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += i64::from(weight));
        }
    }
    eprintln!("{total:>9}  bytes with the priors as they were");
    for Learned { name, sums, layers, .. } in learned {
        let means: Vec<String> = sums.iter().map(|sum| (sum / layers.max(1)).to_string()).collect();
        println!("pub(super) const {name}: [i32; {}] = [{}];", means.len(), means.join(", "));
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "npz"));
    files.sort();
    files
}

/// Codes a layer as one block: its bytes, and what was learned.
fn code(matrix: &Matrix) -> (usize, Model) {
    let Values::Shared { codebook, indices } = matrix.values() else { unreachable!("layers have a codebook") };
    let has_zero = codebook.zero().is_some();
    let below = codebook.values().iter().filter(|value| value.is_sign_negative()).count() as u32;
    let alphabet = Alphabet { has_zero, below, above: codebook.len() as u32 - below - u32::from(has_zero) };
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let lines = Lines::of(rows, cols, indices, |symbol| Some(symbol) != codebook.zero());
    let grid = lines.grid(rows, cols);
    let (mut model, mut writer) = (Model::new(grid, alphabet), Writer::new());
    for line in 0..grid.lines {
        model.code_line(&mut writer, line, |place, _| {
            let (row, col) = lines.cell(line, place);
            alphabet.level(indices[row * cols + col])
        });
    }
    (writer.finish().len(), model)
}
