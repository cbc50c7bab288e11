//! All models of a tenant, with the numbers of their versions: what the protocol lists without pages.

use std::collections::HashMap;

use crate::app::App;
use crate::http::Error;
use crate::http::predict::fault_of;
use crate::storage::{ModelFilter, ModelId, Page};

/// Models that are read at a time.
const PAGE: usize = 100;

/// A model, as far as lists of models go.
pub struct Entry {
    pub id: ModelId,
    pub name: String,
    /// Why it cannot predict; `None` when it can.
    pub fault: Option<String>,
    /// Ascending.
    pub versions: Vec<i64>,
}

/// All models that the tenant has, by name.
///
/// # Errors
/// [`Error::Store`].
pub async fn each_model(app: &App) -> Result<Vec<Entry>, Error> {
    let mut numbers: HashMap<ModelId, Vec<i64>> = HashMap::new();
    for (model, number) in app.storage.store.version_numbers().await? {
        numbers.entry(model).or_default().push(number);
    }
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let page = Page { after: entries.last().map(|entry| entry.name.clone()), limit: PAGE as i64 };
        let models = app.storage.store.models(&ModelFilter::default(), &page).await?;
        let is_last = models.len() < PAGE;
        entries.extend(models.into_iter().map(|model| {
            let versions = numbers.remove(&model.id).unwrap_or_default();
            Entry { fault: fault_of(&model), id: model.id, name: model.name, versions }
        }));
        if is_last {
            return Ok(entries);
        }
    }
}
