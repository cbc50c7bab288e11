//! Predictions, whatever protocol they are asked for in: one way from a request's body to the answer's.
//!
//! A protocol says how bodies are read and written ([`Prediction`]); which version answers, what a body may take, codings,
//! batches and statistics are the same for all.

mod answer;
mod data;
mod envelope;
mod measure;
mod nested;
mod rows;
mod schema;
mod target;
mod tensors;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;

use crate::app::App;
use crate::infer::Array;
use crate::jobs::{Loaded, Stopwatch};

use super::extract::parse_json;
use super::limits::{BodyShare, Limits};
use super::{Error, body};

use self::envelope::{Envelope, Sent};
use self::measure::Measured;

pub use self::answer::Answer;
pub use self::data::{AtMost, Data, Element, Flat, Flattener, Nested};
pub use self::envelope::CodingHeaders;
pub use self::nested::{AsNested, InRows, Together};
pub use self::rows::{Columns, MOST_COLUMNS, Rows};
pub use self::schema::{InputValue, InputValues, OutputValues};
pub use self::target::{ModelPath, Target, VersionPath, extents, fault_of, require_predictable, with_versions};
pub use self::tensors::Tensors;

/// Largest body of a prediction, compressed or not, in bytes.
const LIMIT_BYTES: usize = 64 << 20;

/// Named arrays that go into a model or come out of it.
pub type Arrays = Vec<(String, Array)>;

/// A prediction as one protocol asks for it, without its inputs.
pub trait Prediction: Sized + Send + 'static {
    /// What the protocol is called, in metrics.
    const PROTOCOL: &'static str;

    /// What must be known of a request's head to read its body.
    type Head: Send + 'static;

    /// Reads the head of a request.
    ///
    /// # Errors
    /// Those of the headers that the protocol has.
    fn head(headers: &HeaderMap) -> Result<Self::Head, Error>;

    /// Reads the uncompressed `body`: what is asked for, and the inputs. Work for the executor.
    ///
    /// # Errors
    /// One that names the first fault.
    fn read(head: Self::Head, body: &[u8], asked: Asked) -> Result<(Self, Arrays), Error>;

    /// Writes the answer. Work for the executor.
    ///
    /// # Errors
    /// [`Error::Internal`], and those of outputs that the protocol has no form for.
    fn write(self, outputs: Arrays) -> Result<Answer, Error>;
}

/// Who is asked for a prediction.
pub struct Asked {
    pub model_name: String,
    pub loaded: Loaded,
}

/// Answers `request`, which asks `target` for a prediction.
///
/// # Errors
/// Those of `P`; [`Error::Store`] for a model or version that is not there, [`Error::NotPredictable`], and whatever is wrong
/// with the body.
pub async fn predict<P: Prediction>(
    app: &App,
    limits: &Limits,
    target: &Target,
    request: Request,
) -> Result<Answer, Error> {
    let measured = Measured::begin(P::PROTOCOL);
    let answer = answer::<P>(app, limits, target, request).await;
    measured.end(&answer);
    answer
}

async fn answer<P: Prediction>(app: &App, limits: &Limits, target: &Target, request: Request) -> Result<Answer, Error> {
    let mut watch = Stopwatch::start();
    let (model, version) = target.served(app).await?;
    require_predictable(&model)?;
    let head = P::head(request.headers())?;
    let envelope = Envelope::of(request.headers())?;
    body::refuse_declared(request.headers(), LIMIT_BYTES as u64)?;
    let mut share = limits.prediction();
    let body = body::collect(request.into_body(), LIMIT_BYTES, Some(&mut share)).await?;
    let sent = envelope.admit(body, LIMIT_BYTES, &app.executor, &mut share).await?;
    let loaded = app.predictors.get(&model, version).await?;
    let tallies = Arc::clone(&loaded.tallies);
    watch.arrived();
    let asked = Asked { model_name: model.name.clone(), loaded };
    let answer = run::<P>(app, (envelope, head, sent), asked, (share, &mut watch)).await;
    match &answer {
        Ok(_) => tallies.succeeded(&watch),
        Err(_) => tallies.failed(&watch),
    }
    answer
}

/// Reads, predicts and writes. Reading and writing megabytes of JSON is CPU work as much as the prediction is.
async fn run<P: Prediction>(
    app: &App,
    (envelope, head, sent): (Envelope, P::Head, Sent),
    asked: Asked,
    (share, watch): (BodyShare, &mut Stopwatch),
) -> Result<Answer, Error> {
    let loaded = asked.loaded.clone();
    if app.batching.is_on(&loaded) {
        let mut inner = *watch;
        let reading = move || -> Result<_, Error> {
            note_wait(inner.waited());
            let (prediction, inputs) = P::read(head, &sent.unpack()?, asked)?;
            inner.read();
            Ok((prediction, inputs, inner))
        };
        let (prediction, inputs, inner) = app.executor.run(reading).await??;
        *watch = inner;
        let samples = samples(&inputs);
        let outputs = app.batching.run(&loaded, inputs, share).await??;
        watch.ran();
        loaded.tallies.executed(samples);
        let answer = app.executor.run(move || prediction.write(outputs)?.compressed(envelope.accepted)).await?;
        watch.wrote();
        return answer;
    }
    let mut inner = *watch;
    let is_brief = loaded.is_brief(sent.size_bytes());
    let work = move || -> Result<(Answer, Stopwatch), Error> {
        // Held until the work is done, also when the client has gone.
        let _share = share;
        note_wait(inner.waited());
        let (prediction, inputs) = P::read(head, &sent.unpack()?, asked)?;
        inner.read();
        let samples = samples(&inputs);
        let outputs = loaded.predictor.run(inputs)?;
        inner.ran();
        loaded.tallies.executed(samples);
        let answer = prediction.write(outputs)?.compressed(envelope.accepted)?;
        inner.wrote();
        Ok((answer, inner))
    };
    let (answer, inner) = match is_brief {
        true => app.executor.run_briefly(work).await??,
        false => app.executor.run(work).await??,
    };
    *watch = inner;
    Ok(answer)
}

/// Counts how long a prediction waited for a thread.
fn note_wait(waited: Duration) {
    metrics::histogram!("weightpress_inference_queue_duration_seconds", "queue" => "executor").record(waited);
}

/// Samples of a request: the leading extent of its first input.
fn samples(inputs: &[(String, Array)]) -> usize {
    inputs.first().and_then(|(_, array)| array.dims.first().copied()).unwrap_or(1)
}

/// Reads the JSON of a prediction. The protocols know 400 for every fault of a request.
///
/// # Errors
/// [`Error::InvalidJson`].
pub fn read_json<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    parse_json(json).map_err(|error| match error {
        Error::InvalidBody(detail) => Error::InvalidJson(detail),
        other => other,
    })
}
