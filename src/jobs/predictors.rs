//! Loaded predictors: kept while they fit a stated memory budget, the least recently used dropped first.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::artifact::Artifact;
use crate::infer::{Fault, InferError, Predictor, Residency};
use crate::model::Model;
use crate::storage::{ModelId, ModelRecord, Storage, StoreError};

use super::batching::answers_samples_apart;
use super::statistics::{Statistics, Tallies};
use super::{ExecuteError, Executor, Serving};

/// The predictors in memory. Clones share them.
///
/// The budget counts the weights of the predictors that are kept. One that was dropped while a prediction runs on it
/// lives until that prediction ends.
#[derive(Debug, Clone)]
pub struct Predictors {
    storage: Storage,
    executor: Executor,
    settings: PredictorSettings,
    shelf: Arc<Mutex<Shelf>>,
    known: Arc<Mutex<HashMap<Key, Known>>>,
}

/// What is remembered of a version whether it is loaded or not.
#[derive(Debug, Default)]
struct Known {
    tallies: Arc<Tallies>,
    /// How it is to be held, where that was said.
    holding: Option<Holding>,
}

/// How the weights of a compressed version are to be held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// `None`: as the service's settings say, as below.
    pub residency: Option<Residency>,
    /// What [`Residency::Auto`] may spend, in bytes.
    pub memory_budget_bytes: Option<u64>,
}

/// How predictors are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PredictorSettings {
    pub(crate) budget_bytes: u64,
    /// Of compressed versions; version 0 is dense.
    pub(crate) residency: Residency,
    /// Requests are gathered into batches, where a version allows it.
    pub(crate) batches: bool,
    /// Of one compressed version, where its residency is to be chosen.
    pub(crate) version_budget_bytes: Option<u64>,
}

/// A prediction that takes no longer may be made by the thread that read its request.
const BRIEF: Duration = Duration::from_micros(200);
/// Larger bodies may hold more than those before them did.
const BRIEF_BODY_BYTES: usize = 64 << 10;

/// What to load, and how to hold it; in any process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LoadRequest {
    path: PathBuf,
    /// The file is an upload, not an artifact.
    is_upload: bool,
    residency: Residency,
    /// What [`Residency::Auto`] may spend, in bytes.
    budget_bytes: Option<u64>,
    /// Requests are gathered into batches, where the version allows it.
    batches: bool,
}

impl LoadRequest {
    /// Loads it into this process. Returns also whether requests may be run together.
    ///
    /// # Errors
    /// [`InferError`].
    pub(super) fn here(&self) -> Result<(Predictor, bool), InferError> {
        let predictor = if self.is_upload {
            Predictor::from_model(&Model::open(&self.path)?)?
        } else {
            Predictor::from_artifact_within(&Artifact::open(&self.path)?, self.residency, self.budget_bytes)?
        };
        let is_batched = self.batches && answers_samples_apart(&predictor);
        Ok((predictor, is_batched))
    }
}

/// A version that is ready to predict.
#[derive(Clone)]
pub struct Loaded {
    pub predictor: Arc<Serving>,
    pub version: i64,
    pub residency: Residency,
    /// Counts what is asked of it.
    pub tallies: Arc<Tallies>,
    /// Requests may be run together: that was asked for, and each sample is answered for itself.
    pub(super) is_batched: bool,
}

impl Loaded {
    /// Whether a prediction of so many bytes is over before another thread would be awake, as far as those before tell.
    pub fn is_brief(&self, body_bytes: usize) -> bool {
        let is_quick = self.tallies.expected().is_some_and(|time| time <= BRIEF);
        is_quick && body_bytes <= BRIEF_BODY_BYTES && self.predictor.is_here()
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("version", &self.version).finish_non_exhaustive()
    }
}

type Key = (ModelId, i64);

/// Who is loaded or being loaded. What is taken out is dropped once the shelf is free again: a process may end with it.
#[derive(Debug, Default)]
struct Shelf {
    slots: HashMap<Key, Slot>,
    /// Counts uses, to know the least recent.
    clock: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Empty while somebody loads; others wait on it.
    cell: Arc<OnceCell<Loaded>>,
    last_used: u64,
}

impl Slot {
    /// Bytes of the weights, and of the process that holds them if it is not this one; 0 while they are being loaded.
    fn bytes(&self) -> u64 {
        let bytes = |loaded: &Loaded| loaded.predictor.weights_resident_bytes() + loaded.predictor.overhead_bytes();
        self.cell.get().map_or(0, bytes)
    }
}

impl Shelf {
    /// The slot of `key`, marked as used now, and the one that it takes the place of, if its predictor is over.
    fn slot(&mut self, key: &Key) -> (Arc<OnceCell<Loaded>>, Option<Slot>) {
        self.clock += 1;
        let is_over = |slot: &Slot| slot.cell.get().is_some_and(|loaded| loaded.predictor.is_over());
        let over = if self.slots.get(key).is_some_and(is_over) { self.slots.remove(key) } else { None };
        let slot = self.slots.entry(key.clone()).or_default();
        slot.last_used = self.clock;
        (slot.cell.clone(), over)
    }

    fn resident_bytes(&self) -> u64 {
        self.slots.values().map(Slot::bytes).sum()
    }

    /// Takes out the least recently used until the budget holds, never `keep`.
    fn make_room(&mut self, budget_bytes: u64, keep: &Key) -> Vec<Slot> {
        let mut evicted = Vec::new();
        while self.resident_bytes() > budget_bytes {
            let idle = self.slots.iter().filter(|(key, slot)| *key != keep && slot.bytes() > 0);
            let Some(oldest) = idle.min_by_key(|(_, slot)| slot.last_used).map(|(key, _)| key.clone()) else { break };
            evicted.extend(self.slots.remove(&oldest));
            metrics::counter!("weightpress_predictors_evicted_total").increment(1);
        }
        evicted
    }
}

impl Predictors {
    /// None loaded yet.
    pub(crate) fn new(storage: Storage, executor: Executor, settings: PredictorSettings) -> Self {
        Self { storage, executor, settings, shelf: Arc::default(), known: Arc::default() }
    }

    /// The predictor of a version, loaded if need be. Concurrent callers share one load.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn get(&self, model: &ModelRecord, version: i64) -> Result<Loaded, LoadError> {
        let key = (model.id.clone(), version);
        let (cell, over) = self.shelf().slot(&key);
        drop(over);
        match cell.get_or_try_init(|| self.load(model, version)).await {
            Ok(loaded) => {
                let loaded = loaded.clone();
                let evicted = self.shelf().make_room(self.settings.budget_bytes, &key);
                drop(evicted);
                metrics::gauge!("weightpress_predictors_resident_bytes").set(self.resident_bytes() as f64);
                Ok(loaded)
            }
            Err(error) => {
                let mut shelf = self.shelf();
                // Somebody else may be trying again in the same slot.
                if shelf.slots.get(&key).is_some_and(|slot| Arc::ptr_eq(&slot.cell, &cell) && slot.bytes() == 0) {
                    shelf.slots.remove(&key);
                }
                Err(error)
            }
        }
    }

    /// Whether a version is in memory now.
    pub fn is_loaded(&self, model: &ModelRecord, version: i64) -> bool {
        self.loaded(model, version).is_some()
    }

    /// The predictor of a version, if it is in memory now.
    pub fn loaded(&self, model: &ModelRecord, version: i64) -> Option<Loaded> {
        let shelf = self.shelf();
        let loaded = shelf.slots.get(&(model.id.clone(), version))?.cell.get()?;
        (!loaded.predictor.is_over()).then(|| loaded.clone())
    }

    /// Loads a version anew, to be held as `holding` says until it is unloaded.
    ///
    /// # Errors
    /// [`LoadError`]; it is then not loaded.
    pub async fn reload(&self, model: &ModelRecord, version: i64, holding: Holding) -> Result<Loaded, LoadError> {
        self.unload(model, Some(version));
        self.known().entry((model.id.clone(), version)).or_default().holding = Some(holding);
        self.get(model, version).await
    }

    /// Drops what is loaded of a model, all versions or one, and how they were to be held. Who asks for them loads them again.
    pub fn unload(&self, model: &ModelRecord, version: Option<i64>) {
        let forget = |known: &mut Known| known.holding = None;
        self.known().iter_mut().filter(|(key, _)| is_of(key, model, version)).for_each(|(_, known)| forget(known));
        self.drop_loaded(model, version);
    }

    /// What was asked of a version since the process started.
    pub fn statistics(&self, model: &ModelId, version: i64) -> Statistics {
        let known = self.known();
        known.get(&(model.clone(), version)).map(|known| known.tallies.read()).unwrap_or_default()
    }

    /// Drops all that there is of a model that is deleted: all versions, or one.
    pub fn forget(&self, model: &ModelRecord, version: Option<i64>) {
        self.known().retain(|key, _| !is_of(key, model, version));
        self.drop_loaded(model, version);
    }

    fn drop_loaded(&self, model: &ModelRecord, version: Option<i64>) {
        let dropped: Vec<(Key, Slot)> = self.shelf().slots.extract_if(|key, _| is_of(key, model, version)).collect();
        drop(dropped);
        metrics::gauge!("weightpress_predictors_resident_bytes").set(self.resident_bytes() as f64);
    }

    /// Bytes held by loaded weights.
    pub fn resident_bytes(&self) -> u64 {
        self.shelf().resident_bytes()
    }

    async fn load(&self, model: &ModelRecord, version: i64) -> Result<Loaded, LoadError> {
        if !model.is_predictable() {
            return Err(LoadError::not_predictable(model));
        }
        let store = self.storage.store.for_tenant(&model.tenant_id);
        let record = store.version(model, version).await?;
        let files = self.storage.blobs.checkout();
        let path = files.path(&record.sha256).await?;
        let (tallies, holding) = {
            let mut known = self.known();
            let known = known.entry((model.id.clone(), version)).or_default();
            (Arc::clone(&known.tallies), known.holding.unwrap_or_default())
        };
        let residency = match version {
            0 => Residency::Dense,
            _ => holding.residency.unwrap_or(self.settings.residency),
        };
        let version_budget_bytes = holding.memory_budget_bytes.or(self.settings.version_budget_bytes);
        let started = std::time::Instant::now();
        let load = LoadRequest {
            path,
            is_upload: version == 0,
            residency,
            budget_bytes: version_budget_bytes,
            batches: self.settings.batches,
        };
        let isolation = self.executor.isolation();
        let load = move || -> Result<Result<(Serving, bool), InferError>, ExecuteError> {
            // They stay until this ends, whoever waits for it.
            let _files = files;
            Ok(match isolation {
                None => load.here().map(|(predictor, is_batched)| (predictor.into(), is_batched)),
                Some(limits) => limits.load(&load)?.map(|(predictor, is_batched)| (predictor.into(), is_batched)),
            })
        };
        let loaded = self.executor.load(load).await.and_then(|loaded| loaded).map_err(LoadError::Execute)?;
        let (predictor, is_batched) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                // It may have been deleted meanwhile, and its file with it.
                store.version(model, version).await?;
                return Err(LoadError::from_infer(model, error));
            }
        };
        metrics::histogram!("weightpress_predictor_load_duration_seconds").record(started.elapsed());
        let needed_bytes = predictor.weights_resident_bytes();
        let budget_bytes = self.settings.budget_bytes;
        if needed_bytes > budget_bytes {
            return Err(LoadError::OverBudget { version, needed_bytes, budget_bytes });
        }
        Ok(Loaded { predictor: Arc::new(predictor), version, residency, tallies, is_batched })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // The shelf is whole between its methods, whatever panicked.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `key` is that of `model`'s `version`, or of any of its versions.
fn is_of((id, number): &Key, model: &ModelRecord, version: Option<i64>) -> bool {
    *id == model.id && version.is_none_or(|version| version == *number)
}

/// Why a version cannot predict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model has operators that predictions lack, or is weights only.
    #[error("model {model} cannot predict: {reason}")]
    NotPredictable { model: String, reason: String },
    /// Its memory alone is more than the budget.
    #[error("version {version} needs {needed_bytes} bytes, the budget is {budget_bytes}")]
    OverBudget { version: i64, needed_bytes: u64, budget_bytes: u64 },
    /// The version is gone, or the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored file cannot be read: it was whole when it was stored.
    #[error("a stored file cannot be read: {0}")]
    Damaged(InferError),
    /// The load panicked, or too many requests wait.
    #[error(transparent)]
    Execute(ExecuteError),
}

impl LoadError {
    fn not_predictable(model: &ModelRecord) -> Self {
        let reason = if model.outputs.is_empty() {
            InferError::NoGraph
        } else {
            InferError::UnsupportedOperators { operators: model.unsupported_operators.clone() }
        };
        Self::NotPredictable { model: model.name.clone(), reason: reason.to_string() }
    }

    fn from_infer(model: &ModelRecord, error: InferError) -> Self {
        match error {
            error if error.fault() == Fault::File => Self::Damaged(error),
            error => Self::NotPredictable { model: model.name.clone(), reason: error.to_string() },
        }
    }
}
