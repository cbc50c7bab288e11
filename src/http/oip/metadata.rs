//! Health and metadata of the server and of models.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::problem::Failures;
use crate::http::{Api, Error, extract};
use crate::infer::{HeldWeight, Residency};
use crate::jobs::Loaded;
use crate::model::Port;
use crate::storage::ModelRecord;

use super::{ModelPath, Target, VersionPath, extents, require_predictable, with_versions};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(server_live))
        .routes(routes!(server_ready))
        .routes(routes!(server_metadata))
        .routes(routes!(model_metadata))
        .routes(routes!(version_metadata))
        .routes(routes!(model_ready))
        .routes(routes!(version_ready))
}

#[derive(Debug, Serialize, ToSchema)]
struct Live {
    live: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct Ready {
    ready: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct ModelReady {
    name: String,
    ready: bool,
}

/// The server, in the protocol's words.
#[derive(Debug, Serialize, ToSchema)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: Vec<&'static str>,
}

/// A model, in the protocol's words.
#[derive(Debug, Serialize, ToSchema)]
struct ModelMetadata {
    name: String,
    /// Decimal numbers.
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
    /// Of one version, while it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<VersionParameters>,
}

/// How a loaded version holds its weights.
#[derive(Debug, Serialize, ToSchema)]
struct VersionParameters {
    residency: Residency,
    /// The memory that all weights and constants take.
    weights_resident_bytes: u64,
    weights: Vec<HeldWeight>,
}

impl From<Loaded> for VersionParameters {
    fn from(loaded: Loaded) -> Self {
        Self {
            residency: loaded.residency,
            weights_resident_bytes: loaded.predictor.weights_resident_bytes(),
            weights: loaded.predictor.weights().to_vec(),
        }
    }
}

/// An input or an output of a model.
#[derive(Debug, Serialize, ToSchema)]
struct TensorMetadata {
    name: String,
    datatype: String,
    /// -1: any extent.
    shape: Vec<i64>,
}

impl From<&Port> for TensorMetadata {
    fn from(port: &Port) -> Self {
        Self { name: port.name.clone(), datatype: port.datatype.clone(), shape: extents(port) }
    }
}

impl ModelMetadata {
    fn new(model: &ModelRecord, versions: Vec<i64>) -> Self {
        Self {
            name: model.name.clone(),
            versions: versions.iter().map(ToString::to_string).collect(),
            platform: "weightpress",
            inputs: model.inputs.iter().map(TensorMetadata::from).collect(),
            outputs: model.outputs.iter().map(TensorMetadata::from).collect(),
            parameters: None,
        }
    }
}

/// Whether the server answers at all.
#[utoipa::path(get, path = "/v2/health/live", tag = "inference", security(()), responses((status = OK, body = Live), Failures))]
async fn server_live() -> Json<Live> {
    Json(Live { live: true })
}

/// Whether predictions can be asked for.
#[utoipa::path(get, path = "/v2/health/ready", tag = "inference", security(()), responses((status = OK, body = Ready), Failures))]
async fn server_ready(app: App) -> Result<Json<Ready>, Error> {
    if app.is_ready().await { Ok(Json(Ready { ready: true })) } else { Err(Error::NotReady) }
}

/// Extensions of the protocol that are spoken here.
const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];

/// Describes the server.
#[utoipa::path(get, path = "/v2", tag = "inference", security(()), responses((status = OK, body = ServerMetadata), Failures))]
async fn server_metadata() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: "weightpress", version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS.to_vec() })
}

/// Describes a model and names its versions.
#[utoipa::path(
    get,
    path = "/v2/models/{name}",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    params(ModelPath),
    responses((status = OK, body = ModelMetadata), Failures)
)]
async fn model_metadata(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<ModelMetadata>, Error> {
    let (model, versions) = with_versions(&app, &target.name).await?;
    Ok(Json(ModelMetadata::new(&model, versions)))
}

/// Describes one version of a model.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/versions/{version}",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    params(VersionPath),
    responses((status = OK, body = ModelMetadata), Failures)
)]
async fn version_metadata(
    app: App,
    extract::Path(target): extract::Path<Target>,
) -> Result<Json<ModelMetadata>, Error> {
    let (model, version) = target.find(&app).await?;
    let parameters = app.predictors.loaded(&model, version).map(VersionParameters::from);
    Ok(Json(ModelMetadata { parameters, ..ModelMetadata::new(&model, vec![version]) }))
}

/// Whether a model's default version can predict. It is loaded when it is first asked to.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/ready",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    params(ModelPath),
    responses((status = OK, body = ModelReady), Failures)
)]
async fn model_ready(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<ModelReady>, Error> {
    ready(&app, &target).await
}

/// Whether a version of a model can predict.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/versions/{version}/ready",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    params(VersionPath),
    responses((status = OK, body = ModelReady), Failures)
)]
async fn version_ready(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<ModelReady>, Error> {
    ready(&app, &target).await
}

async fn ready(app: &App, target: &Target) -> Result<Json<ModelReady>, Error> {
    let (model, _) = target.find(app).await?;
    require_predictable(&model)?;
    Ok(Json(ModelReady { name: model.name, ready: true }))
}
