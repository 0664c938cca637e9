//! Who may come in, and with whose key they go up: client keys, the guard of the upstream key, and its injection.
//!
//! Works on a request's head alone, before any of its body is read; what it lets in carries the credential that goes up
//! and no other. With neither client keys nor an upstream key it lets everything pass as it came: a foreign page has no
//! credential of ours to spend, and gets what it would get from the provider itself.

use std::fmt;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

use hyper::Request;
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::uri::{Authority, Uri};

use crate::config::Keys;
use crate::proto::digest::{Digest, Key};
use crate::proto::session::profile::Profile;
use crate::proxy::reply::Problem;

/// Where a client's key stands if its `Authorization` is the provider's. Never forwarded.
pub const CLIENT_KEY: &str = "x-tailwire-key";

/// The headers that SDKs put a key into.
const CREDENTIALS: [&str; 3] = ["authorization", "api-key", "x-api-key"];

/// Credentials of one request that are looked at; no client sends more than two.
const MOST_PRESENTED: usize = 8;

/// See the module.
pub struct Admission {
    key: Key,
    /// The header an upstream key goes up in, and what stands before it.
    injects: (&'static str, &'static str),
    /// Behind a lock, because keys change while the program runs.
    grants: RwLock<Arc<Grants>>,
}

/// Which client a request came from, where the credential that goes up does not tell: part of every scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest(Digest);

/// The keys in force. Clients' are digests: what is compared says nothing about how near a guess was.
#[derive(Default)]
struct Grants {
    clients: Vec<(String, Digest)>,
    upstream: Option<HeaderValue>,
}

impl Guest {
    /// What it is told apart by.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl Admission {
    /// Admits by these keys; `key` is the process's digest key.
    #[must_use]
    pub fn new(key: Key, profile: &Profile, keys: &Keys) -> Self {
        let admission = Self { key, injects: profile.key, grants: RwLock::default() };
        admission.replace(keys);
        admission
    }

    /// Admits by these keys from now on. Requests and tunnels that were let in stay.
    pub fn replace(&self, keys: &Keys) {
        let upstream = keys.upstream.as_ref().and_then(|key| {
            let mut value = HeaderValue::from_str(&format!("{}{}", self.injects.1, key.expose())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let client = |client: &crate::config::NamedKey| {
            (client.name.clone(), self.digest([client.key.expose().as_bytes()]))
        };
        let grants = Grants { clients: keys.clients.iter().map(client).collect(), upstream };
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grants);
    }

    /// Lets a request in, with the credential it goes up with and the mark of its client; or says why not.
    ///
    /// # Errors
    /// 401 without a client key where there are some; 403 for what a foreign page may have caused.
    pub fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner).clone();
        let guest = match (grants.clients.is_empty(), &grants.upstream) {
            (true, None) => None,
            (true, Some(_)) => {
                local(request.uri().authority(), request.headers()).map_err(Problem::foreign)?;
                // What it brought is replaced, but two programs that brought different keys meant to be two.
                Some(self.digest(presented(request.headers(), true)))
            }
            (false, upstream) => {
                let replaced = upstream.is_some();
                let (name, digest) =
                    self.recognise(&grants.clients, presented(request.headers(), replaced)).ok_or_else(
                        || Problem::stranger(if replaced { "authorization" } else { "x-tailwire-key" }),
                    )?;
                tracing::debug!(client = name, "request admitted");
                Some(*digest)
            }
        };
        let headers = request.headers_mut();
        headers.remove(CLIENT_KEY);
        if let Some(credential) = &grants.upstream {
            for name in CREDENTIALS {
                headers.remove(name);
            }
            headers.insert(self.injects.0, credential.clone());
        }
        if let Some(digest) = guest {
            request.extensions_mut().insert(Guest(digest));
        }
        Ok(())
    }

    /// The client that one of these keys belongs to. Looks at every pair, whatever it finds.
    fn recognise<'a>(
        &self,
        clients: &'a [(String, Digest)],
        presented: impl Iterator<Item = &'a [u8]>,
    ) -> Option<(&'a str, &'a Digest)> {
        let mut found = None;
        for key in presented {
            let digest = self.digest([key]);
            for (name, known) in clients {
                if same(&digest, known) {
                    found = Some((name.as_str(), known));
                }
            }
        }
        found
    }

    fn digest<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut hasher = self.key.hasher("client-key");
        for key in keys {
            hasher.field(key);
        }
        hasher.finish()
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("injects", &self.injects.0).finish_non_exhaustive()
    }
}

/// Compares all 32 bytes, always.
fn same(one: &Digest, other: &Digest) -> bool {
    let pairs = one.as_bytes().iter().zip(other.as_bytes());
    black_box(pairs.fold(0, |differences, (left, right)| differences | (left ^ right))) == 0
}

/// The keys a request presents: in the header of our own, and, where the provider's key takes their place, in those of
/// the SDKs.
fn presented(headers: &HeaderMap, replaced: bool) -> impl Iterator<Item = &[u8]> {
    let usual = CREDENTIALS.into_iter().take(if replaced { CREDENTIALS.len() } else { 0 });
    std::iter::once(CLIENT_KEY)
        .chain(usual)
        .flat_map(|name| headers.get_all(name))
        .map(|value| without_scheme(value.as_bytes()))
        .take(MOST_PRESENTED)
}

fn without_scheme(value: &[u8]) -> &[u8] {
    match value.split_at_checked(BEARER.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(BEARER) => key.trim_ascii(),
        _ => value.trim_ascii(),
    }
}

const BEARER: &[u8] = b"Bearer ";

/// Whether a program on this machine sent this of its own accord, as far as a browser would tell: it came to a name of
/// this machine (a foreign name that resolves here is DNS rebinding), and from no foreign page.
///
/// # Errors
/// The header that shows otherwise.
pub fn local(authority: Option<&Authority>, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter().map(|host| {
        host.to_str()
            .ok()
            .and_then(|host| host.parse::<Authority>().ok())
            .is_some_and(|host| is_loopback(&host))
    });
    // HTTP/2 has the host in `:authority`, HTTP/1.1 in `Host`, a confused client in both.
    let named = authority.is_some() || headers.contains_key(HOST);
    if !named || authority.is_some_and(|host| !is_loopback(host)) || !hosts.all(|local| local) {
        return Err("host");
    }
    let mut origins = headers.get_all(ORIGIN).iter().peekable();
    let has_origin = origins.peek().is_some();
    if !origins.all(is_local_origin) {
        return Err("origin");
    }
    // An image or a form of a foreign page may come without `Origin`, but not without this (Fetch Metadata, since 2023 in
    // every browser).
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    match site {
        None | Some(b"none" | b"same-origin" | b"same-site") => Ok(()),
        Some(_) if has_origin => Ok(()),
        Some(_) => Err("sec-fetch-site"),
    }
}

/// A page served from this machine. `null` and the schemes of extensions and apps are foreign.
fn is_local_origin(origin: &HeaderValue) -> bool {
    let Some(uri) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else { return false };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some_and(is_loopback)
}

/// `localhost`, a name below it (RFC 6761 6.3), 127.0.0.0/8 or ::1, on any port.
fn is_loopback(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests;
