//! Who may do what: keys, and the scopes that they grant.

mod key;
mod scope;

pub use key::{ApiKey, KeyId};
pub use scope::{Scope, Scopes};
