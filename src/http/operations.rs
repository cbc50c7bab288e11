//! What operators and machines ask: alive, ready, metrics.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::telemetry;

use super::problem::Failures;
use super::{Api, Closing, Error};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(livez)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// That the service is well.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

/// Whether the process answers at all.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "operations",
    security(()),
    responses((status = OK, description = "It does", body = Health), Failures)
)]
async fn livez() -> Json<Health> {
    OK
}

/// Whether requests should be sent here.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    security(()),
    responses((status = OK, description = "They should", body = Health), Failures)
)]
pub async fn readyz(app: App) -> Result<Json<Health>, Error> {
    if app.is_ready().await { Ok(OK) } else { Err(Error::NotReady) }
}

/// Middleware that refuses new work once the server is to close; who asks how it is still gets an answer.
pub async fn refuse_when_closing(State(closing): State<Closing>, request: Request, next: Next) -> Response {
    if closing.has_begun() && !matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics") {
        return Error::NotReady.into_response();
    }
    next.run(request).await
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    security(("key" = ["metrics"])),
    responses((status = OK, description = "The metrics", body = String), Failures)
)]
async fn metrics(app: App) -> impl IntoResponse {
    telemetry::sample(&app);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}
