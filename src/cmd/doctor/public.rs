//! The way that viewers come: the public URL's name, port and certificate.

use std::time::SystemTime;

use url::Url;

use super::line::{NoWay, Place};
use super::{Fault, Finding, Found, Visit, words};
use crate::http::Trust;
use crate::model::Host;
use crate::resolve::resolve;
use crate::tls::not_after;

/// Days before its end when a certificate is worth a word.
const SOON: u64 = 30;

const DAY: u64 = 24 * 60 * 60;

impl Visit {
    /// The page that viewers open, without a token.
    pub(super) fn page(&self) -> Result<Url, Fault> {
        let issued = self.console.as_ref().map(|console| console.url.as_str());
        let page = match (issued, &self.config.proxy.novnc_url) {
            (Some(issued), _) => Url::parse(issued).ok(),
            (None, Some(page)) => Some(page.clone()),
            (None, None) => self.base().and_then(|base| base.join("vnc.html").ok()),
        };
        let mut page = page.ok_or_else(|| {
            Fault::new(
                "there is no public URL",
                "set proxy.public_url to what viewers type",
            )
        })?;
        page.set_query(None);
        page.set_fragment(None);
        Ok(page)
    }

    fn base(&self) -> Option<Url> {
        let proxy = &self.config.proxy;
        let own = proxy.listen.first().map(|it| format!("http://{it}/"));
        let mut url = match &proxy.public_url {
            Some(url) => url.clone(),
            None => Url::parse(&own?).ok()?,
        };
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Some(url)
    }

    pub(super) fn place(&self) -> Result<Place, Fault> {
        let page = self.page()?;
        Place::of(&page).ok_or_else(|| words::no_way(&page, &NoWay::Url))
    }

    pub(super) fn trust(&self) -> Trust {
        Trust::new(self.ca_file.clone())
    }
}

/// Whether the public URL's name has an address.
pub(super) async fn resolve_name(visit: &Visit) -> Finding {
    let (page, place) = (visit.page()?, visit.place()?);
    let ips = resolve(&place.host).await;
    let ips = ips.map_err(|error| words::no_way(&page, &NoWay::Resolve(error)))?;
    let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
    let what = match place.host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => format!("{name} is {}", ips.join(", ")),
    };
    Ok(Found::Fine(what))
}

/// Whether its port takes connections.
pub(super) async fn dial_port(visit: &Visit) -> Finding {
    let (page, place) = (visit.page()?, visit.place()?);
    let dialled = tokio::time::timeout(visit.patience, place.dial()).await;
    let dialled = dialled.map_err(|_| words::silent_public(&page, visit.patience))?;
    let _stream = dialled.map_err(|error| words::no_way(&page, &error))?;
    let what = format!("{}:{} takes connections", place.host, place.port);
    Ok(Found::Fine(what))
}

/// Whether its certificate proves that it is the public URL's host.
pub(super) async fn shake_hands(visit: &Visit) -> Finding {
    let (page, place) = (visit.page()?, visit.place()?);
    let no_way = |error| words::no_way(&page, &error);
    let stream = place.dial().await.map_err(no_way)?;
    if !place.tls {
        return Ok(plain(&place));
    }
    let stream = place.shake_hands(&visit.trust(), stream).await;
    let stream = stream.map_err(no_way)?;
    let (_, session) = stream.get_ref();
    let own = session.peer_certificates().and_then(<[_]>::first);
    let end = own.and_then(|certificate| not_after(certificate));
    let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok());
    let days = left.map_or(0, |left| left.as_secs() / DAY);
    let version = session.protocol_version();
    let version = version.and_then(|it| it.as_str()).unwrap_or("TLS");
    let what = format!("{version}, the certificate is for this name and for {days} days more");
    if days < SOON {
        let change = "renew the certificate of the public URL, and see why that did not happen by \
                      itself";
        return Ok(Found::Note { what, change });
    }
    Ok(Found::Fine(what))
}

fn plain(place: &Place) -> Found {
    let local = match &place.host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(name) => name == "localhost",
    };
    let what = "the public URL is http://".to_owned();
    if local {
        return Found::Nothing(what);
    }
    Found::Note {
        what,
        change: "whatever is typed and seen passes in the clear: put TLS in front, and set \
                 proxy.public_url to https://",
    }
}
