//! What is deleted of old jobs, and what is not.

use std::time::Duration;

use crate::webhooks::Secret;

use super::outcomes::{claimed, compression};
use super::*;

const LONG: Duration = Duration::from_secs(3600);
/// Over once the clock ticks.
const OVER: Duration = Duration::ZERO;

/// Deletes the jobs that are over, which must be so many.
async fn forget_jobs(storage: &Storage, count: u64) {
    let mut forgotten = 0;
    while forgotten < count {
        forgotten += storage.store.forget_old_jobs(OVER).await.expect("a database");
    }
    assert_eq!(forgotten, count);
}

/// Deletes the events of the jobs that are over, which must be so many.
async fn forget_events(storage: &Storage, count: u64) {
    let mut forgotten = 0;
    while forgotten < count {
        forgotten += storage.store.forget_old_events(OVER).await.expect("a database");
    }
    assert_eq!(forgotten, count);
}

/// Queues a job of `net` and has it succeed.
async fn run_one(storage: &Storage) -> JobId {
    let lease = claimed(storage).await;
    storage.store.finish_evaluation(&lease, &evaluation_result()).await.expect("a lease");
    lease.job
}

async fn is_gone(storage: &Storage, job: &JobId) -> bool {
    matches!(storage.store.job(job).await, Err(StoreError::NotFound { kind: Kind::Job, .. }))
}

#[tokio::test]
async fn an_old_job_goes_and_what_it_made_and_measured_stays() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let lease = claimed(&storage).await;
        let file = stage(&storage, b"artifact").await;
        let metric = NewMetric { version: Compression::NEW, ..evaluation_result().metrics[0].clone() };
        storage.finish_compression(&lease, file, &compression(vec![metric])).await.expect("a version");
        let evaluation = run_one(&storage).await;
        assert_eq!(storage.store.forget_old_jobs(LONG).await.expect("a database"), 0);
        assert_eq!(storage.store.forget_old_events(LONG).await.expect("a database"), 0);
        assert_eq!(event_kinds(&storage, &evaluation).await.len(), 3);

        forget_jobs(&storage, 2).await;
        assert!(is_gone(&storage, &lease.job).await && is_gone(&storage, &evaluation).await);
        assert_eq!(event_kinds(&storage, &evaluation).await, []);
        storage.sweep().await.expect("a sweep");
        let model = storage.store.model("net").await.expect("the model");
        let version = storage.store.version(&model, 1).await.expect("the version");
        assert_eq!((model.default_version, version.job_id), (1, Some(lease.job.clone())));
        assert!(path_of(&storage, &version.sha256).await.is_file());
        assert_eq!(storage.store.layers(&model.id, 1).await.expect("layers").len(), 2);
        let metrics = storage.store.metrics(&model.id, None).await.expect("metrics");
        let measured: Vec<_> = metrics.into_iter().map(|metric| (metric.version, metric.job_id)).collect();
        assert_eq!(measured, [(1, lease.job), (0, evaluation)]);
        // The next one is as if it had been the first.
        run_one(&storage).await;
        storage.delete_model("net").await.expect("no job any more");
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_not_over_stays_however_old() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let running = claimed(&storage).await;
        let cancelling = claimed(&storage).await;
        storage.store.cancel(&cancelling.job).await.expect("the job");
        let queued = storage.store.enqueue(&new_job("net")).await.expect("a job");
        let cancelled = storage.store.enqueue(&new_job("net")).await.expect("a job");
        storage.store.cancel(&cancelled.id).await.expect("the job");
        forget_jobs(&storage, 1).await;
        assert!(is_gone(&storage, &cancelled.id).await);
        for job in [&running.job, &cancelling.job, &queued.id] {
            assert!(!event_kinds(&storage, job).await.is_empty());
        }
        storage.store.finish_evaluation(&running, &evaluation_result()).await.expect("a lease");
        storage.store.acknowledge_cancel(&cancelling).await.expect("a lease");
    })
    .await;
}

#[tokio::test]
async fn whatever_refers_to_an_old_job_goes_with_it_but_a_message_that_is_still_to_be_sent_keeps_it() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let new = NewWebhook {
            url: "https://example.com/hooks".to_owned(),
            events: "job.cancelled".to_owned().try_into().expect("kinds of messages"),
            secret: Secret::generate().expect("random numbers"),
        };
        let webhook = storage.store.insert_webhook(&new).await.expect("a webhook");
        let page = Page { after: None, limit: 9 };
        let request = NamedRequest { operation: "POST /", key: "x".to_owned(), body_sha256: "0".repeat(64) };
        let metadata: Metadata = serde_json::from_value(json!({"run": "7"})).expect("metadata");
        let job = NewJob { request: Some(request.clone()), metadata: metadata.clone(), ..new_job("net") };
        let job = storage.store.enqueue(&job).await.expect("a job");
        storage.store.cancel(&job.id).await.expect("the job");
        forget_events(&storage, 2).await;
        assert_eq!(storage.store.forget_old_jobs(OVER).await.expect("a database"), 0);
        let due = storage.store.claim_delivery(LONG).await.expect("a queue").expect("the delivery");
        assert_eq!(due.job.id, job.id);
        let sent = Sending { status_code: Some(200), error: None, next: Next::Delivered };
        assert!(storage.store.finish_sending(&due.delivery, &sent).await.expect("a database"));

        forget_jobs(&storage, 1).await;
        assert_eq!(storage.store.made_by(&request).await.expect("a database"), None);
        assert_eq!(storage.store.deliveries(&webhook.id, &page).await.expect("deliveries"), []);
        let redelivered = storage.store.redeliver(&webhook.id, &due.delivery.id).await;
        assert!(matches!(redelivered, Err(StoreError::NotFound { kind: Kind::Delivery, .. })), "{redelivered:?}");
        let filter = JobFilter { metadata, ..JobFilter::default() };
        assert_eq!(storage.store.jobs(&filter, &page).await.expect("jobs"), []);
    })
    .await;
}

#[tokio::test]
async fn events_go_alone_and_in_any_number() {
    // More than one transaction deletes.
    const PROGRESS: &str = "WITH RECURSIVE n (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
         INSERT INTO job_events (tenant_id, job_id, seq, kind, attempt, data, at) \
         SELECT tenant_id, id, i, 'progress', 1, '{}', created_at FROM jobs, n WHERE id = $1";
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let lease = claimed(&storage).await;
        let progress = async || -> Result<u64, StoreError> {
            database::write!(storage.store, |tx| {
                sqlx::query(PROGRESS).bind(&lease.job).execute(&mut *tx).await?.rows_affected()
            })
        };
        assert_eq!(progress().await.expect("a database"), 2498);
        let finished = storage.store.finish_evaluation(&lease, &evaluation_result()).await.expect("a lease");
        let other = run_one(&storage).await;
        forget_events(&storage, 2501 + 3).await;
        assert_eq!(storage.store.job(&lease.job).await.expect("the job"), finished);
        for job in [&lease.job, &other] {
            assert_eq!(event_kinds(&storage, job).await, []);
        }
        assert_eq!(storage.store.forget_old_events(OVER).await.expect("a database"), 0);
    })
    .await;
}
