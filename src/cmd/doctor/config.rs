use super::{Fault, Finding, Found, Visit};
use crate::app::{App, Roles};
use crate::cmd::Exit;
use crate::cmd::failure::chain;
use crate::config::Config;

const FIX: &str = "correct the file; `vncgate config example` shows every key";

/// Whether the config is good, and what in it will surprise viewers.
pub(super) fn look(visit: &mut Visit) -> Finding {
    let bad = |what: String| Fault {
        exit: Exit::Config,
        ..Fault::new(what, FIX)
    };
    let file = &visit.remote.config;
    let config = file.read().map_err(|failure| bad(failure.message))?;
    App::check(&config, &Roles::default()).map_err(|error| bad(chain(&error)))?;
    let path = file.path();
    let what = path.map_or_else(
        || "no config file: the defaults".to_owned(),
        |path| path.display().to_string(),
    );
    let change = surprise(&config);
    visit.config = config;
    Ok(match change {
        Some(change) => Found::Note { what, change },
        None => Found::Fine(what),
    })
}

fn surprise(config: &Config) -> Option<&'static str> {
    let proxy = &config.proxy;
    let far = proxy.listen.iter().any(|it| !it.ip().is_loopback());
    if proxy.public_url.is_none() && far {
        return Some(
            "proxy.listen is not loopback alone and proxy.public_url is unset, so console URLs lead \
             to an address of this machine's choice: set proxy.public_url to what viewers type",
        );
    }
    // nginx's proxy_read_timeout, HAProxy's usual tunnel timeout and AWS's balancers: 60 s
    let pings = proxy.ping_interval.unless_zero();
    let rare = pings.is_none_or(|pause| pause.as_secs() >= 60);
    rare.then_some(
        "proxy.ping_interval is off or 60s and more, but most proxies cut what is quiet for 60 s: \
         set it to 30s, or raise their timeouts (nginx: proxy_read_timeout)",
    )
}
