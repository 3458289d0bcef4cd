use url::Url;

use crate::config::Proxy;
use crate::model::ConsoleType;

/// The built-in page of SPICE consoles, under the name that Nova's default has.
const SPICE_PAGE: &str = "spice_auto.html";

/// The built-in page of serial consoles.
const SERIAL_PAGE: &str = "serial.html";

/// The access URLs' bases, by console type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Urls {
    public: Url,
    novnc: Url,
    xvpvnc: Option<Url>,
    spice: Url,
    spice_direct: Option<Url>,
    serial: Url,
    serial_page: Url,
    mks: Option<Url>,
}

impl Urls {
    /// The bases the config names, else those under its public URL, else under `own`, the URL
    /// of this gateway's own listener. `page` is the noVNC page's name.
    pub fn new(proxy: &Proxy, own: &Url, page: &str) -> Self {
        let public = proxy.public_url.as_ref().unwrap_or(own);
        Self {
            public: public.clone(),
            novnc: proxy
                .novnc_url
                .clone()
                .unwrap_or_else(|| under(public, page)),
            xvpvnc: proxy.xvpvnc_url.clone(),
            spice: proxy
                .spice_url
                .clone()
                .unwrap_or_else(|| under(public, SPICE_PAGE)),
            spice_direct: proxy.spice_direct_url.clone(),
            mks: proxy.mks_url.clone(),
            serial_page: under(public, SERIAL_PAGE),
            serial: proxy
                .serial_url
                .clone()
                .unwrap_or_else(|| websocket(public)),
        }
    }

    /// How viewers reach this gateway.
    pub fn public(&self) -> &Url {
        &self.public
    }

    /// The base for a type; `None` where no page shows it.
    pub fn base(&self, console_type: ConsoleType) -> Option<&Url> {
        match console_type {
            ConsoleType::Novnc => Some(&self.novnc),
            ConsoleType::Xvpvnc => self.xvpvnc.as_ref(),
            ConsoleType::SpiceHtml5 => Some(&self.spice),
            ConsoleType::SpiceDirect => self.spice_direct.as_ref(),
            ConsoleType::Serial => Some(&self.serial),
            ConsoleType::Webmks => self.mks.as_ref(),
        }
    }

    /// The page for a type whose base is no page: programs want a serial line as the WebSocket it
    /// is, people in a browser.
    pub fn page(&self, console_type: ConsoleType) -> Option<&Url> {
        (console_type == ConsoleType::Serial).then_some(&self.serial_page)
    }
}

fn under(public: &Url, page: &str) -> Url {
    let (path, query) = page
        .split_once('?')
        .map_or((page, None), |(path, query)| (path, Some(query)));
    let mut url = public.clone();
    url.set_path(&format!("{}/{path}", public.path().trim_end_matches('/')));
    url.set_query(query);
    url
}

fn websocket(public: &Url) -> Url {
    let scheme = if public.scheme() == "https" {
        "wss"
    } else {
        "ws"
    };
    let mut url = under(public, "");
    // Never an error: the config admits http and https alone, which may become ws and wss.
    let changed = url.set_scheme(scheme);
    debug_assert!(changed.is_ok());
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(public: Option<&str>) -> [String; 2] {
        let proxy = Proxy {
            public_url: public.map(|url| url.parse().unwrap()),
            ..Proxy::default()
        };
        let urls = Urls::new(
            &proxy,
            &"http://127.0.0.1:6080".parse().unwrap(),
            "vnc.html?a=1",
        );
        [ConsoleType::Novnc, ConsoleType::Serial].map(|t| urls.base(t).unwrap().to_string())
    }

    #[test]
    fn bases_stand_under_the_public_url_and_its_prefix() {
        let own = ["http://127.0.0.1:6080/vnc.html?a=1", "ws://127.0.0.1:6080/"];
        assert_eq!(bases(None), own);
        let plain = ["https://c.example/vnc.html?a=1", "wss://c.example/"];
        assert_eq!(bases(Some("https://c.example")), plain);
        let prefixed = [
            "https://c.example/gate/vnc.html?a=1",
            "wss://c.example/gate/",
        ];
        assert_eq!(bases(Some("https://c.example/gate/")), prefixed);
    }

    #[test]
    fn only_a_serial_line_has_a_page_beside_its_base() {
        let own = "http://h/gate".parse().unwrap();
        let urls = Urls::new(&Proxy::default(), &own, "vnc.html");
        let page = |console_type| urls.page(console_type).map(ToString::to_string);
        let serial = page(ConsoleType::Serial);
        assert_eq!(serial.as_deref(), Some("http://h/gate/serial.html"));
        assert_eq!(page(ConsoleType::Novnc), None);
    }

    #[test]
    fn spice_opens_the_built_in_page_unless_another_is_configured() {
        let spice = |proxy: &Proxy| {
            let urls = Urls::new(proxy, &"http://h".parse().unwrap(), "vnc.html");
            urls.base(ConsoleType::SpiceHtml5).unwrap().to_string()
        };
        assert_eq!(spice(&Proxy::default()), "http://h/spice_auto.html");
        let configured = Proxy {
            spice_url: Some("https://c.example/spice.html".parse().unwrap()),
            ..Proxy::default()
        };
        assert_eq!(spice(&configured), "https://c.example/spice.html");
    }
}
