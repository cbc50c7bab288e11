//! Webhooks as rows: where a tenant wants to hear of its jobs. What is read of them has no secret but where a message is signed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::webhooks::Secret;

use super::database::{read, write};
use super::{EventKind, Kind, Store, StoreError, TenantId, Timestamp, WebhookId};

/// What a message may tell of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Notice {
    /// It entered the queue.
    #[serde(rename = "job.queued")]
    Queued,
    /// A worker took it, for the first time or again.
    #[serde(rename = "job.started")]
    Started,
    #[serde(rename = "job.succeeded")]
    Succeeded,
    #[serde(rename = "job.failed")]
    Failed,
    #[serde(rename = "job.cancelled")]
    Cancelled,
}

impl Notice {
    /// What tells of such an event, if anything does.
    pub(super) fn of(kind: EventKind) -> Option<Self> {
        match kind {
            EventKind::Queued => Some(Self::Queued),
            EventKind::Started => Some(Self::Started),
            EventKind::Succeeded => Some(Self::Succeeded),
            EventKind::Failed => Some(Self::Failed),
            EventKind::Cancelled => Some(Self::Cancelled),
            EventKind::Progress | EventKind::Requeued | EventKind::Cancelling => None,
        }
    }

    /// The word for it, in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "job.queued",
            Self::Started => "job.started",
            Self::Succeeded => "job.succeeded",
            Self::Failed => "job.failed",
            Self::Cancelled => "job.cancelled",
        }
    }
}

/// What a webhook wants to hear of; stored as words with spaces between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Notices(BTreeSet<Notice>);

impl Default for Notices {
    /// The end of jobs.
    fn default() -> Self {
        Self([Notice::Succeeded, Notice::Failed, Notice::Cancelled].into())
    }
}

impl Notices {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn words(&self) -> String {
        self.0.iter().map(|notice| notice.as_str()).collect::<Vec<_>>().join(" ")
    }
}

impl TryFrom<String> for Notices {
    type Error = serde_json::Error;

    fn try_from(words: String) -> Result<Self, serde_json::Error> {
        let notices = words.split(' ').map(|word| serde_json::from_value(word.into()));
        Ok(Self(notices.collect::<Result<_, _>>()?))
    }
}

/// A webhook, without its secrets.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct WebhookRecord {
    pub id: WebhookId,
    pub tenant_id: TenantId,
    pub url: String,
    /// What it wants to hear of.
    #[sqlx(try_from = "String")]
    pub events: Notices,
    /// Whether messages are sent to it.
    pub enabled: bool,
    /// The secret before the present one signs too, until then; `None` where there was none.
    pub previous_until: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// A webhook about to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewWebhook {
    pub url: String,
    pub events: Notices,
    pub secret: Secret,
}

/// What is to change about a webhook; `None`: it stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WebhookChange {
    pub url: Option<String>,
    pub events: Option<Notices>,
    pub enabled: Option<bool>,
}

/// Webhooks that a tenant may have.
const MAX_WEBHOOKS: i64 = 20;
/// How long a secret signs beside the one that took its place, in milliseconds.
const OVERLAP_MS: i64 = 24 * 60 * 60 * 1000;

/// Gives up what waits to be sent to a webhook that is disabled.
pub(super) const GIVE_UP: &str = "UPDATE webhook_deliveries SET state = 'failed', lease_until = NULL, \
     error = 'the webhook was disabled', finished_at = (SELECT now_ms FROM clock) \
     WHERE webhook_id = $1 AND state = 'pending'";

impl Store {
    /// Stores a webhook.
    ///
    /// # Errors
    /// [`StoreError::WebhookQuota`].
    pub async fn insert_webhook(&self, new: &NewWebhook) -> Result<WebhookRecord, StoreError> {
        // Locks the tenant's row, so that no two take the last place.
        const LOCK: &str = "UPDATE tenants SET name = name WHERE id = $1";
        const COUNT: &str = "SELECT COUNT(*) FROM webhooks WHERE tenant_id = $1";
        const SQL: &str = "INSERT INTO webhooks (id, tenant_id, url, events, enabled, secret, created_at) \
             SELECT $1, $2, $3, $4, true, $5, now_ms FROM clock RETURNING *";
        write!(self, |tx| {
            sqlx::query(LOCK).bind(&self.tenant).execute(&mut *tx).await?;
            let webhooks: i64 = sqlx::query_scalar(COUNT).bind(&self.tenant).fetch_one(&mut *tx).await?;
            if webhooks >= MAX_WEBHOOKS {
                return Err(StoreError::WebhookQuota { max_webhooks: MAX_WEBHOOKS });
            }
            sqlx::query_as(SQL)
                .bind(WebhookId::new())
                .bind(&self.tenant)
                .bind(&new.url)
                .bind(new.events.words())
                .bind(&new.secret)
                .fetch_one(&mut *tx)
                .await?
        })
    }

    /// The webhooks of the tenant, by age.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn webhooks(&self) -> Result<Vec<WebhookRecord>, StoreError> {
        const SQL: &str = "SELECT * FROM webhooks WHERE tenant_id = $1 ORDER BY id";
        Ok(read!(self, |pool| sqlx::query_as(SQL).bind(&self.tenant).fetch_all(pool).await?))
    }

    /// The webhook `id`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn webhook(&self, id: &WebhookId) -> Result<WebhookRecord, StoreError> {
        const SQL: &str = "SELECT * FROM webhooks WHERE tenant_id = $1 AND id = $2";
        let found = read!(self, |pool| sqlx::query_as(SQL).bind(&self.tenant).bind(id).fetch_optional(pool).await?);
        found.ok_or_else(|| Kind::Webhook.not_found(id.as_str()))
    }

    /// Changes a webhook. What waits to be sent to one that is disabled is given up.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn change_webhook(&self, id: &WebhookId, change: &WebhookChange) -> Result<WebhookRecord, StoreError> {
        const SQL: &str = "UPDATE webhooks SET url = COALESCE($3, url), events = COALESCE($4, events), \
             enabled = COALESCE($5, enabled) WHERE tenant_id = $1 AND id = $2 RETURNING *";
        write!(self, |tx| {
            let changed: Option<WebhookRecord> = sqlx::query_as(SQL)
                .bind(&self.tenant)
                .bind(id)
                .bind(&change.url)
                .bind(change.events.as_ref().map(Notices::words))
                .bind(change.enabled)
                .fetch_optional(&mut *tx)
                .await?;
            let changed = changed.ok_or_else(|| Kind::Webhook.not_found(id.as_str()))?;
            if !changed.enabled {
                sqlx::query(GIVE_UP).bind(id).execute(&mut *tx).await?;
            }
            changed
        })
    }

    /// Gives a webhook another secret. The one that it had signs beside it for a day; one that was older signs no more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn rotate_webhook(&self, id: &WebhookId, secret: &Secret) -> Result<WebhookRecord, StoreError> {
        const SQL: &str = "UPDATE webhooks SET previous_secret = secret, secret = $3, \
             previous_until = (SELECT now_ms FROM clock) + $4 WHERE tenant_id = $1 AND id = $2 RETURNING *";
        let rotated: Result<Option<WebhookRecord>, StoreError> = write!(self, |tx| {
            sqlx::query_as(SQL)
                .bind(&self.tenant)
                .bind(id)
                .bind(secret)
                .bind(OVERLAP_MS)
                .fetch_optional(&mut *tx)
                .await?
        });
        rotated?.ok_or_else(|| Kind::Webhook.not_found(id.as_str()))
    }

    /// Deletes a webhook and its deliveries.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_webhook(&self, id: &WebhookId) -> Result<(), StoreError> {
        const SQL: &str = "DELETE FROM webhooks WHERE tenant_id = $1 AND id = $2";
        const DELIVERIES: &str = "DELETE FROM webhook_deliveries WHERE webhook_id = $1";
        write!(self, |tx| {
            let deleted = sqlx::query(SQL).bind(&self.tenant).bind(id).execute(&mut *tx).await?.rows_affected();
            if deleted == 0 {
                return Err(Kind::Webhook.not_found(id.as_str()));
            }
            sqlx::query(DELIVERIES).bind(id).execute(&mut *tx).await?;
        })
    }
}
