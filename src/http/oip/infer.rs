//! Predictions.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::limits::{BodyShare, Limits};
use crate::http::problem::Failures;
use crate::http::upload::File;
use crate::http::{Api, Error, body, extract};
use crate::infer::Array;
use crate::jobs::{Loaded, Stopwatch};

use super::answer::{Answer, InferResponse};
use super::envelope::{Envelope, Sent};
use super::measure::Measured;
use super::prediction::{InferRequest, Prediction};
use super::{ModelPath, Target, VersionPath, require_predictable};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(infer_default)).routes(routes!(infer_version))
}

/// Largest body of a prediction, compressed or not, in bytes.
const LIMIT_BYTES: usize = 64 << 20;

/// The headers of a prediction, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes parameters")]
struct InferHeaders {
    /// Bytes of the body that are JSON, where binary data follows.
    #[param(rename = "Inference-Header-Content-Length")]
    json_length: Option<u64>,
    /// `gzip` or `deflate`, of a compressed body.
    #[param(rename = "Content-Encoding")]
    content_encoding: Option<String>,
    /// `gzip` or `deflate`, for a compressed answer.
    #[param(rename = "Accept-Encoding")]
    accept_encoding: Option<String>,
}

/// Predicts with a model's default version.
#[utoipa::path(
    post,
    path = "/v2/models/{name}/infer",
    tag = "inference",
    security(("key" = ["predict"])),
    params(ModelPath, InferHeaders),
    request_body(content((InferRequest = "application/json"), (File = "application/octet-stream"))),
    responses(
        (status = OK, content((InferResponse = "application/json"), (File = "application/octet-stream"))),
        Failures,
    )
)]
async fn infer_default(
    app: App,
    State(limits): State<Limits>,
    extract::Path(target): extract::Path<Target>,
    request: Request,
) -> Result<Answer, Error> {
    infer(&app, &limits, &target, request).await
}

/// Predicts with a version of a model; version 0 is the upload itself.
#[utoipa::path(
    post,
    path = "/v2/models/{name}/versions/{version}/infer",
    tag = "inference",
    security(("key" = ["predict"])),
    params(VersionPath, InferHeaders),
    request_body(content((InferRequest = "application/json"), (File = "application/octet-stream"))),
    responses(
        (status = OK, content((InferResponse = "application/json"), (File = "application/octet-stream"))),
        Failures,
    )
)]
async fn infer_version(
    app: App,
    State(limits): State<Limits>,
    extract::Path(target): extract::Path<Target>,
    request: Request,
) -> Result<Answer, Error> {
    infer(&app, &limits, &target, request).await
}

async fn infer(app: &App, limits: &Limits, target: &Target, request: Request) -> Result<Answer, Error> {
    let measured = Measured::begin();
    let answer = infer_unmeasured(app, limits, target, request).await;
    measured.end(&answer);
    answer
}

async fn infer_unmeasured(app: &App, limits: &Limits, target: &Target, request: Request) -> Result<Answer, Error> {
    let mut watch = Stopwatch::start();
    let (model, version) = target.find(app).await?;
    require_predictable(&model)?;
    let envelope = Envelope::of(request.headers())?;
    body::refuse_declared(request.headers(), LIMIT_BYTES as u64)?;
    let mut share = limits.prediction();
    let body = body::collect(request.into_body(), LIMIT_BYTES, Some(&mut share)).await?;
    let sent = envelope.admit(body, LIMIT_BYTES, &app.executor, &mut share).await?;
    let loaded = app.predictors.get(&model, version).await?;
    let tallies = Arc::clone(&loaded.tallies);
    watch.arrived();
    let answer = predict(app, (envelope, sent), loaded, model.name, (share, &mut watch)).await;
    match &answer {
        Ok(_) => tallies.succeeded(&watch),
        Err(_) => tallies.failed(&watch),
    }
    answer
}

/// Reads, predicts and writes. Reading and writing megabytes of JSON is CPU work as much as the prediction is.
async fn predict(
    app: &App,
    (envelope, sent): (Envelope, Sent),
    loaded: Loaded,
    model_name: String,
    (share, watch): (BodyShare, &mut Stopwatch),
) -> Result<Answer, Error> {
    if app.batching.is_on(&loaded) {
        let (read, mut inner) = (loaded.clone(), *watch);
        let reading = move || -> Result<_, Error> {
            note_wait(inner.waited());
            let (prediction, inputs) = Prediction::read(envelope, sent, read, model_name)?;
            inner.read();
            Ok((prediction, inputs, inner))
        };
        let (prediction, inputs, inner) = app.executor.run(reading).await??;
        *watch = inner;
        let samples = samples(&inputs);
        let outputs = app.batching.run(&loaded, inputs, share).await??;
        watch.ran();
        loaded.tallies.executed(samples);
        let answer = app.executor.run(move || prediction.write(outputs)).await?;
        watch.wrote();
        return answer;
    }
    let mut inner = *watch;
    let work = move || -> Result<(Answer, Stopwatch), Error> {
        // Held until the work is done, also when the client has gone.
        let _share = share;
        note_wait(inner.waited());
        let (prediction, inputs) = Prediction::read(envelope, sent, loaded, model_name)?;
        inner.read();
        let samples = samples(&inputs);
        let outputs = prediction.loaded.predictor.run(inputs)?;
        inner.ran();
        prediction.loaded.tallies.executed(samples);
        let answer = prediction.write(outputs)?;
        inner.wrote();
        Ok((answer, inner))
    };
    let (answer, inner) = app.executor.run(work).await??;
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
