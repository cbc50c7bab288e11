//! The dispatcher: claims deliveries that are due, has them sent, and notes what came of each.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::jobs::Job;
use crate::storage::{DeliveryRecord, DueDelivery, Next, Notice, Sending, Store, Timestamp};

use super::AllowList;
use super::sender::{Message, SendError, Sender, TIMEOUT};

/// How often it looks for deliveries that are due.
const POLL: Duration = Duration::from_secs(1);
/// Deliveries that a process sends at the same time.
const SENDING: usize = 16;
/// Longer than a sending takes: a process that is silent for so long is gone.
const LEASE: Duration = Duration::from_secs(4 * TIMEOUT.as_secs());
/// How long the end of a process waits for what is being sent; what is not done then is sent again.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Time before the second sending, the third, and so on, in seconds; after the last one it is given up.
///
/// Source: "Standard Webhooks", section "Deliverability and reliability".
const BACKOFF_SECONDS: [u64; 7] = [5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600];

/// The sending of messages by this process.
pub(crate) struct Dispatcher {
    stop: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Dispatcher {
    /// Starts to send what is due in `store`, of all tenants, to public endpoints and to those that are `allowed`.
    pub(crate) fn start(store: Store, allowed: AllowList) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(dispatch(store, Sender::new(allowed), stop.clone()));
        Self { stop, task: tokio::sync::Mutex::new(Some(task)) }
    }

    /// Stops claiming.
    pub(crate) fn begin_shutdown(&self) {
        self.stop.cancel();
    }

    /// Returns once nothing is being sent any more, or after a few seconds.
    pub(crate) async fn join(&self) {
        if let Some(task) = self.task.lock().await.take() {
            // One that panicked has ended too.
            let _ended = task.await;
        }
    }
}

async fn dispatch(store: Store, sender: Sender, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(SENDING));
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        // The semaphore is never closed.
        let Ok(place) = place else { break };
        match store.claim_delivery(LEASE).await {
            Ok(Some(due)) => {
                let (store, sender) = (store.clone(), sender.clone());
                tokio::spawn(async move {
                    deliver(&store, sender, due).await;
                    drop(place);
                });
            }
            Ok(None) => {
                drop(place);
                if tokio::time::timeout(POLL, stop.cancelled()).await.is_ok() {
                    break;
                }
            }
            Err(error) => {
                drop(place);
                tracing::error!(%error, "no delivery could be claimed");
                if tokio::time::timeout(POLL, stop.cancelled()).await.is_ok() {
                    break;
                }
            }
        }
    }
    let all = u32::try_from(SENDING).unwrap_or(u32::MAX);
    let _elapsed = tokio::time::timeout(LAST_WAIT, places.acquire_many(all)).await;
}

/// Sends a claimed delivery and notes what came of it.
async fn deliver(store: &Store, sender: Sender, due: DueDelivery) {
    let DueDelivery { delivery, job, url, secrets } = due;
    let body = payload(&delivery, Job::from(job));
    let message = Message { id: delivery.id.to_string(), url, body, secrets };
    let sent = tokio::task::spawn_blocking(move || sender.send(message)).await;
    let sent = sent.unwrap_or_else(|panicked| Err(SendError::Failed(panicked.to_string())));
    let sending = judge(&delivery, sent, random());
    let (id, webhook, attempt) = (&delivery.id, &delivery.webhook_id, delivery.attempt);
    match store.finish_sending(&delivery, &sending).await {
        Ok(true) => note(&delivery, &sending),
        Ok(false) => tracing::warn!(%id, %webhook, attempt, "a delivery was over before it was sent"),
        // It is sent again once the lease is over.
        Err(error) => tracing::error!(%id, %webhook, attempt, %error, "what came of a delivery could not be noted"),
    }
}

/// Counts and logs. An error is said without the endpoint, which may hold secrets of the tenant.
fn note(delivery: &DeliveryRecord, sending: &Sending) {
    let outcome = match sending.next {
        Next::Delivered => "delivered",
        Next::Retry(_) => "retried",
        Next::GiveUp | Next::Disable => "failed",
    };
    metrics::counter!("weightpress_webhook_deliveries_total", "outcome" => outcome).increment(1);
    if matches!(sending.next, Next::GiveUp | Next::Disable) {
        let (id, webhook, attempt) = (&delivery.id, &delivery.webhook_id, delivery.attempt);
        tracing::warn!(%id, %webhook, attempt, status = sending.status_code, "a delivery was given up");
    }
}

/// What is to become of a delivery after a sending; `random` from 0 to 1 spreads the next one.
fn judge(delivery: &DeliveryRecord, sent: Result<u16, SendError>, random: f64) -> Sending {
    let (status_code, error) = match sent {
        Ok(status @ 200..300) => (Some(status), None),
        Ok(status) => (Some(status), Some(format!("it was answered with {status}"))),
        Err(error) => (None, Some(error.to_string())),
    };
    let tried = usize::try_from(delivery.attempt - delivery.tried_before).unwrap_or(1).max(1);
    let next = match (status_code, &error, BACKOFF_SECONDS.get(tried - 1)) {
        (_, None, _) => Next::Delivered,
        (Some(410), _, _) => Next::Disable,
        (_, _, Some(&seconds)) => Next::Retry(Duration::from_secs(seconds).mul_f64(1.0 + 0.1 * random)),
        (_, _, None) => Next::GiveUp,
    };
    Sending { status_code: status_code.map(i64::from), error, next }
}

/// From 0 to 1; 0 where the system has no random numbers.
fn random() -> f64 {
    getrandom::u32().map_or(0.0, |number| f64::from(number) / f64::from(u32::MAX))
}

/// The body of a message.
#[derive(Serialize)]
struct Payload {
    #[serde(rename = "type")]
    kind: Notice,
    /// When it happened.
    timestamp: Timestamp,
    data: Value,
}

/// The body of `delivery`: the job as it stands, its result without the report.
fn payload(delivery: &DeliveryRecord, job: Job) -> Vec<u8> {
    let mut data = serde_json::to_value(job).unwrap_or_default();
    if let Some(result) = data["result"].as_object_mut() {
        result.remove("report");
    }
    let payload = Payload { kind: delivery.kind, timestamp: delivery.created_at, data };
    serde_json::to_vec(&payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{DeliveryId, DeliveryState, JobId, TenantId, WebhookId};

    fn delivery(attempt: i64, tried_before: i64) -> DeliveryRecord {
        DeliveryRecord {
            id: DeliveryId::new(),
            tenant_id: TenantId::default(),
            webhook_id: WebhookId::new(),
            job_id: JobId::new(),
            kind: Notice::Succeeded,
            state: DeliveryState::Pending,
            attempt,
            tried_before,
            run_at: Timestamp::default(),
            status_code: None,
            error: None,
            created_at: Timestamp::default(),
            finished_at: None,
        }
    }

    #[test]
    fn a_delivery_is_tried_eight_times_with_growing_pauses() {
        let next = |attempt, random| judge(&delivery(attempt, 0), Ok(500), random).next;
        for (attempt, &seconds) in (1..).zip(&BACKOFF_SECONDS) {
            assert_eq!(next(attempt, 0.0), Next::Retry(Duration::from_secs(seconds)));
            assert_eq!(next(attempt, 1.0), Next::Retry(Duration::from_secs(seconds).mul_f64(1.1)));
        }
        assert_eq!(next(8, 0.0), Next::GiveUp);
        // Asked for again, it is tried as often again.
        assert_eq!(judge(&delivery(9, 8), Ok(500), 0.0).next, Next::Retry(Duration::from_secs(5)));
    }

    #[test]
    fn what_is_answered_decides() {
        for status in [200, 201, 204, 299] {
            assert_eq!(judge(&delivery(8, 0), Ok(status), 0.0).next, Next::Delivered, "{status}");
        }
        for status in [100, 301, 302, 400, 404, 429, 500, 503] {
            let sending = judge(&delivery(1, 0), Ok(status), 0.0);
            assert_eq!(sending.next, Next::Retry(Duration::from_secs(5)), "{status}");
            assert_eq!(sending.status_code, Some(status.into()));
            assert!(sending.error.is_some_and(|error| error.contains(&status.to_string())));
        }
        assert_eq!(judge(&delivery(1, 0), Ok(410), 0.0).next, Next::Disable);
        let failed = judge(&delivery(1, 0), Err(SendError::Unsigned), 0.0);
        assert_eq!((failed.next, failed.status_code), (Next::Retry(Duration::from_secs(5)), None));
    }
}
