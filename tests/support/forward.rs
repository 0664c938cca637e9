//! A forward proxy: HTTP `CONNECT` and SOCKS 5, with or without credentials, obliging or not. By hand, byte for byte: it shares
//! nothing with the client that it judges.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// What a proxy is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) speaks: Speaks,
    /// The user and the password that it asks for.
    pub(crate) credentials: Option<(&'static str, &'static str)>,
    pub(crate) verdict: Verdict,
    /// Where it leads, whatever it was asked for; else where it was asked to.
    pub(crate) leads_to: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Connect,
    Socks,
}

/// What becomes of those it lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Oblige,
    /// With this status, or this reply of SOCKS.
    Refuse(u16),
    /// Something that is neither protocol.
    Babble,
    /// The end of the connection.
    HangUp,
    /// Nothing.
    Silence,
}

impl Rules {
    pub(crate) fn new(speaks: Speaks) -> Self {
        Self { speaks, credentials: None, verdict: Verdict::Oblige, leads_to: None }
    }
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Forward {
    pub(crate) async fn start(rules: Rules) -> Self {
        Self::start_over(rules, |stream| async move { Some(stream) }).await
    }

    /// The same, with something around each connection, such as TLS.
    pub(crate) async fn start_over<S, F>(
        rules: Rules,
        wrap: impl Fn(TcpStream) -> F + Clone + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let book = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (wrap, book) = (wrap.clone(), book.clone());
                tokio::spawn(async move {
                    if let Some(stream) = wrap(stream).await {
                        // A client that leaves early is nobody's error.
                        let _ = attend(stream, rules, &book).await;
                    }
                });
            }
        });
        Self { addr, asked }
    }

    /// `HOST:PORT` of everything it was asked for by those who may ask, oldest first.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn attend<S>(mut stream: S, rules: Rules, book: &Mutex<Vec<String>>) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = match rules.speaks {
        Speaks::Connect => connect(&mut stream, rules).await?,
        Speaks::Socks => socks(&mut stream, rules).await?,
    };
    let Some(place) = asked else { return stream.shutdown().await };
    book.lock().unwrap().push(place.clone());
    match (rules.verdict, rules.speaks) {
        (Verdict::Oblige, _) => {}
        (Verdict::Refuse(status), Speaks::Connect) => {
            let head = format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno");
            stream.write_all(head.as_bytes()).await?;
            return stream.shutdown().await;
        }
        (Verdict::Refuse(reply), Speaks::Socks) => {
            stream.write_all(&[5, u8::try_from(reply).unwrap(), 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            return stream.shutdown().await;
        }
        (Verdict::Babble, _) => {
            stream.write_all(b"220 mail.test ESMTP\r\n\r\n").await?;
            return stream.shutdown().await;
        }
        (Verdict::HangUp, _) => return stream.shutdown().await,
        (Verdict::Silence, _) => {
            // Until the other side has had enough.
            let _ = stream.read(&mut [0]).await?;
            return Ok(());
        }
    }
    let mut onward = match rules.leads_to {
        Some(addr) => TcpStream::connect(addr).await?,
        None => TcpStream::connect(place.as_str()).await?,
    };
    let granted: &[u8] = match rules.speaks {
        Speaks::Connect => b"HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n",
        Speaks::Socks => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    };
    stream.write_all(granted).await?;
    copy_bidirectional(&mut stream, &mut onward).await.map(drop)
}

/// Whom a `CONNECT` is for; none for one that was turned away.
async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    rules: Rules,
) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        // TLS to a proxy that has none.
        if head[0] == 0x16 && rules.verdict != Verdict::Silence {
            return Ok(None);
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.split("\r\n");
    let place = lines.next().and_then(|line| line.strip_prefix("CONNECT ")?.strip_suffix(" HTTP/1.1"));
    let place = place.unwrap_or_else(|| panic!("no CONNECT: {head}"));
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    assert_eq!(field("host"), Some(place));
    assert_eq!(field("authorization"), None, "what is for the provider is not for the proxy");
    let wanted = rules.credentials.map(|(user, password)| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
    });
    if wanted.is_some() && field("proxy-authorization") != wanted.as_deref() {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"test\"\r\n\
                       content-length: 0\r\n\r\n";
        stream.write_all(refusal.as_bytes()).await?;
        return Ok(None);
    }
    Ok(Some(place.to_owned()))
}

/// Whom a SOCKS request is for; none for one that was turned away.
async fn socks<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    rules: Rules,
) -> std::io::Result<Option<String>> {
    assert_eq!(stream.read_u8().await?, 5);
    let methods = piece(stream).await?;
    let method = if rules.credentials.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        stream.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    stream.write_all(&[5, method]).await?;
    if let Some((user, password)) = rules.credentials {
        assert_eq!(stream.read_u8().await?, 1);
        let right = piece(stream).await? == user.as_bytes();
        let right = piece(stream).await? == password.as_bytes() && right;
        stream.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Ok(None);
        }
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    assert_eq!(request[..3], [5, 1, 0], "connect");
    let host = match request[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
        4 => format!("[{}]", std::net::Ipv6Addr::from(stream.read_u128().await?)),
        3 => String::from_utf8(piece(stream).await?).unwrap(),
        kind => panic!("an address of kind {kind}"),
    };
    Ok(Some(format!("{host}:{}", stream.read_u16().await?)))
}

/// A length of one byte, and so many bytes.
async fn piece<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
