//! Predictions.

use axum::extract::{Request, State};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::limits::Limits;
use crate::http::predict::{Answer, CodingHeaders, predict};
use crate::http::problem::Failures;
use crate::http::upload::File;
use crate::http::{Api, Error, extract};

use super::answer::InferResponse;
use super::prediction::{InferRequest, Prediction};
use super::{ModelPath, Target, VersionPath};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(infer_default)).routes(routes!(infer_version))
}

/// The header of binary tensors, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes parameters")]
struct LengthHeader {
    /// Bytes of the body that are JSON, where binary data follows.
    #[param(rename = "Inference-Header-Content-Length", nullable = false)]
    json_length: Option<u64>,
}

/// Predicts with a model's default version.
#[utoipa::path(
    post,
    path = "/v2/models/{name}/infer",
    tag = "inference",
    security(("key" = ["predict"])),
    params(ModelPath, LengthHeader, CodingHeaders),
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
    predict::<Prediction>(&app, &limits, &target, request).await
}

/// Predicts with a version of a model; version 0 is the upload itself.
#[utoipa::path(
    post,
    path = "/v2/models/{name}/versions/{version}/infer",
    tag = "inference",
    security(("key" = ["predict"])),
    params(VersionPath, LengthHeader, CodingHeaders),
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
    predict::<Prediction>(&app, &limits, &target, request).await
}
