//! Which names the service may be called by, and which web pages may use it.
//!
//! A browser sends what any page tells it to. Without keys, that a request comes from this machine is all the right that it
//! needs; so a service without keys on a loopback address answers to the names of that address alone, and a page whose own
//! name was pointed at it (DNS rebinding) gets nothing.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::Config;

use super::{Error, mlflow, uploads};

/// What the settings say of names and pages. Clones share it.
#[derive(Clone)]
pub struct Hosts {
    /// In lower case, without ports; `None`: any.
    names: Option<Arc<[String]>>,
    origins: Arc<[String]>,
}

impl Hosts {
    /// What `config` says.
    pub fn new(config: &Config) -> Self {
        let given: Vec<String> = config.allowed_hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
        let names = match given.as_slice() {
            [] if config.listen.ip().is_loopback() && !config.keys.are_required() => {
                let own = ["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
                Some(own.to_vec())
            }
            [] => None,
            names if names.iter().any(|name| name == "*") => None,
            _ => Some(given),
        };
        Self { names: names.map(Into::into), origins: config.cors_origins.clone().into() }
    }

    /// Answers the questions of browsers on behalf of pages of other origins, where any is allowed.
    pub fn cross_origin(&self) -> Option<CorsLayer> {
        if self.origins.is_empty() {
            return None;
        }
        let origins = match self.origins.iter().any(|origin| origin == "*") {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(self.origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok())),
        };
        let exposed =
            ["link", "location", "retry-after", "x-request-id", "ratelimit", "ratelimit-policy", "repr-digest"];
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
            .allow_headers(
                [
                    header::AUTHORIZATION,
                    header::CONTENT_TYPE,
                    header::RANGE,
                    HeaderName::from_static("prefer"),
                    HeaderName::from_static("idempotency-key"),
                    mlflow::MODEL,
                ]
                .into_iter()
                .chain(uploads::REQUEST_HEADERS.map(HeaderName::from_static))
                .collect::<Vec<_>>(),
            )
            .expose_headers(
                exposed.into_iter().chain(uploads::RESPONSE_HEADERS).map(HeaderName::from_static).collect::<Vec<_>>(),
            );
        Some(layer)
    }

    fn allow(&self, host: &str) -> bool {
        let host = name_of(host).to_ascii_lowercase();
        self.names.as_ref().is_none_or(|names| names.contains(&host))
    }
}

/// A host without its port. Brackets hold the colons of an address.
fn name_of(host: &str) -> &str {
    let end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    host[end..].find(':').map_or(host, |colon| &host[..end + colon])
}

/// Middleware that refuses requests to names that are not served. Probes address the machine by whatever it has.
pub async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = named.or_else(|| request.uri().authority().map(|authority| authority.as_str())).unwrap_or_default();
    if !hosts.allow(host) && !matches!(request.uri().path(), "/livez" | "/readyz") {
        return Error::UnknownHost { host: host.chars().take(255).collect() }.into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigArgs;

    fn hosts(args: ConfigArgs) -> Hosts {
        Hosts::new(&args.resolve().unwrap())
    }

    #[test]
    fn without_keys_a_loopback_address_answers_to_its_own_names() {
        let hosts = hosts(ConfigArgs::default());
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:8080", "[::2]:8080", "127.0.0.1.nip.io"] {
            assert!(!hosts.allow(host), "{host}");
        }
        assert!(hosts.cross_origin().is_none());
    }

    #[test]
    fn elsewhere_any_name_will_do_unless_some_are_named() {
        let listen = Some("0.0.0.0:8080".parse().unwrap());
        assert!(hosts(ConfigArgs { listen, ..ConfigArgs::default() }).allow("any.example"));
        let named =
            ConfigArgs { listen, allowed_hosts: Some(vec!["Models.example".to_owned()]), ..ConfigArgs::default() };
        let named = hosts(named);
        assert!(named.allow("models.example:443") && !named.allow("other.example"));
        let any = ConfigArgs { allowed_hosts: Some(vec!["*".to_owned()]), ..ConfigArgs::default() };
        assert!(hosts(any).allow("any.example"));
    }
}
