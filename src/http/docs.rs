//! The description of the API: as OpenAPI, and as a page to read and try it.

use axum::Router;
use axum::http::header;
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::problem::Problem;
use super::{Api, Name, documented};
use crate::compress::{PruneFields, QuantizeFields};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weightpress",
        description = "Makes trained neural networks small and keeps them usable: upload a model, queue a compression, download the artifact, and predict on the compressed weights. Every failure is an `application/problem+json`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "models", description = "Uploaded networks"),
        (name = "versions", description = "What a compression made; version 0 is the upload"),
        (name = "datasets", description = "Named arrays to evaluate on"),
        (name = "jobs", description = "Queued work"),
        (name = "methods", description = "Pruning criteria, quantisers, codecs and presets"),
        (name = "inference", description = "The Open Inference Protocol, with its extensions"),
        (name = "tensorflow", description = "Predictions as TensorFlow Serving's REST API has them"),
        (name = "mlflow", description = "Predictions as MLflow's scoring server has them"),
        (name = "webhooks", description = "Signed messages about jobs"),
        (name = "keys", description = "Who may do what"),
        (name = "operations", description = "Health and metrics"),
    ),
    components(schemas(Name, Problem, PruneFields, QuantizeFields)),
    modifiers(&Keys)
)]
struct Preamble;

/// Describes how a key is sent. What an operation lists under the scheme are scopes, of which the key must have one.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("wp_<id>_<secret>").description(
            Some("A key of `weightpress keys create`. Each operation names the scopes of which the key must have one."),
        );
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme.build()));
    }
}

/// Title, tags and what all operations share.
pub fn preamble() -> utoipa::openapi::OpenApi {
    Preamble::openapi()
}

/// The OpenAPI document of the service, in YAML.
pub fn openapi_yaml() -> String {
    to_yaml(&documented().into_openapi())
}

fn to_yaml(document: &utoipa::openapi::OpenApi) -> String {
    document.to_yaml().expect("a document made of strings, numbers and lists has a YAML form")
}

/// `/openapi.yaml`, `/openapi.json` and `/docs`, which works without a network.
pub fn router(document: utoipa::openapi::OpenApi) -> Router<Api> {
    let yaml = to_yaml(&document);
    let serve_yaml = move || async move { ([(header::CONTENT_TYPE, "application/yaml")], yaml) };
    Router::new().route("/openapi.yaml", get(serve_yaml)).merge(SwaggerUi::new("/docs").url("/openapi.json", document))
}
