//! Sends one message: to checked addresses alone, without redirects or proxies, in bounded time.
//!
//! A host is resolved once for each sending, and the connection goes to the addresses that were checked: a name whose addresses
//! change in between leads nowhere else. No connection is kept for the next message.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::http::Uri;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use super::endpoint::host_of;
use super::{AllowList, Endpoint, EndpointError, Secret};

/// Time for a sending, from the resolution of the name to the end of the answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// What is read of an answer's body; it is thrown away.
const MAX_ANSWER_BYTES: u64 = 4096;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Sends messages. Clones share the settings.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    agent: Agent,
}

/// A message to send.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) url: String,
    pub(super) body: Vec<u8>,
    /// What it is signed with, by each.
    pub(super) secrets: Vec<Secret>,
}

/// Why a message did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("the message could not be signed")]
    Unsigned,
    #[error("{0}")]
    Failed(String),
}

impl Sender {
    /// Sends to public addresses and to those that are `allowed`.
    pub(super) fn new(allowed: AllowList) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_response_header_size(MAX_HEADER_BYTES)
            // A connection that is kept would be used without a check.
            .max_idle_connections(0)
            .user_agent(concat!("weightpress/", env!("CARGO_PKG_VERSION")));
        let resolver = CheckedResolver { inner: DefaultResolver::default(), allowed };
        Self { agent: Agent::with_parts(config.build(), DefaultConnector::default(), resolver) }
    }

    /// Sends `message` and returns the status of the answer. Blocks, for 15 s at most.
    ///
    /// # Errors
    /// [`SendError`] when there is no answer.
    pub(super) fn send(&self, message: Message) -> Result<u16, SendError> {
        let endpoint: Endpoint = message.url.parse()?;
        let sent_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let sign = |secret: &Secret| secret.sign(&message.id, sent_at, &message.body).ok_or(SendError::Unsigned);
        let signatures: Vec<String> = message.secrets.iter().map(sign).collect::<Result<_, _>>()?;
        let request = self
            .agent
            .post(endpoint.uri())
            .header("content-type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", sent_at.to_string())
            .header("webhook-signature", signatures.join(" "));
        let answer = request.send(message.body.as_slice()).map_err(SendError::of)?;
        let status = answer.status().as_u16();
        // The status is what counts: a body that ends early changes nothing.
        let _ = std::io::copy(&mut answer.into_body().into_reader().take(MAX_ANSWER_BYTES), &mut std::io::sink());
        Ok(status)
    }
}

impl SendError {
    fn of(error: Error) -> Self {
        match error {
            Error::Other(inner) => match inner.downcast::<EndpointError>() {
                Ok(refused) => Self::Endpoint(*refused),
                Err(other) => Self::Failed(other.to_string()),
            },
            Error::Timeout(_) => Self::Failed(format!("no answer within {} s", TIMEOUT.as_secs())),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Resolves names as the system does, and refuses those of which any address is refused.
#[derive(Debug)]
struct CheckedResolver {
    inner: DefaultResolver,
    allowed: AllowList,
}

impl Resolver for CheckedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let addresses = self.inner.resolve(uri, config, timeout)?;
        let checked = check_all(&self.allowed, host_of(uri), &addresses);
        checked.map_err(|refused| Error::Other(Box::new(refused)))?;
        Ok(addresses)
    }
}

/// Says whether messages may go to all `addresses` of `host`: any of them may be the one that is connected to.
fn check_all(allowed: &AllowList, host: &str, addresses: &[SocketAddr]) -> Result<(), EndpointError> {
    addresses.iter().try_for_each(|address| allowed.check(host, address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(url: &str) -> Message {
        Message {
            id: "1".to_owned(),
            url: url.to_owned(),
            body: Vec::new(),
            secrets: vec![Secret::generate().expect("random numbers")],
        }
    }

    #[test]
    fn a_host_is_refused_whatever_its_address_is_written_as() {
        let sender = Sender::new(AllowList::default());
        for host in ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:7f00:1]", "0"] {
            let sent = sender.send(message(&format!("http://{host}:9/")));
            assert!(matches!(sent, Err(SendError::Endpoint(EndpointError::Private { .. }))), "{host}: {sent:?}");
        }
    }

    #[test]
    fn one_private_address_of_a_host_refuses_them_all() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().expect("an address and a port")).collect()
        };
        let check = |texts: &[&str]| check_all(&AllowList::default(), "example.com", &addresses(texts));
        assert_eq!(check(&["8.8.8.8:443", "[2606:4700:4700::1111]:443"]), Ok(()));
        let refused = check(&["8.8.8.8:443", "[2606:4700:4700::1111]:443", "10.0.0.1:443"]);
        assert_eq!(refused, Err(EndpointError::Private { address: [10, 0, 0, 1].into() }));
    }

    #[test]
    fn an_allowed_host_is_connected_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let sender = Sender::new(vec!["127.0.0.1".parse().expect("an address")].into());
        let sent = sender.send(message(&format!("http://127.0.0.1:{port}/")));
        assert!(matches!(sent, Err(SendError::Failed(_))), "nobody listens there: {sent:?}");
    }
}
