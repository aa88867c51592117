//! TCP streams, without encryption: loopback unless danger was asked for. TLS is another transport.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use hyperactor_refs::{BindSpec, ChannelAddr, HostPort};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};

use super::{Connected, Dial, Identity, Listen, bind_error, wrong_transport};
use crate::ServeError;
use crate::limits::{LISTEN_BACKLOG, TCP_UNANSWERED_MAX};
use crate::tx::BoxFuture;

/// Dials `tcp:` addresses. Names are resolved when dialling, never earlier.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl Dial for TcpDialer {
    fn dial<'a>(&'a self, addr: &'a ChannelAddr) -> BoxFuture<'a, io::Result<Connected>> {
        Box::pin(async move {
            let ChannelAddr::Tcp(host_port) = addr else {
                return Err(wrong_transport(addr));
            };
            let stream = connect(host_port).await?;
            connected(stream)
        })
    }
}

async fn connect(host_port: &HostPort) -> io::Result<TcpStream> {
    if let Some(addr) = host_port.socket_addr() {
        return TcpStream::connect(addr).await;
    }
    let host = host_port.host().to_string();
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for addr in lookup_host((host, host_port.port())).await? {
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connected(stream: TcpStream) -> io::Result<Connected> {
    prepare(&stream)?;
    Ok(Connected {
        stream: Box::new(stream),
        identity: Identity::default(),
    })
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Batches are made here, by the writer; the kernel must not wait for more.
    stream.set_nodelay(true)?;
    // S-26
    SockRef::from(stream).set_tcp_user_timeout(Some(TCP_UNANSWERED_MAX))
}

/// Listens at a `tcp:` address.
#[derive(Debug)]
pub struct TcpListening {
    listener: TcpListener,
    addr: ChannelAddr,
}

impl TcpListening {
    /// Binds. Any port means one of the loopback interface.
    ///
    /// # Errors
    ///
    /// An address beyond loopback without `danger_plaintext_beyond_loopback`, a name, or what the system says.
    pub fn bind(
        bind: &BindSpec,
        danger_plaintext_beyond_loopback: bool,
    ) -> Result<Self, ServeError> {
        let asked = requested(bind)?;
        if !asked.ip().to_canonical().is_loopback() && !danger_plaintext_beyond_loopback {
            return Err(ServeError::PlaintextBeyondLoopback {
                addr: bind.to_string(),
            });
        }
        let listener = open(asked).map_err(|error| bind_error(bind, error))?;
        let bound = listener
            .local_addr()
            .map_err(|error| bind_error(bind, error))?;
        // A wildcard cannot be dialled: those of this machine reach it by loopback, others know the machine's name.
        let dialled = if bound.ip().is_unspecified() {
            let loopback = if bound.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            };
            SocketAddr::new(loopback, bound.port())
        } else {
            bound
        };
        let addr = ChannelAddr::tcp(dialled).map_err(|error| {
            bind_error(bind, io::Error::new(io::ErrorKind::InvalidInput, error))
        })?;
        Ok(Self { listener, addr })
    }
}

fn requested(bind: &BindSpec) -> Result<SocketAddr, ServeError> {
    let found = match bind {
        BindSpec::Any(_) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        BindSpec::Addr(ChannelAddr::Tcp(host_port)) => host_port.socket_addr(),
        BindSpec::TcpWildcard(wildcard) => wildcard.socket_addr(),
        _ => None,
    };
    found.ok_or_else(|| ServeError::NotAnAddress {
        addr: bind.to_string(),
    })
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A server that restarts must not wait for the old connections of its port to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

impl Listen for TcpListening {
    fn addr(&self) -> &ChannelAddr {
        &self.addr
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connected>> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            connected(stream)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-26.
    #[tokio::test]
    async fn both_ends_give_up_what_is_not_answered() {
        let bind = "tcp:127.0.0.1:0".parse().unwrap();
        let listening = TcpListening::bind(&bind, false).unwrap();
        let addr = listening.addr().host_port().unwrap().clone();
        let (dialled, accepted) = tokio::join!(connect(&addr), listening.listener.accept());
        for stream in [dialled.unwrap(), accepted.unwrap().0] {
            prepare(&stream).unwrap();
            let socket = SockRef::from(&stream);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(TCP_UNANSWERED_MAX));
            assert!(socket.tcp_nodelay().unwrap());
        }
    }
}
