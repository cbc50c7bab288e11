//! A plain HTTP client of the service.

use std::net::SocketAddr;

use serde_json::Value;

use crate::cli::CliError;

/// Talks JSON to one service.
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    /// A client of the service at `address`.
    pub fn new(address: SocketAddr) -> Self {
        // A proxy of the environment is not on the way to this machine itself.
        let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().into();
        Self { agent, base: format!("http://{address}") }
    }

    /// Sends a file to a collection, `models` or `datasets`.
    pub fn upload(&self, collection: &str, name: &str, file: &[u8]) -> Result<Value, CliError> {
        let url = format!("{}/api/v1/{collection}?name={name}", self.base);
        answer(self.agent.post(&url).send(file))
    }

    /// Sends a document.
    pub fn post(&self, path: &str, document: &Value) -> Result<Value, CliError> {
        answer(self.agent.post(format!("{}{path}", self.base)).send_json(document))
    }

    /// Fetches a document.
    pub fn get(&self, path: &str) -> Result<Value, CliError> {
        answer(self.agent.get(format!("{}{path}", self.base)).call())
    }
}

/// The document of a successful answer, null where it has none; the problem of any other.
fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, CliError> {
    let mut response = response.map_err(CliError::failed)?;
    let text = response.body_mut().read_to_string().map_err(CliError::failed)?;
    let document: Value =
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).map_err(CliError::failed)? };
    if response.status().is_success() {
        return Ok(document);
    }
    let detail = document["detail"].as_str().unwrap_or("no detail");
    Err(CliError::Failed(format!("the service answered {}: {detail}", response.status())))
}
