//! Progress of many layers at once, weighted by the weights that were worked on.

use crate::progress::{CancelOnly, Cancelled, Progress, Share, Whole};

/// Counts work done by several threads and reports it in order.
pub(super) struct Meter<'a> {
    whole: Whole<'a>,
}

impl<'a> Meter<'a> {
    /// `total` is the work of the whole compression, in any unit.
    pub(super) fn new(progress: &'a dyn Progress, total: u64) -> Self {
        Self { whole: Whole::new(progress, total) }
    }

    /// Reports that `work` more is done. Fails when the caller asked to stop.
    pub(super) fn advance(&self, work: u64, stage: &str, message: &str) -> Result<(), Cancelled> {
        self.whole.add(work as f64, stage, message);
        self.whole.progress().check()
    }

    /// For the methods inside a layer: they may ask whether to stop, but what they report is not the whole's progress.
    pub(super) fn inner(&self) -> impl Progress + '_ {
        CancelOnly(self.whole.progress())
    }

    /// For a method inside a layer that tells how far it is: what it reports moves the whole's progress by up to `work`,
    /// under the `stage` and `message` of the layer.
    pub(super) fn part<'b>(&'b self, work: u64, stage: &'b str, message: &'b str) -> impl Progress + 'b {
        Part { share: self.whole.share(work), stage, message }
    }
}

struct Part<'a> {
    share: Share<'a>,
    stage: &'a str,
    message: &'a str,
}

impl Progress for Part<'_> {
    fn report(&self, fraction: f64, _stage: &str, _message: &str) {
        self.share.report(fraction, self.stage, self.message);
    }

    fn is_cancelled(&self) -> bool {
        self.share.is_cancelled()
    }
}
