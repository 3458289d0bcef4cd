//! A console of this machine for a proxy on another: looked up, opened, and carried there.
//!
//! Asked over a stream between processes by the proxy's `compute::driver::Elsewhere`. The instance
//! is looked up here, at this moment, and what is opened is its own display: one that the hypervisor
//! hands over, else a Unix socket or a port of this very machine. Another machine is never dialled
//! for anybody.

use std::io;
use std::net::{IpAddr, UdpSocket};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::driver::{DEADLINE, fault};
use super::{Compute, ComputeError, Displays, Tunnels};
use crate::model::{Address, ConsoleKind, InstanceId, InstanceRef, Target};
use crate::resolve;
use crate::rpc::{Duplex, Given, Role, Streams};

/// Hands out the consoles of a compute role.
#[derive(Clone, Debug)]
pub struct HandOut {
    compute: Compute,
    displays: Displays,
    tunnels: Tunnels,
}

/// Which console is wanted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Whose.
    pub(super) instance: InstanceId,
    /// Which.
    pub(super) kind: ConsoleKind,
}

/// A console that was opened.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Where it is, seen from its own machine.
    pub target: Target,
    /// Whether its hypervisor handed it over, so that it asks for nothing.
    pub handed: bool,
}

impl HandOut {
    pub(super) fn new(compute: Compute, tunnels: Tunnels) -> Self {
        let displays = compute.displays();
        Self {
            compute,
            displays,
            tunnels,
        }
    }

    async fn find(&self, wanted: Wanted) -> Result<(String, Target), ComputeError> {
        let instance = InstanceRef::Id(wanted.instance);
        let located = self.compute.locate(&instance, wanted.kind).await?;
        Ok((located.instance.name, located.target))
    }
}

impl Streams for HandOut {
    const NAME: &'static str = "display";
    const ROLE: &'static str = Compute::NAME;
    const CALLERS: &'static [&'static str] = &["proxy"];
    type Request = Wanted;
    type Opened = Opened;
    type Error = ComputeError;

    async fn open(&self, wanted: Wanted) -> Given<Self> {
        let (name, target) = self.find(wanted).await?;
        let place = match self.tunnels.enter() {
            Ok(place) => place,
            Err(most) => return Err(ComputeError::Crowded { name, most }),
        };
        let (opened, stream) = self.reach(wanted, name, target).await?;
        Ok((opened, place.of(stream)))
    }
}

impl HandOut {
    /// By the hypervisor's hand, or else by its address.
    async fn reach(&self, wanted: Wanted, name: String, target: Target) -> Given<Self> {
        let handed = self.displays.open(wanted.instance, wanted.kind).await;
        let failed = match handed {
            Ok(Some(display)) => {
                let opened = Opened {
                    target,
                    handed: true,
                };
                return Ok((opened, Box::new(display)));
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        match (dial(&target.address).await, failed) {
            (Ok(stream), _) => {
                let opened = Opened {
                    target,
                    handed: false,
                };
                Ok((opened, stream))
            }
            (Err(_), Some(error)) => Err(error),
            (Err(why), None) => Err(ComputeError::NotOpened {
                name,
                fault: fault(&target.to_string(), &why),
            }),
        }
    }
}

/// Errors: nobody listens there, or it is not on this machine.
async fn dial(address: &Address) -> io::Result<Box<dyn Duplex>> {
    let dialled = timeout(DEADLINE, dial_at_leisure(address)).await;
    dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn dial_at_leisure(address: &Address) -> io::Result<Box<dyn Duplex>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(host, port) => {
            let ips = resolve::resolve(host).await.map_err(io::Error::other)?;
            let ips: Vec<IpAddr> = ips.into_iter().filter(is_here).collect();
            if ips.is_empty() {
                return Err(io::Error::other("that is not on this machine"));
            }
            Ok(Box::new(resolve::dial(&ips, *port).await?))
        }
        Address::Hypervisor => Err(io::Error::other("its hypervisor does not hand it over")),
    }
}

/// Whether an interface of this machine has this address: only such can be bound.
fn is_here(ip: &IpAddr) -> bool {
    ip.is_loopback() || (!ip.is_unspecified() && UdpSocket::bind((*ip, 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_addresses_are_here() {
        let here = |ip: &str| is_here(&ip.parse().unwrap());

        assert!(here("127.0.0.1") && here("127.9.9.9") && here("::1"));
        assert!(!here("192.0.2.1") && !here("2001:db8::1") && !here("0.0.0.0"));
    }

    #[tokio::test]
    async fn what_is_elsewhere_is_dialled_for_nobody() {
        let far: Address = "192.0.2.1:5900".parse().unwrap();

        let refused = dial(&far).await.err().unwrap();

        assert_eq!(refused.to_string(), "that is not on this machine");
    }
}
