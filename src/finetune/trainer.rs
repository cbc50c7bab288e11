//! The training loop, which its caller drives epoch by epoch.

use std::sync::Arc;

use burn_backend::backend::AutodiffBackend;
use burn_flex::FlexTensor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::{self, Rows, Store};
use super::error::TuneError;
use super::guarded;
use super::loss::{Goal, Sums, loss};
use super::mixup;
use super::network::Network;
use super::optimizer::Memory;
use super::parameters::Parameters;
use super::program::Program;
use super::samples::Samples;
use super::scalar::Scalar;
use super::settings::{Loss, Settings};
use super::value::{Tape, Tensor, Value};
use crate::progress::Progress;

/// Micro-batches whose gradients are in memory at once, whatever the number of threads.
const WAVE: usize = 8;

/// Gradients by the names of the tensors.
pub(super) type Gradients = Vec<(String, Vec<f32>)>;

/// A run: a network, what is trained of it, and how far that is.
#[derive(Debug)]
pub struct Trainer {
    pub(super) network: Network,
    program: Program,
    teacher: Option<Program>,
    /// The trained tensors as the network has them, in the program's order.
    originals: Vec<Tensor>,
    pub(super) settings: Settings,
    pub(super) parameters: Parameters,
    pub(super) memory: Memory,
    /// Epochs done.
    pub(super) epoch: u64,
    /// Steps done.
    pub(super) step: u64,
}

/// Samples with what is computed once for each of them: outputs of the frozen part, and the teacher's.
pub struct Prepared<'a> {
    samples: &'a dyn Samples,
    frozen: Option<Arc<Rows>>,
    teacher: Option<Arc<Rows>>,
    /// Samples are changed by chance each time that they are trained on.
    is_varied: bool,
}

/// What an epoch was like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochStats {
    /// The epoch's number, from 1.
    pub epoch: u64,
    /// The mean loss over its samples, each before the step that it led to.
    pub loss: f64,
    /// Steps so far, those of earlier epochs included.
    pub steps: u64,
    /// The largest norm of a step's gradients, before clipping.
    pub max_gradient_norm: f64,
}

/// How good the network is on some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metrics {
    /// Number of samples.
    pub samples: usize,
    /// The mean loss.
    pub loss: f64,
    /// Of class targets, the fraction of samples whose largest output is theirs.
    pub accuracy: Option<f64>,
    /// Of value targets, the mean squared difference.
    pub mse: Option<f64>,
}

impl Trainer {
    /// Begins a run. Tensors that `parameters` lacks stay as `network` has them.
    ///
    /// # Errors
    /// [`TuneError::Setting`]; where `parameters` do not fit `network`; [`TuneError::NothingToTrain`];
    /// [`TuneError::Node`] where operators on constants fail.
    pub fn new(network: Network, mut parameters: Parameters, settings: Settings) -> Result<Self, TuneError> {
        settings.check()?;
        parameters.check(&network)?;
        let output = match settings.loss {
            Loss::CrossEntropy => network.logits.unwrap_or(network.output),
            Loss::Mse => network.output,
        };
        let program = guarded(|| Program::new(&network, &parameters, output))?;
        let teacher = match settings.teacher {
            Some(_) => Some(guarded(|| Program::new(&network, &Parameters::new(), output))?),
            None => None,
        };
        let original = |(name, _): &(String, usize)| {
            let tensor = f32::tensor(&parameters.tensors[name].dims, network.values(name)?);
            Ok(Tensor::Plain(tensor))
        };
        let originals = program.trained.iter().filter(|_| settings.mixup).map(original);
        let originals = originals.collect::<Result<_, TuneError>>()?;
        let memory = Memory::default();
        Ok(Self { network, program, teacher, originals, settings, parameters, memory, epoch: 0, step: 0 })
    }

    /// What is trained, as it is now.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Changes what is trained, between epochs.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Parameters) -> Result<T, TuneError>) -> Result<T, TuneError> {
        change(&mut self.parameters)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// How the run trains.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Epochs done.
    pub fn epochs(&self) -> u64 {
        self.epoch
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Computes, once for each sample, what no step changes, as far as [`Settings::cache_bytes`] has room. What `store` has of
    /// the same network on the same samples, which a name tells apart, is taken from there.
    ///
    /// # Errors
    /// [`TuneError::NoSamples`]; those of reading and running; [`TuneError::Cancelled`].
    pub fn prepare<'a>(
        &self,
        samples: &'a dyn Samples,
        store: (&Store, &str),
        progress: &dyn Progress,
    ) -> Result<Prepared<'a>, TuneError> {
        self.prepared(samples, store, false, progress)
    }

    /// The same for samples that [`Settings::augment`] and [`Settings::mixup`] change each time that they are trained on.
    ///
    /// # Errors
    /// As [`Trainer::prepare`].
    pub fn prepare_varied<'a>(
        &self,
        samples: &'a dyn Samples,
        store: (&Store, &str),
        progress: &dyn Progress,
    ) -> Result<Prepared<'a>, TuneError> {
        self.prepared(samples, store, true, progress)
    }

    fn prepared<'a>(
        &self,
        samples: &'a dyn Samples,
        store: (&Store, &str),
        is_varied: bool,
        progress: &dyn Progress,
    ) -> Result<Prepared<'a>, TuneError> {
        if samples.is_empty() {
            return Err(TuneError::NoSamples);
        }
        let mut room = self.settings.cache_bytes;
        // The teacher's outputs are small and spare the most.
        let teacher = match &self.teacher {
            Some(program) if !is_varied => self.rows(program, "teacher", (samples, &mut room), store, progress)?,
            _ => None,
        };
        let is_changed = is_varied && self.settings.augment.is_some();
        let frozen = match self.program.has_frozen_part() && !is_changed {
            true => self.rows(&self.program, &self.frozen_digest(), (samples, &mut room), store, progress)?,
            false => None,
        };
        Ok(Prepared { samples, frozen, teacher, is_varied })
    }

    /// What the frozen part of `program`, which `key` tells from others, makes of every sample; `None` where there is no room.
    fn rows(
        &self,
        program: &Program,
        key: &str,
        (samples, room): (&dyn Samples, &mut u64),
        (store, name): (&Store, &str),
        progress: &dyn Progress,
    ) -> Result<Option<Arc<Rows>>, TuneError> {
        // Graphs that were rewritten before differ in their steps.
        let key = format!("{name} {key} {} {}", self.network.steps.len(), program.output);
        if let Some(rows) = store.get(&key) {
            *room = room.saturating_sub(rows.size_bytes());
            return Ok(Some(rows));
        }
        let rows = Rows::compute(&self.network, program, samples, *room, progress)?;
        Ok(rows.map(|(rows, bytes)| {
            *room -= bytes;
            store.put(key, rows)
        }))
    }

    /// What tells the frozen part from others of the same network: the tensors in it and what is read from it.
    fn frozen_digest(&self) -> String {
        let mut digest = Sha256::new();
        for (name, parameter) in self.parameters.tensors.iter().filter(|(_, parameter)| parameter.is_frozen) {
            digest.update(name.as_bytes());
            self.parameters.expand(parameter).iter().for_each(|value| digest.update(value.to_le_bytes()));
        }
        self.program.boundary().iter().for_each(|slot| digest.update(slot.to_le_bytes()));
        hex::encode(digest.finalize())
    }

    /// Trains on every sample once, in an order of its own.
    ///
    /// After each step `hook` gets the number of steps done, and may change what is trained: prune further, or give
    /// weights other symbols.
    ///
    /// # Errors
    /// [`TuneError::Diverged`]; those of samples, operators and `hook`; [`TuneError::Cancelled`]. The run is then in the
    /// middle of an epoch, and goes on from an earlier state only.
    pub fn epoch(
        &mut self,
        data: &Prepared<'_>,
        hook: &mut dyn FnMut(u64, &mut Parameters) -> Result<(), TuneError>,
        progress: &dyn Progress,
    ) -> Result<EpochStats, TuneError> {
        let order = shuffled(data.samples.len(), self.settings.seed, self.epoch);
        let steps = self.settings.epochs.saturating_mul(order.len().div_ceil(self.settings.batch) as u64);
        let (mut total, mut max_norm, mut seen) = (0.0, 0.0f64, 0);
        for batch in order.chunks(self.settings.batch) {
            progress.check()?;
            let (sums, gradients) = self.gradients(data, batch)?;
            let loss = sums.loss / batch.len() as f64;
            if !loss.is_finite() {
                return Err(TuneError::Diverged { step: self.step, loss });
            }
            let rate = self.settings.rate(self.step, steps);
            let norm = self.memory.step(&mut self.parameters, gradients, &self.settings, rate);
            self.step += 1;
            hook(self.step, &mut self.parameters)?;
            (total, max_norm, seen) = (total + sums.loss, max_norm.max(norm), seen + batch.len());
            let message = format!("loss {:.4}", total / seen as f64);
            progress.report(seen as f64 / order.len() as f64, "finetune", &message);
        }
        self.epoch += 1;
        let loss = total / order.len().max(1) as f64;
        Ok(EpochStats { epoch: self.epoch, loss, steps: self.step, max_gradient_norm: max_norm })
    }

    /// Measures the network as it is now.
    ///
    /// # Errors
    /// Those of samples and operators; [`TuneError::Cancelled`].
    pub fn evaluate(&self, data: &Prepared<'_>, progress: &dyn Progress) -> Result<Metrics, TuneError> {
        let weights: Vec<Tensor> = self.weights().into_iter().map(Tensor::Plain).collect();
        let indices: Vec<usize> = (0..data.samples.len()).collect();
        let (mut sums, mut has_targets) = (Sums::default(), true);
        for wave in indices.chunks(self.settings.micro_batch * WAVE) {
            progress.check()?;
            let parts: Vec<(Sums, bool)> = wave
                .par_chunks(self.settings.micro_batch)
                .map(|micro| {
                    guarded(|| self.forward(data, micro, &weights, (1.0, None)).map(|(_, sums, known)| (sums, known)))
                })
                .collect::<Result<_, _>>()?;
            for (part, known) in parts {
                sums = sums.plus(part);
                has_targets &= known;
            }
            progress.report((wave[wave.len() - 1] + 1) as f64 / indices.len() as f64, "finetune", "Validation");
        }
        let mean = |sum: f64| sum / indices.len().max(1) as f64;
        let quality = has_targets.then(|| mean(sums.quality));
        let is_class = self.settings.loss == Loss::CrossEntropy;
        Ok(Metrics {
            samples: indices.len(),
            loss: mean(sums.loss),
            accuracy: quality.filter(|_| is_class),
            mse: quality.filter(|_| !is_class),
        })
    }

    /// The trained tensors' numbers, in the program's order.
    fn weights(&self) -> Vec<FlexTensor> {
        let tensors = self.program.trained.par_iter().map(|(name, _)| {
            let parameter = &self.parameters.tensors[name];
            f32::tensor(&parameter.dims, self.parameters.expand(parameter))
        });
        tensors.collect()
    }

    /// The sums over a batch, and the gradients of its mean loss.
    pub(super) fn gradients(&self, data: &Prepared<'_>, batch: &[usize]) -> Result<(Sums, Gradients), TuneError> {
        let (weights, scale) = (self.weights(), 1.0 / batch.len() as f64);
        let mut sums = Sums::default();
        let mut gradients: Vec<Vec<f32>> = vec![Vec::new(); weights.len()];
        for wave in batch.chunks(self.settings.micro_batch * WAVE) {
            let parts: Vec<(Sums, Vec<Option<FlexTensor>>)> = wave
                .par_chunks(self.settings.micro_batch)
                .map(|micro| guarded(|| self.backward(data, micro, &weights, scale)))
                .collect::<Result<_, _>>()?;
            sums = parts.iter().fold(sums, |sums, (part, _)| sums.plus(*part));
            gradients.par_iter_mut().enumerate().for_each(|(place, total)| {
                for part in parts.iter().filter_map(|(_, part)| part[place].as_ref()) {
                    match total.is_empty() {
                        true => total.extend_from_slice(f32::view(part)),
                        false => total.iter_mut().zip(f32::view(part)).for_each(|(total, &part)| *total += part),
                    }
                }
            });
        }
        let named = self.program.trained.iter().zip(gradients).filter(|(_, gradient)| !gradient.is_empty());
        Ok((sums, named.map(|((name, _), gradient)| (name.clone(), gradient)).collect()))
    }

    /// The sums over a micro-batch, and the gradients of its loss times `scale`.
    fn backward(
        &self,
        data: &Prepared<'_>,
        micro: &[usize],
        weights: &[FlexTensor],
        scale: f64,
    ) -> Result<(Sums, Vec<Option<FlexTensor>>), TuneError> {
        let leaves: Vec<Tensor> = weights.iter().map(|weight| Tensor::leaf(weight.clone())).collect();
        // No two micro-batches of a step begin with the same sample.
        let draw = data.is_varied.then(|| self.step << 32 | micro[0] as u64 & u64::from(u32::MAX));
        let (root, sums, _) = self.forward(data, micro, &leaves, (scale, draw))?;
        let Tensor::Traced(root) = root else { return Err(TuneError::NothingToTrain) };
        let mut gradients = Tape::backward(root);
        let gradient = |leaf: Tensor| Tape::grad_remove(&leaf.traced(), &mut gradients).map(|g| g.to_contiguous());
        Ok((sums, leaves.into_iter().map(gradient).collect()))
    }

    /// The loss of a micro-batch times `scale`, the sums, and whether there were targets. With a number to draw by, its samples
    /// are changed as the settings say. Those that are mixed are compared with the teacher alone: with what the network's own
    /// tensors, in the place of the trained ones, make of them.
    fn forward(
        &self,
        data: &Prepared<'_>,
        micro: &[usize],
        weights: &[Tensor],
        (scale, draw): (f64, Option<u64>),
    ) -> Result<(Tensor, Sums, bool), TuneError> {
        let mut batch = data.samples.read(micro)?;
        if let (Some(augment), Some(number)) = (self.settings.augment, draw) {
            let image = |input: &str| data.samples.image(input);
            augment.apply(&mut batch, micro.len(), image, (self.settings.seed, number));
        }
        let target = cache::targets(&batch, micro.len())?;
        let boundary = match &data.frozen {
            Some(rows) => rows.take(micro),
            None => {
                let inputs = cache::bind(&self.network, &self.program, batch.clone(), micro.len())?;
                self.program.run_frozen(&self.network, inputs)?
            }
        };
        let mixes = self.settings.mixup && self.teacher.is_some();
        let seed = self.settings.seed;
        let mixed = draw.filter(|_| mixes).and_then(|number| mixup::mixed(&boundary, micro.len(), seed, number));
        if draw.is_some() && mixes && mixed.is_none() && micro.len() > 1 {
            let (setting, expected) = ("mixup", "float32 where the trained part begins");
            return Err(TuneError::Setting { setting, expected, found: "other numbers".to_owned() });
        }
        let target = target.filter(|_| mixed.is_none());
        let teacher = match (&self.teacher, &mixed, &data.teacher) {
            (None, ..) => None,
            (Some(_), Some(mixed), _) => Some(self.program.run_live(&self.network, mixed.clone(), &self.originals)?),
            (Some(_), None, Some(rows)) => rows.take(micro).pop(),
            (Some(program), None, None) => {
                let inputs = cache::bind(&self.network, program, batch, micro.len())?;
                program.run_frozen(&self.network, inputs)?.pop()
            }
        };
        let teacher = teacher.as_ref().map(cache::reals).transpose()?;
        let output = self.program.run_live(&self.network, mixed.unwrap_or(boundary), weights)?;
        let dims = output.dims();
        let Value::Float(output) = output else {
            return Err(TuneError::InputType { name: "the output".to_owned(), expected: "reals", found: "integers" });
        };
        if dims.first() != Some(&micro.len()) {
            return Err(TuneError::Rows { name: "the output".to_owned(), dims, samples: micro.len() });
        }
        let teacher = self.settings.teacher.zip(teacher.as_deref());
        let goal = Goal { loss: self.settings.loss, target: target.as_deref(), teacher };
        let (root, sums) = loss(&output, &goal, scale)?;
        Ok((root, sums, target.is_some()))
    }
}

impl Sums {
    fn plus(self, other: Self) -> Self {
        Self { loss: self.loss + other.loss, quality: self.quality + other.quality }
    }
}

/// The indices below `len` in an order that seed and epoch decide.
fn shuffled(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch);
    let mut order: Vec<usize> = (0..len).collect();
    for place in (1..len).rev() {
        // The high half of a product is uniform but for one part in 2^64 / len.
        let other = (u128::from(random.next_u64()) * (place as u128 + 1)) >> 64;
        order.swap(place, other as usize);
    }
    order
}
