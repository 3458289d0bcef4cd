//! What a page may know of its console beside the bytes: what its viewer may do.
//!
//! A browser's WebSocket shows no header of the answer, and what is said inside it is the console's.
//! So the page asks, with its token in a header of its own, at the same address as the WebSocket's:
//! what a reverse proxy lets through for one it lets through for the other. A live session here is
//! looked at first; whoever made the token is asked only if there is none.

use http::{HeaderName, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::{Proxy, request};
use crate::auth::AuthError;
use crate::http::{Body, Peer, Reject, json};
use crate::model::{Rights, Token};

/// Carries the token. No page of another site can send it: browsers would ask us first.
const TOKEN: HeaderName = HeaderName::from_static("vncgate-token");

#[derive(Serialize)]
struct Told {
    rights: Rights,
}

impl Proxy {
    /// Whether a page asks.
    pub fn is_asked(request: &Request<Incoming>) -> bool {
        request.headers().contains_key(TOKEN)
    }

    /// Answers a request for which [`Proxy::is_asked`] holds.
    pub async fn tell(&self, request: &Request<Incoming>, peer: Peer) -> Response<Body> {
        let settings = self.settings.now();
        let trusted = &settings.trusted_proxies;
        let ip = request::client(peer.ip(), request.headers(), trusted).ip;
        if let Err(wait) = self.guard.may_try(ip) {
            let why = "too many tokens from your address were unknown; wait a moment";
            return Reject::too_many(why, wait.as_secs().saturating_add(1)).into_response();
        }
        let token = request.headers().get(TOKEN).and_then(|it| it.to_str().ok());
        let token = token.and_then(|token| Token::try_from(token.to_owned()).ok());
        match self.rights_of(token).await {
            Ok(rights) => json(StatusCode::OK, &Told { rights }),
            Err(AuthError::Unknown) => {
                self.guard.note_failure(ip);
                Reject::not_found().into_response()
            }
            Err(error) => {
                tracing::debug!(%error, "a page could not be told what its viewer may do");
                let why = "tokens cannot be checked just now";
                Reject::retry("unavailable", why, 5).into_response()
            }
        }
    }

    async fn rights_of(&self, token: Option<Token>) -> Result<Rights, AuthError> {
        let token = token.ok_or(AuthError::Unknown)?;
        if let Some(rights) = self.roster.rights_of(token.hash().id()) {
            return Ok(rights);
        }
        Ok(self.auth.redeem(&token).await?.rights)
    }
}
