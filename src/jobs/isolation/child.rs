//! The child's side.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::Value;

use crate::infer::{self, Array, InferError, Predictor};
use crate::jobs::predictors::LoadRequest;
use crate::jobs::{ExecuteError, work};
use crate::progress::{CancelFlag, Progress};

use super::process::send;
use super::sandbox;
use super::wire::{Described, Description, Failure, Reply, Request, SLOT_BYTES};

/// Longest message of a parent, in bytes: specs are at most a megabyte or two.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// Bytes that the outputs of one prediction may have.
const MAX_OUTPUT_BYTES: usize = 2 << 30;

/// Serves the parent at the other end of standard input until it hangs up.
///
/// # Errors
/// When a message cannot be read or sent, or the system refuses a limit.
pub(crate) fn serve() -> std::io::Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut requests = Requests(BufReader::new(socket.try_clone()?));
    let Some(Request::Begin { limits, processor_seconds }) = requests.next()? else {
        return Err(Error::other("this command is for the service's own use"));
    };
    let has_network = sandbox::enter(&limits, processor_seconds)?;
    infer::set_max_tensor_bytes(limits.max_tensor_bytes);
    let replies = Replies(Arc::new(Mutex::new(socket)));
    replies.send(&Reply::Ready { has_network })?;
    let threads = ThreadPoolBuilder::new().num_threads(limits.threads).build().map_err(Error::other)?;
    match requests.next()? {
        Some(Request::Work { name, work }) => do_work(&threads, &name, work, requests, replies),
        Some(Request::Load(load)) => hold(&threads, &load, requests, &replies),
        _ => Ok(()),
    }
}

/// Messages of the parent.
struct Requests(BufReader<UnixStream>);

impl Requests {
    /// The next one; `None` once the parent is gone.
    fn next(&mut self) -> std::io::Result<Option<Request>> {
        let mut line = Vec::new();
        self.0.by_ref().take(MAX_MESSAGE_BYTES).read_until(b'\n', &mut line)?;
        match line.is_empty() {
            true => Ok(None),
            false => Ok(Some(serde_json::from_slice(&line)?)),
        }
    }
}

/// Messages to the parent, from any thread.
#[derive(Clone)]
struct Replies(Arc<Mutex<UnixStream>>);

impl Replies {
    fn send(&self, reply: &Reply) -> std::io::Result<()> {
        send(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), reply)
    }
}

/// Does one piece of work, and stops it when the parent says so.
fn do_work(
    threads: &ThreadPool,
    name: &str,
    work: Value,
    mut requests: Requests,
    replies: Replies,
) -> std::io::Result<()> {
    let told = Arc::new(Told { replies: replies.clone(), flag: CancelFlag::default() });
    let listener = Arc::clone(&told);
    std::thread::spawn(move || {
        while let Ok(Some(Request::Cancel)) = requests.next() {
            listener.flag.cancel();
        }
        // Nobody is left to hear of it.
        std::process::exit(1);
    });
    let answer = threads.install(|| caught(|| work::run_named(name, work, &*told)));
    replies.send(&Reply::Done(answer.unwrap_or(Err(ExecuteError::Panicked))))
}

/// Progress that is told to the parent.
struct Told {
    replies: Replies,
    flag: CancelFlag,
}

impl Progress for Told {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        // A parent that does not hear it is gone, which the thread that listens finds out.
        _ = self.replies.send(&Reply::Progress { fraction, stage: stage.to_owned(), message: message.to_owned() });
    }

    fn is_cancelled(&self) -> bool {
        self.flag.is_cancelled()
    }
}

/// Loads a version and predicts with it until the parent hangs up.
fn hold(threads: &ThreadPool, load: &LoadRequest, mut requests: Requests, replies: &Replies) -> std::io::Result<()> {
    let shared = Arc::new(File::from(std::io::stdout().as_fd().try_clone_to_owned()?));
    let loaded = threads.install(|| caught(|| load.here())).unwrap_or_else(|| Err(panicked()));
    let (predictor, is_batched) = match loaded {
        Ok((predictor, is_batched)) => (Arc::new(predictor), is_batched),
        Err(error) => return replies.send(&Reply::Loaded(Err(error.into()))),
    };
    replies.send(&Reply::Loaded(Ok(Description {
        inputs: predictor.inputs().to_vec(),
        outputs: predictor.outputs().to_vec(),
        weights: predictor.weights().to_vec(),
        weights_resident_bytes: predictor.weights_resident_bytes(),
        takes_any_batch: predictor.takes_any_batch(),
        is_batched,
    })))?;
    while let Some(request) = requests.next()? {
        let Request::Predict { slot, inputs } = request else { continue };
        let (predictor, shared, replies) = (Arc::clone(&predictor), Arc::clone(&shared), replies.clone());
        threads.spawn(move || {
            let outputs = caught(|| predict(&predictor, &shared, slot, &inputs)).unwrap_or_else(|| Err(panicked()));
            _ = replies.send(&Reply::Predicted { slot, outputs: outputs.map_err(Failure::from) });
        });
    }
    // Predictions that still run are for nobody.
    std::process::exit(0);
}

/// Reads the inputs in `slot`, and puts the outputs in their place.
fn predict(
    predictor: &Predictor,
    shared: &File,
    slot: u64,
    inputs: &[Described],
) -> Result<Vec<Described>, InferError> {
    let inputs = read_arrays(shared, slot, inputs).map_err(|error| InferError::Run { reason: error.to_string() })?;
    let outputs = predictor.run(inputs)?;
    let bytes: usize = outputs.iter().map(|(_, array)| array.data.size_bytes()).sum();
    if bytes > MAX_OUTPUT_BYTES {
        return Err(InferError::Run {
            reason: format!("the outputs have {bytes} bytes, at most {MAX_OUTPUT_BYTES} are allowed"),
        });
    }
    write_arrays(shared, slot, &outputs).map_err(|error| InferError::Run { reason: error.to_string() })
}

/// The arrays that lie in `slot`.
pub(super) fn read_arrays(shared: &File, slot: u64, described: &[Described]) -> std::io::Result<Vec<(String, Array)>> {
    let mut at = slot * SLOT_BYTES;
    let mut left = MAX_OUTPUT_BYTES;
    let mut arrays = Vec::with_capacity(described.len());
    for array in described {
        let layout = array.layout().filter(|&(_, bytes)| bytes <= left);
        let (datatype, bytes) = layout.ok_or_else(|| Error::other(format!("the array {} cannot be", array.name)))?;
        left -= bytes;
        let mut elements = vec![0; bytes];
        shared.read_exact_at(&mut elements, at)?;
        at += bytes as u64;
        let read = Array::from_le_bytes(datatype, array.dims.clone(), &elements).map_err(Error::other)?;
        arrays.push((array.name.clone(), read));
    }
    Ok(arrays)
}

/// Puts `arrays` into `slot`, and says what they are.
pub(super) fn write_arrays(shared: &File, slot: u64, arrays: &[(String, Array)]) -> std::io::Result<Vec<Described>> {
    let mut at = slot * SLOT_BYTES;
    for (_, array) in arrays {
        let elements = array.data.to_le_bytes();
        shared.write_all_at(&elements, at)?;
        at += elements.len() as u64;
    }
    Ok(arrays.iter().map(|(name, array)| Described::of(name, array)).collect())
}

/// The result of `work`, unless it panics.
fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
}

fn panicked() -> InferError {
    InferError::Run { reason: "the graph engine stopped unexpectedly".to_owned() }
}
