//! The display itself, dialled from here, so that what fails there is told apart from the rest.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Fault, Finding, Found, Visit, words};
use crate::config::{Config, Hypervisor};
use crate::model::{Address, ConsoleKind, Host};
use crate::resolve::{dial as dial_tcp, resolve};

/// What was dialled, and its stream until somebody listens.
pub(super) struct Dialled {
    address: Address,
    stream: Option<Box<dyn Stream>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dialled").field(&self.address).finish()
    }
}

/// What the hypervisor says of the display.
pub(super) fn place(visit: &mut Visit) -> Finding {
    let Some(instance) = &visit.instance else {
        return Ok(undialled(visit));
    };
    let mut consoles = instance.consoles.iter();
    let Some(console) = consoles.find(|console| console.kind == ConsoleKind::Vnc) else {
        let what = format!("{} has no VNC display", instance.name);
        return Err(Fault::new(
            what,
            "add <graphics type='vnc'/> to its domain, or name another instance",
        ));
    };
    let Some(target) = &console.target else {
        let what = format!("{} has a display and no address of it yet", instance.name);
        return Err(Fault::new(what, "try again once it has started"));
    };
    let address: Address = target.parse().unwrap_or(Address::Hypervisor);
    if address == Address::Hypervisor {
        let what = "libvirt hands it over on this machine".to_owned();
        return Ok(Found::Fine(what));
    }
    if let Some(host) = far_host(&visit.config, &instance.source)
        && is_loopback(&address)
    {
        return Ok(Found::Doubt(words::only_there(&address, &host.name)));
    }
    let what = address.to_string();
    visit.dialled = Some(Dialled {
        address,
        stream: None,
    });
    Ok(Found::Fine(what))
}

/// The hypervisor that this source is, if it is on another machine.
fn far_host<'a>(config: &'a Config, source: &str) -> Option<&'a Hypervisor> {
    let mut hosts = config.compute.host.iter();
    let host = hosts.find(|host| host.name == source)?;
    let (_, rest) = host.uri.split_once("://")?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (_, name) = authority.rsplit_once('@').unwrap_or(("", authority));
    let name = name.split(':').next().unwrap_or_default();
    let near = matches!(name, "" | "localhost" | "127.0.0.1" | "[");
    (!near).then_some(host)
}

fn is_loopback(address: &Address) -> bool {
    match address {
        Address::Tcp(Host::Ip(ip), _) => ip.is_loopback(),
        Address::Tcp(Host::Name(name), _) => name == "localhost",
        Address::Unix(_) => true,
        Address::Hypervisor => false,
    }
}

/// Whether it can be dialled from here.
pub(super) async fn dial(visit: &mut Visit) -> Finding {
    let limit = visit.patience;
    let Some(dialled) = &mut visit.dialled else {
        return Ok(undialled(visit));
    };
    let address = &dialled.address;
    let doubt = match timeout(limit, connect(address)).await {
        Ok(Ok(stream)) => {
            let what = format!("{address} takes connections");
            dialled.stream = Some(stream);
            return Ok(Found::Fine(what));
        }
        Ok(Err(error)) => words::closed_port(address, &error),
        Err(_) => words::silent_port(address, limit),
    };
    Ok(Found::Doubt(doubt))
}

async fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Tcp(host, port) => {
            let ips = resolve(host).await.map_err(io::Error::other)?;
            Ok(Box::new(dial_tcp(&ips, *port).await?))
        }
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Hypervisor => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Whether it is a VNC server, and what security it offers.
pub(super) async fn greet(visit: &mut Visit) -> Finding {
    let limit = visit.patience;
    let Some((address, mut stream)) = visit
        .dialled
        .as_mut()
        .and_then(|it| Some((it.address.clone(), it.stream.take()?)))
    else {
        return Ok(undialled(visit));
    };
    let mut greeting = Vec::new();
    let heard = async {
        while greeting.len() < 12 && stream.read_buf(&mut greeting).await? > 0 {}
        io::Result::Ok(())
    };
    let heard = timeout(limit, heard).await;
    if heard.is_err() && greeting.is_empty() {
        return Ok(Found::Doubt(words::mute(&address, limit)));
    }
    let Some(version) = version(&greeting) else {
        return Ok(Found::Doubt(words::no_vnc(&address, &greeting)));
    };
    let offered = timeout(limit, offered(&mut stream, &greeting)).await;
    let offered = offered.ok().and_then(Result::ok).unwrap_or_default();
    let names = offered.iter().map(|kind| words::security(*kind));
    let names = names.collect::<Vec<_>>().join(", ");
    if offered.is_empty() {
        return Ok(Found::Fine(format!("RFB {version}")));
    }
    Ok(Found::Fine(format!("RFB {version}, security: {names}")))
}

fn version(greeting: &[u8]) -> Option<String> {
    let version = greeting.strip_prefix(b"RFB ")?.first_chunk::<7>()?;
    let digits = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let text = std::str::from_utf8(version).ok()?;
    version.iter().all(digits).then(|| text.to_owned())
}

/// The security types. A server of RFB 3.3 says only one, in four bytes.
async fn offered(stream: &mut Box<dyn Stream>, greeting: &[u8]) -> io::Result<Vec<u8>> {
    let old = greeting.starts_with(b"RFB 003.003");
    let answer: &[u8] = if old {
        b"RFB 003.003\n"
    } else {
        b"RFB 003.008\n"
    };
    stream.write_all(answer).await?;
    if old {
        let kind = stream.read_u32().await?;
        return Ok(vec![u8::try_from(kind).unwrap_or_default()]);
    }
    let count = stream.read_u8().await?;
    let mut kinds = vec![0; usize::from(count)];
    let _count = stream.read_exact(&mut kinds).await?;
    Ok(kinds)
}

fn undialled(visit: &Visit) -> Found {
    if visit.instance.is_none() {
        return visit.left();
    }
    Found::Nothing("nothing is to be dialled from here".to_owned())
}
