//! What was asked of each version since the process started, and where the time went.
//!
//! Kept in memory alone. Predictions write it without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts of one version, written by its predictions.
#[derive(Debug, Default)]
pub struct Tallies {
    /// Milliseconds since the epoch; 0 before the first prediction.
    last_ms: AtomicU64,
    samples: AtomicU64,
    executions: AtomicU64,
    success: Tally,
    failure: Tally,
    queue: Tally,
    input: Tally,
    infer: Tally,
    output: Tally,
    /// What reading, running and writing took of late: a mean in which the latest counts for an eighth. 0 before the first.
    recent_ns: AtomicU64,
}

/// How often something was timed, and its time in all.
#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    ns: AtomicU64,
}

/// The counts of one version at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// End of the last prediction, in milliseconds since the epoch; 0 when there was none.
    pub last_ms: u64,
    /// Samples that were predicted, where a version takes any number of them; otherwise requests.
    pub samples: u64,
    /// Predictions that were run; of requests that share a batch, each.
    pub executions: u64,
    pub success: Times,
    pub failure: Times,
    /// Waiting for a thread.
    pub queue: Times,
    /// Reading the request.
    pub input: Times,
    /// Running the graph, and waiting for others to share a batch.
    pub infer: Times,
    /// Writing the answer.
    pub output: Times,
}

/// How often something was timed, and its time in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    pub count: u64,
    pub ns: u64,
}

/// Tells where the time of one prediction goes: each part ends where the next begins.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    started: Instant,
    /// End of the last part.
    lap: Instant,
    queue: Duration,
    input: Duration,
    infer: Duration,
    output: Duration,
}

impl Tallies {
    /// Counts a run of the graph on so many samples.
    pub fn executed(&self, samples: usize) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        self.samples.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// Counts a prediction that was answered.
    pub fn succeeded(&self, stopwatch: &Stopwatch) {
        self.success.add(stopwatch.started.elapsed());
        self.queue.add(stopwatch.queue);
        self.input.add(stopwatch.input);
        self.infer.add(stopwatch.infer);
        self.output.add(stopwatch.output);
        let work = u64::try_from((stopwatch.input + stopwatch.infer + stopwatch.output).as_nanos()).unwrap_or(u64::MAX);
        let recent = self.recent_ns.load(Ordering::Relaxed);
        // Of two that come at once, one may be lost: it is an estimate.
        let mean = if recent == 0 { work } else { recent - recent / 8 + work / 8 };
        self.recent_ns.store(mean, Ordering::Relaxed);
        self.touch();
    }

    /// About how long the next prediction takes, but for waiting; `None` before the first.
    pub(super) fn expected(&self) -> Option<Duration> {
        Some(self.recent_ns.load(Ordering::Relaxed)).filter(|ns| *ns > 0).map(Duration::from_nanos)
    }

    /// Counts a prediction that was refused, or failed.
    pub fn failed(&self, stopwatch: &Stopwatch) {
        self.failure.add(stopwatch.started.elapsed());
        self.touch();
    }

    fn touch(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_ms.fetch_max(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The counts of now. Those of a prediction that ends meanwhile may be there in part.
    pub fn read(&self) -> Statistics {
        Statistics {
            last_ms: self.last_ms.load(Ordering::Relaxed),
            samples: self.samples.load(Ordering::Relaxed),
            executions: self.executions.load(Ordering::Relaxed),
            success: self.success.read(),
            failure: self.failure.read(),
            queue: self.queue.read(),
            input: self.input.read(),
            infer: self.infer.read(),
            output: self.output.read(),
        }
    }
}

impl Tally {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn read(&self) -> Times {
        Times { count: self.count.load(Ordering::Relaxed), ns: self.ns.load(Ordering::Relaxed) }
    }
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        let now = Instant::now();
        let none = Duration::ZERO;
        Self { started: now, lap: now, queue: none, input: none, infer: none, output: none }
    }

    /// The request has arrived: what follows is the service's time.
    pub fn arrived(&mut self) {
        self.lap();
    }

    /// It had to wait; returns for how long.
    pub fn waited(&mut self) -> Duration {
        let lap = self.lap();
        self.queue += lap;
        lap
    }

    /// The request was read.
    pub fn read(&mut self) {
        let lap = self.lap();
        self.input += lap;
    }

    /// The graph was run.
    pub fn ran(&mut self) {
        let lap = self.lap();
        self.infer += lap;
    }

    /// The answer was written.
    pub fn wrote(&mut self) {
        let lap = self.lap();
        self.output += lap;
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.lap, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_prediction_add_up_to_no_more_than_it() {
        let tallies = Tallies::default();
        let mut stopwatch = Stopwatch::start();
        stopwatch.arrived();
        stopwatch.waited();
        stopwatch.read();
        stopwatch.ran();
        stopwatch.wrote();
        tallies.executed(3);
        tallies.succeeded(&stopwatch);
        tallies.failed(&Stopwatch::start());
        let read = tallies.read();
        assert_eq!((read.samples, read.executions, read.success.count, read.failure.count), (3, 1, 1, 1));
        let parts = [read.queue, read.input, read.infer, read.output];
        assert!(parts.iter().all(|part| part.count == 1));
        assert!(parts.iter().map(|part| part.ns).sum::<u64>() <= read.success.ns);
        assert!(read.last_ms > 1_700_000_000_000);
    }

    #[test]
    fn what_is_expected_follows_what_was_seen_of_late() {
        let tallies = Tallies::default();
        assert_eq!(tallies.expected(), None);
        let lasting = |ms| Stopwatch { infer: Duration::from_millis(ms), ..Stopwatch::start() };
        tallies.succeeded(&lasting(8));
        assert_eq!(tallies.expected(), Some(Duration::from_millis(8)));
        (0..64).for_each(|_| tallies.succeeded(&lasting(80)));
        assert!(tallies.expected().is_some_and(|time| time > Duration::from_millis(75)));
    }
}
