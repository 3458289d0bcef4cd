use crate::model::{Address, Host, Token, TokenHash};

/// What one line of a token file says.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Line {
    /// Nothing: it is empty, or a comment.
    Empty,
    /// Where a token leads.
    Target(TokenHash, Address),
    /// Nothing that can be understood.
    Broken,
}

impl Line {
    /// Reads `token: host:port` or `token: unix_socket:/path`; what comes before the first colon with
    /// white space behind it is the token.
    pub(super) fn parse(line: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(line) else {
            return Self::Broken;
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return Self::Empty;
        }
        entry(text).map_or(Self::Broken, |(token, address)| {
            Self::Target(token.hash(), address)
        })
    }
}

fn entry(text: &str) -> Option<(Token, Address)> {
    let end = |(at, _): &(usize, &str)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        rest.starts_with(char::is_whitespace)
    };
    let (colon, _) = text.match_indices(':').find(end)?;
    let (token, target) = text.split_at_checked(colon)?;
    Some((token.parse().ok()?, address(target.get(1..)?.trim())?))
}

/// The port stands behind the last colon, so an IPv6 address needs no brackets here.
fn address(target: &str) -> Option<Address> {
    if let Some(path) = target.strip_prefix("unix_socket:") {
        return format!("unix:{path}").parse().ok();
    }
    let (host, port) = target.rsplit_once(':')?;
    let host: Host = host.parse().ok()?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(Address::Tcp(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(line: &str) -> Option<(String, String)> {
        let (token, address) = entry(line)?;
        Some((token.reveal().to_owned(), address.to_string()))
    }

    #[test]
    fn a_token_leads_to_what_stands_behind_its_colon() {
        for (line, token, address) in [
            ("vm-1: 127.0.0.1:5901", "vm-1", "127.0.0.1:5901"),
            ("vm-1:\t kvm-1.example:5901", "vm-1", "kvm-1.example:5901"),
            ("a:b: h:1", "a:b", "h:1"),
            ("two words: h:1", "two words", "h:1"),
            ("six: [2001:db8::1]:5901", "six", "[2001:db8::1]:5901"),
            ("six: 2001:db8::1:5901", "six", "[2001:db8::1]:5901"),
            (
                "sock: unix_socket:/run/a b.sock",
                "sock",
                "unix:/run/a b.sock",
            ),
        ] {
            let expected = Some((token.to_owned(), address.to_owned()));
            assert_eq!(leads(line), expected, "{line}");
        }
    }

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        for line in ["", "  ", "# vm-1: h:1", "\r"] {
            assert_eq!(Line::parse(line.as_bytes()), Line::Empty, "{line}");
        }
        let indented = Line::parse(b"  vm-1: h:1\r");
        let token: Token = "vm-1".parse().unwrap();
        assert_eq!(indented, Line::Target(token.hash(), "h:1".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_understood_is_broken() {
        let long = format!("{}: h:1", "x".repeat(256));
        for line in [
            "vm-1",
            "vm-1:h:1",
            "vm-1: h",
            ": h:1",
            "vm-1: h:0",
            "vm-1: h:70000",
            "vm-1: a: h:1",
            "vm-1: unix_socket:relative",
            &long,
        ] {
            assert_eq!(Line::parse(line.as_bytes()), Line::Broken, "{line}");
        }
        assert_eq!(Line::parse(b"vm-\xff: h:1"), Line::Broken);
    }
}
