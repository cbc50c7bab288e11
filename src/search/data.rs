//! The splits that a search works with.

use super::SearchError;
use crate::evaluate::{DataMap, Dataset, EvaluateError, Samples};
use crate::model::Port;

/// The samples of one split.
#[derive(Clone, Copy)]
pub struct SplitData<'a> {
    /// Where they are.
    pub dataset: &'a Dataset,
    /// How they are found, and how they map to the graph.
    pub map: &'a DataMap,
}

impl SplitData<'_> {
    /// Whether it means the same samples as `other`.
    fn is_same_as(self, other: Self) -> Result<bool, EvaluateError> {
        let [own, its] = [self.map, other.map].map(|map| (map.split, map.range, &map.inputs));
        Ok(own == its && self.dataset.sha256()? == other.dataset.sha256()?)
    }
}

/// What a search learns from, selects by and reports on.
#[derive(Clone, Copy)]
pub struct SearchData<'a> {
    /// To calibrate and to fine-tune on; without it nothing is trained.
    pub train: Option<SplitData<'a>>,
    /// To select by.
    pub validation: SplitData<'a>,
    /// To report on.
    pub test: Option<SplitData<'a>>,
}

impl SearchData<'_> {
    /// The splits that have samples: without any to train on nothing is trained, without any to report on nothing is reported.
    /// Everything else about the data is checked, targets too, before there is a trial.
    pub(super) fn present(self, ports: (&[Port], &[Port])) -> Result<Self, SearchError> {
        let extents = ports.1.first().and_then(|output| output.dims.get(1..));
        let classes = extents.and_then(|extents| extents.iter().copied().product());
        let present = |split: SplitData| {
            let samples = Samples::open_if_any(split.dataset, split.map, ports)?;
            samples.iter().try_for_each(|samples| samples.check_targets(classes))?;
            Ok::<_, EvaluateError>(samples.is_some())
        };
        present(self.validation)?;
        let others = [("train", self.train), ("test", self.test)];
        for (name, other) in others.into_iter().filter_map(|(name, other)| Some((name, other?))) {
            if other.is_same_as(self.validation)? {
                return Err(SearchError::SameSamples { split: name });
            }
        }
        let train = self.train.map(present).transpose()?.unwrap_or_default();
        let test = self.test.map(present).transpose()?.unwrap_or_default();
        Ok(Self { train: self.train.filter(|_| train), test: self.test.filter(|_| test), ..self })
    }
}
