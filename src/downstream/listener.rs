//! What clients are accepted from: a TCP port, or the file of a unix socket, which this side makes and takes away again.
//! Serves nobody, and decides nothing about who may connect but the file's permissions.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// See the module. On its end the file of a unix socket that it made is removed.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A unix socket, and its file if that is ours.
    #[cfg(unix)]
    Unix(UnixListener, Option<SocketFile>),
}

/// A client's connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Either kind of it.
pub(super) type BoxStream = Box<dyn Stream>;

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// One whose file is somebody else's.
#[cfg(unix)]
impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener, None)
    }
}

impl Listener {
    /// Makes a unix socket at `path` with these permissions. One that is there already is replaced if nobody answers at it.
    ///
    /// # Errors
    /// Somebody answers there, or what is there is no socket (both `AddrInUse`); or the file cannot be made.
    #[cfg(unix)]
    pub async fn bind_file(path: &Path, mode: u32) -> io::Result<Self> {
        match create(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                refuse_living(path).await?;
                std::fs::remove_file(path)?;
                create(path, mode)
            }
            created => created,
        }
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// The address of a port.
    #[must_use]
    pub fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Self::Unix(..) => None,
        }
    }

    /// The next client, and its address if it has one.
    pub(super) async fn accept(&self) -> io::Result<(BoxStream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Events are small and the client waits for each one. Failing to say so costs only latency.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), Some(peer)))
            }
            #[cfg(unix)]
            Self::Unix(listener, _) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }
}

#[cfg(unix)]
fn create(path: &Path, mode: u32) -> io::Result<Listener> {
    use std::os::unix::fs::PermissionsExt;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::at(path)?;
    // Before it listens: nobody can have connected with other permissions.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(Listener::Unix(socket.listen(BACKLOG)?, Some(file)))
}

/// An error unless `path` is a socket that somebody left behind.
#[cfg(unix)]
async fn refuse_living(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let in_use = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {what}", path.display()));
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("it is there, and is no socket"));
    }
    // Connecting to a unix socket waits for nothing.
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(in_use("somebody listens there already")),
    }
}

/// The file of a unix socket, removed with this, unless another has come into its place.
#[cfg(unix)]
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

#[cfg(unix)]
impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Clients that wait to be accepted; as tokio has it for ports.
#[cfg(unix)]
const BACKLOG: u32 = 1024;
