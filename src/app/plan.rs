//! Which roles run in a process, and where it finds the others.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::StartError;
use crate::config::Config;
use crate::model::Address;

/// A role, by its name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum RoleName {
    /// Who is asking, and may they.
    Api,
    /// Tokens and sessions.
    Auth,
    /// Where consoles are.
    Compute,
    /// Pages and WebSockets.
    Proxy,
}

/// The name is none of the four.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the roles are api, auth, compute and proxy")]
pub struct NoSuchRole;

impl RoleName {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Api, Self::Auth, Self::Compute, Self::Proxy];

    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Auth => "auth",
            Self::Compute => "compute",
            Self::Proxy => "proxy",
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RoleName {
    type Err = NoSuchRole;

    fn from_str(text: &str) -> Result<Self, NoSuchRole> {
        let named = Self::ALL.into_iter().find(|role| role.as_str() == text);
        named.ok_or(NoSuchRole)
    }
}

/// Some of the four roles.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Roles(Vec<RoleName>);

impl Default for Roles {
    /// All of them.
    fn default() -> Self {
        Self::of(&RoleName::ALL)
    }
}

impl Roles {
    /// These, each once.
    pub fn of(roles: &[RoleName]) -> Self {
        let mut roles = roles.to_vec();
        roles.sort_unstable();
        roles.dedup();
        Self(roles)
    }

    /// Whether it is one of them.
    pub fn has(&self, role: RoleName) -> bool {
        self.0.contains(&role)
    }

    /// Whether they are all.
    pub fn are_all(&self) -> bool {
        self.0.len() == RoleName::ALL.len()
    }

    fn with(&self, role: RoleName) -> Self {
        Self::of(&[&*self.0, &[role]].concat())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|role| role.as_str()).collect();
        f.write_str(&names.join(", "))
    }
}

/// Where a role is, seen from one process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// In it.
    Here,
    /// At these addresses.
    There(Vec<Address>),
    /// Nobody here calls it.
    Nowhere,
}

/// What one process runs and whom it calls. `Display` says it in sentences.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) here: Roles,
    pub(super) auth: Place,
    pub(super) compute: Place,
    /// Where further computes are written down.
    pub(super) compute_dir: Option<PathBuf>,
    /// Whether processes elsewhere may call what runs here.
    pub(super) is_called: bool,
    /// Whether the admin socket answers as the api does.
    pub(super) has_admin_api: bool,
}

impl Plan {
    /// Errors: `Roles`, with the key that lacks a value.
    pub(super) fn new(config: &Config, wanted: &Roles) -> Result<Self, StartError> {
        let here = with_what_a_proxy_brings(config, wanted);
        let calls = here.has(RoleName::Api) || here.has(RoleName::Proxy);
        let place = |role, key, addresses: &[Address], is_named: bool| {
            if here.has(role) {
                return Ok(Place::Here);
            }
            if !calls {
                return Ok(Place::Nowhere);
            }
            if !is_named {
                return Err(missing(key, role, wanted, config));
            }
            Ok(Place::There(addresses.to_vec()))
        };
        let rpc = &config.rpc;
        let auth = place(RoleName::Auth, "rpc.auth", &rpc.auth, !rpc.auth.is_empty())?;
        let is_named = rpc.names_compute();
        let compute = place(RoleName::Compute, "rpc.compute", &rpc.compute, is_named)?;
        let serves = wanted.has(RoleName::Auth) || wanted.has(RoleName::Compute);
        let near = auth == Place::Here && compute == Place::Here;
        let plan = Self {
            is_called: serves && !rpc.listen.is_empty(),
            compute_dir: rpc.compute_dir.clone(),
            has_admin_api: here.has(RoleName::Api) || near && here.has(RoleName::Proxy),
            here,
            auth,
            compute,
        };
        plan.check_doors(config, wanted, serves)?;
        Ok(plan)
    }

    fn check_doors(&self, config: &Config, wanted: &Roles, serves: bool) -> Result<(), StartError> {
        let refuse = |key, why: &str| {
            let why = why.to_owned();
            Err(StartError::Roles { key, why })
        };
        // Where both who call run here, there may be nobody else.
        let callers = wanted.has(RoleName::Api) && wanted.has(RoleName::Proxy);
        if serves && !callers && !self.is_called {
            let why = "needed where auth or compute runs for other processes; give an address, \
                       such as \"10.0.0.1:6090\"";
            return refuse("rpc.listen", why);
        }
        if self.here.has(RoleName::Api) && !self.here.has(RoleName::Proxy) {
            if config.api.listen.is_empty() {
                let why = "needed where the api runs without the proxy; give an address";
                return refuse("api.listen", why);
            }
            if config.proxy.public_url.is_none() {
                let why = "needed where the api runs without the proxy: how do viewers reach that?";
                return refuse("proxy.public_url", why);
            }
        }
        Ok(())
    }
}

/// A proxy for tokens that somebody else makes is whole by itself: it checks them and finds their
/// instances where nobody else is named for that.
fn with_what_a_proxy_brings(config: &Config, wanted: &Roles) -> Roles {
    let mut here = wanted.clone();
    if *wanted == Roles::of(&[RoleName::Proxy]) && config.auth.source.is_foreign() {
        if config.rpc.auth.is_empty() {
            here = here.with(RoleName::Auth);
        }
        if !config.rpc.names_compute() {
            here = here.with(RoleName::Compute);
        }
    }
    here
}

fn missing(key: &'static str, role: RoleName, wanted: &Roles, config: &Config) -> StartError {
    let foreign = config.auth.source.is_foreign();
    let named = !config.rpc.auth.is_empty() || config.rpc.names_compute();
    let alone = *wanted == Roles::of(&[RoleName::Proxy]) && !named;
    if alone && !foreign {
        let why = "a proxy alone makes no tokens; name who does (nova-db, nova-api, \
                   websockify-file), or where auth and compute run (rpc.auth, rpc.compute), or run \
                   `vncgate serve --all`";
        return StartError::Roles {
            key: "auth.source",
            why: why.to_owned(),
        };
    }
    let why = format!("the {role} role does not run here ({wanted}); say where it does");
    StartError::Roles { key, why }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "runs here: {}", self.here)?;
        for (role, place) in [("auth", &self.auth), ("compute", &self.compute)] {
            if let Place::There(addresses) = place {
                let mut addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                let directory = self.compute_dir.as_ref().filter(|_| role == "compute");
                addresses.extend(directory.map(|it| format!("the hosts in {}", it.display())));
                write!(f, "; calls {role} at {}", addresses.join(", "))?;
            }
        }
        if self.is_called {
            f.write_str("; is called at rpc.listen")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEERS: &str = "[rpc]\nauth = ['unix:/a']\ncompute = ['unix:/c']\nlisten = ['unix:/l']\n";

    fn plan(roles: &[RoleName], config: &str) -> Result<Plan, String> {
        let config = Config::parse(config).unwrap();
        Plan::new(&config, &Roles::of(roles)).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_in_one_process_calls_nobody() {
        let plan = plan(&RoleName::ALL, "").unwrap();
        assert_eq!(plan.to_string(), "runs here: api, auth, compute, proxy");
        assert!(plan.has_admin_api && !plan.is_called);
    }

    #[test]
    fn a_role_elsewhere_needs_an_address_and_the_key_is_named() {
        use RoleName::{Api, Auth, Compute, Proxy};
        let refused = |roles: &[RoleName], config| plan(roles, config).unwrap_err();

        let auth_alone = "[rpc]\nauth = ['unix:/a']";
        assert!(refused(&[Proxy], auth_alone).starts_with("rpc.compute: "));
        assert!(refused(&[Proxy], "").starts_with("auth.source: "));
        assert!(refused(&[Api, Proxy, Compute], "").starts_with("rpc.auth: "));
        assert!(refused(&[Auth], "").starts_with("rpc.listen: "));
        let computes = "[rpc]\ncompute = ['unix:/c']";
        assert!(refused(&[Api, Auth], computes).starts_with("rpc.listen: "));
        assert!(plan(&[Api, Auth, Proxy], computes).is_ok());
        assert!(refused(&[Api], PEERS).starts_with("api.listen: "));
        let door = format!("{PEERS}[api]\nlisten = ['127.0.0.1:0']");
        assert!(refused(&[Api], &door).starts_with("proxy.public_url: "));
    }

    #[test]
    fn a_directory_of_hosts_says_where_compute_is() {
        let there = format!("{PEERS}compute_dir = '/hosts.d'\nsecret_file = '/s'");
        let proxy = plan(&[RoleName::Proxy], &there).unwrap();
        let words = proxy.to_string();
        assert!(
            words.ends_with("compute at unix:/c, the hosts in /hosts.d"),
            "{words}"
        );
    }

    #[test]
    fn who_calls_whom_is_said() {
        let proxy = plan(&[RoleName::Proxy], PEERS).unwrap();
        let words = "runs here: proxy; calls auth at unix:/a; calls compute at unix:/c";
        assert_eq!(proxy.to_string(), words);
        assert!(!proxy.has_admin_api);
        let auth = plan(&[RoleName::Auth], PEERS).unwrap();
        assert_eq!(auth.to_string(), "runs here: auth; is called at rpc.listen");
    }

    #[test]
    fn a_proxy_for_others_tokens_is_whole_unless_roles_are_named() {
        let foreign = "[auth]\nsource = 'websockify-file'\ntoken_file = '/t'\n";
        let whole = plan(&[RoleName::Proxy], foreign).unwrap();
        assert_eq!(whole.to_string(), "runs here: auth, compute, proxy");
        let named = plan(&[RoleName::Proxy], &format!("{foreign}{PEERS}")).unwrap();
        assert!(named.to_string().contains("calls auth at unix:/a"));
    }
}
