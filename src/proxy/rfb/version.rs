//! The versions of RFB, RFC 6143 section 7.1.1.

/// A dialect of the handshake.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// The server decides on the security type.
    V33,
    /// The client chooses; a failure has no reason.
    V37,
    /// The client chooses, and every type ends in a result.
    V38,
}

impl Version {
    /// How long a version's message is.
    pub const LENGTH: usize = 12;

    /// The dialect of a peer that sends this. Others than the three published ones count as the
    /// one below them, as the RFC wants; above 3.8 that is how Apple's 3.889 and 4.1 to 5.0 are
    /// spoken, too.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let digits = message.strip_prefix(b"RFB ")?.strip_suffix(b"\n")?;
        let text = std::str::from_utf8(digits).ok()?;
        let (major, minor) = text.split_once('.')?;
        match (number(major)?, number(minor)?) {
            (3, 0..=6) => Some(Self::V33),
            (3, 7) => Some(Self::V37),
            (3.., _) => Some(Self::V38),
            _ => None,
        }
    }

    /// What a client of this dialect, or a server, sends.
    pub const fn message(self) -> &'static [u8; Self::LENGTH] {
        match self {
            Self::V33 => b"RFB 003.003\n",
            Self::V37 => b"RFB 003.007\n",
            Self::V38 => b"RFB 003.008\n",
        }
    }
}

fn number(digits: &str) -> Option<u16> {
    let plain = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_versions_read_back() {
        for version in [Version::V33, Version::V37, Version::V38] {
            assert_eq!(Version::parse(version.message()), Some(version));
        }
    }

    #[test]
    fn odd_versions_are_spoken_as_the_one_below() {
        assert_eq!(Version::parse(b"RFB 003.005\n"), Some(Version::V33));
        assert_eq!(Version::parse(b"RFB 003.889\n"), Some(Version::V38));
        assert_eq!(Version::parse(b"RFB 004.001\n"), Some(Version::V38));
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in [
            b"RFB 002.002\n",
            b"RFB 003.8  \n",
            b"RFB +03.008\n",
            b"RFB 003.008\r",
            b"HTTP/1.1 400",
        ] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
        assert_eq!(Version::parse(b""), None);
    }
}
