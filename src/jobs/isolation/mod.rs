//! Work on uploaded models in child processes, so that a model that explodes takes its child with it and nothing else.
//!
//! A child is this program once more, with an empty environment, limits of its own and, where the system allows it, no network.
//! It has a socket for messages as its standard input, and for predictions a file in memory, shared with its parent, as its standard
//! output: the elements of tensors go through that. A child of a queued job or of a request does one piece of work and
//! ends; one that holds a loaded version lives as long as the version is loaded. A child whose parent is gone ends.

mod child;
mod fault;
mod predictor;
mod process;
mod sandbox;
mod wire;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::progress::Progress;

use super::predictors::LoadRequest;
use super::{ExecuteError, Work};
use process::Child;
use wire::{Reply, Request};

pub(crate) use child::serve as serve_child;
pub(super) use predictor::ChildPredictor;

/// How often a parent looks whether its child should stop.
const TICK: Duration = Duration::from_millis(50);
/// How long the child of a queued job that was asked to stop may take for it: it may have something to keep.
const STOP_TIME: Duration = Duration::from_secs(30);

/// What one child may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Of its address space, in bytes.
    pub(crate) memory_bytes: u64,
    /// Of the clock, for a queued job, in seconds.
    pub(crate) job_seconds: u64,
    /// Of the clock, for what a request waits for, in seconds.
    pub(crate) request_seconds: u64,
    /// Largest tensor that a graph may make, in bytes.
    pub(crate) max_tensor_bytes: u64,
    /// Its threads; each may work for as long as the clock allows.
    pub(crate) threads: usize,
}

/// What a piece of work is for, which says how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Job,
    Request,
}

impl Limits {
    fn time(&self, purpose: Purpose) -> Duration {
        Duration::from_secs(match purpose {
            Purpose::Job => self.job_seconds,
            Purpose::Request => self.request_seconds,
        })
    }

    /// Does `work` in a child, on threads of its own. Blocks.
    ///
    /// # Errors
    /// Those of the work; [`super::Refusal::LimitsExceeded`] where the child died of it.
    pub(super) fn run<W: Work>(
        &self,
        work: &W,
        purpose: Purpose,
        progress: &dyn Progress,
    ) -> Result<W::Answer, ExecuteError> {
        let time = self.time(purpose);
        let mut child = Child::start(self, Some(time), None).map_err(ExecuteError::failed)?;
        let work = serde_json::to_value(work).map_err(ExecuteError::failed)?;
        child.send(&Request::Work { name: W::NAME.to_owned(), work }).map_err(|_| child.end(self))?;
        let deadline = Instant::now() + time;
        let mut asked_to_stop: Option<Instant> = None;
        loop {
            match child.receive(TICK) {
                Ok(Some(Reply::Progress { fraction, stage, message })) => progress.report(fraction, &stage, &message),
                Ok(Some(Reply::Done(answer))) => return serde_json::from_value(answer?).map_err(ExecuteError::failed),
                Ok(Some(_) | None) => {}
                Err(_) => return Err(child.end(self)),
            }
            if progress.is_cancelled() {
                match asked_to_stop {
                    None if purpose == Purpose::Request => return Err(ExecuteError::Cancelled),
                    None => {
                        asked_to_stop = Some(Instant::now());
                        // One that cannot hear is dead, which the next look tells.
                        _ = child.send(&Request::Cancel);
                    }
                    Some(since) if since.elapsed() > STOP_TIME => return Err(ExecuteError::Cancelled),
                    Some(_) => {}
                }
            }
            if Instant::now() > deadline {
                return Err(fault::too_slow(time));
            }
        }
    }

    /// Loads a version in a child. Blocks.
    ///
    /// # Errors
    /// Those of the load; [`super::Refusal::LimitsExceeded`] where the child died of it.
    pub(super) fn load(
        &self,
        load: &LoadRequest,
    ) -> Result<Result<(ChildPredictor, bool), crate::infer::InferError>, ExecuteError> {
        ChildPredictor::load(self, load)
    }
}
