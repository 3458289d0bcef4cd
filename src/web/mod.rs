//! The pages: a distribution's noVNC from a folder, if there is one, then ours, embedded at build
//! time.
//!
//! Called by whoever answers HTTP, with any request that is neither an upgrade nor the API's.
//! Never looks at the query, where tokens are; never lists a folder; never redirects, since a
//! `Location` made of a request path is how CVE-2021-3654 happened. Knows no console.

mod embedded;
mod headers;
mod on_disk;
mod path;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use self::headers::Policy;
use self::on_disk::Folder;

/// A response whose body is there as a whole.
pub type Page = Response<Full<Bytes>>;

/// What is served to browsers, and under which policy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages {
    folder: Option<(Arc<Folder>, Policy)>,
    embedded: Policy,
}

/// The pages cannot be served as configured.
#[derive(Debug, thiserror::Error)]
pub enum BadPages {
    /// The folder is not there, or not to be read.
    #[error("web root {path} cannot be read")]
    Root {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Would end the header, or the directive in it, and mean something else.
    #[error(
        "`{0}` is no source for frame-ancestors: `'self'`, `'none'`, or like `https://a.example`"
    )]
    FrameAncestor(String),
}

impl Pages {
    /// Our own pages. `frame_ancestors` names who may put them into a frame, in the words of
    /// that CSP directive; nobody named means `'self'`.
    pub fn embedded(frame_ancestors: &[String]) -> Result<Self, BadPages> {
        Ok(Self {
            folder: None,
            embedded: Policy::strict(frame_ancestors)?,
        })
    }

    /// The files below `root`, such as `/usr/share/novnc`, under a policy that lets noVNC's own
    /// pages work (they hold script and style); our own for what is not there, such as consoles
    /// that noVNC does not show. Checks now that the folder can be read.
    pub fn on_disk(root: PathBuf, frame_ancestors: &[String]) -> Result<Self, BadPages> {
        let policy = Policy::lenient(frame_ancestors)?;
        Ok(Self {
            folder: Some((Arc::new(Folder::open(root)?), policy)),
            ..Self::embedded(frame_ancestors)?
        })
    }

    /// Answers a request: 200, 304, 404 or 405, always with the security headers. Cancel-safe.
    pub fn respond<'a, B>(
        &'a self,
        request: &Request<B>,
    ) -> impl Future<Output = Page> + Send + use<'a, B> {
        let question = Question::of(request);
        async move {
            let (mut page, policy) = self.answer(&question).await;
            policy.apply(page.headers_mut());
            if question.head {
                *page.body_mut() = Full::default();
            }
            page
        }
    }

    async fn answer(&self, question: &Question) -> (Page, &Policy) {
        if !question.readable {
            return (refuse(StatusCode::METHOD_NOT_ALLOWED), &self.embedded);
        }
        if let Some((folder, policy)) = &self.folder {
            let found = Arc::clone(folder).read(question.path.clone()).await;
            if let Some(file) = found {
                return (question.deliver(file), policy);
            }
        }
        let found = embedded::find(&question.path, question.gzip);
        let page = found.map_or_else(
            || refuse(StatusCode::NOT_FOUND),
            |file| question.deliver(file),
        );
        (page, &self.embedded)
    }
}

/// A file as it is to be sent.
#[derive(Debug)]
struct File {
    bytes: Bytes,
    content_type: &'static str,
    etag: String,
    /// Its name changes with its content.
    immutable: bool,
    gzip: bool,
}

/// The few things about a request that count here.
#[derive(Debug)]
struct Question {
    path: String,
    readable: bool,
    head: bool,
    gzip: bool,
    known: Vec<HeaderValue>,
}

impl Question {
    fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            path: request.uri().path().to_owned(),
            readable: [Method::GET, Method::HEAD].contains(request.method()),
            head: request.method() == Method::HEAD,
            gzip: headers::accepts_gzip(headers),
            known: headers
                .get_all(header::IF_NONE_MATCH)
                .iter()
                .cloned()
                .collect(),
        }
    }

    fn deliver(&self, file: File) -> Page {
        let length = file.bytes.len();
        let fresh = headers::matches(&self.known, &file.etag);
        let mut page = Response::default();
        let fields = page.headers_mut();
        file.describe(fields);
        if fresh {
            *page.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            fields.insert(header::CONTENT_LENGTH, length.into());
            fields.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(file.content_type),
            );
            if file.gzip {
                fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            *page.body_mut() = Full::new(file.bytes);
        }
        page
    }
}

impl File {
    /// What a 200 and a 304 have in common.
    fn describe(&self, fields: &mut HeaderMap) {
        let cache = if self.immutable {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            fields.insert(header::ETAG, etag);
        }
    }
}

fn refuse(status: StatusCode) -> Page {
    let text = match status {
        StatusCode::METHOD_NOT_ALLOWED => "only GET and HEAD here\n",
        _ => "no such page\n",
    };
    let mut page = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *page.status_mut() = status;
    let fields = page.headers_mut();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    fields.insert(header::CONTENT_LENGTH, text.len().into());
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

/// By the name's ending; what is not known is offered as bytes, which browsers do not run.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "css" => "text/css; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "ico" => "image/vnd.microsoft.icon",
        "jpg" | "jpeg" => "image/jpeg",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "mp3" => "audio/mpeg",
        "oga" | "ogg" => "audio/ogg",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "ttf" => "font/ttf",
        "txt" => "text/plain; charset=utf-8",
        "wav" => "audio/wav",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
