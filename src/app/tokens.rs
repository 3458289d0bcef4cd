use crate::api::Urls;
use crate::auth::{
    self, Auth, BadDatabase, Bases, NovaApi, NovaApiSettings, NovaDb, Source, TokenFile,
    TokenFileSettings,
};
use crate::config::{self, Config, TokenSource};
use crate::drain::Watch;
use crate::keystone::Keystone;

/// The auth role, with whatever the config says makes the tokens.
pub(super) fn auth(
    config: &Config,
    urls: &Urls,
    keystone: Option<&Keystone>,
    watch: &Watch,
) -> Auth {
    let settings = settings(&config.auth);
    match source(&config.auth, urls, keystone, watch) {
        None => Auth::in_memory(settings, watch),
        Some(source) => Auth::foreign(source, settings, watch),
    }
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
        TokenSource::Memory => None,
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

fn settings(config: &config::Auth) -> auth::Settings {
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
