//! Leases, one job at a time.

use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(3600);
/// Over before the next statement has read the clock twice.
const OVER: Duration = Duration::ZERO;

/// Lets the lease of the only running job run out.
async fn reap_one(storage: &Storage, backoff: Duration) -> JobRecord {
    loop {
        if let Some(job) = storage.store.reap(backoff).await.expect("a reaper").pop() {
            return job;
        }
    }
}

async fn queue_one(storage: &Storage) -> JobRecord {
    add_model(storage, "net").await;
    storage.store.enqueue(&new_job("net")).await.expect("a job")
}

async fn claim(storage: &Storage, lease: Duration) -> Option<JobRecord> {
    storage.store.claim("worker", lease).await.expect("a queue")
}

#[tokio::test]
async fn a_queued_job_is_claimed_once() {
    with_storage(async |storage| {
        let queued = queue_one(&storage).await;
        assert_eq!((queued.state, queued.attempt), (JobState::Queued, 0));
        let claimed = claim(&storage, LONG).await.expect("the job");
        assert_eq!((&claimed.id, claimed.state, claimed.attempt), (&queued.id, JobState::Running, 1));
        assert_eq!(claim(&storage, LONG).await, None);
        assert_eq!(event_kinds(&storage, &queued.id).await, [EventKind::Queued, EventKind::Started]);
    })
    .await;
}

#[tokio::test]
async fn higher_priorities_are_claimed_first_and_equal_ones_in_order() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let mut queued = Vec::new();
        for priority in [0, 5, 0, 5, -1] {
            let job = NewJob { priority, ..new_job("net") };
            queued.push(storage.store.enqueue(&job).await.expect("a job").id);
        }
        for index in [1, 3, 0, 2, 4] {
            assert_eq!(claim(&storage, LONG).await.map(|job| job.id), Some(queued[index].clone()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_of_nothing_is_refused() {
    with_storage(async |storage| {
        let job = storage.store.enqueue(&new_job("missing")).await;
        assert!(matches!(job, Err(StoreError::NotFound { kind: Kind::Model, .. })), "{job:?}");
        add_model(&storage, "net").await;
        let job = NewJob { datasets: ["missing".to_owned()].into(), ..new_job("net") };
        let job = storage.store.enqueue(&job).await;
        assert!(matches!(job, Err(StoreError::NotFound { kind: Kind::Dataset, .. })), "{job:?}");
        assert_eq!(claim(&storage, LONG).await, None);
    })
    .await;
}

#[tokio::test]
async fn heartbeats_keep_the_lease_and_note_progress() {
    with_storage(async |storage| {
        let queued = queue_one(&storage).await;
        let lease = claim(&storage, OVER).await.expect("the job").lease();
        let note = ProgressNote {
            fraction: 0.5,
            stage: "compress".to_owned(),
            message: "layer 1 of 2".to_owned(),
            remaining_seconds: Some(2.5),
        };
        let state = storage.store.heartbeat(&lease, LONG, Some(&note)).await.expect("a lease");
        assert_eq!(state, JobState::Running);
        assert_eq!(storage.store.reap(Duration::ZERO).await.expect("a reaper"), []);
        let job = storage.store.job(&queued.id).await.expect("the job");
        assert_eq!((job.fraction, job.stage.as_str(), job.message.as_str()), (0.5, "compress", "layer 1 of 2"));
        assert_eq!(job.remaining_seconds, Some(2.5));
        assert_eq!(
            event_kinds(&storage, &queued.id).await,
            [EventKind::Queued, EventKind::Started, EventKind::Progress]
        );
    })
    .await;
}

#[tokio::test]
async fn whoever_lost_the_lease_changes_nothing() {
    with_storage(async |storage| {
        let queued = queue_one(&storage).await;
        let late = claim(&storage, OVER).await.expect("the job").lease();
        assert_eq!(reap_one(&storage, Duration::ZERO).await.state, JobState::Queued);
        let current = claim(&storage, LONG).await.expect("the job again");
        assert_eq!(current.attempt, 2);

        let store = &storage.store;
        let failure = Failure { code: "late".to_owned(), detail: "too late".to_owned() };
        let outcomes = [
            store.heartbeat(&late, LONG, Some(&ProgressNote::default())).await.err(),
            store.fail(&late, &failure).await.err(),
            store.retry(&late, Duration::ZERO, &failure).await.err(),
            store.release(&late).await.err(),
            store.acknowledge_cancel(&late).await.err(),
            store.finish_evaluation(&late, &evaluation_result()).await.err(),
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Some(StoreError::LeaseLost { attempt: 1, .. })), "{outcome:?}");
        }
        assert_eq!(store.job(&queued.id).await.expect("the job"), current);
        let model = store.model(&queued.model).await.expect("the model");
        assert_eq!(store.metrics(&model.id, None).await.expect("metrics"), []);

        store.finish_evaluation(&current.lease(), &evaluation_result()).await.expect("the holder of the lease");
        assert_eq!(
            event_kinds(&storage, &queued.id).await,
            [EventKind::Queued, EventKind::Started, EventKind::Requeued, EventKind::Started, EventKind::Succeeded]
        );
    })
    .await;
}

#[tokio::test]
async fn a_lost_job_waits_longer_after_each_attempt() {
    with_storage(async |storage| {
        queue_one(&storage).await;
        claim(&storage, OVER).await.expect("the job");
        let job = reap_one(&storage, LONG).await;
        let wait = job.run_at.since(storage.store.now().await.expect("a clock"));
        assert!(wait > LONG / 2 && wait <= LONG, "{wait:?}");
        assert_eq!(claim(&storage, LONG).await, None);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_fails_at_its_limit() {
    with_storage(async |storage| {
        let queued = queue_one(&storage).await;
        for attempt in 1..=3 {
            let claimed = claim(&storage, OVER).await.expect("the job");
            assert_eq!(claimed.attempt, attempt);
            reap_one(&storage, Duration::ZERO).await;
        }
        let job = storage.store.job(&queued.id).await.expect("the job");
        assert_eq!(job.state, JobState::Failed);
        assert_eq!(job.failure.map(|failure| failure.code).as_deref(), Some("worker_lost"));
        assert!(job.finished_at.is_some());
        assert_eq!(claim(&storage, LONG).await, None);
    })
    .await;
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_up_to_the_limit() {
    with_storage(async |storage| {
        queue_one(&storage).await;
        let failure = Failure { code: "machine".to_owned(), detail: "the disk is full".to_owned() };
        for expected in [JobState::Queued, JobState::Queued, JobState::Failed] {
            let lease = claim(&storage, LONG).await.expect("the job").lease();
            let job = storage.store.retry(&lease, Duration::ZERO, &failure).await.expect("the holder of the lease");
            assert_eq!(job.state, expected);
            assert_eq!(job.failure.is_some(), expected == JobState::Failed);
        }
    })
    .await;
}

#[tokio::test]
async fn a_failure_with_nul_in_its_words_is_stored() {
    with_storage(async |storage| {
        queue_one(&storage).await;
        let lease = claim(&storage, LONG).await.expect("the job").lease();
        let failure = Failure { code: "not_compressible".to_owned(), detail: "layer w\0 holds NaN".to_owned() };
        let job = storage.store.fail(&lease, &failure).await.expect("the holder of the lease");
        assert_eq!(job.failure.map(|failure| failure.detail).as_deref(), Some("layer w\u{fffd} holds NaN"));
    })
    .await;
}

#[tokio::test]
async fn a_released_job_can_be_claimed_at_once_and_loses_no_attempt() {
    with_storage(async |storage| {
        queue_one(&storage).await;
        for attempt in 1..=5 {
            let claimed = claim(&storage, LONG).await.expect("the job");
            assert_eq!(claimed.attempt, attempt);
            let released = storage.store.release(&claimed.lease()).await.expect("the holder of the lease");
            assert_eq!(released.state, JobState::Queued);
            assert_eq!(released.max_attempts - released.attempt, 3);
        }
    })
    .await;
}

#[tokio::test]
async fn a_queued_job_is_cancelled_at_once() {
    with_storage(async |storage| {
        let queued = queue_one(&storage).await;
        let cancelled = storage.store.cancel(&queued.id).await.expect("the job");
        assert_eq!(cancelled.state, JobState::Cancelled);
        assert_eq!(storage.store.cancel(&queued.id).await.expect("the job"), cancelled);
        assert_eq!(claim(&storage, LONG).await, None);
        assert_eq!(event_kinds(&storage, &queued.id).await, [EventKind::Queued, EventKind::Cancelled]);
    })
    .await;
}

#[tokio::test]
async fn a_running_job_is_told_to_stop_and_cannot_succeed_any_more() {
    with_storage(async |storage| {
        let queued = queue_one(&storage).await;
        let lease = claim(&storage, LONG).await.expect("the job").lease();
        assert_eq!(storage.store.cancel(&queued.id).await.expect("the job").state, JobState::Cancelling);
        assert_eq!(storage.store.heartbeat(&lease, LONG, None).await.expect("a lease"), JobState::Cancelling);
        let finished = storage.store.finish_evaluation(&lease, &evaluation_result()).await;
        assert!(matches!(finished, Err(StoreError::LeaseLost { .. })), "{finished:?}");
        let job = storage.store.acknowledge_cancel(&lease).await.expect("the holder of the lease");
        assert_eq!(job.state, JobState::Cancelled);
        assert_eq!(
            event_kinds(&storage, &queued.id).await,
            [EventKind::Queued, EventKind::Started, EventKind::Cancelling, EventKind::Cancelled]
        );
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_job_whose_worker_is_lost_ends_cancelled() {
    with_storage(async |storage| {
        let queued = queue_one(&storage).await;
        claim(&storage, OVER).await.expect("the job");
        storage.store.cancel(&queued.id).await.expect("the job");
        assert_eq!(reap_one(&storage, Duration::ZERO).await.state, JobState::Cancelled);
    })
    .await;
}

#[tokio::test]
async fn a_finished_job_ignores_a_cancel() {
    with_storage(async |storage| {
        let queued = queue_one(&storage).await;
        let lease = claim(&storage, LONG).await.expect("the job").lease();
        let finished = storage.store.finish_evaluation(&lease, &evaluation_result()).await.expect("a lease");
        assert_eq!((finished.state, finished.fraction), (JobState::Succeeded, 1.0));
        assert_eq!(storage.store.cancel(&queued.id).await.expect("the job"), finished);
    })
    .await;
}

#[tokio::test]
async fn jobs_are_listed_newest_first_in_pages_by_state_kind_and_model() {
    with_storage(async |storage| {
        add_model(&storage, "a").await;
        add_model(&storage, "b").await;
        let mut ids = Vec::new();
        for model in ["a", "b", "a", "a"] {
            ids.push(storage.store.enqueue(&new_job(model)).await.expect("a job").id);
        }
        storage.store.cancel(&ids[2]).await.expect("the job");
        let list = async |filter: JobFilter, after: Option<&JobId>, limit: i64| -> Vec<JobId> {
            let page = Page { after: after.map(ToString::to_string), limit };
            storage.store.jobs(&filter, &page).await.expect("jobs").into_iter().map(|job| job.id).collect()
        };
        let all = JobFilter::default();
        assert_eq!(list(all.clone(), None, 3).await, [ids[3].clone(), ids[2].clone(), ids[1].clone()]);
        assert_eq!(list(all, Some(&ids[1]), 3).await, [ids[0].clone()]);
        let queued_of_a = JobFilter {
            state: Some(JobState::Queued),
            kind: Some(JobKind::Evaluate),
            model: Some("a".to_owned()),
            ..JobFilter::default()
        };
        assert_eq!(list(queued_of_a, None, 9).await, [ids[3].clone(), ids[0].clone()]);
        let compressions = JobFilter { kind: Some(JobKind::Compress), ..JobFilter::default() };
        assert_eq!(list(compressions, None, 9).await, []);
        let counts = storage.store.job_counts().await.expect("counts");
        assert_eq!(counts.iter().map(|(_, jobs)| jobs).sum::<i64>(), 4);
        assert!(counts.contains(&(JobState::Queued, 3)) && counts.contains(&(JobState::Cancelled, 1)), "{counts:?}");
    })
    .await;
}
