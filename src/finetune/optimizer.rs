//! Gradients made steps: of free tensors weight by weight, of codebooks symbol by symbol.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::parameters::{Parameters, Values};
use super::settings::{Optimizer, Settings};

/// Elements that one thread updates at a time; elements do not depend on each other.
const CHUNK: usize = 1 << 15;

/// What optimisers remember of the steps before, by what they move.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Memory(pub BTreeMap<Variable, Moments>);

/// What is moved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variable {
    /// A free tensor, by name.
    Tensor(String),
    /// A codebook, by number.
    Codebook(usize),
}

/// Running means of gradients.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Moments {
    /// Steps so far.
    pub steps: u64,
    /// Of gradients.
    pub first: Vec<f32>,
    /// Of their squares; empty where the optimiser needs none.
    pub second: Vec<f32>,
}

/// One variable's update in a step.
struct Update {
    variable: Variable,
    gradient: Vec<f32>,
    decay: f64,
}

impl Memory {
    /// Moves `parameters` against `gradients`, those of the loss by the trained tensors' numbers, by name. Zeros of masks
    /// and codebooks stay exactly zero. Returns the norm of the gradients.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: Vec<(String, Vec<f32>)>,
        settings: &Settings,
        rate: f64,
    ) -> f64 {
        let updates = updates(parameters, gradients, settings.weight_decay);
        let squares = |update: &Update| update.gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        let norm = updates.iter().map(squares).sum::<f64>().sqrt();
        let factor = settings.clip_norm.map_or(1.0, |clip| if norm > clip { clip / norm } else { 1.0 });
        for Update { variable, gradient, decay } in updates {
            let moments = self.0.entry(variable.clone()).or_default();
            if moments.first.len() != gradient.len() {
                *moments = Moments::new(gradient.len(), &settings.optimizer);
            }
            moments.steps += 1;
            let rule = Rule { optimizer: settings.optimizer, rate, decay, factor, steps: moments.steps };
            match &variable {
                Variable::Tensor(name) => {
                    let parameter = parameters.tensors.get_mut(name).map(|parameter| &mut parameter.values);
                    if let Some(Values::Free { values, mask }) = parameter {
                        rule.apply(values, &gradient, moments);
                        mask.iter().for_each(|mask| mask.zero_others(values));
                    }
                }
                Variable::Codebook(id) => {
                    let codebook = &mut parameters.codebooks[*id];
                    rule.apply(&mut codebook.values, &gradient, moments);
                    if let Some(zero) = codebook.zero {
                        codebook.values[usize::from(zero)] = 0.0;
                    }
                }
            }
        }
        norm
    }
}

/// Gradients by variables: of a codebook's value the sum over all weights that share it.
fn updates(parameters: &Parameters, gradients: Vec<(String, Vec<f32>)>, decay: f64) -> Vec<Update> {
    let mut updates = Vec::new();
    let mut codebooks: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (name, mut gradient) in gradients {
        let Some(parameter) = parameters.tensors.get(&name) else { continue };
        match &parameter.values {
            Values::Free { mask, .. } => {
                mask.iter().for_each(|mask| mask.zero_others(&mut gradient));
                let decay = if parameter.dims.len() > 1 { decay } else { 0.0 };
                updates.push(Update { variable: Variable::Tensor(name), gradient, decay });
            }
            Values::Shared { codebook, symbols } => {
                let values = parameters.codebooks[*codebook].values.len();
                let sums = codebooks.entry(*codebook).or_insert_with(|| vec![0.0; values]);
                for (&symbol, &gradient) in symbols.iter().zip(&gradient) {
                    sums[usize::from(symbol)] += f64::from(gradient);
                }
            }
        }
    }
    for (id, mut sums) in codebooks {
        if let Some(zero) = parameters.codebooks[id].zero {
            sums[usize::from(zero)] = 0.0;
        }
        let gradient = sums.into_iter().map(|sum| sum as f32).collect();
        updates.push(Update { variable: Variable::Codebook(id), gradient, decay });
    }
    updates
}

impl Moments {
    fn new(len: usize, optimizer: &Optimizer) -> Self {
        let second = if let Optimizer::Sgd { .. } = optimizer { 0 } else { len };
        Self { steps: 0, first: vec![0.0; len], second: vec![0.0; second] }
    }
}

/// `mean`, or zero where it is next to nothing: the means of weights that get no gradient would fade into numbers on which
/// arithmetic takes a hundred times longer.
fn settled(mean: f32) -> f32 {
    if mean.abs() < 1e-30 { 0.0 } else { mean }
}

/// How one variable moves in a step.
#[derive(Clone, Copy)]
struct Rule {
    optimizer: Optimizer,
    rate: f64,
    decay: f64,
    /// What gradients are multiplied by.
    factor: f64,
    /// Steps, this one included.
    steps: u64,
}

impl Rule {
    fn apply(self, values: &mut [f32], gradient: &[f32], moments: &mut Moments) {
        let first = moments.first.par_chunks_mut(CHUNK);
        let chunks = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(first);
        match self.optimizer {
            Optimizer::Sgd { momentum, nesterov } => {
                chunks.for_each(|((values, gradient), first)| self.descend(values, gradient, first, momentum, nesterov))
            }
            Optimizer::Adam { beta1, beta2, epsilon } => chunks
                .zip(moments.second.par_chunks_mut(CHUNK))
                .for_each(|(((v, g), m), s)| self.adapt([v, m, s], g, [beta1, beta2, epsilon], false)),
            Optimizer::AdamW { beta1, beta2, epsilon } => chunks
                .zip(moments.second.par_chunks_mut(CHUNK))
                .for_each(|(((v, g), m), s)| self.adapt([v, m, s], g, [beta1, beta2, epsilon], true)),
        }
    }

    fn descend(self, values: &mut [f32], gradient: &[f32], first: &mut [f32], momentum: f64, nesterov: bool) {
        let [rate, decay, factor, momentum] = [self.rate, self.decay, self.factor, momentum].map(|x| x as f32);
        for ((value, &gradient), velocity) in values.iter_mut().zip(gradient).zip(first) {
            let slope = gradient * factor + decay * *value;
            *velocity = settled(momentum * *velocity + slope);
            *value -= rate * if nesterov { slope + momentum * *velocity } else { *velocity };
        }
    }

    fn adapt(self, [values, first, second]: [&mut [f32]; 3], gradient: &[f32], betas: [f64; 3], decoupled: bool) {
        let [beta1, beta2, epsilon] = betas;
        let rise = |beta: f64| 1.0 - libm::pow(beta, self.steps as f64);
        let (size, scale) = ((self.rate / rise(beta1)) as f32, rise(beta2).sqrt().recip() as f32);
        let (shrink, decay) = match decoupled {
            true => ((1.0 - self.rate * self.decay) as f32, 0.0),
            false => (1.0, self.decay as f32),
        };
        let [beta1, beta2, epsilon, factor] = [beta1, beta2, epsilon, self.factor].map(|x| x as f32);
        for (((value, &gradient), first), second) in values.iter_mut().zip(gradient).zip(first).zip(second) {
            let slope = gradient * factor + decay * *value;
            *first = settled(*first + (1.0 - beta1) * (slope - *first));
            *second = settled(beta2 * *second + (1.0 - beta2) * slope * slope);
            *value = *value * shrink - size * *first / (second.sqrt() * scale + epsilon);
        }
    }
}
