//! A VNC server inside TLS that does as it is told: for certificates and versions that real servers
//! would not start with.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::peers::Peer;
use super::process::{Process, peer, tied};
use super::redis::free_port;
use super::wait::until;

/// Versions of TLS that a server speaks.
pub(crate) type Versions = &'static [&'static SupportedProtocolVersion];

/// `X509None`.
const SUBTYPE: u32 = 260;

/// A server with the certificate and key of these names in `place`; after the handshake it sends
/// back what it gets.
pub(crate) fn server(place: &Path, name: &str, versions: Versions) -> Peer {
    let config = Arc::new(config(place, name, versions));
    Peer::raw(move |mut stream| {
        enter(&mut stream)?;
        let connection = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let mut inside = StreamOwned::new(connection, stream);
        inside.write_all(&[0; 4])?;
        let mut byte = [0];
        inside.read_exact(&mut byte)?;
        inside.write_all(&[0, 1, 0, 1])?;
        inside.write_all(&[32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0])?;
        inside.write_all(b"\0\0\0\x06inside")?;
        let mut buffer = [0; 1024];
        loop {
            let count = inside.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            inside.write_all(&buffer[..count])?;
        }
    })
}

/// A server whose TLS is that of OpenSSL's own server, which shows what others would not: the
/// certificate `name.pem` and the key `name.key` in `place`, however weak.
pub(crate) fn weak_server(place: &Path, name: &str) -> (Peer, Process) {
    let inside = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = tied(&peer("openssl"));
    command.args(["s_server", "-rev", "-cipher", "DEFAULT@SECLEVEL=0"]);
    command.args(["-accept", &inside.to_string()]);
    command.arg("-cert").arg(place.join(format!("{name}.pem")));
    command.arg("-key").arg(place.join(format!("{name}.key")));
    let openssl = Process::spawn("openssl s_server", command.stdin(Stdio::null()));
    let _listens = until("openssl to listen", || TcpStream::connect(inside).ok());
    let peer = Peer::raw(move |mut stream| {
        enter(&mut stream)?;
        let (mut near, mut far) = (stream.try_clone()?, TcpStream::connect(inside)?);
        let mut back = far.try_clone()?;
        let up = thread::spawn(move || io::copy(&mut near, &mut far).is_ok());
        let _ended = io::copy(&mut back, &mut stream).is_ok();
        let _joined = up.join();
        Ok(())
    });
    (peer, openssl)
}

fn enter(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"RFB 003.008\n")?;
    stream.read_exact(&mut [0; 12])?;
    stream.write_all(&[1, 19])?;
    stream.read_exact(&mut [0])?;
    stream.write_all(&[0, 2])?;
    stream.read_exact(&mut [0; 2])?;
    stream.write_all(&[0, 1])?;
    stream.write_all(&SUBTYPE.to_be_bytes())?;
    stream.read_exact(&mut [0; 4])?;
    stream.write_all(&[1])
}

fn config(place: &Path, name: &str, versions: Versions) -> ServerConfig {
    let open = |end: &str| BufReader::new(File::open(place.join(format!("{name}{end}"))).unwrap());
    let chain = CertificateDer::pem_reader_iter(open("-cert.pem"));
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_reader(open("-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}
