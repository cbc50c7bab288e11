//! Where messages go: an `http` or `https` URL with a host, and nothing hidden in it.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::Uri;

use super::AllowList;

/// Why messages cannot go somewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Not a URL, or too long a one.
    #[error("url: a URL of at most {max_chars} characters with a host is expected")]
    Malformed { max_chars: usize },
    /// Another scheme.
    #[error("url: it must start with http:// or https://")]
    Scheme,
    /// A name or a password in it.
    #[error("url: it must hold no user and no password")]
    UserInfo,
    /// An address that is not public, and that nobody has allowed.
    #[error("url: {address} is not a public address, and the operator has not allowed it")]
    Private { address: IpAddr },
}

/// A URL that messages can be sent to, as far as can be told without asking for its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

impl Endpoint {
    const MAX_CHARS: usize = 2000;

    /// The URL as text.
    pub fn as_text(&self) -> String {
        self.0.to_string()
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// Says whether messages may go there, where the host is an address: names are resolved when a message is sent.
    ///
    /// # Errors
    /// [`EndpointError::Private`].
    pub fn check(&self, allowed: &AllowList) -> Result<(), EndpointError> {
        let host = host_of(&self.0);
        host.parse().map_or(Ok(()), |address| allowed.check(host, address))
    }
}

/// The host of `uri`: an IPv6 address without its brackets.
pub(super) fn host_of(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let malformed = EndpointError::Malformed { max_chars: Self::MAX_CHARS };
        if text.len() > Self::MAX_CHARS || text.contains('#') {
            return Err(malformed);
        }
        let Ok(uri) = text.parse::<Uri>() else { return Err(malformed) };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(EndpointError::Scheme);
        }
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(EndpointError::UserInfo);
        }
        if host_of(&uri).is_empty() || uri.port().is_some_and(|port| port.as_u16() == 0) {
            return Err(malformed);
        }
        Ok(Self(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> &'static str {
        match text.parse::<Endpoint>().and_then(|endpoint| endpoint.check(&AllowList::default())) {
            Ok(()) => "",
            Err(EndpointError::Malformed { .. }) => "malformed",
            Err(EndpointError::Scheme) => "scheme",
            Err(EndpointError::UserInfo) => "user",
            Err(EndpointError::Private { .. }) => "private",
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_named() {
        let long = format!("https://example.com/{}", "a".repeat(2000));
        for (text, expected) in [
            ("https://example.com/hooks?token=x", ""),
            ("http://example.com:8080", ""),
            ("http://8.8.8.8/", ""),
            ("https://[2606:4700:4700::1111]/", ""),
            ("HTTPS://EXAMPLE.COM/", ""),
            ("", "malformed"),
            ("https://", "malformed"),
            ("https://:80/", "malformed"),
            ("http://example.com:0/", "malformed"),
            ("https://example.com/\n", "malformed"),
            ("https://example.com/#part", "malformed"),
            (&long, "malformed"),
            ("example.com", "scheme"),
            ("/hooks", "scheme"),
            ("ftp://example.com/", "scheme"),
            ("file:///etc/passwd", "malformed"),
            ("https://user@example.com/", "user"),
            ("https://user:word@example.com/", "user"),
            ("http://127.0.0.1/", "private"),
            ("http://[::1]:80/", "private"),
            ("http://[::ffff:10.0.0.1]/", "private"),
            ("http://169.254.169.254/latest/meta-data/", "private"),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
    }

    #[test]
    fn a_host_keeps_no_brackets() {
        let host = |text: &str| host_of(text.parse::<Endpoint>().unwrap().uri()).to_owned();
        assert_eq!(host("http://[::1]:80/"), "::1");
        assert_eq!(host("http://example.com:80/"), "example.com");
    }
}
