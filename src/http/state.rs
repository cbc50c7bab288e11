//! What handlers share, and how each gets its part.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use tokio::sync::watch;

use crate::app::App;

use super::Error;
use super::access::Caller;
use super::idempotency::InFlight;
use super::limits::Limits;

/// What all requests share. A handler cannot take the application from here: it asks for an [`App`], which is that of the
/// tenant who calls.
#[derive(Clone)]
pub struct Api {
    app: App,
    closing: Closing,
    limits: Limits,
    in_flight: InFlight,
}

impl Api {
    pub fn new(app: App, closing: Closing) -> Self {
        Self { app, closing, limits: Limits::new(), in_flight: InFlight::default() }
    }
}

impl FromRef<Api> for Limits {
    fn from_ref(api: &Api) -> Self {
        api.limits.clone()
    }
}

impl FromRef<Api> for InFlight {
    fn from_ref(api: &Api) -> Self {
        api.in_flight.clone()
    }
}

impl FromRef<Api> for Closing {
    fn from_ref(api: &Api) -> Self {
        api.closing.clone()
    }
}

impl FromRequestParts<Api> for App {
    type Rejection = Error;

    /// The service as the tenant sees it who calls. A request that nobody has let in has none.
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let caller = parts.extensions.get::<Caller>().ok_or(Error::Unauthenticated { reason: "nobody let it in" })?;
        Ok(api.app.for_tenant(&caller.tenant))
    }
}

/// Whether the server is to close: answers that would go on must end.
#[derive(Clone)]
pub struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Is to close once `closing` becomes true.
    pub fn new(closing: watch::Receiver<bool>) -> Self {
        Self(closing)
    }

    /// Whether it is to close by now.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is to close.
    pub async fn begun(&mut self) {
        let _ = self.0.wait_for(|&closing| closing).await;
    }
}
