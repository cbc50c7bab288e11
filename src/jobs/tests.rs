//! The service without its HTTP face, on the example network: jobs from submission to what they leave, and predictors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::app::App;
use crate::config::{Config, ConfigArgs};
use crate::storage::{EventKind, JobId, JobRecord, JobState, Page, StagedBlob};
use crate::telemetry;

use super::*;

const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn config(folder: &TempDir) -> Config {
    let args = ConfigArgs { data_dir: Some(folder.path().to_owned()), threads: Some(2), ..ConfigArgs::default() };
    args.resolve().expect("settings")
}

pub(super) async fn start(config: Config) -> App {
    App::start(config, telemetry::metrics().expect("a recorder")).await.expect("an app")
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mnist").join(name)
}

async fn stage(app: &App, file: &Path) -> StagedBlob {
    let mut upload = app.storage.blobs.upload().await.expect("an upload");
    upload.write(std::fs::read(file).expect("an example").into()).await.expect("a write");
    upload.finish().await.expect("a staged blob")
}

/// A service with the example network and its data.
pub(super) async fn with_mnist(app: &App) {
    let model = stage(app, &example("lenet300.onnx")).await;
    app.add_model("lenet300", Default::default(), model).await.expect("a model");
    let dataset = stage(app, &example("mnist.npz")).await;
    app.add_dataset("mnist", dataset).await.expect("a dataset");
}

pub(super) fn spec(value: Value) -> JobSpec {
    serde_json::from_value(value).expect("a spec")
}

fn evaluation(array: &str) -> Value {
    json!({"metrics": ["accuracy"], "data": {"dataset": "mnist", "split": "validation",
        "inputs": {"input": {"array": array, "scale": 1.0 / 255.0}}, "target": {"array": "y", "kind": "class"}}})
}

pub(super) fn compression() -> Value {
    json!({"kind": "compress", "model": "lenet300", "make_default": true, "recipe": {
        "prune": {"criterion": "magnitude", "sparsity": 0.5}, "quantize": {"method": "cws", "levels": 16}}})
}

async fn wait(app: &App, job: &JobId) -> JobRecord {
    app.jobs.wait(job, PATIENCE).await.expect("the job")
}

/// Waits until a worker has the job.
async fn wait_until_running(app: &App, id: &JobId) {
    let mut watch = app.jobs.watch(id);
    while app.storage.store.job(id).await.expect("the job").state == JobState::Queued {
        watch.changed().await;
    }
}

#[tokio::test]
async fn a_compression_is_measured_before_and_after_and_becomes_the_default() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(config(&folder)).await;
    with_mnist(&app).await;
    let mut asked = compression();
    asked["evaluation"] = evaluation("x");
    let queued = app.jobs.submit(&spec(asked)).await.expect("a job");
    let job = wait(&app, &queued.id).await;
    assert_eq!((job.state, job.failure), (JobState::Succeeded, None));

    let result: JobResult = serde_json::from_value(job.result.unwrap_or_default()).expect("a result");
    let accuracy: Vec<(i64, Option<f64>, i64)> =
        result.metrics.iter().map(|metric| (metric.version, metric.value, metric.samples)).collect();
    assert_eq!(result.metrics.iter().map(|metric| metric.name.as_str()).collect::<Vec<_>>(), ["accuracy"; 2]);
    // Version 0 by ONNX Runtime on the same thousand images: .982.
    assert_eq!(accuracy[0], (0, Some(0.982), 1000));
    assert!(accuracy[1].0 == 1 && accuracy[1].1 > Some(0.97), "{accuracy:?}");

    let model = app.storage.store.model("lenet300").await.expect("the model");
    assert_eq!(model.default_version, 1);
    let report = result.report.expect("a report");
    let layers = app.storage.store.layers(&model.id, 1).await.expect("layers");
    assert_eq!(layers.len(), 3);
    assert_eq!(
        layers.iter().map(|layer| layer.compressed_bytes).sum::<i64>(),
        report.layers.iter().map(|layer| layer.compressed_bytes as i64).sum::<i64>()
    );
    let rows = app.storage.store.metrics(&model.id, None).await.expect("metrics");
    assert_eq!(rows.len(), 2);
    let events = app.storage.store.events(&queued.id, 0, i64::MAX).await.expect("events");
    assert_eq!(events.first().map(|event| event.kind), Some(EventKind::Queued));
    assert_eq!(events.last().map(|event| event.kind), Some(EventKind::Succeeded));
    assert!(app.predictors.get(&model, 1).await.is_ok());
    app.shutdown().await;
}

#[tokio::test]
async fn an_evaluation_adds_metrics_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(config(&folder)).await;
    with_mnist(&app).await;
    let asked = json!({"kind": "evaluate", "model": "lenet300", "evaluation": evaluation("x")});
    let queued = app.jobs.submit(&spec(asked)).await.expect("a job");
    assert_eq!(queued.spec["version"], 0, "the default at the time it was queued");
    assert_eq!(wait(&app, &queued.id).await.state, JobState::Succeeded);
    let model = app.storage.store.model("lenet300").await.expect("the model");
    let metrics = app.storage.store.metrics(&model.id, None).await.expect("metrics");
    assert_eq!(metrics.iter().map(|metric| (metric.version, metric.value)).collect::<Vec<_>>(), [(0, Some(0.982))]);
    assert_eq!(metrics[0].split.as_deref(), Some("validation"));
    app.shutdown().await;
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused_before_it_is_queued() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(config(&folder)).await;
    with_mnist(&app).await;
    let mut wrong_array = compression();
    wrong_array["evaluation"] = evaluation("pixels");
    let mut no_dataset = compression();
    no_dataset["evaluation"] = json!({"data": {"split": "test"}});
    let mut wrong_layer = compression();
    wrong_layer["recipe"]["layers"] = json!([{"match": "nowhere.*", "skip": true}]);
    let cases = [
        (wrong_array, Refusal::DataMismatch, "pixels"),
        (no_dataset, Refusal::DataMismatch, "dataset"),
        (wrong_layer, Refusal::InvalidRecipe, "nowhere.*"),
    ];
    for (asked, expected, named) in cases {
        match app.jobs.submit(&spec(asked)).await {
            Err(SubmitError::Invalid { refusal, detail }) => {
                assert_eq!(refusal, expected, "{detail}");
                assert!(detail.contains(named), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }
    let missing = app.jobs.submit(&spec(json!({"kind": "compress", "model": "x", "recipe": {}}))).await;
    assert!(matches!(missing, Err(SubmitError::Store(StoreError::NotFound { .. }))), "{missing:?}");
    let all = Page { after: None, limit: 9 };
    assert_eq!(app.storage.store.jobs(&Default::default(), &all).await.expect("jobs"), []);
    app.shutdown().await;
}

#[tokio::test]
async fn a_dry_run_estimates_and_queues_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(config(&folder)).await;
    with_mnist(&app).await;
    let estimate = app.jobs.dry_run(&spec(compression())).await.expect("a sound spec").expect("an estimate");
    assert_eq!((estimate.weights, estimate.layers.len()), (266_200, 3));
    let all = Page { after: None, limit: 9 };
    assert_eq!(app.storage.store.jobs(&Default::default(), &all).await.expect("jobs"), []);
    app.shutdown().await;
}

#[tokio::test]
async fn a_running_job_is_cancelled_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(config(&folder)).await;
    with_mnist(&app).await;
    // Its work waits behind this, so that the cancel comes first.
    let hold = app.executor.hold_jobs();
    let queued = app.jobs.submit(&spec(compression())).await.expect("a job");
    wait_until_running(&app, &queued.id).await;
    assert_eq!(app.jobs.cancel(&queued.id).await.expect("the job").state, JobState::Cancelling);
    drop(hold);
    assert_eq!(wait(&app, &queued.id).await.state, JobState::Cancelled);
    let model = app.storage.store.model("lenet300").await.expect("the model");
    assert_eq!(app.storage.store.versions(&model.id, -1, 9).await.expect("versions").len(), 1);
    app.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_leaves_no_lease_behind_and_the_next_start_finishes_the_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(config(&folder)).await;
    with_mnist(&app).await;
    let hold = app.executor.hold_jobs();
    let queued = app.jobs.submit(&spec(compression())).await.expect("a job");
    wait_until_running(&app, &queued.id).await;
    app.begin_shutdown();
    assert!(!app.is_ready().await);
    drop(hold);
    app.shutdown().await;
    drop(app);

    // Without workers, to see how it was left.
    let app = start(Config { workers: 0, ..config(&folder) }).await;
    let left = app.storage.store.job(&queued.id).await.expect("the job");
    assert_eq!(left.lease_until, None);
    assert!(matches!(left.state, JobState::Queued | JobState::Succeeded), "{:?}", left.state);
    app.shutdown().await;
    drop(app);

    let app = start(config(&folder)).await;
    assert_eq!(wait(&app, &queued.id).await.state, JobState::Succeeded);
    app.shutdown().await;
}

#[tokio::test]
async fn concurrent_requests_share_one_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(config(&folder)).await;
    with_mnist(&app).await;
    let model = app.storage.store.model("lenet300").await.expect("the model");
    let loads = (0..8).map(|_| app.predictors.get(&model, 0));
    let loaded = futures_util::future::join_all(loads).await;
    let predictors: Vec<_> = loaded.into_iter().map(|loaded| loaded.expect("a predictor").predictor).collect();
    assert!(predictors.iter().all(|predictor| Arc::ptr_eq(predictor, &predictors[0])));
    assert_eq!(app.predictors.resident_bytes(), predictors[0].weights_resident_bytes());
    app.predictors.forget(&model, None);
    assert_eq!((app.predictors.resident_bytes(), app.predictors.is_loaded(&model, 0)), (0, false));
    app.shutdown().await;
}

#[tokio::test]
async fn the_least_recently_used_predictor_makes_room() {
    let folder = tempfile::tempdir().expect("a folder");
    // Room for one dense network of 1.07 MB, not for two.
    let app = start(Config { predictor_memory_bytes: 1_500_000, ..config(&folder) }).await;
    for name in ["a", "b"] {
        let file = stage(&app, &example("lenet300.onnx")).await;
        app.add_model(name, Default::default(), file).await.expect("a model");
    }
    let a = app.storage.store.model("a").await.expect("the model");
    let b = app.storage.store.model("b").await.expect("the model");
    app.predictors.get(&a, 0).await.expect("a predictor");
    assert!(app.predictors.is_loaded(&a, 0));
    app.predictors.get(&b, 0).await.expect("a predictor");
    assert!(!app.predictors.is_loaded(&a, 0) && app.predictors.is_loaded(&b, 0));
    assert!(app.predictors.resident_bytes() <= 1_500_000);

    let file = stage(&app, &example("lenet5.onnx")).await;
    app.add_model("large", Default::default(), file).await.expect("a model");
    let large = app.storage.store.model("large").await.expect("the model");
    let refused = app.predictors.get(&large, 0).await;
    assert!(matches!(refused, Err(LoadError::OverBudget { version: 0, .. })), "{refused:?}");
    assert!(app.predictors.is_loaded(&b, 0), "what cannot be kept drives nothing out");
    app.shutdown().await;
}

#[tokio::test]
async fn what_is_no_model_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = start(config(&folder)).await;
    let file = stage(&app, &example("../README.md")).await;
    let refused = app.add_model("readme", Default::default(), file).await;
    assert!(
        matches!(
            &refused,
            Err(crate::app::AddError::File(ExecuteError::Refused { refusal: Refusal::InvalidModel, .. }))
        ),
        "{refused:?}"
    );
    assert_eq!(
        app.storage.store.models(&Default::default(), &Page { after: None, limit: 9 }).await.expect("models"),
        []
    );
    app.shutdown().await;
}
