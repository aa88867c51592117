//! Where a proxy listens and what it dials: TCP, a Unix socket with a path, or an abstract one.
//!
//! The text forms are those of channel addresses, so that either can be given to the other.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::limits::{PROXY_BUFFER_BYTES, PROXY_CONNECTIONS};
use crate::{TempSocketDir, hash};

/// One end of a byte stream: `tcp:127.0.0.1:80`, `unix:/run/x` or `unix:@name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Path(PathBuf),
    /// A socket in the kernel's own namespace, without the leading NUL.
    Abstract(String),
}

/// A text that names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no endpoint: expected tcp:IP:PORT, unix:/PATH or unix:@NAME")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.to_owned());
        if let Some(address) = text.strip_prefix("tcp:") {
            return address.parse().map(Self::Tcp).map_err(|_| wrong());
        }
        let name = text.strip_prefix("unix:").ok_or_else(wrong)?;
        if name.contains('\0') {
            return Err(wrong());
        }
        match name.strip_prefix('@') {
            Some(name) if !name.is_empty() => Ok(Self::Abstract(name.to_owned())),
            None if name.starts_with('/') => Ok(Self::Path(name.into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(to, "tcp:{address}"),
            Self::Path(path) => write!(to, "unix:{}", path.display()),
            Self::Abstract(name) => write!(to, "unix:@{name}"),
        }
    }
}

/// A listening socket of any kind.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    /// Where the socket's file stands, if it has one: removed with it.
    _folder: Option<TempSocketDir>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at a new endpoint of the same kind as `like`; nobody but this machine can reach it.
    pub(super) async fn like(like: &Endpoint) -> io::Result<(Self, Endpoint)> {
        let (socket, endpoint, folder) = match like {
            Endpoint::Tcp(address) => {
                let socket = tcp_socket(*address)?;
                socket.set_reuseaddr(true)?;
                let here: IpAddr = if address.is_ipv6() {
                    Ipv6Addr::LOCALHOST.into()
                } else {
                    Ipv4Addr::LOCALHOST.into()
                };
                socket.bind((here, 0).into())?;
                let listener = socket.listen(PROXY_CONNECTIONS as u32)?;
                let endpoint = Endpoint::Tcp(listener.local_addr()?);
                (Socket::Tcp(listener), endpoint, None)
            }
            Endpoint::Path(_) => {
                let folder = TempSocketDir::new()?;
                let path = folder.socket("proxy");
                let listener = UnixListener::bind(&path)?;
                (Socket::Unix(listener), Endpoint::Path(path), Some(folder))
            }
            Endpoint::Abstract(_) => {
                let name = format!("hyperactor-chaos-{:016x}", hash::random());
                let listener = UnixListener::bind(abstract_path(&name))?;
                (Socket::Unix(listener), Endpoint::Abstract(name), None)
            }
        };
        Ok((
            Self {
                socket,
                _folder: folder,
            },
            endpoint,
        ))
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Socket::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// A connection of any kind.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub(super) type Reader<'a> = Box<dyn AsyncRead + Send + Unpin + 'a>;
pub(super) type Writer<'a> = Box<dyn AsyncWrite + Send + Unpin + 'a>;

impl Stream {
    pub(super) async fn dial(to: &Endpoint) -> io::Result<Self> {
        match to {
            Endpoint::Tcp(address) => {
                let stream = tcp_socket(*address)?.connect(*address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Endpoint::Path(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
            Endpoint::Abstract(name) => {
                Ok(Self::Unix(UnixStream::connect(abstract_path(name)).await?))
            }
        }
    }

    /// Both directions, borrowed: dropping them closes nothing.
    pub(super) fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.split();
                (Box::new(reader), Box::new(writer))
            }
            Self::Unix(stream) => {
                let (reader, writer) = stream.split();
                (Box::new(reader), Box::new(writer))
            }
        }
    }

    /// Closes so that the other end sees a break, not an end: over TCP with a reset.
    pub(super) fn sever(self) {
        if let Self::Tcp(stream) = &self
            && let Err(error) = stream.set_zero_linger()
        {
            eprintln!("chaos proxy: a cut becomes an ordinary end: {error}");
        }
    }
}

/// A socket whose share of what the kernel holds is small too: a direction that is stalled soon takes nothing more.
fn tcp_socket(like: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if like.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    socket.set_recv_buffer_size(PROXY_BUFFER_BYTES as u32)?;
    Ok(socket)
}

/// The kernel knows an abstract name by its leading NUL.
fn abstract_path(name: &str) -> PathBuf {
    let bytes: Vec<u8> = std::iter::once(0).chain(name.bytes()).collect();
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_print_as_they_parse() {
        for text in [
            "tcp:127.0.0.1:80",
            "tcp:[::1]:9",
            "unix:/run/a b",
            "unix:@name",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "tcp:host:80",
            "unix:",
            "unix:@",
            "unix:relative",
            "local:1",
            "unix:/a\0b",
        ] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
