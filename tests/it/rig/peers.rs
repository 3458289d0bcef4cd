//! Servers that stand where a hypervisor would, well-behaved or not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use socket2::{Domain, Socket, Type};

use super::rfb::welcome;
use super::wait::{PATIENCE, until};

/// A TCP server that handles each connection in a thread of its own.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: AtomicUsize,
    stopped: AtomicBool,
}

impl Peer {
    /// A server that says nothing by itself.
    pub(crate) fn raw<F>(behaviour: F) -> Self
    where
        F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (behaviour, shared) = (Arc::new(behaviour), Arc::clone(&state));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (stream, behaviour) = (stream.unwrap(), Arc::clone(&behaviour));
                thread::spawn(move || {
                    stream.set_read_timeout(Some(PATIENCE * 2)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    // how a connection ended is for the test to judge, on its own side
                    let _ended = behaviour(stream).is_ok();
                });
            }
        });
        Self { address, state }
    }

    /// A VNC server without a picture: after its handshake the stream belongs to `behaviour`.
    pub(crate) fn vnc<F>(behaviour: F) -> Self
    where
        F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::raw(move |mut stream| {
            welcome(&mut stream, "peer")?;
            behaviour(stream)
        })
    }

    /// A VNC server that sends back what it gets after the handshake.
    pub(crate) fn echo() -> Self {
        Self::vnc(|mut stream| {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                stream.write_all(&buffer[..count])?;
            }
        })
    }

    /// A VNC server that gathers all it gets after the handshake, up to the end.
    pub(crate) fn gathering() -> (Self, Gathered) {
        let gathered = Gathered::default();
        let shared = gathered.clone();
        let peer = Self::vnc(move |mut stream| {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = stream.read(&mut buffer)?;
                let mut inner = shared.0.lock().unwrap();
                inner.bytes.extend(&buffer[..count]);
                if count == 0 {
                    inner.ends += 1;
                    return Ok(());
                }
            }
        });
        (peer, gathered)
    }

    /// Where it listens, as the config file wants it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address).is_ok();
    }
}

/// What a [`Peer::gathering`] has got so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered(Arc<std::sync::Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    ends: usize,
}

impl Gathered {
    /// Waits for the end of a connection and returns all bytes.
    #[track_caller]
    pub(crate) fn until_end(&self) -> Vec<u8> {
        until("the end of the connection to the target", || {
            (self.0.lock().unwrap().ends > 0).then_some(())
        });
        self.0.lock().unwrap().bytes.clone()
    }

    /// Waits until that many bytes have come and returns all of them.
    #[track_caller]
    pub(crate) fn until_count(&self, count: usize) -> Vec<u8> {
        until(&format!("{count} bytes at the target"), || {
            let inner = self.0.lock().unwrap();
            (inner.bytes.len() >= count).then(|| inner.bytes.clone())
        })
    }
}

/// A port that refuses connections for as long as this lives: bound, and never listening.
#[derive(Debug)]
pub(crate) struct Closed {
    socket: Socket,
}

impl Closed {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        Self { socket }
    }

    pub(crate) fn address(&self) -> String {
        let address = self.socket.local_addr().unwrap();
        address.as_socket().unwrap().to_string()
    }
}

/// Bytes in which a lost, doubled or swapped chunk shows: a random block whose length is a prime,
/// again and again.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    let block: Vec<u8> = words.flatten().take(65_521).collect();
    let mut bytes = block.repeat(length.div_ceil(block.len()));
    bytes.truncate(length);
    bytes
}

/// A small deterministic source of randomness (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap();
        usize::try_from((self.next() >> 8) % limit).unwrap()
    }
}
