//! What users note about models and jobs, and how it finds them.

use serde_json::Value;

use super::*;

fn metadata(pairs: Value) -> Metadata {
    serde_json::from_value(pairs).expect("metadata")
}

fn patch(changes: Value) -> ModelChange {
    let patch = serde_json::from_value(changes).expect("a patch");
    ModelChange { metadata: Some(patch), ..ModelChange::default() }
}

async fn add_noted(storage: &Storage, name: &str, pairs: Value) -> ModelRecord {
    let model = NewModel { metadata: metadata(pairs), ..new_model(name) };
    storage.add_model(stage(storage, name.as_bytes()).await, &model).await.expect("a model").0
}

async fn models(storage: &Storage, pairs: Value, after: Option<&str>, limit: i64) -> Vec<String> {
    let (filter, page) = (ModelFilter { metadata: metadata(pairs) }, Page { after: after.map(str::to_owned), limit });
    storage.store.models(&filter, &page).await.expect("models").into_iter().map(|model| model.name).collect()
}

async fn jobs(storage: &Storage, pairs: Value, after: Option<&JobId>, limit: i64) -> Vec<JobId> {
    let filter = JobFilter { metadata: metadata(pairs), ..JobFilter::default() };
    let page = Page { after: after.map(ToString::to_string), limit };
    storage.store.jobs(&filter, &page).await.expect("jobs").into_iter().map(|job| job.id).collect()
}

/// Rows of the tables that lists look into.
async fn pairs(storage: &Storage) -> i64 {
    const SQL: &str = "SELECT (SELECT COUNT(*) FROM job_metadata) + (SELECT COUNT(*) FROM model_metadata)";
    let count = async || -> Result<i64, StoreError> {
        Ok(database::read!(storage.store, |pool| sqlx::query_scalar(SQL).fetch_one(pool).await?))
    };
    count().await.expect("a count")
}

#[tokio::test]
async fn jobs_keep_their_metadata_and_are_found_by_all_of_them() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let mut ids = Vec::new();
        for pairs in
            [json!({"team": "vision", "stage": "x"}), json!({}), json!({"team": "vision"}), json!({"team": "text"})]
        {
            let job = NewJob { metadata: metadata(pairs.clone()), ..new_job("net") };
            let queued = storage.store.enqueue(&job).await.expect("a job");
            assert_eq!(queued.metadata, metadata(pairs));
            assert_eq!(storage.store.job(&queued.id).await.expect("the job"), queued);
            ids.push(queued.id);
        }
        let of_vision = json!({"team": "vision"});
        assert_eq!(jobs(&storage, of_vision.clone(), None, 9).await, [ids[2].clone(), ids[0].clone()]);
        assert_eq!(jobs(&storage, of_vision.clone(), None, 1).await, [ids[2].clone()]);
        assert_eq!(jobs(&storage, of_vision.clone(), Some(&ids[2]), 9).await, [ids[0].clone()]);
        assert_eq!(jobs(&storage, json!({"team": "vision", "stage": "x"}), None, 9).await, [ids[0].clone()]);
        assert_eq!(jobs(&storage, json!({"team": "vision", "stage": "y"}), None, 9).await, []);
        assert_eq!(jobs(&storage, json!({}), None, 9).await.len(), 4);
        let stranger = storage.for_tenant(&storage.store.tenant_or_new("other").await.expect("a tenant").id);
        assert_eq!(jobs(&stranger, of_vision, None, 9).await, []);
        let claimed = storage.store.claim("worker", std::time::Duration::from_secs(60)).await.expect("a queue");
        assert_eq!(claimed.map(|job| job.metadata), Some(metadata(json!({"team": "vision", "stage": "x"}))));
    })
    .await;
}

#[tokio::test]
async fn models_are_found_by_what_their_metadata_are_now() {
    with_storage(async |storage| {
        let a = add_noted(&storage, "a", json!({"team": "vision", "note": "größer\n≥ 2"})).await;
        add_noted(&storage, "b", json!({"team": "vision", "stage": "live"})).await;
        add_noted(&storage, "c", json!({"team": "text"})).await;
        assert_eq!(storage.store.model("a").await.expect("the model"), a);
        let of_vision = json!({"team": "vision"});
        assert_eq!(models(&storage, of_vision.clone(), None, 9).await, ["a", "b"]);
        assert_eq!(models(&storage, of_vision.clone(), None, 1).await, ["a"]);
        assert_eq!(models(&storage, of_vision.clone(), Some("a"), 9).await, ["b"]);
        assert_eq!(models(&storage, json!({"note": "größer\n≥ 2"}), None, 9).await, ["a"]);

        let changed = storage.store.change_model("c", &patch(json!({"team": "vision", "stage": "live"}))).await;
        assert_eq!(changed.expect("the model").metadata, metadata(json!({"team": "vision", "stage": "live"})));
        let changed = storage.store.change_model("b", &patch(json!({"team": null}))).await.expect("the model");
        assert_eq!(changed.metadata, metadata(json!({"stage": "live"})));
        assert_eq!(models(&storage, of_vision.clone(), None, 9).await, ["a", "c"]);
        assert_eq!(models(&storage, json!({"stage": "live", "team": "vision"}), None, 9).await, ["c"]);
        storage.store.change_model("a", &patch(json!(null))).await.expect("the model");
        assert_eq!(models(&storage, of_vision, None, 9).await, ["c"]);

        assert_eq!(pairs(&storage).await, 3);
        for name in ["a", "b", "c"] {
            storage.delete_model(name).await.expect("the model");
        }
        assert_eq!(pairs(&storage).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_change_of_a_model_is_made_whole_or_not_at_all() {
    with_storage(async |storage| {
        let full: serde_json::Map<String, Value> = (0..32).map(|index| (format!("k{index}"), json!("v"))).collect();
        let model = add_noted(&storage, "net", full.into()).await;
        let one_more = storage.store.change_model("net", &patch(json!({"new": "v"}))).await;
        assert!(matches!(one_more, Err(StoreError::Metadata(_))), "{one_more:?}");
        let half = ModelChange { default_version: Some(7), ..patch(json!(null)) };
        let half = storage.store.change_model("net", &half).await;
        assert!(matches!(half, Err(StoreError::NotFound { kind: Kind::Version, .. })), "{half:?}");
        assert_eq!(storage.store.model("net").await.expect("the model"), model);
        let nothing = storage.store.change_model("net", &ModelChange::default()).await;
        assert_eq!(nothing.expect("the model"), model);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_the_same_time_are_merged() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let changes: Vec<ModelChange> = (0..8).map(|index| patch(json!({format!("k{index}"): "v"}))).collect();
        let changing = changes.iter().map(|change| storage.store.change_model("net", change));
        for changed in futures_util::future::join_all(changing).await {
            changed.expect("the model");
        }
        assert_eq!(storage.store.model("net").await.expect("the model").metadata.iter().count(), 8);
    })
    .await;
}
