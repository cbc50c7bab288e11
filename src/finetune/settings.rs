//! How a run trains: loss, optimiser, learning rate, batches.

use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::error::TuneError;

/// How a run trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is minimised.
    pub loss: Loss,
    /// Learning from the original network's outputs; none learns from targets alone.
    pub teacher: Option<Teacher>,
    /// Whether samples, as the frozen part gives them, are mixed in pairs, and the teacher alone learned from: for reals.
    pub mixup: bool,
    /// How images are changed each time that they are trained on.
    pub augment: Option<Augment>,
    pub optimizer: Optimizer,
    /// The learning rate at its highest, above 0.
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// Steps over which the learning rate rises from near 0.
    pub warmup_steps: u64,
    /// Epochs that [`Schedule::Cosine`] is spread over; more may be run, at its end.
    pub epochs: u64,
    /// Samples a step.
    pub batch: usize,
    /// Samples that one thread takes at a time. Sums are made of these in a fixed order, so results depend on this and
    /// not on the number of threads.
    pub micro_batch: usize,
    /// Adds this times the weights to their gradients, or with [`Optimizer::AdamW`] shrinks them by it; tensors of two
    /// or more dimensions and codebooks only.
    pub weight_decay: f64,
    /// Gradients of a larger norm, over all tensors, are scaled down to it.
    pub clip_norm: Option<f64>,
    /// Orders the samples.
    pub seed: u64,
    /// Bytes that outputs of the frozen part and of the teacher may take; what needs more is computed again each time.
    pub cache_bytes: u64,
}

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Targets are classes; outputs are logits, or their softmax.
    CrossEntropy,
    /// Targets are values; the mean over outputs of squared differences.
    Mse,
}

/// Learning from the outputs of the original network.
///
/// # Source
/// Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, section 2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Teacher {
    /// Of class outputs, by what logits are divided before they are compared; above 0.
    pub temperature: f64,
    /// The teacher's share of the loss, 0 to 1; the targets have the rest. Without targets, the teacher has all.
    pub weight: f64,
}

/// What becomes of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Gradient descent with momentum, Nesterov's where asked for.
    Sgd { momentum: f64, nesterov: bool },
    /// Kingma, Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980.
    Adam { beta1: f64, beta2: f64, epsilon: f64 },
    /// Loshchilov, Hutter, "Decoupled weight decay regularization", arXiv:1711.05101.
    AdamW { beta1: f64, beta2: f64, epsilon: f64 },
}

/// How the learning rate changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    Constant,
    /// Down to 0 over all epochs, along half a wave.
    Cosine,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            teacher: None,
            mixup: false,
            augment: None,
            optimizer: Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
            learning_rate: 1e-3,
            schedule: Schedule::Cosine,
            warmup_steps: 0,
            epochs: 10,
            batch: 128,
            micro_batch: 32,
            weight_decay: 0.0,
            clip_norm: None,
            seed: 0,
            cache_bytes: 1 << 30,
        }
    }
}

impl Settings {
    /// Checks every setting's range.
    pub(super) fn check(&self) -> Result<(), TuneError> {
        let check = |setting, is_good: bool, expected, found: &dyn std::fmt::Display| match is_good {
            true => Ok(()),
            false => Err(TuneError::Setting { setting, expected, found: found.to_string() }),
        };
        let positive = |value: f64| value > 0.0 && value.is_finite();
        check("learning_rate", positive(self.learning_rate), "above 0", &self.learning_rate)?;
        check("batch", (1..=1 << 20).contains(&self.batch), "1 to 1048576", &self.batch)?;
        check("micro_batch", (1..=1 << 20).contains(&self.micro_batch), "1 to 1048576", &self.micro_batch)?;
        check("epochs", self.epochs > 0, "at least 1", &self.epochs)?;
        let decay = self.weight_decay;
        check("weight_decay", decay >= 0.0 && decay.is_finite(), "0 or more", &decay)?;
        if let Some(norm) = self.clip_norm {
            check("clip_norm", positive(norm), "above 0", &norm)?;
        }
        if let Some(Teacher { temperature, weight }) = self.teacher {
            check("temperature", positive(temperature), "above 0", &temperature)?;
            check("weight", (0.0..=1.0).contains(&weight), "0 to 1", &weight)?;
        }
        let fraction = |value: f64| (0.0..1.0).contains(&value);
        match self.optimizer {
            Optimizer::Sgd { momentum, .. } => check("momentum", fraction(momentum), "0 to below 1", &momentum),
            Optimizer::Adam { beta1, beta2, epsilon } | Optimizer::AdamW { beta1, beta2, epsilon } => {
                check("beta1", fraction(beta1), "0 to below 1", &beta1)?;
                check("beta2", fraction(beta2), "0 to below 1", &beta2)?;
                check("epsilon", positive(epsilon), "above 0", &epsilon)
            }
        }
    }

    /// The learning rate of `step`, counted from 0, of `steps` in all.
    pub(super) fn rate(&self, step: u64, steps: u64) -> f64 {
        let rise = if step < self.warmup_steps { (step + 1) as f64 / self.warmup_steps as f64 } else { 1.0 };
        let fall = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let done = step.saturating_sub(self.warmup_steps) as f64
                    / steps.saturating_sub(self.warmup_steps).max(1) as f64;
                0.5 * (1.0 + libm::cos(std::f64::consts::PI * done.min(1.0)))
            }
        };
        self.learning_rate * rise * fall
    }
}

/// The sparsity of a gradual pruning at `step`: `from` up to step `begin`, `to` from step `end` on, and between them a cubic
/// that falls steeply first.
///
/// # Source
/// Zhu, Gupta, "To prune, or not to prune", arXiv:1710.01878, equation 1.
pub fn cubic_sparsity(step: u64, begin: u64, end: u64, from: f64, to: f64) -> f64 {
    if step >= end {
        return to;
    }
    let done = step.saturating_sub(begin) as f64 / end.saturating_sub(begin).max(1) as f64;
    to + (from - to) * (1.0 - done).powi(3)
}
