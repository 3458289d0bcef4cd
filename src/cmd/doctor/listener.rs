//! What the gateway says of itself on its own listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Method;
use serde::Deserialize;
use tokio::net::TcpStream;
use url::Url;

use super::{Fault, Finding, Found, Visit, words};
use crate::api::InstancesView;
use crate::http::{Call, Fault as CallFault, Outbound, OutboundSettings};

/// The largest page of figures that is read, in bytes.
const LARGEST: usize = 16 << 20;

/// Days before its end when a certificate is worth a word.
const SOON: f64 = 30.0;

/// What a check of the monitor's says when all is well.
const OK: &str = "ok";

/// What to do where a door of the config is not there.
const ELSEWHERE: &str = "as it should be where this role runs on another machine; else the running vncgate \
                         does not have this config: restart it, or name the right one with --config";

#[derive(Deserialize)]
struct Readiness {
    drain: String,
    memory: Option<String>,
    /// Not there where nobody here calls them.
    auth: Option<String>,
    compute: Option<String>,
}

/// Whether each role answers, the store of tokens and the hypervisors behind them.
pub(super) async fn roles(visit: &Visit) -> Finding {
    let body = match monitor(visit, "readyz").await? {
        Ok(body) => body,
        Err(why) => return Ok(why),
    };
    let ready: Readiness = serde_json::from_slice(&body).map_err(|error| {
        let what = format!("what answers at monitor.listen is no vncgate: {error}");
        Fault::new(what, "set monitor.listen to a port of its own")
    })?;
    if ready.compute.as_deref().is_some_and(|state| state != OK) {
        let all: InstancesView = visit.ask(Method::GET, "/v1/instances", None).await?;
        all.faults
            .first()
            .map_or(Ok(()), |fault| Err(words::source(fault)))?;
    }
    for (role, state, change) in [
        (
            "gateway",
            Some(ready.drain),
            "wait for its end, or start it again",
        ),
        (
            "gateway",
            ready.memory,
            "end sessions, give the machine more memory, or raise limits.memory",
        ),
        (
            "auth role",
            ready.auth,
            "see to what keeps the tokens (auth.source): is it running, may vncgate log in, is its \
             disk full?",
        ),
        (
            "compute role",
            ready.compute,
            "see to the hypervisors: `vncgate instance list` names what fails",
        ),
    ] {
        if let Some(state) = state.filter(|state| state != OK) {
            return Err(Fault::new(format!("the {role}: {state}"), change));
        }
    }
    Ok(Found::Fine("auth and compute answer".to_owned()))
}

/// Whether the certificates towards hypervisors last.
pub(super) async fn certificates(visit: &Visit) -> Finding {
    let body = match monitor(visit, "metrics").await? {
        Ok(body) => body,
        Err(why) => return Ok(why),
    };
    let page = String::from_utf8_lossy(&body);
    let Some((file, days)) = first_to_expire(&page) else {
        return Ok(Found::Nothing("none is configured".to_owned()));
    };
    let what = format!("{file} is valid for {days:.0} days more");
    if days <= 0.0 {
        let what = format!("{file} has expired");
        return Err(Fault::new(what, "renew it; vncgate reads it by itself"));
    }
    if days < SOON {
        let change = "renew it; vncgate reads it by itself";
        return Ok(Found::Note { what, change });
    }
    Ok(Found::Fine(what))
}

fn first_to_expire(page: &str) -> Option<(&str, f64)> {
    let series = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("vncgate_certificate_days_left{file=\"")?;
        let (file, days) = rest.split_once("\"} ")?;
        Some((file, days.parse().ok()?))
    });
    series.min_by(|a: &(&str, f64), b| a.1.total_cmp(&b.1))
}

/// Whether the first listener takes connections.
pub(super) async fn look(visit: &Visit) -> Finding {
    let listen = &visit.config.proxy.listen;
    let Some(address) = listen.iter().find(|it| it.port() != 0) else {
        return Ok(Found::Nothing("the system chooses its port".to_owned()));
    };
    let address = here(*address);
    Ok(match TcpStream::connect(address).await {
        Ok(_stream) => Found::Fine(format!("{address} takes connections")),
        Err(error) => Found::Note {
            what: format!("nobody listens at {address} here: {error}"),
            change: ELSEWHERE,
        },
    })
}

/// A page of the monitor; or why there is none to look at.
async fn monitor(visit: &Visit, page: &str) -> Result<Result<bytes::Bytes, Found>, Fault> {
    let listen = &visit.config.monitor.listen;
    let Some(address) = listen.first() else {
        let why = "monitor.listen is empty";
        return Ok(Err(Found::Nothing(why.to_owned())));
    };
    if address.port() == 0 {
        let why = "the system chooses the monitor's port";
        return Ok(Err(Found::Nothing(why.to_owned())));
    }
    let url = format!("http://{}", here(*address));
    let fault =
        |error: &dyn std::fmt::Display| Fault::new(format!("monitor.listen: {error}"), ELSEWHERE);
    let url = Url::parse(&url).map_err(|error| fault(&error))?;
    let outbound = Outbound::new(OutboundSettings {
        ca_file: None,
        timeout: visit.patience,
        parallel: 1,
        largest: LARGEST,
    });
    let call = Call {
        method: Method::GET,
        base: &url,
        path: &[page],
        query: None,
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    match outbound.call(&call).await {
        Ok(answer) => Ok(Ok(answer.into_body())),
        Err(failed) => match failed.fault {
            CallFault::Connect(error) => Ok(Err(Found::Note {
                what: format!("nobody listens at {} here: {error}", failed.base),
                change: ELSEWHERE,
            })),
            _ => Err(fault(&failed)),
        },
    }
}

/// How this machine reaches what listens everywhere.
fn here(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => {}
        IpAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_certificates_the_first_to_expire_counts() {
        let page = "vncgate_certificate_days_left{file=\"/a\"} 90.5\n\
                    vncgate_certificate_days_left{file=\"/b\"} 3\nvncgate_draining 0\n";
        assert_eq!(first_to_expire(page), Some(("/b", 3.0)));
        assert_eq!(first_to_expire("vncgate_draining 0\n"), None);
    }
}
