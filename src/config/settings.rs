//! The high form: every setting, typed, in bounds and resolved. The one table of settings lives here: a row is a
//! field, its sentence, its default and its reader; `proxy.toml`, the variables' names, the known keys and the
//! documentation all come from it. To add a setting, add a row.

use std::{path::PathBuf, time::Duration};

use hyper::{Uri, header::HeaderName};

use super::{
    ConfigError,
    choice::{AdminListen, Chat, Compression, LogFormat, Mode, ProfileName, Reasoning},
    file::{Place, Written},
    listen::{Listen, ListenAt, Permissions},
    proxy::{Choice, ProxyChoice},
    secret::{NamedKey, Secret},
    values::{
        AdminAddress, BaseUrl, ClientKeys, Count, File, Files, Filter, Flag, GIB, Headers, KIB, Key, MIB,
        Names, OneOf, SecretFile, Size, Span,
    },
};

/// One setting, as the sample file and the low form need it.
pub(super) struct Row {
    /// Section and name, such as `limits.frame`.
    pub(super) key: &'static str,
    /// The default, as TOML.
    pub(super) default: &'static str,
    /// The sentences, one line each, with the space that follows `///`.
    pub(super) doc: &'static [&'static str],
    /// Describes what can be written here, with the bounds.
    pub(super) kind: fn() -> String,
}

impl Row {
    /// The name within its section.
    pub(super) fn name(&self) -> &'static str {
        self.key.rsplit('.').next().unwrap_or(self.key)
    }

    /// The environment variable: `TAILWIRE_`, then the key in capitals with `_` for the dot.
    pub(super) fn variable(&self) -> String {
        format!("TAILWIRE_{}", self.key.replace('.', "_").to_uppercase())
    }
}

/// A table of the settings file.
pub(super) struct Section {
    /// Empty for the top level.
    pub(super) name: &'static str,
    pub(super) doc: &'static [&'static str],
    pub(super) rows: &'static [Row],
}

/// Makes a struct of settings, the section's description, and the way from the low form to the struct.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident $title:literal $prefix:literal {
            $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:tt, $reader:expr;)+
        }
        $($(#[doc = $inner_doc:literal])+ $inner:ident: $inner_type:ident,)*
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $type,)+
            $($(#[doc = $inner_doc])+ pub $inner: $inner_type,)*
        }

        impl $name {
            const SECTION: Section = Section {
                name: $title,
                doc: &[$($about),+],
                rows: &[$(Row {
                    key: concat!($prefix, stringify!($key)),
                    default: stringify!($default),
                    doc: &[$($doc),+],
                    kind: || $reader.kind(),
                },)+],
            };

            /// Reads each setting by itself; the relations between settings are [`Settings::from_written`]'s.
            pub(super) fn resolve(written: &Written) -> Result<Self, ConfigError> {
                Ok(Self {
                    $($key: written.value(
                        concat!($prefix, stringify!($key)),
                        stringify!($default),
                        |raw| $reader.read(raw),
                    )?,)+
                    $($inner: $inner_type::resolve(written)?,)*
                })
            }
        }
    };
}

section! {
    /// What tailwire listens on, where it leads, and how turns travel.
    Settings "" "" {
        /// Where clients connect; their base URL is `http://` + this + `/v1` (`https://` with `tls_certificate`). An
        /// address that other machines can reach takes client keys and TLS, or `allow_remote`. `unix:/run/tailwire.sock`
        /// is a unix socket, which counts as loopback.
        listen: Listen = "127.0.0.1:8484", ListenAt;
        /// Who may connect to the unix socket, if `listen` is one: its file's permissions.
        listen_mode: u32 = "0600", Permissions;
        /// Allows `listen` to be something else than this machine's loopback without client keys, without TLS, or
        /// without both. Whoever reaches the port can then use it, or read what is said on it.
        allow_remote: bool = false, Flag;
        /// Where health (`/live`, `/ready`), metrics (`/metrics`), records of turns (`/turns`, `/stats`, `/events`) and the
        /// dashboard (`/`) are: numbers and names, no content and no key. `auto` is 127.0.0.1:8485 if that is free; if not,
        /// there are none, and the log says so. With an address the program does not start where it cannot have it.
        admin_listen: AdminListen = "auto", AdminAddress;
        /// Allows `admin_listen` to be something else than this machine's loopback. Whoever reaches it can then read how much
        /// is used, when and by which plan; there is neither TLS nor a key before it.
        admin_allow_remote: bool = false, Flag;
        /// Who may use the port: a key for each client, `KEY` or `NAME KEY`, of 16 to 512 characters. A client presents
        /// it as SDKs do (`Authorization: Bearer`, `api-key`, `x-api-key`) where there is an upstream key to take its
        /// place, else as `x-tailwire-key`; without it the answer is 401. Two keys never share a conversation.
        client_keys: Vec<NamedKey> = [], ClientKeys;
        /// The same in a file, one a line; `#` begins a comment. Read again when it changes.
        client_keys_file: Option<PathBuf> = "", File;
        /// The provider's key, put in place of whatever credential a client sends. It is given to clients that present
        /// a client key; where none are configured, to loopback only, and there to no page of a foreign web site.
        /// A settings file that holds a key must not be readable by others.
        upstream_key: Option<Secret> = "", Key;
        /// The same in a file, on one line. Read again when it changes.
        upstream_key_file: Option<PathBuf> = "", File;
        /// A PEM file with the certificate clients see, and after it the chain up to its authority. The port then speaks
        /// TLS only. Read again when it changes; connections that are there stay.
        tls_certificate: Option<PathBuf> = "", File;
        /// A PEM file with that certificate's private key.
        tls_key: Option<PathBuf> = "", File;
        /// The provider's base URL, as SDKs take it; a bare origin means `/v1`. Credentials go there and nowhere
        /// else.
        upstream: Uri = "https://api.openai.com/v1", BaseUrl;
        /// The provider's rules: lanes, age of a socket, what it stores. `auto` goes by the upstream's host name;
        /// a wrong profile costs full sends and refusals, never wrong context.
        profile: ProfileName = "auto", OneOf(ProfileName::WORDS);
        /// `auto` sends turns over the WebSocket where it can; `http` makes tailwire a plain pass-through.
        mode: Mode = "auto", OneOf(Mode::WORDS);
        /// When a client leaves out reasoning that the provider still holds: `keep` continues, and the provider
        /// bills that reasoning as input; `strict` sends the turn in full.
        reasoning: Reasoning = "keep", OneOf(Reasoning::WORDS);
        /// `translate` has `POST /v1/chat/completions` travel as a turn of the Responses API where nothing is lost by it, else
        /// untouched; `passthrough` never translates.
        chat: Chat = "translate", OneOf(Chat::WORDS);
        /// Models whose chat requests always pass through untouched. A `*` at the end stands for anything. Models that the
        /// provider says it serves on Chat only are found out by one refusal each.
        chat_only_models: Vec<String> = [], Names;
        /// Whether each proxied turn carries the `x-tailwire` response header, which says how it travelled and
        /// what it cost in bytes.
        plan_header: bool = true, Flag;
        /// permessage-deflate towards the upstream: `auto` keeps a window per socket while sockets are few and
        /// shares it beyond, `takeover` always keeps it (375 KB a socket), `pooled` always shares it (60 KB),
        /// `off` offers none.
        compression: Compression = "auto", OneOf(Compression::WORDS);
        /// PEM files of authorities trusted besides the platform's own, for an upstream behind a private one.
        extra_ca_files: Vec<PathBuf> = [], Files;
        /// A PEM file with the certificate to present to an upstream that asks for one, and after it the chain up to its
        /// authority. Read at start only.
        client_certificate: Option<PathBuf> = "", File;
        /// A PEM file with that certificate's private key, not encrypted.
        client_key: Option<PathBuf> = "", SecretFile;
        /// The forward proxy to the upstream, for sockets and HTTP alike: `environment` obeys HTTPS_PROXY, HTTP_PROXY, ALL_PROXY
        /// and NO_PROXY as curl does; `off` goes directly; a URL (`http://`, `https://`, `socks5://` or `socks5h://`, with
        /// USER:PASSWORD@ where it asks for them) goes through that one always. What fails on the way through a proxy is
        /// reported, never tried without. A settings file that holds a password must not be readable by others.
        proxy: ProxyChoice = "environment", Choice;
        /// Request headers that differ from turn to turn and say nothing about who is asking. Unknown headers
        /// otherwise belong to the identity, and a change in one starts a new conversation in full. Keys, cookies and what else
        /// every provider reads as identity (`openai-*`, `chatgpt-account-id`) cannot be among them.
        per_turn_headers: Vec<HeaderName> = [], Headers;
    }
    /// Bounds on memory and numbers.
    limits: Limits,
    /// Bounds on waiting.
    timeouts: Timeouts,
    /// What is logged.
    log: Log,
}

section! {
    /// Bounds on memory and numbers: nothing here is without one.
    Limits "limits" "limits." {
        /// The largest body of a turn, after decoding. A larger one is answered 413. What passes through is not held, and has no
        /// limit.
        body: usize = "64MiB", Size(KIB, GIB);
        /// All bodies of turns that are held at a time, as they came and decoded: each until its answer begins (streams) or ends.
        /// Beyond it a turn is answered 503 with `retry-after`.
        all_bodies: usize = "1GiB", Size(KIB, 64 * GIB);
        /// The largest frame sent upstream. A larger turn goes over HTTP.
        frame: usize = "15MiB", Size(KIB, 16 * MIB);
        /// A frame above this, and above any the upstream has taken so far, goes on a socket of its own, so that
        /// a refusal for size ends no other turn.
        own_socket_frame: usize = "1MiB", Size(KIB, 16 * MIB);
        /// The largest message from the upstream, decompressed. A larger one ends the socket it came on.
        message: usize = "64MiB", Size(KIB, GIB);
        /// How much of one turn's answer may wait for its client. A slower client's turn ends with an error when
        /// it holds up others.
        turn_buffer: usize = "16MiB", Size(KIB, GIB);
        /// The same for all turns together, but for one event each. Once half of it is used, a turn counts as if its
        /// own buffer were full when more waits for it than its share of the other half (that half over `turns`).
        all_buffers: usize = "256MiB", Size(KIB, 64 * GIB);
        /// A socket with a turn that lags by more than this takes no new turns until the client has caught up.
        lag: usize = "1MiB", Size(KIB, GIB);
        /// The memory of the index of conversations (digests and ids, no content). Beyond it the least recently
        /// used is forgotten; its next turn goes in full.
        index: usize = "64MiB", Size(KIB, 64 * GIB);
        /// The largest head of a request. A larger one is answered 431, one with a longer target 414.
        head: usize = "256KiB", Size(8 * KIB, 16 * MIB);
        /// Headers of one request. One with more is answered 431.
        headers: usize = 200, Count(10, 10_000);
        /// Requests at once on one HTTP/2 connection of a client. A further one is refused unprocessed.
        streams: usize = 256, Count(1, 65_536);
        /// Client connections at once. Further ones wait to be accepted.
        connections: usize = 1024, Count(1, 65_536);
        /// Upstream sockets at once. Beyond it turns go over HTTP.
        sockets: usize = 256, Count(1, 65_536);
        /// Upstream sockets of one credential at once. Beyond it the conversation idle for longest gives up its place;
        /// with none idle, turns go over HTTP.
        sockets_per_credential: usize = 16, Count(1, 65_536);
        /// Turns at once. A further one is answered 503 with `retry-after`.
        turns: usize = 4096, Count(1, 1_048_576);
        /// How many of the last turns are remembered for the admin listener (sizes, times and names, no content; some
        /// 250 bytes each). Beyond it the oldest is forgotten.
        recent_turns: usize = 256, Count(0, 65_536);
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A wait that must not be zero.
const WAIT: Span = Span(Duration::from_millis(1), DAY);
/// A wait that may be zero, which means none.
const GRACE: Span = Span(Duration::ZERO, DAY);

section! {
    /// Bounds on waiting.
    Timeouts "timeouts" "timeouts." {
        /// For an upstream connection: name, TCP, TLS and handshake. Beyond it the turn goes over HTTP; an HTTP
        /// turn is answered 504.
        connect: Duration = "10s", WAIT;
        /// For a client's request head, and so also for how long an idle client connection is kept. Beyond it the
        /// connection is closed.
        header: Duration = "75s", WAIT;
        /// For a client's TLS handshake. Beyond it the connection is closed.
        tls_handshake: Duration = "10s", WAIT;
        /// Between two looks at the files of keys and certificates. What has changed is taken over then, at once with
        /// SIGHUP; what cannot be used is reported, and the old goes on.
        file_check: Duration = "30s", WAIT;
        /// Between two pieces of a client's body. Beyond it the request is answered 408.
        body_idle: Duration = "30s", WAIT;
        /// For the whole body of a turn. Beyond it the turn is answered 408. What passes through may take as long as it likes.
        body: Duration = "10m", WAIT;
        /// For a client that has closed its side of a connection (it may be gone, or only have said all it wants) to
        /// take the answer under way, counted from the last byte it took. Beyond it the client counts as gone; by default at
        /// once, as with the providers.
        half_close: Duration = "0ms", GRACE;
        /// From the frame to the first event of its turn. Beyond it its socket takes no new turns, and the turn is
        /// tried on the next rung.
        first_event: Duration = "90s", WAIT;
        /// Between two events of a turn. Beyond it the turn ends with an error, unless the client has seen nothing of
        /// it yet. Long, because a model may think in silence.
        silence: Duration = "15m", WAIT;
        /// Between pings on a socket. Keeps idle ones from being cut by what lies between.
        ping: Duration = "25s", WAIT;
        /// For the answer to a ping. Beyond it the socket counts as lost.
        pong: Duration = "10s", WAIT;
        /// How long a client may take nothing of an answer that waits for it. Beyond it the turn ends as if the client had
        /// left, and its connection with it. One stream of an HTTP/2 connection is broken off once it is read on, or ends with
        /// the connection, which it no longer keeps from counting as idle.
        stalled_client: Duration = "5m", WAIT;
        /// How long an answer nobody listens to is still read. Beyond it its socket takes no new turns.
        abandon_grace: Duration = "5s", GRACE;
        /// How long what is known of the upstream counts for `/ready`. Beyond it `/ready` connects to it anew.
        ready: Duration = "10s", WAIT;
        /// For open turns after the signal to stop. Beyond it they are cut.
        drain: Duration = "30s", GRACE;
        /// A socket without a turn for this long is closed; its conversations' next turns go in full where the
        /// provider stores nothing.
        idle_socket: Duration = "30m", WAIT;
        /// How long turns stay on HTTP after the upstream said it has no WebSocket there.
        http_latch: Duration = "10m", WAIT;
        /// The first wait before another handshake in the background, after one failed. It doubles each time.
        backoff_min: Duration = "1s", WAIT;
        /// The longest such wait.
        backoff_max: Duration = "5m", WAIT;
    }
}

section! {
    /// Logs, on stderr: no keys, no message content.
    Log "log" "log." {
        /// How much tailwire's own modules say. Libraries are heard from `warn` up whatever stands here, as
        /// their finer lines may show headers.
        level: String = "info", Filter;
        /// `text` for people, `json` for machines, one object a line.
        format: LogFormat = "text", OneOf(LogFormat::WORDS);
    }
}

/// The sections in the order of the sample file.
pub(super) fn sections() -> &'static [Section] {
    &[Settings::SECTION, Limits::SECTION, Timeouts::SECTION, Log::SECTION]
}

/// Every setting.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    sections().iter().flat_map(|section| section.rows)
}

impl Settings {
    /// Resolves what was written, and refuses settings that contradict each other.
    pub(super) fn from_written(written: &Written) -> Result<Self, ConfigError> {
        let settings = Self::resolve(written)?;
        let refuse = |place: Place, message: String| Err(ConfigError { place, message });
        settings.check_trust(written)?;
        let (limits, timeouts) = (&settings.limits, &settings.timeouts);
        for (smaller, larger, in_order) in [
            ("limits.body", "limits.all_bodies", limits.body <= limits.all_bodies),
            ("limits.turn_buffer", "limits.all_buffers", limits.turn_buffer <= limits.all_buffers),
            (
                "limits.sockets_per_credential",
                "limits.sockets",
                limits.sockets_per_credential <= limits.sockets,
            ),
            ("timeouts.backoff_min", "timeouts.backoff_max", timeouts.backoff_min <= timeouts.backoff_max),
        ] {
            if !in_order {
                let (place, other) = (written.place(smaller), written.place(larger));
                return refuse(place, format!("{smaller} is more than {larger} ({other})"));
            }
        }
        Ok(settings)
    }

    /// Who may reach the port, and with what. Reads the files of keys, so that a bad one is found at start.
    fn check_trust(&self, written: &Written) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| {
            Err(ConfigError { place: written.place(key), message: format!("{key}: {message}") })
        };
        if self.upstream_key.is_some() && self.upstream_key_file.is_some() {
            return refuse("upstream_key", "there is an upstream_key_file too; give one of them");
        }
        match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => return refuse("tls_certificate", "its private key is missing: set tls_key"),
            (None, Some(_)) => return refuse("tls_key", "its certificate is missing: set tls_certificate"),
            (Some(_), _) if matches!(self.listen, Listen::Unix(_)) => {
                return refuse("tls_certificate", "there is no TLS over a unix socket");
            }
            _ => {}
        }
        match (&self.client_certificate, &self.client_key) {
            (Some(_), None) => {
                return refuse("client_certificate", "its private key is missing: set client_key");
            }
            (None, Some(_)) => {
                return refuse("client_key", "its certificate is missing: set client_certificate");
            }
            _ => {}
        }
        let guarded = !self.client_keys.is_empty() || self.client_keys_file.is_some();
        if !self.listen.is_local() {
            let address = &self.listen;
            let protected = guarded && self.tls_certificate.is_some();
            if !self.allow_remote && !protected {
                let message = format!(
                    "other machines can reach {address}; that takes client keys and TLS (client_keys, \
                     tls_certificate), or allow_remote = true if it is meant without"
                );
                return refuse("listen", &message);
            }
            for (key, is_set) in [
                ("upstream_key", self.upstream_key.is_some()),
                ("upstream_key_file", self.upstream_key_file.is_some()),
            ] {
                if is_set && !guarded {
                    let message = format!("whoever reaches {address} could spend it; set client_keys");
                    return refuse(key, &message);
                }
            }
        }
        if let AdminListen::At(address) = self.admin_listen
            && !address.ip().is_loopback()
            && !self.admin_allow_remote
        {
            let message =
                format!("other machines can reach {address}; set admin_allow_remote if that is meant");
            return refuse("admin_listen", &message);
        }
        self.keys().map(drop)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::from_written(&Written::default()).expect("a test resolves every default")
    }
}
