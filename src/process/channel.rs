use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::given::{Given, Socket};

/// Sockets that travel together, at most.
const SOCKETS: usize = 64;

/// A message's largest size in bytes: a hundred thousand tokens and more.
const LARGEST: u32 = 256 << 20;

/// How long a side may take to read or write a part of a message.
const STALL: Duration = Duration::from_secs(10);

/// What a process and its successor say to each other, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// To the successor: what is listened on. The sockets travel with it.
    Sockets(Vec<Note>),
    /// From it: the config is good and every door is open. Nothing is served yet.
    Prepared {
        /// Its process id.
        pid: u32,
    },
    /// To it: what else is its own from now on.
    Bequest(String),
    /// From it: it serves; and where its predecessor finds what that gave away.
    Serving(Option<PathBuf>),
    /// To it: it stands alone now.
    Farewell,
    /// From it: it cannot, in words.
    Failed(String),
}

/// A socket's name; what it is shows by itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Note {
    name: String,
    managed: bool,
    path: Option<PathBuf>,
    unix: bool,
}

/// The way between a process and its successor.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(STALL))?;
        Ok(Self(stream))
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.0
    }

    /// Blocks.
    pub(super) fn say(&self, message: &Message) -> io::Result<()> {
        self.send(message, &[])
    }

    /// Blocks.
    pub(super) fn give(&self, sockets: &[Given]) -> io::Result<()> {
        let notes = sockets.iter().map(|given| Note {
            name: given.name.clone(),
            managed: given.managed,
            path: given.path.clone(),
            unix: matches!(given.socket, Socket::Unix(_)),
        });
        let descriptors: Vec<_> = sockets.iter().map(|given| given.socket.as_fd()).collect();
        self.send(&Message::Sockets(notes.collect()), &descriptors)
    }

    /// The next message, which must begin within `limit`. Blocks.
    pub(super) fn hear(&self, limit: Duration) -> io::Result<Message> {
        let (message, _sockets) = self.receive(limit)?;
        Ok(message)
    }

    /// The sockets that the first message brings. Blocks.
    pub(super) fn take(&self, limit: Duration) -> io::Result<Vec<Given>> {
        let (Message::Sockets(notes), sockets) = self.receive(limit)? else {
            return Err(io::Error::other("it does not begin with sockets"));
        };
        if notes.len() != sockets.len() {
            return Err(io::Error::other("a socket is missing"));
        }
        Ok(notes.into_iter().zip(sockets).map(Note::with).collect())
    }

    fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits =
            descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors));
        if !fits || length > LARGEST {
            return Err(io::Error::other("there is too much to hand over"));
        }
        let head = length.to_be_bytes();
        let head = [IoSlice::new(&head)];
        let _whole = sendmsg(&self.0, &head, &mut control, SendFlags::NOSIGNAL)?;
        (&self.0).write_all(&body)
    }

    fn receive(&self, limit: Duration) -> io::Result<(Message, Vec<OwnedFd>)> {
        self.0.set_read_timeout(Some(limit))?;
        let mut head = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
        let came = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut head)],
            &mut control,
            flags,
        )?;
        if came.bytes < head.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors);
            }
        }
        let length = u32::from_be_bytes(head);
        if length > LARGEST {
            return Err(io::Error::other("a message is too long"));
        }
        self.0.set_read_timeout(Some(STALL))?;
        let mut body = Vec::new();
        let _read = (&self.0).take(length.into()).read_to_end(&mut body)?;
        Ok((serde_json::from_slice(&body)?, sockets))
    }
}

impl Note {
    fn with((note, descriptor): (Self, OwnedFd)) -> Given {
        Given {
            name: note.name,
            managed: note.managed,
            path: note.path,
            socket: if note.unix {
                Socket::Unix(UnixListener::from(descriptor))
            } else {
                Socket::Tcp(TcpListener::from(descriptor))
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[test]
    fn sockets_arrive_with_their_names_and_listen_on() {
        let (from, to) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let given = Given {
            name: "proxy".to_owned(),
            managed: true,
            path: None,
            socket: Socket::Tcp(listener),
        };

        from.give(&[given]).unwrap();
        let taken = to.take(LIMIT).unwrap();

        assert_eq!(taken[0].socket.address(), Some(address));
        assert!(taken[0].managed && taken[0].name == "proxy");
        std::net::TcpStream::connect(address).unwrap();
    }

    #[test]
    fn long_messages_arrive_whole_and_an_end_is_an_error() {
        let (from, to) = pair();
        let long = "x".repeat(3 << 20);
        let hearing = std::thread::spawn(move || {
            let first = to.hear(LIMIT).unwrap();
            (first, to.hear(LIMIT))
        });

        from.say(&Message::Bequest(long.clone())).unwrap();
        drop(from);
        let (first, second) = hearing.join().unwrap();

        assert!(matches!(first, Message::Bequest(text) if text == long));
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
