//! Tenants: their keys, their bounds, and whose turn it is.

use std::time::Duration;

use crate::access::{ApiKey, Scope};

use super::*;

const LONG: Duration = Duration::from_secs(3600);

async fn tenant(storage: &Storage, name: &str) -> Storage {
    storage.for_tenant(&storage.store.tenant_or_new(name).await.expect("a tenant").id)
}

fn new_key(valid_days: Option<i64>) -> NewKey {
    NewKey { name: "ci".to_owned(), scopes: vec![Scope::Read].into(), valid_days }
}

#[tokio::test]
async fn a_key_opens_until_it_is_revoked_by_its_own_tenant() {
    with_storage(async |storage| {
        let (a, b) = (tenant(&storage, "a").await, tenant(&storage, "b").await);
        assert!(!storage.store.has_keys().await.expect("keys"));
        let key = ApiKey::generate().expect("random numbers");
        let made = a.store.insert_key(&key, &new_key(Some(1))).await.expect("a key");
        assert_eq!((&made.id, made.revoked_at), (key.id(), None));
        assert!(made.expires_at > Some(made.created_at));
        let found = storage.store.credential(key.id()).await.expect("a database").expect("the key");
        assert_eq!((&found.tenant_id, &found.scopes), (&made.tenant_id, &made.scopes));
        assert!(key.is_proven_by(&found.secret_sha256));
        assert!(storage.store.has_keys().await.expect("keys"));

        assert_eq!(b.store.keys().await.expect("keys"), []);
        let foreign = b.store.revoke_key(key.id()).await;
        assert!(matches!(foreign, Err(StoreError::NotFound { kind: Kind::Key, .. })), "{foreign:?}");
        let revoked = a.store.revoke_key(key.id()).await.expect("the key");
        assert_eq!(storage.store.credential(key.id()).await.expect("a database"), None);
        assert_eq!(a.store.revoke_key(key.id()).await.expect("the key").revoked_at, revoked.revoked_at);
        assert_eq!(a.store.keys().await.expect("keys"), [revoked]);
    })
    .await;
}

#[tokio::test]
async fn a_key_opens_until_its_time_is_over() {
    with_storage(async |storage| {
        let key = ApiKey::generate().expect("random numbers");
        storage.store.insert_key(&key, &new_key(Some(-1))).await.expect("a key");
        assert_eq!(storage.store.credential(key.id()).await.expect("a database"), None);
    })
    .await;
}

#[test]
fn what_is_wrong_with_a_new_key_is_named() {
    let faults = |new: NewKey| new.check().expect_err("a fault");
    assert!(new_key(None).check().is_ok());
    assert!(faults(NewKey { name: String::new(), ..new_key(None) }).starts_with("name"));
    assert!(faults(NewKey { name: "a\0b".to_owned(), ..new_key(None) }).starts_with("name"));
    assert!(faults(NewKey { scopes: Vec::new().into(), ..new_key(None) }).starts_with("scopes"));
    assert!(faults(new_key(Some(0))).starts_with("valid_days"));
}

#[tokio::test]
async fn tenants_take_turns_however_many_jobs_one_has() {
    with_storage(async |storage| {
        let (a, b) = (tenant(&storage, "a").await, tenant(&storage, "b").await);
        for tenant in [&a, &b] {
            add_model(tenant, "net").await;
        }
        for priority in [0, 9, 0, 0, 0] {
            a.store.enqueue(&NewJob { priority, ..new_job("net") }).await.expect("a job");
        }
        b.store.enqueue(&new_job("net")).await.expect("a job");
        b.store.enqueue(&new_job("net")).await.expect("a job");
        let mut turns = Vec::new();
        while let Some(job) = storage.store.claim("worker", LONG).await.expect("a queue") {
            // One of each waits while the other's runs; then the one with fewer is next.
            turns.push(job.tenant_id == a.store.model("net").await.expect("the model").tenant_id);
        }
        assert_eq!(turns.iter().filter(|&&is_a| is_a).count(), 5);
        assert_eq!(turns[..4].iter().filter(|&&is_a| is_a).count(), 2, "{turns:?}");
    })
    .await;
}

#[tokio::test]
async fn a_single_worker_serves_the_one_that_waited_longest() {
    with_storage(async |storage| {
        let (a, b) = (tenant(&storage, "a").await, tenant(&storage, "b").await);
        for tenant in [&a, &b] {
            add_model(tenant, "net").await;
            for _ in 0..3 {
                tenant.store.enqueue(&new_job("net")).await.expect("a job");
            }
        }
        let mut turns = Vec::new();
        while let Some(job) = storage.store.claim("worker", LONG).await.expect("a queue") {
            let failure = Failure { code: "test".to_owned(), detail: String::new() };
            storage.store.fail(&job.lease(), &failure).await.expect("a lease");
            turns.push(job.tenant_id);
            // Starts are told apart by milliseconds.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        assert_eq!(turns.len(), 6);
        assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    })
    .await;
}

#[tokio::test]
async fn bounds_hold_for_their_tenant_alone() {
    with_storage(async |storage| {
        let (a, b) = (tenant(&storage, "a").await, tenant(&storage, "b").await);
        let bounds = Bounds { max_stored_bytes: Some(5), max_unfinished_jobs: Some(1), max_requests_per_minute: None };
        storage.store.set_bounds("a", &bounds).await.expect("the tenant");
        add_model(&a, "net").await;
        add_model(&b, "net").await;
        let more = a.add_model(stage(&a, b"more").await, &new_model("more")).await;
        assert!(matches!(more, Err(StoreError::StorageQuota { max_bytes: 5 })), "{more:?}");
        assert!(a.store.model("more").await.is_err());
        assert_eq!(storage.blobs.list().await.expect("blobs").len(), 1);
        b.add_model(stage(&b, b"more").await, &new_model("more")).await.expect("room");
        a.store.enqueue(&new_job("net")).await.expect("a job");
        let second = a.store.enqueue(&new_job("net")).await;
        assert!(matches!(second, Err(StoreError::JobQuota { max_jobs: 1 })), "{second:?}");
        b.store.enqueue(&new_job("net")).await.expect("a job");
        b.store.enqueue(&new_job("net")).await.expect("a job");
        assert_eq!(storage.store.tenant("a").await.expect("the tenant").bounds, bounds);
        let unknown = storage.store.set_bounds("nobody", &bounds).await;
        assert!(matches!(unknown, Err(StoreError::NotFound { kind: Kind::Tenant, .. })), "{unknown:?}");
    })
    .await;
}
