//! The state of versions.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::predict::{ModelPath, Target, VersionPath, fault_of, with_versions};
use crate::http::problem::Failures;
use crate::http::{Api, Error, extract};
use crate::storage::ModelRecord;

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(model_status)).routes(routes!(version_status))
}

/// The state of a model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelStatus {
    /// Latest first.
    model_version_status: Vec<VersionStatus>,
    /// Whether predictions can be asked for; of KServe.
    ready: bool,
}

/// The state of a version.
#[derive(Debug, Serialize, ToSchema)]
struct VersionStatus {
    /// A decimal number.
    version: String,
    /// `AVAILABLE`, or `END` for what cannot predict.
    #[schema(example = "AVAILABLE")]
    state: &'static str,
    status: Status,
}

/// Why a version cannot predict.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionStatusReason)]
struct Status {
    #[schema(example = "OK")]
    error_code: &'static str,
    error_message: String,
}

impl ModelStatus {
    fn new(model: &ModelRecord, versions: impl DoubleEndedIterator<Item = i64>) -> Self {
        let fault = fault_of(model);
        let (state, error_code) = if fault.is_none() { ("AVAILABLE", "OK") } else { ("END", "FAILED_PRECONDITION") };
        let status = |version: i64| VersionStatus {
            version: version.to_string(),
            state,
            status: Status { error_code, error_message: fault.clone().unwrap_or_default() },
        };
        Self { model_version_status: versions.rev().map(status).collect(), ready: fault.is_none() }
    }
}

/// The state of all versions of a model. Versions are loaded when they are first asked to predict.
#[utoipa::path(
    get,
    path = "/v1/models/{name}",
    tag = "tensorflow",
    security(("key" = ["predict"])),
    params(ModelPath),
    responses((status = OK, description = "The versions", body = ModelStatus), Failures)
)]
async fn model_status(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<ModelStatus>, Error> {
    let (model, versions) = with_versions(&app, &target.name).await?;
    Ok(Json(ModelStatus::new(&model, versions.into_iter())))
}

/// The state of a version.
#[utoipa::path(
    get,
    path = "/v1/models/{name}/versions/{version}",
    tag = "tensorflow",
    security(("key" = ["predict"])),
    params(VersionPath),
    responses((status = OK, description = "The version", body = ModelStatus), Failures)
)]
async fn version_status(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<ModelStatus>, Error> {
    let (model, version) = target.find(&app).await?;
    Ok(Json(ModelStatus::new(&model, std::iter::once(version))))
}
