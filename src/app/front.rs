use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Roles;
use crate::api::Api;
use crate::http::{Body, Peer, Reject, Service};
use crate::proxy::Proxy;
use crate::proxy::request::wants_websocket;
use crate::web::Pages;

/// The public door: consoles on any path, the API under its own, pages for the rest.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) proxy: Arc<Proxy>,
    pub(super) api: Option<Arc<Api>>,
    pub(super) pages: Pages,
}

impl Service for Front {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if wants_websocket(&request) {
            return self.proxy.open_console(request, peer).await;
        }
        match &self.api {
            Some(api) if Api::owns(&request) => api.answer(request, peer).await,
            _ => self.pages.respond(&request).await,
        }
    }
}

/// A door to the API alone.
#[derive(Debug)]
pub(super) struct Admin(pub(super) Arc<Api>);

impl Service for Admin {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        self.0.answer(request, peer).await
    }
}

/// A door to the API where it does not run.
#[derive(Debug)]
pub(super) struct NoApi(pub(super) Roles);

impl Service for NoApi {
    async fn answer(&self, _request: Request<Incoming>, _peer: Peer) -> Response<Body> {
        let why = format!(
            "this process runs {} and answers no such commands; ask on a machine where the api runs",
            self.0
        );
        Reject::new(StatusCode::NOT_IMPLEMENTED, "no-api-here", why).into_response()
    }
}
