use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What runs over the wire to the hypervisor.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsoleKind {
    /// RFB (RFC 6143).
    Vnc,
    /// SPICE.
    Spice,
    /// A serial line.
    Serial,
    /// A `VMware` screen: mouse, keyboard, screen.
    Mks,
}

impl ConsoleKind {
    /// The word for it in libvirt's XML, in Nova's API and in ours.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vnc => "vnc",
            Self::Spice => "spice",
            Self::Serial => "serial",
            Self::Mks => "mks",
        }
    }
}

impl fmt::Display for ConsoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a console is asked for: Nova's names, each a kind plus a form of access URL.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleType {
    /// VNC in noVNC's page: `BASE?path=%3Ftoken%3DT`.
    Novnc,
    /// VNC in a viewer of its own: `BASE?token=T`.
    Xvpvnc,
    /// SPICE in spice-html5's page: `BASE?token=T`.
    SpiceHtml5,
    /// SPICE through a proxy that speaks it, and asks the API where to dial: `BASE?token=T`.
    SpiceDirect,
    /// A serial line over a WebSocket: `BASE?token=T`.
    Serial,
    /// A `VMware` screen in its own page: `BASE?token=T`.
    Webmks,
}

impl ConsoleType {
    /// Every type, in the order messages list them.
    pub const ALL: [Self; 6] = [
        Self::Novnc,
        Self::Xvpvnc,
        Self::SpiceHtml5,
        Self::SpiceDirect,
        Self::Serial,
        Self::Webmks,
    ];

    /// The kind of console this type shows.
    pub const fn kind(self) -> ConsoleKind {
        match self {
            Self::Novnc | Self::Xvpvnc => ConsoleKind::Vnc,
            Self::SpiceHtml5 | Self::SpiceDirect => ConsoleKind::Spice,
            Self::Serial => ConsoleKind::Serial,
            Self::Webmks => ConsoleKind::Mks,
        }
    }

    /// Nova's name of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Novnc => "novnc",
            Self::Xvpvnc => "xvpvnc",
            Self::SpiceHtml5 => "spice-html5",
            Self::SpiceDirect => "spice-direct",
            Self::Serial => "serial",
            Self::Webmks => "webmks",
        }
    }
}

impl fmt::Display for ConsoleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No console type has this name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "unknown console type `{0}`, expected one of novnc, xvpvnc, spice-html5, spice-direct, serial, \
     webmks"
)]
pub struct UnknownConsoleType(String);

impl FromStr for ConsoleType {
    type Err = UnknownConsoleType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL
            .into_iter()
            .find(|console_type| console_type.as_str() == text);
        found.ok_or_else(|| UnknownConsoleType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_from_its_own_name_and_from_json() {
        for console_type in ConsoleType::ALL {
            assert_eq!(console_type.as_str().parse(), Ok(console_type));
            let json = serde_json::to_value(console_type).unwrap();
            assert_eq!(json, console_type.as_str());
        }
    }
}
