//! The numbers of the calls, messages and events that a console gateway needs.
//!
//! Numbers are facts of libvirt's `remote_protocol.x` and are never reused.

use std::fmt;

/// The main program of a daemon.
pub const REMOTE: u32 = 0x2000_8086;

/// The program of pings and their answers.
pub const KEEPALIVE: u32 = 0x6b65_6570;

/// All programs have had one version.
pub const VERSION: u32 = 1;

/// A call of the program [`REMOTE`], or an event of it.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Procedure(pub i32);

impl Procedure {
    /// Which driver of the daemon to talk to.
    pub const CONNECT_OPEN: Self = Self(1);
    /// The end of all calls.
    pub const CONNECT_CLOSE: Self = Self(2);
    /// The XML of a domain.
    pub const DOMAIN_GET_XML_DESC: Self = Self(14);
    /// A domain by its name.
    pub const DOMAIN_LOOKUP_BY_NAME: Self = Self(23);
    /// A domain by its UUID.
    pub const DOMAIN_LOOKUP_BY_UUID: Self = Self(24);
    /// The name of the daemon's machine.
    pub const CONNECT_GET_HOSTNAME: Self = Self(59);
    /// Whether the daemon knows a feature; asking for some turns them on.
    pub const CONNECT_SUPPORTS_FEATURE: Self = Self(60);
    /// How a client has to authenticate.
    pub const AUTH_LIST: Self = Self(66);
    /// The mechanisms of SASL.
    pub const AUTH_SASL_INIT: Self = Self(67);
    /// SASL's first step.
    pub const AUTH_SASL_START: Self = Self(68);
    /// SASL's further steps.
    pub const AUTH_SASL_STEP: Self = Self(69);
    /// Authentication by what polkit knows of this process.
    pub const AUTH_POLKIT: Self = Self(70);
    /// The console of a domain, as a stream.
    pub const DOMAIN_OPEN_CONSOLE: Self = Self(201);
    /// A picture of a domain's screen, as a stream.
    pub const DOMAIN_SCREENSHOT: Self = Self(211);
    /// Whether a domain runs.
    pub const DOMAIN_GET_STATE: Self = Self(212);
    /// All domains.
    pub const CONNECT_LIST_ALL_DOMAINS: Self = Self(273);
    /// From now on tell of events.
    pub const EVENT_REGISTER: Self = Self(316);
    /// No longer.
    pub const EVENT_DEREGISTER: Self = Self(317);
    /// Event: a domain was started, stopped, defined ...
    pub const EVENT_LIFECYCLE: Self = Self(318);
    /// Event: somebody came to or left a display.
    pub const EVENT_GRAPHICS: Self = Self(323);
    /// The display of a domain, as a descriptor.
    pub const DOMAIN_OPEN_GRAPHICS_FD: Self = Self(343);
}

impl fmt::Debug for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Procedure {}", self.0)
    }
}
