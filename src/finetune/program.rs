//! A network split by what is trained: constants, a frozen part whose outputs stay the same for a sample, and the rest.

use std::collections::BTreeSet;

use super::error::TuneError;
use super::network::Network;
use super::operator::Kind;
use super::parameters::Parameters;
use super::scalar::Scalar;
use super::value::{Tensor, Value};

/// The steps that lead to one output.
#[derive(Debug)]
pub(super) struct Program {
    /// What does not depend on samples or trained tensors, by slot.
    base: Vec<Option<Value>>,
    /// The trained tensors and their slots, in the order of their names.
    pub trained: Vec<(String, usize)>,
    /// The graph's inputs that are read.
    inputs: Vec<(String, usize)>,
    /// Steps that depend on samples alone.
    frozen: Line,
    /// Steps that depend on trained tensors.
    live: Line,
    /// Slots that the live steps read from samples: outputs of frozen steps and inputs of the graph.
    boundary: Vec<usize>,
    /// The slot of the output.
    pub output: usize,
}

/// Steps in the order in which they run, each with the slots that nothing reads behind it.
#[derive(Debug, Default)]
struct Line(Vec<(usize, Vec<usize>)>);

/// What a slot depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Constant,
    Sample,
    Trained,
}

impl Program {
    /// Plans the way to `output`. Steps on constants and frozen tensors alone run here.
    ///
    /// # Errors
    /// [`TuneError::Node`] from those; [`TuneError::NothingToTrain`] where `parameters` has trained tensors and none of
    /// them leads to the output.
    pub fn new(network: &Network, parameters: &Parameters, output: usize) -> Result<Self, TuneError> {
        let mut base = network.constants.clone();
        let mut sources = vec![Source::Constant; base.len()];
        network.inputs.iter().for_each(|&(_, slot)| sources[slot] = Source::Sample);
        for (name, parameter) in &parameters.tensors {
            let slot = network.trainable[name];
            if parameter.is_frozen {
                let tensor = f32::tensor(&parameter.dims, parameters.expand(parameter));
                base[slot] = Some(network.in_own_type(Value::Float(Tensor::Plain(tensor))));
            } else {
                (base[slot], sources[slot]) = (None, Source::Trained);
            }
        }
        let (mut frozen, mut live) = (BTreeSet::new(), BTreeSet::new());
        for index in needed(network, output) {
            let step = &network.steps[index];
            let source = step.inputs.iter().flatten().map(|&slot| sources[slot]).max().unwrap_or(Source::Constant);
            step.outputs.iter().flatten().for_each(|&slot| sources[slot] = source);
            match source {
                Source::Constant => network.run(step, &mut base)?,
                Source::Sample => drop(frozen.insert(index)),
                Source::Trained => drop(live.insert(index)),
            }
        }
        let boundary = boundary(network, &sources, &mut live, output);
        let frozen_needed = needed_for(network, &frozen, &boundary);
        let reads = |slot: &usize| {
            boundary.contains(slot)
                || frozen_needed.iter().any(|&index| network.steps[index].inputs.contains(&Some(*slot)))
        };
        let inputs = network.inputs.iter().filter(|(_, slot)| reads(slot)).cloned().collect();
        let trained = parameters.tensors.iter().filter(|(_, parameter)| !parameter.is_frozen);
        let trained: Vec<_> = trained.map(|(name, _)| (name.clone(), network.trainable[name])).collect();
        if !trained.is_empty() && live.is_empty() {
            return Err(TuneError::NothingToTrain);
        }
        let kept: BTreeSet<usize> = boundary.iter().copied().chain([output]).collect();
        let line = |steps: &BTreeSet<usize>| Line::new(network, steps, &kept);
        Ok(Self { base, trained, inputs, frozen: line(&frozen_needed), live: line(&live), boundary, output })
    }

    /// Whether a part of the work is the same each time a sample is seen.
    pub fn has_frozen_part(&self) -> bool {
        !self.frozen.0.is_empty()
    }

    /// The slots that the live steps read from samples.
    pub fn boundary(&self) -> &[usize] {
        &self.boundary
    }

    /// The inputs of the graph that the program reads, by name.
    pub fn inputs(&self) -> &[(String, usize)] {
        &self.inputs
    }

    /// Runs the frozen steps on the values of the inputs, in the order of [`Program::inputs`], and returns what the live
    /// ones read.
    pub fn run_frozen(&self, network: &Network, inputs: Vec<Value>) -> Result<Vec<Value>, TuneError> {
        let mut values = self.base.clone();
        for ((_, slot), value) in self.inputs.iter().zip(inputs) {
            values[*slot] = Some(network.in_own_type(value));
        }
        self.frozen.run(network, &mut values)?;
        Ok(self.boundary.iter().filter_map(|&slot| values[slot].clone()).collect())
    }

    /// Runs the live steps on what [`Program::run_frozen`] returned and the trained tensors, in the order of
    /// [`Program::trained`].
    pub fn run_live(&self, network: &Network, boundary: Vec<Value>, trained: &[Tensor]) -> Result<Value, TuneError> {
        let mut values = self.base.clone();
        for (&slot, value) in self.boundary.iter().zip(boundary) {
            values[slot] = Some(network.in_own_type(value));
        }
        for ((_, slot), tensor) in self.trained.iter().zip(trained) {
            values[*slot] = Some(Value::Float(tensor.clone()));
        }
        self.live.run(network, &mut values)?;
        values[self.output].take().ok_or(TuneError::NothingToTrain)
    }
}

impl Line {
    fn new(network: &Network, steps: &BTreeSet<usize>, kept: &BTreeSet<usize>) -> Self {
        let mut seen = kept.clone();
        let mut line: Vec<(usize, Vec<usize>)> = Vec::with_capacity(steps.len());
        for &index in steps.iter().rev() {
            let step = &network.steps[index];
            let slots = step.inputs.iter().chain(&step.outputs).flatten();
            line.push((index, slots.copied().filter(|&slot| seen.insert(slot)).collect()));
        }
        line.reverse();
        Self(line)
    }

    fn run(&self, network: &Network, values: &mut [Option<Value>]) -> Result<(), TuneError> {
        for (index, dead) in &self.0 {
            network.run(&network.steps[*index], values)?;
            dead.iter().for_each(|&slot| values[slot] = None);
        }
        Ok(())
    }
}

/// The steps that lead to `output`, in the order in which they run.
fn needed(network: &Network, output: usize) -> Vec<usize> {
    needed_for(network, &(0..network.steps.len()).collect(), &[output]).into_iter().collect()
}

/// Those of `steps` that lead to `slots`.
fn needed_for(network: &Network, steps: &BTreeSet<usize>, slots: &[usize]) -> BTreeSet<usize> {
    let mut wanted: BTreeSet<usize> = slots.iter().copied().collect();
    let mut needed = BTreeSet::new();
    for &index in steps.iter().rev() {
        let step = &network.steps[index];
        if step.outputs.iter().flatten().any(|slot| wanted.contains(slot)) {
            wanted.extend(step.inputs.iter().flatten());
            needed.insert(index);
        }
    }
    needed
}

/// The slots that `live` steps read from samples, and `output` where that is one.
///
/// Integers that steps compute are no rows of a batch (they may be its very size), so such steps become live.
fn boundary(network: &Network, sources: &[Source], live: &mut BTreeSet<usize>, output: usize) -> Vec<usize> {
    let mut boundary = BTreeSet::new();
    let mut open: Vec<usize> =
        live.iter().flat_map(|&index| network.steps[index].inputs.iter().flatten()).copied().collect();
    open.push(output);
    while let Some(slot) = open.pop() {
        if sources[slot] != Source::Sample {
            continue;
        }
        let maker = network.steps.iter().position(|step| step.outputs.contains(&Some(slot)));
        match maker.filter(|_| network.kinds[slot] == Kind::Int && slot != output) {
            Some(index) => {
                if live.insert(index) {
                    open.extend(network.steps[index].inputs.iter().flatten());
                }
            }
            None => drop(boundary.insert(slot)),
        }
    }
    boundary.into_iter().collect()
}
