//! Merging, naming and refusing settings. The readers' own tests are beside the readers.

use std::{ffi::OsString, time::Duration};

use super::*;

fn from_text(text: &str) -> Result<Settings, ConfigError> {
    let mut written = Written::default();
    written.read_file(Path::new("proxy.toml"), text)?;
    Settings::from_written(&written)
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// Under `cargo test` the working directory's `proxy.toml` is the shipped one, which holds only defaults.
fn load_with(pairs: &[(&str, &str)], flags: &[(&'static str, String)]) -> Result<Settings, ConfigError> {
    load(None, variables(pairs), flags)
}

#[test]
fn the_sample_is_the_defaults() {
    let read = from_text(&sample()).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", Settings::default()));
    assert_eq!(read.limits.frame, 15 << 20);
    assert_eq!(read.timeouts.idle_socket, Duration::from_secs(1800));
    assert_eq!(read.upstream.to_string(), "https://api.openai.com/v1");
    assert!(read.plan_header);
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let mut written = Written::default();
    written.read_file(Path::new("proxy.toml"), "listen = \"127.0.0.1:1\"\n[limits]\nturns = 1").unwrap();
    let mut upper = Written::default();
    upper.read_environment(variables(&[("TAILWIRE_LISTEN", "127.0.0.1:2")])).unwrap();
    written.overlay(upper);
    let settings = Settings::from_written(&written).unwrap();
    assert_eq!((settings.listen.port(), settings.limits.turns), (2, 1));
    assert_eq!(settings.limits.sockets, 256);

    let flag = ("listen", String::from("127.0.0.1:3"));
    let settings = load_with(&[("TAILWIRE_LISTEN", "127.0.0.1:2")], &[flag]).unwrap();
    assert_eq!(settings.listen.port(), 3);
}

#[test]
fn variables_reach_every_setting() {
    let settings = load_with(
        &[
            ("TAILWIRE_LIMITS_FRAME", "1MiB"),
            ("TAILWIRE_TIMEOUTS_BODY_IDLE", "7s"),
            ("TAILWIRE_LIMITS_TURNS", "9"),
            ("TAILWIRE_PLAN_HEADER", "false"),
            ("TAILWIRE_PROFILE", "xai"),
            ("TAILWIRE_PER_TURN_HEADERS", "x-a, X-B,"),
            ("TAILWIRE_UPSTREAM", ""),
            ("TAILWIRE_SERVICE_HOST", "set by Kubernetes"),
            ("HOME", "not ours"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(settings.limits.frame, 1 << 20);
    assert_eq!(settings.timeouts.body_idle, Duration::from_secs(7));
    assert_eq!(settings.limits.turns, 9);
    assert!(!settings.plan_header);
    assert_eq!(settings.profile, ProfileName::Xai);
    assert_eq!(settings.per_turn_headers, ["x-a", "x-b"]);

    let mut names: Vec<String> = settings::rows().map(settings::Row::variable).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "two settings share a variable");
    assert!(!names.iter().any(|name| name == "TAILWIRE_CONFIG"));
}

#[test]
fn refusals_say_where_and_what() {
    for (text, expected) in [
        ("listne = \"x\"", "proxy.toml line 1: unknown key `listne`; the nearest is `listen`"),
        (
            "\n[limits]\n\nfrmae = \"1MiB\"",
            "proxy.toml line 4: unknown key `limits.frmae`; the nearest is `limits.frame`",
        ),
        ("[timeout]\nping = \"1s\"", "line 2: unknown key `timeout.ping`; the nearest is `timeouts.ping`"),
        ("pong = \"1s\"", "line 1: unknown key `pong`; the nearest is `timeouts.pong`"),
        ("[limit]", "line 1: unknown key `limit`; the nearest is"),
        ("limits = 5", "line 1: `limits` is a section"),
        ("a = 1\nzz = 2", "line 1: unknown key `a`"),
        (
            "\nlisten = 8484",
            "line 2: listen: expected an IP address and a port; port 0 picks a free one; found a number",
        ),
        ("listen = \"localhost:1\"", "`localhost:1` is not an address such as 127.0.0.1:8484"),
        ("allow_remote = \"yes\"", "expected true or false; found a text"),
        (
            "[limits]\nframe = \"17MiB\"",
            "line 2: limits.frame: 17MiB is out of bounds: a size, 1KiB to 16MiB",
        ),
        ("[limits]\nframe = 100", "expected a size, 1KiB to 16MiB; found a number"),
        ("[limits]\nturns = 0", "0 is out of bounds: a number, 1 to"),
        ("[limits]\nturns = -1", "-1 is out of bounds"),
        ("[timeouts]\nping = \"0s\"", "0s is out of bounds: a time, 1ms to 24h"),
        ("[timeouts]\nping = \"25\"", "`25` is not a time such as"),
        ("profile = \"opnai\"", "`opnai` is not one of \"auto\" | \"openai\""),
        ("upstream = \"api.openai.com\"", "must begin with http:// or https://"),
        ("extra_ca_files = [\"/nowhere/ca.pem\"]", "no file at /nowhere/ca.pem"),
        ("extra_ca_files = [1]", "found a list of things that are not texts"),
        ("per_turn_headers = [\"a b\"]", "`a b` is not a header's name"),
        ("[log]\nlevel = \"inof\"", "`inof` is not a level"),
        (
            "listen = \"0.0.0.0:1\"",
            "line 1: listen: other machines can reach 0.0.0.0:1; that takes client keys and TLS",
        ),
        (
            "[limits]\nall_buffers = \"1MiB\"",
            "default: limits.turn_buffer is more than limits.all_buffers (proxy.toml line 2)",
        ),
        (
            "[timeouts]\nbackoff_min = \"6m\"",
            "timeouts.backoff_min is more than timeouts.backoff_max (default)",
        ),
        ("listen = ", "proxy.toml line 1: not TOML"),
        ("mode = \"http\"\nmode = \"auto\"", "line 2: not TOML: duplicate key"),
    ] {
        let error = from_text(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}\n  said:     {error}\n  expected: {expected}");
    }
    assert!(from_text("listen = \"0.0.0.0:1\"\nallow_remote = true").is_ok());
    assert!(from_text("listen = \"[::1]:1\"\n[timeouts]\ndrain = \"0s\"").is_ok());
}

#[test]
fn unknown_variables_and_missing_files_are_refused() {
    let error = load_with(&[("TAILWIRE_LIMITS_FRAMES", "1MiB")], &[]).unwrap_err().to_string();
    assert_eq!(error, "TAILWIRE_LIMITS_FRAMES: unknown variable; the nearest is `TAILWIRE_LIMITS_FRAME`");
    let error = load_with(&[("TAILWIRE_CONFIG", "/nowhere/proxy.toml")], &[]).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/proxy.toml: cannot be read"), "{error}");
}

#[test]
fn the_own_file_is_the_users_and_never_the_working_directorys() {
    let file = |home: Option<&str>, config: Option<&str>| {
        own_file(home.map(Into::into), config.map(Into::into)).map(|path| path.display().to_string())
    };
    assert_eq!(file(Some("/h"), None).as_deref(), Some("/h/.config/tailwire/proxy.toml"));
    assert_eq!(file(Some("/h"), Some("/c")).as_deref(), Some("/c/tailwire/proxy.toml"));
    assert_eq!(file(Some("/h"), Some("")).as_deref(), Some("/h/.config/tailwire/proxy.toml"));
    assert_eq!(file(None, None), None);
}

#[test]
fn flags_are_checked_by_the_settings_own_rules() {
    assert!(check_flag("listen", "0.0.0.0:0").is_ok(), "whether it is allowed depends on the rest");
    assert!(check_flag("listen", "8484").unwrap_err().contains("`8484` is not an address"));
    assert!(check_flag("log.level", "tailwire::upstream=debug").is_ok());
}
