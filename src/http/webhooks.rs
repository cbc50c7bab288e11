//! `/api/v1/webhooks`: where messages about jobs are sent, and what came of each.

use axum::Json;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::storage::{
    DeliveryId, DeliveryRecord, DeliveryState, InvalidId, JobId, NewWebhook, Notice, Notices, Timestamp, WebhookChange,
    WebhookId, WebhookRecord,
};
use crate::webhooks::{Endpoint, Secret};

use super::page::{List, ListResponse, PageQuery};
use super::problem::Failures;
use super::state::Api;
use super::{Error, extract};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create_webhook, list_webhooks))
        .routes(routes!(get_webhook, change_webhook, delete_webhook))
        .routes(routes!(rotate_webhook))
        .routes(routes!(list_deliveries))
        .routes(routes!(redeliver))
}

/// A webhook, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct Webhook {
    id: WebhookId,
    url: String,
    /// What it wants to hear of.
    #[schema(value_type = Vec<Notice>)]
    events: Notices,
    /// Whether messages are sent to it. An endpoint that answers 410 is sent no more.
    enabled: bool,
    /// The secret before the present one signs too, until then; null: there was none.
    previous_secret_until: Option<Timestamp>,
    created_at: Timestamp,
}

impl From<WebhookRecord> for Webhook {
    fn from(webhook: WebhookRecord) -> Self {
        let WebhookRecord { id, tenant_id: _, url, events, enabled, previous_until, created_at } = webhook;
        Self { id, url, events, enabled, previous_secret_until: previous_until, created_at }
    }
}

/// A webhook and its secret.
#[derive(Debug, Serialize, ToSchema)]
struct SecretAnswer {
    #[serde(flatten)]
    webhook: Webhook,
    /// What its messages are signed with. It is shown this once.
    #[schema(example = "whsec_<base64>")]
    secret: String,
}

/// Webhooks, by age.
#[derive(Debug, Serialize, ToSchema)]
struct WebhookList {
    items: Vec<Webhook>,
}

/// A webhook to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookRequest {
    /// Where messages are sent: http or https, and a public address, unless the operator allows others.
    #[schema(max_length = 2000, example = "https://example.com/hooks")]
    url: String,
    /// What it is to hear of; left out: the end of jobs.
    #[schema(value_type = Option<Vec<Notice>>, min_items = 1)]
    events: Option<Notices>,
}

/// What is to change about a webhook; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookPatch {
    #[schema(max_length = 2000)]
    url: Option<String>,
    #[schema(value_type = Option<Vec<Notice>>, min_items = 1)]
    events: Option<Notices>,
    /// What waits to be sent to one that is disabled is given up.
    enabled: Option<bool>,
}

/// A message to a webhook.
#[derive(Debug, Serialize, ToSchema)]
struct Delivery {
    /// The header `webhook-id`, however often it is sent.
    id: DeliveryId,
    #[serde(rename = "type")]
    kind: Notice,
    job: JobId,
    state: DeliveryState,
    /// Sendings so far.
    attempt: i64,
    /// When it is sent next, while it is pending.
    next_attempt_at: Option<Timestamp>,
    /// What the latest sending was answered with; null: it was not.
    status_code: Option<i64>,
    /// Why the latest sending failed.
    error: Option<String>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<DeliveryRecord> for Delivery {
    fn from(delivery: DeliveryRecord) -> Self {
        let is_pending = delivery.state == DeliveryState::Pending;
        Self {
            id: delivery.id,
            kind: delivery.kind,
            job: delivery.job_id,
            state: delivery.state,
            attempt: delivery.attempt,
            next_attempt_at: is_pending.then_some(delivery.run_at),
            status_code: delivery.status_code,
            error: delivery.error,
            created_at: delivery.created_at,
            finished_at: delivery.finished_at,
        }
    }
}

/// The URL as it is stored, if messages may go there.
fn checked_url(app: &App, url: &str) -> Result<String, Error> {
    let endpoint: Endpoint = url.parse()?;
    endpoint.check(&app.config.webhook_allow)?;
    Ok(endpoint.as_text())
}

fn checked_events(events: Notices) -> Result<Notices, Error> {
    if events.is_empty() { Err(Error::InvalidBody("events: at least one is expected".to_owned())) } else { Ok(events) }
}

/// Makes a webhook.
///
/// Messages are signed by the rules of Standard Webhooks: the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.
/// One that is not answered with 2xx within 15 s is sent again after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h. A tenant has
/// 20 webhooks at most.
#[utoipa::path(
    post,
    path = "/api/v1/webhooks",
    tag = "webhooks",
    security(("key" = ["write"])),
    request_body = WebhookRequest,
    responses(
        (status = CREATED, description = "The webhook, and its secret, to be kept", body = SecretAnswer, headers(
            ("location" = String, description = "The webhook"),
        )),
        Failures,
    )
)]
async fn create_webhook(
    app: App,
    extract::Json(asked): extract::Json<WebhookRequest>,
) -> Result<impl IntoResponse, Error> {
    let url = checked_url(&app, &asked.url)?;
    let events = checked_events(asked.events.unwrap_or_default())?;
    let secret = Secret::generate().map_err(Error::internal)?;
    let new = NewWebhook { url, events, secret };
    let webhook: Webhook = app.storage.store.insert_webhook(&new).await?.into();
    let location = [(header::LOCATION, format!("/api/v1/webhooks/{}", webhook.id))];
    let secret = new.secret.reveal().to_owned();
    Ok((StatusCode::CREATED, location, Json(SecretAnswer { webhook, secret })))
}

/// Lists all webhooks.
#[utoipa::path(
    get,
    path = "/api/v1/webhooks",
    tag = "webhooks",
    security(("key" = ["read"])),
    responses((status = OK, description = "The webhooks", body = WebhookList), Failures)
)]
async fn list_webhooks(app: App) -> Result<Json<WebhookList>, Error> {
    let items = app.storage.store.webhooks().await?.into_iter().map(Webhook::from).collect();
    Ok(Json(WebhookList { items }))
}

/// Describes a webhook.
#[utoipa::path(
    get,
    path = "/api/v1/webhooks/{webhook}",
    tag = "webhooks",
    security(("key" = ["read"])),
    params(("webhook" = WebhookId, Path, description = "The webhook")),
    responses((status = OK, description = "The webhook", body = Webhook), Failures)
)]
async fn get_webhook(app: App, extract::Path(id): extract::Path<WebhookId>) -> Result<Json<Webhook>, Error> {
    Ok(Json(app.storage.store.webhook(&id).await?.into()))
}

/// Changes a webhook.
#[utoipa::path(
    patch,
    path = "/api/v1/webhooks/{webhook}",
    tag = "webhooks",
    security(("key" = ["write"])),
    params(("webhook" = WebhookId, Path, description = "The webhook")),
    request_body = WebhookPatch,
    responses((status = OK, description = "The webhook as it now is", body = Webhook), Failures)
)]
async fn change_webhook(
    app: App,
    extract::Path(id): extract::Path<WebhookId>,
    extract::Json(asked): extract::Json<WebhookPatch>,
) -> Result<Json<Webhook>, Error> {
    let change = WebhookChange {
        url: asked.url.map(|url| checked_url(&app, &url)).transpose()?,
        events: asked.events.map(checked_events).transpose()?,
        enabled: asked.enabled,
    };
    Ok(Json(app.storage.store.change_webhook(&id, &change).await?.into()))
}

/// Deletes a webhook and its deliveries.
#[utoipa::path(
    delete,
    path = "/api/v1/webhooks/{webhook}",
    tag = "webhooks",
    security(("key" = ["write"])),
    params(("webhook" = WebhookId, Path, description = "The webhook")),
    responses((status = NO_CONTENT, description = "Deleted"), Failures)
)]
async fn delete_webhook(app: App, extract::Path(id): extract::Path<WebhookId>) -> Result<StatusCode, Error> {
    app.storage.store.delete_webhook(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a webhook another secret.
///
/// For 24 hours messages are signed with both, the new one first; a secret that was older signs no more.
#[utoipa::path(
    post,
    path = "/api/v1/webhooks/{webhook}/rotate",
    tag = "webhooks",
    security(("key" = ["write"])),
    params(("webhook" = WebhookId, Path, description = "The webhook")),
    responses((status = OK, description = "The webhook, and its new secret", body = SecretAnswer), Failures)
)]
async fn rotate_webhook(app: App, extract::Path(id): extract::Path<WebhookId>) -> Result<Json<SecretAnswer>, Error> {
    let secret = Secret::generate().map_err(Error::internal)?;
    let webhook = app.storage.store.rotate_webhook(&id, &secret).await?.into();
    Ok(Json(SecretAnswer { webhook, secret: secret.reveal().to_owned() }))
}

/// Lists the messages to a webhook of the last 30 days, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/webhooks/{webhook}/deliveries",
    tag = "webhooks",
    security(("key" = ["read"])),
    params(
        ("webhook" = WebhookId, Path, description = "The webhook"),
        PageQuery,
        ("after" = Option<DeliveryId>, Query, description = "The last entry of the page before"),
    ),
    responses((status = OK, description = "A page of deliveries", body = List<Delivery>), Failures)
)]
async fn list_deliveries(
    app: App,
    uri: Uri,
    extract::Path(id): extract::Path<WebhookId>,
    extract::Query(page): extract::Query<PageQuery>,
) -> Result<ListResponse<Delivery>, Error> {
    let after = page.after.as_deref().map(str::parse::<DeliveryId>).transpose();
    after.map_err(|error: InvalidId| Error::InvalidParameter(error.to_string()))?;
    let deliveries = app.storage.store.deliveries(&id, &page.to_page()?).await?;
    let items = deliveries.into_iter().map(Delivery::from).collect();
    ListResponse::new(&uri, &page, items, |delivery| delivery.id.to_string())
}

/// Has a message sent again at once, under the id that it has.
#[utoipa::path(
    post,
    path = "/api/v1/webhooks/{webhook}/deliveries/{delivery}/redeliver",
    tag = "webhooks",
    security(("key" = ["write"])),
    params(
        ("webhook" = WebhookId, Path, description = "The webhook"),
        ("delivery" = DeliveryId, Path, description = "The message"),
    ),
    responses((status = ACCEPTED, description = "The delivery, pending", body = Delivery), Failures)
)]
async fn redeliver(
    app: App,
    extract::Path((webhook, delivery)): extract::Path<(WebhookId, DeliveryId)>,
) -> Result<impl IntoResponse, Error> {
    let delivery: Delivery = app.storage.store.redeliver(&webhook, &delivery).await?.into();
    Ok((StatusCode::ACCEPTED, Json(delivery)))
}
