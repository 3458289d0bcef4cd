//! vncgate gives people the screens of their virtual machines in a browser, safely.

pub mod auth;
pub mod compute;
pub mod config;
pub mod drain;
pub mod http;
pub mod model;
pub mod rpc;
pub mod telemetry;
pub mod web;
