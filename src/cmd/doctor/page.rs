use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LOCATION, SERVER};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::Full;
use url::{Position, Url};

use super::line::ask;
use super::{Fault, Finding, Found, Visit, words};

/// Whether the page comes.
pub(super) async fn look(visit: &Visit) -> Finding {
    let (page, place) = (visit.page()?, visit.place()?);
    let no_way = |error| words::no_way(&page, &error);
    let stream = place.open(&visit.trust()).await.map_err(no_way)?;
    let answer = ask(stream, request(&page, &page)?).await.map_err(no_way)?;
    let (status, headers) = (answer.status(), answer.headers());
    if status.is_redirection() {
        let to = header(headers, &LOCATION).unwrap_or_default();
        return Err(words::redirected(&page, to));
    }
    if status != StatusCode::OK {
        return Err(words::page_status(&page, status, server(headers)));
    }
    let kind = header(headers, &CONTENT_TYPE).unwrap_or_default();
    if !kind.starts_with("text/html") {
        let what = format!("{page} is no page but {kind:?}");
        return Err(Fault::new(what, words::WRONG_URL));
    }
    Ok(Found::Fine(page.to_string()))
}

/// A GET for what of `url` is on the server, by the names of `page`.
pub(super) fn request(page: &Url, url: &Url) -> Result<Request<Full<Bytes>>, Fault> {
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let host = &page[Position::BeforeHost..Position::AfterPort];
    let request = Request::builder().uri(target).header(HOST, host);
    let bad = |_| Fault::new(format!("{page} cannot be asked for"), words::WRONG_URL);
    request.body(Full::new(Bytes::new())).map_err(bad)
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Who answered, as far as it says.
pub(super) fn server(headers: &HeaderMap) -> &str {
    header(headers, &SERVER).unwrap_or("an unnamed server")
}
