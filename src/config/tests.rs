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
    assert_eq!((settings.listen.to_string().as_str(), settings.limits.turns), ("127.0.0.1:2", 1));
    assert_eq!(settings.limits.sockets, 256);

    let flag = ("listen", String::from("127.0.0.1:3"));
    let settings = load_with(&[("TAILWIRE_LISTEN", "127.0.0.1:2")], &[flag]).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:3");
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
            "line 2: listen: expected an IP address and a port; port 0 picks a free one; or unix: and a path; found a number",
        ),
        ("admin_listen = \"localhost\"", "`localhost` is neither `auto` nor `off` nor an address"),
        (
            "admin_listen = \"0.0.0.0:1\"",
            "line 1: admin_listen: other machines can reach 0.0.0.0:1; set admin_allow",
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
        ("client_certificate = \"/nowhere/c.pem\"", "client_certificate: no file at /nowhere/c.pem"),
        ("client_key = \"alice sk-planted-0123456789\"", "client_key: no such file (keys of clients belong"),
        ("listen_mode = 600", "expected permissions as `chmod` takes them"),
        ("listen = \"unix:\"", "a unix socket has a path of"),
        ("proxy = \"ftp://p:1\"", "line 1: proxy: a proxy's URL begins with http://"),
        ("proxy = true", "expected \"environment\" | \"off\" | a proxy's URL; found a boolean"),
        ("extra_ca_files = [1]", "found a list of things that are not texts"),
        ("per_turn_headers = [\"a b\"]", "`a b` is not a header's name"),
        ("per_turn_headers = [\"x-a\", \"X-Api-Key\"]", "`X-Api-Key` says who is asking"),
        ("per_turn_headers = [\"OpenAI-Organization\"]", "says who is asking"),
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
    assert!(from_text("admin_listen = \"0.0.0.0:1\"\nadmin_allow_remote = true").is_ok());
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

const KEY: &str = "sk-planted-0123456789";

/// A folder with these files, removed with the guard.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("tailwire-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn who_may_listen_where() {
    let folder = Folder::new("listen", &[("c.pem", ""), ("k.pem", ""), ("clients", KEY), ("upstream", KEY)]);
    let tls = format!("tls_certificate = {:?}\ntls_key = {:?}\n", folder.path("c.pem"), folder.path("k.pem"));
    let clients = format!("client_keys = [{KEY:?}]\n");
    let clients_file = format!("client_keys_file = {:?}\n", folder.path("clients"));
    let upstream = format!("upstream_key = {KEY:?}\n");
    let upstream_file = format!("upstream_key_file = {:?}\n", folder.path("upstream"));
    let (loud, open) = ("allow_remote = true\n", "listen: other machines can reach 0.0.0.0:1");
    let spent = "whoever reaches 0.0.0.0:1 could spend it";
    for (parts, refusal) in [
        (&[][..], Some(open)),
        (&[&*tls], Some(open)),
        (&[&*clients], Some(open)),
        (&[&*clients, &tls], None),
        (&[&*clients_file, &tls], None),
        (&[&*clients, &tls, &upstream], None),
        (&[loud], None),
        (&[loud, &upstream], Some(spent)),
        (&[loud, &upstream_file], Some(spent)),
        (&[loud, &tls, &upstream], Some(spent)),
        (&[loud, &upstream, &clients], None),
        (&[&*upstream, &tls], Some(open)),
    ] {
        for listen in ["0.0.0.0:1", "127.0.0.1:1"] {
            let text = format!("listen = {listen:?}\n{}", parts.concat());
            let refused = from_text(&text).err().map(|error| error.to_string());
            let expected = refusal.filter(|_| listen.starts_with('0'));
            assert_eq!(refused.is_some(), expected.is_some(), "{text} {refused:?}");
            assert!(refused.unwrap_or_default().contains(expected.unwrap_or_default()), "{text}");
        }
    }
}

#[test]
fn keys_are_refused_by_place_and_never_quoted() {
    let twice = format!("# two\nalice {KEY}\n\nbob {KEY}\n");
    let folder = Folder::new(
        "keys",
        &[
            ("c.pem", ""),
            ("twice", &twice),
            ("none", "# nobody\n\n"),
            ("short", "alice 0123456789abcde"),
            ("words", "sk-planted two"),
            ("empty", " \n"),
            ("good", KEY),
        ],
    );
    let file = |key: &str, name: &str| format!("{key} = {:?}", folder.path(name));
    for (text, expected) in [
        (
            String::from("client_keys = [\"short-planted\"]"),
            "line 1: client_keys: number 1: a key must be 16 to 512",
        ),
        (format!("client_keys = [{KEY:?}, \"a b {KEY}\"]"), "number 2: must be written as KEY or NAME KEY"),
        (format!("client_keys = [{KEY:?}, \"bob {KEY}\"]"), "client_keys: the same key as in client_keys"),
        (format!("client_keys = {KEY:?}"), "expected a list of"),
        (
            format!("client_keys = [{KEY:?}]\n{}", file("client_keys_file", "good")),
            "good line 1: the same key as in client_keys",
        ),
        (file("client_keys_file", "twice"), "twice line 4: the same key as in"),
        (file("client_keys_file", "none"), "none: must hold 1 to 1024 client keys"),
        (file("client_keys_file", "short"), "short line 1: a key must be"),
        (file("client_keys_file", "nowhere"), "no file at"),
        (file("upstream_key_file", "words"), "words: not a key"),
        (file("upstream_key_file", "empty"), "empty: not a key"),
        (format!("upstream_key = \"{KEY} \\u0007\""), "line 1: upstream_key: not a key"),
        (
            format!("upstream_key = {KEY:?}\n{}", file("upstream_key_file", "good")),
            "line 1: upstream_key: there is an upstream_key_file too",
        ),
        (format!("upstream_key = {KEY}"), "line 1: not TOML"),
        (format!("upstream_key = \"{KEY}"), "line 1: not TOML"),
        (format!("upstraem_key = {KEY:?}"), "the nearest is `upstream_key`"),
        (
            file("tls_certificate", "c.pem"),
            "line 1: tls_certificate: its private key is missing: set tls_key",
        ),
        (file("tls_key", "c.pem"), "line 1: tls_key: its certificate is missing: set tls_certificate"),
        (file("tls_key", "nowhere"), "tls_key: no file at"),
        (
            format!(
                "listen = \"unix:/nowhere/s\"\n{}\n{}",
                file("tls_certificate", "c.pem"),
                file("tls_key", "c.pem")
            ),
            "line 2: tls_certificate: there is no TLS over a unix socket",
        ),
        (
            file("client_certificate", "c.pem"),
            "line 1: client_certificate: its private key is missing: set client_key",
        ),
        (file("client_key", "c.pem"), "client_key: its certificate is missing: set client_certificate"),
    ] {
        let error = from_text(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n  said:     {error}\n  expected: {expected}");
        assert!(!error.contains("sk-planted") && !error.contains("short-planted"), "{error}");
    }
}

#[test]
fn settings_with_keys_show_none() {
    let folder = Folder::new("shown", &[("clients", KEY), ("upstream", "sk-planted-upstream\n")]);
    let pairs = [
        ("TAILWIRE_CLIENT_KEYS", "alice sk-planted-alice-0123,sk-planted-bob-456789"),
        ("TAILWIRE_CLIENT_KEYS_FILE", &folder.path("clients")),
        ("TAILWIRE_UPSTREAM_KEY_FILE", &folder.path("upstream")),
    ];
    let settings = load_with(&pairs, &[]).unwrap();
    let keys = settings.keys().unwrap();
    assert_eq!(keys.clients.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["alice", "", ""]);
    assert_eq!(keys.upstream.as_ref().unwrap().expose(), "sk-planted-upstream");
    let shown = format!("{settings:?} {keys:?}");
    assert!(shown.contains("***") && !shown.contains("planted"), "{shown}");
    let settings = load_with(&[("TAILWIRE_UPSTREAM_KEY", KEY)], &[]).unwrap();
    assert_eq!(settings.upstream_key.unwrap().expose(), KEY);
}

/// The rules of the variables themselves are tested beside them.
#[test]
fn the_setting_wins_over_the_proxy_variables() {
    let upstream = ("TAILWIRE_UPSTREAM", "https://api.test");
    let variable = ("HTTPS_PROXY", "http://u:hunter2@a:1");
    let chosen = |pairs: &[(&str, &str)], flags: &[(&'static str, String)]| {
        let settings = load_with(&[&[upstream][..], pairs].concat(), flags).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        format!("{:?}", settings.proxy)
    };
    let through = |url: &str, source: &str| format!("Through({url} ({source}))");
    assert_eq!(chosen(&[], &[]), "Off");
    assert_eq!(chosen(&[variable], &[]), through("http://a:1", "HTTPS_PROXY"));
    assert_eq!(chosen(&[variable, ("NO_PROXY", "test")], &[]), "Off");
    assert_eq!(chosen(&[variable, ("TAILWIRE_PROXY", "off")], &[]), "Off");
    let named = ("TAILWIRE_PROXY", "socks5h://b");
    assert_eq!(chosen(&[variable, named, ("NO_PROXY", "*")], &[]), through("socks5h://b:1080", "proxy"));
    let flag = ("proxy", String::from("http://u:hunter2@c:2"));
    assert_eq!(chosen(&[variable, named], &[flag]), through("http://c:2", "proxy"));
    let flag = ("proxy", String::from("environment"));
    assert_eq!(chosen(&[variable, named], &[flag]), through("http://a:1", "HTTPS_PROXY"));

    let refused = |pairs: &[(&str, &str)]| load_with(pairs, &[]).unwrap_err().to_string();
    let error = refused(&[upstream, ("HTTPS_PROXY", "http://u:hunter2/@a:1")]);
    assert!(
        error.starts_with("HTTPS_PROXY: a proxy is written like") && !error.contains("hunter2"),
        "{error}"
    );
    let error = refused(&[upstream, ("TAILWIRE_PROXY", "socks4://u:hunter2@a:1")]);
    assert!(error.starts_with("TAILWIRE_PROXY: proxy: a proxy's URL begins with http://"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_settings_file_with_a_key_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let written = format!("\nupstream_key = {KEY:?}");
    let proxy = "proxy = \"http://u:hunter2@proxy:1\"";
    let folder = Folder::new(
        "exposed",
        &[("key.toml", &written), ("plain.toml", "upstream_key = \"\""), ("proxy.toml", proxy)],
    );
    let read = |name: &str, mode: u32| {
        let path = folder.0.join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        load(Some(&path), [], &[]).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(read("key.toml", 0o644).ends_with(
        "key.toml line 2: upstream_key: others can read this file; `chmod 600` it, or set upstream_key_file"
    ));
    assert_eq!(read("key.toml", 0o600), "");
    assert!(read("proxy.toml", 0o644).ends_with("`chmod 600` it, or set HTTPS_PROXY in its place"));
    assert_eq!(read("proxy.toml", 0o600), "");
    assert_eq!(read("plain.toml", 0o644), "");
}
