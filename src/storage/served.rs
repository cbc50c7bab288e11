//! Models that predictions ask for, remembered for a moment: reading one takes longer than many a prediction.
//!
//! What this process changes is forgotten at once; what others change is seen within [`TRUST`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{ModelRecord, Store, StoreError, TenantId};

/// How long others may change a model unnoticed.
const TRUST: Duration = Duration::from_secs(1);
/// Models that are remembered; each may have thousands of layers.
const REMEMBERED: usize = 256;

/// A model and the number of one of its versions, which is there.
pub type ServedVersion = (Arc<ModelRecord>, i64);

type Key = (TenantId, String, Option<i64>);

#[derive(Debug, Default)]
pub(super) struct Served(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// Rises with each change: what was read before one is not kept after it.
    changes: u64,
    known: HashMap<Key, (Instant, ServedVersion)>,
}

impl Served {
    /// Forgets all of them.
    pub(super) fn forget(&self) {
        let mut remembered = self.lock();
        remembered.changes += 1;
        remembered.known.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        // A lock is held for single steps, none of which leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// A model and a version of it, the default one where none is named; as it was a moment ago at the earliest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for either.
    pub async fn served(&self, name: &str, version: Option<i64>) -> Result<ServedVersion, StoreError> {
        let key = (self.tenant.clone(), name.to_owned(), version);
        let changes = {
            let remembered = self.served.lock();
            match remembered.known.get(&key) {
                Some((read, found)) if read.elapsed() < TRUST => return Ok(found.clone()),
                _ => remembered.changes,
            }
        };
        let read = Instant::now();
        let model = self.model(name).await?;
        let number = match version {
            None => model.default_version,
            Some(number) => self.version(&model, number).await?.number,
        };
        let found = (Arc::new(model), number);
        let mut remembered = self.served.lock();
        if remembered.changes == changes {
            if remembered.known.len() >= REMEMBERED {
                remembered.known.clear();
            }
            remembered.known.insert(key, (read, found.clone()));
        }
        Ok(found)
    }
}
