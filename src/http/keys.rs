//! `/api/v1/keys`: who may do what, for the tenant of the key that asks.

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::{ApiKey, KeyId, Scope, Scopes};
use crate::app::App;
use crate::storage::{KeyRecord, NewKey, Timestamp};

use super::problem::Failures;
use super::state::Api;
use super::{Error, extract};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create_key, list_keys)).routes(routes!(revoke_key))
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct Key {
    id: KeyId,
    /// For people.
    name: String,
    scopes: Scopes,
    created_at: Timestamp,
    /// Null: never.
    expires_at: Option<Timestamp>,
    /// Null: it was not.
    revoked_at: Option<Timestamp>,
}

impl From<KeyRecord> for Key {
    fn from(key: KeyRecord) -> Self {
        let KeyRecord { id, tenant_id: _, name, scopes, created_at, expires_at, revoked_at } = key;
        Self { id, name, scopes, created_at, expires_at, revoked_at }
    }
}

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyRequest {
    /// For people; at most 200 characters.
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    name: String,
    /// What it is to allow.
    #[schema(value_type = Vec<GrantedScope>, min_items = 1)]
    scopes: Scopes,
    /// Days until it expires; left out: never.
    #[serde(default, deserialize_with = "extract::optional_whole")]
    #[schema(minimum = 1, maximum = 36_500)]
    valid_days: Option<i64>,
}

/// What a key may be made for here, in the API's description: `metrics` is granted on the command line alone.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "it only describes requests")]
enum GrantedScope {
    Read,
    Write,
    Predict,
    Admin,
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
struct NewKeyAnswer {
    #[serde(flatten)]
    record: Key,
    /// The whole key. It is not stored, and shown this once.
    #[schema(example = "wp_<id>_<secret>")]
    key: String,
}

/// Keys, by age.
#[derive(Debug, Serialize, ToSchema)]
struct KeyList {
    items: Vec<Key>,
}

/// Makes a key.
#[utoipa::path(
    post,
    path = "/api/v1/keys",
    tag = "keys",
    security(("key" = ["admin"])),
    request_body = KeyRequest,
    responses((status = CREATED, description = "The key, to be kept", body = NewKeyAnswer), Failures)
)]
async fn create_key(app: App, extract::Json(asked): extract::Json<KeyRequest>) -> Result<impl IntoResponse, Error> {
    let new = NewKey { name: asked.name, scopes: asked.scopes, valid_days: asked.valid_days };
    new.check().map_err(Error::InvalidBody)?;
    if new.scopes.allow(Scope::Metrics) {
        return Err(Error::InvalidBody("scopes: the scope metrics is granted on the command line alone".to_owned()));
    }
    let key = ApiKey::generate().map_err(Error::internal)?;
    let record = app.storage.store.insert_key(&key, &new).await?.into();
    Ok((StatusCode::CREATED, Json(NewKeyAnswer { record, key: key.reveal() })))
}

/// Lists all keys, those that are over too.
#[utoipa::path(
    get,
    path = "/api/v1/keys",
    tag = "keys",
    security(("key" = ["admin"])),
    responses((status = OK, description = "The keys", body = KeyList), Failures)
)]
async fn list_keys(app: App) -> Result<Json<KeyList>, Error> {
    let items = app.storage.store.keys().await?.into_iter().map(Key::from).collect();
    Ok(Json(KeyList { items }))
}

/// Revokes a key: within seconds it opens nothing any more.
#[utoipa::path(
    delete,
    path = "/api/v1/keys/{id}",
    tag = "keys",
    security(("key" = ["admin"])),
    params(("id" = KeyId, Path, description = "The public part of the key")),
    responses((status = NO_CONTENT, description = "Revoked"), Failures)
)]
async fn revoke_key(app: App, extract::Path(id): extract::Path<KeyId>) -> Result<StatusCode, Error> {
    app.storage.store.revoke_key(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
