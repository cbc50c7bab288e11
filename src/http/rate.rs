//! How many requests a tenant may send: a bucket each, which holds the requests of a minute and is filled evenly.
//!
//! Source of the headers: "RateLimit header fields for HTTP", draft-ietf-httpapi-ratelimit-headers-10.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue};

use crate::storage::TenantId;

const WINDOW: Duration = Duration::from_secs(60);

/// The buckets of all tenants.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<TenantId, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    requests: f64,
    filled: Instant,
}

/// What is left in a bucket after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    per_minute: i64,
    requests: u64,
    /// Until it is full.
    seconds: u64,
}

impl Rates {
    /// Takes one request out of the bucket of `tenant`, which holds `per_minute`.
    ///
    /// # Errors
    /// The seconds to wait, when it is empty.
    pub fn take(&self, tenant: &TenantId, per_minute: i64, now: Instant) -> Result<Left, u64> {
        let size = per_minute.max(0) as f64;
        let per_second = size / WINDOW.as_secs_f64();
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(tenant.clone()).or_insert(Bucket { requests: size, filled: now });
        let flown = now.saturating_duration_since(bucket.filled).as_secs_f64();
        // The size may have been changed since.
        *bucket = Bucket { requests: (bucket.requests + flown * per_second).min(size), filled: now };
        if bucket.requests < 1.0 {
            return Err(((1.0 - bucket.requests) / per_second).ceil().clamp(1.0, 3600.0) as u64);
        }
        bucket.requests -= 1.0;
        let seconds = ((size - bucket.requests) / per_second).ceil() as u64;
        Ok(Left { per_minute, requests: bucket.requests as u64, seconds })
    }
}

impl Left {
    /// `RateLimit-Policy` and `RateLimit`.
    pub fn headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let policy = format!("\"tenant\";q={};w={}", self.per_minute, WINDOW.as_secs());
        let state = format!("\"tenant\";r={};t={}", self.requests, self.seconds);
        let headers = [("ratelimit-policy", policy), ("ratelimit", state)];
        headers
            .into_iter()
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_evenly() {
        let (rates, tenant, now) = (Rates::default(), TenantId::default(), Instant::now());
        let left: Vec<u64> = (0..6).map(|_| rates.take(&tenant, 6, now).unwrap().requests).collect();
        assert_eq!(left, [5, 4, 3, 2, 1, 0]);
        assert_eq!(rates.take(&tenant, 6, now), Err(10));
        let later = now + Duration::from_secs(10);
        assert!(rates.take(&tenant, 6, later).is_ok());
        assert_eq!(rates.take(&tenant, 6, later), Err(10));
        assert!(rates.take(&TenantId::new(), 6, later).is_ok(), "others have their own");
        assert_eq!(rates.take(&tenant, 6, later + WINDOW * 9).unwrap().requests, 5, "no more than it holds");
    }

    #[test]
    fn a_bucket_of_nothing_is_always_empty() {
        assert_eq!(Rates::default().take(&TenantId::default(), 0, Instant::now()), Err(3600));
    }
}
