//! The queue when it is long: how long it takes to queue a job, to claim one and to list a page, at the 50th and the 99th percentile.
//!
//! Not a statistical benchmark: one run, of each operation as often as it says. `cargo bench --bench queue [-- JOBS]`, on SQLite or on
//! the empty Postgres database that WEIGHTPRESS_BENCH_DATABASE_URL names.

use std::time::{Duration, Instant};

use serde_json::json;
use weightpress::jobs::JobKind;
use weightpress::model::Format;
use weightpress::storage::{BlobSettings, JobFilter, NewJob, NewModel, Page, Storage, StoreError};

const TENANTS: usize = 5;
const CLAIMS: usize = 1000;
const LEASE: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let jobs: usize = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(10_000);
    let folder = tempfile::tempdir()?;
    let sqlite = format!("sqlite://{}", folder.path().join("queue.db").display());
    let url = std::env::var("WEIGHTPRESS_BENCH_DATABASE_URL").unwrap_or(sqlite);
    let storage = Storage::open(&url, &BlobSettings::folder(&folder.path().join("blobs"))).await?;
    let mut tenants = Vec::new();
    for number in 0..TENANTS {
        let tenant = storage.store.tenant_or_new(&format!("tenant{number}")).await?;
        let tenant = storage.for_tenant(&tenant.id);
        add_model(&tenant).await?;
        tenants.push(tenant);
    }
    let database = url.split_once(':').map_or("", |(scheme, _)| scheme);
    println!("{jobs} jobs of {TENANTS} tenants on {database}");

    let mut times = Vec::new();
    for number in 0..jobs {
        let started = Instant::now();
        tenants[number % TENANTS].store.enqueue(&new_job()).await?;
        times.push(started.elapsed());
    }
    show("queue one", times);

    let mut times = Vec::new();
    for _ in 0..CLAIMS.min(jobs) {
        let started = Instant::now();
        storage.store.claim("bench", LEASE).await?.ok_or("the queue is empty")?;
        times.push(started.elapsed());
    }
    show("claim one", times);

    let (mut times, mut after) = (Vec::new(), None);
    loop {
        let started = Instant::now();
        let page = tenants[0].store.jobs(&JobFilter::default(), &Page { after: after.take(), limit: 50 }).await?;
        times.push(started.elapsed());
        match page.last() {
            Some(last) if page.len() == 50 => after = Some(last.id.to_string()),
            _ => break,
        }
    }
    show("list 50", times);
    storage.store.close().await;
    Ok(())
}

async fn add_model(storage: &Storage) -> Result<(), StoreError> {
    let mut upload = storage.blobs.upload().await?;
    upload.write("not looked at".into()).await?;
    let model = NewModel {
        name: "net".to_owned(),
        format: Format::Onnx,
        inputs: Vec::new(),
        outputs: Vec::new(),
        weights: Vec::new(),
        kept: Vec::new(),
        unsupported_operators: Vec::new(),
        metadata: Default::default(),
    };
    storage.add_model(upload.finish().await?, &model).await.map(drop)
}

fn new_job() -> NewJob {
    NewJob {
        kind: JobKind::Compress,
        priority: 0,
        spec: json!({"kind": "compress", "model": "net", "recipe": {}}),
        metadata: Default::default(),
        model: "net".to_owned(),
        datasets: Default::default(),
        max_attempts: 3,
        request: None,
        traceparent: None,
        parent: None,
    }
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{what:10} {:6} times   p50 {:7.3} ms   p99 {:7.3} ms", times.len(), at(50), at(99));
}
