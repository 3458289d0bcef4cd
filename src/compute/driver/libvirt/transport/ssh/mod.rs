//! ssh to a libvirt daemon: the system's own `ssh`, and libvirt's proxy on the far side.
//!
//! ssh brings its own configuration, keys, agents and known hosts; it is never let ask for
//! anything. It runs `virt-ssh-helper`, or netcat where that is missing, as libvirt's own client
//! does ([`command`]). The program belongs to a task: it is killed and reaped when the stream is
//! dropped, and what it said last is the error when the stream ends by itself.

mod command;

use std::future::Future as _;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::uri::{SshRoute, Uri};
use crate::compute::driver::libvirt::client::Rights;

/// How much of what ssh said last is kept.
const LAST_WORDS: usize = 2048;

/// How much of that a person is shown.
const SENTENCE: usize = 300;

/// How long ssh may take to finish speaking once it has ended. A master connection that it leaves
/// behind keeps its stderr open for ever.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why ssh does not run.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The program cannot be started.
    #[error("cannot start {}: {why}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        why: io::Error,
    },
}

/// How ssh ended. The error of the read that comes after the last byte.
#[derive(Debug, thiserror::Error)]
#[error("ssh ended ({how}){}", said(.words))]
struct Ended {
    how: String,
    words: String,
}

/// The program's stdin and stdout.
#[derive(Debug)]
pub(super) struct SshStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    end: oneshot::Receiver<Ended>,
    /// Ends the program when the stream is dropped.
    _leave: DropGuard,
}

/// Starts ssh. Must be called within a runtime.
pub(super) fn connect(uri: &Uri, route: &SshRoute, rights: Rights) -> Result<SshStream, SshError> {
    let mut command = Command::new(&route.program);
    command
        .args(command::arguments(uri, route, rights))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0) // a Ctrl-C is for us to handle
        .kill_on_drop(true);
    let failed = |why| SshError::Start {
        program: route.program.clone(),
        why,
    };
    let mut child = command.spawn().map_err(failed)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    };
    let (report, end) = oneshot::channel();
    let leave = CancellationToken::new();
    let _detached = tokio::spawn(attend(child, stderr, leave.clone(), report));
    Ok(SshStream {
        stdin,
        stdout,
        end,
        _leave: leave.drop_guard(),
    })
}

/// Listens to the program until it has ended, kills it when told to, and reports.
async fn attend(
    mut child: Child,
    mut stderr: ChildStderr,
    leave: CancellationToken,
    report: oneshot::Sender<Ended>,
) {
    let mut words = Vec::new();
    let listening = listen(&mut stderr, &mut words);
    let ended = async {
        tokio::select! {
            status = child.wait() => status,
            () = leave.cancelled() => {
                child.start_kill()?;
                child.wait().await
            }
        }
    };
    let status = both(ended, listening).await;
    let how = match status {
        Ok(status) => describe(status),
        Err(error) => error.to_string(),
    };
    let words = sentence(&words);
    let _nobody_asks = report.send(Ended { how, words });
}

/// Waits for the end of the program; its last words get a little longer.
async fn both<T>(ended: impl Future<Output = T>, listening: impl Future<Output = ()>) -> T {
    let mut listening = std::pin::pin!(listening);
    let mut ended = std::pin::pin!(ended);
    let ended = tokio::select! {
        ended = &mut ended => ended,
        () = &mut listening => return ended.await,
    };
    let _all_said = timeout(FAREWELL, listening).await;
    ended
}

/// Keeps the last of what the program says, for as long as it speaks.
async fn listen(stderr: &mut ChildStderr, words: &mut Vec<u8>) {
    let mut piece = [0; 512];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        words.extend(piece.iter().take(length));
        let surplus = words.len().saturating_sub(LAST_WORDS);
        let _forgotten = words.drain(..surplus);
    }
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(255) => "it could not connect or lost the connection".to_owned(),
        Some(127) => "there is neither virt-ssh-helper nor netcat on the far side".to_owned(),
        _ => status.to_string(),
    }
}

fn said(words: &str) -> String {
    if words.is_empty() {
        return String::new();
    }
    format!(": {words}")
}

/// The last lines, as many as a sentence holds, on one line.
fn sentence(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let mut sentence = String::new();
    for line in text.lines().rev() {
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if !sentence.is_empty() && sentence.len() + line.len() > SENTENCE {
            break;
        }
        let line = line.chars().take(SENTENCE);
        let parting = if sentence.is_empty() { "" } else { " / " };
        sentence = line
            .chain(parting.chars())
            .chain(sentence.chars())
            .collect();
    }
    sentence
}

impl AsyncRead for SshStream {
    /// An end without an error is passed on only where ssh ended well.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.end.is_terminated() {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.end).poll(cx)) {
            Ok(ended) => Poll::Ready(Err(io::Error::other(ended))),
            Err(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
