//! The one way to open a connection, for sockets and HTTP alike, so that the two cannot differ: the name, TCP with happy
//! eyeballs (RFC 6555), a forward proxy where there is one, TLS. Speaks no HTTP to the provider and keeps no connection.

use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::config::Proxy;
use crate::upstream::dial::{Chain, ConnectError, DIAL_TIMEOUT, Phase, within};
use crate::upstream::forward;
use crate::upstream::origin::Target;
use crate::upstream::tls::Tls;

/// Opens connections; cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    tls: Tls,
    proxy: Option<Arc<Proxy>>,
    lookup: Lookup,
    pub(super) timeout: Duration,
}

/// Any kind of connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, whatever it leads through.
pub(super) type BoxStream = Box<dyn Stream>;

impl Connection for Box<dyn Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// From a host and a port to its addresses, the best first.
#[derive(Clone)]
pub struct Lookup(Arc<dyn Fn(String, u16) -> Addresses + Send + Sync>);

/// The addresses of a host, the best first, once they are known.
pub type Addresses = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

impl Lookup {
    /// The system's own.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|host, port| Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) }))
    }

    /// Another source of addresses.
    pub fn new(lookup: impl Fn(String, u16) -> Addresses + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lookup")
    }
}

impl Connector {
    /// Directly, with the system's names and the default bound, 10 s.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self { tls, proxy: None, lookup: Lookup::system(), timeout: DIAL_TIMEOUT }
    }

    /// Through this proxy, if it is one.
    #[must_use]
    pub fn through(self, proxy: Option<Proxy>) -> Self {
        Self { proxy: proxy.map(Arc::new), ..self }
    }

    /// With other names.
    #[must_use]
    pub fn with_lookup(self, lookup: Lookup) -> Self {
        Self { lookup, ..self }
    }

    /// Another bound on connecting: names, TCP, the proxy and TLS together.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Connects to `target`, up to the TLS session if it takes one.
    ///
    /// # Errors
    /// Every kind that is about a connection; nothing is tried around a proxy.
    pub(super) async fn connect(
        &self,
        target: &Target,
        deadline: Instant,
    ) -> Result<BoxStream, ConnectError> {
        let stream = match &self.proxy {
            None => self.reach(&target.host, target.port, deadline).await?,
            Some(proxy) => forward::through(self, proxy, target, deadline).await?,
        };
        if !target.tls {
            return Ok(stream);
        }
        let session = secure(self.tls.upstream(), &target.host, stream);
        within(deadline, Phase::Tls, session).await?.map_err(ConnectError::Tls)
    }

    /// The addresses of a host; at least one.
    pub(super) async fn addresses(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let addresses = within(deadline, Phase::Dns, (self.lookup.0)(host.to_owned(), port)).await?;
        match addresses {
            Ok(addresses) if addresses.is_empty() => {
                Err(ConnectError::Dns(io::Error::new(io::ErrorKind::NotFound, "no addresses")))
            }
            addresses => addresses.map_err(ConnectError::Dns),
        }
    }

    /// Resolves a name and connects over TCP. Addresses of the one family get an equal share of the time left, so that a
    /// silent one cannot eat the others' budget; those of the other family begin 300 ms later, or at once if all of the first
    /// refused.
    pub(super) async fn reach(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<BoxStream, ConnectError> {
        let addresses = self.addresses(host, port, deadline).await?;
        let mut tcp = HttpConnector::new_with_resolver(Resolved(addresses));
        // A turn is one frame up and many small ones down; waiting to fill segments would delay both.
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.set_connect_timeout(Some(deadline.saturating_duration_since(Instant::now())));
        // The addresses hold the port, and the name is not asked for again.
        let stream = within(deadline, Phase::Connect, tcp.call(Uri::from_static("http://resolved"))).await?;
        match stream {
            Ok(stream) => Ok(Box::new(stream.into_inner())),
            // Each address had only its share of the time: the last of them may end a moment before the deadline.
            Err(error) if timed_out(&error) => Err(ConnectError::Timeout(Phase::Connect)),
            Err(error) => Err(ConnectError::Connect(io::Error::other(Chain(&error).to_string()))),
        }
    }

    /// TLS with a proxy.
    pub(super) async fn secure_proxy(&self, host: &str, stream: BoxStream) -> io::Result<BoxStream> {
        secure(self.tls.proxy(), host, stream).await
    }
}

/// The pooled client's way in.
impl Service<Uri> for Connector {
    type Response = TokioIo<BoxStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<BoxStream>, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let deadline = Instant::now() + connector.timeout;
            connector.connect(&Target::of(&address), deadline).await.map(TokioIo::new)
        })
    }
}

/// Addresses that are known already.
#[derive(Clone)]
struct Resolved(Vec<SocketAddr>);

impl Service<Name> for Resolved {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(self.0.clone().into_iter()))
    }
}

async fn secure(config: Arc<ClientConfig>, host: &str, stream: BoxStream) -> io::Result<BoxStream> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(Box::new(TlsConnector::from(config).connect(name, stream).await?))
}

fn timed_out(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Long silences are normal while a model thinks; NATs forget connections after about two minutes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What a name with these addresses leads to: the port of the peer that answered, or the error.
    async fn reached(addresses: Vec<SocketAddr>) -> Result<(), ConnectError> {
        let lookup = Lookup::new(move |_, _| {
            let addresses = addresses.clone();
            Box::pin(async move { Ok(addresses) })
        });
        let connector = Connector::new(Tls::new(&[]).unwrap()).with_lookup(lookup);
        connector.reach("twofold.test", 1, Instant::now() + DIAL_TIMEOUT).await.map(drop)
    }

    /// An address of loopback where nobody listens: a port that was free a moment ago, of another address of loopback than
    /// any test binds.
    async fn deserted(ip: [u8; 4]) -> SocketAddr {
        TcpListener::bind((std::net::Ipv4Addr::from(ip), 0)).await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn any_address_of_a_name_will_do() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let shut = deserted([127, 0, 0, 2]).await;
        for addresses in [vec![shut, open], vec![open, shut], vec![shut, shut, open]] {
            assert!(reached(addresses.clone()).await.is_ok(), "{addresses:?}");
            assert_eq!(listener.accept().await.unwrap().0.local_addr().unwrap(), open);
        }
        assert!(matches!(reached(vec![shut]).await, Err(ConnectError::Connect(_))));
        assert!(matches!(reached(vec![]).await, Err(ConnectError::Dns(_))));
        // The other family, be there such a network or not.
        if let Ok(other) = TcpListener::bind("[::1]:0").await {
            let sixth = other.local_addr().unwrap();
            for addresses in [vec![shut, sixth], vec![sixth, shut]] {
                assert!(reached(addresses).await.is_ok());
                assert_eq!(other.accept().await.unwrap().0.local_addr().unwrap(), sixth);
            }
            drop(other);
            assert!(reached(vec![sixth, open]).await.is_ok(), "IPv6 is preferred and refuses");
            assert_eq!(listener.accept().await.unwrap().0.local_addr().unwrap(), open);
        }
    }
}
