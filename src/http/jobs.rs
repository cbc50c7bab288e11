//! `/api/v1/jobs`: queued work.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::compress::Estimate;
use crate::jobs::{Job, JobKind, JobSpec};
use crate::storage::{JobFilter, JobId, JobRecord, JobState};

use super::idempotency::{self, InFlight};
use super::metadata::MetadataQuery;
use super::page::{List, ListResponse, PageQuery};
use super::problem::Failures;
use super::{Api, Closing, Error, Name, content, digest, extract, prefer};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(submit_job, list_jobs)).routes(routes!(get_job)).routes(routes!(cancel_job))
}

/// Seconds after which a client that polls should ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SubmitQuery {
    /// Checks the job and estimates its result; queues nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What a job would do.
#[derive(Debug, Serialize, ToSchema)]
struct DryRun {
    /// Always true: a job that is not valid is answered with a problem.
    valid: bool,
    /// Sizes to expect of a compression; null for other kinds.
    estimate: Option<Estimate>,
}

/// Queues a job.
///
/// Once this is answered with 202 the job survives a crash of the service. `Prefer: wait=N` waits up to N seconds
/// (60 at most) for it to finish, and then answers 200. A request with an `Idempotency-Key` may be sent again for a day: it gets
/// the job that it has, and the header `Idempotency-Replayed`; the same key with another job is refused.
#[utoipa::path(
    post,
    path = "/api/v1/jobs",
    tag = "jobs",
    security(("key" = ["write"])),
    params(
        SubmitQuery,
        ("prefer" = Option<String>, Header, nullable = false, description = "`wait=N`: wait up to N seconds for the result"),
        ("idempotency-key" = Option<String>, Header, nullable = false, pattern = "^[!-~]{1,255}$", description = "What the client calls this request"),
    ),
    request_body = JobSpec,
    responses(
        (status = ACCEPTED, description = "Queued", body = Job, headers(
            ("location" = String, description = "The job"),
            ("retry-after" = i64, description = "Seconds until it is worth asking again"),
        )),
        (status = OK, description = "Finished already; or, of a dry run, valid", body = inline(SubmitAnswer)),
        Failures,
    )
)]
async fn submit_job(
    app: App,
    State(closing): State<Closing>,
    State(in_flight): State<InFlight>,
    extract::Query(query): extract::Query<SubmitQuery>,
    headers: HeaderMap,
    extract::Json(spec): extract::Json<JobSpec>,
) -> Result<Response, Error> {
    let dataset = spec.evaluation().and_then(|evaluation| evaluation.data.dataset.as_deref());
    for name in std::iter::once(spec.model()).chain(dataset) {
        name.parse::<Name>()?;
    }
    if query.dry_run {
        let estimate = app.jobs.dry_run(&spec).await?;
        return Ok(Json(DryRun { valid: true, estimate }).into_response());
    }
    let mut flight = None;
    let (job, is_replayed) = match idempotency::key(&headers)? {
        None => (app.jobs.submit(&spec).await?, false),
        Some(key) => {
            flight = Some(in_flight.begin(app.storage.store.tenant_id(), &key)?);
            app.jobs.submit_once(&spec, "POST /api/v1/jobs", key).await?
        }
    };
    let (job, waited) = wait(&app, closing, job, &headers).await?;
    let status = if job.state.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = [(header::LOCATION, format!("/api/v1/jobs/{}", job.id))];
    let replayed = is_replayed.then_some([idempotency::REPLAYED]);
    drop(flight);
    Ok((status, location, waited, replayed, pace(&job), Json(Job::from(job))).into_response())
}

/// The two answers with status 200.
#[derive(ToSchema)]
#[allow(dead_code, clippy::large_enum_variant, reason = "it only stands for a schema")]
#[serde(untagged)]
enum SubmitAnswer {
    Job(Job),
    DryRun(DryRun),
}

type Header = Option<[(HeaderName, HeaderValue); 1]>;

/// Waits for the end of `job` if the client prefers that, and until the server closes at most.
async fn wait(
    app: &App,
    mut closing: Closing,
    job: JobRecord,
    headers: &HeaderMap,
) -> Result<(JobRecord, Header), Error> {
    let Some(time) = prefer::wait(headers) else { return Ok((job, None)) };
    let job = tokio::select! {
        waited = app.jobs.wait(&job.id, time) => waited?,
        () = closing.begun() => job,
    };
    let applied = HeaderValue::try_from(format!("wait={}", time.as_secs())).ok();
    Ok((job, applied.map(|applied| [(HeaderName::from_static("preference-applied"), applied)])))
}

/// When to ask again about a job that is not finished.
fn pace(job: &JobRecord) -> Header {
    (!job.state.is_final()).then_some([(header::RETRY_AFTER, RETRY_AFTER)])
}

/// Which jobs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct JobQuery {
    /// Only jobs in this state.
    #[param(inline)]
    status: Option<JobState>,
    /// Only jobs of this kind.
    #[param(inline)]
    kind: Option<JobKind>,
    /// Only trials of this search; they are not listed else, unless their kind is asked for.
    #[param(value_type = Option<JobId>)]
    parent: Option<String>,
    /// Only jobs of the model with this name.
    #[param(value_type = Option<Name>)]
    model: Option<Name>,
}

/// Lists jobs, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    tag = "jobs",
    security(("key" = ["read"])),
    params(
        PageQuery,
        ("after" = Option<JobId>, Query, description = "The last entry of the page before"),
        JobQuery,
        ("metadata.KEY" = Option<String>, Query, description = "Only jobs whose metadata have this value under KEY, any key; \
            of several, all"),
    ),
    responses((status = OK, description = "A page of jobs", body = List<Job>), Failures)
)]
async fn list_jobs(
    app: App,
    uri: Uri,
    extract::Query(page): extract::Query<PageQuery>,
    extract::Query(JobQuery { status, kind, parent, model }): extract::Query<JobQuery>,
    MetadataQuery(metadata): MetadataQuery,
) -> Result<ListResponse<Job>, Error> {
    if let Some(after) = &page.after {
        parse_id(after)?;
    }
    let parent = parent.as_deref().map(parse_id).transpose()?;
    let filter = JobFilter { state: status, kind, parent, model: model.map(|name| name.to_string()), metadata };
    let jobs = app.storage.store.jobs(&filter, &page.to_page()?).await?;
    let items = jobs.into_iter().map(Job::from).collect();
    ListResponse::new(&uri, &page, items, |job| job.id.to_string())
}

fn parse_id(text: &str) -> Result<JobId, Error> {
    text.parse().map_err(|error: crate::storage::InvalidId| Error::InvalidParameter(error.to_string()))
}

/// Describes a job.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}",
    tag = "jobs",
    security(("key" = ["read"])),
    params(
        ("id" = JobId, Path, description = "The job"),
        ("prefer" = Option<String>, Header, nullable = false, description = "`wait=N`: wait up to N seconds for the end"),
        ("if-none-match" = Option<String>, Header, nullable = false, description = "The entity tag of the job as the client knows it"),
    ),
    responses(
        (status = OK, description = "The job", body = Job, headers(("etag" = String, description = "Changes whenever the job does"))),
        (status = NOT_MODIFIED, description = "It is as the client knows it"),
        Failures,
    )
)]
async fn get_job(
    app: App,
    State(closing): State<Closing>,
    extract::Path(id): extract::Path<JobId>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let job = app.storage.store.job(&id).await?;
    let (job, waited) = wait(&app, closing, job, &headers).await?;
    let pace = pace(&job);
    let json = serde_json::to_vec(&Job::from(job)).map_err(Error::internal)?;
    let entity_tag = digest::entity_tag(&hex::encode(Sha256::digest(&json)));
    if digest::none_match(&headers, &entity_tag) {
        return Ok((waited, pace, content::not_modified(&entity_tag)).into_response());
    }
    let described = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::ETAG, entity_tag)];
    Ok((waited, pace, described, json).into_response())
}

/// Asks a job to stop.
///
/// A queued job is cancelled at once, a running one soon, a finished one stays as it is. Asking again changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/cancel",
    tag = "jobs",
    security(("key" = ["write"])),
    params(("id" = JobId, Path, description = "The job")),
    responses((status = OK, description = "The job as it now stands", body = Job), Failures)
)]
async fn cancel_job(app: App, extract::Path(id): extract::Path<JobId>) -> Result<Json<Job>, Error> {
    let job = app.jobs.cancel(&id).await?;
    Ok(Json(job.into()))
}
