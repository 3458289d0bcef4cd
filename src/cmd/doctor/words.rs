//! What goes wrong where vncgate is set up, in words, and what to change.

use std::io::{self, ErrorKind};
use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::Fault;
use super::line::{NoWay, Over};
use crate::http::BadTrust;
use crate::model::Address;

pub(super) const WRONG_URL: &str = "set proxy.public_url to where viewers reach this vncgate, with any \
                                    path prefix; or correct the reverse proxy";

pub(super) const LOG: &str = "the log of vncgate says more, under the id in brackets";

/// How nginx lets WebSockets through.
const NGINX: &str = "let the proxy in front pass upgrades on; nginx: proxy_http_version 1.1; \
                     proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; \
                     proxy_set_header Host $http_host";

pub(super) fn too_slow(limit: Duration) -> Fault {
    let what = format!("no end within {}", humantime::format_duration(limit));
    Fault::new(
        what,
        "see what is slow there, or give it longer with --timeout",
    )
}

/// A hypervisor, or another source of instances, that cannot be asked.
pub(super) fn source(fault: &str) -> Fault {
    let lower = fault.to_lowercase();
    let change = if lower.contains("permission denied") {
        "let the user that runs vncgate use libvirt: add it to the group libvirt, then restart vncgate"
    } else if [
        "no such file",
        "there is no",
        "refused",
        "no libvirt daemon",
    ]
    .iter()
    .any(|it| lower.contains(it))
    {
        "start libvirt there (systemctl start libvirtd, or virtqemud.socket), or correct its uri in \
         [[compute.host]]"
    } else if lower.contains("certificate") {
        "see to the certificates of the way to libvirt (its uri's pkipath), on both sides"
    } else {
        "see to this source, or correct it in [compute]"
    };
    Fault::new(fault, change)
}

pub(super) fn only_there(address: &Address, host: &str) -> Fault {
    let what =
        format!("the display listens at {address} of {host}, which only {host} itself reaches");
    let change = format!(
        "have it listen on an address of {host}: vnc_listen in its /etc/libvirt/qemu.conf (Nova: [vnc] \
         server_listen), then start the instance anew; or run vncgate on {host}"
    );
    Fault::new(what, change)
}

pub(super) fn closed_port(address: &Address, error: &io::Error) -> Fault {
    let what = format!("{address} takes no connection: {error}");
    let change = match error.kind() {
        ErrorKind::ConnectionRefused => {
            "nobody listens there: is the display up, and on that address (vnc_listen), or does a \
             firewall reject it?"
        }
        ErrorKind::PermissionDenied => "let the user that runs vncgate open this socket",
        ErrorKind::NotFound => "nobody has made this socket: does the instance run?",
        _ => "see to the way from here to that host: its route, its name, its firewall",
    };
    Fault::new(what, change)
}

pub(super) fn silent_port(address: &Address, limit: Duration) -> Fault {
    let limit = humantime::format_duration(limit);
    let what = format!("{address} does not answer within {limit}");
    let change = "a firewall drops it, or the host is down: open the VNC ports (5900 and up) of that \
                  host to this one";
    Fault::new(what, change)
}

pub(super) fn mute(address: &Address, limit: Duration) -> Fault {
    let limit = humantime::format_duration(limit);
    let what = format!("{address} takes the connection and says nothing for {limit}");
    let change = "a VNC server speaks first: is another program there (one that waits for TLS or \
                  HTTP), or does the server hang?";
    Fault::new(what, change)
}

pub(super) fn no_vnc(address: &Address, said: &[u8]) -> Fault {
    let what = if said.is_empty() {
        format!("{address} hangs up before it has said anything")
    } else {
        let said: String = String::from_utf8_lossy(said).chars().take(40).collect();
        format!("what answers at {address} is no VNC server: it says {said:?}")
    };
    let change =
        "correct the address; if a VNC server should be there, another program has its port";
    Fault::new(what, change)
}

/// A security type by its name.
pub(super) fn security(kind: u8) -> String {
    let name = match kind {
        0 => "none (it lets nobody in)",
        1 => "None",
        2 => "VNC Authentication",
        5 | 6 | 129 | 130 | 133 => "RA2",
        16 => "Tight",
        18 => "TLS",
        19 => "VeNCrypt",
        20 => "SASL",
        30 | 33 | 35 => "Apple's",
        other => return format!("type {other}"),
    };
    name.to_owned()
}

pub(super) fn silent_public(page: &Url, limit: Duration) -> Fault {
    let limit = humantime::format_duration(limit);
    let what = format!("{} does not answer within {limit}", shown(page));
    let change = "a firewall drops it, or proxy.public_url names another machine; from inside, a router \
                  may not lead back (hairpin NAT)";
    Fault::new(what, change)
}

/// Scheme, host and port.
fn shown(page: &Url) -> String {
    page.origin().ascii_serialization()
}

pub(super) fn no_way(page: &Url, no_way: &NoWay) -> Fault {
    let shown = shown(page);
    match no_way {
        NoWay::Url => Fault::new(format!("{shown} leads nowhere"), WRONG_URL),
        NoWay::Resolve(error) => Fault::new(
            error.to_string(),
            "make the name known (DNS, or /etc/hosts here), or correct proxy.public_url",
        ),
        NoWay::Dial(error) => Fault::new(
            format!("{shown} takes no connection: {error}"),
            "start the reverse proxy (or vncgate) there, open its port, or correct proxy.public_url",
        ),
        NoWay::Tls(error) => tls(error),
        NoWay::Http(error) => Fault::new(
            format!("{shown} does not speak HTTP/1.1: {error}"),
            "is that port's scheme the other one (http, https)? correct proxy.public_url, or what \
             listens there",
        ),
    }
}

fn tls(error: &BadTrust) -> Fault {
    let text = error.to_string();
    let change = match error {
        BadTrust::NoCas | BadTrust::CaFile { .. } => "give the CA with --ca-file",
        BadTrust::Server { fault, .. } if fault.contains("expired") => {
            "renew the certificate of the public URL and reload the server that shows it"
        }
        BadTrust::Server { fault, .. } if fault.contains("this name") => {
            "get a certificate for the name in proxy.public_url, or set that to a name the \
             certificate is for"
        }
        BadTrust::Server { .. } => {
            "browsers refuse it too unless they know its CA: have the server send its whole chain, or \
             give the CA with --ca-file"
        }
        BadTrust::Handshake { .. } if text.contains("no TLS") => {
            "the public URL is https:// and that port speaks plain HTTP: set up TLS there, or set \
             proxy.public_url to http://"
        }
        BadTrust::Handshake { .. } => "see to the TLS settings of the server there",
    };
    Fault::new(text.trim_end_matches("; set ca_file"), change)
}

pub(super) fn redirected(page: &Url, to: &str) -> Fault {
    let to_https = page.scheme() == "http" && to.starts_with("https://");
    let what = format!("{page} leads on to {to}");
    if to_https {
        let change = "viewers end up at https:// while console URLs and origins say http://: set \
                      proxy.public_url to https://";
        return Fault::new(what, change);
    }
    Fault::new(what, WRONG_URL)
}

pub(super) fn page_status(page: &Url, status: StatusCode, by: &str) -> Fault {
    let what = format!("{page} is answered with {status} by {by}");
    let change = match status.as_u16() {
        502..=504 => BEHIND,
        400 => {
            "is that a port for https://, or does the proxy in front want another name? correct \
             proxy.public_url"
        }
        401 | 403 => "the proxy in front lets nobody to the page: correct its rules",
        _ => WRONG_URL,
    };
    Fault::new(what, change)
}

const BEHIND: &str = "the proxy in front does not reach vncgate: its upstream must be an address of \
                      proxy.listen";

pub(super) fn no_upgrade(status: StatusCode, by: &str) -> Fault {
    let what = format!("the WebSocket upgrade is answered with {status} by {by}");
    let change = match status.as_u16() {
        502 | 504 => BEHIND,
        503 => "the gateway is full or going down, or the proxy in front does not reach it",
        _ => NGINX,
    };
    Fault::new(what, change)
}

pub(super) fn held_back(limit: Duration) -> Fault {
    let limit = humantime::format_duration(limit);
    let what = format!("the WebSocket is upgraded, and no byte comes through it within {limit}");
    let change = "something in front holds bytes back: switch its buffering off (nginx: \
                  proxy_buffering off), or let it pass WebSockets through";
    Fault::new(what, change)
}

pub(super) fn unanswered(limit: Duration) -> Fault {
    let limit = humantime::format_duration(limit);
    let what = format!("the WebSocket upgrade is not answered within {limit}");
    let change = "the gateway waits for the display, as long as proxy.connect_timeout says (see from where \
                  the proxy runs to the console's host), or the proxy in front holds the upgrade back";
    Fault::new(what, change).behind()
}

/// The end of a console, by its close code.
pub(super) fn over(over: Over, page: &Url) -> Fault {
    let (code, why) = match over {
        Over::Closed { code, why } => (code, why),
        Over::Broken(error) => {
            let what = format!("the connection broke off: {error}");
            let change = "a proxy in front cut it, or vncgate ended: see both logs";
            return Fault::new(what, change);
        }
    };
    let change = match code {
        4001 => {
            "the token did not arrive at this vncgate: the proxy in front drops the query, or \
                 proxy.public_url leads to another vncgate (then share tokens: auth.source = \"redis\")"
        }
        4003 => {
            "the page's origin is not what vncgate expects: have the proxy in front pass on Host, \
                 and X-Forwarded-Proto from an address in proxy.trusted_proxies, set proxy.public_url, \
                 or add the host to proxy.allowed_origins"
        }
        4005 => {
            "see from where the proxy runs to the console's host: its address, its firewall, \
                 proxy.allowed_networks"
        }
        4006 => "see to [proxy.vnc] or the host's own vnc settings: schemes, CA, names, passwords",
        4010 => "there are as many sessions as [auth] allows",
        _ => LOG,
    };
    let seen = format!("the console is refused with {code}: {why}");
    let page = page.origin().ascii_serialization();
    match code {
        4003 => Fault::new(format!("{seen} (the origin was {page})"), change),
        4005 | 4006 => Fault::new(seen, change).behind(),
        _ => Fault::new(seen, change),
    }
}
