//! What processes hear of each other, which is nothing on SQLite.

use std::time::Duration;

use crate::jobs::{Executor, Jobs, WorkerSettings, Workers};

use super::*;

const LONG: Duration = Duration::from_secs(3600);

/// Two storages of one Postgres database, as two processes have them.
async fn with_two(test: impl AsyncFnOnce(Storage, Storage)) {
    let place = Place::new().await;
    if place.postgres.is_some() {
        let (one, other) = (place.open().await, place.open().await);
        test(one.clone(), other.clone()).await;
        one.store.close().await;
        other.store.close().await;
    }
    place.remove().await;
}

/// Connections that listen.
async fn listening(storage: &Storage) -> i64 {
    const SQL: &str =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'";
    let count = async || -> Result<i64, StoreError> {
        Ok(database::read!(storage.store, |pool| sqlx::query_scalar(SQL).fetch_one(pool).await?))
    };
    count().await.expect("a count")
}

/// Cuts the connections that listen.
async fn cut(storage: &Storage) {
    const SQL: &str = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = current_database() AND query LIKE 'LISTEN %'";
    let count = async || -> Result<i64, StoreError> {
        Ok(database::read!(storage.store, |pool| sqlx::query_scalar(SQL).fetch_one(pool).await?))
    };
    assert_eq!(count().await.expect("a count"), 1);
}

async fn wait_until_listening(storage: &Storage) {
    while listening(storage).await == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nobody_is_heard_on_sqlite() {
    let place = Place::new().await;
    let storage = place.open().await;
    assert_eq!(storage.store.listen().await.expect("a database").is_some(), place.postgres.is_some());
    storage.store.close().await;
    place.remove().await;
}

#[tokio::test]
async fn what_others_do_to_jobs_is_heard_and_what_one_does_oneself_is_not() {
    with_two(async |one, other| {
        let mut listener = other.store.listen().await.expect("a database").expect("Postgres");
        add_model(&one, "net").await;
        let refused = NewJob { datasets: ["missing".to_owned()].into(), ..new_job("net") };
        one.store.enqueue(&refused).await.expect_err("no such dataset");
        let job = one.store.enqueue(&new_job("net")).await.expect("a job").id;
        let claimed = other.store.claim("worker", LONG).await.expect("a queue").expect("the job");
        one.store.release(&claimed.lease()).await.expect("a lease");
        let claimed = one.store.claim("worker", LONG).await.expect("a queue").expect("the job");
        // Another tenant's job is heard of too: workers take them all.
        let tenant = one.for_tenant(&one.store.tenant_or_new("other").await.expect("a tenant").id);
        add_model(&tenant, "net").await;
        let foreign = tenant.store.enqueue(&new_job("net")).await.expect("a job").id;
        one.store.cancel(&job).await.expect("the job");
        one.store.acknowledge_cancel(&claimed.lease()).await.expect("a lease");
        for (job, kind) in [
            (&job, EventKind::Queued),
            (&job, EventKind::Requeued),
            (&job, EventKind::Started),
            (&foreign, EventKind::Queued),
            (&job, EventKind::Cancelling),
            (&job, EventKind::Cancelled),
        ] {
            let heard = listener.next().await.expect("a database");
            assert_eq!(heard, Some(Heard { job: job.clone(), kind }));
        }
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_is_cut_off_says_so_and_another_hears_again() {
    with_two(async |one, other| {
        add_model(&one, "net").await;
        let mut listener = other.store.listen().await.expect("a database").expect("Postgres");
        cut(&one).await;
        assert!(!matches!(listener.next().await, Ok(Some(_))));
        let mut listener = other.store.listen().await.expect("a database").expect("Postgres");
        let job = one.store.enqueue(&new_job("net")).await.expect("a job").id;
        let heard = listener.next().await.expect("a database");
        assert_eq!(heard, Some(Heard { job, kind: EventKind::Queued }));
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_never_looks_hears_of_jobs_also_after_its_connection_was_lost() {
    with_two(async |server, worker| {
        let jobs = Jobs::new(worker, Executor::start(1).expect("threads"), 3);
        let settings = WorkerSettings { workers: 1, lease: LONG, backoff: Duration::ZERO, idle_poll: LONG };
        let workers = Workers::start(&jobs, &settings);
        add_model(&server, "net").await;
        wait_until_listening(&server).await;
        for round in 0..4 {
            if round == 2 {
                cut(&server).await;
                while listening(&server).await > 0 {}
                wait_until_listening(&server).await;
            }
            // It asks for nothing that can be done: all the same, it is started and ends.
            let job = server.store.enqueue(&new_job("net")).await.expect("a job").id;
            while !server.store.job(&job).await.expect("the job").state.is_final() {
                tokio::task::yield_now().await;
            }
        }
        workers.begin_shutdown();
        workers.join().await;
    })
    .await;
}
