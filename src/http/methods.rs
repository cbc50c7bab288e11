//! `/api/v1/methods`: every criterion, quantiser, codec and preset, described by the types that parse them.

use axum::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::compress::{self, Methods};

use super::Api;
use super::problem::Failures;

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_methods))
}

/// Describes all methods, with JSON Schema, defaults and ranges.
#[utoipa::path(
    get,
    path = "/api/v1/methods",
    tag = "methods",
    security(("key" = ["read"])),
    responses((status = OK, description = "The methods", body = Methods), Failures)
)]
async fn list_methods() -> Json<Methods> {
    Json(compress::methods())
}
