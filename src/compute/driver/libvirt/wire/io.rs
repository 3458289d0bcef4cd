//! Messages from and to a byte stream, and descriptors where the stream can carry them.
//!
//! On a Unix socket nothing is ever read beyond a message: bytes read with a plain `read` lose the
//! descriptor that rides on the next one. A payload's memory grows with the bytes that arrive.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadHalf, WriteHalf,
};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::error::Closed;
use super::frame::{BadFrame, HEADER, Header, MOST_DESCRIPTORS, Type};
use super::xdr::Decoder;

/// Anything that carries bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The way to a daemon.
pub enum Io {
    /// A Unix socket, which can carry descriptors.
    Unix(UnixStream),
    /// Anything else.
    Other(Box<dyn Duplex>),
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unix(_) => "Io::Unix",
            Self::Other(_) => "Io::Other",
        })
    }
}

impl Io {
    pub(super) fn split(self) -> (Reader, Writer) {
        match self {
            Self::Unix(socket) => {
                let (reader, writer) = socket.into_split();
                (Reader::Unix(reader), Writer::Unix(writer))
            }
            Self::Other(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                (Reader::Other(reader), Writer::Other(writer))
            }
        }
    }
}

/// What arrived.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

pub(super) enum Reader {
    Unix(OwnedReadHalf),
    Other(ReadHalf<Box<dyn Duplex>>),
}

pub(super) enum Writer {
    Unix(OwnedWriteHalf),
    Other(WriteHalf<Box<dyn Duplex>>),
}

impl Reader {
    /// The next message. Not cancel-safe: a message begun must be read to its end.
    pub(super) async fn message(&mut self) -> Result<Message, Closed> {
        let (header, length) = match self {
            Self::Unix(from) => header(from).await?,
            Self::Other(from) => header(from).await?,
        };
        let mut payload = match self {
            Self::Unix(from) => payload(from, length).await?,
            Self::Other(from) => payload(from, length).await?,
        };
        let descriptors = match header.r#type {
            Type::CallWithDescriptors | Type::ReplyWithDescriptors => {
                let count = take_count(&mut payload)?;
                let Self::Unix(from) = self else {
                    return Err(BadFrame::Descriptors(count).into());
                };
                descriptors(from.as_ref(), count).await?
            }
            _ => Vec::new(),
        };
        Ok(Message {
            header,
            payload,
            descriptors,
        })
    }
}

impl Writer {
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(to) => to.write_all(bytes).await,
            Self::Other(to) => {
                to.write_all(bytes).await?;
                to.flush().await
            }
        }
    }
}

async fn header(from: &mut (impl AsyncRead + Unpin)) -> Result<(Header, usize), Closed> {
    let mut bytes = [0; HEADER];
    let _whole = from.read_exact(&mut bytes).await?;
    Ok(Header::decode(&bytes)?)
}

/// `read_to_end` doubles its memory as bytes come, whatever `length` promises.
async fn payload(from: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Vec<u8>, Closed> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(length).unwrap_or(u64::MAX);
    if from.take(limit).read_to_end(&mut bytes).await? == length {
        return Ok(bytes);
    }
    Err(Closed::HungUp)
}

/// How many descriptors follow stands before the payload proper.
fn take_count(payload: &mut Vec<u8>) -> Result<u32, BadFrame> {
    let mut words = Decoder::new(payload);
    let count = words.uint().map_err(|_| BadFrame::Truncated)?;
    if count > MOST_DESCRIPTORS {
        return Err(BadFrame::Descriptors(count));
    }
    let _count = payload.drain(..size_of::<u32>());
    Ok(count)
}

async fn descriptors(socket: &UnixStream, count: u32) -> Result<Vec<OwnedFd>, Closed> {
    let mut descriptors = Vec::new();
    for _ in 0..count {
        let received = socket.async_io(Interest::READABLE, || receive(socket));
        let received = received.await?;
        descriptors.push(received.ok_or(BadFrame::Descriptors(count))?);
    }
    Ok(descriptors)
}

/// One byte, and the descriptor that rides on it.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let buffers = &mut [IoSliceMut::new(&mut byte)];
    if recvmsg(socket, buffers, &mut control, flags)?.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.next().and_then(|mut rights| rights.next()))
}
