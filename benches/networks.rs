//! Latency of whole networks: the time of a prediction by each way to hold the weights.
//!
//! `cargo bench --bench networks -- FILE INPUTS.npz [RESIDENCY ...]` predicts on the arrays of the archive, all samples in
//! one batch, for a second for each residency in turn, and prints a line of JSON for each: the shortest and the median
//! time in microseconds, and the bytes of the weights in memory. `RAYON_NUM_THREADS` sets the threads. On several, it also
//! prints predictions a second under load: as many at a time as there are threads, on one pool that they share, and on pools
//! of one thread each, which requests beside others get from the service.
//! `benches/peers/networks.py` runs it beside ONNX Runtime.

use std::path::Path;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use weightpress::artifact::Artifact;
use weightpress::evaluate::Dataset;
use weightpress::infer::{Array, InferError, Predictor, Residency};

/// How long each residency is measured.
const TIME: Duration = Duration::from_millis(1000);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [file, inputs, residencies @ ..] = &arguments[..] else { return Ok(()) };
    let artifact = Artifact::open(Path::new(file))?;
    let arrays = Dataset::open(Path::new(inputs))?;
    for name in residencies {
        let residency: Residency = serde_json::from_value(name.as_str().into())?;
        let predictor = Predictor::from_artifact(&artifact, residency)?;
        let inputs: Vec<(String, Array)> = predictor
            .inputs()
            .iter()
            .map(|port| Ok((port.name.clone(), arrays.read_all(&port.name)?)))
            .collect::<Result<_, weightpress::evaluate::EvaluateError>>()?;
        let mut times = Vec::new();
        let started = Instant::now();
        while times.len() < 5 || started.elapsed() < TIME {
            let inputs = inputs.clone();
            let start = Instant::now();
            std::hint::black_box(predictor.run(inputs)?);
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        let bytes = predictor.weights_resident_bytes();
        let mut line = serde_json::json!({
            "residency": residency, "least_us": least, "median_us": median, "weights_resident_bytes": bytes,
        });
        let threads = rayon::current_num_threads();
        if threads > 1 {
            let shared = pool(threads)?;
            let apart = (0..threads).map(|_| pool(1)).collect::<Result<Vec<_>, _>>()?;
            line["one_pool_per_second"] = per_second(&vec![&shared; threads], &predictor, &inputs)?.into();
            line["pools_of_one_thread_per_second"] =
                per_second(&apart.iter().collect::<Vec<_>>(), &predictor, &inputs)?.into();
        }
        println!("{line}");
    }
    Ok(())
}

fn pool(threads: usize) -> Result<ThreadPool, rayon::ThreadPoolBuildError> {
    ThreadPoolBuilder::new().num_threads(threads).build()
}

/// Predictions a second of clients that ask one after the other, each on one of `pools`.
fn per_second(
    pools: &[&ThreadPool],
    predictor: &Predictor,
    inputs: &[(String, Array)],
) -> Result<f64, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let client = |pool: &ThreadPool| {
        let mut count = 0;
        while started.elapsed() < TIME {
            pool.install(|| predictor.run(inputs.to_vec()))?;
            count += 1;
        }
        Ok::<_, InferError>(count)
    };
    let count = std::thread::scope(|scope| {
        let clients: Vec<_> = pools.iter().map(|pool| scope.spawn(|| client(pool))).collect();
        clients.into_iter().map(|client| client.join().expect("predictions do not panic")).sum::<Result<u32, _>>()
    })?;
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}
