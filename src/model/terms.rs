use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hex::{Hex, sha256};

/// On what terms a token opens sessions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// A session without input from its viewer ends after this time; none never.
    pub idle_timeout: Option<Duration>,
    /// A session ends after this time, whatever happens in it; none never.
    pub max_session: Option<Duration>,
    /// Whether the token opens for one browser alone, and only until that has left for good.
    pub single_use: bool,
    /// What becomes of viewers that share a console.
    pub second_viewer: SecondViewer,
}

/// What happens when a console that has a viewer is to be opened by another one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecondViewer {
    /// Both see it.
    #[default]
    Allow,
    /// The second is turned away.
    Refuse,
    /// The first has to go.
    TakeOver,
}

impl SecondViewer {
    /// As configs and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
            Self::TakeOver => "take-over",
        }
    }
}

/// A text is none of the three.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected allow, refuse or take-over")]
pub struct BadSecondViewer;

impl std::str::FromStr for SecondViewer {
    type Err = BadSecondViewer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Allow, Self::Refuse, Self::TakeOver];
        let known = all.into_iter().find(|one| one.as_str() == text);
        known.ok_or(BadSecondViewer)
    }
}

/// Which browser a viewer sits at, as far as it can be told apart: a hash of its address and of
/// what it calls itself. Decides nothing but whether somebody comes back.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Browser(Hex<8>);

impl Browser {
    /// The first of all in their order.
    pub const LEAST: Self = Self(Hex([0; 8]));

    /// The browser at `address` that calls itself `agent`.
    pub fn new(address: Option<IpAddr>, agent: &[u8]) -> Self {
        let address = address.map(|ip| ip.to_string()).unwrap_or_default();
        Self(sha256(&[address.as_bytes(), b"\n", agent]).beginning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_its_address_and_its_name() {
        let here = Some([127, 0, 0, 1].into());
        assert_eq!(Browser::new(here, b"a"), Browser::new(here, b"a"));
        assert_ne!(Browser::new(here, b"a"), Browser::new(here, b"b"));
        assert_ne!(Browser::new(here, b"a"), Browser::new(None, b"a"));
        // A store may have been written by another version.
        let known = serde_json::to_value(Browser::new(here, b"a")).unwrap();
        assert_eq!(known, "822aa7267d489eb6");
    }

    #[test]
    fn the_word_of_a_config_is_the_word_of_the_wire() {
        for one in ["allow", "refuse", "take-over"] {
            let parsed: SecondViewer = one.parse().unwrap();
            assert_eq!(serde_json::to_value(parsed).unwrap(), one);
        }
        assert_eq!("share".parse::<SecondViewer>(), Err(BadSecondViewer));
    }
}
