use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{BadFrame, Frame, HEADER, Header, Status, Type};
use super::procedure::KEEPALIVE;
use super::xdr::Encoder;
use super::*;

const LIMIT: Duration = Duration::from_secs(5);
const ECHO: Procedure = Procedure(1);

/// The far end: what a daemon would do, word by word.
struct Daemon(UnixStream);

impl Daemon {
    async fn take(&mut self) -> Frame {
        let mut head = [0; HEADER];
        self.0.read_exact(&mut head).await.unwrap();
        let (header, length) = Header::decode(&head).unwrap();
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.unwrap();
        Frame { header, payload }
    }

    async fn say(&mut self, header: Header, payload: &[u8]) {
        self.0.write_all(&header.encode(payload)).await.unwrap();
    }

    async fn reply(&mut self, to: Header, payload: &[u8]) {
        let header = Header {
            r#type: Type::Reply,
            ..to
        };
        self.say(header, payload).await;
    }
}

struct Rig {
    daemon: Daemon,
    connection: Connection,
    events: Events,
    end: AbortOnDropHandle<Closed>,
}

fn rig() -> Rig {
    let (near, far) = UnixStream::pair().unwrap();
    let keepalive = Keepalive {
        interval: Duration::from_secs(1),
        unanswered: 2,
    };
    let (connection, events, work) = Connection::new(Io::Unix(near), keepalive);
    Rig {
        daemon: Daemon(far),
        connection,
        events,
        end: AbortOnDropHandle::new(tokio::spawn(work)),
    }
}

fn ping() -> Header {
    Header {
        program: KEEPALIVE,
        r#type: Type::Message,
        ..Header::call(1, 0)
    }
}

fn piece(of: Header, status: Status) -> Header {
    Header {
        r#type: Type::Stream,
        status,
        ..of
    }
}

#[tokio::test]
async fn replies_find_their_calls_in_any_order() {
    let Rig {
        mut daemon,
        connection,
        end: _end,
        ..
    } = rig();
    let call = |word| connection.call(ECHO, Encoder::new().int(word), LIMIT);
    let serve = async {
        let (first, second) = (daemon.take().await, daemon.take().await);
        daemon.reply(second.header, &second.payload).await;
        daemon.reply(first.header, &first.payload).await;
    };

    let (one, two, ()) = tokio::join!(call(1), call(2), serve);

    assert_eq!(one.unwrap().payload, [0, 0, 0, 1]);
    assert_eq!(two.unwrap().payload, [0, 0, 0, 2]);
}

#[tokio::test]
async fn a_refusal_is_the_daemons_own_words() {
    let Rig {
        mut daemon,
        connection,
        end: _end,
        ..
    } = rig();
    let serve = async {
        let header = Header {
            status: Status::Error,
            ..daemon.take().await.header
        };
        let words = Encoder::new().int(42).int(10);
        let words = words.optional_string(Some("no domain")).into_bytes();
        daemon.reply(header, &words).await;
    };

    let (refused, ()) = tokio::join!(connection.call(ECHO, Encoder::new(), LIMIT), serve);

    let error = refused.unwrap_err();
    assert_eq!(error.kind(), Some(error::Kind::NoDomain));
    assert_eq!(error.to_string(), "no domain");
}

#[tokio::test]
async fn a_call_given_up_is_forgotten_and_its_late_reply_hurts_nobody() {
    let Rig {
        mut daemon,
        connection,
        end: _end,
        ..
    } = rig();

    let short = Duration::from_millis(20);
    let late = connection.call(ECHO, Encoder::new(), short).await;
    assert!(matches!(late, Err(Error::Deadline(_))));
    let serve = async {
        let (late, next) = (daemon.take().await, daemon.take().await);
        daemon.reply(late.header, &[]).await;
        daemon.reply(next.header, &[7; 4]).await;
    };
    let (next, ()) = tokio::join!(connection.call(ECHO, Encoder::new(), LIMIT), serve);

    assert_eq!(next.unwrap().payload, [7; 4]);
}

#[tokio::test]
async fn a_descriptor_comes_with_its_reply_even_when_more_bytes_follow() {
    let Rig {
        mut daemon,
        connection,
        end: _end,
        ..
    } = rig();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let serve = async {
        let header = Header {
            r#type: Type::ReplyWithDescriptors,
            ..daemon.take().await.header
        };
        daemon.say(header, &[0, 0, 0, 1]).await;
        let rights = [ours.as_fd()];
        let socket = &daemon.0;
        let sent = socket.async_io(Interest::WRITABLE, || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
            let byte = [std::io::IoSlice::new(&[0])];
            Ok(sendmsg(socket, &byte, &mut control, SendFlags::empty())?)
        });
        assert_eq!(sent.await.unwrap(), 1);
        daemon.say(ping(), &[]).await;
        assert_eq!(daemon.take().await.header.procedure, 2, "a pong");
    };

    let (reply, ()) = tokio::join!(connection.call(ECHO, Encoder::new(), LIMIT), serve);

    let mut descriptors = reply.unwrap().descriptors;
    let socket = std::os::unix::net::UnixStream::from(descriptors.pop().unwrap());
    std::io::Write::write_all(&mut &socket, b"hi").unwrap();
    let mut said = [0; 2];
    theirs.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hi");
}

#[tokio::test]
async fn descriptors_announced_where_none_can_come_end_the_connection() {
    let (near, mut far) = tokio::io::duplex(1024);
    let io = Io::Other(Box::new(near));
    let (connection, _events, work) = Connection::new(io, Keepalive::default());
    let header = Header {
        r#type: Type::ReplyWithDescriptors,
        ..Header::call(1, 1)
    };
    far.write_all(&header.encode(&[0, 0, 0, 1])).await.unwrap();

    let closed = work.await;

    assert!(matches!(closed, Closed::Frame(BadFrame::Descriptors(1))));
    let refused = connection.call(ECHO, Encoder::new(), LIMIT).await;
    assert!(matches!(refused, Err(Error::Closed(Closed::Frame(_)))));
}

#[tokio::test]
async fn a_message_of_4_gib_ends_the_connection_at_its_header() {
    let Rig {
        mut daemon,
        end,
        connection: _connection,
        ..
    } = rig();
    let mut head = Header::call(1, 1).encode(&[]);
    head[..4].fill(0xff);
    daemon.0.write_all(&head).await.unwrap();

    let closed = end.await.unwrap();

    assert!(matches!(closed, Closed::Frame(BadFrame::Length(u32::MAX))));
}

#[tokio::test]
async fn events_are_told_in_order_and_a_slow_taker_learns_that_it_missed_some() {
    let Rig {
        mut daemon,
        mut events,
        connection,
        end: _end,
    } = rig();
    let event = |number| Header {
        r#type: Type::Message,
        ..Header::call(number, 0)
    };
    for number in 0..300 {
        daemon.say(event(number), &[]).await;
    }
    let serve = async {
        let call = daemon.take().await;
        daemon.reply(call.header, &[]).await;
    };
    let (reply, ()) = tokio::join!(connection.call(ECHO, Encoder::new(), LIMIT), serve);
    reply.unwrap();

    assert!(matches!(events.next().await, Some(Event::Lagged)));
    for number in 0..256 {
        let Some(Event::Happened { procedure, .. }) = events.next().await else {
            panic!("an event")
        };
        assert_eq!(procedure, Procedure(number));
    }
    drop(daemon);
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_without_a_sign_of_life_is_given_up() {
    let Rig {
        mut daemon,
        connection,
        end,
        ..
    } = rig();
    connection.start_pings();
    let started = tokio::time::Instant::now();

    let call = connection.call(ECHO, Encoder::new(), LIMIT);
    let (refused, closed) = tokio::join!(call, end);

    assert!(matches!(closed, Ok(Closed::Silent)));
    assert!(matches!(refused, Err(Error::Closed(Closed::Silent))));
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    assert_eq!(daemon.take().await.header.procedure, 1, "the call");
    assert_eq!(daemon.take().await.header, ping());
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_to_an_agreed_end() {
    let Rig {
        mut daemon,
        connection,
        end: _end,
        ..
    } = rig();
    let open = connection.open_stream(ECHO, Encoder::new(), LIMIT);
    let serve = async {
        let header = daemon.take().await.header;
        daemon.reply(header, &[]).await;
        daemon
            .say(piece(header, Status::Continue), b"login: ")
            .await;
        header
    };
    let (opened, header) = tokio::join!(open, serve);
    let (_reply, mut stream) = opened.unwrap();

    let mut prompt = [0; 7];
    stream.read_exact(&mut prompt).await.unwrap();
    assert_eq!(&prompt, b"login: ");
    stream.write_all(b"root\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(daemon.take().await.payload, b"root\n");
    assert_eq!(daemon.take().await.header, piece(header, Status::Ok));
    daemon.say(piece(header, Status::Ok), &[]).await;
    assert_eq!(stream.read(&mut prompt).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stream_that_fails_or_has_holes_is_an_error_not_an_end() {
    for kind in [Type::Stream, Type::StreamHole] {
        let Rig {
            mut daemon,
            connection,
            end: _end,
            ..
        } = rig();
        let open = connection.open_stream(ECHO, Encoder::new(), LIMIT);
        let serve = async {
            let header = daemon.take().await.header;
            daemon.reply(header, &[]).await;
            let header = Header {
                r#type: kind,
                ..piece(header, Status::Error)
            };
            let why = Encoder::new().int(1).int(1).optional_string(Some("broken"));
            daemon.say(header, &why.into_bytes()).await;
        };
        let (opened, ()) = tokio::join!(open, serve);

        assert!(opened.unwrap().1.read_all(1024).await.is_err(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_stream_longer_than_its_reader_takes_is_refused_and_aborted() {
    let Rig {
        mut daemon,
        connection,
        end: _end,
        ..
    } = rig();
    let open = connection.open_stream(ECHO, Encoder::new(), LIMIT);
    let serve = async {
        let header = daemon.take().await.header;
        daemon.reply(header, &[]).await;
        daemon
            .say(piece(header, Status::Continue), &[0; 2000])
            .await;
        header
    };
    let (opened, header) = tokio::join!(open, serve);
    let mut stream = opened.unwrap().1;

    let refused = stream.read_all(1999).await;

    assert!(matches!(refused, Err(Error::Large(1999))));
    drop(stream);
    assert_eq!(daemon.take().await.header, piece(header, Status::Error));
}

#[tokio::test]
async fn the_connection_ends_when_its_last_handle_is_gone() {
    let Rig {
        connection,
        end,
        daemon: _daemon,
        ..
    } = rig();

    drop(connection);

    assert!(matches!(end.await, Ok(Closed::Dropped)));
}
