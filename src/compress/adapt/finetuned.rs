//! A network trained after pruning, then after sharing.

use std::collections::HashMap;

use super::gradual::Gradual;
use super::run::{self, Hooks, Stage};
use super::shared::{Codebooks, against, reassign};
use super::tuned::{self, TensorValues};
use super::{Adapted, TrainingData, calibrated};
use crate::compress::layer::{self, Task};
use crate::compress::meter::Meter;
use crate::compress::pipeline::Job;
use crate::compress::{CompressError, Finetune, Recipe, TrainingStage, joint};
use crate::finetune::{Network, Parameter, Parameters, TuneError, Values};
use crate::model::{ElementType, Model, ModelError};
use crate::progress::{Part, Progress};
use crate::prune::Mask;
use crate::tensor::{FloatData, FloatType};

/// Prunes, trains, shares and trains again, as `recipe` says.
pub(super) fn finetune(
    job: &Job<'_>,
    settings: &Finetune,
    tasks: &mut [Task],
    data: &TrainingData,
    progress: &dyn Progress,
) -> Result<Adapted, CompressError> {
    let Job { model, recipe, .. } = *job;
    let network = run::network(model)?;
    let mut parameters = starting(&network, data)?;
    let pruned = pruned_at_once(tasks, &parameters)?;
    freeze(&network, model, recipe, settings, &mut parameters);
    prune_frozen(tasks, &pruned, &mut parameters);
    let (epochs, sharing_epochs) = (f64::from(settings.epochs), f64::from(settings.sharing_epochs));
    let turn = epochs / (epochs + sharing_epochs).max(1.0);

    let stage = |kind, epochs, rate, unfinished| Stage {
        kind,
        model,
        finetune: settings,
        data,
        seed: recipe.seed(),
        epochs,
        rate,
        unfinished,
    };
    let (mut training, mut notes) = (Vec::new(), Vec::new());
    let mut calibration = None;
    if tasks.iter().any(|task| task.settings.prune.is_some_and(|prune| prune.criterion.needs_data())) {
        let part = Part { whole: progress, from: 0.0, to: 0.0 };
        let adapted = prune_calibrated(job, tasks, data, &mut parameters, &part)?;
        (calibration, notes) = (adapted.calibration, adapted.notes);
    }
    {
        let pruning = Gradual::new(tasks, &parameters);
        let gradual = if pruning.is_empty() || settings.epochs == 0 { 0.0 } else { settings.gradual };
        if gradual == 0.0 {
            pruning.finish(&mut parameters)?;
        }
        if settings.epochs > 0 {
            let part = Part { whole: progress, from: 0.0, to: turn };
            let pruned = stage(TrainingStage::Pruned, settings.epochs, settings.pruning_rate(), gradual);
            let hooks = Hooks {
                step: &mut |step, steps, parameters| pruning.advance(step, steps, parameters),
                epoch: &mut |_| Ok(()),
            };
            (parameters, training) = pruned.run(parameters, hooks, &part)?;
        }
    }
    let tuned = values(&parameters);
    if let Some(folder) = &data.folder {
        tuned::save(folder, &tuned).map_err(ModelError::from)?;
    }
    let model_tuned = changed(model, &tuned)?;
    // What was pruned is zero by now, and stays zero.
    tasks.iter_mut().for_each(|task| task.settings.prune = None);

    let quiet = Part { whole: progress, from: turn, to: turn };
    let shared = share(job, model_tuned, tasks, data, &quiet)?;
    if shared.calibration.is_some() {
        take_biases(&shared.model, &mut parameters)?;
    }
    notes.extend(shared.notes);
    // Where both looked at the inputs, what pruning chose says more.
    let calibration = calibration.or(shared.calibration);
    let (mut layers, mut model_shared) = (shared.layers, shared.model);
    if settings.sharing_epochs > 0 {
        let dense = parameters.clone();
        let codebooks = Codebooks::share(&layers, tasks, &mut parameters, |task| task.settings.quantize.is_some());
        if !codebooks.is_empty() {
            let part = Part { whole: progress, from: turn, to: 1.0 };
            let shared = stage(TrainingStage::Shared, settings.sharing_epochs, settings.sharing_rate(), 0.0);
            let hooks = Hooks {
                step: &mut |_, _, _| Ok(()),
                epoch: &mut |parameters| if settings.reassign { reassign(parameters, &dense) } else { Ok(()) },
            };
            let (trained, history) = shared.run(parameters, hooks, &part)?;
            training.extend(history);
            layers = codebooks.layers(layers, tasks, &trained)?;
            model_shared = changed(model, &values(&trained))?;
        }
    }
    let layers = against(model, tasks, layers)?;
    run::forget(data.folder.as_deref());
    Ok(Adapted { model: model_shared, layers, training, calibration, notes })
}

/// How much of the progress is the calibration, where it goes before the training of shared values.
const CALIBRATION_SHARE: f64 = 0.1;

/// Calibrates to the settings that were chosen for a size, and trains the values that the grids left, and the biases.
pub(super) fn tune(
    job: &Job<'_>,
    settings: &Finetune,
    tasks: &mut [Task],
    data: &TrainingData,
    progress: &dyn Progress,
) -> Result<Adapted, CompressError> {
    let part = Part { whole: progress, from: 0.0, to: CALIBRATION_SHARE };
    let adapted = calibrated::calibrate(job, tasks, data, &part)?;
    if settings.sharing_epochs == 0 {
        return Ok(adapted);
    }
    let Adapted { model, layers, calibration, notes, .. } = adapted;
    let network = run::network(job.model)?;
    let mut parameters = Parameters::of(&network);
    take_biases(&model, &mut parameters)?;
    for (layer, task) in layers.iter().zip(tasks.iter()) {
        let values = layer.tensor(task);
        let mask = Some(Mask::of(&values));
        parameters.set(&task.weight.name, Values::Free { values, mask })?;
    }
    freeze(&network, job.model, job.recipe, settings, &mut parameters);
    let codebooks = Codebooks::share(&layers, tasks, &mut parameters, |_| true);
    let stage = Stage {
        kind: TrainingStage::Shared,
        model: job.model,
        finetune: settings,
        data,
        seed: job.recipe.seed(),
        epochs: settings.sharing_epochs,
        rate: settings.sharing_rate(),
        unfinished: 0.0,
    };
    let hooks = Hooks { step: &mut |_, _, _| Ok(()), epoch: &mut |_| Ok(()) };
    let part = Part { whole: progress, from: CALIBRATION_SHARE, to: 1.0 };
    let (trained, training) = stage.run(parameters, hooks, &part)?;
    let layers = codebooks.layers(layers, tasks, &trained)?;
    let layers = against(job.model, tasks, layers)?;
    let model = changed(&model, &values(&trained))?;
    run::forget(data.folder.as_deref());
    Ok(Adapted { model, layers, training, calibration, notes })
}

/// Prunes by a criterion that looks at a layer's inputs, which leaves nothing more to prune.
fn prune_calibrated(
    job: &Job<'_>,
    tasks: &mut [Task],
    data: &TrainingData,
    parameters: &mut Parameters,
    progress: &dyn Progress,
) -> Result<Adapted, CompressError> {
    let start = changed(job.model, &values(parameters))?;
    let quantize: Vec<_> = tasks.iter_mut().map(|task| task.settings.quantize.take()).collect();
    let adapted = calibrated::calibrate(&Job { model: &start, ..*job }, tasks, data, progress)?;
    for ((task, layer), quantize) in tasks.iter_mut().zip(&adapted.layers).zip(quantize) {
        task.settings.quantize = quantize;
        task.settings.prune = None;
        let (name, values) = (&task.weight.name, layer.tensor(task));
        let mask = Some(Mask::of(&values));
        if parameters.get(name).is_some_and(|parameter| !parameter.is_frozen) {
            parameters.set(name, Values::Free { values, mask })?;
        }
    }
    take_biases(&adapted.model, parameters)?;
    Ok(adapted)
}

/// Shares the weights of `model`, whose pruned weights are zero. Calibrated, biases take up what that changes.
fn share(
    job: &Job<'_>,
    model: Model,
    tasks: &mut [Task],
    data: &TrainingData,
    progress: &dyn Progress,
) -> Result<Adapted, CompressError> {
    if tasks.iter().any(|task| task.settings.quantize.is_some_and(|quantize| quantize.needs_data())) {
        return calibrated::calibrate(&Job { model: &model, ..*job }, tasks, data, progress);
    }
    let meter = Meter::new(progress, tasks.iter().map(|task| task.shaping_work() + joint::codebook_work(task)).sum());
    joint::fit_codebooks(&model, tasks, &HashMap::new(), &meter)?;
    let layers = tasks.iter().map(|task| layer::prepare(&model, task, &meter)).collect::<Result<_, _>>()?;
    Ok(Adapted { model, layers, training: Vec::new(), notes: Vec::new(), calibration: None })
}

/// The values of `model`'s kept tensors, for those that are trained.
fn take_biases(model: &Model, parameters: &mut Parameters) -> Result<(), CompressError> {
    let network = run::network(model)?;
    for kept in model.kept() {
        if parameters.get(&kept.name).is_some_and(|parameter| !parameter.is_frozen) {
            let values = network.values(&kept.name)?;
            parameters.set(&kept.name, Values::Free { values, mask: None })?;
        }
    }
    Ok(())
}

/// The parameters with every layer pruned as far as the recipe says, by magnitude.
fn pruned_at_once(tasks: &[Task], parameters: &Parameters) -> Result<Parameters, CompressError> {
    let mut pruned = parameters.clone();
    Gradual::new(tasks, &pruned).finish(&mut pruned)?;
    Ok(pruned)
}

/// Prunes the layers that are not trained, which nothing else does.
fn prune_frozen(tasks: &[Task], pruned: &Parameters, parameters: &mut Parameters) {
    for name in tasks.iter().map(|task| &task.weight.name) {
        if let (Some(own), Some(pruned)) = (parameters.get(name).cloned(), pruned.get(name))
            && own.is_frozen
        {
            parameters.insert(name, Parameter { values: pruned.values.clone(), ..own });
        }
    }
}

/// The parameters of the upload, or of an earlier compression.
fn starting(network: &Network, data: &TrainingData) -> Result<Parameters, CompressError> {
    let mut parameters = Parameters::of(network);
    let Some(file) = &data.start else { return Ok(parameters) };
    for (name, (_, values)) in tuned::load(file).map_err(ModelError::from)? {
        parameters.set(&name, Values::Free { values, mask: None })?;
    }
    Ok(parameters)
}

/// Freezes what the recipe freezes or skips, and in front of the first weight that is trained all else; gives every weight
/// that has zeros a mask, so that they stay.
fn freeze(network: &Network, model: &Model, recipe: &Recipe, settings: &Finetune, parameters: &mut Parameters) {
    let is_fixed = |name: &str, op: &str| settings.freezes(name) || recipe.resolve(name, op).skip;
    let mut frozen: Vec<String> = Vec::new();
    let mut first = usize::MAX;
    for weight in model.weights() {
        match is_fixed(&weight.name, &weight.op) {
            true => frozen.push(weight.name.clone()),
            false => first = first.min(network.first_reader(&weight.name).unwrap_or(usize::MAX)),
        }
    }
    let weights: Vec<&str> = model.weights().iter().map(|weight| weight.name.as_str()).collect();
    let any_frozen = !frozen.is_empty();
    let tensors: Vec<(String, Parameter)> = parameters.tensors().map(|(n, p)| (n.to_owned(), p.clone())).collect();
    for (name, parameter) in tensors {
        let is_weight = weights.contains(&name.as_str());
        let is_upstream = any_frozen && !is_weight && network.first_reader(&name).is_some_and(|reader| reader < first);
        let is_frozen = frozen.contains(&name) || is_upstream || !is_weight && is_fixed(&name, "");
        let values = match parameter.values {
            Values::Free { values, mask: None } if is_weight && values.contains(&0.0) => {
                let mask = Some(Mask::of(&values));
                Values::Free { values, mask }
            }
            values => values,
        };
        parameters.insert(&name, Parameter { values, is_frozen, ..parameter });
    }
}

/// Every tensor that was trained or pruned, as the network computes with it.
fn values(parameters: &Parameters) -> TensorValues {
    let is_changed =
        |parameter: &Parameter| !parameter.is_frozen || matches!(parameter.values, Values::Free { mask: Some(_), .. });
    let changed = parameters.tensors().filter(|(_, parameter)| is_changed(parameter));
    let values = changed
        .filter_map(|(name, parameter)| Some((name.to_owned(), (parameter.dims.clone(), parameters.dense(name)?))));
    values.collect()
}

/// `model` with these values.
fn changed(model: &Model, tensors: &TensorValues) -> Result<Model, CompressError> {
    let weights = model.weights().iter().map(|weight| (weight.name.as_str(), weight.dtype));
    let kept = model.kept().iter();
    let kept = kept.filter_map(|kept| Some((kept.name.as_str(), ElementType::from_name(&kept.dtype)?.float()?)));
    let types: HashMap<&str, FloatType> = kept.chain(weights).collect();
    let mut bytes = HashMap::new();
    for (name, (_, values)) in tensors {
        let dtype = *types.get(name.as_str()).ok_or_else(|| TuneError::UnknownParameter { name: name.clone() })?;
        let data = match dtype {
            FloatType::F64 => FloatData::F64(values.iter().map(|value| f64::from(*value)).collect()),
            dtype => FloatData::F32(values.iter().map(|value| dtype.round(f64::from(*value)) as f32).collect()),
        };
        let mut of_tensor = Vec::new();
        data.write_le_bytes(dtype, &mut of_tensor);
        bytes.insert(name.clone(), of_tensor);
    }
    Ok(model.with_tensors(bytes)?)
}
