//! A way between two processes that a test can cut, or let stall without a word.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// A TCP door that leads to another one. Whoever goes through notices nothing while it is open.
#[derive(Debug)]
pub(crate) struct Crossing {
    pub(crate) address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    streams: Vec<TcpStream>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Open,
    Stalled,
    Cut,
    Over,
}

impl Crossing {
    /// One that is open.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            mode: Mode::Open,
            streams: Vec::new(),
        };
        let gate = Arc::new(Gate {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let shared = Arc::clone(&gate);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                match shared.mode() {
                    Mode::Over => return,
                    // dropped on the spot
                    Mode::Cut => {}
                    Mode::Open | Mode::Stalled => join(stream, target, &shared),
                }
            }
        });
        Self { address, gate }
    }

    /// Ends all connections and takes no more.
    pub(crate) fn cut(&self) {
        self.gate.turn(Mode::Cut);
    }

    /// Carries nothing more and ends nothing, as a network does that swallows packets.
    pub(crate) fn stall(&self) {
        self.gate.turn(Mode::Stalled);
    }

    /// Carries on, with all that was held back.
    pub(crate) fn open(&self) {
        self.gate.turn(Mode::Open);
    }
}

impl Drop for Crossing {
    fn drop(&mut self) {
        self.gate.turn(Mode::Over);
        let _woken = TcpStream::connect(self.address).is_ok();
    }
}

impl Gate {
    fn mode(&self) -> Mode {
        self.state.lock().unwrap().mode
    }

    fn turn(&self, mode: Mode) {
        let mut state = self.state.lock().unwrap();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::Over) {
            for stream in state.streams.drain(..) {
                let _gone_already = stream.shutdown(Shutdown::Both).is_err();
            }
        }
        self.changed.notify_all();
    }

    /// Whether bytes may pass; not answered while they are held back.
    fn lets_pass(&self) -> bool {
        let state = self.state.lock().unwrap();
        let held = |state: &mut State| state.mode == Mode::Stalled;
        let state = self.changed.wait_while(state, held).unwrap();
        state.mode == Mode::Open
    }
}

fn join(near: TcpStream, target: SocketAddr, gate: &Arc<Gate>) {
    let Ok(far) = TcpStream::connect(target) else {
        return;
    };
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
        let clone = stream.try_clone().unwrap();
        gate.state.lock().unwrap().streams.push(clone);
    }
    for (mut from, mut to) in [
        (near.try_clone().unwrap(), far.try_clone().unwrap()),
        (far, near),
    ] {
        let gate = Arc::clone(gate);
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if !gate.lets_pass() || to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _gone_already = to.shutdown(Shutdown::Both).is_err();
        });
    }
}
