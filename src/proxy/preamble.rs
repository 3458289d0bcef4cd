//! Asking a door that serves several consoles for one of them, by HTTP CONNECT.
//!
//! Called by `target` between dialling and the greeting. The request is Nova's to the byte: no
//! `Host`, so that whoever opens to nova-novncproxy opens to us. The answer's head is read to its
//! blank line and no further in meaning: what came behind it is the console's and handed back. RFC
//! 9110 section 9.3.6, RFC 9112 section 4.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::model::AccessPath;

/// The longest head of an answer, as Nova's proxy has it.
const LONGEST: usize = 4096;

/// Why a door did not open. Shows nothing of what it said but the status.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// It hung up.
    #[error("it hung up before it answered")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Broken(io::Error),
    /// It said nothing, or not all of it.
    #[error("it did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// No blank line.
    #[error("its answer has no end within {LONGEST} bytes")]
    Endless,
    /// It speaks something else.
    #[error("its answer is no HTTP")]
    NotHttp,
    /// It said no.
    #[error("it answered with status {0}")]
    Status(u16),
}

/// Asks for the console called `path` and waits for a 200, at most for `limit`. Returns what came
/// behind the answer. Not cancel-safe: part of the answer may have been read.
pub async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    path: &AccessPath,
    limit: Duration,
) -> Result<Vec<u8>, NotOpened> {
    let request = format!("CONNECT {} HTTP/1.1\r\n\r\n", path.as_str());
    let answered = timeout(limit, async {
        let sent = stream.write_all(request.as_bytes()).await;
        sent.map_err(NotOpened::Broken)?;
        answer(stream).await
    });
    let (head, behind) = answered.await.map_err(|_| NotOpened::Late(limit))??;
    match status(&head) {
        Some(200) => Ok(behind),
        Some(other) => Err(NotOpened::Status(other)),
        None => Err(NotOpened::NotHttp),
    }
}

/// The head, and what came behind it.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Vec<u8>, Vec<u8>), NotOpened> {
    let mut bytes = Vec::with_capacity(LONGEST);
    let mut head = stream.take(LONGEST.try_into().unwrap_or(u64::MAX));
    loop {
        let read = head.read_buf(&mut bytes).await;
        let read = read.map_err(NotOpened::Broken)?;
        if let Some(end) = end(&bytes) {
            let behind = bytes.split_off(end);
            return Ok((bytes, behind));
        }
        if read == 0 {
            let full = bytes.len() >= LONGEST;
            let why = if full {
                NotOpened::Endless
            } else {
                NotOpened::Closed
            };
            return Err(why);
        }
    }
}

/// Where the blank line ends. A line may end without its carriage return (RFC 9112 section 2.2).
fn end(bytes: &[u8]) -> Option<usize> {
    let blank = |blank: &[u8]| {
        let at = bytes
            .windows(blank.len())
            .position(|window| window == blank);
        at.map(|at| at + blank.len())
    };
    [blank(b"\n\r\n"), blank(b"\n\n")]
        .into_iter()
        .flatten()
        .min()
}

/// The code in `HTTP/1.x CODE REASON`; any reason, or none.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let mut versions = [b"HTTP/1.1 ", b"HTTP/1.0 "].into_iter();
    let rest = versions.find_map(|version| line.strip_prefix(version));
    let (code, behind) = rest?.split_at_checked(3)?;
    let ended = matches!(behind.first(), None | Some(b' ' | b'\r'));
    let digits = code.iter().all(u8::is_ascii_digit);
    let code = std::str::from_utf8(code).ok()?.parse().ok();
    code.filter(|code| ended && digits && *code >= 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Asks a door that says this, in pieces of `size` bytes, and then lingers or hangs up.
    async fn asked(says: &[u8], size: usize, lingers: bool) -> Result<Vec<u8>, NotOpened> {
        let (mut near, far) = duplex(1 << 16);
        let door = tokio::spawn(door(far, says.to_vec(), size, lingers));
        let path = AccessPath::try_from("console-1".to_owned()).unwrap();
        let answer = ask(&mut near, &path, LIMIT).await;
        drop(near);
        assert_eq!(door.await.unwrap(), b"CONNECT console-1 HTTP/1.1\r\n\r\n");
        answer
    }

    /// What it was asked.
    async fn door(mut stream: DuplexStream, says: Vec<u8>, size: usize, lingers: bool) -> Vec<u8> {
        let mut request = vec![0; 30];
        stream.read_exact(&mut request).await.unwrap();
        for piece in says.chunks(size) {
            // The asker may have heard enough.
            let _heard = stream.write_all(piece).await.is_ok();
            tokio::task::yield_now().await;
        }
        while lingers && stream.read(&mut [0; 64]).await.unwrap() > 0 {}
        request
    }

    #[tokio::test]
    async fn what_comes_behind_the_answer_is_the_consoles() {
        let says = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nRFB 003.008\n";
        for size in [1, 7, says.len()] {
            let behind = asked(says, size, true).await.unwrap();
            assert!(b"RFB 003.008\n".starts_with(&behind), "{size}: {behind:?}");
        }
        assert_eq!(
            asked(says, says.len(), true).await.unwrap(),
            b"RFB 003.008\n"
        );
    }

    #[tokio::test]
    async fn the_least_of_an_answer_will_do() {
        for says in [&b"HTTP/1.0 200\r\n\r\n"[..], b"HTTP/1.1 200 OK\n\n"] {
            assert_eq!(asked(says, 64, true).await.unwrap(), b"");
        }
    }

    #[tokio::test]
    async fn no_other_status_opens_wherever_it_says_200() {
        for (says, code) in [
            ("HTTP/1.1 403 200 reasons not to\r\n\r\n", 403),
            ("HTTP/1.1 500 Oops\r\nX: 200\r\n\r\n", 500),
            ("HTTP/1.1 101 Switching\r\n\r\n", 101),
        ] {
            let refused = asked(says.as_bytes(), 64, true).await.unwrap_err();
            assert!(
                matches!(refused, NotOpened::Status(told) if told == code),
                "{refused}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_http_does_not_open() {
        for says in [
            "RFB 003.008\n\n",
            "\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
        ] {
            let refused = asked(says.as_bytes(), 64, true).await.unwrap_err();
            assert!(matches!(refused, NotOpened::NotHttp), "{says:?}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_head_without_end_is_given_up_at_4096_bytes() {
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(8192));
        let refused = asked(endless.as_bytes(), 100, true).await.unwrap_err();
        assert!(matches!(refused, NotOpened::Endless), "{refused}");
    }

    #[tokio::test]
    async fn the_longest_head_opens() {
        let filling = "x".repeat(LONGEST - "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len());
        let longest = format!("HTTP/1.1 200 OK\r\nX: {filling}\r\n\r\n");
        assert_eq!(asked(longest.as_bytes(), 9999, true).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_door_that_hangs_up_in_the_middle_is_no_door() {
        for says in ["", "HTTP/1.1 200 OK\r\n"] {
            let refused = asked(says.as_bytes(), 64, false).await.unwrap_err();
            assert!(matches!(refused, NotOpened::Closed), "{says:?}: {refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_door_is_given_up() {
        let refused = asked(b"HTTP/1.1 200 OK\r\n", 64, true).await.unwrap_err();
        assert_eq!(refused.to_string(), "it did not answer within 5 s");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_fail_badly(bytes: Vec<u8>) {
            let _status = status(&bytes);
            prop_assert!(end(&bytes).is_none_or(|end| end <= bytes.len()));
        }
    }
}
