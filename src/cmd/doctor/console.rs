//! The WebSocket, from its upgrade to the point where pictures may be asked for.

use http::header::{
    CONNECTION, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderValue, Request, StatusCode};
use tokio::time::timeout;

use super::line::{Over, Socket, ask};
use super::{Fault, Finding, Found, Visit, page, words};

const VERSION: &[u8; 12] = b"RFB 003.008\n";

/// The security type None, which viewers meet whatever the server wants.
const NONE: u8 = 1;

/// What a viewer without a token is refused with.
const NO_TOKEN: u16 = 4001;

/// Upgrades as the page does: at its own address, from its own origin. Without a token to the
/// refusal that this deserves.
pub(super) async fn upgrade(visit: &mut Visit) -> Finding {
    let (page, place) = (visit.page()?, visit.place()?);
    let no_way = |error| words::no_way(&page, &error);
    let mut url = page.clone();
    if let Some(console) = &visit.console {
        let _changed = url.query_pairs_mut().append_pair("token", &console.token);
    }
    let mut request = page::request(&page, &url)?;
    set_headers(&mut request, &page.origin().ascii_serialization());
    let stream = place.open(&visit.trust()).await.map_err(no_way)?;
    let answer = timeout(visit.patience, ask(stream, request)).await;
    let answer = answer.map_err(|_| words::unanswered(visit.patience))?;
    let answer = answer.map_err(no_way)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let by = page::server(answer.headers());
        return Err(words::no_upgrade(answer.status(), by));
    }
    let upgraded = hyper::upgrade::on(answer).await;
    let mut socket =
        Socket::new(upgraded.map_err(|error| no_way(super::line::NoWay::Http(error)))?);
    let heard = timeout(visit.patience, socket.hear()).await;
    match (heard, &visit.console) {
        (Err(_), _) => Err(words::held_back(visit.patience)),
        (Ok(Err(Over::Closed { code: NO_TOKEN, .. })), None) => {
            let what = "it is upgraded, and refused for want of a token";
            Ok(Found::Fine(what.to_owned()))
        }
        (Ok(Err(over)), _) => Err(words::over(over, &page)),
        (Ok(Ok(())), _) => {
            visit.socket = Some(socket);
            Ok(Found::Fine(format!("{page} is upgraded")))
        }
    }
}

fn set_headers<T>(request: &mut Request<T>, origin: &str) {
    let headers = request.headers_mut();
    for (name, value) in [
        (CONNECTION, "Upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_VERSION, "13"),
        // Sixteen bytes that need be nothing else.
        (SEC_WEBSOCKET_KEY, "dm5jZ2F0ZSBkb2N0b3IhIQ=="),
        (
            USER_AGENT,
            concat!("vncgate-doctor/", env!("CARGO_PKG_VERSION")),
        ),
    ] {
        let _new = headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(origin) = HeaderValue::from_str(origin) {
        let _new = headers.insert(ORIGIN, origin);
    }
}

/// Shakes hands as a viewer.
pub(super) async fn enter(visit: &mut Visit) -> Finding {
    let page = visit.page()?;
    let Some(socket) = &mut visit.socket else {
        return Ok(visit.left());
    };
    let entered = shake_hands(socket).await;
    let offer = entered.map_err(|over| words::over(over, &page))?;
    visit.is_reached = matches!(offer, Offer::In | Offer::Password);
    match offer {
        Offer::In => Ok(Found::Fine("the gateway is let in".to_owned())),
        Offer::Password => {
            visit.socket = None;
            Ok(Found::Note {
                what: "the display asks for a password that the gateway does not know".to_owned(),
                change: "viewers are asked for it; to spare them that, set password_file in \
                         [proxy.vnc] or at the host or instance, or let libvirt tell it \
                         (compute.host.passwords)",
            })
        }
        Offer::Strange => {
            let what = "the gateway offers no security that viewers know".to_owned();
            Err(Fault::new(what, words::LOG))
        }
    }
}

enum Offer {
    In,
    Password,
    Strange,
}

async fn shake_hands(socket: &mut Socket) -> Result<Offer, Over> {
    let _greeting = socket.read(VERSION.len()).await?;
    socket.send(VERSION).await?;
    let count = socket.read(1).await?.first().copied().unwrap_or_default();
    let offered = socket.read(usize::from(count)).await?;
    if !offered.contains(&NONE) {
        let password = offered.contains(&2);
        return Ok(if password {
            Offer::Password
        } else {
            Offer::Strange
        });
    }
    socket.send(&[NONE]).await?;
    let verdict = socket.read(4).await?;
    Ok(if verdict == [0; 4] {
        Offer::In
    } else {
        Offer::Strange
    })
}
