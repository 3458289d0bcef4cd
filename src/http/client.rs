use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// Why a server said nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers at the socket.
    #[error("no vncgate answers")]
    Connect(#[source] std::io::Error),
    /// The exchange broke off.
    #[error("the answer broke off")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {} s", CALL.as_secs())]
    Timeout,
}

/// How long a command waits; longer than any call inside the server may take.
const CALL: Duration = Duration::from_secs(20);

/// The largest answer a command reads, in bytes.
const LARGEST: usize = 256 << 20;

/// One request over a Unix socket.
pub async fn call_over_unix(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<Answer, CallError> {
    let exchange = async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(CallError::Connect)?;
        exchange(stream, method, path, body)
            .await
            .map_err(CallError::Exchange)
    };
    timeout(CALL, exchange)
        .await
        .unwrap_or(Err(CallError::Timeout))
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost");
    let request = if body.is_some() {
        request.header(CONTENT_TYPE, "application/json")
    } else {
        request
    };
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
    driver.abort();
    Ok(Answer {
        status: head.status,
        body,
    })
}
