//! `weightpress demo`: the whole service on a bundled network, from the outside.
//!
//! It starts the service on its defaults, in a fresh folder and on a free port, and then is an ordinary client of it:
//! everything below happens over HTTP.

mod client;
mod digits;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use serde_json::{Value, json};

use self::client::Client;
use super::data::number;
use super::progress::Bar;
use super::table::Align::{Left, Right};
use super::table::{Table, grouped};
use super::{CliError, compress, print_stdout, serve};
use crate::compress::Report;
use crate::config::ConfigArgs;
use crate::storage::NewMetric;
use crate::telemetry;

const MODEL: &[u8] = include_bytes!("../../../examples/mnist/lenet5.onnx");
const DATA: &[u8] = include_bytes!("../../../examples/mnist/mnist.npz");
/// The job, as a client would send it: recipe and evaluation.
const JOB: &str = include_str!("../../../examples/mnist/job.json");

/// Names on the demo's own server.
const MODEL_NAME: &str = "lenet5";
const DATASET_NAME: &str = "mnist";

/// Pixels are bytes; the network wants them between 0 and 1.
const PIXEL_SCALE: f64 = 1.0 / 255.0;

/// Digits that are predicted and drawn.
const SHOWN: usize = 6;

/// What the demo may be told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep serving afterwards, until interrupted.
    #[arg(long)]
    keep: bool,
}

/// Serves, uploads, compresses, evaluates, predicts; prints what it did.
pub fn run(args: Args) -> Result<(), CliError> {
    let folder = tempfile::Builder::new().prefix("weightpress-demo-").tempdir()?;
    let settings = ConfigArgs {
        data_dir: Some(folder.path().to_owned()),
        listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
        ..ConfigArgs::default()
    };
    let config = settings.resolve().map_err(CliError::failed)?;
    telemetry::init_log("warn", config.log_format).map_err(CliError::failed)?;
    serve::while_serving(config, args.keep, move |address| show(address, args.keep))
}

/// The demo as a client of the service at `address`.
fn show(address: SocketAddr, keep: bool) -> Result<(), CliError> {
    let client = Client::new(address);
    say(&format!("Weightpress serves on http://{address}\n\n"))?;

    let started = Instant::now();
    client.upload("models", MODEL_NAME, MODEL)?;
    client.upload("datasets", DATASET_NAME, DATA)?;
    let uploaded = grouped(MODEL.len() as u64);
    say(&format!(
        "Uploaded {MODEL_NAME} (2 convolutions, 2 dense layers; {uploaded} bytes) and 5,000 images of MNIST.\n"
    ))?;

    let job: Value = serde_json::from_str(JOB).map_err(CliError::failed)?;
    let job = client.post("/api/v1/jobs", &job)?;
    let id = text(&job, "/id")?;
    let finished = follow(&client, &id)?;
    let version = finished.pointer("/result/version").and_then(Value::as_i64).ok_or_else(|| surprise(&finished))?;
    say(&format!("Job {id} made version {version} in {:.1} s.\n\n", started.elapsed().as_secs_f64()))?;

    let path = format!("/api/v1/models/{MODEL_NAME}/versions/{version}");
    let report: Report = serde_json::from_value(client.get(&path)?["report"].take()).map_err(CliError::failed)?;
    say(&compress::render(&report))?;
    show_quality(&finished)?;
    show_predictions(&client)?;
    say(&by_hand(address, keep))?;
    if keep { say("\nServing until interrupted (Ctrl-C).\n") } else { Ok(()) }
}

/// Draws the progress of job `id` until it ends, and returns it.
fn follow(client: &Client, id: &str) -> Result<Value, CliError> {
    let bar = Bar::new();
    let finished = loop {
        let job = client.get(&format!("/api/v1/jobs/{id}"))?;
        let fraction = job.pointer("/progress/fraction").and_then(Value::as_f64).unwrap_or(0.0);
        bar.set(fraction, job.pointer("/progress/message").and_then(Value::as_str).unwrap_or_default());
        match text(&job, "/status")?.as_str() {
            "queued" | "running" => std::thread::sleep(std::time::Duration::from_millis(50)),
            "succeeded" => break Ok(job),
            _ => break Err(surprise(&job)),
        }
    };
    bar.finish();
    finished
}

/// Prints what the job measured, version 0 beside the compressed one.
fn show_quality(job: &Value) -> Result<(), CliError> {
    let rows: Vec<NewMetric> = serde_json::from_value(job["metrics"].clone()).map_err(CliError::failed)?;
    let mut table =
        Table::new(&[("metric", Left), ("split", Left), ("samples", Right), ("before", Right), ("after", Right)]);
    for after in rows.iter().filter(|row| row.version != 0) {
        let before = rows.iter().find(|row| row.version == 0 && row.name == after.name);
        table.row(vec![
            after.name.clone(),
            after.split.clone().unwrap_or_default(),
            grouped(after.samples.unsigned_abs()),
            number(before.and_then(|row| row.value)),
            number(after.value),
        ]);
    }
    say(&format!("\n{}", table.render()))
}

/// Predicts the first images through the Open Inference Protocol, on compressed weights.
fn show_predictions(client: &Client) -> Result<(), CliError> {
    let images = digits::first_of_test(DATA, SHOWN).map_err(CliError::failed)?;
    let pixels: Vec<f64> = images.iter().flat_map(|d| d.pixels.iter().map(|&p| f64::from(p) * PIXEL_SCALE)).collect();
    let request = json!({
        "inputs": [{"name": "input", "shape": [images.len(), 1, digits::SIDE, digits::SIDE], "datatype": "FP32", "data": pixels}],
    });
    // Held as it is: what `auto` would choose for so small a network is dense.
    let packed = json!({"parameters": {"residency": "packed"}});
    client.post(&format!("/v2/repository/models/{MODEL_NAME}/load"), &packed)?;
    let answer = client.post(&format!("/v2/models/{MODEL_NAME}/infer"), &request)?;
    let logits: Vec<f64> = serde_json::from_value(answer["outputs"][0]["data"].clone()).map_err(CliError::failed)?;
    let version = text(&answer, "/model_version")?;
    let predicted: Vec<usize> = logits.chunks(logits.len() / images.len()).map(largest).collect();
    say(&format!("\nPredicted by version {version}, on its compressed weights (residency packed):\n\n"))?;
    say(&digits::draw(&images, &predicted))
}

/// Index of the largest value.
fn largest(values: &[f64]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
}

/// The curl lines that do the same: against this service while it lasts, else against one on the default port.
fn by_hand(address: SocketAddr, keep: bool) -> String {
    let (serve, url) = match keep {
        true => ("", format!("http://{address}")),
        false => ("  weightpress serve &\n", "http://127.0.0.1:8080".to_owned()),
    };
    format!(
        "\nThe same by hand, from a checkout:\n\n{serve}\
         \x20 curl --data-binary @examples/mnist/lenet5.onnx '{url}/api/v1/models?name=lenet5'\n\
         \x20 curl --data-binary @examples/mnist/mnist.npz '{url}/api/v1/datasets?name=mnist'\n\
         \x20 curl --json @examples/mnist/job.json '{url}/api/v1/jobs'\n\
         \x20 curl '{url}/api/v1/jobs'\n\
         \x20 curl -O -J '{url}/api/v1/models/lenet5/versions/1/content'\n\
         \x20 curl --json @examples/mnist/infer.json '{url}/v2/models/lenet5/infer'\n"
    )
}

fn text(document: &Value, pointer: &str) -> Result<String, CliError> {
    let found = document.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| surprise(document))
}

/// The service answered what no client can expect.
fn surprise(document: &Value) -> CliError {
    CliError::Failed(format!("unexpected answer: {document}"))
}

fn say(line: &str) -> Result<(), CliError> {
    print_stdout(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_recipe_is_the_bundled_one() {
        let job: Value = serde_json::from_str(JOB).unwrap();
        let recipe: Value = serde_json::from_str(include_str!("../../../examples/mnist/recipe.json")).unwrap();
        assert_eq!(job["recipe"], recipe);
    }
}
