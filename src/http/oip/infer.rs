//! Predictions.

use axum::extract::{Request, State};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::limits::Limits;
use crate::http::problem::Failures;
use crate::http::upload::File;
use crate::http::{Api, Error, body, extract};

use super::answer::{Answer, InferResponse};
use super::binary::json_length;
use super::prediction::{InferRequest, Prediction};
use super::{ModelPath, Target, VersionPath, require_predictable};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(infer_default)).routes(routes!(infer_version))
}

/// Largest body of a prediction, in bytes.
const LIMIT_BYTES: usize = 64 << 20;

/// The headers of a prediction, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes parameters")]
struct InferHeaders {
    /// Bytes of the body that are JSON, where binary data follows.
    #[param(rename = "Inference-Header-Content-Length")]
    json_length: Option<u64>,
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
    let (model, version) = target.find(app).await?;
    require_predictable(&model)?;
    let json_length = json_length(request.headers())?;
    body::refuse_declared(request.headers(), LIMIT_BYTES as u64)?;
    let mut share = limits.prediction();
    let body = body::collect(request.into_body(), LIMIT_BYTES, Some(&mut share)).await?;
    let loaded = app.predictors.get(&model, version).await?;
    // Reading and writing megabytes of JSON is CPU work as much as the prediction is.
    if app.batching.is_on(&loaded) {
        let read = loaded.clone();
        let (prediction, inputs) =
            app.executor.run(move || Prediction::read(&body, json_length, read, model.name)).await??;
        let outputs = app.batching.run(&loaded, inputs, share).await??;
        app.executor.run(move || prediction.write(outputs)).await?
    } else {
        let work = move || {
            // Held until the work is done, also when the client has gone.
            let _share = share;
            let (prediction, inputs) = Prediction::read(&body, json_length, loaded, model.name)?;
            let outputs = prediction.loaded.predictor.run(inputs)?;
            prediction.write(outputs)
        };
        app.executor.run(work).await?
    }
}
