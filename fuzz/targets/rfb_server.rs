//! Whatever a VNC server says in its security handshake: nothing may panic, no more may be asked
//! for than a handshake has, and it must come to an end.

use crate::model::{Password, Scheme};
use crate::rfb::{Means, Negotiation, Next};

/// The most that any one message has: a reason, or 255 subtypes.
const LONGEST: usize = 1024;

pub(crate) fn run(bytes: &[u8]) {
    let Some((flags, mut rest)) = bytes.split_first() else {
        return;
    };
    let all = [
        Scheme::X509Plain,
        Scheme::X509Vnc,
        Scheme::X509None,
        Scheme::VncAuth,
        Scheme::None,
    ];
    let chosen = all
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0);
    let means = Means {
        schemes: chosen.map(|(_, scheme)| scheme).collect::<Vec<_>>().into(),
        knows_servers: flags & 32 != 0,
        user: (flags & 64 != 0).then(|| "ann".to_owned()),
        password: (flags & 128 != 0).then(|| Password::from("secret".to_owned())),
    };
    let allowed = means.schemes.clone();
    let (mut negotiation, mut turn) = Negotiation::new(means);
    loop {
        let next = match turn.next {
            Next::Read(length) => {
                assert!((1..=LONGEST).contains(&length));
                let Some((piece, left)) = rest.split_at_checked(length) else {
                    return;
                };
                rest = left;
                negotiation.take(piece)
            }
            Next::StartTls => negotiation.secured(),
            Next::Ready(_) => {
                let scheme = negotiation.scheme().expect("a scheme was agreed on");
                assert!(allowed.contains(scheme), "{scheme} is not allowed");
                return;
            }
        };
        let _step = negotiation.step().to_string();
        match next {
            Ok(next) => turn = next,
            Err(fault) => {
                assert!(fault.to_string().len() < 8 * LONGEST);
                return;
            }
        }
    }
}
