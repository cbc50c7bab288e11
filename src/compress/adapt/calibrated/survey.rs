//! Passes over the uncompressed network, which look and change nothing.

use std::collections::HashMap;

use super::{Walk, is_budgeted};
use crate::calibrate::{ChannelMoments, Curve};
use crate::compress::CompressError;
use crate::compress::adapt::MeasuredLayer;
use crate::infer::{Moments, Normalized, Reached, Renewed, Visitor};
use crate::progress::Progress;

/// The pass over the uncompressed network that measures every setting of every layer.
pub(super) struct RatesOf<'a> {
    pub walk: &'a Walk<'a>,
    pub progress: &'a dyn Progress,
    pub found: Vec<MeasuredLayer>,
}

impl Visitor<CompressError> for RatesOf<'_> {
    fn product(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, CompressError> {
        if let Some(&at) = self.walk.positions.get(reached.name) {
            let (problem, _) = self.walk.problem(at, reached, &self.walk.original(reached)?, self.progress)?;
            self.found.push((reached.name.to_owned(), problem.rate_points(self.progress)?));
            let done = self.found.len() as f64 / self.walk.shapes.len() as f64;
            self.progress.report(done, "calibrate", reached.name);
        }
        Ok(None)
    }
}

/// The pass over the uncompressed network that measures what each layer loses, and what normalisations read.
pub(super) struct Before<'a> {
    pub walk: &'a Walk<'a>,
    pub progress: &'a dyn Progress,
    /// Layers whose curves are measured.
    pub total: usize,
    /// Whether normalisations are looked at.
    pub measures_moments: bool,
    pub curves: Vec<(usize, Curve)>,
    pub moments: HashMap<String, ChannelMoments>,
}

impl Visitor<CompressError> for Before<'_> {
    fn product(&mut self, reached: &Reached<'_>) -> Result<Option<Renewed>, CompressError> {
        let Some(&at) = self.walk.positions.get(reached.name) else { return Ok(None) };
        if self.walk.rates.is_some() || !self.walk.prunes[at].is_some_and(is_budgeted) {
            return Ok(None);
        }
        let (problem, _) = self.walk.problem(at, reached, &self.walk.original(reached)?, self.progress)?;
        self.curves.push((at, problem.curve(self.progress)?));
        let done = self.curves.len() as f64 / self.total.max(1) as f64;
        self.progress.report(done, "calibrate", reached.name);
        Ok(None)
    }

    fn normalization(&mut self, reached: &Normalized<'_>) -> Result<Option<Moments>, CompressError> {
        if self.measures_moments {
            self.moments.insert(reached.mean.0.to_owned(), ChannelMoments::of(reached)?);
        }
        Ok(None)
    }
}
