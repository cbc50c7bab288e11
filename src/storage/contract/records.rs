//! Models, versions and datasets as rows.

use super::*;

fn new_dataset(name: &str) -> NewDataset {
    let array = ArraySummary { name: "x".to_owned(), dtype: "uint8".to_owned(), shape: vec![10, 4] };
    NewDataset { name: name.to_owned(), format: Format::Npz, samples: 10, arrays: vec![array] }
}

fn page(after: Option<&str>, limit: i64) -> Page {
    Page { after: after.map(str::to_owned), limit }
}

#[tokio::test]
async fn a_model_is_read_as_it_was_stored() {
    with_storage(async |storage| {
        let stored = add_model(&storage, "net").await;
        let expected = new_model("net");
        assert_eq!(storage.store.model("net").await.expect("the model"), stored);
        assert_eq!(
            (stored.format, &stored.inputs, &stored.outputs),
            (Format::Onnx, &expected.inputs, &expected.outputs)
        );
        assert_eq!((stored.size_bytes, stored.default_version, &stored.tenant_id), (3, 0, &TenantId::default()));
        let upload = storage.store.version(&stored, 0).await.expect("version 0");
        assert_eq!((&upload.sha256, upload.size_bytes, upload.ratio), (&stored.sha256, 3, 1.0));
        let made = storage.store.making(&upload).await.expect("the version");
        assert_eq!((made.recipe, made.report, upload.job_id), (None, None, None));
        let now = storage.store.now().await.expect("a clock");
        assert!(stored.created_at <= now);
    })
    .await;
}

#[tokio::test]
async fn the_same_upload_twice_is_one_model_and_other_bytes_are_a_conflict() {
    with_storage(async |storage| {
        let (first, is_new) =
            storage.add_model(stage(&storage, b"bytes").await, &new_model("net")).await.expect("a model");
        assert!(is_new);
        let again = storage.add_model(stage(&storage, b"bytes").await, &new_model("net")).await.expect("a model");
        assert_eq!(again, (first.clone(), false));
        let other = storage.add_model(stage(&storage, b"other").await, &new_model("net")).await;
        assert!(matches!(other, Err(StoreError::NameTaken { kind: Kind::Model, .. })), "{other:?}");
        // The bytes of the refused upload are gone, the others are not.
        assert_eq!(storage.blobs.list().await.expect("blobs"), [first.sha256]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_uploads_under_one_name_at_the_same_time_one_is_new() {
    with_storage(async |storage| {
        let uploads: Vec<_> = (0..8)
            .map(|index| {
                let storage = storage.clone();
                tokio::spawn(async move {
                    let bytes: &[u8] = if index % 2 == 0 { b"even" } else { b"odd" };
                    storage.add_model(stage(&storage, bytes).await, &new_model("net")).await
                })
            })
            .collect();
        let (mut new, mut same, mut refused) = (0, 0, 0);
        for upload in uploads {
            match upload.await.expect("an upload") {
                Ok((_, true)) => new += 1,
                Ok((_, false)) => same += 1,
                Err(StoreError::NameTaken { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((new, same, refused), (1, 3, 4));
        assert_eq!(storage.blobs.list().await.expect("blobs").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn lists_are_paged_by_name() {
    with_storage(async |storage| {
        for name in ["b", "a", "B", "c"] {
            add_model(&storage, name).await;
            storage.add_dataset(stage(&storage, name.as_bytes()).await, &new_dataset(name)).await.expect("a dataset");
        }
        let models = async |page: Page| -> Vec<String> {
            storage
                .store
                .models(&ModelFilter::default(), &page)
                .await
                .expect("models")
                .into_iter()
                .map(|model| model.name)
                .collect()
        };
        assert_eq!(models(page(None, 2)).await, ["B", "a"]);
        assert_eq!(models(page(Some("a"), 9)).await, ["b", "c"]);
        let datasets = storage.store.datasets(&page(Some("b"), 9)).await.expect("datasets");
        assert_eq!(datasets.into_iter().map(|dataset| dataset.name).collect::<Vec<_>>(), ["c"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    with_storage(async |storage| {
        let model = add_model(&storage, "net").await;
        let store = &storage.store;
        let errors = [
            (store.model("x").await.err(), "there is no model x"),
            (store.dataset("x").await.err(), "there is no dataset x"),
            (store.version(&model, 7).await.err(), "there is no version 7 of net"),
            (store.change_model("net", &serve(7)).await.err(), "there is no version 7 of net"),
            (store.change_model("x", &serve(0)).await.err(), "there is no model x"),
            (storage.delete_model("x").await.err(), "there is no model x"),
            (storage.delete_version("net", 7).await.err(), "there is no version 7 of net"),
            (storage.delete_dataset("x").await.err(), "there is no dataset x"),
        ];
        for (error, expected) in errors {
            assert_eq!(error.map(|error| error.to_string()).as_deref(), Some(expected));
        }
    })
    .await;
}

#[tokio::test]
async fn a_model_with_an_unfinished_job_cannot_be_deleted() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let job = storage.store.enqueue(&new_job("net")).await.expect("a job");
        let refused = storage.delete_model("net").await;
        assert!(matches!(refused, Err(StoreError::InUse { jobs: 1, .. })), "{refused:?}");
        storage.store.cancel(&job.id).await.expect("the job");
        storage.delete_model("net").await.expect("no job any more");
        let history = storage.store.job(&job.id).await.expect("the job");
        assert_eq!((history.model_id, history.model.as_str()), (None, "net"));
        assert_eq!(storage.blobs.list().await.expect("blobs"), [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_dataset_that_a_job_reads_cannot_be_deleted() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        storage.add_dataset(stage(&storage, b"data").await, &new_dataset("data")).await.expect("a dataset");
        let job = NewJob { datasets: ["data".to_owned()].into(), ..new_job("net") };
        let job = storage.store.enqueue(&job).await.expect("a job");
        let refused = storage.delete_dataset("data").await;
        assert!(matches!(refused, Err(StoreError::InUse { kind: Kind::Dataset, jobs: 1, .. })), "{refused:?}");
        storage.store.cancel(&job.id).await.expect("the job");
        storage.delete_dataset("data").await.expect("no job any more");
    })
    .await;
}

#[tokio::test]
async fn bytes_that_others_share_outlive_a_deletion() {
    with_storage(async |storage| {
        for name in ["a", "b"] {
            storage.add_model(stage(&storage, b"same").await, &new_model(name)).await.expect("a model");
        }
        storage.delete_model("a").await.expect("a model");
        assert_eq!(storage.blobs.list().await.expect("blobs").len(), 1);
        storage.delete_model("b").await.expect("a model");
        assert_eq!(storage.blobs.list().await.expect("blobs").len(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_freed_and_wanted_at_the_same_time_stay() {
    with_storage(async |storage| {
        let work = async |storage: Storage, name: String| {
            for _ in 0..20 {
                let file = stage(&storage, b"shared").await;
                let (model, _) = storage.add_model(file, &new_model(&name)).await.expect("a model");
                assert!(path_of(&storage, &model.sha256).await.is_file());
                storage.delete_model(&name).await.expect("the model");
            }
        };
        let workers = (0..4).map(|index| work(storage.clone(), format!("net{index}")));
        futures_util::future::join_all(workers).await;
        assert!(storage.blobs.list().await.expect("blobs").is_empty());
    })
    .await;
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let job = storage.store.enqueue(&new_job("net")).await.expect("a job");
        let stranger = storage.store.for_tenant(&TenantId::new());
        assert!(stranger.model("net").await.is_err());
        assert!(stranger.job(&job.id).await.is_err());
        assert!(stranger.cancel(&job.id).await.is_err());
        assert_eq!(stranger.models(&ModelFilter::default(), &page(None, 9)).await.expect("models"), []);
        assert_eq!(stranger.events(&job.id, 0, 9).await.expect("events"), []);
    })
    .await;
}
