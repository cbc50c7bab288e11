//! Predictions.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::extract::parse_json;
use crate::http::limits::Limits;
use crate::http::problem::Failures;
use crate::http::{Api, Error, body, extract};
use crate::infer::{Array, Residency};
use crate::jobs::Loaded;

use super::tensor::{Parameters, RequestInput, ResponseOutput};
use super::{ModelPath, Target, VersionPath, require_predictable};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(infer_default)).routes(routes!(infer_version))
}

/// Largest body of a prediction, in bytes.
const LIMIT_BYTES: usize = 64 << 20;

/// Marks a body that holds binary tensors behind its JSON, and says how long the JSON is.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A prediction to make.
#[derive(Debug, Deserialize, ToSchema)]
struct InferRequest {
    /// Comes back in the answer.
    id: Option<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    #[allow(dead_code, reason = "settings of other servers are accepted and without effect")]
    parameters: Parameters,
    inputs: Vec<RequestInput>,
    /// All outputs of the model when absent.
    #[serde(default)]
    outputs: Vec<RequestOutput>,
}

/// An output that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = InferRequestedOutput)]
struct RequestOutput {
    name: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: Parameters,
}

/// A prediction.
#[derive(Debug, Serialize, ToSchema)]
struct InferResponse {
    model_name: String,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parameters: ResponseParameters,
    outputs: Vec<ResponseOutput>,
}

/// How the prediction was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InferParameters)]
struct ResponseParameters {
    /// How the version's weights are held in memory.
    residency: Residency,
    /// The memory they take.
    weights_resident_bytes: u64,
}

/// Predicts with a model's default version.
#[utoipa::path(
    post,
    path = "/v2/models/{name}/infer",
    tag = "inference",
    security(("key" = ["predict"])),
    params(ModelPath),
    request_body = InferRequest,
    responses((status = OK, body = InferResponse), Failures)
)]
async fn infer_default(
    app: App,
    State(limits): State<Limits>,
    extract::Path(target): extract::Path<Target>,
    request: Request,
) -> Result<impl IntoResponse, Error> {
    infer(&app, &limits, &target, request).await
}

/// Predicts with a version of a model; version 0 is the upload itself.
#[utoipa::path(
    post,
    path = "/v2/models/{name}/versions/{version}/infer",
    tag = "inference",
    security(("key" = ["predict"])),
    params(VersionPath),
    request_body = InferRequest,
    responses((status = OK, body = InferResponse), Failures)
)]
async fn infer_version(
    app: App,
    State(limits): State<Limits>,
    extract::Path(target): extract::Path<Target>,
    request: Request,
) -> Result<impl IntoResponse, Error> {
    infer(&app, &limits, &target, request).await
}

async fn infer(
    app: &App,
    limits: &Limits,
    target: &Target,
    request: Request,
) -> Result<impl IntoResponse + use<>, Error> {
    let (model, version) = target.find(app).await?;
    require_predictable(&model)?;
    refuse_binary(request.headers())?;
    body::refuse_declared(request.headers(), LIMIT_BYTES as u64)?;
    let mut share = limits.prediction();
    let json = body::collect(request.into_body(), LIMIT_BYTES, Some(&mut share)).await?;
    let loaded = app.predictors.get(&model, version).await?;
    // Reading and writing megabytes of JSON is CPU work as much as the prediction is.
    let answer = if app.batching.is_on(&loaded) {
        let read = loaded.clone();
        let (prediction, inputs) = app.executor.run(move || Prediction::read(&json, read, model.name)).await??;
        let outputs = app.batching.run(&loaded, inputs, share).await??;
        app.executor.run(move || prediction.write(outputs)).await??
    } else {
        let work = move || {
            // Held until the work is done, also when the client has gone.
            let _share = share;
            let (prediction, inputs) = Prediction::read(&json, loaded, model.name)?;
            let outputs = prediction.loaded.predictor.run(inputs)?;
            prediction.write(outputs)
        };
        app.executor.run(work).await??
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], answer))
}

fn refuse_binary(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(JSON_LENGTH) {
        return Err(Error::UnsupportedRequest(
            "binary tensors are not supported; send JSON tensors (binary_data=False)",
        ));
    }
    Ok(())
}

/// A prediction that was asked for, without its inputs.
struct Prediction {
    loaded: Loaded,
    model_name: String,
    id: Option<String>,
    /// The outputs asked for.
    wanted: Vec<RequestOutput>,
}

impl Prediction {
    /// Reads a request in JSON: what is asked for, and the inputs.
    fn read(json: &[u8], loaded: Loaded, model_name: String) -> Result<(Self, Vec<(String, Array)>), Error> {
        let request: InferRequest = parse_json(json).map_err(as_bad_request)?;
        let inputs = request.inputs.into_iter().map(RequestInput::decode).collect::<Result<_, _>>()?;
        check_outputs(&request.outputs, &loaded)?;
        Ok((Self { loaded, model_name, id: request.id, wanted: request.outputs }, inputs))
    }

    /// Writes the answer in JSON.
    fn write(self, outputs: Vec<(String, Array)>) -> Result<Vec<u8>, Error> {
        let response = InferResponse {
            model_name: self.model_name,
            model_version: self.loaded.version.to_string(),
            id: self.id,
            parameters: ResponseParameters {
                residency: self.loaded.residency,
                weights_resident_bytes: self.loaded.predictor.weights_resident_bytes(),
            },
            outputs: select(outputs, &self.wanted),
        };
        serde_json::to_vec(&response).map_err(Error::internal)
    }
}

/// The protocol knows 400 for every fault of a request.
fn as_bad_request(error: Error) -> Error {
    match error {
        Error::InvalidBody(detail) => Error::InvalidJson(detail),
        other => other,
    }
}

/// Refuses outputs that the model lacks, before it runs, and forms of them that are not JSON tensors.
fn check_outputs(wanted: &[RequestOutput], loaded: &Loaded) -> Result<(), Error> {
    let ports = loaded.predictor.outputs();
    for output in wanted {
        if ports.iter().all(|port| port.name != output.name) {
            let known = ports.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownOutput { name: output.name.clone(), known });
        }
        if output.parameters.get("binary_data").is_some_and(|value| value == true) {
            return Err(Error::UnsupportedRequest("binary outputs are not supported; ask for binary_data=False"));
        }
        if output.parameters.contains_key("classification") {
            return Err(Error::UnsupportedRequest("the classification of outputs is not supported"));
        }
    }
    Ok(())
}

/// The `wanted` outputs, in the order they were asked for; all of them when none is named.
fn select(outputs: Vec<(String, Array)>, wanted: &[RequestOutput]) -> Vec<ResponseOutput> {
    let mut outputs: Vec<_> = outputs.into_iter().map(|(name, array)| ResponseOutput::new(name, array)).collect();
    if wanted.is_empty() {
        return outputs;
    }
    let take = |output: &RequestOutput| {
        let position = outputs.iter().position(|candidate| candidate.name == output.name)?;
        Some(outputs.swap_remove(position))
    };
    wanted.iter().filter_map(take).collect()
}
