//! The rooms, wired together: settings in, a listening proxy out, and its orderly end.
//!
//! The only place that knows every room. Decides nothing about requests.

mod admin;
mod files;
mod stops;
mod systemd;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::admin::AdminListener;
use self::files::{Files, Seen};
use self::stops::Stops;
use self::systemd::Supervisor;
use crate::args::SimArgs;
use crate::config::{Compression, Listen, ProfileName, Reasoning, Settings};
use crate::downstream::listen::{self, Stage};
use crate::downstream::listener::Listener;
use crate::downstream::tls::{Pem, Tls as ServerTls, TlsError};
use crate::proto::core::Core;
use crate::proto::digest::Key;
use crate::proto::session::Limits;
use crate::proto::session::profile::Profile;
use crate::proxy::admission::Admission;
use crate::proxy::{Parts, Proxy, reply};
use crate::sim::script::{Link, Script};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::summary::Summary;
use crate::telemetry::turns::Journal;
use crate::upstream::connector::Connector;
use crate::upstream::extension;
use crate::upstream::handshake::Dialer;
use crate::upstream::http::Client;
use crate::upstream::inbox::Bounds;
use crate::upstream::origin::Upstream;
use crate::upstream::pool::Pool;
use crate::upstream::tls::{Identity, Tls};
use crate::{sim, upstream};

/// A proxy that is listening inside this process.
#[derive(Debug)]
pub struct Running {
    /// Where; `0.0.0.0:0` on a unix socket.
    pub addr: SocketAddr,
    base_url: String,
    proxy: Arc<Proxy>,
    stage: watch::Sender<Stage>,
    serving: JoinHandle<u32>,
    files: Arc<Files>,
    _watching: Watching,
    admin: AdminListener,
}

impl Running {
    /// Binds `settings.listen` and serves.
    ///
    /// # Errors
    /// The address cannot be bound, or a file of certificates or keys cannot be used.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        Self::start_within(settings, |_| {}).await
    }

    /// The same within limits that are the provider's to set, such as the age of a socket.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_within(settings: Settings, adjust: impl FnOnce(&mut Limits)) -> io::Result<Self> {
        let listener = bind(&settings).await?;
        Self::start_on(listener, settings, adjust).await
    }

    /// The same on a socket that listens already.
    async fn start_on(
        listener: Listener,
        settings: Settings,
        adjust: impl FnOnce(&mut Limits),
    ) -> io::Result<Self> {
        let seen = Seen::now(&settings);
        let tls = server_tls(&settings).map_err(io::Error::other)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let port = listener.port();
        let addr = port.unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
        let base_url =
            port.map_or_else(|| settings.listen.to_string(), |port| format!("{scheme}://{port}/v1"));
        let limits = listen_limits(&settings);
        let proxy = Arc::new(build(settings.clone(), adjust)?);
        let files = Arc::new(Files::new(settings, seen, tls.clone(), proxy.clone()));
        let watching = Watching(tokio::spawn(files.clone().watch()));
        let (stage, stages) = watch::channel(Stage::Running);
        let admin = AdminListener::start(&proxy, limits, stages.clone()).await?;
        let handler = {
            let proxy = proxy.clone();
            move |request| reply::guarded(proxy.clone().handle(request))
        };
        let serving = tokio::spawn(listen::serve_over(tls, listener, handler, limits, stages));
        Ok(Self { addr, base_url, proxy, stage, serving, files, _watching: watching, admin })
    }

    /// What a client sets as its base URL; of a unix socket, `unix:` and its path.
    pub fn base_url(&self) -> String {
        self.base_url.clone()
    }

    /// Where health, metrics and the dashboard are; none if the settings have them off, or they had no place.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.addr
    }

    /// Reads the files of keys and certificates again, changed or not. What cannot be used is reported in the log, and the
    /// old goes on.
    pub fn reload(&self) {
        self.files.reload();
    }

    /// Everything that is counted.
    pub fn metrics(&self) -> &Metrics {
        self.proxy.metrics()
    }

    /// What all turns so far come to.
    pub fn summary(&self) -> Summary {
        Summary::of(self.proxy.metrics())
    }

    /// The last turns.
    pub fn journal(&self) -> &Arc<Journal> {
        self.proxy.journal()
    }

    /// Upstream sockets, open or opening.
    pub fn sockets(&self) -> usize {
        self.proxy.pool().sockets()
    }

    /// Turns whose clients are being served, and turns that have a place on a socket.
    pub fn turns(&self) -> (usize, usize) {
        (self.proxy.turns(), self.proxy.pool().turns())
    }

    /// Bytes of request bodies that are held.
    pub fn bodies(&self) -> usize {
        self.proxy.bodies()
    }

    /// Bytes that wait for clients, of all turns.
    pub fn buffered(&self) -> usize {
        self.proxy.pool().buffered()
    }

    /// Accepts no more; requests in flight may end within the drain time, then they are cut.
    pub async fn stop(self) {
        self.stage.send_replace(Stage::Draining);
        self.finish().await;
    }

    /// The same, cut short when `hurry` ends; returns what all turns came to.
    pub async fn close(self, hurry: impl Future<Output = ()>) -> Summary {
        self.stage.send_replace(Stage::Draining);
        let (proxy, stage) = (self.proxy.clone(), self.stage.clone());
        let mut finished = std::pin::pin!(self.finish());
        tokio::select! {
            _ = &mut finished => {}
            () = hurry => {
                stage.send_replace(Stage::Cut);
                finished.await;
            }
        }
        Summary::of(proxy.metrics())
    }

    /// Waits until all is over, or until it is cut; returns how many connections had to be.
    async fn finish(self) -> u32 {
        let mut stage = self.stage.subscribe();
        let cut = self.serving.await.unwrap_or_default();
        tokio::select! {
            () = self.proxy.pool().close() => {}
            _ = stage.wait_for(|stage| *stage == Stage::Cut) => {}
        }
        self.admin.end().await;
        cut
    }
}

/// The task that looks for changed files; ends with its proxy.
#[derive(Debug)]
struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether the files that the settings name can be used, so that the door can tell bad configuration from an address in
/// use. (Keys were read with the settings.)
///
/// # Errors
/// The first file that cannot.
pub fn check_files(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    server_tls(settings)?;
    upstream_tls(settings)?;
    Ok(())
}

/// The command: serves until told to stop, then drains. A second signal ends it at once. SIGHUP has the files of keys and
/// certificates read again, if there are any; without, it ends the program as it would any other.
///
/// # Errors
/// As [`Running::start`], or the service manager handed over a socket that cannot be used.
pub async fn serve(settings: Settings) -> io::Result<()> {
    let (upstream, drain) = (settings.upstream.to_string(), settings.timeouts.drain);
    let supervisor = Arc::new(Supervisor::from_environment());
    let mut stops = Stops::hear()?;
    let running = match systemd::handed_over(&settings)? {
        Some(listener) => {
            let listener = TcpListener::from_std(listener)?.into();
            Running::start_on(listener, settings, |_| {}).await?
        }
        None => Running::start(settings).await?,
    };
    let hangups = running.files.clone().reload_on_hangup(supervisor.listens())?;
    let status = format!("listening on {} -> {}", running.base_url(), upstream.trim_end_matches('/'));
    println!("tailwire {status}");
    supervisor.ready(&status);
    // The pool's lock is what every turn needs: if it is stuck, so are they.
    let proxy = running.proxy.clone();
    let alive = supervisor.clone().reassure(move || _ = proxy.pool().turns());
    let stage = running.stage.clone();
    let signals = tokio::spawn(async move {
        stops.next().await;
        tracing::info!("draining");
        supervisor.stopping(drain);
        stage.send_replace(Stage::Draining);
        stops.next().await;
        stage.send_replace(Stage::Cut);
    });
    let cut = running.finish().await;
    signals.abort();
    hangups.abort();
    alive.abort();
    tracing::info!(cut, "stopped");
    Ok(())
}

/// Runs the simulated provider until it is told to stop.
///
/// # Errors
/// The address cannot be bound.
pub async fn simulate(arguments: SimArgs) -> io::Result<()> {
    let mut stops = Stops::hear()?;
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("tailwire sim listening on http://{}/v1", listener.local_addr()?);
    let provider = sim::Provider::new(script(&arguments));
    sim::serve(listener, provider, async move { stops.next().await }).await;
    Ok(())
}

fn script(arguments: &SimArgs) -> Script {
    let link = &arguments.link;
    Script {
        speed: f64::from(link.tokens_per_second),
        link: Link { rtt: link.rtt, uplink: link.uplink / 8, handshakes: 2 },
        limits: if arguments.one_in_flight {
            sim::script::Limits::one_in_flight()
        } else {
            Default::default()
        },
        deflate: true,
        ..Script::default()
    }
}

/// Where the provider is, its rules, and the two ways to it.
pub(crate) struct Ways {
    pub(crate) upstream: Upstream,
    pub(crate) profile: Profile,
    pub(crate) dialer: Dialer,
    pub(crate) client: Client,
}

/// The ways that the settings lead to.
///
/// # Errors
/// A file of authorities that cannot be used.
pub(crate) fn ways(settings: &Settings) -> io::Result<Ways> {
    let upstream = Upstream::parse(&settings.upstream.to_string()).map_err(io::Error::other)?;
    let profile = match settings.profile {
        ProfileName::Auto => None,
        named => Profile::named(named.name()),
    };
    let profile = profile.unwrap_or_else(|| Profile::of_host(upstream.host()));
    let tls = upstream_tls(settings).map_err(io::Error::other)?;
    let proxy = settings.proxy.through();
    if let Some(proxy) = proxy {
        tracing::info!(%proxy, from = proxy.source(), "a proxy leads to the upstream");
    }
    // One connector, so that sockets and HTTP cannot go different ways.
    let connector = Connector::new(tls).through(proxy.cloned()).with_timeout(settings.timeouts.connect);
    let client = Client::over(connector.clone());
    let dialer = Dialer::over(connector).with_message_bytes(settings.limits.message);
    Ok(Ways { upstream, profile, dialer, client })
}

fn build(settings: Settings, adjust: impl FnOnce(&mut Limits)) -> io::Result<Proxy> {
    let Ways { upstream, profile, dialer, client } = ways(&settings)?;
    let limits = &settings.limits;
    let key = key()?;
    let strict = settings.reasoning == Reasoning::Strict;
    let mut allowed = profile.apply(session_limits(&settings));
    adjust(&mut allowed);
    let core = Core::new(key.clone(), allowed, strict, limits.index);
    let offer = match settings.compression {
        Compression::Auto => None,
        Compression::Off => Some(extension::Compression::Off),
        Compression::Takeover => Some(extension::Compression::Takeover),
        Compression::Pooled => Some(extension::Compression::Pooled),
    };
    let bounds =
        Bounds { lag: limits.lag, turn: limits.turn_buffer, all: limits.all_buffers, turns: limits.turns };
    let metrics = Arc::new(Metrics::default());
    let target = upstream.target("/v1/responses");
    let pool = Pool::new(core, (dialer.clone(), target), offer, bounds, metrics.clone());
    let admission = Admission::new(key.clone(), &profile, &settings.keys().map_err(io::Error::other)?);
    Ok(Proxy::new(settings, key, Parts { admission, profile, upstream, pool, client, dialer, metrics }))
}

async fn bind(settings: &Settings) -> io::Result<Listener> {
    match &settings.listen {
        Listen::Tcp(address) => TcpListener::bind(address).await.map(Listener::from),
        #[cfg(unix)]
        Listen::Unix(path) => Listener::bind_file(path, settings.listen_mode).await,
        #[cfg(not(unix))]
        Listen::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn upstream_tls(settings: &Settings) -> Result<Tls, upstream::tls::TlsError> {
    let identity = match (&settings.client_certificate, &settings.client_key) {
        (Some(certificate), Some(key)) => {
            Some(Identity { certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    Tls::presenting(&settings.extra_ca_files, identity.as_ref())
}

fn session_limits(settings: &Settings) -> Limits {
    let (limits, timeouts) = (&settings.limits, &settings.timeouts);
    Limits {
        sockets_per_account: limits.sockets_per_credential,
        sockets: limits.sockets,
        frame: limits.frame,
        own_socket_frame: limits.own_socket_frame,
        idle: timeouts.idle_socket,
        ping: timeouts.ping,
        pong: timeouts.pong,
        first_event: timeouts.first_event,
        silence: timeouts.silence,
        abandon_grace: timeouts.abandon_grace,
        latch: timeouts.http_latch,
        backoff: (timeouts.backoff_min, timeouts.backoff_max),
        ..Limits::default()
    }
}

fn server_tls(settings: &Settings) -> Result<Option<ServerTls>, TlsError> {
    let (Some(certificate), Some(key)) = (&settings.tls_certificate, &settings.tls_key) else {
        return Ok(None);
    };
    let pem = Pem { certificate: certificate.clone(), key: key.clone() };
    ServerTls::new(pem, settings.timeouts.tls_handshake).map(Some)
}

fn listen_limits(settings: &Settings) -> listen::Limits {
    listen::Limits {
        connections: u32::try_from(settings.limits.connections).unwrap_or(u32::MAX),
        header_timeout: settings.timeouts.header,
        header_bytes: settings.limits.head,
        headers: settings.limits.headers,
        streams: u32::try_from(settings.limits.streams).unwrap_or(u32::MAX),
        half_close: settings.timeouts.half_close,
        stalled: settings.timeouts.stalled_client,
        grace: settings.timeouts.drain,
    }
}

fn key() -> io::Result<Key> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(Key::new(random))
}
