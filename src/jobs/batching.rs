//! Requests for one version that arrive together, run as one batch.
//!
//! A request waits up to a stated delay for others like it: for the same loaded version, with the same names, types and
//! extents but for the leading one. They are stacked along the leading axis, run once, and the outputs are taken apart
//! again. Where a batch fails, each of its requests is run alone, so that a fault stays with the request that has it.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::benchmark::Samples;
use crate::infer::{Array, Datatype, InferError, Predictor};

use super::{ExecuteError, Executor, Loaded, Serving};

/// Largest difference between the outputs of a sample alone and in a batch, as a share of the largest output: what
/// separates two orders of summation in f32.
const TOLERANCE: f64 = 1e-4;

/// Named arrays, in or out.
type Arrays = Vec<(String, Array)>;
type Answer = Result<Result<Arrays, InferError>, ExecuteError>;

/// How requests are gathered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchSettings {
    /// Most samples of a batch; with 1, requests are not gathered.
    pub(crate) max_batch: usize,
    /// How long the first request of a batch waits for others.
    pub(crate) max_delay: Duration,
}

impl BatchSettings {
    /// Whether requests are gathered.
    pub(crate) fn is_on(&self) -> bool {
        self.max_batch > 1
    }
}

/// Gathers requests. Clones share what is gathered.
#[derive(Debug, Clone)]
pub struct Batching {
    executor: Executor,
    settings: BatchSettings,
    gathered: Arc<Mutex<HashMap<Key, Gathering>>>,
}

/// What requests of one batch have in common: the predictor, by its address, which lives as long as they do; and of each
/// input its name, type and all extents but the first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    predictor: usize,
    inputs: Vec<(String, Datatype, Vec<usize>)>,
}

/// Requests that wait for others.
#[derive(Debug, Default)]
struct Gathering {
    requests: Vec<Request>,
    samples: usize,
    /// Tells it from others that are gathered under the same key, before and after.
    identity: Arc<()>,
}

/// A request that waits.
struct Request {
    predictor: Arc<Serving>,
    inputs: Arrays,
    samples: usize,
    came: Instant,
    /// What the request holds until its work is done.
    held: Box<dyn Any + Send>,
    answer: oneshot::Sender<Answer>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("samples", &self.samples).finish_non_exhaustive()
    }
}

impl Batching {
    pub(crate) fn new(executor: Executor, settings: BatchSettings) -> Self {
        Self { executor, settings, gathered: Arc::default() }
    }

    /// Whether requests for `loaded` are gathered.
    pub fn is_on(&self, loaded: &Loaded) -> bool {
        self.settings.is_on() && loaded.is_batched
    }

    /// Runs `inputs`, with those of other requests where some come in time. `held` is dropped once the work is done, also
    /// when the caller has gone.
    ///
    /// # Errors
    /// [`ExecuteError`] of the executor; inside, the [`InferError`] of this request alone.
    pub async fn run(&self, loaded: &Loaded, inputs: Arrays, held: impl Any + Send) -> Answer {
        let predictor = loaded.predictor.clone();
        let (answer, answered) = oneshot::channel();
        let key = Key::of(&predictor, &inputs);
        let samples = samples_of(&inputs).filter(|&samples| samples < self.settings.max_batch);
        let came = Instant::now();
        let request = Request { predictor, inputs, samples: samples.unwrap_or(1), came, held: Box::new(held), answer };
        match samples {
            Some(_) => self.gather(key, request),
            None => self.start(vec![request]),
        }
        // The task that answers is gone only with the runtime.
        answered.await.unwrap_or(Err(ExecuteError::Panicked))
    }

    /// Adds `request` to those of its kind, and starts what is full.
    fn gather(&self, key: Key, request: Request) {
        let mut gathered = self.lock();
        let gathering = gathered.entry(key.clone()).or_default();
        let mut full = Vec::new();
        if gathering.samples + request.samples > self.settings.max_batch {
            full = std::mem::take(gathering).requests;
        }
        let first = gathering.requests.is_empty().then(|| gathering.identity.clone());
        gathering.samples += request.samples;
        gathering.requests.push(request);
        if gathering.samples == self.settings.max_batch {
            let last = gathered.remove(&key).unwrap_or_default().requests;
            drop(gathered);
            self.start(last);
        } else {
            drop(gathered);
            if let Some(identity) = first {
                self.start_later(key, identity);
            }
        }
        self.start(full);
    }

    /// Starts what is gathered under `key` after the delay, unless it was started meanwhile.
    fn start_later(&self, key: Key, identity: Arc<()>) {
        let batching = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(batching.settings.max_delay).await;
            let due = {
                let mut gathered = batching.lock();
                let is_due = gathered.get(&key).is_some_and(|found| Arc::ptr_eq(&found.identity, &identity));
                if is_due { gathered.remove(&key) } else { None }
            };
            batching.start(due.map(|due| due.requests).unwrap_or_default());
        });
    }

    /// Runs `requests` and answers each; a task of its own, so that no request that goes away stops it.
    fn start(&self, mut requests: Vec<Request>) {
        requests.retain(|request| !request.answer.is_closed());
        let Some(first) = requests.first() else { return };
        let (executor, predictor) = (self.executor.clone(), first.predictor.clone());
        let samples = requests.iter().map(|request| request.samples).sum::<usize>();
        metrics::histogram!("weightpress_prediction_batch_samples").record(samples as f64);
        tokio::spawn(async move {
            let mut inputs = Vec::with_capacity(requests.len());
            let mut waiting = Vec::with_capacity(requests.len());
            let mut came = Vec::with_capacity(requests.len());
            for Request { inputs: own, samples, came: since, held, answer, .. } in requests {
                inputs.push((own, samples));
                came.push(since);
                waiting.push((answer, held));
            }
            let work = move || {
                let waited = metrics::histogram!("weightpress_inference_queue_duration_seconds", "queue" => "batch");
                came.iter().for_each(|came| waited.record(came.elapsed()));
                run_all(&predictor, inputs)
            };
            match executor.run(work).await {
                Ok(answers) => waiting.into_iter().zip(answers).for_each(|((to, _held), answer)| {
                    // Nobody may be left to hear it.
                    _ = to.send(Ok(answer));
                }),
                Err(error) => waiting.into_iter().for_each(|(to, _held)| _ = to.send(Err(error.clone()))),
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Gathering>> {
        // The map is whole between its methods, whatever panicked.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn of(predictor: &Arc<Serving>, inputs: &Arrays) -> Self {
        let kind = |(name, array): &(String, Array)| {
            (name.clone(), array.datatype(), array.dims.get(1..).unwrap_or_default().to_vec())
        };
        let mut inputs: Vec<_> = inputs.iter().map(kind).collect();
        inputs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Self { predictor: Arc::as_ptr(predictor) as usize, inputs }
    }
}

/// The leading extent that all arrays share, if they do.
fn samples_of(arrays: &Arrays) -> Option<usize> {
    let samples = *arrays.first()?.1.dims.first()?;
    arrays.iter().all(|(_, array)| array.dims.first() == Some(&samples)).then_some(samples)
}

/// Runs the inputs of several requests, together where that works.
fn run_all(predictor: &Serving, requests: Vec<(Arrays, usize)>) -> Vec<Result<Arrays, InferError>> {
    if requests.len() > 1 {
        let samples: Vec<usize> = requests.iter().map(|(_, samples)| *samples).collect();
        let together = stacked(&requests).and_then(|inputs| apart(predictor.run(inputs).ok()?, &samples));
        if let Some(outputs) = together {
            return outputs.into_iter().map(Ok).collect();
        }
    }
    requests.into_iter().map(|(inputs, _)| predictor.run(inputs)).collect()
}

/// The arrays of all requests, one behind the other; `None` where they do not fit together.
fn stacked(requests: &[(Arrays, usize)]) -> Option<Arrays> {
    let (first, _) = requests.first()?;
    let stack = |(name, _): &(String, Array)| {
        let of_name = |(inputs, _): &'_ (Arrays, usize)| inputs.iter().position(|(own, _)| own == name);
        let parts: Option<Vec<&Array>> = requests.iter().map(|r| Some(&r.0[of_name(r)?].1)).collect();
        Some((name.clone(), Array::stack(&parts?)?))
    };
    first.iter().map(stack).collect()
}

/// The outputs of requests of so many samples each; `None` for outputs that are not one row for each sample.
fn apart(outputs: Arrays, samples: &[usize]) -> Option<Vec<Arrays>> {
    let mut requests = vec![Arrays::new(); samples.len()];
    for (name, array) in outputs {
        for (request, part) in requests.iter_mut().zip(array.unstack(samples)?) {
            request.push((name.clone(), part));
        }
    }
    Some(requests)
}

/// Whether `predictor` answers each sample of a batch as it answers that sample alone. The extents of its inputs and
/// outputs must allow it, and three made-up samples must show it: a graph may also mix samples, by a mean over the
/// leading axis or a softmax along it.
pub(super) fn answers_samples_apart(predictor: &Predictor) -> bool {
    const SAMPLES: usize = 3;
    let ports = (predictor.inputs(), predictor.outputs());
    let shapes = BTreeMap::new();
    let probe = || {
        let inputs = Samples::Random { shapes: &shapes }.read(ports, SAMPLES).ok()?;
        let alone = apart(inputs.clone(), &[1; SAMPLES])?;
        let together = apart(predictor.run(inputs).ok()?, &[1; SAMPLES])?;
        let same =
            alone.into_iter().zip(together).map(|(inputs, outputs)| are_close(&predictor.run(inputs).ok()?, &outputs));
        same.collect::<Option<Vec<bool>>>().map(|same| same.into_iter().all(|same| same))
    };
    predictor.takes_any_batch() && probe().unwrap_or(false)
}

fn are_close(found: &Arrays, expected: &Arrays) -> Option<bool> {
    let close = |((_, found), (_, expected)): (&(String, Array), &(String, Array))| {
        let values = |array: &Array| (0..array.len()).map(|i| array.data.get_f64(i)).collect::<Vec<_>>();
        let (a, b) = (values(found), values(expected));
        let largest = b.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        found.dims == expected.dims && a.iter().zip(&b).all(|(a, b)| a == b || (a - b).abs() <= TOLERANCE * largest)
    };
    (found.len() == expected.len()).then(|| found.iter().zip(expected).all(close))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tract_onnx::pb::attribute_proto::AttributeType;
    use tract_onnx::pb::{AttributeProto, NodeProto};

    use super::*;
    use crate::infer::{ArrayData, Residency};
    use crate::model::Model;
    use crate::model::fixture::{floats, graph, model, node, port};

    /// `y = op(x . w)` for samples of two values.
    fn predictor(op: NodeProto) -> Predictor {
        let mut graph = graph(vec![node("MatMul", "x w", "h"), op], vec![floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])]);
        graph.input = vec![port("x", &[-1, 2])];
        graph.output = vec![port("y", &[-1, 2])];
        let model = Model::from_bytes(model(graph).encode_to_vec().into()).expect("a model");
        Predictor::from_model(&model).expect("a predictor")
    }

    fn softmax(axis: i64) -> NodeProto {
        let mut node = node("Softmax", "h", "y");
        node.attribute.push(AttributeProto {
            name: "axis".into(),
            i: axis,
            r#type: AttributeType::Int as i32,
            ..AttributeProto::default()
        });
        node
    }

    fn samples(values: &[f32]) -> Arrays {
        vec![("x".into(), Array { dims: vec![values.len() / 2, 2], data: ArrayData::F32(values.to_vec()) })]
    }

    fn batching(max_batch: usize, max_delay: Duration) -> Batching {
        Batching::new(Executor::start(2).expect("a pool"), BatchSettings { max_batch, max_delay })
    }

    fn loaded() -> Loaded {
        let predictor = Arc::new(Serving::from(predictor(node("Relu", "h", "y"))));
        Loaded { predictor, version: 1, residency: Residency::Dense, tallies: Arc::default(), is_batched: true }
    }

    #[test]
    fn graphs_that_mix_samples_are_not_batched() {
        assert!(answers_samples_apart(&predictor(node("Relu", "h", "y"))));
        assert!(answers_samples_apart(&predictor(softmax(1))));
        assert!(!answers_samples_apart(&predictor(softmax(0))));
    }

    #[tokio::test]
    async fn requests_that_come_together_are_answered_as_alone() {
        // Longer than the test may take: only a full batch starts.
        let (batching, loaded) = (batching(6, Duration::from_secs(3600)), loaded());
        let requests =
            [samples(&[1.0, 0.0]), samples(&[0.0, 1.0, 2.0, -2.0]), samples(&[5.0, 5.0, 0.5, 0.25, 3.0, 1.0])];
        let expected: Vec<_> = requests.iter().map(|r| loaded.predictor.run(r.clone()).expect("alone")).collect();
        let answers = requests.map(|inputs| batching.run(&loaded, inputs, ()));
        let answers = futures_util::future::join_all(answers).await;
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("a turn").expect("outputs")).collect();
        assert_eq!(answers, expected);
        assert!(batching.lock().is_empty());
    }

    #[tokio::test]
    async fn one_that_does_not_fit_starts_what_waits_and_the_delay_starts_the_rest() {
        let (batching, loaded) = (batching(3, Duration::from_millis(1)), loaded());
        let requests = [samples(&[1.0; 4]), samples(&[2.0; 4]), samples(&[3.0; 8])];
        let answers = futures_util::future::join_all(requests.map(|inputs| batching.run(&loaded, inputs, ()))).await;
        let samples: Vec<_> = answers.into_iter().map(|a| a.expect("a turn").expect("outputs")[0].1.dims[0]).collect();
        assert_eq!(samples, [2, 2, 4]);
    }

    #[tokio::test]
    async fn a_fault_stays_with_its_request() {
        let (batching, loaded) = (batching(4, Duration::from_secs(3600)), loaded());
        let mut short = samples(&[1.0, 2.0, 3.0, 4.0]);
        short[0].1.data = ArrayData::F32(vec![1.0]);
        let requests = [samples(&[1.0, 0.0]), short, samples(&[0.0, 1.0])];
        let answers = futures_util::future::join_all(requests.map(|inputs| batching.run(&loaded, inputs, ()))).await;
        let ok: Vec<_> = answers.into_iter().map(|answer| answer.expect("a turn").is_ok()).collect();
        assert_eq!(ok, [true, false, true]);
    }

    #[tokio::test]
    async fn a_request_that_goes_away_harms_nobody_and_gives_back_what_it_held() {
        let (batching, loaded) = (batching(2, Duration::from_secs(3600)), loaded());
        let held = Arc::new(());
        let mut gone = Box::pin(batching.run(&loaded, samples(&[9.0, 9.0]), held.clone()));
        assert!(futures_util::poll!(gone.as_mut()).is_pending());
        drop(gone);
        let answer = batching.run(&loaded, samples(&[1.0, 1.0]), ()).await.expect("a turn").expect("outputs");
        assert_eq!(answer[0].1.data, ArrayData::F32(vec![4.0, 6.0]));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
