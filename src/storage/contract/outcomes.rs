//! What a finished compression leaves behind.

use std::time::Duration;

use serde_json::Value;

use crate::codec::CodecId;
use crate::compress::{LayerReport, Recipe, Report};
use crate::model::Role;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn layer(name: &str) -> LayerReport {
    LayerReport {
        name: name.to_owned(),
        op: "Gemm".to_owned(),
        shape: vec![8, 4],
        role: Role::Product,
        weights: 32,
        original_bytes: 128,
        compressed_bytes: 16,
        stream_bytes: 9,
        codebook_bytes: 3,
        ratio: 8.0,
        bits_per_weight: 4.0,
        psi: 0.09375,
        sparsity: 0.5,
        distinct_values: 5,
        codec: CodecId::Sham,
        weight_snr_db: Some(12.5),
        note: None,
    }
}

pub(super) fn compression(metrics: Vec<NewMetric>) -> Compression {
    let report = Report {
        source_bytes: 300,
        artifact_bytes: 60,
        ratio: 5.0,
        weights: 64,
        bits_per_weight: 4.0,
        psi: 0.09375,
        sparsity: 0.5,
        layers: vec![layer("fc1"), layer("fc2")],
        codebooks: Vec::new(),
        kept: Vec::new(),
        training: Vec::new(),
        unit_groups: Vec::new(),
        calibration: None,
        notes: Vec::new(),
        graph_bytes: 10,
        container_bytes: 10,
        plain_bytes: 8,
        seconds: 0.25,
    };
    Compression { recipe: Recipe::default(), report, metrics, make_default: true, search: None }
}

/// The row of the second layer.
fn expected_row() -> LayerRecord {
    LayerRecord {
        position: 1,
        name: "fc2".to_owned(),
        op: "Gemm".to_owned(),
        shape: vec![8, 4],
        weights: 32,
        original_bytes: 128,
        compressed_bytes: 16,
        stream_bytes: 9,
        codebook_bytes: 3,
        ratio: 8.0,
        bits_per_weight: 4.0,
        psi: 0.09375,
        sparsity: 0.5,
        distinct_values: 5,
        codec: CodecId::Sham,
        weight_snr_db: Some(12.5),
    }
}

/// Claims a fresh job of `net`.
pub(super) async fn claimed(storage: &Storage) -> Lease {
    let job = NewJob { kind: JobKind::Compress, ..new_job("net") };
    storage.store.enqueue(&job).await.expect("a job");
    storage.store.claim("worker", LONG).await.expect("a queue").expect("the job").lease()
}

#[tokio::test]
async fn a_compression_adds_version_layers_metrics_and_default_together() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        let lease = claimed(&storage).await;
        let metric = &evaluation_result().metrics[0];
        let after = NewMetric { version: Compression::NEW, value: Some(0.5), ..metric.clone() };
        let done = compression(vec![metric.clone(), after]);
        let file = stage(&storage, b"artifact").await;
        let job = storage.finish_compression(&lease, file, &done).await.expect("the holder of the lease");

        let result: JobResult = serde_json::from_value(job.result.unwrap_or(Value::Null)).expect("a result");
        assert_eq!((result.version, result.report.as_ref()), (Some(1), Some(&done.report)));
        let listed = storage.store.jobs(&JobFilter::default(), &Page { after: None, limit: 9 }).await.expect("jobs");
        let listed: JobResult = serde_json::from_value(listed[0].result.clone().expect("a result")).expect("a result");
        assert_eq!((listed.version, listed.report, listed.metrics), (Some(1), None, result.metrics.clone()));
        assert_eq!(result.metrics.iter().map(|metric| metric.version).collect::<Vec<_>>(), [0, 1]);
        let model = storage.store.model("net").await.expect("the model");
        assert_eq!(model.default_version, 1);
        let version = storage.store.version(&model, 1).await.expect("version 1");
        assert_eq!((version.size_bytes, version.ratio, version.job_id.as_ref()), (8, 5.0, Some(&lease.job)));
        let made = storage.store.making(&version).await.expect("the version");
        assert_eq!((made.recipe, made.report.as_ref()), (Some(Recipe::default()), Some(&done.report)));
        let layers = storage.store.layers(&model.id, 1).await.expect("layers");
        assert_eq!(layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["fc1", "fc2"]);
        assert_eq!(layers[1], expected_row());
        let metrics = storage.store.metrics(&model.id, Some(1)).await.expect("metrics");
        assert_eq!(metrics.iter().map(|metric| metric.value).collect::<Vec<_>>(), [Some(0.5)]);
    })
    .await;
}

#[tokio::test]
async fn a_compression_whose_lease_is_lost_leaves_nothing() {
    with_storage(async |storage| {
        let model = add_model(&storage, "net").await;
        let lease = claimed(&storage).await;
        storage.store.cancel(&lease.job).await.expect("the job");
        let file = stage(&storage, b"artifact").await;
        let finished = storage.finish_compression(&lease, file, &compression(Vec::new())).await;
        assert!(matches!(finished, Err(StoreError::LeaseLost { .. })), "{finished:?}");
        assert_eq!(storage.blobs.list().await.expect("blobs"), std::slice::from_ref(&model.sha256));
        assert_eq!(storage.store.versions(&model.id, -1, 9).await.expect("versions").len(), 1);
        assert_eq!(storage.store.model("net").await.expect("the model"), model);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_deleted_cannot_become_the_default_at_the_same_time() {
    with_storage(async |storage| {
        add_model(&storage, "net").await;
        for number in 1..10 {
            let lease = claimed(&storage).await;
            let file = stage(&storage, b"artifact").await;
            let done = Compression { make_default: false, ..compression(Vec::new()) };
            storage.finish_compression(&lease, file, &done).await.expect("a version");
            let serve_it = serve(number);
            let choosing = storage.store.change_model("net", &serve_it);
            let deleting = storage.delete_version("net", number);
            let (chosen, deleted) = tokio::join!(choosing, deleting);
            assert_ne!(chosen.is_ok(), deleted.is_ok(), "{chosen:?} {deleted:?}");
            let model = storage.store.model("net").await.expect("the model");
            assert!(storage.store.version(&model, model.default_version).await.is_ok());
        }
    })
    .await;
}

#[tokio::test]
async fn numbers_of_deleted_versions_are_not_given_again() {
    with_storage(async |storage| {
        let model = add_model(&storage, "net").await;
        let compress = async |bytes: &[u8]| {
            let lease = claimed(&storage).await;
            let file = stage(&storage, bytes).await;
            storage.finish_compression(&lease, file, &compression(Vec::new())).await.expect("a version");
        };
        compress(b"first").await;
        compress(b"second").await;
        let refused = storage.delete_version("net", 2).await;
        assert!(matches!(refused, Err(StoreError::DefaultVersion { version: 2, .. })), "{refused:?}");
        let refused = storage.delete_version("net", 0).await;
        assert!(matches!(refused, Err(StoreError::UploadVersion { .. })), "{refused:?}");
        storage.store.change_model("net", &serve(0)).await.expect("version 0");
        storage.delete_version("net", 2).await.expect("version 2");
        compress(b"third").await;
        let versions = storage.store.versions(&model.id, 0, 9).await.expect("versions");
        assert_eq!(versions.iter().map(|version| version.number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(storage.blobs.list().await.expect("blobs").len(), 3);
    })
    .await;
}
