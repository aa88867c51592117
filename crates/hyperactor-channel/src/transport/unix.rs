//! Unix stream sockets, by path and by abstract name. The kernel says who is at the other end; whether that user is let
//! in is decided where connections are accepted and dialled, before a byte is read.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use hyperactor_refs::{BindSpec, ChannelAddr, UnixAddr};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::quiet::QuietStream;
use super::{Connected, Dial, Identity, Listen, bind_error, wrong_transport};
use crate::ServeError;
use crate::limits::{
    LISTEN_BACKLOG, SOCKET_SEND_BYTES, TURN_PAUSE, TURN_TRIES, UNIX_PATH_BYTES_MAX,
};
use crate::options::random_u64;
use crate::tx::BoxFuture;

/// Dials `unix:` addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnixDialer;

impl Dial for UnixDialer {
    fn dial<'a>(&'a self, addr: &'a ChannelAddr) -> BoxFuture<'a, io::Result<Connected>> {
        Box::pin(async move {
            let ChannelAddr::Unix(unix) = addr else {
                return Err(wrong_transport(addr));
            };
            let socket = socket()?;
            // A Unix socket connects at once or not at all: with a full queue it says "try again".
            socket.connect(&sock_addr(unix)?)?;
            connected(UnixStream::from_std(socket.into())?)
        })
    }
}

fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn sock_addr(unix: &UnixAddr) -> io::Result<SockAddr> {
    match (unix.as_path(), unix.as_abstract()) {
        (Some(path), _) => SockAddr::unix(path),
        (None, Some(name)) => {
            // An abstract name is a path that begins with a zero byte.
            let mut bytes = Vec::with_capacity(name.len() + 1);
            bytes.push(0);
            bytes.extend_from_slice(name);
            SockAddr::unix(Path::new(std::ffi::OsStr::from_bytes(&bytes)))
        }
        (None, None) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither a path nor an abstract name",
        )),
    }
}

fn connected(stream: UnixStream) -> io::Result<Connected> {
    SockRef::from(&stream).set_send_buffer_size(SOCKET_SEND_BYTES)?;
    let cred = stream.peer_cred()?;
    let identity = Identity {
        uid: Some(cred.uid()),
        pid: cred.pid().and_then(|pid| u32::try_from(pid).ok()),
        addr: None,
    };
    Ok(Connected {
        stream: Box::new(QuietStream::new(stream.into_std()?.into())?),
        identity,
    })
}

/// Listens at a `unix:` address. A socket file it made is removed when it is dropped, if it is still the same file.
#[derive(Debug)]
pub struct UnixListening {
    /// Declared first: the file goes before the listener closes. While the listener lives, nobody takes the file for stale
    /// and puts another in its place, and the system gives its inode number to no other file.
    _file: Option<SocketFile>,
    listener: UnixListener,
    addr: ChannelAddr,
}

/// A socket file that this process made, known by device and inode.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    dev: u64,
    ino: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.dev, self.ino));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file could not be removed");
        }
    }
}

impl UnixListening {
    /// Binds. Any address means an abstract name that nobody else has.
    ///
    /// # Errors
    ///
    /// Each says which path and why: too long, in use, its directory missing or not ours, something else in its place.
    pub fn bind(bind: &BindSpec) -> Result<Self, ServeError> {
        let addr = match bind {
            BindSpec::Addr(addr) => addr.clone(),
            _ => fresh_name(bind)?,
        };
        let ChannelAddr::Unix(unix) = &addr else {
            return Err(bind_error(bind, wrong_transport(&addr)));
        };
        let file = match unix.as_path() {
            Some(path) => {
                check_length(path)?;
                check_directory(path, bind)?;
                Some(path)
            }
            None => None,
        };
        // Held until the socket listens: between bind and listen it looks as stale as a dead one.
        let _turn = file.and_then(|path| Turn::take(directory(path)));
        let socket = socket().map_err(|error| bind_error(bind, error))?;
        let place = sock_addr(unix).map_err(|error| bind_error(bind, error))?;
        match (socket.bind(&place), file) {
            (Err(error), Some(path)) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path, &addr, &place)?;
                socket
                    .bind(&place)
                    .map_err(|error| bind_error(bind, error))?;
            }
            (result, _) => result.map_err(|error| bind_error(bind, error))?,
        }
        // From here on the file is ours to remove, also when what follows fails.
        let file = match file {
            Some(path) => Some(
                fs::symlink_metadata(path)
                    .map(|meta| SocketFile {
                        path: path.into(),
                        dev: meta.dev(),
                        ino: meta.ino(),
                    })
                    .map_err(|error| bind_error(bind, error))?,
            ),
            None => None,
        };
        socket
            .listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))
            .map_err(|error| bind_error(bind, error))?;
        let listener =
            UnixListener::from_std(socket.into()).map_err(|error| bind_error(bind, error))?;
        Ok(Self {
            _file: file,
            listener,
            addr,
        })
    }
}

fn fresh_name(bind: &BindSpec) -> Result<ChannelAddr, ServeError> {
    let name = format!("hyperactor-{:016x}{:016x}", random_u64(), random_u64());
    ChannelAddr::unix_abstract(name)
        .map_err(|error| bind_error(bind, io::Error::new(io::ErrorKind::InvalidInput, error)))
}

fn check_length(path: &Path) -> Result<(), ServeError> {
    let bytes = path.as_os_str().len();
    if bytes > UNIX_PATH_BYTES_MAX {
        return Err(ServeError::PathTooLong {
            path: path.into(),
            bytes,
            max: UNIX_PATH_BYTES_MAX,
        });
    }
    Ok(())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The turn of one process to look at the sockets of a directory and to replace a stale one; it leaves nothing behind.
struct Turn(#[expect(dead_code, reason = "the lock goes with the file")] fs::File);

impl Turn {
    /// Waits a moment for the turn. None where the directory cannot be opened, or someone keeps it locked: then two who
    /// replace the same stale socket at the same moment can get into each other's way.
    fn take(dir: &Path) -> Option<Self> {
        let file = fs::File::open(dir).ok()?;
        for _ in 0..TURN_TRIES {
            if file.try_lock().is_ok() {
                return Some(Self(file));
            }
            std::thread::sleep(TURN_PAUSE);
        }
        None
    }
}

/// The directory must be ours, or root's, or one where nobody can replace the files of others (sticky).
fn check_directory(path: &Path, bind: &BindSpec) -> Result<(), ServeError> {
    const STICKY: u32 = 0o1000;
    let dir = directory(path);
    let meta = match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            let error = io::Error::from(Errno::NOTDIR);
            return Err(ServeError::Bind {
                addr: bind.to_string(),
                error,
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ServeError::DirectoryMissing {
                dir: dir.into(),
                path: path.into(),
            });
        }
        Err(error) => return Err(bind_error(bind, error)),
    };
    let uid = rustix::process::geteuid().as_raw();
    if meta.uid() != uid && meta.mode() & STICKY == 0 {
        let owner = meta.uid();
        return Err(ServeError::DirectoryNotOurs {
            dir: dir.into(),
            path: path.into(),
            owner,
            uid,
        });
    }
    Ok(())
}

/// Removes what a dead server left: a socket of ours that refuses connections. Anything else stays and is an error.
fn remove_stale(path: &Path, addr: &ChannelAddr, place: &SockAddr) -> Result<(), ServeError> {
    let occupied = |what| ServeError::PathOccupied {
        path: path.into(),
        what,
    };
    let Ok(meta) = fs::symlink_metadata(path) else {
        // Gone meanwhile: the next bind says how things stand.
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        return Err(occupied("it is not a socket"));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(occupied("the socket belongs to another user"));
    }
    let probe = socket().and_then(|probe| probe.connect(place));
    match probe {
        Err(error) if error.raw_os_error() == Some(Errno::CONNREFUSED.raw_os_error()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Connected, or its queue is full: someone lives there.
        _ => return Err(ServeError::AddrInUse { addr: addr.clone() }),
    }
    fs::remove_file(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(occupied(
            "it is stale, and the system does not let it be removed",
        )),
    })
}

impl Listen for UnixListening {
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
