//! The providers as rows of data: what each allows on a socket. No code path asks for a provider by name.
//!
//! Sources: protocol §1.6 and §4 (OpenAI's guide 2026-08, Azure's 2026-07-24, xAI's, Open Responses 2026-04-24, Codex
//! source 2026-08).

use std::time::Duration;

use crate::proto::session::Limits;
use crate::proto::transcript::request::Request;

/// One provider's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the settings.
    pub name: &'static str,
    /// Hosts that mean it, by suffix.
    hosts: &'static [&'static str],
    /// Responses in flight on one socket.
    in_flight: usize,
    /// Named lanes over a socket's life; 0: the default lane only.
    lanes: u32,
    /// Minutes a socket lives.
    minutes: u64,
    /// True if only `store: false` is served; other turns go over HTTP.
    pub store_false_only: bool,
    /// A top-level field that sockets must not carry: such turns go over HTTP.
    pub forbidden: Option<&'static str>,
    /// A header the upgrade needs.
    pub header: Option<(&'static str, &'static str)>,
    /// The header a key goes up in, and what stands before the key.
    pub key: (&'static str, &'static str),
}

/// RFC 6750.
const BEARER: (&str, &str) = ("authorization", "Bearer ");

const PROFILES: [Profile; 5] = [
    Profile {
        name: "openai",
        hosts: &["api.openai.com"],
        in_flight: 16,
        lanes: 32,
        minutes: 60,
        store_false_only: false,
        forbidden: None,
        header: None,
        key: BEARER,
    },
    Profile {
        name: "azure",
        hosts: &[".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"],
        in_flight: 1,
        lanes: 0,
        minutes: 60,
        store_false_only: false,
        forbidden: None,
        header: None,
        key: ("api-key", ""),
    },
    Profile {
        name: "xai",
        hosts: &["api.x.ai"],
        in_flight: 1,
        lanes: 0,
        minutes: 25,
        store_false_only: false,
        forbidden: None,
        header: None,
        key: BEARER,
    },
    Profile {
        name: "open-responses",
        hosts: &[],
        in_flight: 1,
        lanes: 0,
        minutes: 60,
        store_false_only: false,
        forbidden: Some("stream_options"),
        header: None,
        key: BEARER,
    },
    Profile {
        name: "chatgpt",
        hosts: &["chatgpt.com"],
        in_flight: 1,
        lanes: 0,
        minutes: 60,
        store_false_only: true,
        forbidden: None,
        header: Some(("openai-beta", "responses_websockets=2026-02-06")),
        key: BEARER,
    },
];

impl Profile {
    /// The profile of that name.
    pub fn named(name: &str) -> Option<Self> {
        PROFILES.into_iter().find(|profile| profile.name == name)
    }

    /// The profile of an upstream host. An unknown host is tried as OpenAI and degrades by itself if it has no lanes.
    pub fn of_host(host: &str) -> Self {
        let fits =
            |profile: &Self| profile.hosts.iter().any(|known| host == *known || host.ends_with(*known));
        PROFILES.into_iter().find(fits).unwrap_or_else(|| PROFILES[0].clone())
    }

    /// True if sockets must not carry this request: it goes over HTTP.
    pub fn rules_out(&self, request: &Request) -> bool {
        let forbidden = self.forbidden.and_then(|field| request.value(field));
        forbidden.is_some_and(|value| value != "null") || (self.store_false_only && request.store)
    }

    /// Puts the provider's numbers into the owner's limits. Sockets retire 5 minutes (of 60) before the provider's end.
    pub fn apply(&self, limits: Limits) -> Limits {
        let life = Duration::from_secs(self.minutes * 60);
        Limits {
            in_flight: self.in_flight,
            lanes: self.lanes,
            rotate_after: life - life / 12,
            jitter: life / 20,
            ..limits
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_names() {
        for (host, name) in [
            ("api.openai.com", "openai"),
            ("x.openai.azure.com", "azure"),
            ("api.x.ai", "xai"),
            ("chatgpt.com", "chatgpt"),
            ("127.0.0.1", "openai"),
            ("evil-api.openai.com.example", "openai"),
        ] {
            assert_eq!(Profile::of_host(host).name, name, "{host}");
        }
        assert_eq!(Profile::named("open-responses").map(|profile| profile.lanes), Some(0));
        assert_eq!(Profile::named("nobody"), None);
    }

    #[test]
    fn f40_sockets_retire_before_the_provider_closes_them() {
        for profile in PROFILES {
            let limits = profile.apply(Limits::default());
            assert!(limits.rotate_after < Duration::from_secs(profile.minutes * 60));
            assert!(limits.jitter < limits.rotate_after);
        }
        assert_eq!(PROFILES[0].apply(Limits::default()).rotate_after, Duration::from_secs(55 * 60));
    }
}
