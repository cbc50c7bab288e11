//! The HTTP face of the service: its own API under `/api/v1`, the Open Inference Protocol under `/v2`,
//! what TensorFlow Serving and MLflow speak, and operations.
//!
//! One file per resource, each with a `router()`; handlers translate and delegate. A request passes, from the outside
//! in: [`observe`] (request id, span, metrics), [`problem`] (every failure becomes `application/problem+json`), [`body`] (a refused
//! body is read to its end), [`hosts`] (which names it may call us by, which pages it may come from), a guard against new work during a shutdown, one against panics, [`access`] (who sent it, and whether they may), and its handler.
//!
//! **Invariant**: [`Error`] is the only place that knows which failure has which status code.

mod access;
mod body;
mod coding;
mod content;
mod datasets;
mod digest;
mod docs;
mod error;
mod events;
mod extract;
mod form;
mod hosts;
mod idempotency;
mod jobs;
mod keys;
mod limits;
mod metadata;
mod methods;
mod mlflow;
mod models;
mod name;
mod observe;
mod oip;
mod operations;
mod page;
mod predict;
mod prefer;
mod problem;
mod range;
mod rate;
mod server;
mod state;
mod tensorflow;
mod upload;
mod uploads;
mod verb;
mod versions;
mod webhooks;

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

use self::access::Gate;
use self::hosts::Hosts;
use self::state::{Api, Closing};

pub use docs::openapi_yaml;
pub use error::Error;
pub use name::{Name, NameError};
pub use oip::read_inputs;

/// Time a handler has to begin its answer; uploads are exempt. Longer than the longest wait a client may ask for.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(120);

/// Every documented route.
fn documented() -> OpenApiRouter<Api> {
    let timely = OpenApiRouter::with_openapi(docs::preamble())
        .merge(models::router())
        .merge(versions::router())
        .merge(datasets::router())
        .merge(jobs::router())
        .merge(events::router())
        .merge(methods::router())
        .merge(keys::router())
        .merge(webhooks::router())
        .merge(uploads::router())
        .merge(oip::router())
        .merge(tensorflow::router())
        .merge(mlflow::router())
        .merge(operations::router())
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, HANDLER_TIMEOUT));
    timely.merge(models::upload_router()).merge(datasets::upload_router()).merge(uploads::part_router())
}

/// The routes of `documented` and their description, behind all that a request passes.
fn router(documented: OpenApiRouter<Api>, app: App, closing: Closing) -> Router {
    let (routes, document) = documented.split_for_parts();
    let gate = Gate::new(app.storage.store.clone(), &document, app.config.keys.are_required());
    let hosts = Hosts::new(&app.config);
    // From the outside in.
    let layers = ServiceBuilder::new()
        .layer(from_fn(observe::observe))
        .layer(from_fn(problem::render))
        .layer(from_fn(body::drain_when_refused))
        .layer(from_fn_with_state(hosts.clone(), hosts::check))
        .option_layer(hosts.cross_origin())
        .layer(from_fn_with_state(closing.clone(), operations::refuse_when_closing))
        .layer(CatchPanicLayer::custom(problem::of_panic))
        // Bodies are limited where they are read.
        .layer(DefaultBodyLimit::disable());
    let routes = routes.route_layer(from_fn_with_state(gate, access::admit));
    routes.merge(docs::router(document)).with_state(Api::new(app, closing)).layer(layers)
}

/// Serves `app` on `listener` until `shutdown` resolves, then answers what is in flight and returns.
///
/// The caller shuts the application itself down afterwards.
pub async fn run(listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) {
    serve(documented(), listener, app, shutdown).await;
}

/// As [`run`], for a process that only runs jobs: it says how it is, gives its metrics, and knows nothing else.
pub async fn run_operations(listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) {
    let operations = OpenApiRouter::with_openapi(docs::preamble()).merge(operations::router());
    serve(operations, listener, app, shutdown).await;
}

async fn serve(documented: OpenApiRouter<Api>, listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) {
    let (closing, closed) = watch::channel(false);
    let service = router(documented, app.clone(), Closing::new(closed));
    let stopping = async {
        shutdown.await;
        app.begin_shutdown();
        closing.send_replace(true);
    };
    server::serve(listener, service, stopping).await;
}
