//! What was asked of versions since the process started, in Triton's words.
//!
//! Source: <https://github.com/triton-inference-server/server>, `docs/protocol/extension_statistics.md`.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::problem::Failures;
use crate::http::{Api, Error, extract};
use crate::jobs::{Statistics, Times};

use super::catalogue::each_model;
use super::{ModelPath, Target, VersionPath, with_versions};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(all_statistics))
        .routes(routes!(model_statistics))
        .routes(routes!(version_statistics))
}

/// Statistics of versions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InferStatistics)]
struct List {
    model_stats: Vec<ModelStatistics>,
}

/// What was asked of a version since the process started.
#[derive(Debug, Serialize, ToSchema)]
struct ModelStatistics {
    name: String,
    version: String,
    /// End of the last prediction, in milliseconds since 1970; 0 when there was none.
    last_inference: u64,
    /// Samples that were predicted, where the model takes any number of them; otherwise requests.
    inference_count: u64,
    /// Predictions that were run; of requests that share a batch, each.
    execution_count: u64,
    inference_stats: InferenceTimes,
    /// Empty: batches are not counted by their size.
    #[schema(value_type = Vec<Object>)]
    batch_stats: [(); 0],
}

/// Where the time of predictions went.
#[derive(Debug, Serialize, ToSchema)]
struct InferenceTimes {
    /// Predictions that were answered, from the first to the last byte.
    success: Duration,
    /// Those that were refused, or failed.
    fail: Duration,
    /// Waiting for a thread.
    queue: Duration,
    /// Reading the request.
    compute_input: Duration,
    /// Running the graph, and waiting for others to share a batch.
    compute_infer: Duration,
    /// Writing the answer.
    compute_output: Duration,
}

/// How often something was timed, and its time in all.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InferenceDuration)]
struct Duration {
    count: u64,
    /// Nanoseconds.
    ns: u64,
}

impl From<Times> for Duration {
    fn from(Times { count, ns }: Times) -> Self {
        Self { count, ns }
    }
}

impl ModelStatistics {
    fn new(name: &str, version: i64, found: Statistics) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_string(),
            last_inference: found.last_ms,
            inference_count: found.samples,
            execution_count: found.executions,
            inference_stats: InferenceTimes {
                success: found.success.into(),
                fail: found.failure.into(),
                queue: found.queue.into(),
                compute_input: found.input.into(),
                compute_infer: found.infer.into(),
                compute_output: found.output.into(),
            },
            batch_stats: [],
        }
    }
}

/// What was asked of all versions of all models.
#[utoipa::path(
    get,
    path = "/v2/models/stats",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    responses((status = OK, body = List), Failures)
)]
async fn all_statistics(app: App) -> Result<Json<List>, Error> {
    let of_model = |model: &super::catalogue::Entry| {
        let of_version =
            |&version: &i64| ModelStatistics::new(&model.name, version, app.predictors.statistics(&model.id, version));
        model.versions.iter().map(of_version).collect::<Vec<_>>()
    };
    let model_stats = each_model(&app).await?.iter().flat_map(of_model).collect();
    Ok(Json(List { model_stats }))
}

/// What was asked of all versions of a model.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/stats",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    params(ModelPath),
    responses((status = OK, body = List), Failures)
)]
async fn model_statistics(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<List>, Error> {
    let (model, versions) = with_versions(&app, &target.name).await?;
    let of_version = |number| ModelStatistics::new(&model.name, number, app.predictors.statistics(&model.id, number));
    Ok(Json(List { model_stats: versions.into_iter().map(of_version).collect() }))
}

/// What was asked of one version.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/versions/{version}/stats",
    tag = "inference",
    security(("key" = ["read"]), ("key" = ["predict"])),
    params(VersionPath),
    responses((status = OK, body = List), Failures)
)]
async fn version_statistics(app: App, extract::Path(target): extract::Path<Target>) -> Result<Json<List>, Error> {
    let (model, version) = target.find(&app).await?;
    let found = app.predictors.statistics(&model.id, version);
    Ok(Json(List { model_stats: vec![ModelStatistics::new(&model.name, version, found)] }))
}
