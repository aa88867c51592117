//! A Unix stream that is told of what comes in, and of room for what goes out only while it waits for that.
//!
//! Whoever watches a Unix socket for room is woken each time its peer reads something, full or not; that is a wake-up of a
//! sleeping thread for every message, paid by the peer in the middle of its read. So this watches for input alone, writes
//! without asking, and asks for room when the kernel took nothing. It knows nothing of what is read and written.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;

use super::ByteStream;

/// Writes in a row that found room, after which nobody asks for it any more.
const ROOMY_WRITES: u32 = 64;

/// A connected Unix stream.
#[derive(Debug)]
pub(super) struct QuietStream {
    watched: Watched,
    /// Who waits for input: a new watch does not know it.
    reader: Option<Waker>,
}

/// What the runtime watches the socket for.
#[derive(Debug)]
enum Watched {
    /// Input. The runtime has no type for a socket so watched; its pipe reads any descriptor, by `read`.
    Input(Receiver),
    /// Input and room, with the number of writes since the last that found none.
    Both(UnixStream, u32),
    /// It could not be watched any more; the error has been told.
    Nothing,
}

impl QuietStream {
    /// Watches a connected, non-blocking socket.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let watched = Watched::Input(Receiver::from_owned_fd_unchecked(socket)?);
        Ok(Self {
            watched,
            reader: None,
        })
    }

    /// Watches for what it did not watch for. No descriptor is needed for it: there may be none.
    fn change(&mut self) -> io::Result<()> {
        self.watched = match std::mem::replace(&mut self.watched, Watched::Nothing) {
            Watched::Input(input) => {
                let socket = net::UnixStream::from(input.into_nonblocking_fd()?);
                Watched::Both(UnixStream::from_std(socket)?, 0)
            }
            Watched::Both(both, _) => {
                Watched::Input(Receiver::from_owned_fd_unchecked(both.into_std()?.into())?)
            }
            Watched::Nothing => return Err(gone()),
        };
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    /// Writes without asking; `None` when there is no room.
    fn write_at_once(
        &self,
        write: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let Some(socket) = self.descriptor() else {
            return Some(Err(gone()));
        };
        match retry_on_intr(|| write(socket)) {
            Err(Errno::AGAIN) => None,
            written => Some(written.map_err(io::Error::from)),
        }
    }

    fn poll_either(
        &mut self,
        cx: &mut Context<'_>,
        at_once: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<usize>,
        watched: impl FnOnce(Pin<&mut UnixStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Watched::Both(_, roomy) = &self.watched
            && *roomy >= ROOMY_WRITES
        {
            self.change()?;
        }
        if !matches!(self.watched, Watched::Both(..)) {
            if let Some(written) = self.write_at_once(at_once) {
                return Poll::Ready(written);
            }
            self.change()?;
        }
        let Watched::Both(both, roomy) = &mut self.watched else {
            return Poll::Ready(Err(gone()));
        };
        let polled = watched(Pin::new(both), cx);
        *roomy = if polled.is_ready() { *roomy + 1 } else { 0 };
        polled
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the socket is not watched any more",
    )
}

impl ByteStream for QuietStream {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.watched {
            Watched::Input(input) => Some(input.as_fd()),
            Watched::Both(both, _) => Some(both.as_fd()),
            Watched::Nothing => None,
        }
    }
}

impl AsyncRead for QuietStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = match &mut this.watched {
            Watched::Input(input) => Pin::new(input).poll_read(cx, buf),
            Watched::Both(both, _) => Pin::new(both).poll_read(cx, buf),
            Watched::Nothing => Poll::Ready(Err(gone())),
        };
        if polled.is_pending() {
            match &mut this.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        polled
    }
}

impl AsyncWrite for QuietStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_either(
            cx,
            |socket| send(socket, bytes, SendFlags::NOSIGNAL),
            |both, cx| both.poll_write(cx, bytes),
        )
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let none = || SendAncillaryBuffer::default();
        self.poll_either(
            cx,
            |socket| sendmsg(socket, slices, &mut none(), SendFlags::NOSIGNAL),
            |both, cx| both.poll_write_vectored(cx, slices),
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has all that was written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = self.descriptor() else {
            return Poll::Ready(Err(gone()));
        };
        Poll::Ready(shutdown(socket, Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (QuietStream, QuietStream) {
        let (a, b) = net::UnixStream::pair().unwrap();
        let [a, b] = [a, b].map(|socket| {
            socket.set_nonblocking(true).unwrap();
            QuietStream::new(socket.into()).unwrap()
        });
        (a, b)
    }

    fn asks_for_room(stream: &QuietStream) -> bool {
        matches!(stream.watched, Watched::Both(..))
    }

    #[tokio::test]
    async fn a_peer_that_reads_does_not_wake_whoever_writes_with_room() {
        let (mut a, mut b) = pair();
        let mut byte = [0];
        for _ in 0..3 {
            a.write_all(b"x").await.unwrap();
            b.read_exact(&mut byte).await.unwrap();
        }
        assert!(!asks_for_room(&a) && !asks_for_room(&b));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_socket_is_waited_for_while_reads_go_on_and_forgotten_when_there_is_room() {
        const BYTES: usize = 8 * 1024 * 1024;
        let (a, b) = pair();
        // Both ways at once, each far more than the kernel holds, and each side reads only beside its writing.
        let side = |stream: QuietStream| async move {
            let (mut reads, mut writes) = tokio::io::split(stream);
            let writing = async {
                writes.write_all(&vec![7; BYTES]).await.unwrap();
                writes
            };
            let reading = async {
                let mut read = vec![0; BYTES];
                reads.read_exact(&mut read).await.unwrap();
                assert!(read.iter().all(|byte| *byte == 7));
                reads
            };
            let (writes, reads) = tokio::join!(writing, reading);
            reads.unsplit(writes)
        };
        let (a, b) = tokio::join!(tokio::spawn(side(a)), tokio::spawn(side(b)));
        let (mut a, mut b) = (a.unwrap(), b.unwrap());
        assert!(
            asks_for_room(&a) && asks_for_room(&b),
            "the sockets were never full"
        );
        for _ in 0..=ROOMY_WRITES {
            a.write_all(b"x").await.unwrap();
            assert_eq!(b.read_u8().await.unwrap(), b'x');
        }
        assert!(!asks_for_room(&a));
        drop(b);
        assert_eq!(
            a.write_all(b"x").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[tokio::test]
    async fn a_reader_that_waits_learns_of_input_also_after_the_watch_has_changed() {
        let (a, mut b) = pair();
        let (mut reads, mut writes) = tokio::io::split(a);
        let reading = tokio::spawn(async move { reads.read_u8().await });
        tokio::task::yield_now().await;
        // Fills the socket, which nobody empties: the watch changes while the reader waits.
        let filling =
            tokio::spawn(async move { writes.write_all(&vec![1; 8 * 1024 * 1024]).await });
        tokio::task::yield_now().await;
        b.write_all(b"y").await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
        assert_eq!(read.unwrap().unwrap().unwrap(), b'y');
        assert!(!filling.is_finished(), "the socket was never full");
        filling.abort();
    }
}
