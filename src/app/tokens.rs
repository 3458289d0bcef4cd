use std::path::Path;

use zeroize::Zeroizing;

use super::StartError;
use crate::api::Urls;
use crate::auth::redis::{self, Topology, Trust};
use crate::auth::{
    self, Auth, BadDatabase, Bases, NovaApi, NovaApiSettings, NovaDb, Source, TokenFile,
    TokenFileSettings,
};
use crate::config::{self, Config, TokenSource};
use crate::drain::Watch;
use crate::keystone::Keystone;

/// The auth role, with whatever the config says makes the tokens. Errors: `Tokens`, `Password`.
pub(super) fn auth(
    config: &Config,
    urls: &Urls,
    keystone: Option<&Keystone>,
    watch: &Watch,
) -> Result<Auth, StartError> {
    let settings = settings(&config.auth);
    if let Some(source) = source(&config.auth, urls, keystone, watch) {
        return Ok(Auth::foreign(source, settings, watch));
    }
    Ok(match config.auth.source {
        TokenSource::File => Auth::in_file(&config.auth.own_file(), settings, watch)?,
        TokenSource::Redis => Auth::in_redis(shared(&config.auth.redis)?, settings, watch),
        _ => Auth::in_memory(settings, watch),
    })
}

fn shared(config: &config::Redis) -> Result<redis::Settings, StartError> {
    let password = config.password_file.as_ref().map(|path| secret_in(path));
    let topology = match &config.sentinel {
        Some(master) => Topology::Sentinel(master.clone()),
        None if config.cluster => Topology::Cluster,
        None => Topology::Single,
    };
    let ca = config.ca_file.clone();
    let trust = || ca.map_or(Trust::System, Trust::File);
    Ok(redis::Settings {
        servers: config.servers.clone(),
        topology,
        user: config.user.clone(),
        password: password.transpose()?,
        tls: config.tls.then(trust),
        prefix: config.prefix.clone(),
    })
}

/// A file's first line.
fn secret_in(path: &Path) -> Result<Zeroizing<String>, StartError> {
    let text = std::fs::read_to_string(path).map_err(|why| StartError::Password {
        path: path.to_owned(),
        why,
    });
    let text = Zeroizing::new(text?);
    let line = text.lines().next().unwrap_or_default();
    Ok(Zeroizing::new(line.to_owned()))
}

/// Whether the files that it needs hold what they should. Blocks.
pub(super) fn check(config: &Config) -> Result<(), BadDatabase> {
    NovaDb::check(&config.auth.databases)
}

/// None where this program makes them. The config has a Keystone where one is needed.
fn source(
    config: &config::Auth,
    urls: &Urls,
    keystone: Option<&Keystone>,
    watch: &Watch,
) -> Option<Box<dyn Source>> {
    let page = |console_type| urls.base(console_type).cloned();
    let bases = Bases::new(page, urls.public().clone());
    let base = bases.of(config.console_type).clone();
    match config.source {
        TokenSource::Memory | TokenSource::File | TokenSource::Redis => None,
        TokenSource::NovaApi => {
            let settings = NovaApiSettings {
                url: config.nova_url.clone(),
                console_type: config.console_type,
                base,
            };
            Some(Box::new(NovaApi::new(keystone?.clone(), settings)))
        }
        TokenSource::WebsockifyFile => Some(Box::new(TokenFile::new(TokenFileSettings {
            path: config.token_file.clone().unwrap_or_default(),
            most: config.max_tokens,
            console_type: config.console_type,
            base,
            ttl: config.url_ttl.get(),
        }))),
        TokenSource::NovaDb => Some(Box::new(NovaDb::new(&config.databases, bases, watch))),
    }
}

pub(super) fn settings(config: &config::Auth) -> auth::Settings {
    let limit = |number: usize| (number > 0).then_some(number);
    auth::Settings {
        max_tokens: config.max_tokens,
        limits: auth::Limits {
            all: limit(config.max_sessions),
            instance: limit(config.max_sessions_per_instance),
            caller: limit(config.max_sessions_per_caller),
            address: limit(config.max_sessions_per_address),
        },
        reconnect_window: config.reconnect_window.get(),
        terms: config.terms(),
    }
}
