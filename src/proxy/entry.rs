//! The way into a VNC server: its security handshake, over whatever stream leads there.
//!
//! Called before a viewer is let in, so that what goes wrong can be told in a sentence. The rules
//! are [`rfb::Negotiation`](super::rfb::Negotiation)'s; here are the stream, TLS, the files, and the
//! deadline.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use rustls::pki_types::{IpAddr, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Sleep, sleep};

use super::rfb::{Challenge, Fault, Means, Negotiation, Next, Ready, Step, Turn};
use super::target::{Connected, Stream};
use crate::model::{Address, Host, Meeting, Password, Scheme, Schemes, Security, Verify, Way};
use crate::tls::{Connector, Identity, Settings, TlsError};

/// A server's words of security are shorter, but for the reason of a refusal.
const READ: usize = 128;

/// The longest password file, in bytes.
const LONGEST_PASSWORD: u64 = 4096;

/// Why a VNC server cannot be entered. For the log: a viewer is told less (see `close`).
#[derive(Debug, thiserror::Error)]
#[error("{address}: {why}")]
pub struct EntryError {
    /// The server.
    pub address: Address,
    /// What went wrong.
    pub why: Why,
}

/// What went wrong, after the server's address.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// What the server said.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// TLS, on either side.
    #[error("{0}")]
    Tls(#[from] Box<TlsError>),
    /// The server is gone.
    #[error("it hung up in place of {0}")]
    HungUp(Step),
    /// The stream failed.
    #[error("{step} did not come: {why}")]
    Stream {
        /// What was waited for.
        step: Step,
        /// What the kernel said.
        why: io::Error,
    },
    /// The server takes too long.
    #[error("{step} did not come within {} s", limit.as_secs())]
    Late {
        /// What was waited for.
        step: Step,
        /// The limit of the whole handshake.
        limit: Duration,
    },
    /// Our own file.
    #[error("our password file {} cannot be used: {why}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
}

/// A server that can be entered now.
#[derive(Debug)]
pub struct Entered {
    /// Behind its security handshake; inside TLS if it has that.
    pub stream: Stream,
    /// Which way leads there.
    pub way: Way,
    /// What was read of what follows.
    pub early: Vec<u8>,
    /// How it was entered.
    pub scheme: Option<Scheme>,
    /// What it wants answered before, which only the viewer can.
    pub asked: Option<Asked>,
}

/// A challenge for the viewer, and the handshake that goes on with its answer.
#[derive(Debug)]
pub struct Asked {
    /// For the viewer.
    pub challenge: Challenge,
    negotiation: Negotiation,
    address: Address,
}

/// How a server is to be entered.
#[derive(Debug)]
pub struct Entry {
    address: Address,
    means: Means,
    security: Security,
}

impl Entry {
    /// The way into the server at `address`: as compute says, and for the rest as `wide` says. A
    /// password of this server's own file comes before what the hypervisor told, and that before a
    /// wider one.
    pub async fn prepare(
        address: &Address,
        meeting: &Meeting,
        wide: &Security,
    ) -> Result<Self, EntryError> {
        let security = meeting.security.or(wide);
        let told = meeting.password.clone();
        let own = meeting.security.password_file.is_some();
        let password = match (&security.password_file, told) {
            (Some(file), None) => Some(Box::pin(password(file)).await),
            (Some(file), Some(_)) if own => Some(Box::pin(password(file)).await),
            (_, told) => told.map(Ok),
        };
        let address = address.clone();
        let password = match password.transpose() {
            Ok(password) => password,
            Err(why) => return Err(EntryError { address, why }),
        };
        let means = Means {
            schemes: security.schemes(),
            knows_servers: security.ca_file.is_some(),
            user: security.user.clone(),
            password,
        };
        Ok(Self {
            address,
            means,
            security,
        })
    }

    /// The way into a server that its hypervisor has handed over: nothing has to be proved on a
    /// socket that never leaves the machine.
    pub fn handed(address: &Address) -> Self {
        let schemes = Schemes::from(vec![Scheme::None, Scheme::VncAuth]);
        Self {
            address: address.clone(),
            means: Means {
                schemes,
                ..Means::default()
            },
            security: Security::default(),
        }
    }

    /// The same without `VeNCrypt`, if `error` is that the server's is of no use and there is
    /// another way.
    pub fn beside_vencrypt(self, error: &EntryError) -> Option<Self> {
        let beside = matches!(error.why, Why::Fault(Fault::NoCommon { beside: true, .. }));
        let means = self.means.beside_vencrypt();
        beside.then_some(Self { means, ..self })
    }

    /// Shakes hands, from the greeting on, within `limit`. Cancel-safe: the connection is closed.
    pub async fn enter(
        &self,
        connected: Connected,
        limit: Duration,
    ) -> Result<Entered, EntryError> {
        let entered = self.shake_hands(connected, limit).await;
        entered.map_err(|why| EntryError {
            address: self.address.clone(),
            why,
        })
    }

    async fn shake_hands(&self, connected: Connected, limit: Duration) -> Result<Entered, Why> {
        let mut clock = Clock::new(limit);
        let mut stream = connected.stream;
        let outer = stream.way();
        clock.early = connected.greeting;
        let (mut negotiation, mut turn) = Negotiation::new(self.means.clone());
        let mut tls = None;
        let ready = loop {
            clock.step = negotiation.step();
            let said = clock.send(&mut stream, &turn).await;
            said.map_err(|why| explain(why, tls.as_ref()))?;
            turn = match turn.next {
                Next::Read(length) => {
                    let heard = clock.read(&mut stream, length).await;
                    negotiation.take(&heard.map_err(|why| explain(why, tls.as_ref()))?)?
                }
                // Nothing that was said before counts inside.
                Next::StartTls if !clock.early.is_empty() => return Err(Fault::OutOfTurn.into()),
                Next::StartTls => {
                    let connector = Box::pin(self.connector()).await?;
                    let connected = Box::pin(connector.connect(self.server_name()?, stream));
                    let connected = clock.run(connected).await?.map_err(Box::new)?;
                    stream = Stream::Tls(Box::new(connected));
                    tls = Some(connector);
                    negotiation.secured()?
                }
                Next::Ready(ready) => break ready,
            };
        };
        let scheme = negotiation.scheme();
        let way = match outer {
            Way::Tunnel => outer,
            _ => stream.way(),
        };
        let asked = match ready {
            Ready::Open => None,
            Ready::Challenged(challenge) => Some(Asked {
                challenge,
                negotiation,
                address: self.address.clone(),
            }),
        };
        Ok(Entered {
            way,
            stream,
            early: clock.early,
            scheme,
            asked,
        })
    }

    async fn connector(&self) -> Result<Connector, Why> {
        let Security {
            ca_file,
            cert_file,
            key_file,
            verify,
            ..
        } = &self.security;
        let identity = cert_file.clone().zip(key_file.clone());
        let settings = Settings {
            ca: ca_file.clone().unwrap_or_default(),
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
            check_name: verify.unwrap_or_default() == Verify::Name,
        };
        Ok(Connector::prepare(settings).await.map_err(Box::new)?)
    }

    /// What has to stand in the server's certificate.
    fn server_name(&self) -> Result<ServerName<'static>, Why> {
        let name = match (&self.security.tls_server_name, &self.address) {
            (None, Address::Tcp(Host::Ip(ip), _)) => {
                return Ok(ServerName::IpAddress(IpAddr::from(ip.to_canonical())));
            }
            (Some(name), _) | (None, Address::Tcp(Host::Name(name), _)) => name.clone(),
            (None, Address::Unix(_) | Address::Hypervisor) => "localhost".to_owned(),
        };
        let bad = |why| Box::new(TlsError::Handshake(io::Error::other(why)));
        Ok(ServerName::try_from(name).map_err(bad)?)
    }
}

impl Asked {
    /// Hands the viewer's answer to the server and hears its verdict, within `limit`.
    pub async fn answer(
        mut self,
        answer: &Challenge,
        entered: &mut Entered,
        limit: Duration,
    ) -> Result<(), EntryError> {
        let told = self.tell(answer, entered, limit).await;
        told.map_err(|why| EntryError {
            address: self.address,
            why,
        })
    }

    async fn tell(
        &mut self,
        answer: &Challenge,
        Entered { stream, early, .. }: &mut Entered,
        limit: Duration,
    ) -> Result<(), Why> {
        let mut clock = Clock::new(limit);
        clock.early = std::mem::take(early);
        let mut turn = self.negotiation.answer(answer)?;
        loop {
            clock.step = self.negotiation.step();
            clock.send(stream, &turn).await?;
            let Next::Read(length) = turn.next else {
                *early = clock.early;
                return Ok(());
            };
            let heard = clock.read(stream, length).await?;
            turn = self.negotiation.take(&heard)?;
        }
    }
}

/// The deadline of one handshake, and what is waited for.
struct Clock {
    /// One timer for all that is waited for.
    deadline: Pin<Box<Sleep>>,
    limit: Duration,
    step: Step,
    /// What was read before it was due.
    early: Vec<u8>,
}

impl Clock {
    fn new(limit: Duration) -> Self {
        Self {
            deadline: Box::pin(sleep(limit)),
            limit,
            step: Step::Version,
            early: Vec::new(),
        }
    }

    async fn send(&mut self, stream: &mut Stream, turn: &Turn) -> Result<(), Why> {
        if turn.send.is_empty() {
            return Ok(());
        }
        let sent = async {
            stream.write_all(&turn.send).await?;
            stream.flush().await
        };
        self.run(sent).await?.map_err(|why| self.failed(why))
    }

    /// Returns that many bytes. What was read with them is kept for later: TLS is not begun upon it.
    async fn read(&mut self, stream: &mut Stream, length: usize) -> Result<Vec<u8>, Why> {
        let mut bytes = std::mem::take(&mut self.early);
        while bytes.len() < length {
            bytes.reserve(length.max(READ));
            let read = self.run(stream.read_buf(&mut bytes)).await?;
            if read.map_err(|why| self.failed(why))? == 0 {
                return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.early = bytes.split_off(length);
        Ok(bytes)
    }

    async fn run<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Why> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = &mut self.deadline => Err(Why::Late {
                step: self.step,
                limit: self.limit,
            }),
        }
    }

    fn failed(&self, why: io::Error) -> Why {
        let step = self.step;
        Why::Stream { step, why }
    }
}

/// A server that ends right after TLS has something against our certificate; at any other time it
/// just hung up.
fn explain(why: Why, tls: Option<&Connector>) -> Why {
    let Why::Stream { step, why } = why else {
        return why;
    };
    if let (Step::Inside, Some(connector)) = (step, tls) {
        return match connector.explain(why) {
            TlsError::Handshake(why) => hung_up_or(step, why),
            error => Box::new(error).into(),
        };
    }
    hung_up_or(step, why)
}

fn hung_up_or(step: Step, why: io::Error) -> Why {
    match why.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Why::HungUp(step),
        _ => Why::Stream { step, why },
    }
}

/// The password in a file, without the line's end. Read anew for every connection.
async fn password(path: &Path) -> Result<Password, Why> {
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        let mut text = String::new();
        let mut file = file.take(LONGEST_PASSWORD);
        let _length = file.read_to_string(&mut text).await?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password).to_owned();
        if password.is_empty() {
            return Err(io::Error::other("it is empty"));
        }
        Ok(Password::from(password))
    };
    read.await.map_err(|why| Why::Password {
        path: path.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const VERSION: &[u8] = b"RFB 003.008\n";

    /// Enters a server of which all of `early` was read before it was due.
    async fn enter(security: Security, early: &[u8]) -> Result<Entered, EntryError> {
        let address = "127.0.0.1:5900".parse().unwrap();
        let meeting = Meeting::default();
        let entry = Entry::prepare(&address, &meeting, &security).await.unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let connected = Connected {
            stream: Stream::Unix(near),
            greeting: early.to_vec(),
        };
        entry.enter(connected, LIMIT).await
    }

    #[tokio::test]
    async fn what_came_before_it_was_due_is_used_and_what_follows_is_kept() {
        let early = [VERSION, &[1, 1], &[0; 4], b"more"].concat();

        let entered = enter(Security::default(), &early).await.unwrap();

        assert_eq!(entered.scheme, Some(Scheme::None));
        assert_eq!(entered.early, b"more");
    }

    #[tokio::test]
    async fn nothing_that_was_said_before_tls_counts_inside() {
        let security = Security {
            ca_file: Some("/nonexistent".into()),
            ..Security::default()
        };
        let hasty = [VERSION, &[1, 19, 0, 2, 0, 1, 0, 0, 1, 4, 1], &[0; 4]].concat();

        let error = enter(security, &hasty).await.unwrap_err();

        assert!(matches!(error.why, Why::Fault(Fault::OutOfTurn)), "{error}");
    }

    #[tokio::test]
    async fn a_password_file_is_read_without_the_end_of_its_line_and_must_not_be_empty() {
        let place = tempfile::TempDir::new().unwrap();
        let file = place.path().join("password");
        for (text, wanted) in [("a b\n", Some("a b")), ("a\r\n", Some("a")), ("\n", None)] {
            std::fs::write(&file, text).unwrap();
            let password = password(&file).await.ok();
            assert_eq!(password.as_ref().map(Password::reveal), wanted);
        }
        assert!(password(Path::new("/nonexistent")).await.is_err());
    }

    #[tokio::test]
    async fn a_servers_own_password_comes_before_the_hypervisors_and_that_before_a_wider_one() {
        let place = tempfile::TempDir::new().unwrap();
        let file = |name: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, name).unwrap();
            Security {
                password_file: Some(path),
                ..Security::default()
            }
        };
        let (own, wide, none) = (file("own"), file("wide"), Security::default());
        let told = Some(Password::from("told".to_owned()));
        for (security, password, wide, wanted) in [
            (&own, &told, &wide, Some("own")),
            (&none, &told, &wide, Some("told")),
            (&none, &None, &wide, Some("wide")),
            (&none, &None, &none, None),
        ] {
            let meeting = Meeting {
                security: security.clone(),
                password: password.clone(),
                within: None,
            };
            let address = "127.0.0.1:5900".parse().unwrap();
            let entry = Entry::prepare(&address, &meeting, wide).await.unwrap();
            let password = entry.means.password;
            assert_eq!(password.as_ref().map(Password::reveal), wanted);
        }
    }
}
