//! Sizes of every codec on the layers that the authors of the base paper published.
//!
//! `cargo bench --bench sham_layers -- FILE_OR_FOLDER...` reads npz files with `indices` (inputs, outputs) and `codebook`;
//! without a path, the bundled ones. Exits with status 1 if HAM or sHAM takes more than 1 % and 5 bytes a level above
//! what they took in the base paper's formats, rANS more than 3 % above the entropy of gaps and values, or mix more than the
//! best of entropy, NNCodec and xz, on the VGG layers half of it.

#[path = "../tests/codec/layer.rs"]
mod layer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use layer::{BUNDLED, PUBLISHED, Published};
use weightpress::codec::{self, CodecId, CompressedMatrix, Head};
use weightpress::tensor::{Matrix, Values};

fn main() -> ExitCode {
    // Cargo passes `--bench` to every benchmark.
    let named: Vec<PathBuf> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(PathBuf::from).collect();
    let paths = if named.is_empty() { vec![PathBuf::from(BUNDLED)] } else { named };
    let mut files: Vec<PathBuf> = paths.iter().flat_map(|path| npz_files(path)).collect();
    files.sort();
    println!("bytes; total = codes and positions + dictionary + offsets; the codebook comes on top\n");
    let over: usize = files.iter().map(|file| print_layer(file)).sum();
    if over > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn npz_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "npz")).collect()
}

/// Prints the table of one layer and returns how many codecs take more than they may.
fn print_layer(file: &Path) -> usize {
    let layer = file.file_stem().unwrap().to_string_lossy();
    let matrix = layer::read(file);
    let Values::Shared { codebook, .. } = matrix.values() else { unreachable!("layers have a codebook") };
    let codebook_bytes = codebook.to_le_bytes().len();
    println!("{layer}: {} x {}, {} levels, codebook {codebook_bytes}", matrix.rows(), matrix.cols(), codebook.len());
    println!("  codec         total  codes+positions  dictionary  offsets       psi  published  above");
    let published = PUBLISHED.iter().find(|published| published.layer == layer);
    let mut over = 0;
    // These layers are symbols, which pco does not take.
    for &id in CodecId::ALL.iter().filter(|&&id| id != CodecId::Pco) {
        let sizes = opened(&matrix, id).sizes();
        let total = sizes.total_bytes();
        let psi = (total + codebook_bytes) as f64 / (4 * matrix.rows() * matrix.cols()) as f64;
        print!(
            "  {:<9} {total:>9}  {:>15}  {:>10}  {:>7}  {psi:>8.5}",
            id.name(),
            sizes.block_bytes,
            sizes.shared_bytes,
            sizes.table_bytes
        );
        let stream_bytes = published.and_then(|published| match id {
            CodecId::Ham => Some(published.ham_bytes),
            CodecId::Sham => Some(published.sham_bytes),
            CodecId::Rans => Some(published.entropy_bytes),
            CodecId::Mix => Some(published.rival_bytes),
            _ => None,
        });
        if let (Some(stream_bytes), Some(published)) = (stream_bytes, published) {
            let above = 100.0 * (total as f64 / stream_bytes as f64 - 1.0);
            let allowed = match id {
                CodecId::Rans => published.allowed_above_entropy(),
                CodecId::Mix => published.allowed_beside_rival(),
                _ => Published::allowed_bytes(stream_bytes, codebook.len()),
            };
            print!("  {stream_bytes:>9}  {above:+.3} %{}", if total > allowed { "  TOO MUCH" } else { "" });
            over += usize::from(total > allowed);
        }
        println!();
    }
    println!();
    over
}

fn opened(matrix: &Matrix, id: CodecId) -> CompressedMatrix {
    let rows_per_block = codec::rows_per_block_for(matrix)(id);
    let payload = codec::encode(matrix, id, rows_per_block).unwrap();
    CompressedMatrix::open(id, Head::of(matrix, rows_per_block).unwrap(), payload.into()).unwrap()
}
