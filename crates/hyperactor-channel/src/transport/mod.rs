//! The border to the operating system: an address to a byte stream and the verified identity of who is at its other end
//! ([`Dial`]), and the same the other way round ([`Listen`]). What travels on the stream is not known here.

mod quiet;
mod tcp;
mod unix;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

pub use self::tcp::{TcpDialer, TcpListening};
pub use self::unix::{UnixDialer, UnixListening};
use crate::tx::BoxFuture;
use crate::{ServeError, ServeOptions};

/// A reliable, ordered stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// What the kernel knows the stream by, so that its input can be looked for; `None` where that is not possible.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl ByteStream for UnixStream {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl ByteStream for TcpStream {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// Who is at the other end of a stream, as far as the transport can prove it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The user, from the kernel.
    pub uid: Option<u32>,
    /// The process, from the kernel.
    pub pid: Option<u32>,
    /// The address of the other end, where it has one that can be dialled.
    pub addr: Option<ChannelAddr>,
}

impl Identity {
    /// Whether the user is this process's own, or not known.
    pub(crate) fn is_ours(&self) -> bool {
        let ours = rustix::process::geteuid().as_raw();
        self.uid.is_none_or(|uid| uid == ours)
    }
}

/// A connected stream with the identity of its other end.
pub struct Connected {
    /// The stream.
    pub stream: Box<dyn ByteStream>,
    /// Who is at its other end.
    pub identity: Identity,
}

/// Connects to addresses of one transport.
pub trait Dial: Send + Sync + 'static {
    /// Connects once. Whether and when to try again is the caller's decision.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, no connection is left; its peer may have seen one that closed at once.
    fn dial<'a>(&'a self, addr: &'a ChannelAddr) -> BoxFuture<'a, io::Result<Connected>>;
}

/// Accepts connections at one address. Dropping it frees the address.
pub trait Listen: Send + 'static {
    /// The address that others dial.
    fn addr(&self) -> &ChannelAddr;

    /// Waits for the next connection. An error concerns one connection or a lack of resources; accepting can be tried again
    /// after a pause.
    ///
    /// # Cancel safety
    ///
    /// A connection is taken only in the poll that returns it: dropping the future loses none.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connected>>;
}

/// The dialer for a transport; `None` for in-process channels, which have no stream, and for what this build lacks.
pub(crate) fn dialer(transport: ChannelTransport) -> Option<Box<dyn Dial>> {
    match transport {
        ChannelTransport::Unix => Some(Box::new(UnixDialer)),
        ChannelTransport::Tcp => Some(Box::new(TcpDialer)),
        _ => None,
    }
}

/// Binds an address of a byte-stream transport.
pub(crate) fn listen(
    bind: &BindSpec,
    options: &ServeOptions,
) -> Result<Box<dyn Listen>, ServeError> {
    match bind.transport() {
        ChannelTransport::Unix => Ok(Box::new(UnixListening::bind(bind)?)),
        ChannelTransport::Tcp => Ok(Box::new(TcpListening::bind(
            bind,
            options.danger_plaintext_beyond_loopback,
        )?)),
        other => Err(ServeError::Unsupported {
            addr: bind.to_string(),
            transport: other.scheme(),
        }),
    }
}

fn bind_error(bind: &BindSpec, error: io::Error) -> ServeError {
    match (error.kind(), bind.addr()) {
        (io::ErrorKind::AddrInUse, Some(addr)) => ServeError::AddrInUse { addr: addr.clone() },
        _ => ServeError::Bind {
            addr: bind.to_string(),
            error,
        },
    }
}

fn wrong_transport(addr: &ChannelAddr) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{addr} is not of this transport"),
    )
}
