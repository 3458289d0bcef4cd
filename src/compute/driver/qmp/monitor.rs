//! One short talk with a QEMU over its machine protocol: greeting, capabilities, some commands.
//!
//! Knows lines and errors, no instance. A monitor serves one client at a time, so whoever opens
//! one asks what there is to ask in one go and closes it. The protocol is QEMU's
//! docs/interop/qmp-spec: JSON objects, one a line; events may stand between any two of them.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

/// A thousand times the longest answer a look-up gets.
const MAX_LINE: u64 = 1 << 20;

/// Why a monitor told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// There is no socket, or nobody listens on it.
    #[error("nobody listens")]
    Gone,
    /// More clients wait for it than it lets wait.
    #[error("is busy with other clients")]
    Busy,
    /// Time ran out.
    #[error("did not answer in time; it is stopped, or its monitor is another program's")]
    Silent,
    /// The connection broke.
    #[error("cannot be asked: {0}")]
    Io(#[from] io::Error),
    /// It closed the connection before it had answered.
    #[error("ended the connection without an answer")]
    Ended,
    /// What came is not of this protocol.
    #[error("does not speak QMP")]
    Foreign,
    /// It has no end.
    #[error("sent a line of more than 1 MiB")]
    Long,
    /// It is no answer to this command.
    #[error("made no sense when asked to `{0}`")]
    Senseless(&'static str),
    /// QEMU knows the command and will not.
    #[error("refused `{command}`: {why}")]
    Refused {
        /// What it was asked.
        command: &'static str,
        /// In QEMU's words.
        why: String,
    },
}

/// A command with its arguments.
pub(super) type Command = (&'static str, Value);

/// A monitor that takes commands.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// A line from QEMU: greeting, event, answer or refusal.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<IgnoredAny>,
    event: Option<IgnoredAny>,
    id: Option<usize>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

impl Monitor {
    /// Connects and ends the negotiation. Waits as long as another client has the monitor, so
    /// the caller sets a deadline.
    pub(super) async fn open(socket: &Path) -> Result<Self, Trouble> {
        let stream = UnixStream::connect(socket).await.map_err(unconnected)?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
            line: Vec::new(),
        };
        let greeting = monitor.read().await?;
        greeting.greeting.ok_or(Trouble::Foreign)?;
        monitor.ask(&[("qmp_capabilities", json!({}))]).await?;
        Ok(monitor)
    }

    /// The answers in the order of the commands, nothing for a command this QEMU does not have.
    pub(super) async fn ask(
        &mut self,
        commands: &[Command],
    ) -> Result<Vec<Option<Value>>, Trouble> {
        self.stream.write_all(&script(commands)).await?;
        let mut answers = Vec::new();
        for (id, (command, _)) in commands.iter().enumerate() {
            answers.push(self.answer(id, command).await?);
        }
        Ok(answers)
    }

    /// Sends a command with a descriptor; its answer, nothing if this QEMU does not have it.
    pub(super) async fn lend(
        &mut self,
        command: &Command,
        descriptor: BorrowedFd<'_>,
    ) -> Result<Value, Trouble> {
        let script = script(std::slice::from_ref(command));
        let stream = self.stream.get_ref();
        let send = || send_with(stream.as_fd(), &script, descriptor);
        let count = stream.async_io(Interest::WRITABLE, send).await?;
        if count != script.len() {
            return Err(Trouble::Ended);
        }
        self.answer(0, command.0)
            .await
            .map(Option::unwrap_or_default)
    }

    /// Answers come in the order of the commands, because out-of-band ones are not asked for.
    async fn answer(&mut self, id: usize, command: &'static str) -> Result<Option<Value>, Trouble> {
        let line = loop {
            let line = self.read().await?;
            if line.event.is_none() {
                break line;
            }
        };
        match line {
            Line {
                error: Some(no), ..
            } if no.class == "CommandNotFound" => Ok(None),
            Line {
                error: Some(no), ..
            } => Err(Trouble::Refused {
                command,
                why: no.desc,
            }),
            Line {
                answer, id: its, ..
            } if answer.is_some() && its == Some(id) => Ok(answer),
            _ => Err(Trouble::Foreign),
        }
    }

    async fn read(&mut self) -> Result<Line, Trouble> {
        self.line.clear();
        let mut bounded = (&mut self.stream).take(MAX_LINE);
        bounded.read_until(b'\n', &mut self.line).await?;
        if self.line.last() != Some(&b'\n') {
            let whole = u64::try_from(self.line.len()).is_ok_and(|length| length < MAX_LINE);
            return Err(if whole { Trouble::Ended } else { Trouble::Long });
        }
        serde_json::from_slice(&self.line).map_err(|_| Trouble::Foreign)
    }
}

/// All in one write: QEMU queues up to eight commands.
fn script(commands: &[Command]) -> Vec<u8> {
    let line = |(id, (command, arguments)): (usize, &Command)| {
        let line = json!({"execute": command, "arguments": arguments, "id": id});
        format!("{line}\n").into_bytes()
    };
    commands.iter().enumerate().flat_map(line).collect()
}

/// A descriptor travels with the first byte of what is sent.
fn send_with(to: BorrowedFd<'_>, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut aside = SendAncillaryBuffer::new(&mut space);
    aside.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(to, &[IoSlice::new(bytes)], &mut aside, SendFlags::NOSIGNAL);
    sent.map_err(io::Error::from)
}

/// The kernel says `EAGAIN` where the queue of those who wait to be accepted is full.
fn unconnected(error: io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Trouble::Gone,
        ErrorKind::WouldBlock => Trouble::Busy,
        _ => Trouble::Io(error),
    }
}
