//! The rooms, wired together: settings in, a listening proxy out, and its orderly end.
//!
//! The only place that knows every room. Decides nothing about requests.

mod files;
mod stops;
mod systemd;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::files::Files;
use self::stops::Stops;
use self::systemd::Supervisor;
use crate::args::SimArgs;
use crate::config::{Compression, ProfileName, Reasoning, Settings};
use crate::downstream::listen::{self, Stage};
use crate::downstream::tls::{Pem, Tls as ServerTls, TlsError};
use crate::proto::core::Core;
use crate::proto::digest::Key;
use crate::proto::session::Limits;
use crate::proto::session::profile::Profile;
use crate::proxy::admission::Admission;
use crate::proxy::{Parts, Proxy, reply};
use crate::sim;
use crate::sim::script::{Link, Script};
use crate::telemetry::metrics::Metrics;
use crate::upstream::extension;
use crate::upstream::handshake::Dialer;
use crate::upstream::http::Client;
use crate::upstream::inbox::Bounds;
use crate::upstream::origin::Upstream;
use crate::upstream::pool::Pool;
use crate::upstream::tls::Tls;

/// A proxy that is listening inside this process.
#[derive(Debug)]
pub struct Running {
    /// Where.
    pub addr: SocketAddr,
    proxy: Arc<Proxy>,
    stage: watch::Sender<Stage>,
    serving: JoinHandle<u32>,
    files: Arc<Files>,
    _watching: Watching,
    scheme: &'static str,
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
        let listener = TcpListener::bind(settings.listen).await?;
        Self::start_on(listener, settings, adjust).await
    }

    /// The same on a socket that listens already.
    async fn start_on(
        listener: TcpListener,
        settings: Settings,
        adjust: impl FnOnce(&mut Limits),
    ) -> io::Result<Self> {
        let tls = server_tls(&settings).map_err(io::Error::other)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let addr = listener.local_addr()?;
        let limits = listen_limits(&settings);
        let proxy = Arc::new(build(settings.clone(), adjust)?);
        let files = Arc::new(Files::new(settings, tls.clone(), proxy.clone()));
        let watching = Watching(tokio::spawn(files.clone().watch()));
        let (stage, stages) = watch::channel(Stage::Running);
        let handler = {
            let proxy = proxy.clone();
            move |request| reply::guarded(proxy.clone().handle(request))
        };
        let serving = tokio::spawn(listen::serve_over(tls, listener, handler, limits, stages));
        Ok(Self { addr, proxy, stage, serving, files, _watching: watching, scheme })
    }

    /// What a client sets as its base URL.
    pub fn base_url(&self) -> String {
        format!("{}://{}/v1", self.scheme, self.addr)
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

    /// Waits until all is over; returns how many connections had to be cut.
    async fn finish(self) -> u32 {
        let cut = self.serving.await.unwrap_or_default();
        self.proxy.pool().close().await;
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
pub fn check_files(settings: &Settings) -> Result<(), TlsError> {
    server_tls(settings).map(drop)
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
        Some(listener) => Running::start_on(TcpListener::from_std(listener)?, settings, |_| {}).await?,
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

fn build(settings: Settings, adjust: impl FnOnce(&mut Limits)) -> io::Result<Proxy> {
    let upstream = Upstream::parse(&settings.upstream.to_string()).map_err(io::Error::other)?;
    let profile = match settings.profile {
        ProfileName::Auto => Profile::of_host(upstream.host()),
        named => Profile::named(named.name()).unwrap_or_else(|| Profile::of_host(upstream.host())),
    };
    let tls = Tls::new(&settings.extra_ca_files).map_err(io::Error::other)?;
    let (limits, timeouts) = (&settings.limits, &settings.timeouts);
    let dialer = Dialer::new(tls.clone()).with_timeout(timeouts.connect).with_message_bytes(limits.message);
    let client = Client::new(&tls).with_connect_timeout(timeouts.connect);
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
