//! `/api/v1/datasets`: named arrays to evaluate on.

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::model::Format;
use crate::storage::{ArraySummary, DatasetRecord, Timestamp};

use super::models::{UploadQuery, location, stored};
use super::page::{List, ListResponse, PageQuery};
use super::problem::Failures;
use super::upload::{File, FileForm};
use super::{Api, Error, Name, extract, upload};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_datasets)).routes(routes!(get_dataset, delete_dataset))
}

/// Uploads take as long as they take, so they stand outside the time limit of the other routes.
pub fn upload_router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(upload_dataset))
}

/// A dataset.
#[derive(Debug, Serialize, ToSchema)]
struct Dataset {
    name: String,
    format: Format,
    /// SHA-256 of the file, hex.
    sha256: String,
    size_bytes: i64,
    /// The common first extent of all arrays.
    samples: i64,
    arrays: Vec<ArraySummary>,
    created_at: Timestamp,
}

impl From<DatasetRecord> for Dataset {
    fn from(record: DatasetRecord) -> Self {
        let DatasetRecord { name, format, sha256, size_bytes, samples, arrays, created_at, .. } = record;
        Self { name, format, sha256, size_bytes, samples, arrays, created_at }
    }
}

/// Uploads a dataset.
///
/// The body is the file itself (`.npz` or `.safetensors`), or a form with one file. Its arrays have one length; an array
/// `split` (0 train, 1 validation, 2 test) divides the samples. `Repr-Digest` is verified when it is sent.
#[utoipa::path(
    post,
    path = "/api/v1/datasets",
    tag = "datasets",
    security(("key" = ["write"])),
    params(UploadQuery),
    request_body(content((File = "application/octet-stream"), (FileForm = "multipart/form-data"))),
    responses(
        (status = CREATED, description = "Stored", body = Dataset, headers(("location" = String, description = "The dataset"))),
        (status = OK, description = "It was there already, with the same bytes", body = Dataset),
        Failures,
    )
)]
async fn upload_dataset(
    app: App,
    extract::Query(query): extract::Query<UploadQuery>,
    request: Request,
) -> Result<impl IntoResponse, Error> {
    let name: Name = query.name.parse()?;
    let file = upload::receive(&app, &query, request).await?;
    let (dataset, is_new) = app.add_dataset(name.as_str(), file).await?;
    upload::took(&app, &query).await;
    Ok((stored(is_new), location("datasets", &name), Json(Dataset::from(dataset))))
}

/// Lists datasets by name.
#[utoipa::path(
    get,
    path = "/api/v1/datasets",
    tag = "datasets",
    security(("key" = ["read"])),
    params(PageQuery, ("after" = Option<Name>, Query, description = "The last entry of the page before")),
    responses((status = OK, description = "A page of datasets", body = List<Dataset>), Failures)
)]
async fn list_datasets(
    app: App,
    uri: Uri,
    extract::Query(query): extract::Query<PageQuery>,
) -> Result<ListResponse<Dataset>, Error> {
    let datasets = app.storage.store.datasets(&query.to_page_of_names()?).await?;
    let items = datasets.into_iter().map(Dataset::from).collect();
    ListResponse::new(&uri, &query, items, |dataset| dataset.name.clone())
}

/// Describes a dataset.
#[utoipa::path(
    get,
    path = "/api/v1/datasets/{name}",
    tag = "datasets",
    security(("key" = ["read"])),
    params(("name" = Name, Path, description = "The dataset's name")),
    responses((status = OK, description = "The dataset", body = Dataset), Failures)
)]
async fn get_dataset(app: App, extract::Path(name): extract::Path<Name>) -> Result<Json<Dataset>, Error> {
    let dataset = app.storage.store.dataset(name.as_str()).await?;
    Ok(Json(dataset.into()))
}

/// Deletes a dataset. What was measured on it stays.
#[utoipa::path(
    delete,
    path = "/api/v1/datasets/{name}",
    tag = "datasets",
    security(("key" = ["write"])),
    params(("name" = Name, Path, description = "The dataset's name")),
    responses((status = NO_CONTENT, description = "Deleted"), Failures)
)]
async fn delete_dataset(app: App, extract::Path(name): extract::Path<Name>) -> Result<StatusCode, Error> {
    app.storage.delete_dataset(name.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}
