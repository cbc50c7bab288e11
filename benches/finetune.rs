//! Time of an epoch of fine-tuning LeNet-5.
//!
//! `cargo bench --bench finetune -- MODEL.onnx DATA.npz [SAMPLES]` trains every tensor of the network by Adam on the first
//! samples of `x_train` (bytes, divided by 255) and `y_train`, 128 a step, and prints a line of JSON for each of three
//! epochs: seconds per 60,000 samples. `RAYON_NUM_THREADS` sets the threads. `benches/peers/finetune.py` runs it beside
//! PyTorch.

use std::path::Path;
use std::time::Instant;

use prost::Message;
use tract_onnx::pb::ModelProto;
use weightpress::evaluate::Dataset;
use weightpress::finetune::{Batch, Network, Parameters, Samples, Settings, Store, Trainer, TuneError};
use weightpress::infer::{Array, ArrayData};
use weightpress::progress::Silent;

/// Images in memory, as the network takes them.
struct Images {
    input: String,
    dims: Vec<usize>,
    x: Array,
    y: Array,
    len: usize,
}

impl Samples for Images {
    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, indices: &[usize]) -> Result<Batch, TuneError> {
        let row: usize = self.dims.iter().product();
        let ArrayData::U8(x) = &self.x.data else { return Err(TuneError::Samples("no bytes".into())) };
        let mut pixels = Vec::with_capacity(indices.len() * row);
        indices.iter().for_each(|i| pixels.extend(x[i * row..][..row].iter().map(|&x| f32::from(x) / 255.0)));
        let labels = indices.iter().map(|&i| self.y.data.get_f64(i) as i64).collect();
        let x = Array { dims: [&[indices.len()], &self.dims[..]].concat(), data: ArrayData::F32(pixels) };
        let y = Array { dims: vec![indices.len()], data: ArrayData::I64(labels) };
        Ok(Batch { inputs: vec![(self.input.clone(), x)], target: Some(y) })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [model, data, rest @ ..] = &arguments[..] else { return Ok(()) };
    let model = ModelProto::decode(&std::fs::read(model)?[..])?;
    let data = Dataset::open(Path::new(data))?;
    let (x, y) = (data.read_all("x_train")?, data.read_all("y_train")?);
    let len = rest.first().map_or(Ok(x.dims[0]), |samples| samples.parse())?.min(x.dims[0]);
    let input = model.graph.iter().flat_map(|graph| &graph.input).next().map(|input| input.name.clone());
    let images = Images { input: input.unwrap_or_default(), dims: vec![1, 28, 28], x, y, len };
    let network = Network::new(&model, None, &|_| None)?;
    let parameters = Parameters::of(&network);
    let mut trainer =
        Trainer::new(network, parameters, Settings { epochs: 3, micro_batch: 64, ..Settings::default() })?;
    let images = trainer.prepare(&images, (&Store::default(), "bench"), &Silent)?;
    for _ in 0..3 {
        let start = Instant::now();
        let stats = trainer.epoch(&images, &mut |_, _| Ok(()), &Silent)?;
        let seconds = start.elapsed().as_secs_f64() * 60_000.0 / len as f64;
        println!("{}", serde_json::json!({ "seconds_per_60000": seconds, "loss": stats.loss }));
    }
    Ok(())
}
