//! `tailwire check`: what works on the way to the provider, a line each, and what to do about what does not.
//!
//! Sends what a turn would send, but asks for nothing: no token is spent. Changes nothing, repeats nothing, and waits no
//! longer than `timeouts.connect` for each step. How the steps are tried is in `check/steps.rs`.

mod steps;

use std::fmt;

use hyper::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use self::steps::{Way, lanes, network, websocket};
use crate::app::{Ways, ways};
use crate::config::{Compression, Mode, Settings};
use crate::proto::session::Limits;
use crate::proto::session::profile::Profile;
use crate::upstream::extension;
use crate::upstream::handshake::{Dialer, Opened};
use crate::upstream::http::Client;

/// Says on stdout what works; whether nothing failed. The key is the configured one, else the environment's
/// `OPENAI_API_KEY`, if it is set.
pub async fn run(settings: Settings) -> bool {
    // A file that cannot be read was complained about before.
    let configured = settings.keys().ok().and_then(|keys| keys.upstream).map(|key| key.expose().to_owned());
    let key = configured.or_else(|| std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty()));
    let mut failed = 0;
    examine(&settings, key.as_deref(), &mut |finding: Finding| {
        failed += usize::from(finding.mark == Mark::Fails);
        println!("{finding}");
    })
    .await;
    match (failed, key) {
        (0, Some(_)) => println!("\nNothing failed."),
        (0, None) => println!("\nNothing failed. Set OPENAI_API_KEY to have everything tried."),
        (count, _) => println!("\nFailed: {count}."),
    }
    failed == 0
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    mark: Mark,
    topic: &'static str,
    words: String,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// It works.
    Works,
    /// It does not.
    Fails,
    /// It was not tried, or is not to be had and need not be.
    Open,
}

impl Finding {
    fn works(topic: &'static str, words: impl Into<String>) -> Self {
        Self { mark: Mark::Works, topic, words: words.into() }
    }

    fn fails(topic: &'static str, words: impl Into<String>) -> Self {
        Self { mark: Mark::Fails, topic, words: words.into() }
    }

    fn open(topic: &'static str, words: impl Into<String>) -> Self {
        Self { mark: Mark::Open, topic, words: words.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Works => '✓',
            Mark::Fails => '✗',
            Mark::Open => '–',
        };
        write!(f, "{mark} {:<12} {}", self.topic, self.words)
    }
}

async fn examine(settings: &Settings, key: Option<&str>, say: &mut impl FnMut(Finding)) {
    let (way, dialer, client) = match prepare(settings, key) {
        Ok(prepared) => prepared,
        Err(reason) => return say(Finding::fails("settings", reason)),
    };
    let words = format!("{} as `{}`, mode `{}`", way.upstream, way.profile.name, settings.mode.name());
    say(Finding::works("settings", words));

    let opened = dialer.open(&way.target, &way.headers, offer(settings.compression)).await;
    let reached = network(&way, opened.as_ref().err(), say);
    if !reached {
        for topic in ["HTTP", "key", "WebSocket", "compression", "lanes"] {
            say(Finding::open(topic, "not tried: the provider was not reached"));
        }
        return;
    }
    steps::http(&way, &client, say).await;
    say(websocket(&way, settings.mode == Mode::Http, opened.as_ref().err()));
    let Ok(Opened { socket, .. }) = opened else {
        for topic in ["compression", "lanes"] {
            say(Finding::open(topic, "not tried: there is no socket"));
        }
        return;
    };
    say(compression(settings.compression, socket.compression()));
    let allowed = way.profile.apply(Limits::default()).lanes > 0;
    say(if allowed { lanes(socket, way.patience).await } else { no_lanes(&way.profile) });
}

/// What the steps need. The reason if the settings do not allow for it.
fn prepare(settings: &Settings, key: Option<&str>) -> Result<(Way, Dialer, Client), String> {
    let Ways { upstream, profile, dialer, client } = ways(settings).map_err(|error| error.to_string())?;
    let configured = settings.upstream_key.is_some() || settings.upstream_key_file.is_some();
    let key_name = if configured { "upstream_key" } else { "OPENAI_API_KEY" };
    let mut headers = HeaderMap::new();
    let agent = concat!("tailwire/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Some(key) = key {
        let unfit = |_| format!("{key_name} has characters that no header can carry");
        let (header, scheme) = profile.key;
        let mut credential = HeaderValue::from_str(&format!("{scheme}{}", key.trim())).map_err(unfit)?;
        credential.set_sensitive(true);
        headers.insert(header, credential);
    }
    if let Some((name, value)) = profile.header {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let patience = settings.timeouts.connect;
    let proxy = settings.proxy.through().cloned();
    let target = upstream.target("/v1/responses");
    Ok((
        Way { upstream, target, proxy, profile, headers, patience, has_key: key.is_some(), key_name },
        dialer,
        client,
    ))
}

fn offer(compression: Compression) -> extension::Compression {
    match compression {
        Compression::Off => extension::Compression::Off,
        Compression::Pooled => extension::Compression::Pooled,
        Compression::Auto | Compression::Takeover => extension::Compression::Takeover,
    }
}

fn compression(setting: Compression, granted: Option<&str>) -> Finding {
    match (setting, granted) {
        (_, Some(extension)) => Finding::works("compression", extension),
        (Compression::Off, None) => Finding::open("compression", "switched off by `compression = \"off\"`"),
        (_, None) => Finding::open(
            "compression",
            "not granted by this provider: instructions and tools go up in full with each delta",
        ),
    }
}

fn no_lanes(profile: &Profile) -> Finding {
    let words =
        format!("none with `{}`: one turn at a time on a socket, a socket for each turn", profile.name);
    Finding::open("lanes", words)
}

#[cfg(test)]
mod tests;
