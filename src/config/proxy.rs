//! The forward proxy between here and the upstream: how one is written, and which one the environment means.
//!
//! Pure: opens nothing. What is not understood is an error, never the same as none, and no message quotes what was written,
//! which may hold a password. How a proxy is spoken to is `upstream::forward`'s.

use std::ffi::OsString;
use std::fmt;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::file::Raw;
use super::{ConfigError, Place};

/// What leads to the upstream.
#[derive(Clone, Debug)]
pub enum ProxyChoice {
    /// What the environment says when the settings are loaded; they never end up with it. Taken as [`Self::Off`] by whoever makes
    /// settings without an environment.
    Environment,
    /// No proxy.
    Off,
    /// This one, and nothing else if it fails.
    Through(Proxy),
}

impl ProxyChoice {
    /// The proxy, if there is one.
    #[must_use]
    pub fn through(&self) -> Option<&Proxy> {
        match self {
            Self::Through(proxy) => Some(proxy),
            Self::Environment | Self::Off => None,
        }
    }
}

/// A forward proxy. Neither `Debug` nor `Display` shows its credentials.
#[derive(Clone)]
pub struct Proxy {
    kind: ProxyKind,
    host: String,
    port: u16,
    /// Holds the credentials, decoded.
    parsed: Intercept,
    /// Where it was written, for people.
    source: String,
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP `CONNECT`.
    Http,
    /// The same over TLS.
    Https,
    /// SOCKS 5; names are resolved here, as curl does for `socks5://`.
    Socks5,
    /// SOCKS 5; the proxy resolves names (`socks5h://`).
    Socks5h,
}

impl ProxyKind {
    /// The scheme of its URL.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 | Self::Socks5h => 1080,
        }
    }
}

impl Proxy {
    /// Reads `[SCHEME://][USER:PASSWORD@]HOST[:PORT]`; `source` says where it was written.
    ///
    /// # Errors
    /// What is wrong with it, without the text.
    pub fn parse(text: &str, source: impl Into<String>) -> Result<Self, String> {
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        let kind = match uri.scheme_str() {
            Some("http") => ProxyKind::Http,
            Some("https") => ProxyKind::Https,
            Some("socks5") => ProxyKind::Socks5,
            Some("socks5h") => ProxyKind::Socks5h,
            _ => {
                return Err(String::from(
                    "a proxy's URL begins with http://, https://, socks5:// or socks5h://",
                ));
            }
        };
        // An unescaped `/`, `?`, `#` or `@` of a password would make another host of it.
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !full.contains('#');
        let at_signs = authority.as_str().matches('@').count();
        let host = authority.host();
        if !bare || at_signs > 1 || host.is_empty() {
            return Err(malformed());
        }
        let place = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match place.strip_prefix(host) {
            Some("") => kind.port(),
            Some(_) => authority.port_u16().filter(|port| *port > 0).ok_or_else(malformed)?,
            None => return Err(malformed()),
        };
        let matcher = Matcher::builder().all(full.as_str()).build();
        let parsed = matcher.intercept(&Uri::from_static("https://any")).ok_or_else(malformed)?;
        let fits = |text: &str| text.len() <= LONGEST_SOCKS;
        if parsed.raw_auth().is_some_and(|(user, password)| !fits(user) || !fits(password)) {
            return Err(format!("SOCKS takes a user and a password of at most {LONGEST_SOCKS} bytes each"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { kind, host, port, parsed, source: source.into() })
    }

    /// How it is spoken to.
    #[must_use]
    pub fn kind(&self) -> ProxyKind {
        self.kind
    }

    /// Its name or address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `Basic …`, for `Proxy-Authorization`; marked sensitive.
    #[must_use]
    pub fn basic_auth(&self) -> Option<&HeaderValue> {
        self.parsed.basic_auth()
    }

    /// User and password, for SOCKS.
    #[must_use]
    pub fn raw_auth(&self) -> Option<(&str, &str)> {
        self.parsed.raw_auth()
    }

    /// Whether it was written with a user or a password.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.basic_auth().is_some() || self.raw_auth().is_some()
    }

    /// Where it was written: `proxy`, or a variable.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(formatter, "{}://{}{}{}:{}", self.kind.scheme(), brackets.0, self.host, brackets.1, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self} ({})", self.source)
    }
}

/// The reader of the setting.
pub(super) struct Choice;

impl Choice {
    pub(super) fn kind(&self) -> String {
        String::from("\"environment\" | \"off\" | a proxy's URL")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<ProxyChoice, String> {
        match raw {
            Raw::Text(text) | Raw::Bare(text) => match text.trim() {
                "environment" => Ok(ProxyChoice::Environment),
                "off" => Ok(ProxyChoice::Off),
                text => Proxy::parse(text, "proxy").map(ProxyChoice::Through),
            },
            other => Err(format!("expected {}; found {}", self.kind(), other.kind())),
        }
    }
}

/// What the environment says of the way to `upstream`, by the names and the precedence of curl: the upstream's scheme before
/// `all`, lower case before upper case, empty is unset.
///
/// # Errors
/// The variable that would be used says something that is no proxy.
pub(super) fn from_environment(
    variable: impl Fn(&str) -> Option<OsString>,
    upstream: &Uri,
) -> Result<ProxyChoice, ConfigError> {
    let set = |name: &'static str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some((name, value))
    };
    // In a CGI program HTTP_PROXY is what a client sent as the header `Proxy`.
    let upper = if variable("REQUEST_METHOD").is_some() { "" } else { "HTTP_PROXY" };
    let names = match upstream.scheme_str() {
        Some("https") => ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        _ => ["http_proxy", upper, "all_proxy", "ALL_PROXY"],
    };
    let Some((name, value)) = names.into_iter().find_map(set) else { return Ok(ProxyChoice::Off) };
    let exempt =
        set("no_proxy").or_else(|| set("NO_PROXY")).map(|(_, list)| list.to_string_lossy().into_owned());
    if is_exempt(&exempt.unwrap_or_default(), upstream) {
        return Ok(ProxyChoice::Off);
    }
    let parsed = value.to_str().ok_or_else(malformed).and_then(|text| Proxy::parse(text, name));
    parsed
        .map(ProxyChoice::Through)
        .map_err(|message| ConfigError { place: Place::Variable(name.to_owned()), message })
}

/// Whether a list in the manner of NO_PROXY names the upstream.
fn is_exempt(list: &str, upstream: &Uri) -> bool {
    let default = if upstream.scheme_str() == Some("https") { 443 } else { 80 };
    let port = upstream.port_u16().unwrap_or(default);
    let entries = list.split([',', ' ', '\t', '\n']).filter_map(|entry| plain(entry, port));
    let entries: Vec<&str> = entries.collect();
    Matcher::builder().all("http://any").no(entries.join(",")).build().intercept(upstream).is_none()
}

/// An entry as the matcher knows it: it takes no ports, no brackets, no `*.` and no dot at the end, which others do. None for
/// one that is about another port.
fn plain(entry: &str, port: u16) -> Option<&str> {
    let (host, named) = match entry.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, named)) if !host.contains(':') || host.ends_with(']') => (host, named.parse().ok()),
        _ => (entry, Some(port)),
    };
    if named != Some(port) {
        return None;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host).trim_end_matches('.'))
}

fn malformed() -> String {
    String::from(
        "a proxy is written like http://proxy.example:3128, with USER:PASSWORD@ before the host if it asks for them; what \
         is special in a URL (such as @, /, # and %) is percent-encoded there",
    )
}

/// RFC 1929: a length is one byte.
const LONGEST_SOCKS: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read() {
        for (text, shown, basic, raw) in [
            ("http://proxy:3128", "http://proxy:3128", None, None),
            ("proxy.example:3128/", "http://proxy.example:3128", None, None),
            ("proxy", "http://proxy:80", None, None),
            (" https://proxy ", "https://proxy:443", None, None),
            ("HTTP://proxy:1", "http://proxy:1", None, None),
            ("http://[::1]:3128", "http://[::1]:3128", None, None),
            ("http://u:p%40ss@proxy:1", "http://proxy:1", Some("Basic dTpwQHNz"), None),
            ("u:p@proxy:1", "http://proxy:1", Some("Basic dTpw"), None),
            ("http://u@proxy:1", "http://proxy:1", Some("Basic dTo="), None),
            ("socks5://10.0.0.1", "socks5://10.0.0.1:1080", None, None),
            ("socks5h://u:p%3A@proxy:1081", "socks5h://proxy:1081", None, Some(("u", "p:"))),
        ] {
            let proxy = Proxy::parse(text, "here").unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(proxy.to_string(), shown, "{text}");
            assert_eq!(format!("{proxy:?}"), format!("{shown} (here)"));
            assert_eq!(proxy.basic_auth().map(|value| value.to_str().unwrap()), basic, "{text}");
            assert_eq!(proxy.raw_auth(), raw, "{text}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_not_quoted() {
        for text in [
            "",
            "http://",
            "http://hunter2:hunter2",
            "http://proxy:0",
            "http://proxy:99999",
            "http://u:hunter2@",
            "http://u:hun/ter2@proxy:1",
            "http://u:1/hunter2@proxy:1",
            "http://u:1#hunter2@proxy:1",
            "http://u:1?hunter2@proxy:1",
            "http://u:hunter2@again@proxy:1",
            "http://proxy:1/hunter2",
            "socks://u:hunter2@proxy:1",
            "socks4://proxy:1",
            "socks4a://proxy:1",
            "hunter2://proxy:1",
            "http://pro xy:hunter2",
            &format!("socks5://u:{}@proxy", "hunter2".repeat(40)),
        ] {
            let error = Proxy::parse(text, "here").unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    /// What the environment says, shown; `direct` for no proxy, `error` with the variable for one that is none.
    fn chosen(upstream: &str, variables: &[(&str, &str)]) -> String {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(*value))
        };
        match from_environment(variable, &upstream.parse().unwrap()) {
            Ok(ProxyChoice::Through(proxy)) => proxy.host().to_owned(),
            Ok(ProxyChoice::Off) => String::from("direct"),
            Ok(ProxyChoice::Environment) => String::from("undecided"),
            Err(error) => format!("error in {}", error.place),
        }
    }

    #[test]
    fn variables_are_those_of_curl() {
        let (secure, plain) = ("https://api.test/v1", "http://api.test/v1");
        for (upstream, variables, expected) in [
            (secure, &[][..], "direct"),
            (secure, &[("HTTPS_PROXY", "http://a")], "a"),
            (secure, &[("https_proxy", "http://b"), ("HTTPS_PROXY", "http://a")], "b"),
            (secure, &[("https_proxy", ""), ("HTTPS_PROXY", "http://a")], "a"),
            (secure, &[("HTTP_PROXY", "http://a"), ("http_proxy", "http://a")], "direct"),
            (secure, &[("ALL_PROXY", "socks5://c")], "c"),
            (secure, &[("ALL_PROXY", "socks5://c"), ("all_proxy", "socks5h://d")], "d"),
            (secure, &[("all_proxy", "http://d"), ("HTTPS_PROXY", "http://a")], "a"),
            (plain, &[("HTTPS_PROXY", "http://a")], "direct"),
            (plain, &[("HTTP_PROXY", "http://a")], "a"),
            (plain, &[("http_proxy", "http://b"), ("HTTP_PROXY", "http://a")], "b"),
            (plain, &[("HTTP_PROXY", "http://a"), ("REQUEST_METHOD", "GET")], "direct"),
            (plain, &[("http_proxy", "http://b"), ("REQUEST_METHOD", "GET")], "b"),
            // Only what would be used is judged, and what would be used is never left out.
            (secure, &[("HTTPS_PROXY", "nonsense://a"), ("ALL_PROXY", "http://b")], "error in HTTPS_PROXY"),
            (secure, &[("https_proxy", "http://a"), ("ALL_PROXY", "socks://b")], "a"),
            (secure, &[("ALL_PROXY", "socks://b")], "error in ALL_PROXY"),
            (secure, &[("HTTPS_PROXY", "nonsense://a"), ("NO_PROXY", "api.test")], "direct"),
            (secure, &[("HTTPS_PROXY", "http://a"), ("NO_PROXY", "api.test"), ("no_proxy", "other")], "a"),
            (secure, &[("HTTPS_PROXY", "http://a"), ("NO_PROXY", "api.test"), ("no_proxy", "")], "direct"),
        ] {
            assert_eq!(chosen(upstream, variables), expected, "{upstream} {variables:?}");
        }
    }

    #[test]
    fn no_proxy_names_what_is_reached_directly() {
        for (list, upstream, exempt) in [
            ("", "https://api.test/v1", false),
            ("*", "https://api.test/v1", true),
            ("other, *", "https://api.test/v1", true),
            ("api.test", "https://api.test/v1", true),
            ("API.Test", "https://api.test/v1", true),
            ("api.test.", "https://api.test/v1", true),
            ("test", "https://api.test/v1", true),
            (".test", "https://api.test/v1", true),
            ("*.test", "https://api.test/v1", true),
            (".api.test", "https://api.test/v1", true),
            ("i.test", "https://api.test/v1", false),
            ("b.api.test", "https://api.test/v1", false),
            ("one,two api.test", "https://api.test/v1", true),
            ("api.test:443", "https://api.test/v1", true),
            ("api.test:8443", "https://api.test/v1", false),
            ("api.test:8443", "https://api.test:8443/v1", true),
            ("api.test:", "https://api.test/v1", false),
            ("localhost", "http://localhost:8585/v1", true),
            // As with curl and the SDKs: loopback is nothing special, and a name is not its address.
            ("", "http://127.0.0.1:8585/v1", false),
            ("localhost", "http://127.0.0.1:8585/v1", false),
            ("127.0.0.1", "http://127.0.0.1:8585/v1", true),
            ("127.0.0.1:8585", "http://127.0.0.1:8585/v1", true),
            ("127.0.0.0/8", "http://127.0.0.1:8585/v1", true),
            ("10.0.0.0/8", "http://127.0.0.1:8585/v1", false),
            ("::1", "http://[::1]:8585/v1", true),
            ("[::1]", "http://[::1]:8585/v1", true),
            ("[::1]:8585", "http://[::1]:8585/v1", true),
            ("[::1]:1", "http://[::1]:8585/v1", false),
            ("::/0", "http://[::1]:8585/v1", true),
        ] {
            assert_eq!(is_exempt(list, &upstream.parse().unwrap()), exempt, "{list:?} {upstream}");
        }
    }
}
