//! `/api/v1/jobs/{id}/events`: what happened to a job, as pages of JSON or as server-sent events.
//!
//! The numbers of events are their ids in the stream, so a client that lost its connection sends the last one back in
//! `Last-Event-ID` and misses nothing.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::jobs::Watch;
use crate::storage::{JobEvent, JobId, StoreError};

use super::page::{List, ListResponse, PageQuery};
use super::problem::Failures;
use super::{Api, Closing, Error, extract};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_events))
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Events read from the store at a time.
const BATCH: i64 = 100;

/// Lists the events of a job, or follows them.
///
/// With `Accept: text/event-stream` the events are sent as they happen until the job is finished; `Last-Event-ID`, or
/// `after`, continues after the event with that number.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/events",
    tag = "jobs",
    security(("key" = ["read"])),
    params(
        ("id" = JobId, Path, description = "The job"),
        PageQuery,
        ("after" = Option<i64>, Query, description = "The number of the last event of the page before"),
        ("last-event-id" = Option<i64>, Header, nullable = false, description = "The number of the last event seen"),
    ),
    responses(
        (status = OK, description = "A page of events, or a stream of them", content(
            (List<JobEvent> = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = NO_CONTENT, description = "A stream was asked for, the job is finished, and nothing follows"),
        Failures,
    )
)]
async fn list_events(
    app: App,
    State(closing): State<Closing>,
    extract::Path(id): extract::Path<JobId>,
    uri: Uri,
    extract::Query(query): extract::Query<PageQuery>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    // Tells an unknown job from one without events. Read first: a job that was finished then has all its events written.
    let is_final = app.storage.store.job(&id).await?.state.is_final();
    let after = last_seen(&query, &headers)?;
    if wants_stream(&headers) {
        // An `EventSource` reconnects whenever a stream ends, until it is told that there is nothing more.
        if is_final && app.storage.store.events(&id, after, 1).await?.is_empty() {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let watch = app.jobs.watch(&id);
        let follower = Follower { app, closing, job: id, watch, after, pending: VecDeque::new(), is_over: false };
        return Ok(Sse::new(follower.stream()).keep_alive(KeepAlive::default()).into_response());
    }
    let events = app.storage.store.events(&id, after, query.to_page()?.limit).await?;
    Ok(ListResponse::new(&uri, &query, events, |event| event.seq.to_string())?.into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT);
    accepted.iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/event-stream"))
}

/// The number of the last event that the client has seen; 0 for none.
fn last_seen(query: &PageQuery, headers: &HeaderMap) -> Result<i64, Error> {
    if let Some(value) = headers.get(&LAST_EVENT_ID) {
        let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
        return number.ok_or(Error::InvalidHeader { name: "Last-Event-ID", reason: "is not the number of an event" });
    }
    let Some(after) = &query.after else { return Ok(0) };
    after
        .parse()
        .map_err(|_| Error::InvalidParameter(format!("after is {after:?}, the number of an event was expected")))
}

/// Reads the events of a job until it is finished.
struct Follower {
    app: App,
    closing: Closing,
    job: JobId,
    watch: Watch,
    /// Number of the last event that was read.
    after: i64,
    pending: VecDeque<JobEvent>,
    /// Whether the last event was read.
    is_over: bool,
}

impl Follower {
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, async |mut follower| {
            let event = follower.next().await?;
            let json = serde_json::to_string(&event).ok()?;
            Some((Ok(Event::default().id(event.seq.to_string()).event(word(&event)).data(json)), follower))
        })
    }

    /// The next event; `None` once the job is finished, the server closes, or the store fails.
    async fn next(&mut self) -> Option<JobEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.after = event.seq;
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.read().await {
                // The status is sent already: the stream ends, and the client comes back with the last id.
                tracing::warn!(%error, job = %self.job, "the stream of events broke off");
                return None;
            }
            if self.pending.is_empty() && !self.is_over && !self.wait().await {
                return None;
            }
        }
    }

    /// Reads what is new. The state is read first: a job that was finished then has all its events written.
    async fn read(&mut self) -> Result<(), StoreError> {
        let store = &self.app.storage.store;
        let is_final = store.job(&self.job).await?.state.is_final();
        let events = store.events(&self.job, self.after, BATCH).await?;
        self.is_over = is_final && (events.len() as i64) < BATCH;
        self.pending.extend(events);
        Ok(())
    }

    /// Waits for news; false when the server closes instead.
    async fn wait(&mut self) -> bool {
        tokio::select! {
            () = self.watch.changed() => true,
            () = self.closing.begun() => false,
        }
    }
}

/// The kind of an event, as JSON has it.
fn word(event: &JobEvent) -> String {
    serde_json::to_value(event.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default()
}
