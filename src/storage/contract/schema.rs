//! The schema of a database that others may have made, or are making.

use super::*;

/// Notes in the database a migration after `steps` others that this program does not know either.
async fn go_ahead(store: &Store, steps: i64) {
    const SQL: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT MAX(version) + $1, 'of the future', true, checksum, 0 FROM _sqlx_migrations GROUP BY checksum \
         ORDER BY MAX(version) DESC LIMIT 1";
    let insert = async || -> Result<u64, StoreError> {
        database::write!(store, |tx| sqlx::query(SQL).bind(steps).execute(&mut *tx).await?.rows_affected())
    };
    assert_eq!(insert().await.expect("a database"), 1);
}

#[tokio::test]
async fn a_schema_one_step_newer_is_worked_with_and_one_of_two_steps_is_refused() {
    let place = Place::new().await;
    let old = place.open().await;
    go_ahead(&old.store, 1).await;
    let again = place.open().await;
    add_model(&again, "net").await;
    go_ahead(&again.store, 1).await;
    for storage in [old, again] {
        storage.store.close().await;
    }
    let refused = Store::connect(&place.database_url).await.expect_err("two steps");
    let StoreError::SchemaTooNew { found, known } = refused else { panic!("{refused}") };
    assert_eq!(found, known + 2);
    assert!(refused.to_string().contains(&format!("works with {} at most", known + 1)), "{refused}");
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_database_may_be_connected_to_by_many_at_once() {
    let place = Place::new().await;
    let connecting = (0..16).map(|_| {
        let database_url = place.database_url.clone();
        tokio::spawn(async move { Store::connect(&database_url).await })
    });
    let connecting: Vec<_> = connecting.collect();
    for connected in connecting {
        let store = connected.await.expect("a task").expect("a store");
        assert_eq!(store.tenants().await.expect("tenants").len(), 1);
        store.close().await;
    }
    place.remove().await;
}
