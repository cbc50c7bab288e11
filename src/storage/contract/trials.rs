//! Trials of a search that are jobs of their own, and the files that they keep.

use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

/// A search that a worker has, and a trial of it that another has.
async fn search_and_trial(storage: &Storage) -> (Lease, Lease) {
    add_model(storage, "net").await;
    let search = NewJob { kind: JobKind::Search, ..new_job("net") };
    storage.store.enqueue(&search).await.expect("a job");
    let search = claim(storage).await;
    let trial = NewJob { kind: JobKind::Trial, parent: Some(search.clone()), ..new_job("net") };
    storage.store.enqueue(&trial).await.expect("a job");
    (search, claim(storage).await)
}

async fn claim(storage: &Storage) -> Lease {
    storage.store.claim("worker", LONG).await.expect("a queue").expect("a job").lease()
}

/// Ends a trial that made `bytes`; returns the hash of them.
async fn finish(storage: &Storage, trial: &Lease, bytes: &[u8]) -> Result<String, StoreError> {
    let file = stage(storage, bytes).await;
    let sha256 = file.sha256().to_owned();
    storage.finish_trial(trial, vec![file], &JobResult::default()).await.map(|_| sha256)
}

#[tokio::test]
async fn a_trial_keeps_its_files_until_its_search_is_over() {
    with_storage(async |storage| {
        let (search, trial) = search_and_trial(&storage).await;
        let sha256 = finish(&storage, &trial, b"an artifact").await.expect("an end");
        storage.sweep().await.expect("a sweep");
        assert!(path_of(&storage, &sha256).await.exists());
        let trials = storage.store.trials(&search.job).await.expect("trials");
        let states: Vec<_> = trials.iter().map(|trial| (trial.parent_id.clone(), trial.state)).collect();
        assert_eq!(states, [(Some(search.job.clone()), JobState::Succeeded)]);
        // Its worker dies before it can clear away.
        storage.store.finish_evaluation(&search, &evaluation_result()).await.expect("an end");
        storage.sweep().await.expect("a sweep");
        assert!(!path_of(&storage, &sha256).await.exists());
    })
    .await;
}

#[tokio::test]
async fn the_bytes_that_a_version_has_too_stay() {
    with_storage(async |storage| {
        let (search, trial) = search_and_trial(&storage).await;
        let sha256 = finish(&storage, &trial, b"an artifact").await.expect("an end");
        let file = stage(&storage, b"an artifact").await;
        let done = super::outcomes::compression(Vec::new());
        storage.finish_compression(&search, file, &done).await.expect("an end");
        storage.end_trials(&search.job).await.expect("an end");
        assert!(path_of(&storage, &sha256).await.exists());
    })
    .await;
}

#[tokio::test]
async fn a_trial_of_a_search_that_is_over_leaves_nothing() {
    with_storage(async |storage| {
        let (search, trial) = search_and_trial(&storage).await;
        storage.store.finish_evaluation(&search, &evaluation_result()).await.expect("an end");
        let late = finish(&storage, &trial, b"an artifact").await;
        assert!(matches!(late, Err(StoreError::LeaseLost { .. })), "{late:?}");
        assert_eq!(storage.blobs.list().await.expect("blobs").len(), 1, "the model's own");
        storage.end_trials(&search.job).await.expect("an end");
        assert_eq!(storage.store.job(&trial.job).await.expect("the trial").state, JobState::Cancelling);
    })
    .await;
}

#[tokio::test]
async fn trials_are_queued_by_whoever_has_the_search_and_count_for_no_bound() {
    with_storage(async |storage| {
        let tenant = storage.store.own_tenant().await.expect("a tenant").name;
        let bounds = Bounds { max_unfinished_jobs: Some(1), ..Bounds::default() };
        storage.store.set_bounds(&tenant, &bounds).await.expect("bounds");
        let (search, _) = search_and_trial(&storage).await;
        let refused = storage.store.enqueue(&new_job("net")).await;
        assert!(matches!(refused, Err(StoreError::JobQuota { max_jobs: 1 })), "{refused:?}");
        let plan = json!({"worst": 0.1});
        assert_eq!(storage.store.plan(&search.job).await.expect("no plan"), None);
        storage.store.note_plan(&search, &plan).await.expect("a plan");
        assert_eq!(storage.store.plan(&search.job).await.expect("a plan"), Some(plan.clone()));
        let stale = Lease { attempt: 0, ..search };
        assert!(matches!(storage.store.note_plan(&stale, &plan).await, Err(StoreError::LeaseLost { .. })));
        let trial = NewJob { parent: Some(stale), ..new_job("net") };
        let refused = storage.store.enqueue(&trial).await;
        assert!(matches!(refused, Err(StoreError::LeaseLost { .. })), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn files_of_trials_count_for_no_bound_and_versions_do() {
    with_storage(async |storage| {
        let (search, trial) = search_and_trial(&storage).await;
        let tenant = storage.store.own_tenant().await.expect("a tenant").name;
        let bounds = Bounds { max_stored_bytes: Some(10), ..Bounds::default() };
        storage.store.set_bounds(&tenant, &bounds).await.expect("bounds");
        finish(&storage, &trial, b"a large artifact").await.expect("an end");
        let upload = storage.store.begin_upload(3, None).await.expect("room").id;
        storage.delete_upload(&upload).await.expect("an end");
        let done = super::outcomes::compression(Vec::new());
        let refused = storage.finish_compression(&search, stage(&storage, b"a large artifact").await, &done).await;
        assert!(matches!(refused, Err(StoreError::StorageQuota { max_bytes: 10 })), "{refused:?}");
        storage.finish_compression(&search, stage(&storage, b"small").await, &done).await.expect("an end");
    })
    .await;
}

#[tokio::test]
async fn a_trial_is_kept_as_long_as_its_search_is_at_work() {
    with_storage(async |storage| {
        let (search, trial) = search_and_trial(&storage).await;
        storage.store.cancel(&trial.job).await.expect("the trial");
        storage.store.acknowledge_cancel(&trial).await.expect("an end");
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(storage.store.forget_old_jobs(Duration::ZERO).await.expect("a database"), 0);
        storage.store.finish_evaluation(&search, &evaluation_result()).await.expect("an end");
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(storage.store.forget_old_jobs(Duration::ZERO).await.expect("a database"), 2);
    })
    .await;
}

#[tokio::test]
async fn a_search_that_only_waits_costs_its_tenant_no_turn() {
    with_storage(async |storage| {
        let (search, _) = search_and_trial(&storage).await;
        storage.store.note_plan(&search, &json!({})).await.expect("a plan");
        let other = storage.for_tenant(&storage.store.tenant_or_new("other").await.expect("a tenant").id);
        add_model(&other, "net").await;
        for _ in 0..3 {
            other.store.enqueue(&new_job("net")).await.expect("a job");
            let trial = NewJob { kind: JobKind::Trial, parent: Some(search.clone()), ..new_job("net") };
            storage.store.enqueue(&trial).await.expect("a job");
        }
        // One trial runs already, so that the other tenant comes first.
        let mut turns = Vec::new();
        for _ in 0..4 {
            let job = storage.store.claim("worker", LONG).await.expect("a queue").expect("a job");
            turns.push(job.tenant_id == *other.store.tenant_id());
        }
        assert_eq!(turns.iter().filter(|&&is_other| is_other).count(), 2, "{turns:?}");
    })
    .await;
}

#[tokio::test]
async fn a_cancel_after_the_last_trial_keeps_what_was_found() {
    with_storage(async |storage| {
        let (search, trial) = search_and_trial(&storage).await;
        finish(&storage, &trial, b"an artifact").await.expect("an end");
        storage.store.cancel(&search.job).await.expect("the search");
        let report = json!({
            "metric": "accuracy", "original": 1.0, "worst": 0.9, "max_size_bytes": null, "validation_samples": 9,
            "trials": [], "front": [], "chosen": 1, "is_within_bound": true, "test": null, "ended": "complete",
        });
        let found = Some(serde_json::from_value(report).expect("a report"));
        let done = Compression { search: found, ..super::outcomes::compression(Vec::new()) };
        let ended = storage.finish_compression(&search, stage(&storage, b"an artifact").await, &done).await;
        let ended = ended.expect("an end");
        assert_eq!((ended.state, ended.result.expect("a result")["version"].as_i64()), (JobState::Cancelled, Some(1)));
    })
    .await;
}
