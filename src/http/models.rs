//! `/api/v1/models`: uploaded networks.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::model::{Format, Kept, Port};
use crate::storage::{
    Metadata, MetadataPatch, ModelChange, ModelFilter, ModelRecord, Timestamp, UploadId, WeightSummary,
};

use super::metadata::MetadataQuery;
use super::page::{List, ListResponse, PageQuery};
use super::problem::Failures;
use super::upload::{File, FileForm};
use super::versions::VersionSummary;
use super::{Api, Error, Name, extract, upload};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_models)).routes(routes!(get_model, update_model, delete_model))
}

/// Uploads take as long as they take, so they stand outside the time limit of the other routes.
pub fn upload_router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(upload_model))
}

/// A model in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelSummary {
    pub name: String,
    pub format: Format,
    /// SHA-256 of the uploaded file, hex.
    pub sha256: String,
    /// Bytes of the uploaded file.
    pub size_bytes: i64,
    /// The version that is served when none is named.
    pub default_version: i64,
    /// What users note about it.
    pub metadata: Metadata,
    /// Whether predictions and evaluations can run.
    pub predictable: bool,
    /// Weights that can be compressed, in all layers.
    pub parameters: u64,
    pub created_at: Timestamp,
}

/// A model in full.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDetail {
    #[serde(flatten)]
    pub summary: ModelSummary,
    /// Operators that predictions lack; empty when the model is predictable, and for a weights-only file.
    pub unsupported_operators: Vec<String>,
    /// Empty for a weights-only file.
    pub inputs: Vec<Port>,
    /// Empty for a weights-only file.
    pub outputs: Vec<Port>,
    /// What can be compressed, in file order.
    pub layers: Vec<WeightSummary>,
    /// What cannot, and why, in file order.
    pub kept: Vec<Kept>,
    /// Ascending; version 0 is the upload itself.
    pub versions: Vec<VersionSummary>,
}

impl From<&ModelRecord> for ModelSummary {
    fn from(model: &ModelRecord) -> Self {
        Self {
            name: model.name.clone(),
            format: model.format,
            sha256: model.sha256.clone(),
            size_bytes: model.size_bytes,
            default_version: model.default_version,
            metadata: model.metadata.clone(),
            predictable: model.is_predictable(),
            parameters: model.weights.iter().map(|weight| weight.parameters).sum(),
            created_at: model.created_at,
        }
    }
}

impl ModelDetail {
    /// Joins `model` with its versions and what was measured of them.
    async fn of(app: &App, model: ModelRecord) -> Result<Self, Error> {
        let store = &app.storage.store;
        let metrics = store.metrics(&model.id, None).await?;
        let versions = store.versions(&model.id, -1, i64::MAX).await?;
        let versions = versions.iter().map(|version| VersionSummary::new(&model.name, version, &metrics)).collect();
        Ok(Self {
            summary: ModelSummary::from(&model),
            unsupported_operators: model.unsupported_operators,
            inputs: model.inputs,
            outputs: model.outputs,
            layers: model.weights,
            kept: model.kept,
            versions,
        })
    }
}

/// Under which name a file is stored.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// A name that is still free, or that belongs to the same bytes.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", example = "digits")]
    pub name: String,
    /// A finished upload in parts whose bytes to take; without a body.
    #[param(value_type = Option<String>, format = "uuid")]
    pub upload: Option<UploadId>,
    /// A file to take from the object store, in the tenant's own folder there: `imports/TENANT/` and this; without a body.
    pub import: Option<String>,
}

/// Uploads a model.
///
/// The body is the file itself (`.onnx`, `.safetensors` or `.npz`; the format is told from the bytes), or a form with one
/// file. It is streamed to disk. The header `Repr-Digest` (SHA-256 of the file) is verified when it is sent.
/// The same bytes under the same name again change nothing, its metadata neither.
#[utoipa::path(
    post,
    path = "/api/v1/models",
    tag = "models",
    security(("key" = ["write"])),
    params(
        UploadQuery,
        ("metadata.KEY" = Option<String>, Query, description = "What the model's metadata hold under KEY, any key; 32 keys at most"),
    ),
    request_body(content((File = "application/octet-stream"), (FileForm = "multipart/form-data"))),
    responses(
        (status = CREATED, description = "Stored", body = ModelDetail, headers(("location" = String, description = "The model"))),
        (status = OK, description = "It was there already, with the same bytes", body = ModelDetail),
        Failures,
    )
)]
async fn upload_model(
    app: App,
    extract::Query(query): extract::Query<UploadQuery>,
    MetadataQuery(metadata): MetadataQuery,
    request: Request,
) -> Result<impl IntoResponse, Error> {
    let name: Name = query.name.parse()?;
    let file = upload::receive(&app, &query, request).await?;
    let (model, is_new) = app.add_model(name.as_str(), metadata, file).await?;
    upload::took(&app, &query).await;
    let detail = ModelDetail::of(&app, model).await?;
    Ok((stored(is_new), location("models", &name), Json(detail)))
}

/// The status of an upload.
pub fn stored(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

/// The header that says where `name` now is.
pub fn location(collection: &str, name: &Name) -> [(HeaderName, String); 1] {
    [(header::LOCATION, format!("/api/v1/{collection}/{name}"))]
}

/// Lists models by name.
#[utoipa::path(
    get,
    path = "/api/v1/models",
    tag = "models",
    security(("key" = ["read"])),
    params(
        PageQuery,
        ("after" = Option<Name>, Query, description = "The last entry of the page before"),
        ("metadata.KEY" = Option<String>, Query, description = "Only models whose metadata have this value under KEY, any key; \
            of several, all"),
    ),
    responses((status = OK, description = "A page of models", body = List<ModelSummary>), Failures)
)]
async fn list_models(
    app: App,
    uri: Uri,
    extract::Query(query): extract::Query<PageQuery>,
    MetadataQuery(metadata): MetadataQuery,
) -> Result<ListResponse<ModelSummary>, Error> {
    let models = app.storage.store.models(&ModelFilter { metadata }, &query.to_page_of_names()?).await?;
    let items = models.iter().map(ModelSummary::from).collect();
    ListResponse::new(&uri, &query, items, |model| model.name.clone())
}

/// Describes a model.
#[utoipa::path(
    get,
    path = "/api/v1/models/{name}",
    tag = "models",
    security(("key" = ["read"])),
    params(("name" = Name, Path, description = "The model's name")),
    responses((status = OK, description = "The model", body = ModelDetail), Failures)
)]
async fn get_model(app: App, extract::Path(name): extract::Path<Name>) -> Result<Json<ModelDetail>, Error> {
    let model = app.storage.store.model(name.as_str()).await?;
    ModelDetail::of(&app, model).await.map(Json)
}

/// What may be changed about a model; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ModelPatch {
    /// The version to serve when none is named; it must exist.
    #[serde(default, deserialize_with = "given_whole")]
    #[schema(value_type = i64, required = false)]
    default_version: Option<i64>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = MetadataPatch, required = false)]
    metadata: Option<MetadataPatch>,
}

/// Reads a member that is there: null is one of its values, or none that it takes.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The same of a whole number.
fn given_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    extract::whole(deserializer).map(Some)
}

/// Changes a model: which version is served by default, and its metadata.
///
/// The body is a JSON merge patch (RFC 7396): keys of metadata that it does not name stay, and null removes one.
#[utoipa::path(
    patch,
    path = "/api/v1/models/{name}",
    tag = "models",
    security(("key" = ["write"])),
    params(("name" = Name, Path, description = "The model's name")),
    request_body = ModelPatch,
    responses((status = OK, description = "The changed model", body = ModelDetail), Failures)
)]
async fn update_model(
    app: App,
    extract::Path(name): extract::Path<Name>,
    extract::Json(patch): extract::Json<ModelPatch>,
) -> Result<Json<ModelDetail>, Error> {
    let change = ModelChange { default_version: patch.default_version, metadata: patch.metadata };
    let model = app.storage.store.change_model(name.as_str(), &change).await?;
    ModelDetail::of(&app, model).await.map(Json)
}

/// Deletes a model, its versions and their files. Its jobs stay as history.
#[utoipa::path(
    delete,
    path = "/api/v1/models/{name}",
    tag = "models",
    security(("key" = ["write"])),
    params(("name" = Name, Path, description = "The model's name")),
    responses((status = NO_CONTENT, description = "Deleted"), Failures)
)]
async fn delete_model(app: App, extract::Path(name): extract::Path<Name>) -> Result<StatusCode, Error> {
    app.delete_model(name.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}
