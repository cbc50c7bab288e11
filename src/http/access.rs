//! Who is let in: the key of a request, the scope that its operation asks for, and the rate that its tenant may keep up.
//!
//! **Invariant**: which scope an operation needs is written once, in its description: `security(("key" = ["read"]))`. The same
//! document that is published guards the routes: an operation that names no scope is closed to everyone, and one that is not
//! described is not there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize as _;
use serde_json::Value;

use crate::access::{ApiKey, KeyId, Scope, Scopes};
use crate::storage::{Credential, Store, TenantId};

use super::Error;
use super::rate::{Left, Rates};
use super::verb::described;

/// How long a key is taken on trust after it was read: a revoked one works for this much longer at most.
const TRUST: Duration = Duration::from_secs(5);

/// Keys in memory; those whose time is over go when there are more.
const REMEMBERED: usize = 10_000;

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: TenantId,
    /// `None` where no key is needed.
    pub key: Option<KeyId>,
}

impl Caller {
    fn anybody() -> Self {
        Self { tenant: TenantId::default(), key: None }
    }
}

/// What stands in front of the documented routes. Clones share it.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    store: Store,
    rules: Rules,
    /// Keys are asked for.
    is_locked: bool,
    known: Mutex<HashMap<KeyId, (Instant, Credential)>>,
    rates: Rates,
}

impl Gate {
    /// Guards the operations of `document`; without `is_locked`, anybody is the default tenant and may do everything.
    pub fn new(store: Store, document: &utoipa::openapi::OpenApi, is_locked: bool) -> Self {
        let rules = Rules::of(document);
        Self(Arc::new(Inner { store, rules, is_locked, known: Mutex::default(), rates: Rates::default() }))
    }

    /// What the operation with this head asks for.
    ///
    /// # Errors
    /// [`Error::NoRoute`] or [`Error::MethodNotAllowed`] where none is described.
    fn rule(&self, head: &Parts) -> Result<&Rule, Error> {
        let route = head.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        self.0.rules.find(&head.method, route, head.uri.path())
    }

    /// Says who sent the request with this head, which `rule` is for, and what is left of the tenant's rate, where it has one.
    async fn admit(&self, head: &Parts, rule: &Rule) -> Result<(Caller, Option<Left>), Error> {
        if *rule == Rule::Open || !self.0.is_locked {
            return Ok((Caller::anybody(), None));
        }
        let key = presented(&head.headers)?;
        let credential = self.credential(&key).await?;
        let rate = credential.max_requests_per_minute;
        let left = rate.map(|rate| self.0.rates.take(&credential.tenant_id, rate, Instant::now())).transpose();
        let left = left.map_err(|retry_seconds| Error::TooManyRequests { retry_seconds })?;
        rule.check(&credential.scopes)?;
        Ok((Caller { tenant: credential.tenant_id, key: Some(key.id().clone()) }, left))
    }

    async fn credential(&self, key: &ApiKey) -> Result<Credential, Error> {
        let remembered = self.known().get(key.id()).filter(|(read, _)| read.elapsed() < TRUST).map(|(_, c)| c.clone());
        let credential = match remembered {
            Some(credential) => credential,
            None => {
                let found = self.0.store.credential(key.id()).await?;
                let credential = found.ok_or(Error::Unauthenticated { reason: NOT_IN_FORCE })?;
                let mut known = self.known();
                if known.len() >= REMEMBERED {
                    known.retain(|_, (read, _)| read.elapsed() < TRUST);
                }
                known.insert(key.id().clone(), (Instant::now(), credential.clone()));
                credential
            }
        };
        match key.is_proven_by(&credential.secret_sha256) {
            true => Ok(credential),
            false => Err(Error::Unauthenticated { reason: NOT_IN_FORCE }),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<KeyId, (Instant, Credential)>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One answer for keys that never were, were revoked or have expired: it must not tell which ids there are.
const NOT_IN_FORCE: &str = "the key is not known, has expired or was revoked";

/// The key of the header `Authorization`.
fn presented(headers: &HeaderMap) -> Result<ApiKey, Error> {
    let missing = || Error::Unauthenticated { reason: "a key is needed: `Authorization: Bearer wp_...`" };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().ok().ok_or_else(missing)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    ApiKey::parse(token.trim()).ok_or(Error::Unauthenticated { reason: "what is given as a key is none" })
}

/// Middleware on the documented routes that lets requests in, and writes a line about each that changes something.
pub async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let rule = match gate.rule(&head) {
        Ok(rule) => rule,
        Err(error) => return error.into_response(),
    };
    let (caller, left) = match gate.admit(&head, rule).await {
        Ok(admitted) => admitted,
        Err(error) => return error.into_response(),
    };
    head.extensions.insert(caller.clone());
    let changes = rule.may_change() && !matches!(head.method, Method::GET | Method::HEAD);
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    let mut response = next.run(Request::from_parts(head, body)).await;
    if changes {
        let key = caller.key.map_or_else(|| "-".to_owned(), |key| key.to_string());
        let status = response.status().as_u16();
        tracing::info!(target: "weightpress::audit", tenant = %caller.tenant, key, %method, path, status, "changed");
    }
    if let Some(left) = left {
        response.headers_mut().extend(left.headers());
    }
    response
}

/// What the operations ask for, by their paths and methods.
struct Rules(HashMap<String, BTreeMap<String, Rule>>);

/// What an operation asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// Nothing.
    Open,
    /// One of these scopes.
    OneOf(Vec<Scope>),
}

/// No scope opens it.
static CLOSED: Rule = Rule::OneOf(Vec::new());

impl Rules {
    /// Reads what the operations of `document` say under `security`.
    fn of(document: &utoipa::openapi::OpenApi) -> Self {
        let document = serde_json::to_value(document).unwrap_or_default();
        let of_path = |(path, methods): (&String, &Value)| {
            let operations = methods.as_object().into_iter().flatten();
            let rules = operations.map(|(method, operation)| (method.to_uppercase(), Rule::of(operation)));
            (path.clone(), rules.collect())
        };
        Self(document["paths"].as_object().into_iter().flatten().map(of_path).collect())
    }

    /// The rule of the operation `method` at `path`, which the router has found at `route`.
    ///
    /// # Errors
    /// [`Error::NoRoute`] and [`Error::MethodNotAllowed`]: what is not described is not there.
    fn find(&self, method: &Method, route: &str, path: &str) -> Result<&Rule, Error> {
        let no_route = || Error::NoRoute { path: path.to_owned() };
        let rules = self.0.get(&*described(route, path)).ok_or_else(no_route)?;
        let head_of_get = if *method == Method::HEAD { rules.get("GET") } else { None };
        rules.get(method.as_str()).or(head_of_get).ok_or_else(|| {
            let head = rules.contains_key("GET").then_some("HEAD");
            let allow = rules.keys().map(String::as_str).chain(head).collect::<Vec<_>>().join(", ");
            Error::MethodNotAllowed { method: method.clone(), path: path.to_owned(), allow: Some(allow) }
        })
    }
}

impl Rule {
    /// Of one operation: the alternatives under `security`, of which an empty one asks for nothing.
    fn of(operation: &Value) -> Self {
        let Some(alternatives) = operation["security"].as_array() else { return CLOSED.clone() };
        if alternatives.iter().any(|alternative| alternative.as_object().is_some_and(|a| a.is_empty())) {
            return Self::Open;
        }
        let words = alternatives.iter().filter_map(|alternative| alternative["key"].as_array()).flatten();
        Self::OneOf(words.filter_map(|word| Scope::deserialize(word).ok()).collect())
    }

    /// Whether what asks for it is more than reading and predicting.
    fn may_change(&self) -> bool {
        matches!(self, Self::OneOf(scopes) if scopes.iter().any(|scope| matches!(scope, Scope::Write | Scope::Admin)))
    }

    fn check(&self, granted: &Scopes) -> Result<(), Error> {
        match self {
            Self::OneOf(scopes) if !scopes.iter().any(|&scope| granted.allow(scope)) => {
                let needed = scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" or ");
                Err(Error::Forbidden { needed, granted: granted.to_string() })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::http::documented;

    #[test]
    fn every_operation_says_who_may_call_it() {
        let Rules(rules) = Rules::of(&documented().into_openapi());
        let rules =
            || rules.iter().flat_map(|(path, rules)| rules.iter().map(move |(method, rule)| (method, path, rule)));
        assert!(rules().count() > 20);
        for (method, path, rule) in rules() {
            assert_ne!(rule, &CLOSED, "{method} {path} names no scope");
        }
        let open: Vec<_> = rules().filter(|(.., rule)| **rule == Rule::Open).map(|(_, path, _)| path).collect();
        assert!(open.iter().all(|path| !path.contains('{')), "{open:?}: what is open to all belongs to nobody");
    }

    #[test]
    fn what_is_not_described_is_not_there() {
        let rules = Rules::of(&documented().into_openapi());
        let find = |method, route, path| {
            rules.find(&method, route, path).map(drop).map_err(|error| match error {
                Error::MethodNotAllowed { allow, .. } => allow.unwrap_or_default(),
                error => error.to_string(),
            })
        };
        assert_eq!(find(Method::GET, "/secret", "/secret"), Err("there is nothing at /secret".to_owned()));
        assert_eq!(find(Method::HEAD, "/livez", "/livez"), Ok(()));
        assert_eq!(find(Method::PUT, "/livez", "/livez"), Err("GET, HEAD".to_owned()));
        let model = "/v1/models/{name}";
        assert_eq!(find(Method::GET, model, "/v1/models/x"), Ok(()));
        assert_eq!(find(Method::POST, model, "/v1/models/x"), Err("GET, HEAD".to_owned()));
        assert_eq!(find(Method::POST, model, "/v1/models/x:predict"), Ok(()));
        assert_eq!(find(Method::GET, model, "/v1/models/x:predict"), Err("POST".to_owned()));
        assert!(find(Method::POST, model, "/v1/models/x:classify").unwrap_err().contains("nothing at"));
        assert!(CLOSED.check(&Scopes::all()).is_err());
    }

    #[test]
    fn a_key_is_read_from_its_header_alone() {
        let key = ApiKey::generate().unwrap();
        let with = |value: String| {
            presented(&HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::try_from(value).unwrap())]))
        };
        assert_eq!(with(format!("Bearer {}", key.reveal())).unwrap(), key);
        assert_eq!(with(format!("bearer  {}", key.reveal())).unwrap(), key);
        for other in [key.reveal(), format!("Basic {}", key.reveal()), "Bearer".to_owned(), "Bearer x".to_owned()] {
            assert!(with(other).is_err());
        }
        assert!(presented(&HeaderMap::new()).is_err());
    }
}
