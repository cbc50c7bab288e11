//! The splits that a search works with.

use super::SearchError;
use crate::evaluate::{DataMap, Dataset, Samples};
use crate::model::Port;

/// The samples of one split.
#[derive(Clone, Copy)]
pub struct SplitData<'a> {
    /// Where they are.
    pub dataset: &'a Dataset,
    /// How they are found, and how they map to the graph.
    pub map: &'a DataMap,
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
    /// Everything else about the data is checked.
    pub(super) fn present(self, ports: (&[Port], &[Port])) -> Result<Self, SearchError> {
        let present =
            |split: SplitData| Samples::open_if_any(split.dataset, split.map, ports).map(|samples| samples.is_some());
        let train = self.train.map(present).transpose()?.unwrap_or_default();
        let test = self.test.map(present).transpose()?.unwrap_or_default();
        Ok(Self { train: self.train.filter(|_| train), test: self.test.filter(|_| test), ..self })
    }
}
