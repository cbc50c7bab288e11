//! How long a job spends in each of its stages.

use std::time::{Duration, Instant};

/// The stages that progress is told of, and `other`: what a metric may say.
pub const STAGES: &[&str] = &[
    "benchmark",
    "calibrate",
    "codebook",
    "encode",
    "evaluate",
    "finetune",
    "prune",
    "quantize",
    "search",
    "threshold",
    "units",
    "write",
    "other",
];

/// Time of one attempt, shared out among stages.
///
/// A report tells what was done, so the time since the report before is its stage's. Layers that are worked on side by side
/// report in turns; each gets the time by which it moved the whole on.
#[derive(Debug)]
pub(super) struct Stages {
    reported: Instant,
    spent: [Duration; STAGES.len()],
}

impl Stages {
    /// Of an attempt that starts now.
    pub(super) fn new() -> Self {
        Self { reported: Instant::now(), spent: Default::default() }
    }

    /// Counts the time since the last report for `stage`.
    pub(super) fn report(&mut self, stage: &str) {
        let now = Instant::now();
        let index = STAGES.iter().position(|known| *known == stage).unwrap_or(STAGES.len() - 1);
        self.spent[index] += now - std::mem::replace(&mut self.reported, now);
    }

    /// The stages that took any time, and how much of it.
    pub(super) fn spent(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        STAGES.iter().copied().zip(self.spent).filter(|(_, spent)| !spent.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_that_of_the_stage_that_is_reported_next() {
        let mut stages = Stages::new();
        stages.reported -= Duration::from_secs(2);
        stages.report("prune");
        stages.reported -= Duration::from_secs(3);
        stages.report("encode");
        stages.reported -= Duration::from_secs(4);
        stages.report("prune");
        stages.reported -= Duration::from_secs(5);
        stages.report("a stage of another release");
        let whole: Vec<_> = stages.spent().map(|(stage, spent)| (stage, spent.as_secs())).collect();
        assert_eq!(whole, [("encode", 3), ("prune", 6), ("other", 5)]);
    }
}
