//! Many workers, some of which crash or stall: nothing is lost, nothing is done twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::*;

const JOBS: usize = 400;
const WORKERS: usize = 8;
/// Long enough to finish a job on a busy machine, short enough to wait for.
const LEASE: Duration = Duration::from_millis(300);

/// What the workers share.
struct Floor {
    storage: Storage,
    /// Index of each job.
    jobs: HashMap<JobId, usize>,
    poison: JobId,
    /// Leases of workers that stalled, to be used when it is too late.
    stalled: Mutex<Vec<Lease>>,
    /// Jobs that are not finished.
    open: AtomicUsize,
}

impl Floor {
    /// Works until every job is finished.
    async fn work(self: Arc<Self>, name: String) {
        while self.open.load(Ordering::SeqCst) > 0 {
            let Some(job) = self.storage.store.claim(&name, LEASE).await.expect("a queue") else {
                let reaped = self.storage.store.reap(Duration::from_millis(1)).await.expect("a reaper");
                let failed = reaped.iter().filter(|job| job.state.is_final()).count();
                self.open.fetch_sub(failed, Ordering::SeqCst);
                continue;
            };
            if job.id == self.poison {
                continue;
            }
            match (self.jobs[&job.id], job.attempt) {
                // Crashes: never heard of again.
                (index, 1) if index % 7 == 0 => {}
                // Stalls: comes back when another has the job.
                (index, 1) if index % 11 == 0 => self.stalled.lock().await.push(job.lease()),
                _ => match self.storage.store.finish_evaluation(&job.lease(), &evaluation_result()).await {
                    Ok(_) => _ = self.open.fetch_sub(1, Ordering::SeqCst),
                    // This machine was slower than the lease: the job is another's.
                    Err(StoreError::LeaseLost { .. }) => {}
                    Err(error) => panic!("{error}"),
                },
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_and_stalls_lose_no_job_and_do_none_twice() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let mut jobs = HashMap::new();
        for index in 0..JOBS {
            let job = NewJob { max_attempts: 1000, ..new_job("net") };
            jobs.insert(storage.store.enqueue(&job).await.expect("a job").id, index);
        }
        let poison = storage.store.enqueue(&new_job("net")).await.expect("a job").id;
        let floor = Arc::new(Floor {
            storage: storage.clone(),
            jobs,
            poison: poison.clone(),
            stalled: Mutex::default(),
            open: AtomicUsize::new(JOBS + 1),
        });
        let workers: Vec<_> =
            (0..WORKERS).map(|index| tokio::spawn(floor.clone().work(format!("worker {index}")))).collect();
        for worker in workers {
            worker.await.expect("a worker");
        }

        let stalled = std::mem::take(&mut *floor.stalled.lock().await);
        assert!(!stalled.is_empty());
        for lease in &stalled {
            let late = storage.store.finish_evaluation(lease, &evaluation_result()).await;
            assert!(matches!(late, Err(StoreError::LeaseLost { .. })), "{late:?}");
        }
        for job in floor.jobs.keys() {
            assert_done_once(&storage, job).await;
        }
        let poison = storage.store.job(&poison).await.expect("the job");
        assert_eq!((poison.state, poison.attempt), (JobState::Failed, 3));
    })
    .await;
}

async fn assert_done_once(storage: &Storage, id: &JobId) {
    let job = storage.store.job(id).await.expect("the job");
    assert_eq!(job.state, JobState::Succeeded);
    let model = storage.store.model(&job.model).await.expect("the model");
    let metrics = storage.store.metrics(&model.id, None).await.expect("metrics");
    assert_eq!(metrics.iter().filter(|metric| metric.job_id == *id).count(), 1);
    let kinds = event_kinds(storage, id).await;
    let count = |kind| kinds.iter().filter(|found| **found == kind).count() as i64;
    assert_eq!(kinds.first(), Some(&EventKind::Queued));
    assert_eq!(kinds.last(), Some(&EventKind::Succeeded));
    assert_eq!(count(EventKind::Succeeded), 1);
    assert_eq!(count(EventKind::Started), job.attempt);
    assert_eq!(count(EventKind::Requeued), job.attempt - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_at_the_same_time_get_different_jobs() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        for _ in 0..40 {
            storage.store.enqueue(&new_job("net")).await.expect("a job");
        }
        let claims: Vec<_> = (0..60)
            .map(|_| {
                let store = storage.store.clone();
                tokio::spawn(async move { store.claim("worker", Duration::from_secs(60)).await.expect("a queue") })
            })
            .collect();
        let mut claimed = Vec::new();
        for claim in claims {
            claimed.extend(claim.await.expect("a worker").map(|job| job.id));
        }
        let count = claimed.len();
        claimed.sort();
        claimed.dedup();
        assert_eq!(claimed.len(), count, "a job was claimed twice");
        // Postgres may answer "none" to one that skipped rows which were locked at that moment.
        while let Some(job) = storage.store.claim("worker", Duration::from_secs(60)).await.expect("a queue") {
            claimed.push(job.id);
        }
        assert_eq!(claimed.len(), 40);
    })
    .await;
}
