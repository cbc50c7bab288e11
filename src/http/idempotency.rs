//! The header `Idempotency-Key`: a request that may be sent again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::storage::TenantId;

use super::Error;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks an answer about something that an earlier request did.
pub const REPLAYED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));

const MAX_LENGTH: usize = 255;

/// The name that a request gives itself.
///
/// # Errors
/// [`Error::InvalidHeader`] for one that is empty, too long, or not of visible ASCII.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    // The standard wants quotes; most clients send none.
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > MAX_LENGTH || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::InvalidHeader {
            name: "Idempotency-Key",
            reason: "is not 1 to 255 visible ASCII characters",
        });
    }
    Ok(Some(key.to_owned()))
}

/// Requests with names that this process is answering. Clones share them.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<(TenantId, String)>>>);

/// A request that is being answered, until this is dropped.
pub struct Flight {
    all: InFlight,
    own: (TenantId, String),
}

impl InFlight {
    /// Begins to answer the request that `tenant` calls `key`.
    ///
    /// # Errors
    /// [`Error::InFlight`] while it is being answered already.
    pub fn begin(&self, tenant: &TenantId, key: &str) -> Result<Flight, Error> {
        let own = (tenant.clone(), key.to_owned());
        match self.names().insert(own.clone()) {
            true => Ok(Flight { all: self.clone(), own }),
            false => Err(Error::InFlight),
        }
    }

    fn names(&self) -> MutexGuard<'_, HashSet<(TenantId, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.all.names().remove(&self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(value: &str) -> Result<Option<String>, Error> {
        key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::try_from(value).unwrap())]))
    }

    #[test]
    fn names_are_read_with_and_without_quotes() {
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
        assert_eq!(key_of("a-1").unwrap().as_deref(), Some("a-1"));
        assert_eq!(key_of("\"a-1\"").unwrap().as_deref(), Some("a-1"));
        for wrong in ["", " ", "\"\"", "a b", &"a".repeat(256)] {
            assert!(key_of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_name_is_in_flight_once_for_each_tenant() {
        let (all, a, b) = (InFlight::default(), TenantId::new(), TenantId::new());
        let flight = all.begin(&a, "x").unwrap();
        assert!(matches!(all.begin(&a, "x"), Err(Error::InFlight)));
        assert!(all.begin(&b, "x").is_ok() && all.begin(&a, "y").is_ok());
        drop(flight);
        assert!(all.begin(&a, "x").is_ok());
    }
}
