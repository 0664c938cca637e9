//! The environment of the command: where SDKs read their base URL, and what would lead them past it.
//!
//! Reads and writes lists of variables; touches no process.

use std::ffi::{OsStr, OsString};

use super::tools::{Shape, VARIABLES};

/// The upstream that the environment names for the command, if it names one.
pub(super) fn upstream(environment: &[(OsString, OsString)]) -> Option<String> {
    let named = VARIABLES.iter().filter(|variable| variable.shape == Shape::BaseUrl);
    let mut values = named.filter_map(|variable| value(environment, variable.name));
    // What is no text is for the settings to complain about.
    values.next().map(|value| value.to_string_lossy().into_owned())
}

/// What the command's environment has besides or instead.
pub(super) fn variables(environment: &[(OsString, OsString)], base_url: &str) -> Vec<(OsString, OsString)> {
    let origin = base_url.strip_suffix("/v1").unwrap_or(base_url);
    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    for variable in VARIABLES {
        let value = match variable.shape {
            Shape::BaseUrl => base_url,
            // Read by one tool only, that may mean another provider by it.
            Shape::Origin if value(environment, variable.name).is_some() => continue,
            Shape::Origin => origin,
        };
        variables.push((variable.name.into(), value.into()));
    }
    variables.extend(around_proxies(environment));
    variables
}

/// A proxy for plain HTTP would be asked for our loopback port, which is not its own: it is to be left out.
fn around_proxies(environment: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let proxied = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    if !proxied.iter().any(|name| value(environment, name).is_some()) {
        return Vec::new();
    }
    let listed = ["no_proxy", "NO_PROXY"].iter().find_map(|name| value(environment, name));
    let mut list = listed.unwrap_or_default().to_owned();
    if list != "*" {
        if !list.is_empty() {
            list.push(",");
        }
        list.push("127.0.0.1,localhost");
    }
    ["no_proxy", "NO_PROXY"].into_iter().map(|name| (name.into(), list.clone())).collect()
}

/// A variable's value; an empty one is none.
fn value<'a>(environment: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    let found = environment.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn set(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let text = |text: OsString| text.into_string().unwrap();
        let set = variables(&environment(pairs), "http://127.0.0.1:7/v1");
        set.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn sdks_are_told_the_base_url_and_goose_the_origin() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let base = [
            pair("OPENAI_BASE_URL", "http://127.0.0.1:7/v1"),
            pair("OPENAI_API_BASE", "http://127.0.0.1:7/v1"),
        ];
        let host = pair("OPENAI_HOST", "http://127.0.0.1:7");
        assert_eq!(set(&[]), [&base[..], &[host]].concat());
        assert_eq!(set(&[("OPENAI_HOST", "https://elsewhere"), ("OPENAI_BASE_URL", "https://x/v1")]), base);
    }

    #[test]
    fn a_proxy_for_plain_http_is_left_out_for_loopback() {
        let listed = |pairs: &[(&str, &str)]| {
            set(pairs)
                .into_iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("no_proxy"))
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(&[("HTTPS_PROXY", "http://p")]), []);
        for (pairs, list) in [
            (&[("http_proxy", "http://p")][..], "127.0.0.1,localhost"),
            (&[("ALL_PROXY", "socks5://p"), ("NO_PROXY", "a.b")], "a.b,127.0.0.1,localhost"),
            (&[("HTTP_PROXY", "http://p"), ("no_proxy", "*")], "*"),
            (&[("HTTP_PROXY", "http://p"), ("no_proxy", ""), ("NO_PROXY", "c")], "c,127.0.0.1,localhost"),
        ] {
            let both = ["no_proxy", "NO_PROXY"].map(|name| (name.to_owned(), list.to_owned()));
            assert_eq!(listed(pairs), both, "{pairs:?}");
        }
    }

    #[test]
    fn the_provider_named_for_others_is_the_upstream() {
        let named = |pairs: &[(&str, &str)]| upstream(&environment(pairs));
        assert_eq!(named(&[("OPENAI_BASE_URL", ""), ("PATH", "/bin")]), None);
        assert_eq!(named(&[("OPENAI_API_BASE", "http://b/v1")]).as_deref(), Some("http://b/v1"));
        let both = [("OPENAI_API_BASE", "http://b/v1"), ("OPENAI_BASE_URL", "http://a/v1")];
        assert_eq!(named(&both).as_deref(), Some("http://a/v1"));
    }
}
