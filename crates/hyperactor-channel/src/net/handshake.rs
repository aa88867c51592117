//! The first exchange on a connection: one hello each way, within a deadline. Whether a hello is accepted is decided by
//! the session.

use std::io;

use hyperactor_protocol::{FrameDecoder, Hello, HelloError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::transport::ByteStream;

/// Why no hello came.
#[derive(Debug)]
pub(crate) enum NoHello {
    /// The stream ended or failed.
    Io(io::Error),
    /// What came is no hello, or not one that can be.
    Malformed(HelloError),
}

impl From<io::Error> for NoHello {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes a hello.
pub(crate) async fn write_hello(stream: &mut Box<dyn ByteStream>, hello: &Hello) -> io::Result<()> {
    stream.write_all(&hello.to_bytes()).await?;
    stream.flush().await
}

/// Reads a hello. What came behind it stays in the decoder.
pub(crate) async fn read_hello(
    stream: &mut Box<dyn ByteStream>,
    decoder: &mut FrameDecoder,
) -> Result<Hello, NoHello> {
    loop {
        if let Some(hello) = decoder.next_hello().map_err(NoHello::Malformed)? {
            return Ok(hello);
        }
        if stream.read_buf(decoder.buffer()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
