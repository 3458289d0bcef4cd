//! Refusals that a person can read: the upgrade is granted, then closed with a sentence.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::proxy::ws::{Decoder, close_frame};

/// Bytes read at a time from a viewer that is refused; its answer is a close frame.
const READ: usize = 256;

/// Sends a close frame, waits for the viewer's own, and closes; all within `limit`.
///
/// A browser cannot read the HTTP status of a refused upgrade, but it can read this. What the
/// viewer sends meanwhile is thrown away; errors are, too: it is refused either way.
pub async fn refuse<V>(mut viewer: V, code: u16, reason: &str, limit: Duration)
where
    V: AsyncRead + AsyncWrite + Unpin,
{
    let frame = close_frame(code, reason);
    let farewell = async {
        viewer.write_all(&frame).await?;
        viewer.flush().await?;
        hear_close(&mut viewer).await?;
        viewer.shutdown().await?;
        // Unread bytes at the close would turn into a reset, which can overtake the frame.
        let mut rest = [0; READ];
        while viewer.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _in_time = timeout(limit, farewell).await.is_ok();
}

/// Reads up to the viewer's close frame, or whatever else is the last it says.
async fn hear_close<V: AsyncRead + Unpin>(viewer: &mut V) -> std::io::Result<()> {
    let mut decoder = Decoder::new(usize::MAX);
    let mut bytes = [0; READ];
    loop {
        let read = viewer.read(&mut bytes).await?;
        let (heard, _rest) = bytes.split_at_mut(read);
        if read == 0 || decoder.decode(heard, |_| ()).end.is_some() {
            return Ok(());
        }
    }
}
