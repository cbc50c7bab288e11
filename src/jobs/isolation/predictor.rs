//! A loaded version that lives in a child, as its parent sees it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::infer::{Array, Fault, HeldWeight, InferError};
use crate::jobs::ExecuteError;
use crate::jobs::predictors::LoadRequest;
use crate::model::Port;

use super::child::{read_arrays, write_arrays};
use super::process::{Child, Messages};
use super::wire::{Described, Description, Failure, Reply, Request};
use super::{Limits, Purpose, TICK, fault, sandbox};

/// Predicts in a child, which ends when this is dropped.
pub(in crate::jobs) struct ChildPredictor {
    description: Description,
    limits: Limits,
    shared: File,
    child: Arc<Mutex<Child>>,
    waiting: Arc<Waiting>,
}

/// Predictions that wait for their answer.
#[derive(Default)]
struct Waiting {
    answers: Mutex<Answers>,
    /// The child is gone: nobody answers any more.
    is_over: AtomicBool,
}

#[derive(Default)]
struct Answers {
    by_slot: HashMap<u64, Sender<Result<Vec<Described>, Failure>>>,
    /// Slots that are being written, waited for or read.
    taken: BTreeSet<u64>,
}

impl ChildPredictor {
    /// Starts a child that holds the version. Blocks until it does.
    pub(super) fn load(limits: &Limits, load: &LoadRequest) -> Result<Result<(Self, bool), InferError>, ExecuteError> {
        let time = limits.time(Purpose::Request);
        let shared = sandbox::shared_file().map_err(ExecuteError::failed)?;
        // It lives on, so its processor time is not bounded; each prediction is by the clock.
        let mut child = Child::start(limits, None, Some(&shared)).map_err(ExecuteError::failed)?;
        child.send(&Request::Load(load.clone())).map_err(|_| child.end(limits))?;
        let deadline = Instant::now() + time;
        let description = loop {
            match child.receive(TICK) {
                Ok(Some(Reply::Loaded(Ok(description)))) => break description,
                Ok(Some(Reply::Loaded(Err(failure)))) => return Ok(Err(failure.into())),
                Ok(_) if Instant::now() > deadline => return Err(fault::too_slow(time)),
                Ok(_) => {}
                Err(_) => return Err(child.end(limits)),
            }
        };
        let waiting = Arc::new(Waiting::default());
        let (messages, listener) = (child.messages().map_err(ExecuteError::failed)?, Arc::clone(&waiting));
        std::thread::spawn(move || listener.listen(messages));
        let is_batched = description.is_batched;
        let child = Arc::new(Mutex::new(child));
        Ok(Ok((Self { description, limits: *limits, shared, child, waiting }, is_batched)))
    }

    pub(in crate::jobs) fn inputs(&self) -> &[Port] {
        &self.description.inputs
    }

    pub(in crate::jobs) fn outputs(&self) -> &[Port] {
        &self.description.outputs
    }

    pub(in crate::jobs) fn weights(&self) -> &[HeldWeight] {
        &self.description.weights
    }

    pub(in crate::jobs) fn weights_resident_bytes(&self) -> u64 {
        self.description.weights_resident_bytes
    }

    /// Whether the child is gone.
    pub(in crate::jobs) fn is_over(&self) -> bool {
        self.waiting.is_over.load(Ordering::Acquire)
    }

    /// Runs one batch in the child. Blocks.
    ///
    /// # Errors
    /// As [`crate::infer::Predictor::run`]; of [`Fault::Limits`] where the child died of it.
    pub(in crate::jobs) fn run(&self, inputs: &[(String, Array)]) -> Result<Vec<(String, Array)>, InferError> {
        let (answer, answered) = mpsc::channel();
        let slot = self.waiting.take_slot(answer);
        let outcome = self.run_in(slot, inputs, || {
            answered.recv_timeout(self.limits.time(Purpose::Request)).map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    self.child().kill();
                    self.give_up(&fault::too_slow(self.limits.time(Purpose::Request)))
                }
                RecvTimeoutError::Disconnected => self.died(),
            })
        });
        self.waiting.give_back(slot, &self.shared);
        outcome
    }

    fn run_in(
        &self,
        slot: u64,
        inputs: &[(String, Array)],
        wait: impl FnOnce() -> Result<Result<Vec<Described>, Failure>, InferError>,
    ) -> Result<Vec<(String, Array)>, InferError> {
        let failed = |error: std::io::Error| InferError::Elsewhere { fault: Fault::Machine, detail: error.to_string() };
        let inputs = write_arrays(&self.shared, slot, inputs).map_err(failed)?;
        // A statement of its own, which ends the lock: finding out what the child died of takes it again.
        let sent = self.child().send(&Request::Predict { slot, inputs });
        sent.map_err(|_| self.died())?;
        let outputs = wait()??;
        read_arrays(&self.shared, slot, &outputs).map_err(failed)
    }

    /// What the child died of.
    fn died(&self) -> InferError {
        let error = self.child().end(&self.limits);
        self.give_up(&error)
    }

    /// Lets nobody else ask this child.
    fn give_up(&self, error: &ExecuteError) -> InferError {
        self.waiting.end();
        let fault = match error {
            ExecuteError::Refused { .. } => Fault::Limits,
            _ => Fault::Machine,
        };
        InferError::Elsewhere { fault, detail: error.to_string() }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        // Messages are sent whole or the child is gone.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Hands answers to those who wait for them until the child is gone.
    fn listen(&self, mut messages: Messages) {
        let forever: Option<Duration> = None;
        while let Ok(Some(reply)) = messages.receive(forever) {
            if let Reply::Predicted { slot, outputs } = reply
                && let Some(answer) = self.lock().by_slot.remove(&slot)
            {
                // Somebody who waits no longer has given the child up.
                _ = answer.send(outputs);
            }
        }
        self.end();
    }

    /// Tells those who wait that nobody will answer.
    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.lock().by_slot.clear();
    }

    fn take_slot(&self, answer: Sender<Result<Vec<Described>, Failure>>) -> u64 {
        let mut answers = self.lock();
        let slot = (0..).find(|slot| !answers.taken.contains(slot)).unwrap_or_default();
        answers.taken.insert(slot);
        // Not kept when nobody would ever drop it.
        if !self.is_over.load(Ordering::Acquire) {
            answers.by_slot.insert(slot, answer);
        }
        slot
    }

    fn give_back(&self, slot: u64, shared: &File) {
        let mut answers = self.lock();
        answers.by_slot.remove(&slot);
        answers.taken.remove(&slot);
        if answers.taken.is_empty() {
            // Gives the memory back; where that fails, the next prediction writes over it.
            _ = shared.set_len(0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
