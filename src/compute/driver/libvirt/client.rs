//! The calls of a console gateway, each with its own arguments and answer.
//!
//! Called by the driver. Knows the wire, no instance and no config. All calls are cancel-safe and
//! end at the client's limit.

use std::os::fd::OwnedFd;
use std::time::Duration;

use uuid::Uuid;

use super::wire::xdr::{BadXdr, Decoder, Encoder};
use super::wire::{Connection, Error, Procedure, Reply, Stream};

/// How long one call may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// libvirt's own limit of a list of domains.
const MOST_DOMAINS: usize = 16_384;

/// libvirt's own limit of a list of ways to authenticate.
const MOST_AUTH: usize = 20;

/// The largest picture of a screen, in bytes: 4096 x 4096 in uncompressed PPM is 48 MiB.
pub const MAX_SCREENSHOT: usize = 64 * 1024 * 1024;

/// Feature: the daemon speaks the keepalive protocol with this client.
const KEEPALIVE: i32 = 11;

/// Flag: the display is handed over without its own authentication.
const SKIP_AUTH: u32 = 1;

/// Flag: whoever holds the console loses it.
const FORCE: u32 = 1;

/// How a daemon wants to be authenticated to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Auth {
    /// Not at all.
    None,
    /// SASL (RFC 4422).
    Sasl,
    /// polkit decides by what it knows of this process.
    Polkit,
    /// A way from the future.
    Other(i32),
}

/// What `open` may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rights {
    /// Everything.
    ReadWrite,
    /// Looking, but neither secrets nor displays.
    ReadOnly,
}

/// A domain as libvirt names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its number while it runs, else -1.
    pub id: i32,
}

impl Domain {
    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, BadXdr> {
        Ok(Self {
            name: decoder.string()?,
            uuid: Uuid::from_bytes(decoder.array()?),
            id: decoder.int()?,
        })
    }

    fn encode(&self) -> Encoder {
        let name = Encoder::new().string(&self.name);
        name.fixed(self.uuid.as_bytes()).int(self.id)
    }
}

/// What can be told of without being asked; the numbers are `virDomainEventID`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Topic {
    /// Defined, started, stopped ...
    Lifecycle,
    /// Somebody came to or left a display.
    Graphics,
    /// A device is gone.
    DeviceRemoved,
    /// A device is new.
    DeviceAdded,
    /// The title or the metadata changed.
    Metadata,
}

impl Topic {
    fn number(self) -> i32 {
        match self {
            Self::Lifecycle => 0,
            Self::Graphics => 5,
            Self::DeviceRemoved => 15,
            Self::DeviceAdded => 19,
            Self::Metadata => 23,
        }
    }
}

/// A picture of a screen.
#[derive(Clone, Debug)]
pub struct Screenshot {
    /// `image/png` or `image/x-portable-pixmap`.
    pub mime: String,
    /// The picture.
    pub bytes: Vec<u8>,
}

/// A connection on which calls have names.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
    limit: Duration,
}

impl Client {
    /// Calls over `connection`, each within [`LIMIT`].
    pub fn new(connection: Connection) -> Self {
        let limit = LIMIT;
        Self { connection, limit }
    }

    /// The same, each within `limit`.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The wire under it, for calls without a name here (SASL's).
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A call without a name here.
    pub async fn call(&self, procedure: Procedure, arguments: Encoder) -> Result<Reply, Error> {
        self.connection.call(procedure, arguments, self.limit).await
    }

    /// How this client has to authenticate; works before `open` only.
    pub async fn auth_list(&self) -> Result<Vec<Auth>, Error> {
        let reply = self.call(Procedure::AUTH_LIST, Encoder::new()).await?;
        let way = |decoder: &mut Decoder<'_>| {
            Ok(match decoder.int()? {
                0 => Auth::None,
                1 => Auth::Sasl,
                2 => Auth::Polkit,
                other => Auth::Other(other),
            })
        };
        Ok(Decoder::new(&reply.payload).list(MOST_AUTH, way)?)
    }

    /// Authenticates by what polkit knows of this process. Errors: `Remote` if it says no.
    pub async fn auth_polkit(&self) -> Result<(), Error> {
        let _complete = self.call(Procedure::AUTH_POLKIT, Encoder::new()).await?;
        Ok(())
    }

    /// Chooses the driver that all further calls go to. `uri` as the daemon's own machine writes
    /// it: `qemu:///system`, without a transport.
    pub async fn open(&self, uri: &str, rights: Rights) -> Result<(), Error> {
        let flags = match rights {
            Rights::ReadWrite => 0,
            Rights::ReadOnly => 1,
        };
        let arguments = Encoder::new().optional_string(Some(uri)).uint(flags);
        let _empty = self.call(Procedure::CONNECT_OPEN, arguments).await?;
        Ok(())
    }

    /// Makes both sides look after each other, if the daemon can; pings begin now. Returns
    /// whether it can.
    pub async fn keep_alive(&self) -> Result<bool, Error> {
        let feature = Encoder::new().int(KEEPALIVE);
        let asked = self.call(Procedure::CONNECT_SUPPORTS_FEATURE, feature);
        let supported = match asked.await {
            Ok(reply) => Decoder::new(&reply.payload).int()? == 1,
            Err(Error::Remote(_)) => false,
            Err(error) => return Err(error),
        };
        if supported {
            self.connection.start_pings();
        }
        Ok(supported)
    }

    /// The name of the daemon's machine.
    pub async fn hostname(&self) -> Result<String, Error> {
        let asked = self.call(Procedure::CONNECT_GET_HOSTNAME, Encoder::new());
        Ok(Decoder::new(&asked.await?.payload).string()?)
    }

    /// All domains, running or not.
    pub async fn list_all(&self) -> Result<Vec<Domain>, Error> {
        let arguments = Encoder::new().int(1).uint(0);
        let asked = self.call(Procedure::CONNECT_LIST_ALL_DOMAINS, arguments);
        let reply = asked.await?;
        Ok(Decoder::new(&reply.payload).list(MOST_DOMAINS, Domain::decode)?)
    }

    /// The domain of this UUID. Errors: `NoDomain`.
    pub async fn by_uuid(&self, uuid: Uuid) -> Result<Domain, Error> {
        let arguments = Encoder::new().fixed(uuid.as_bytes());
        let asked = self.call(Procedure::DOMAIN_LOOKUP_BY_UUID, arguments);
        Ok(Domain::decode(&mut Decoder::new(&asked.await?.payload))?)
    }

    /// The domain of this name. Errors: `NoDomain`.
    pub async fn by_name(&self, name: &str) -> Result<Domain, Error> {
        let arguments = Encoder::new().string(name);
        let asked = self.call(Procedure::DOMAIN_LOOKUP_BY_NAME, arguments);
        Ok(Domain::decode(&mut Decoder::new(&asked.await?.payload))?)
    }

    /// Its `virDomainState`: 1 running, 3 paused, 5 off ...
    pub async fn state(&self, domain: &Domain) -> Result<i32, Error> {
        let arguments = domain.encode().uint(0);
        let asked = self.call(Procedure::DOMAIN_GET_STATE, arguments);
        Ok(Decoder::new(&asked.await?.payload).int()?)
    }

    /// Its XML as it is now; with passwords if `secure`, which needs [`Rights::ReadWrite`].
    pub async fn xml(&self, domain: &Domain, secure: bool) -> Result<String, Error> {
        let arguments = domain.encode().uint(u32::from(secure));
        let asked = self.call(Procedure::DOMAIN_GET_XML_DESC, arguments);
        Ok(Decoder::new(&asked.await?.payload).string()?)
    }

    /// From now on the connection's events tell of this, for all domains. Returns what
    /// [`Client::deregister`] takes.
    pub async fn register(&self, topic: Topic) -> Result<i32, Error> {
        let arguments = Encoder::new().int(topic.number()).uint(0);
        let asked = self.call(Procedure::EVENT_REGISTER, arguments);
        Ok(Decoder::new(&asked.await?.payload).int()?)
    }

    /// No longer.
    pub async fn deregister(&self, callback: i32) -> Result<(), Error> {
        let arguments = Encoder::new().int(callback);
        let _empty = self.call(Procedure::EVENT_DEREGISTER, arguments).await?;
        Ok(())
    }

    /// The display number `index` in the domain's XML, as a connected socket that asks for no
    /// password. Local only. Errors: `InvalidNow` (off), `Internal` (no such display), `Denied`.
    pub async fn open_graphics(&self, domain: &Domain, index: u32) -> Result<OwnedFd, Error> {
        let arguments = domain.encode().uint(index).uint(SKIP_AUTH);
        let asked = self.call(Procedure::DOMAIN_OPEN_GRAPHICS_FD, arguments);
        asked.await?.descriptors.pop().ok_or(Error::NoDescriptor)
    }

    /// The line of a pty console, taken from whoever has it; the first one without a `device`.
    /// The stream needs a connection of its own. Errors: as for `open_graphics`.
    pub async fn open_console(
        &self,
        domain: &Domain,
        device: Option<&str>,
    ) -> Result<Stream, Error> {
        let arguments = domain.encode().optional_string(device).uint(FORCE);
        let (_empty, stream) = self
            .connection
            .open_stream(Procedure::DOMAIN_OPEN_CONSOLE, arguments, self.limit)
            .await?;
        Ok(stream)
    }

    /// A picture of a screen, at most [`MAX_SCREENSHOT`] bytes, all of it within the client's
    /// limit once it has begun. Worth a connection of its own. Not cancel-safe.
    pub async fn screenshot(&self, domain: &Domain, screen: u32) -> Result<Screenshot, Error> {
        let arguments = domain.encode().uint(screen).uint(0);
        let (reply, mut stream) = self
            .connection
            .open_stream(Procedure::DOMAIN_SCREENSHOT, arguments, self.limit)
            .await?;
        let mime = Decoder::new(&reply.payload).optional(Decoder::string)?;
        let bytes = tokio::time::timeout(self.limit, stream.read_all(MAX_SCREENSHOT));
        Ok(Screenshot {
            mime: mime.unwrap_or_default(),
            bytes: bytes.await.map_err(|_| Error::Deadline(self.limit))??,
        })
    }
}
