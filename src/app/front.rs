use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Roles;
use super::reload::Reloader;
use super::upgrade::Upgrader;
use crate::api::Api;
use crate::http::{Body, Peer, Reject, Service, json};
use crate::live::Live;
use crate::proxy::Proxy;
use crate::proxy::request::wants_websocket;
use crate::web::Pages;

/// The public door: consoles on any path, the API under its own, pages for the rest.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) proxy: Arc<Proxy>,
    pub(super) api: Option<Live<Api>>,
    pub(super) pages: Live<Pages>,
}

impl Service for Front {
    // Each in a box of its own: as large as what is asked, not as the largest that may be.
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if wants_websocket(&request) {
            return Box::pin(self.proxy.open_console(request, peer)).await;
        }
        if Proxy::is_asked(&request) {
            return Box::pin(self.proxy.tell(&request, peer)).await;
        }
        match &self.api {
            Some(api) if Api::owns(&request) => {
                let api = api.now();
                Box::pin(api.answer(request, peer)).await
            }
            _ => Box::pin(self.pages.now().respond(&request)).await,
        }
    }

    fn is_light(&self, request: &Request<Incoming>) -> bool {
        wants_websocket(request)
    }
}

/// A door to the API alone.
#[derive(Debug)]
pub(super) struct ApiDoor(pub(super) Live<Api>);

impl Service for ApiDoor {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        self.0.now().answer(request, peer).await
    }
}

/// Where `vncgate reload` asks, on the admin socket alone.
pub const RELOAD: &str = "/v1/process/reload";

/// Where `vncgate upgrade` asks, there too.
pub const UPGRADE: &str = "/v1/process/upgrade";

/// The admin socket: the API, and what only whoever runs the process may ask of it.
#[derive(Debug)]
pub(super) struct Admin {
    /// Nothing where the api does not run.
    pub(super) api: Option<Live<Api>>,
    pub(super) roles: Roles,
    pub(super) reloader: Reloader,
    pub(super) upgrader: Upgrader,
}

impl Service for Admin {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, RELOAD) => self.reload().await,
            (&Method::POST, UPGRADE) => self.upgrade().await,
            _ => match &self.api {
                Some(api) => api.now().answer(request, peer).await,
                None => self.no_api(),
            },
        }
    }
}

impl Admin {
    fn no_api(&self) -> Response<Body> {
        let why = format!(
            "this process runs {} and answers no such commands; ask on a machine where the api runs",
            self.roles
        );
        Reject::new(StatusCode::NOT_IMPLEMENTED, "no-api-here", why).into_response()
    }

    async fn reload(&self) -> Response<Body> {
        match self.reloader.reload().await {
            Ok(reloaded) => json(StatusCode::OK, &reloaded),
            Err(why) => {
                let why = format!("the config of before stays in force: {why}");
                Reject::new(StatusCode::CONFLICT, "bad-config", why).into_response()
            }
        }
    }

    async fn upgrade(&self) -> Response<Body> {
        match self.upgrader.upgrade().await {
            Ok(upgraded) => json(StatusCode::OK, &upgraded),
            Err(why) => {
                let why = format!("this process goes on: {why}");
                Reject::new(StatusCode::CONFLICT, "no-successor", why).into_response()
            }
        }
    }
}
