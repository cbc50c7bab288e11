//! Deliveries: messages to webhooks, a queue with leases like that of jobs.
//!
//! A delivery is inserted by the transaction that appends its event to a job, so there is one for every event that a webhook
//! wants to hear of. Who sends it claims it for a while; `attempt` counts the claims and is the fencing token. After that while
//! it is sent again, whatever came of it: a message may come twice, and none is lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::webhooks::Secret;

use super::database::{read, skip_locked, write};
use super::queue::millis;
use super::webhooks::GIVE_UP;
use super::{DeliveryId, JobId, JobRecord, Kind, Notice, Page, Store, StoreError, TenantId, Timestamp, WebhookId};

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits to be sent, for the first time or again.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// It was given up.
    Failed,
}

/// A message to a webhook.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DeliveryRecord {
    /// The message's own, however often it is sent.
    pub id: DeliveryId,
    pub tenant_id: TenantId,
    pub webhook_id: WebhookId,
    pub job_id: JobId,
    pub kind: Notice,
    pub state: DeliveryState,
    /// Sendings so far; also the fencing token of the lease.
    pub attempt: i64,
    /// Of these, those before somebody asked to send it again.
    pub tried_before: i64,
    /// Not sent before this moment.
    pub run_at: Timestamp,
    /// What the latest sending was answered with.
    pub status_code: Option<i64>,
    /// Why the latest sending failed.
    pub error: Option<String>,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// A delivery that is to be sent now, with all that it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct DueDelivery {
    pub delivery: DeliveryRecord,
    pub job: JobRecord,
    pub url: String,
    /// What it is signed with: the present secret, and the one before while it still signs.
    pub secrets: Vec<Secret>,
}

/// What came of a sending.
#[derive(Debug, Clone, PartialEq)]
pub struct Sending {
    /// What it was answered with, if it was.
    pub status_code: Option<i64>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    pub next: Next,
}

/// What is to become of a delivery that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the endpoint took it.
    Delivered,
    /// It is sent again after this time.
    Retry(Duration),
    /// Nothing: it is given up.
    GiveUp,
    /// It is given up, and the webhook disabled with all that waits for it: the endpoint wants no more.
    Disable,
}

/// Webhooks that want to hear `$2` of the job `$1`.
pub(super) const LISTENING: &str = "SELECT id FROM webhooks \
     WHERE tenant_id = (SELECT tenant_id FROM jobs WHERE id = $1 AND parent_id IS NULL) \
     AND enabled AND ' ' || events || ' ' LIKE '% ' || $2 || ' %' ORDER BY id";

pub(super) const INSERT: &str = "INSERT INTO webhook_deliveries \
     (id, tenant_id, webhook_id, job_id, kind, state, run_at, created_at) \
     SELECT $1, j.tenant_id, $2, j.id, $4, 'pending', now_ms, now_ms FROM jobs j, clock WHERE j.id = $3";

/// Queues the messages that tell of an event of a job; inside the transaction that appends it.
macro_rules! insert_deliveries {
    ($tx:ident, $job:expr, $kind:expr) => {
        if let Some(notice) = $crate::storage::Notice::of($kind) {
            let webhooks: Vec<$crate::storage::WebhookId> = sqlx::query_scalar($crate::storage::deliveries::LISTENING)
                .bind($job)
                .bind(notice)
                .fetch_all(&mut *$tx)
                .await?;
            for webhook in webhooks {
                sqlx::query($crate::storage::deliveries::INSERT)
                    .bind($crate::storage::DeliveryId::new())
                    .bind(webhook)
                    .bind($job)
                    .bind(notice)
                    .execute(&mut *$tx)
                    .await?;
            }
        }
    };
}

pub(super) use insert_deliveries;

/// Deliveries of a tenant that are sent at the same time: endpoints that do not answer hold up those of others no more than so.
const MAX_SENDING: i64 = 4;
/// How long deliveries are kept, in milliseconds.
const KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1000;

impl Store {
    /// Gives a delivery that is due, of any tenant, to whoever sends it, for `lease`: the one that has waited longest.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn claim_delivery(&self, lease: Duration) -> Result<Option<DueDelivery>, StoreError> {
        // The dispatchers ask often: look before taking the write lock.
        const DUE: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM webhook_deliveries WHERE state = 'pending' \
             AND run_at <= (SELECT now_ms FROM clock) \
             AND (lease_until IS NULL OR lease_until < (SELECT now_ms FROM clock)) LIMIT 1) AS due";
        let claim = skip_locked!(
            self,
            "UPDATE webhook_deliveries SET attempt = attempt + 1, lease_until = (SELECT now_ms FROM clock) + $1 \
             WHERE id = (SELECT d.id FROM webhook_deliveries d WHERE d.state = 'pending' \
             AND d.run_at <= (SELECT now_ms FROM clock) \
             AND (d.lease_until IS NULL OR d.lease_until < (SELECT now_ms FROM clock)) \
             AND EXISTS (SELECT 1 FROM webhooks w WHERE w.id = d.webhook_id AND w.enabled) \
             AND (SELECT COUNT(*) FROM webhook_deliveries o WHERE o.tenant_id = d.tenant_id \
             AND o.lease_until >= (SELECT now_ms FROM clock)) < $2 ORDER BY d.run_at, d.id LIMIT 1",
            ") RETURNING *"
        );
        const WEBHOOK: &str = "SELECT url, secret, CASE WHEN previous_until > (SELECT now_ms FROM clock) \
             THEN previous_secret END FROM webhooks WHERE id = $1";
        const JOB: &str = "SELECT * FROM jobs WHERE id = $1";
        let due: i64 = read!(self, |pool| sqlx::query_scalar(DUE).fetch_one(pool).await?);
        if due == 0 {
            return Ok(None);
        }
        write!(self, |tx| {
            let claimed: Option<DeliveryRecord> =
                sqlx::query_as(claim).bind(millis(lease)).bind(MAX_SENDING).fetch_optional(&mut *tx).await?;
            match claimed {
                None => None,
                Some(delivery) => {
                    let webhook: Option<(String, Secret, Option<Secret>)> =
                        sqlx::query_as(WEBHOOK).bind(&delivery.webhook_id).fetch_optional(&mut *tx).await?;
                    let job: Option<JobRecord> =
                        sqlx::query_as(JOB).bind(&delivery.job_id).fetch_optional(&mut *tx).await?;
                    // Either may just have been deleted; its deliveries go with it.
                    webhook.zip(job).map(|((url, secret, previous), job)| {
                        let secrets = std::iter::once(secret).chain(previous).collect();
                        DueDelivery { delivery, job, url, secrets }
                    })
                }
            }
        })
    }

    /// Notes what came of a sending. Returns false where the lease was lost, or the delivery is over: nothing changes then.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn finish_sending(&self, sent: &DeliveryRecord, sending: &Sending) -> Result<bool, StoreError> {
        const SQL: &str = "UPDATE webhook_deliveries SET state = $3, lease_until = NULL, status_code = $4, error = $5, \
             run_at = (SELECT now_ms FROM clock) + $6, \
             finished_at = CASE WHEN $3 = 'pending' THEN NULL ELSE (SELECT now_ms FROM clock) END \
             WHERE id = $1 AND attempt = $2 AND state = 'pending'";
        const LOCK: &str = "UPDATE webhooks SET url = url WHERE id = $1";
        const DISABLE: &str = "UPDATE webhooks SET enabled = false WHERE id = $1";
        let (state, delay) = match sending.next {
            Next::Delivered => (DeliveryState::Delivered, Duration::ZERO),
            Next::Retry(delay) => (DeliveryState::Pending, delay),
            Next::GiveUp | Next::Disable => (DeliveryState::Failed, Duration::ZERO),
        };
        write!(self, |tx| {
            if sending.next == Next::Disable {
                // The webhook's row is locked before those of its deliveries, as everywhere.
                sqlx::query(LOCK).bind(&sent.webhook_id).execute(&mut *tx).await?;
            }
            let noted = sqlx::query(SQL)
                .bind(&sent.id)
                .bind(sent.attempt)
                .bind(state)
                .bind(sending.status_code)
                // Postgres has no NUL in text.
                .bind(sending.error.as_ref().map(|error| error.replace('\0', "\u{fffd}")))
                .bind(millis(delay))
                .execute(&mut *tx)
                .await?
                .rows_affected();
            if sending.next == Next::Disable && noted > 0 {
                sqlx::query(DISABLE).bind(&sent.webhook_id).execute(&mut *tx).await?;
                sqlx::query(GIVE_UP).bind(&sent.webhook_id).execute(&mut *tx).await?;
            }
            noted > 0
        })
    }

    /// Deliveries to a webhook, newest first, those before `page.after` (an id).
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the webhook.
    pub async fn deliveries(&self, webhook: &WebhookId, page: &Page) -> Result<Vec<DeliveryRecord>, StoreError> {
        const SQL: &str = "SELECT * FROM webhook_deliveries WHERE tenant_id = $1 AND webhook_id = $2 \
             AND ($3 IS NULL OR id < $3) ORDER BY id DESC LIMIT $4";
        self.webhook(webhook).await?;
        Ok(read!(self, |pool| {
            sqlx::query_as(SQL)
                .bind(&self.tenant)
                .bind(webhook)
                .bind(&page.after)
                .bind(page.limit)
                .fetch_all(pool)
                .await?
        }))
    }

    /// Has a delivery sent again at once, as the same message; one that was over is tried as often as a new one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the webhook or the delivery; [`StoreError::WebhookDisabled`].
    pub async fn redeliver(&self, webhook: &WebhookId, id: &DeliveryId) -> Result<DeliveryRecord, StoreError> {
        const ENABLED: &str = "SELECT enabled FROM webhooks WHERE tenant_id = $1 AND id = $2";
        const SQL: &str = "UPDATE webhook_deliveries SET run_at = (SELECT now_ms FROM clock), finished_at = NULL, \
             tried_before = CASE WHEN state = 'pending' THEN tried_before ELSE attempt END, state = 'pending' \
             WHERE tenant_id = $1 AND webhook_id = $2 AND id = $3 RETURNING *";
        write!(self, |tx| {
            let enabled: Option<bool> =
                sqlx::query_scalar(ENABLED).bind(&self.tenant).bind(webhook).fetch_optional(&mut *tx).await?;
            if !enabled.ok_or_else(|| Kind::Webhook.not_found(webhook.as_str()))? {
                return Err(StoreError::WebhookDisabled { webhook: webhook.to_string() });
            }
            let delivery: Option<DeliveryRecord> =
                sqlx::query_as(SQL).bind(&self.tenant).bind(webhook).bind(id).fetch_optional(&mut *tx).await?;
            delivery.ok_or_else(|| Kind::Delivery.not_found(id.as_str()))?
        })
    }

    /// Forgets deliveries that are older than 30 days or whose webhook is gone, of all tenants.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_old_deliveries(&self) -> Result<u64, StoreError> {
        const SQL: &str = "DELETE FROM webhook_deliveries WHERE created_at < (SELECT now_ms FROM clock) - $1 \
             OR NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.id = webhook_deliveries.webhook_id)";
        write!(self, |tx| sqlx::query(SQL).bind(KEPT_MS).execute(&mut *tx).await?.rows_affected())
    }
}
