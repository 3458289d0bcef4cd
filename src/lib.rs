//! vncgate gives people the screens of their virtual machines in a browser, safely.
//!
//! The program is two journeys. **A, request to URL**: [`http::serve`] → [`api::Api::answer`] →
//! [`compute`] finds the instance's display → [`auth`] makes a token → the access URL. **B,
//! upgrade to relay**: [`http::serve`] → [`proxy::Proxy::open_console`] → `auth` redeems the
//! token → `compute` looks the display up again → [`proxy::target`] dials →
//! [`proxy::relay::run`]. [`app`] puts the roles together, [`cmd`] is the command line;
//! docs/design.md has the map.

pub mod api;
pub mod app;
pub mod audit;
pub mod auth;
pub mod cmd;
pub mod compute;
pub mod config;
pub mod demo;
pub mod drain;
pub mod http;
pub mod keystone;
pub mod live;
pub mod model;
pub mod process;
pub mod proxy;
pub mod resolve;
pub mod rpc;
pub mod telemetry;
pub mod tls;
pub mod web;
pub mod workers;

#[cfg(test)]
mod house;
