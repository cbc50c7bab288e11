//! Webhooks: signed messages about jobs, sent to the addresses that tenants name.
//!
//! ```text
//! a job's event -> storage's deliveries <- Dispatcher (claim, send, note what came of it) -> Sender -> the endpoint
//! ```
//!
//! A message is a row before its job's end is visible, so none is lost; it may come twice, under the same id.
//!
//! Source: "Standard Webhooks", <https://www.standardwebhooks.com>.

mod address;
mod dispatcher;
mod endpoint;
mod secret;
mod sender;

pub use address::{AllowList, Allowed};
pub(crate) use dispatcher::Dispatcher;
pub use endpoint::{Endpoint, EndpointError};
pub use secret::Secret;
