//! What stands behind the relays: servers that let in like VNC servers and then do one thing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::process::hurry;

/// What both sides say first (RFC 6143 section 7.1.1).
pub(crate) const GREETING: &[u8; 12] = b"RFB 003.008\n";

/// The one security type that there is: none; its list, and the choice of it (section 7.1.2).
pub(crate) const NONE: u8 = 1;
pub(crate) const TYPES: [u8; 2] = [1, NONE];

/// That all is well (section 7.1.3).
pub(crate) const WELL: [u8; 4] = [0; 4];

/// The most bytes of one answer of the burst.
const BURST: usize = 256 << 10;

/// What a backend does once somebody is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Writes the pattern without a pause.
    Down,
    /// Reads the pattern and counts it.
    Up,
    /// Sends back what comes; 256 KiB of the pattern for a `!`.
    Echo,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Down, Self::Up, Self::Echo];

    /// Its name as an instance, and as websockify's token.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Echo => "echo",
        }
    }
}

/// One listener of each kind, in this process.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) addresses: Vec<(Kind, SocketAddr)>,
    pub(crate) counts: Counts,
}

/// What streams have carried so far, and whether all of it was right.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: AtomicU64,
    corrupted: AtomicBool,
}

impl Counts {
    /// Payload bytes that have arrived, up and down.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether a byte arrived that was not sent.
    pub(crate) fn corrupted(&self) -> bool {
        self.0.corrupted.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: &[u8]) {
        let count = u64::try_from(bytes.len()).unwrap_or_default();
        self.0.bytes.fetch_add(count, Ordering::Relaxed);
    }
}

impl Backends {
    /// Opens the listeners and serves them until the process ends.
    pub(crate) fn start() -> Result<Self> {
        let mut addresses = Vec::new();
        let counts = Counts::default();
        for kind in Kind::ALL {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            addresses.push((kind, listener.local_addr()?));
            let counts = counts.clone();
            if kind == Kind::Echo {
                thread::spawn(move || echo_all(listener));
            } else {
                thread::spawn(move || stream_all(kind, &listener, &counts));
            }
        }
        Ok(Self { addresses, counts })
    }
}

/// A thread for each connection: the kernel schedules them as it would separate servers.
fn stream_all(kind: Kind, listener: &TcpListener, counts: &Counts) {
    for stream in listener.incoming().flatten() {
        let counts = counts.clone();
        // A session ends when its client goes away, so an error is an end too.
        thread::spawn(move || stream_one(kind, stream, counts).is_ok());
    }
}

fn stream_one(kind: Kind, mut stream: TcpStream, counts: Counts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(GREETING)?;
    stream.read_exact(&mut [0; GREETING.len()])?;
    stream.write_all(&TYPES)?;
    stream.read_exact(&mut [0])?;
    stream.write_all(&WELL)?;
    if kind == Kind::Down {
        let pattern = pattern();
        loop {
            for chunk in pattern.chunks(1 << 16) {
                stream.write_all(chunk)?;
            }
        }
    }
    let mut check = Check::new(counts);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        check.take(buffer.get(..count).unwrap_or_default());
    }
}

/// All connections in one thread: thousands of them are held.
fn echo_all(listener: TcpListener) -> Result<()> {
    hurry();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let pattern: Arc<[u8]> = pattern().into();
        loop {
            let (stream, _) = listener.accept().await?;
            let pattern = Arc::clone(&pattern);
            tokio::spawn(async move { echo_one(stream, &pattern).await.is_ok() });
        }
    })
}

async fn echo_one(mut stream: tokio::net::TcpStream, pattern: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(GREETING).await?;
    stream.read_exact(&mut [0; GREETING.len()]).await?;
    stream.write_all(&TYPES).await?;
    stream.read_exact(&mut [0]).await?;
    stream.write_all(&WELL).await?;
    let mut bytes = [0; 64];
    loop {
        let count = stream.read(&mut bytes).await?;
        match bytes.get(..count).unwrap_or_default() {
            b"" => return Ok(()),
            b"!" => {
                let burst = pattern.get(..BURST).unwrap_or_default();
                stream.write_all(burst).await?;
            }
            question => stream.write_all(question).await?,
        }
    }
}

/// The payload of every stream: a MiB of random bytes (xorshift64*), again and again.
pub(crate) fn pattern() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let words = std::iter::repeat_with(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    });
    words.take((1 << 20) / 8).flatten().collect()
}

/// What a `!` is answered with.
pub(crate) fn burst() -> Vec<u8> {
    let mut pattern = pattern();
    pattern.truncate(BURST);
    pattern
}

/// Holds a stream against the pattern as it comes.
#[derive(Debug)]
pub(crate) struct Check {
    pattern: Vec<u8>,
    at: usize,
    counts: Counts,
}

impl Check {
    pub(crate) fn new(counts: Counts) -> Self {
        Self {
            pattern: pattern(),
            at: 0,
            counts,
        }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.counts.add(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let expected = self.pattern.get(self.at..).unwrap_or_default();
            let length = rest.len().min(expected.len());
            let (now, later) = rest.split_at(length);
            if !expected.starts_with(now) {
                self.counts.0.corrupted.store(true, Ordering::Relaxed);
            }
            self.at = (self.at + length) % self.pattern.len();
            rest = later;
        }
    }
}
