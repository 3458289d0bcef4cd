//! The PROXY protocol, versions 1 and 2: what a balancer says of a connection before its first byte.
//!
//! Parsing is pure; reading takes exactly the header's bytes, so that the rest of the stream is
//! untouched. Whom to believe is the door's business. haproxy.org's proxy-protocol.txt, 2020/03/05.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const LONGEST_LINE: usize = 107;

/// The longest rest of version 2: addresses, and what balancers say in extensions, which we skip.
const LONGEST_REST: usize = 4096;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum BadAnnouncement {
    /// The stream failed or ended in it.
    #[error("the connection ended in its PROXY header")]
    Stream(#[from] io::Error),
    /// It comes from nobody who announces.
    #[error("it comes from no balancer in proxy.trusted_proxies")]
    Stranger,
    /// It begins with something else.
    #[error("it does not begin with a PROXY header")]
    Missing,
    /// It is none of either version.
    #[error("its PROXY header is malformed")]
    Malformed,
}

/// What a header says: the client's address, or that the balancer speaks for itself.
pub type Announced = Option<SocketAddr>;

/// Reads one header and not a byte more. The caller sets a deadline.
pub async fn read_announcement(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Announced, BadAnnouncement> {
    let mut start = [0; SIGNATURE.len()];
    let _length = stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        return read_binary(stream).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(BadAnnouncement::Missing);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST_LINE {
            return Err(BadAnnouncement::Malformed);
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line).ok_or(BadAnnouncement::Malformed)
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> Result<Announced, BadAnnouncement> {
    let mut head = [0; 4];
    let _length = stream.read_exact(&mut head).await?;
    let [command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_REST {
        return Err(BadAnnouncement::Malformed);
    }
    let mut rest = vec![0; length];
    let _length = stream.read_exact(&mut rest).await?;
    parse_binary(command, family, &rest).ok_or(BadAnnouncement::Malformed)
}

/// Version 1, a line with its end. None if it is malformed.
pub fn parse_line(line: &[u8]) -> Option<Announced> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let mut words = line.split(' ');
    if words.next()? != "PROXY" {
        return None;
    }
    let ip: IpAddr = match words.next()? {
        // What follows is to be ignored.
        "UNKNOWN" => return Some(None),
        "TCP4" => words.next()?.parse::<Ipv4Addr>().ok()?.into(),
        "TCP6" => words.next()?.parse::<Ipv6Addr>().ok()?.into(),
        _ => return None,
    };
    let _destination: IpAddr = words.next()?.parse().ok()?;
    let port = port(words.next()?)?;
    let _destination = self::port(words.next()?)?;
    let whole = words.next().is_none();
    whole.then_some(Some(SocketAddr::new(ip, port)))
}

/// Digits alone, as `parse` takes a sign too.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Version 2: the bytes that follow the signature, but for the length, which is that of `rest`.
/// None if it is malformed.
pub fn parse_binary(command: u8, family: u8, rest: &[u8]) -> Option<Announced> {
    match command {
        // The balancer's own connection, such as a health check.
        0x20 => return Some(None),
        0x21 => {}
        _ => return None,
    }
    let (ip, rest): (IpAddr, &[u8]) = match family {
        0x11 => {
            let (source, rest) = rest.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*source).into(), rest.get(4..)?)
        }
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*source).into(), rest.get(16..)?)
        }
        // Unspecified, a datagram's or a Unix socket's: the balancer's own address stands.
        _ => return Some(None),
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let _destination = rest.split_first_chunk::<2>()?;
    Some(Some(SocketAddr::new(ip, u16::from_be_bytes(*port))))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> (Result<Announced, BadAnnouncement>, Vec<u8>) {
        let mut stream = bytes;
        let read = read_announcement(&mut stream).await;
        (read, stream.to_vec())
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn both_versions_tell_an_address_and_leave_what_follows() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
        let v6 = [
            &[0x20, 1, 0xd, 0xb8][..],
            &[0; 11],
            &[7],
            &[0; 16],
            &[0, 9],
            &[0, 80],
            b"tlv",
        ];
        for (header, address) in [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 80\r\n".to_vec(),
                "192.0.2.1:12345",
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 9 80\r\n".to_vec(),
                "[2001:db8::7]:9",
            ),
            (binary(0x21, 0x11, &v4), "192.0.2.1:12345"),
            (binary(0x21, 0x21, &v6.concat()), "[2001:db8::7]:9"),
        ] {
            let (announced, rest) = read(&[&header[..], b"GET /"].concat()).await;

            assert_eq!(announced.unwrap(), Some(address.parse().unwrap()));
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn who_speaks_for_itself_announces_nobody() {
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
            binary(0x20, 0x00, b""),
            binary(0x20, 0x11, b"anything"),
            binary(0x21, 0x31, &[0; 216]),
        ] {
            assert!(matches!(read(&header).await.0, Ok(None)), "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_malformed_is_refused() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
        let huge = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        for header in [
            b"PROXY TCP4 2001:db8::7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 70000 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x11, 0x11, &[0; 12]),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x21, &[0; 35]),
            long,
            huge,
        ] {
            let error = read(&header).await.0;
            assert!(
                matches!(error, Err(BadAnnouncement::Malformed)),
                "{header:?}"
            );
        }
        let (none, _) = read(b"GET / HTTP/1.1\r\n\r\n").await;
        assert!(matches!(none, Err(BadAnnouncement::Missing)));
        let (cut, _) = read(&SIGNATURE[..]).await;
        assert!(matches!(cut, Err(BadAnnouncement::Stream(_))));
    }
}
