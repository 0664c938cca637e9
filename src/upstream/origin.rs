//! Where the provider is, and which of its addresses a client's path means.
//! Pure text: it resolves no name and opens nothing.

use std::fmt;

use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};

/// A provider's base URL, as SDKs take it (`https://api.openai.com/v1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    /// Begins with `/`, does not end with one; empty if the REST paths hang on the root.
    base_path: String,
}

/// Why a text is not a base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not `http(s)://HOST[:PORT][/PATH]`.
    #[error("an upstream is written like https://api.openai.com/v1")]
    Malformed,
    /// A user name or password; credentials belong into headers.
    #[error("an upstream's URL must not carry a user name or password")]
    Credentials,
    /// A query or fragment, which no path could be appended to.
    #[error("an upstream's URL must not carry a query")]
    Query,
}

impl Upstream {
    /// Reads a base URL; a bare origin means `/v1`, trailing slashes mean nothing.
    ///
    /// # Errors
    /// See [`OriginError`].
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text.contains(['?', '#']) {
            return Err(OriginError::Query);
        }
        let parts = text.trim().parse::<Uri>().map_err(|_| OriginError::Malformed)?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(OriginError::Malformed);
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS || authority.host().is_empty() {
            return Err(OriginError::Malformed);
        }
        if authority.as_str().contains('@') {
            return Err(OriginError::Credentials);
        }
        let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/');
        let base_path = if path.is_empty() { VERSION } else { path }.to_owned();
        Ok(Self { scheme, authority, base_path })
    }

    /// The host, without port; an IPv6 address keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The REST part of a client's path and query (`/responses?x=1`), if the path belongs to the API: below `/v1`,
    /// below the upstream's own base path, or beginning with an API's name because the client's base URL lacks
    /// `/v1`.
    #[must_use]
    pub fn rest<'a>(&self, path_and_query: &'a str) -> Option<&'a str> {
        let below = |prefix: &str| {
            path_and_query.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        };
        if let Some(rest) = below(VERSION).or_else(|| below(&self.base_path)) {
            return Some(rest);
        }
        let first = path_and_query.strip_prefix('/')?.split(['/', '?']).next()?;
        APIS.contains(&first).then_some(path_and_query)
    }

    /// The upstream address a client's path and query means: `/v1/REST` is REST below the base path, any path
    /// that is not of the API goes to the origin unchanged. Queries are kept to the letter.
    #[must_use]
    pub fn map(&self, path_and_query: &str) -> Uri {
        let path = match self.rest(path_and_query) {
            Some(rest) => format!("{}{rest}", self.base_path),
            // An absolute target may have a query and no path (RFC 9112 3.2.1).
            None if path_and_query.starts_with('?') => format!("/{path_and_query}"),
            // `OPTIONS *` and requests without a path ask about the server as a whole.
            None if !path_and_query.starts_with('/') => "/".to_owned(),
            None => path_and_query.to_owned(),
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .expect("both halves of the path were parts of a URI")
    }

    /// Where to dial for a client's path and query.
    #[must_use]
    pub fn target(&self, path_and_query: &str) -> Target {
        Target::of(&self.map(path_and_query))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}{}", self.scheme, self.authority, self.base_path)
    }
}

/// One address to dial and to ask for an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// TLS, or plain TCP.
    pub tls: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What the `Host` header says: host, and port if the base URL has one.
    pub authority: String,
    /// Path and query of the upgrade request.
    pub path_and_query: String,
}

impl Target {
    /// Where an absolute address leads.
    pub(super) fn of(address: &Uri) -> Self {
        let tls = address.scheme() == Some(&Scheme::HTTPS);
        let host = address.host().unwrap_or_default();
        Self {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: address.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: address.authority().map(Authority::to_string).unwrap_or_default(),
            path_and_query: address.path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
        }
    }

    /// Host and port, an IPv6 address in brackets.
    pub(super) fn place(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

const VERSION: &str = "/v1";

/// First path segments of the OpenAI API (platform reference, 2026-11), and of the dialects other providers add.
const APIS: &[&str] = &[
    "assistants",
    "audio",
    "batches",
    "chat",
    "completions",
    "containers",
    "conversations",
    "embeddings",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "models",
    "moderations",
    "realtime",
    "responses",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_as_decided() {
        for (base, path, mapped) in [
            ("https://api.openai.com/v1", "/v1/responses", "https://api.openai.com/v1/responses"),
            ("https://api.openai.com", "/v1/responses", "https://api.openai.com/v1/responses"),
            ("https://api.openai.com/", "/responses", "https://api.openai.com/v1/responses"),
            ("https://api.openai.com/v1/", "/v1", "https://api.openai.com/v1"),
            ("https://api.openai.com/v1", "/v1?a=1", "https://api.openai.com/v1?a=1"),
            ("https://api.openai.com/v1", "/v10/x", "https://api.openai.com/v10/x"),
            ("https://api.openai.com/v1", "/health?x", "https://api.openai.com/health?x"),
            ("https://api.openai.com/v1", "/", "https://api.openai.com/"),
            ("https://api.openai.com/v1", "*", "https://api.openai.com/"),
            ("https://api.openai.com/v1", "?a", "https://api.openai.com/?a"),
            (
                "https://api.openai.com/v1",
                "/models?limit=2&a=%20b",
                "https://api.openai.com/v1/models?limit=2&a=%20b",
            ),
            ("https://api.openai.com/v1", "/chat/completions", "https://api.openai.com/v1/chat/completions"),
            ("https://api.openai.com/v1", "/chatter", "https://api.openai.com/chatter"),
            ("https://c.com/backend-api/codex", "/v1/responses", "https://c.com/backend-api/codex/responses"),
            (
                "https://c.com/backend-api/codex",
                "/backend-api/codex/x?y",
                "https://c.com/backend-api/codex/x?y",
            ),
            ("http://[::1]:8080", "/v1/files/f%2F1/content", "http://[::1]:8080/v1/files/f%2F1/content"),
        ] {
            assert_eq!(Upstream::parse(base).unwrap().map(path).to_string(), mapped, "{base} {path}");
        }
    }

    #[test]
    fn the_rest_part_is_found() {
        let upstream = Upstream::parse("https://x.openai.azure.com/openai/v1").unwrap();
        assert_eq!(upstream.rest("/v1/responses?x=1"), Some("/responses?x=1"));
        assert_eq!(upstream.rest("/openai/v1/responses"), Some("/responses"));
        assert_eq!(upstream.rest("/responses/resp_1"), Some("/responses/resp_1"));
        assert_eq!(upstream.rest("/openai/deployments"), None);
    }

    #[test]
    fn targets_name_host_port_and_authority() {
        let target = Upstream::parse("https://[::1]/v1").unwrap().target("/v1/responses?a");
        assert_eq!((target.tls, target.host.as_str(), target.port), (true, "::1", 443));
        assert_eq!((target.authority.as_str(), target.path_and_query.as_str()), ("[::1]", "/v1/responses?a"));
        let target = Upstream::parse("http://localhost:81").unwrap().target("/responses");
        assert_eq!((target.tls, target.host.as_str(), target.port), (false, "localhost", 81));
        assert_eq!(target.authority, "localhost:81");
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for (text, error) in [
            ("api.openai.com", OriginError::Malformed),
            ("/v1", OriginError::Malformed),
            ("ftp://a.b/v1", OriginError::Malformed),
            ("https://", OriginError::Malformed),
            ("https://key@api.openai.com/v1", OriginError::Credentials),
            ("https://api.openai.com/v1?x=1", OriginError::Query),
            ("https://api.openai.com/v1#x", OriginError::Query),
        ] {
            assert_eq!(Upstream::parse(text), Err(error), "{text}");
        }
        assert_eq!(Upstream::parse(" https://a.b ").unwrap().to_string(), "https://a.b/v1");
    }
}
