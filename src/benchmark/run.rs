//! The measuring: rounds in which every contender has a turn.

use std::time::{Duration, Instant};

use super::report::{BenchmarkReport, ContenderReport, LayerTime, Timing};
use super::settings::Checked;
use super::{BenchmarkError, Samples, Settings};
use crate::infer::{Array, InferError, Predictor, Profile, Residency};
use crate::progress::Progress;

/// Share of a timing's seconds that warms up caches, plans and the clock of the processor.
const WARM_UP: f64 = 0.1;
/// Share of a timing's seconds that times operators one by one.
const PROFILES: f64 = 0.2;
/// How long a turn is to be: long enough for the caches to fill with the contender's weights, short enough for noise to
/// meet all contenders alike.
const TURN: Duration = Duration::from_millis(10);
/// Most predictions in a turn.
const MAX_TURN: usize = 1000;
/// Most predictions of a contender that are timed at one setting; bounds the memory.
const MAX_RUNS: usize = 1 << 20;
/// Progress is reported at most this often.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Contenders, what they run on, and what is measured.
#[derive(Clone, Copy)]
pub struct Benchmark<'a> {
    /// The first is the baseline. All take the same inputs.
    pub contenders: &'a [Contender<'a>],
    pub samples: Samples<'a>,
    pub settings: &'a Settings,
}

/// A version under one residency.
#[derive(Clone, Copy)]
pub struct Contender<'a> {
    /// What it is called in the report.
    pub name: &'a str,
    pub residency: Residency,
    /// Bytes of its file.
    pub size_bytes: u64,
    pub predictor: &'a Predictor,
}

impl Benchmark<'_> {
    /// Measures every contender at every setting. Predictions run on pools of their own, whatever the current one; the
    /// caller's thread waits.
    ///
    /// # Errors
    /// A [`BenchmarkError`]; [`BenchmarkError::Cancelled`] once `progress` says so, after the prediction that runs then.
    pub fn run(&self, progress: &dyn Progress) -> Result<BenchmarkReport, BenchmarkError> {
        let Some(baseline) = self.contenders.first() else { return Ok(BenchmarkReport { contenders: Vec::new() }) };
        let (inputs, outputs) = (baseline.predictor.inputs(), baseline.predictor.outputs());
        let Checked { batches, threads, seconds } =
            self.settings.checked(inputs, self.contenders.len(), rayon::current_num_threads())?;
        let mut reports: Vec<_> = self.contenders.iter().map(Contender::report).collect();
        let time = Duration::from_secs_f64(seconds * self.contenders.len() as f64);
        let settings = batches.iter().flat_map(|&batch| threads.iter().map(move |&threads| (batch, threads)));
        let count = batches.len() * threads.len();
        for (done, (batch, threads)) in settings.enumerate() {
            let inputs = self.samples.read((inputs, outputs), batch)?;
            let setting = Setting { contenders: self.contenders, inputs: &inputs, time, batch, threads };
            let clock =
                Clock { progress, from: done as f64 / count as f64, share: 1.0 / count as f64, setting: &setting };
            let timings = on_threads(threads, || setting.measure(&clock))??;
            reports.iter_mut().zip(timings).for_each(|(report, timing)| report.timings.push(timing));
        }
        progress.report(1.0, "benchmark", "");
        Ok(BenchmarkReport { contenders: reports })
    }
}

impl Contender<'_> {
    fn report(&self) -> ContenderReport {
        ContenderReport {
            name: self.name.to_owned(),
            residency: self.residency,
            size_bytes: self.size_bytes,
            weights_resident_bytes: self.predictor.weights_resident_bytes(),
            timings: Vec::new(),
        }
    }
}

/// Runs `work` on a pool of this many threads. From a plain thread: a thread of another pool would, while it waits, begin
/// other work of its own pool and come back only when that is done.
fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, BenchmarkError> {
    let refused = |reason: String| BenchmarkError::Threads { reason };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("benchmark-{index}"));
    let pool = pool.build().map_err(|error| refused(error.to_string()))?;
    std::thread::scope(|scope| {
        let waiting = std::thread::Builder::new().spawn_scoped(scope, || pool.install(work));
        let waiting = waiting.map_err(|error| refused(error.to_string()))?;
        Ok(waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// One batch on one number of threads.
struct Setting<'a> {
    contenders: &'a [Contender<'a>],
    inputs: &'a [(String, Array)],
    /// For all contenders together.
    time: Duration,
    batch: usize,
    threads: usize,
}

/// Where a setting stands in the whole.
struct Clock<'a> {
    progress: &'a dyn Progress,
    from: f64,
    share: f64,
    setting: &'a Setting<'a>,
}

/// What one contender did at one setting.
#[derive(Default)]
struct Record {
    /// Seconds of each prediction.
    runs: Vec<f64>,
    /// Seconds of the predictions of each turn.
    turns: Vec<f64>,
    profiles: Vec<Profile>,
}

impl Setting<'_> {
    fn measure(&self, clock: &Clock<'_>) -> Result<Vec<Timing>, BenchmarkError> {
        let mut warm_up = self.records();
        self.rounds(clock, (0.0, WARM_UP), |index| self.turn(index, 1, &mut warm_up[index]))?;
        let slowest = warm_up.iter().map(|record| median(record.runs.clone())).fold(0.0, f64::max);
        let turn = (TURN.as_secs_f64() / slowest.max(1e-9)).clamp(1.0, MAX_TURN as f64) as usize;

        let mut records = self.records();
        self.rounds(clock, (WARM_UP, 1.0 - PROFILES), |index| self.turn(index, turn, &mut records[index]))?;
        self.rounds(clock, (1.0 - PROFILES, 1.0), |index| {
            records[index].profiles.push(self.contenders[index].predictor.profile(self.inputs.to_vec())?);
            Ok(records[index].profiles.len() < MAX_RUNS)
        })?;

        let baseline = records[0].turns.clone();
        let timings = self.contenders.iter().zip(records);
        Ok(timings.map(|(contender, record)| self.timing(contender, record, &baseline)).collect())
    }

    fn records(&self) -> Vec<Record> {
        self.contenders.iter().map(|_| Record::default()).collect()
    }

    /// Gives every contender `turn` after `turn` in the part `from` to `to` of the time, once at least, until one of them
    /// says that it is enough. Each round begins with another contender.
    fn rounds(
        &self,
        clock: &Clock<'_>,
        (from, to): (f64, f64),
        mut turn: impl FnMut(usize) -> Result<bool, InferError>,
    ) -> Result<(), BenchmarkError> {
        let (started, time) = (Instant::now(), self.time.mul_f64(to - from));
        let mut reported = None;
        for first in 0.. {
            for offset in 0..self.contenders.len() {
                clock.progress.check()?;
                if !turn((first + offset) % self.contenders.len())? {
                    return Ok(());
                }
            }
            let elapsed = started.elapsed();
            if elapsed >= time {
                break;
            }
            if reported.is_none_or(|last| elapsed - last > REPORT_INTERVAL) {
                reported = Some(elapsed);
                clock.report(from + (to - from) * elapsed.as_secs_f64() / time.as_secs_f64());
            }
        }
        Ok(())
    }

    /// Times `count` predictions of contender `index`; false when there are enough.
    fn turn(&self, index: usize, count: usize, record: &mut Record) -> Result<bool, InferError> {
        let mut sum = 0.0;
        for _ in 0..count {
            let inputs = self.inputs.to_vec();
            let started = Instant::now();
            let outputs = self.contenders[index].predictor.run(inputs)?;
            let seconds = started.elapsed().as_secs_f64();
            drop(outputs);
            record.runs.push(seconds);
            sum += seconds;
        }
        record.turns.push(sum);
        Ok(record.runs.len() + count <= MAX_RUNS)
    }

    fn timing(&self, contender: &Contender<'_>, record: Record, baseline: &[f64]) -> Timing {
        let Record { mut runs, turns, profiles } = record;
        let ratios = turns.iter().zip(baseline).map(|(own, baseline)| own / baseline.max(f64::MIN_POSITIVE)).collect();
        let samples = (self.batch * runs.len()) as f64;
        let layer = |(index, name): (usize, &String)| LayerTime {
            name: name.clone(),
            p50_ms: median_ms(profiles.iter().map(|profile| profile.layers[index])),
        };
        runs.sort_unstable_by(f64::total_cmp);
        Timing {
            batch: self.batch,
            threads: self.threads,
            runs: runs.len() as u64,
            p50_ms: 1e3 * quantile(&runs, 0.5),
            p95_ms: 1e3 * quantile(&runs, 0.95),
            samples_per_second: samples / runs.iter().sum::<f64>().max(f64::MIN_POSITIVE),
            time_ratio: median(ratios),
            layers: contender.predictor.layers().iter().enumerate().map(layer).collect(),
            graph_ms: median_ms(profiles.iter().map(|profile| profile.graph)),
        }
    }
}

impl Clock<'_> {
    fn report(&self, fraction: f64) {
        let Setting { batch, threads, .. } = self.setting;
        let message = format!("batch {batch} on {threads} thread{}", if *threads == 1 { "" } else { "s" });
        self.progress.report(self.from + self.share * fraction.min(1.0), "benchmark", &message);
    }
}

fn median_ms(times: impl Iterator<Item = Duration>) -> f64 {
    1e3 * median(times.map(|time| time.as_secs_f64()).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// The smallest of the ascending `values` that at least this share of them does not exceed (the nearest rank); 0 of none.
fn quantile(values: &[f64], share: f64) -> f64 {
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use prost::Message;

    use super::*;
    use crate::model::Model;
    use crate::model::fixture::{floats, graph, model, node, port};
    use crate::progress::{CancelFlag, Silent};

    /// One layer, and an activation.
    fn predictor(batch: i64) -> Predictor {
        let nodes = vec![node("MatMul", "x w", "h"), node("Relu", "h", "y")];
        let mut graph = graph(nodes, vec![floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])]);
        graph.input = vec![port("x", &[batch, 2])];
        graph.output = vec![port("y", &[batch, 2])];
        Predictor::from_model(&Model::from_bytes(model(graph).encode_to_vec().into()).unwrap()).unwrap()
    }

    fn run(names: &[&str], settings: &Settings, progress: &dyn Progress) -> Result<BenchmarkReport, BenchmarkError> {
        let predictor = predictor(-1);
        let contender = |&name| Contender { name, residency: Residency::Dense, size_bytes: 7, predictor: &predictor };
        let contenders: Vec<_> = names.iter().map(contender).collect();
        let samples = Samples::Random { shapes: &BTreeMap::new() };
        Benchmark { contenders: &contenders, samples, settings }.run(progress)
    }

    /// As short as may be.
    fn short() -> Settings {
        Settings { batches: vec![1, 3], threads: vec![1], seconds: Some(0.01) }
    }

    #[test]
    fn every_contender_has_a_timing_for_every_setting() {
        let report = run(&["old", "new"], &short(), &Silent).unwrap();
        assert_eq!(report.contenders.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["old", "new"]);
        for contender in &report.contenders {
            assert_eq!((contender.size_bytes, contender.weights_resident_bytes > 0), (7, true));
            let settings: Vec<_> = contender.timings.iter().map(|timing| (timing.batch, timing.threads)).collect();
            assert_eq!(settings, [(1, 1), (3, 1)]);
            for timing in &contender.timings {
                assert!(timing.runs > 0 && timing.p50_ms > 0.0 && timing.p95_ms >= timing.p50_ms, "{timing:?}");
                assert!(timing.samples_per_second > 0.0 && timing.time_ratio > 0.0, "{timing:?}");
                let names: Vec<_> = timing.layers.iter().map(|layer| layer.name.as_str()).collect();
                assert_eq!(names, ["w"]);
                assert!(timing.layers[0].p50_ms > 0.0 && timing.graph_ms > 0.0, "{timing:?}");
            }
        }
        assert!(report.contenders[0].timings.iter().all(|timing| timing.time_ratio == 1.0));
    }

    #[test]
    fn a_benchmark_that_is_cancelled_stops() {
        let flag = CancelFlag::default();
        flag.cancel();
        assert!(matches!(run(&["only"], &short(), &flag), Err(BenchmarkError::Cancelled(_))));
    }

    #[test]
    fn progress_says_which_setting_runs() {
        struct Notes(Mutex<Vec<(f64, String)>>);
        impl Progress for Notes {
            fn report(&self, fraction: f64, _stage: &str, message: &str) {
                self.0.lock().unwrap().push((fraction, message.to_owned()));
            }
            fn is_cancelled(&self) -> bool {
                false
            }
        }
        let notes = Notes(Mutex::default());
        run(&["old", "new"], &short(), &notes).unwrap();
        let notes = notes.0.into_inner().unwrap();
        assert!(notes.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{notes:?}");
        assert!(notes.iter().any(|(_, message)| message == "batch 3 on 1 thread"), "{notes:?}");
        assert_eq!(notes.last().map(|(fraction, _)| *fraction), Some(1.0));
    }

    #[test]
    fn work_runs_on_a_pool_of_the_width_asked_for() {
        for threads in [1, 3] {
            assert_eq!(on_threads(threads, rayon::current_num_threads).unwrap(), threads);
        }
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.95)), (10.0, 19.0));
        assert_eq!((quantile(&[3.0], 0.95), quantile(&[], 0.5)), (3.0, 0.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
    }
}
