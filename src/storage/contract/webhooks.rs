//! Webhooks and the messages to them.

use std::time::Duration;

use crate::webhooks::Secret;

use super::*;

const LONG: Duration = Duration::from_secs(3600);
/// Over before the next statement has read the clock twice.
const OVER: Duration = Duration::ZERO;

fn new_webhook(words: &str) -> NewWebhook {
    NewWebhook {
        url: "https://example.com/hooks".to_owned(),
        events: words.to_owned().try_into().expect("kinds of messages"),
        secret: Secret::generate().expect("random numbers"),
    }
}

async fn add_webhook(storage: &Storage, words: &str) -> WebhookRecord {
    storage.store.insert_webhook(&new_webhook(words)).await.expect("a webhook")
}

async fn tenant(storage: &Storage, name: &str) -> Storage {
    storage.for_tenant(&storage.store.tenant_or_new(name).await.expect("a tenant").id)
}

async fn deliveries(storage: &Storage, webhook: &WebhookId) -> Vec<DeliveryRecord> {
    storage.store.deliveries(webhook, &Page { after: None, limit: 100 }).await.expect("deliveries")
}

/// What a webhook was told, in order.
async fn told(storage: &Storage, webhook: &WebhookRecord) -> Vec<&'static str> {
    let mut deliveries = deliveries(storage, &webhook.id).await;
    deliveries.reverse();
    deliveries.into_iter().map(|delivery| delivery.kind.as_str()).collect()
}

/// Queues a job of the model `net`, which is made, and has it succeed.
async fn run_one(storage: &Storage) -> JobRecord {
    add_model(storage, "net").await;
    storage.store.enqueue(&new_job("net")).await.expect("a job");
    let claimed = storage.store.claim("worker", LONG).await.expect("a queue").expect("the job");
    storage.store.finish_evaluation(&claimed.lease(), &evaluation_result()).await.expect("a lease")
}

/// Fails the job that is queued last.
async fn fail_another(storage: &Storage) {
    storage.store.enqueue(&new_job("net")).await.expect("a job");
    let claimed = storage.store.claim("worker", LONG).await.expect("a queue").expect("the job");
    let failure = Failure { code: "test".to_owned(), detail: String::new() };
    storage.store.fail(&claimed.lease(), &failure).await.expect("a lease");
}

async fn claim(storage: &Storage, lease: Duration) -> Option<DueDelivery> {
    storage.store.claim_delivery(lease).await.expect("a queue")
}

fn sending(next: Next) -> Sending {
    Sending { status_code: Some(500), error: Some("it was\0answered with 500".to_owned()), next }
}

#[tokio::test]
async fn each_webhook_hears_of_what_it_asked_for() {
    with_storage(async |storage| {
        let ends = add_webhook(&storage, "job.succeeded job.failed job.cancelled").await;
        let all = add_webhook(&storage, "job.queued job.started job.succeeded job.failed job.cancelled").await;
        let failures = add_webhook(&storage, "job.failed").await;
        let disabled = add_webhook(&storage, "job.succeeded").await;
        let off = WebhookChange { enabled: Some(false), ..WebhookChange::default() };
        assert!(!storage.store.change_webhook(&disabled.id, &off).await.expect("the webhook").enabled);
        let other = tenant(&storage, "other").await;
        let foreign = add_webhook(&other, "job.succeeded job.failed").await;

        let job = run_one(&storage).await;
        fail_another(&storage).await;
        let cancelled = storage.store.enqueue(&new_job("net")).await.expect("a job");
        storage.store.cancel(&cancelled.id).await.expect("the job");
        // What is over stays as it is, and is told once.
        storage.store.cancel(&cancelled.id).await.expect("the job");

        assert_eq!(told(&storage, &ends).await, ["job.succeeded", "job.failed", "job.cancelled"]);
        let queued_and_started = ["job.queued", "job.started"];
        let everything = [&queued_and_started[..], &["job.succeeded"], &queued_and_started, &["job.failed"]].concat();
        assert_eq!(told(&storage, &all).await, [&everything[..], &["job.queued", "job.cancelled"]].concat());
        assert_eq!(told(&storage, &failures).await, ["job.failed"]);
        assert_eq!(told(&storage, &disabled).await, [""; 0]);
        assert_eq!(told(&other, &foreign).await, [""; 0]);
        assert_eq!(deliveries(&storage, &ends.id).await[2].job_id, job.id);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_was_lost_is_told_of_and_an_end_that_did_not_happen_is_not() {
    with_storage(async |storage| {
        let webhook = add_webhook(&storage, "job.succeeded job.failed").await;
        add_model(&storage, "net").await;
        storage.store.enqueue(&NewJob { max_attempts: 1, ..new_job("net") }).await.expect("a job");
        let lost = storage.store.claim("worker", OVER).await.expect("a queue").expect("the job").lease();
        while storage.store.reap(OVER).await.expect("a reaper").is_empty() {}
        assert_eq!(told(&storage, &webhook).await, ["job.failed"]);
        let late = storage.store.finish_evaluation(&lost, &evaluation_result()).await;
        assert!(matches!(late, Err(StoreError::LeaseLost { .. })), "{late:?}");
        assert_eq!(told(&storage, &webhook).await, ["job.failed"]);
    })
    .await;
}

#[tokio::test]
async fn a_delivery_is_claimed_once_and_again_after_its_lease() {
    with_storage(async |storage| {
        let webhook = add_webhook(&storage, "job.succeeded").await;
        assert_eq!(claim(&storage, LONG).await, None);
        let job = run_one(&storage).await;
        let lost = claim(&storage, OVER).await.expect("the delivery");
        assert_eq!((&lost.job.id, &lost.url, lost.delivery.attempt), (&job.id, &webhook.url, 1));
        let again = loop {
            if let Some(again) = claim(&storage, LONG).await {
                break again;
            }
        };
        assert_eq!((&again.delivery.id, again.delivery.attempt), (&lost.delivery.id, 2));
        assert_eq!(claim(&storage, LONG).await, None);
        // Who lost the lease changes nothing.
        assert!(!storage.store.finish_sending(&lost.delivery, &sending(Next::GiveUp)).await.expect("a database"));
        let delivered = Sending { status_code: Some(204), error: None, next: Next::Delivered };
        assert!(storage.store.finish_sending(&again.delivery, &delivered).await.expect("a database"));
        assert!(!storage.store.finish_sending(&again.delivery, &delivered).await.expect("a database"));
        let [stored] = &deliveries(&storage, &webhook.id).await[..] else { panic!("one delivery") };
        assert_eq!((stored.state, stored.status_code), (DeliveryState::Delivered, Some(204)));
        assert!(stored.finished_at.is_some());
        assert_eq!(claim(&storage, LONG).await, None);
    })
    .await;
}

#[tokio::test]
async fn of_many_who_send_each_delivery_is_given_to_one() {
    with_storage(async |storage| {
        for _ in 0..20 {
            add_webhook(&storage, "job.succeeded").await;
        }
        run_one(&storage).await;
        let sent = Sending { status_code: Some(200), error: None, next: Next::Delivered };
        let send_some = async || {
            let mut mine = Vec::new();
            while let Some(due) = claim(&storage, LONG).await {
                assert!(storage.store.finish_sending(&due.delivery, &sent).await.expect("a database"));
                mine.push(due.delivery.id);
            }
            mine
        };
        let (a, b, c, d) = tokio::join!(send_some(), send_some(), send_some(), send_some());
        let mut all = [a, b, c, d, send_some().await].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 20);
    })
    .await;
}

#[tokio::test]
async fn a_failed_sending_is_repeated_after_its_pause() {
    with_storage(async |storage| {
        let webhook = add_webhook(&storage, "job.succeeded").await;
        run_one(&storage).await;
        let first = claim(&storage, LONG).await.expect("the delivery").delivery;
        assert!(storage.store.finish_sending(&first, &sending(Next::Retry(LONG))).await.expect("a database"));
        assert_eq!(claim(&storage, LONG).await, None);
        let [stored] = &deliveries(&storage, &webhook.id).await[..] else { panic!("one delivery") };
        assert_eq!((stored.state, stored.status_code), (DeliveryState::Pending, Some(500)));
        assert_eq!(stored.error.as_deref(), Some("it was\u{fffd}answered with 500"));
        assert!(stored.run_at.since(stored.created_at) >= LONG);

        // Asked for, it is sent at once and stays the same message.
        storage.store.redeliver(&webhook.id, &first.id).await.expect("the delivery");
        let second = claim(&storage, LONG).await.expect("the delivery").delivery;
        assert_eq!((&second.id, second.attempt, second.tried_before), (&first.id, 2, 0));
        assert!(storage.store.finish_sending(&second, &sending(Next::GiveUp)).await.expect("a database"));
        let redelivered = storage.store.redeliver(&webhook.id, &first.id).await.expect("the delivery");
        assert_eq!((redelivered.state, redelivered.tried_before), (DeliveryState::Pending, 2));
        assert_eq!(claim(&storage, LONG).await.expect("the delivery").delivery.attempt, 3);
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_wants_no_more_gets_no_more() {
    with_storage(async |storage| {
        let webhook = add_webhook(&storage, "job.succeeded job.failed").await;
        run_one(&storage).await;
        fail_another(&storage).await;
        let first = claim(&storage, LONG).await.expect("the delivery").delivery;
        assert!(storage.store.finish_sending(&first, &sending(Next::Disable)).await.expect("a database"));
        assert!(!storage.store.webhook(&webhook.id).await.expect("the webhook").enabled);
        assert_eq!(claim(&storage, LONG).await, None);
        let [failed, gone] = &deliveries(&storage, &webhook.id).await[..] else { panic!("two deliveries") };
        assert_eq!((gone.state, gone.status_code), (DeliveryState::Failed, Some(500)));
        assert_eq!((failed.state, failed.status_code), (DeliveryState::Failed, None));
        let again = storage.store.redeliver(&webhook.id, &first.id).await;
        assert!(matches!(again, Err(StoreError::WebhookDisabled { .. })), "{again:?}");
    })
    .await;
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_new_one() {
    with_storage(async |storage| {
        let new = new_webhook("job.succeeded job.failed");
        let webhook = storage.store.insert_webhook(&new).await.expect("a webhook");
        assert_eq!(webhook.previous_until, None);
        run_one(&storage).await;
        assert_eq!(claim(&storage, LONG).await.expect("the delivery").secrets, std::slice::from_ref(&new.secret));
        let secret = Secret::generate().expect("random numbers");
        let rotated = storage.store.rotate_webhook(&webhook.id, &secret).await.expect("the webhook");
        assert!(rotated.previous_until.expect("a moment").since(rotated.created_at) >= 24 * LONG);
        fail_another(&storage).await;
        assert_eq!(claim(&storage, LONG).await.expect("the delivery").secrets, [secret, new.secret]);
    })
    .await;
}

#[tokio::test]
async fn few_deliveries_of_a_tenant_are_sent_at_the_same_time() {
    with_storage(async |storage| {
        let other = tenant(&storage, "other").await;
        for _ in 0..6 {
            add_webhook(&storage, "job.succeeded").await;
        }
        add_webhook(&other, "job.succeeded").await;
        run_one(&storage).await;
        run_one(&other).await;
        let mut sending = Vec::new();
        while let Some(due) = claim(&storage, LONG).await {
            sending.push(due.delivery.tenant_id);
        }
        assert_eq!(sending.iter().filter(|tenant| *tenant == storage.store.tenant_id()).count(), 4);
        assert_eq!(sending.len(), 5, "the other tenant does not wait");
    })
    .await;
}

#[tokio::test]
async fn webhooks_belong_to_their_tenant() {
    with_storage(async |storage| {
        let other = tenant(&storage, "other").await;
        let webhook = add_webhook(&storage, "job.succeeded").await;
        run_one(&storage).await;
        let delivery = deliveries(&storage, &webhook.id).await[0].id.clone();
        let is_missing = |error: StoreError| matches!(error, StoreError::NotFound { kind: Kind::Webhook, .. });
        let secret = Secret::generate().expect("random numbers");
        let page = Page { after: None, limit: 10 };
        assert_eq!(other.store.webhooks().await.expect("webhooks"), []);
        assert!(is_missing(other.store.webhook(&webhook.id).await.expect_err("foreign")));
        let change = WebhookChange { enabled: Some(false), ..WebhookChange::default() };
        assert!(is_missing(other.store.change_webhook(&webhook.id, &change).await.expect_err("foreign")));
        assert!(is_missing(other.store.rotate_webhook(&webhook.id, &secret).await.expect_err("foreign")));
        assert!(is_missing(other.store.deliveries(&webhook.id, &page).await.expect_err("foreign")));
        assert!(is_missing(other.store.redeliver(&webhook.id, &delivery).await.expect_err("foreign")));
        assert!(is_missing(other.store.delete_webhook(&webhook.id).await.expect_err("foreign")));
        assert_eq!(storage.store.webhooks().await.expect("webhooks"), std::slice::from_ref(&webhook));
        let unknown = storage.store.redeliver(&webhook.id, &DeliveryId::new()).await;
        assert!(matches!(unknown, Err(StoreError::NotFound { kind: Kind::Delivery, .. })), "{unknown:?}");

        storage.store.delete_webhook(&webhook.id).await.expect("the webhook");
        assert_eq!(claim(&storage, LONG).await, None);
        assert_eq!(storage.store.forget_old_deliveries().await.expect("a database"), 0);
        for _ in 0..20 {
            add_webhook(&storage, "job.succeeded").await;
        }
        let one_more = storage.store.insert_webhook(&new_webhook("job.failed")).await;
        assert!(matches!(one_more, Err(StoreError::WebhookQuota { max_webhooks: 20 })), "{one_more:?}");
        add_webhook(&other, "job.failed").await;
    })
    .await;
}
