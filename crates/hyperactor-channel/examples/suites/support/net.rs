//! Places to serve at, plain sockets to any address, and a peer that speaks the protocol by hand: byte by byte, true or not.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use hyperactor_protocol::{Config, Frame, FrameDecoder, Hello, Session, SessionId, Time, limits};
use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport, Incarnation, UnixAddr};
use hyperactor_testkit::TempSocketDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// How long a peer by hand waits for an answer before it counts as not given.
const PATIENCE: Duration = Duration::from_secs(30);

/// The kinds of socket that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Path,
    Abstract,
    Tcp,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Path, Self::Abstract, Self::Tcp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Path => "unix path",
            Self::Abstract => "unix abstract",
            Self::Tcp => "tcp",
        }
    }

    /// The name as an argument.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Abstract => "abstract",
            Self::Tcp => "tcp",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The kinds in turn.
    pub(crate) fn of(number: usize) -> Self {
        Self::ALL[number % Self::ALL.len()]
    }
}

/// Where to serve. Lives as long as the socket's file should.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) bind: BindSpec,
    _folder: Option<TempSocketDir>,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Tcp => Self {
                bind: ChannelTransport::Tcp.into(),
                _folder: None,
            },
            Kind::Abstract => Self {
                bind: ChannelTransport::Unix.into(),
                _folder: None,
            },
            Kind::Path => {
                let folder = TempSocketDir::new().unwrap();
                let addr = ChannelAddr::unix_path(folder.socket("s")).unwrap();
                Self {
                    bind: addr.into(),
                    _folder: Some(folder),
                }
            }
        }
    }
}

/// A byte stream of any kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// The path under which the kernel's calls know a Unix address.
fn unix_path(addr: &UnixAddr) -> PathBuf {
    match (addr.as_path(), addr.as_abstract()) {
        (Some(path), _) => path.to_owned(),
        (None, name) => {
            let bytes: Vec<u8> = std::iter::once(0)
                .chain(name.unwrap_or_default().iter().copied())
                .collect();
            PathBuf::from(OsStr::from_bytes(&bytes))
        }
    }
}

/// Connects to an address and says nothing.
pub(crate) async fn connect(addr: &ChannelAddr) -> io::Result<Box<dyn Io>> {
    if let ChannelAddr::Unix(unix) = addr {
        return Ok(Box::new(UnixStream::connect(unix_path(unix)).await?));
    }
    let target = addr.host_port().and_then(|host| host.socket_addr());
    let stream = TcpStream::connect(target.unwrap()).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// A plain listening socket.
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// With the folder of its file, if it has one, which lives as long.
    Unix {
        listener: UnixListener,
        _folder: Option<TempSocketDir>,
    },
}

impl Listener {
    pub(crate) async fn new(kind: Kind, name: &str) -> (Self, ChannelAddr) {
        match kind {
            Kind::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let addr = ChannelAddr::tcp(listener.local_addr().unwrap()).unwrap();
                (Self::Tcp(listener), addr)
            }
            Kind::Path => {
                let folder = TempSocketDir::new().unwrap();
                let path = folder.socket("listener");
                let addr = ChannelAddr::unix_path(&path).unwrap();
                let listener = UnixListener::bind(path).unwrap();
                (
                    Self::Unix {
                        listener,
                        _folder: Some(folder),
                    },
                    addr,
                )
            }
            Kind::Abstract => {
                let text = format!("unix:@hyperactor-suite-{name}-{}", std::process::id());
                let addr: ChannelAddr = text.parse().unwrap();
                let ChannelAddr::Unix(unix) = &addr else {
                    unreachable!("{addr} is a Unix address")
                };
                let listener = UnixListener::bind(unix_path(unix)).unwrap();
                (
                    Self::Unix {
                        listener,
                        _folder: None,
                    },
                    addr,
                )
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix { listener, .. } => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// The hello of a dialer that opens a session.
pub(crate) fn hello(session: u128) -> Hello {
    let config = Config::default();
    let session = SessionId(session);
    Session::dialer(config, session, Incarnation::new(5), Time::ZERO).hello(Time::ZERO)
}

/// A peer that speaks by hand.
pub(crate) struct Raw {
    pub(crate) stream: Box<dyn Io>,
    decoder: FrameDecoder,
}

impl Raw {
    pub(crate) fn new(stream: Box<dyn Io>) -> Self {
        let decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
        Self { stream, decoder }
    }

    pub(crate) async fn connect(addr: &ChannelAddr) -> io::Result<Self> {
        Ok(Self::new(connect(addr).await?))
    }

    /// Connects, says the hello and gives the answer.
    pub(crate) async fn greet(addr: &ChannelAddr, hello: &Hello) -> io::Result<(Self, Hello)> {
        let mut raw = Self::connect(addr).await?;
        raw.write(&hello.to_bytes()).await?;
        let answer = raw.hello().await?;
        Ok((raw, answer))
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(crate) async fn frame(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.write(&bytes).await
    }

    /// Reads a hello.
    pub(crate) async fn hello(&mut self) -> io::Result<Hello> {
        loop {
            match self.decoder.next_hello() {
                Ok(Some(hello)) => return Ok(hello),
                Ok(None) => self.read().await?,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Reads a frame.
    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => self.read().await?,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let read = self.stream.read_buf(self.decoder.buffer());
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Reads until the other end closes; gives the frames that came before, or nothing when it does not close.
    pub(crate) async fn until_closed(&mut self) -> Option<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Ok(frame) => frames.push(frame),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return None,
                Err(_) => return Some(frames),
            }
        }
    }
}
