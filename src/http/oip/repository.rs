//! The repository: which models there are, and what of them is held in memory.
//!
//! Versions are loaded when they are first asked for, so every model that can predict is ready; `load` does it beforehand, and
//! may say how the weights are to be held, and `unload` frees the memory.
//!
//! Source: <https://github.com/triton-inference-server/server>, `docs/protocol/extension_model_repository.md`.

use axum::Json;
use axum::extract::Request;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::predict::read_json;
use crate::http::problem::Failures;
use crate::http::{Api, Error, body, extract};
use crate::infer::Residency;
use crate::jobs::Holding;

use super::catalogue::{Entry, each_model};
use super::{ModelPath, Target, require_predictable};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(index)).routes(routes!(load)).routes(routes!(unload))
}

/// Largest body of these requests, in bytes.
const LIMIT_BYTES: usize = 64 << 10;

/// What to list.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct IndexRequest {
    /// Only what is ready.
    #[serde(default)]
    ready: bool,
}

/// A version of a model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RepositoryEntry)]
struct IndexEntry {
    name: String,
    version: String,
    /// `READY` or `UNAVAILABLE`.
    state: &'static str,
    /// Why it is not ready.
    reason: String,
}

/// How to load.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct LoadRequest {
    #[serde(default)]
    parameters: LoadParameters,
}

/// How to load a version. Without them, the default version, as the service's settings say.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LoadParameters {
    /// The version, a decimal number.
    #[schema(pattern = "^[0-9]{1,18}$")]
    version: Option<String>,
    /// How its weights are to be held until it is unloaded.
    #[schema(inline)]
    residency: Option<Residency>,
    /// What the residency `auto` may spend on them, in bytes.
    #[serde(default, deserialize_with = "extract::optional_whole")]
    memory_budget_bytes: Option<u64>,
    /// Of Triton's clients: models that are steps of others, which there are none of here.
    #[allow(dead_code, reason = "accepted and without effect")]
    unload_dependents: Option<bool>,
}

/// The body as JSON; an empty one, or `null`, says nothing.
async fn optional<T: Default + serde::de::DeserializeOwned>(request: Request) -> Result<T, Error> {
    let bytes = body::collect(request.into_body(), LIMIT_BYTES, None).await?;
    match bytes.trim_ascii() {
        b"" | b"null" => Ok(T::default()),
        bytes => read_json(bytes),
    }
}

/// Lists every version of every model.
#[utoipa::path(
    post,
    path = "/v2/repository/index",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    request_body = Option<IndexRequest>,
    responses((status = OK, body = Vec<IndexEntry>), Failures)
)]
async fn index(app: App, request: Request) -> Result<Json<Vec<IndexEntry>>, Error> {
    let asked: IndexRequest = optional(request).await?;
    let entries = each_model(&app).await?;
    let entries = entries.iter().filter(|entry| !asked.ready || entry.fault.is_none());
    Ok(Json(entries.flat_map(entries_of).collect()))
}

fn entries_of(model: &Entry) -> impl Iterator<Item = IndexEntry> {
    model.versions.iter().map(|version| IndexEntry {
        name: model.name.clone(),
        version: version.to_string(),
        state: if model.fault.is_none() { "READY" } else { "UNAVAILABLE" },
        reason: model.fault.clone().unwrap_or_default(),
    })
}

/// Loads a version of a model.
#[utoipa::path(
    post,
    path = "/v2/repository/models/{name}/load",
    tag = "inference",
    security(("key" = ["write"])),
    params(ModelPath),
    request_body = Option<LoadRequest>,
    responses((status = OK, description = "Loaded"), Failures)
)]
async fn load(app: App, extract::Path(target): extract::Path<Target>, request: Request) -> Result<(), Error> {
    let LoadRequest { parameters } = optional(request).await?;
    let version = parameters.version.map(|text| parse_version(&text)).transpose()?;
    let (model, version) = Target { version, ..target }.find(&app).await?;
    require_predictable(&model)?;
    let LoadParameters { residency, memory_budget_bytes, .. } = parameters;
    if version == 0 && residency.is_some_and(|residency| residency != Residency::Dense) {
        let detail = "parameters.residency: version 0 is the upload itself, whose weights are dense".to_owned();
        return Err(Error::InvalidParameter(detail));
    }
    app.predictors.reload(&model, version, Holding { residency, memory_budget_bytes }).await?;
    Ok(())
}

/// Frees the memory of a model's versions. Who asks for one loads it again.
#[utoipa::path(
    post,
    path = "/v2/repository/models/{name}/unload",
    tag = "inference",
    security(("key" = ["write"])),
    params(ModelPath),
    request_body = Option<LoadRequest>,
    responses((status = OK, description = "Unloaded"), Failures)
)]
async fn unload(app: App, extract::Path(target): extract::Path<Target>, request: Request) -> Result<(), Error> {
    let LoadRequest { parameters } = optional(request).await?;
    let version = parameters.version.map(|text| parse_version(&text)).transpose()?;
    let model = app.storage.store.model(target.name.as_str()).await?;
    app.predictors.unload(&model, version);
    Ok(())
}

fn parse_version(text: &str) -> Result<i64, Error> {
    let expected = || Error::InvalidParameter(format!("parameters.version is {text:?}, a decimal number was expected"));
    text.parse().map_err(|_| expected())
}
