//! Where clients connect: an address and port, or the file of a unix socket. Opens nothing.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::file::Raw;
use super::values::Address;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP; port 0 picks a free one.
    Tcp(SocketAddr),
    /// A unix socket of this path.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "{PREFIX}{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<([u8; 4], u16)> for Listen {
    fn from(address: ([u8; 4], u16)) -> Self {
        Self::Tcp(address.into())
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ListenAt.read(&Raw::Bare(text.to_owned()))
    }
}

/// The reader of the setting.
pub(super) struct ListenAt;

impl ListenAt {
    pub(super) fn kind(&self) -> String {
        format!("{}; or {PREFIX} and a path", Address.kind())
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Listen, String> {
        let path = match raw {
            Raw::Text(text) | Raw::Bare(text) => text.strip_prefix(PREFIX),
            other => return Err(format!("expected {}; found {}", self.kind(), other.kind())),
        };
        match path {
            None => Address.read(raw).map(Listen::Tcp),
            Some(_) if !cfg!(unix) => Err(String::from("there are no unix sockets on this system")),
            Some(path) if path.is_empty() || path.len() > LONGEST_PATH => {
                Err(format!("a unix socket has a path of 1 to {LONGEST_PATH} bytes"))
            }
            Some(path) => Ok(Listen::Unix(PathBuf::from(path))),
        }
    }
}

/// Permissions of a file, in the octal notation of `chmod`.
pub(super) struct Permissions;

impl Permissions {
    pub(super) fn kind(&self) -> String {
        String::from("permissions as `chmod` takes them, such as \"0600\" or \"0660\"")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<u32, String> {
        match raw {
            Raw::Text(text) | Raw::Bare(text) => {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
                mode.ok_or_else(|| format!("`{text}` is not {}", self.kind()))
            }
            other => Err(format!("expected {}; found {}", self.kind(), other.kind())),
        }
    }
}

const PREFIX: &str = "unix:";
/// What every unix has room for.
const LONGEST_PATH: usize = 100;

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths() {
        for (text, expected, local) in [
            ("127.0.0.1:8484", "127.0.0.1:8484", true),
            ("[::1]:0", "[::1]:0", true),
            ("0.0.0.0:1", "0.0.0.0:1", false),
            ("[::]:1", "[::]:1", false),
            ("unix:/run/tailwire.sock", "unix:/run/tailwire.sock", true),
            ("unix:tailwire.sock", "unix:tailwire.sock", true),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!((listen.to_string().as_str(), listen.is_local()), (expected, local));
        }
        for text in ["", "unix:", "/run/tailwire.sock", "localhost:1", &format!("unix:/{}", "x".repeat(100))]
        {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        let read = |text: &str| Permissions.read(&Raw::Bare(text.to_owned()));
        assert_eq!((read("0600"), read("660"), read("0")), (Ok(0o600), Ok(0o660), Ok(0)));
        for text in ["", "0800", "1777", "+600", "rw", "-1"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(Permissions.read(&Raw::Integer(600)).is_err(), "is it octal?");
    }
}
