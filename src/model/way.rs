use std::fmt;

use serde::{Deserialize, Serialize};

/// How a session's bytes come from its console.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Dialled.
    Tcp,
    /// A Unix socket.
    Unix,
    /// The hypervisor handed the console over.
    Libvirt,
    /// Dialled, inside TLS.
    Tls,
    /// Through the compute role of its host, inside TLS or not.
    Tunnel,
}

impl Way {
    /// Lower-case word for logs and lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Libvirt => "libvirt",
            Self::Tls => "tls",
            Self::Tunnel => "tunnel",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
