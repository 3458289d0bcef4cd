//! A role of another version, which understands nothing that it is asked.

use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{self, Runtime};

/// The version that it says it is.
pub(crate) const VERSION: &str = "9.9.9";

/// One that listens; gone when dropped.
#[derive(Debug)]
pub(crate) struct Newer {
    _runtime: Runtime,
}

impl Newer {
    /// One at this Unix socket.
    pub(crate) fn at(path: &Path) -> Self {
        let mut builder = runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime
            .block_on(async { UnixListener::bind(path) })
            .unwrap();
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream));
            }
        });
        Self { _runtime: runtime }
    }
}

async fn serve(stream: UnixStream) {
    let answer = service_fn(|_| async {
        let response = Response::builder()
            .status(StatusCode::BAD_REQUEST)
            .header("vncgate-version", VERSION);
        let body = Full::<Bytes>::from("not understood");
        Ok::<_, Infallible>(response.body(body).unwrap())
    });
    let serving = Builder::new(TokioExecutor::new());
    let serving = serving.serve_connection(TokioIo::new(stream), answer);
    let _ended = serving.await.is_ok();
}
