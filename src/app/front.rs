use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::api::Api;
use crate::http::{Body, Peer, Service};
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
        if Proxy::is_asked(&request) {
            return self.proxy.tell(&request, peer).await;
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
