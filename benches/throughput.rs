//! Compression of a network of 100 million weights: weights a second, and the peak of resident memory.
//!
//! Not a statistical benchmark: one run of minutes at most, on the threads that the machine has.
//! `cargo bench --bench throughput [-- LAYERS]`; memory is read from Linux' `/proc`.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weightpress::compress::{Recipe, compress};
use weightpress::model::Model;
use weightpress::progress::Silent;

const SIDE: usize = 2048;
const LAYER_BYTES: usize = SIDE * SIDE * 4;
const RECIPE: &str = r#"{"prune":{"sparsity":0.9},"quantize":{"method":"cws","levels":32},"encode":{"codec":"rans"}}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layers = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(25);
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("network.safetensors");
    write_network(&input, layers)?;

    let (model, recipe) = (Model::open(&input)?, Recipe::from_json(RECIPE)?);
    let (memory_before, cpu_before, started) = (resident_mib("VmHWM"), cpu_seconds(), Instant::now());
    let report = compress(&model, &recipe, &folder.path().join("out.safetensors"), &Silent)?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);

    let millions = report.weights as f64 / 1e6;
    let threads = rayon::current_num_threads();
    println!("recipe      {RECIPE}");
    println!("network     {layers} layers of {SIDE} x {SIDE}, {millions:.1} M weights, {} bytes", report.source_bytes);
    println!("artifact    {} bytes, {:.1} times smaller, psi {:.4}", report.artifact_bytes, report.ratio, report.psi);
    println!("time        {seconds:.2} s on {threads} threads: {:.1} M weights/s", millions / seconds);
    println!(
        "            {cpu:.2} s of processor time: {:.1} M weights/s on each thread of an idle machine",
        millions / cpu
    );
    let aim = 2 * threads * LAYER_BYTES;
    println!("memory      peak {:.0} MiB, {memory_before:.0} before", resident_mib("VmHWM"));
    println!("            (twice the largest tensor times the threads: {} MiB)", aim >> 20);
    Ok(())
}

/// Bell curves, as trained weights are: sums of four uniform variables.
fn write_network(path: &Path, layers: usize) -> std::io::Result<()> {
    let entry = |i: usize| {
        let (start, end) = (i * LAYER_BYTES, (i + 1) * LAYER_BYTES);
        format!(r#""layer{i:03}":{{"dtype":"F32","shape":[{SIDE},{SIDE}],"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", (0..layers).map(entry).collect::<Vec<_>>().join(","));
    let mut out = BufWriter::new(std::fs::File::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..layers * SIDE * SIDE {
        let bits = random
            .next_u64()
            .to_le_bytes()
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| i32::from(u16::from_le_bytes(*b)))
            .sum::<i32>();
        let weight = (bits - 2 * 65535) as f32 * 3e-7;
        out.write_all(&weight.to_le_bytes())?;
    }
    out.flush()
}

/// Processor time of all threads, which a busy machine does not lengthen as it does the clock; 0 where there is no
/// `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name in parentheses: user and system time are fields 14 and 15, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A line of `/proc/self/status` in MiB; 0 where there is none.
fn resident_mib(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|v| v.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
