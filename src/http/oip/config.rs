//! What a model takes and gives, in the words of Triton's model configuration.
//!
//! Source: <https://github.com/triton-inference-server/server>, `docs/protocol/extension_model_configuration.md`.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::problem::Failures;
use crate::http::{Api, Error, extract};
use crate::model::Port;
use crate::storage::ModelRecord;

use super::{ModelPath, Target, VersionPath, extents, with_versions};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(model_config)).routes(routes!(version_config))
}

/// A model's configuration.
#[derive(Debug, Serialize, ToSchema)]
struct ModelConfig {
    name: String,
    platform: &'static str,
    backend: &'static str,
    /// Always 0: the shapes name every extent, that of the batch too.
    max_batch_size: u32,
    input: Vec<TensorConfig>,
    output: Vec<TensorConfig>,
    version_policy: VersionPolicy,
}

/// An input or an output.
#[derive(Debug, Serialize, ToSchema)]
struct TensorConfig {
    name: String,
    #[schema(example = "TYPE_FP32")]
    data_type: String,
    /// -1: any extent.
    dims: Vec<i64>,
}

/// Which versions are served.
#[derive(Debug, Serialize, ToSchema)]
struct VersionPolicy {
    specific: SpecificVersions,
}

/// Their numbers.
#[derive(Debug, Serialize, ToSchema)]
struct SpecificVersions {
    versions: Vec<i64>,
}

impl From<&Port> for TensorConfig {
    fn from(port: &Port) -> Self {
        // Texts are the one type that has another name here.
        let word = if port.datatype == "BYTES" { "STRING" } else { &port.datatype };
        Self { name: port.name.clone(), data_type: format!("TYPE_{word}"), dims: extents(port) }
    }
}

impl ModelConfig {
    fn new(model: &ModelRecord, versions: Vec<i64>) -> Self {
        Self {
            name: model.name.clone(),
            platform: "weightpress",
            backend: "weightpress",
            max_batch_size: 0,
            input: model.inputs.iter().map(TensorConfig::from).collect(),
            output: model.outputs.iter().map(TensorConfig::from).collect(),
            version_policy: VersionPolicy { specific: SpecificVersions { versions } },
        }
    }
}

/// The configuration of a model.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/config",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    params(ModelPath),
    responses((status = OK, body = ModelConfig), Failures)
)]
async fn model_config(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<ModelConfig>, Error> {
    let (model, versions) = with_versions(&app, &target.name).await?;
    Ok(Json(ModelConfig::new(&model, versions)))
}

/// The configuration of one version of a model.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/versions/{version}/config",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    params(VersionPath),
    responses((status = OK, body = ModelConfig), Failures)
)]
async fn version_config(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<ModelConfig>, Error> {
    let (model, version) = target.find(&app).await?;
    Ok(Json(ModelConfig::new(&model, vec![version])))
}
