//! Tokens that somebody else makes: looked up there, at each use, and never changed.
//!
//! Called by the auth role in place of its store. A source knows what a token stands for and when
//! it dies; it makes no tokens, and lists none. Nova's rules hold for all: a token opens as often
//! as it is presented, strictly before it expires.

mod bases;
mod no_console;
mod nova_api;
mod nova_db;
mod token_file;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::AuthError;
use crate::model::{Grant, Token, UnixTime};

pub use bases::Bases;
pub use no_console::NoConsole;
pub use nova_api::{NovaApi, NovaApiSettings};
pub use nova_db::{BadDatabase, NovaDb};
pub use token_file::{TokenFile, TokenFileSettings};

/// What an async method of a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where tokens are looked up.
pub trait Source: Send + Sync + fmt::Debug {
    /// Who makes them, for people: `Nova`.
    fn name(&self) -> &'static str;

    /// What `token` stands for, if it is valid at `now`. Bounded in time by itself. Errors:
    /// `Unknown` if it is known not to be; `Source` if that could not be found out. Cancel-safe.
    fn redeem<'a>(
        &'a self,
        token: &'a Token,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Grant, AuthError>>;

    /// Whether it can be asked just now. Errors: `Source`. Cancel-safe.
    fn ready(&self) -> BoxFuture<'_, Result<(), AuthError>>;
}
