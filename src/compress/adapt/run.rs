//! Epochs of one stage of fine-tuning, with checkpoints, the best epoch kept.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::{
    CompressError, EpochReport, Finetune, ImageChanges, LossKind, OptimizerKind, RateSchedule, TrainingStage,
};
use super::{TrainingData, tuned};
use crate::evaluate::{self, TargetKind};
use crate::finetune::{
    Augment, Batch, Image, Loss, Metrics, Network, Optimizer, Parameters, Samples, Schedule, Settings, Teacher,
    Trainer, TuneError,
};
use crate::infer::{Array, ArrayData};
use crate::model::{Model, ModelError, Port};
use crate::progress::{CancelOnly, Labelled, Part, Progress};
use crate::tensor::FloatData;

/// The graph of `model` as it is trained.
pub(super) fn network(model: &Model) -> Result<Network, CompressError> {
    let skeleton = model.skeleton().ok_or(TuneError::NoGraph)?;
    let tensors = stored_tensors(model)?;
    Ok(Network::new(skeleton, None, &|name| tensors.get(name).cloned())?)
}

/// Tensors whose elements are not in the graph, by name.
fn stored_tensors(model: &Model) -> Result<HashMap<String, Array>, CompressError> {
    let mut tensors = HashMap::new();
    for weight in model.weights() {
        let data = match model.read(weight)? {
            FloatData::F32(values) => ArrayData::F32(values),
            FloatData::F64(values) => ArrayData::F64(values),
        };
        tensors.insert(weight.name.clone(), Array { dims: weight.dims.clone(), data });
    }
    for kept in model.detached() {
        let datatype = crate::model::ElementType::from_name(&kept.dtype).and_then(|element| element.datatype);
        let Some(datatype) = datatype.and_then(|name| name.parse().ok()) else { continue };
        let bytes = model.read_detached(kept)?;
        let array = Array::from_le_bytes(datatype, kept.dims.clone(), &bytes);
        let array = array.map_err(|_| ModelError::UnknownTensor { name: kept.name.clone() })?;
        tensors.insert(kept.name.clone(), array);
    }
    Ok(tensors)
}

/// A selection of a dataset, as the trainer reads it.
struct Feed<'a>(&'a evaluate::Samples<'a>);

impl Samples for Feed<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read(&self, indices: &[usize]) -> Result<Batch, TuneError> {
        let batch = self.0.read(indices).map_err(|error| TuneError::Samples(Box::new(error)))?;
        Ok(Batch { inputs: batch.inputs, target: batch.target })
    }

    fn image(&self, input: &str) -> Option<Image> {
        self.0.dims(input)?.into_iter().find_map(Image::of)
    }
}

/// One stage of fine-tuning.
pub(super) struct Stage<'a> {
    pub kind: TrainingStage,
    pub model: &'a Model,
    pub finetune: &'a Finetune,
    pub data: &'a TrainingData<'a>,
    pub seed: u64,
    /// Passes over the training split.
    pub epochs: u32,
    /// Highest step size.
    pub rate: f64,
    /// Epochs from the start that cannot be the best, since the network is still to be pruned further.
    pub unfinished: f64,
}

/// What is done to the parameters along the way.
pub(super) struct Hooks<'a> {
    /// After a step, of which there are so many in the unfinished epochs.
    pub step: &'a mut dyn FnMut(u64, u64, &mut Parameters) -> Result<(), TuneError>,
    /// Between epochs.
    pub epoch: &'a mut dyn FnMut(&mut Parameters) -> Result<(), TuneError>,
}

/// What a checkpoint holds besides the state of the trainer.
#[derive(Default, Serialize, Deserialize)]
struct Progressed {
    history: Vec<EpochReport>,
    /// The state before the first epoch, where it may be the best.
    #[serde(default)]
    start: Option<EpochReport>,
    /// The epoch whose state is the best; 0 is the state before the first.
    best: Option<u64>,
}

impl Progressed {
    /// Whether the last epoch is better than the best before: by the metric where there are targets, else by the loss. Without
    /// a validation split, every epoch is.
    fn is_better(&self) -> bool {
        let (Some(last), Some(best)) = (self.history.last(), self.best) else { return true };
        let Some(best) = self.start.iter().chain(&self.history).find(|epoch| epoch.epoch == best) else { return true };
        match (last.accuracy, best.accuracy, last.mse.or(last.validation_loss), best.mse.or(best.validation_loss)) {
            (Some(last), Some(best), ..) => last > best,
            (_, _, Some(last), Some(best)) => last < best,
            _ => true,
        }
    }
}

impl Stage<'_> {
    /// Trains, and returns the parameters of the best epoch on the validation split, or the last without one.
    pub(super) fn run(
        &self,
        parameters: Parameters,
        hooks: Hooks,
        progress: &dyn Progress,
    ) -> Result<(Parameters, Vec<EpochReport>), CompressError> {
        let settings = self.settings()?;
        let steps = self.data.train.len().div_ceil(settings.batch) as f64;
        let unfinished = (self.unfinished * f64::from(self.epochs) * steps).ceil() as u64;
        let (mut trainer, mut passed, mut best) = match self.resume(&settings)? {
            Some(resumed) => resumed,
            None => {
                let trainer = Trainer::new(network(self.model)?, parameters, settings.clone())?;
                (trainer, Progressed::default(), Vec::new())
            }
        };
        let (train, validation) = (Feed(&self.data.train), self.data.validation.as_ref().map(Feed));
        let (from, prepared) = (0.1 / f64::from(self.epochs + 1), Part { whole: progress, from: 0.0, to: 0.0 });
        let train = match self.finetune.mixup || self.finetune.augment.is_some() {
            true => trainer.prepare_varied(&train, (&self.data.store.rows, "train"), &prepared)?,
            false => trainer.prepare(&train, (&self.data.store.rows, "train"), &prepared)?,
        };
        let validation = validation.as_ref();
        let validation =
            validation.map(|samples| trainer.prepare(samples, (&self.data.store.rows, "validation"), &prepared));
        let validation = validation.transpose()?;
        if let (Some(samples), 0, 0) = (&validation, unfinished, trainer.epochs()) {
            // Training may make it worse.
            let metrics = trainer.evaluate(samples, &CancelOnly(progress))?;
            if metrics.loss.is_finite() {
                passed.start = Some(self.report(0, metrics.loss, Some(&metrics), trainer.parameters()));
                (passed.best, best) = (Some(0), trainer.state());
            }
        }
        let Hooks { step, epoch: between } = hooks;
        while trainer.epochs() < u64::from(self.epochs) && !self.has_stalled(&passed) {
            let done = trainer.epochs() as f64 / f64::from(self.epochs);
            let to = (trainer.epochs() + 1) as f64 / f64::from(self.epochs);
            let part = Part { whole: progress, from: from.max(done), to };
            let told = Labelled { progress: &part, label: self.describe(trainer.epochs() + 1, &passed.history) };
            let stats = trainer.epoch(&train, &mut |done, parameters| step(done, unfinished, parameters), &told)?;
            let metrics =
                validation.as_ref().map(|samples| trainer.evaluate(samples, &CancelOnly(progress))).transpose()?;
            passed.history.push(self.report(stats.epoch, stats.loss, metrics.as_ref(), trainer.parameters()));
            if stats.steps >= unfinished && passed.is_better() {
                passed.best = Some(stats.epoch);
                best = trainer.state();
            }
            if trainer.epochs() < u64::from(self.epochs) {
                trainer.change(|parameters| between(parameters))?;
            }
            self.save(&trainer, &passed, &best)?;
        }
        if passed.best.is_some() {
            trainer = Trainer::resume(network(self.model)?, settings, &best)?;
        }
        Ok((trainer.parameters().clone(), passed.history))
    }

    fn settings(&self) -> Result<Settings, CompressError> {
        let Finetune { optimizer, schedule, loss, label_weight, temperature, .. } = *self.finetune;
        let momentum = Optimizer::Sgd { momentum: 0.9, nesterov: true };
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        let target = self.data.train.target();
        let teacher = Teacher { temperature, weight: if target.is_some() { 1.0 - label_weight } else { 1.0 } };
        // Mixed samples have no targets of their own.
        let loss = loss.or(self.finetune.mixup.then_some(LossKind::Distillation));
        let (loss, teacher) = match (loss, target) {
            (Some(LossKind::CrossEntropy), Some(TargetKind::Class)) => (Loss::CrossEntropy, None),
            (Some(LossKind::Mse), Some(TargetKind::Value)) | (None, Some(TargetKind::Value)) => (Loss::Mse, None),
            (None | Some(LossKind::Distillation), Some(TargetKind::Class)) => (Loss::CrossEntropy, Some(teacher)),
            (Some(LossKind::Distillation), Some(TargetKind::Value)) => (Loss::Mse, Some(teacher)),
            (None | Some(LossKind::Distillation), None) if network(self.model)?.ends_in_softmax() => {
                (Loss::CrossEntropy, Some(teacher))
            }
            (None | Some(LossKind::Distillation), None) => (Loss::Mse, Some(teacher)),
            (Some(wanted), found) => return Err(CompressError::LossNeeds { wanted, found }),
        };
        if self.finetune.mixup && teacher.is_none() {
            return Err(CompressError::MixupNeedsTeacher);
        }
        let fixed = self.model.inputs().iter().find_map(|input| input.dims.first().copied().flatten());
        if let Some(batch) = fixed.filter(|batch| *batch != 1) {
            return Err(CompressError::FixedBatch { batch });
        }
        if self.finetune.mixup && fixed.is_some() {
            let (setting, expected) = ("mixup", "a graph that takes any number of samples");
            return Err(TuneError::Setting { setting, expected, found: "one at a time".to_owned() }.into());
        }
        let feed = Feed(&self.data.train);
        let is_image = |port: &Port| port.datatype == "FP32" && feed.image(&port.name).is_some();
        if self.finetune.augment.is_some() && !self.model.inputs().iter().any(is_image) {
            return Err(CompressError::NoImages);
        }
        Ok(Settings {
            loss,
            teacher,
            mixup: self.finetune.mixup,
            augment: self.finetune.augment.map(|ImageChanges { shift, flip }| Augment { shift, flip }),
            optimizer: match optimizer {
                OptimizerKind::Sgd => momentum,
                OptimizerKind::Adam => Optimizer::Adam { beta1, beta2, epsilon },
                OptimizerKind::AdamW => Optimizer::AdamW { beta1, beta2, epsilon },
            },
            learning_rate: self.rate,
            schedule: match schedule {
                RateSchedule::Cosine => Schedule::Cosine,
                RateSchedule::Constant => Schedule::Constant,
            },
            epochs: u64::from(self.epochs),
            batch: self.finetune.batch as usize,
            micro_batch: if fixed.is_some() { 1 } else { Settings::default().micro_batch },
            weight_decay: self.finetune.weight_decay,
            seed: self.seed,
            ..Settings::default()
        })
    }

    /// Whether the last epochs brought nothing.
    fn has_stalled(&self, passed: &Progressed) -> bool {
        let (Some(patience), Some(best)) = (self.finetune.patience, passed.best) else { return false };
        passed.history.len() as u64 - best >= u64::from(patience)
    }

    fn report(&self, epoch: u64, loss: f64, metrics: Option<&Metrics>, parameters: &Parameters) -> EpochReport {
        let (mut zeros, mut weights) = (0usize, 0usize);
        for weight in self.model.weights() {
            let values = parameters.dense(&weight.name).unwrap_or_default();
            zeros += values.iter().filter(|value| **value == 0.0).count();
            weights += values.len();
        }
        EpochReport {
            stage: self.kind,
            epoch,
            loss,
            validation_loss: metrics.map(|metrics| metrics.loss),
            accuracy: metrics.and_then(|metrics| metrics.accuracy),
            mse: metrics.and_then(|metrics| metrics.mse),
            sparsity: zeros as f64 / weights.max(1) as f64,
        }
    }

    /// What people read while an epoch runs.
    fn describe(&self, epoch: u64, history: &[EpochReport]) -> String {
        let last = history.last().and_then(|last| {
            let accuracy = last.accuracy.map(|value| format!(", validation accuracy {value:.4}"));
            accuracy.or_else(|| last.mse.map(|value| format!(", validation MSE {value:.4}")))
        });
        format!("epoch {epoch} of {}{}", self.epochs, last.unwrap_or_default())
    }

    /// The name of the checkpoint.
    fn file(&self) -> String {
        format!("{}.checkpoint", self.kind.name())
    }

    /// Three parts, each behind its length: what was passed as JSON, the trainer's state, the best state.
    fn save(&self, trainer: &Trainer, passed: &Progressed, best: &[u8]) -> Result<(), CompressError> {
        let Some(folder) = &self.data.folder else { return Ok(()) };
        let passed = serde_json::to_vec(passed).map_err(std::io::Error::from).map_err(ModelError::from)?;
        let mut bytes = Vec::new();
        for part in [&passed[..], &trainer.state(), best] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        Ok(tuned::save_checkpoint(folder, &self.file(), &bytes).map_err(ModelError::from)?)
    }

    /// The trainer of a checkpoint, what it had passed and its best state; `None` where there is none. One that is damaged is
    /// passed over: the stage begins anew.
    fn resume(&self, settings: &Settings) -> Result<Option<(Trainer, Progressed, Vec<u8>)>, CompressError> {
        let Some(folder) = &self.data.folder else { return Ok(None) };
        let Some(bytes) = tuned::load_checkpoint(folder, &self.file()).map_err(ModelError::from)? else {
            return Ok(None);
        };
        let network = network(self.model)?;
        let resumed = parts(&bytes).and_then(|[passed, state, best]| {
            let passed: Progressed = serde_json::from_slice(passed).ok()?;
            let trainer = Trainer::resume(network, settings.clone(), state).ok()?;
            Some((trainer, passed, best.to_vec()))
        });
        if resumed.is_none() {
            tracing::warn!(folder = %folder.display(), "a damaged checkpoint is passed over");
        }
        Ok(resumed)
    }
}

/// The parts of a checkpoint.
fn parts(mut bytes: &[u8]) -> Option<[&[u8]; 3]> {
    let mut parts = [&bytes[..0]; 3];
    for part in &mut parts {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        (*part, bytes) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    }
    Some(parts)
}

/// Where checkpoints of `folder` are removed that are no longer needed.
pub(super) fn forget(folder: Option<&Path>) {
    for kind in [TrainingStage::Pruned, TrainingStage::Shared] {
        if let Some(folder) = folder {
            // What cannot be removed goes with the folder.
            let _ = std::fs::remove_file(folder.join(format!("{}.checkpoint", kind.name())));
        }
    }
}
