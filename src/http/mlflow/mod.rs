//! `/invocations` and `/ping`: the protocol of MLflow's scoring server, for clients that speak it.
//!
//! Such a server has one model. Here, the query or a header names one, and neither is needed by who has one only. What
//! MLflow makes of a body and of what was predicted depends on the flavour of the model; here it is that of its flavour for
//! ONNX, but for two-dimensional outputs of data frames, which MLflow takes apart into rows of single values.
//!
//! Source: <https://github.com/mlflow/mlflow>, `mlflow/pyfunc/scoring_server/__init__.py`, `mlflow/utils/proto_json_utils.py`
//! and `mlflow/onnx/__init__.py`.

mod frame;
mod invocation;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::storage::{ModelFilter, Page};

use super::limits::Limits;
use super::operations::{Health, readyz};
use super::predict::{Answer, CodingHeaders, Target, predict};
use super::problem::Failures;
use super::{Api, Error, Name, extract};

use self::invocation::{Invocation, InvocationRequest, InvocationResponse};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(invoke)).routes(routes!(ping)).routes(routes!(health)).routes(routes!(version))
}

/// Names the model, like the parameter `model`.
pub const MODEL: HeaderName = HeaderName::from_static("x-weightpress-model");

/// Which model is asked.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// The model's name; the header `X-Weightpress-Model` may name it too. Without either, the only model there is.
    #[param(value_type = Option<Name>)]
    model: Option<String>,
    /// The version; the model's default version without it.
    version: Option<i64>,
}

/// The header that names a model, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes parameters")]
struct ModelHeader {
    /// The model's name.
    #[param(rename = "X-Weightpress-Model", nullable = false)]
    model: Option<Name>,
}

impl Which {
    /// The model that the query or `headers` name; otherwise the only one.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] where that is none or several; [`Error::Name`].
    async fn target(self, headers: &HeaderMap, app: &App) -> Result<Target, Error> {
        let version = self.version;
        let header = headers.get(&MODEL).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let name = match (self.model, header) {
            (Some(query), Some(header)) if query != header => {
                let detail = format!("the query names the model `{query}`, the header X-Weightpress-Model `{header}`");
                return Err(Error::InvalidParameter(detail));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => only_model(app).await?,
        };
        Ok(Target { name: name.parse::<Name>()?, version })
    }
}

/// The name of the only model that the tenant has.
async fn only_model(app: &App) -> Result<String, Error> {
    let models = app.storage.store.models(&ModelFilter::default(), &Page { after: None, limit: 2 }).await?;
    match <[_; 1]>::try_from(models) {
        Ok([model]) => Ok(model.name),
        Err(models) => {
            let count = if models.is_empty() { "there is no model" } else { "there is more than one model" };
            let detail = format!("{count}: name one by the parameter `model` or the header X-Weightpress-Model");
            Err(Error::InvalidParameter(detail))
        }
    }
}

/// Predicts as MLflow's scoring server does.
#[utoipa::path(
    post,
    path = "/invocations",
    tag = "mlflow",
    security(("key" = ["predict"])),
    params(Which, ModelHeader, CodingHeaders),
    request_body = InvocationRequest,
    responses((status = OK, description = "The outputs", body = InvocationResponse), Failures)
)]
async fn invoke(
    app: App,
    State(limits): State<Limits>,
    extract::Query(which): extract::Query<Which>,
    request: Request,
) -> Result<Answer, Error> {
    let target = which.target(request.headers(), &app).await?;
    predict::<Invocation>(&app, &limits, &target, request).await
}

/// Whether predictions can be asked for.
#[utoipa::path(
    get,
    path = "/ping",
    tag = "mlflow",
    security(()),
    responses((status = OK, description = "They can", body = Health), Failures)
)]
async fn ping(app: App) -> Result<Json<Health>, Error> {
    readyz(app).await
}

/// Whether predictions can be asked for.
#[utoipa::path(
    get,
    path = "/health",
    tag = "mlflow",
    security(()),
    responses((status = OK, description = "They can", body = Health), Failures)
)]
async fn health(app: App) -> Result<Json<Health>, Error> {
    readyz(app).await
}

/// The version of the service, alone.
#[utoipa::path(
    get,
    path = "/version",
    tag = "mlflow",
    security(()),
    responses((status = OK, description = "The version", body = String, content_type = "text/plain"), Failures)
)]
async fn version() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], env!("CARGO_PKG_VERSION"))
}
