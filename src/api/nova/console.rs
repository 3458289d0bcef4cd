//! Consoles: `remote-consoles`, the actions before it, and what a token stands for.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::super::console::{Issued, NotIssued, Wanted, issue};
use super::fault::{Fault, SOON};
use super::schema::{self, Shape};
use super::{Call, extend};
use crate::compute::ComputeError;
use crate::http::{Body, json as answer};
use crate::model::{
    Address, ConsoleKind, ConsoleType, Instance, InstanceRef, PowerState, Rights, Role, Target,
    Token,
};

const CONSOLES: &str = "os_compute_api:os-remote-consoles";
const CONSOLE_OUTPUT: &str = "os_compute_api:os-console-output";
const AUTH_TOKENS: &str = "os_compute_api:os-console-auth-tokens";

/// The protocols and types of `remote-consoles`, in the order of the versions that brought them.
const PROTOCOLS: [&str; 5] = ["vnc", "spice", "serial", "rdp", "mks"];
const TYPES: [&str; 7] = [
    "novnc",
    "xvpvnc",
    "spice-html5",
    "serial",
    "rdp-html5",
    "webmks",
    "spice-direct",
];

/// The action that gives a log.
const OUTPUT: &str = "os-getConsoleOutput";

/// The last version that has the actions that give URLs.
const ACTIONS_END: u32 = 5;

/// The last version there is.
const NO_END: u32 = u32::MAX;

/// What `POST /servers/{id}/action` can be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    Console(ConsoleAction),
    /// What an instance wrote to its serial line; in every version.
    Output,
    /// Refused whatever it says, as since Nova 29.0.
    Rdp,
}

/// The actions that give a URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ConsoleAction {
    name: &'static str,
    kind: ConsoleKind,
    types: &'static [&'static str],
}

const CONSOLE_ACTIONS: [ConsoleAction; 3] = [
    ConsoleAction {
        name: "os-getVNCConsole",
        kind: ConsoleKind::Vnc,
        types: &["novnc", "xvpvnc"],
    },
    ConsoleAction {
        name: "os-getSPICEConsole",
        kind: ConsoleKind::Spice,
        types: &["spice-html5"],
    },
    ConsoleAction {
        name: "os-getSerialConsole",
        kind: ConsoleKind::Serial,
        types: &["serial"],
    },
];

impl Action {
    /// The action that the one member of `body` names. Errors: 400.
    pub(super) fn named(body: &Value) -> Result<Self, Fault> {
        let members = body.as_object().filter(|members| members.len() == 1);
        let name = members.and_then(|members| members.keys().next());
        let name = name.ok_or_else(|| Fault::bad_request("Malformed request body"))?;
        match name.as_str() {
            "os-getRDPConsole" => return Ok(Self::Rdp),
            OUTPUT => return Ok(Self::Output),
            _ => {}
        }
        let known = CONSOLE_ACTIONS
            .into_iter()
            .find(|action| action.name == name);
        known.map(Self::Console).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            Fault::bad_request(format!("There is no such action: {shown}"))
        })
    }
}

impl Call<'_> {
    /// `POST /servers/{id}/remote-consoles`
    pub(super) async fn create_console(
        &self,
        id: &str,
        body: &Value,
    ) -> Result<Response<Body>, Fault> {
        self.only_from(6, NO_END)?;
        let (protocols, types) = match self.version.1 {
            ..8 => (4, 5),
            8..99 => (5, 6),
            99.. => (5, 7),
        };
        let protocols: Vec<&str> = PROTOCOLS.into_iter().take(protocols).collect();
        let types: Vec<&str> = TYPES.into_iter().take(types).collect();
        let shape = Shape {
            words: &[("protocol", &protocols), ("type", &types)],
            open: self.is_open(),
        };
        let inner = schema::envelope(body, "remote_console", self.is_open())?;
        let words = shape.check(inner, "remote_console")?;
        let [protocol, console_type] = *words else {
            return Err(Fault::malformed());
        };
        let instance = self.instance(id).await?;
        self.must_be(Role::Member, CONSOLES)?;
        let kind = kind_of(protocol).ok_or_else(Fault::malformed)?;
        let issued = self.issue(&instance, kind, console_type).await?;
        let url = issued.url.reveal();
        let console = json!({ "protocol": protocol, "type": console_type, "url": url });
        Ok(answer(
            StatusCode::OK,
            &json!({ "remote_console": console }),
        ))
    }

    /// `POST /servers/{id}/action`
    pub(super) async fn act(
        &self,
        id: &str,
        action: Action,
        body: &Value,
    ) -> Result<Response<Body>, Fault> {
        let action = match action {
            Action::Output => return self.console_output(id, body).await,
            Action::Rdp => {
                self.only_from(1, ACTIONS_END)?;
                return Err(Fault::malformed());
            }
            Action::Console(action) => action,
        };
        self.only_from(1, ACTIONS_END)?;
        let shape = Shape {
            words: &[("type", action.types)],
            open: self.is_open(),
        };
        let inner = schema::envelope(body, action.name, self.is_open())?;
        let words = shape.check(inner, action.name)?;
        let [console_type] = *words else {
            return Err(Fault::malformed());
        };
        self.must_be(Role::Member, CONSOLES)?;
        let instance = self.instance(id).await?;
        let issued = self.issue(&instance, action.kind, console_type).await?;
        let console = json!({ "type": console_type, "url": issued.url.reveal() });
        Ok(answer(StatusCode::OK, &json!({ "console": console })))
    }

    /// `os-getConsoleOutput`: the last lines, or all that is kept.
    async fn console_output(&self, id: &str, body: &Value) -> Result<Response<Body>, Fault> {
        let inner = schema::envelope(body, OUTPUT, self.is_open())?;
        let lines = schema::length(inner, OUTPUT, self.is_open())?;
        let instance = self.instance(id).await?;
        self.must_be(Role::Member, CONSOLE_OUTPUT)?;
        let wanted = InstanceRef::Id(instance.id);
        let log = self.api.compute.console_log(wanted, lines).await;
        let log = log.map_err(|error| refusal(&error, id, ConsoleKind::Serial))?;
        Ok(answer(
            StatusCode::OK,
            &json!({ "output": log.into_text() }),
        ))
    }

    /// `GET /os-console-auth-tokens/{token}`: where the console is, now.
    pub(super) async fn console_auth_token(&self, token: &str) -> Result<Response<Body>, Fault> {
        if self.version.1 < 31 {
            return Err(Fault::malformed());
        }
        if self.version.1 >= 99 {
            schema::no_parameters(self.query.iter().map(|(name, _)| name.as_str()))?;
        }
        self.must_be(Role::Admin, AUTH_TOKENS)?;
        let not_found = || Fault::new(StatusCode::NOT_FOUND, "Token not found");
        let token = percent_encoding::percent_decode_str(token).decode_utf8_lossy();
        let token: Token = token.parse().map_err(|_| not_found())?;
        let grant = self.api.auth.redeem(&token).await?;
        let (instance, console_type) = (grant.instance, grant.console_type);
        let target = self.api.compute.current(&grant).await;
        let target = target.map_err(|error| match error {
            ComputeError::NoSuchInstance { .. } => not_found(),
            other => refusal(&other, &instance.to_string(), console_type.kind()),
        })?;
        let mut console = dialled(&target).ok_or_else(|| {
            Fault::new(StatusCode::CONFLICT, format!(
                "The console of instance {instance} has no address that can be dialled: {target}"
            ))
        })?;
        extend(&mut console, json!({ "instance_uuid": instance }));
        if self.version.1 >= 99 && console_type == ConsoleType::SpiceDirect {
            extend(&mut console, json!({ "tls_port": target.tls_port }));
        }
        Ok(answer(StatusCode::OK, &json!({ "console": console })))
    }

    async fn issue(
        &self,
        instance: &Instance,
        kind: ConsoleKind,
        asked: &str,
    ) -> Result<Issued, Fault> {
        if self.api.watch.is_draining() {
            return Err(Fault::unavailable("This gateway is going down.", SOON));
        }
        let invalid = || Fault::bad_request(format!("Invalid console type {asked}"));
        let console_type: ConsoleType = asked.parse().map_err(|_| invalid())?;
        if console_type.kind() != kind {
            return Err(invalid());
        }
        let base = self
            .api
            .urls
            .base(console_type)
            .ok_or_else(|| match console_type {
                ConsoleType::Xvpvnc => invalid(),
                _ => absent(asked),
            })?;
        if instance.state == PowerState::Off && instance.console(kind).is_some() {
            return Err(off(instance, kind));
        }
        let wanted = Wanted {
            instance: InstanceRef::Id(instance.id),
            console_type,
            rights: Rights::CONTROL,
            base,
            terms: self.api.terms,
            ttl: self.api.url_ttl,
        };
        let issued = issue(self.api, wanted, &self.caller).await;
        issued.map_err(|error| match error {
            NotIssued::Compute(error) => refusal(&error, &instance.id.to_string(), kind),
            NotIssued::Auth(error) => error.into(),
            NotIssued::Unwritten => Fault::unavailable(error.to_string(), SOON),
        })
    }
}

/// Nova knows the word `rdp` and no more of it.
fn kind_of(protocol: &str) -> Option<ConsoleKind> {
    let kinds = [
        ConsoleKind::Vnc,
        ConsoleKind::Spice,
        ConsoleKind::Serial,
        ConsoleKind::Mks,
    ];
    kinds.into_iter().find(|kind| kind.as_str() == protocol)
}

/// The address as the API names it, if it has a host and a port.
fn dialled(target: &Target) -> Option<Value> {
    let Address::Tcp(host, port) = &target.address else {
        return None;
    };
    Some(json!({
        "host": host.to_string(),
        "port": port,
        "internal_access_path": target.internal_access_path,
    }))
}

fn absent(what: &str) -> Fault {
    Fault::bad_request(format!("Unavailable console type {what}."))
}

fn off(instance: &Instance, kind: ConsoleKind) -> Fault {
    let why = format!(
        "Cannot 'get_{kind}_console' instance {} while it is in vm_state stopped",
        instance.id
    );
    Fault::new(StatusCode::CONFLICT, why)
}

fn refusal(error: &ComputeError, id: &str, kind: ConsoleKind) -> Fault {
    let not_ready = || Fault::new(StatusCode::CONFLICT, format!("Instance {id} is not ready"));
    match error {
        ComputeError::NoSuchInstance { .. } => Fault::no_such_instance(id),
        ComputeError::NoSuchConsole { .. } => absent(kind.as_str()),
        ComputeError::NoAddress { .. } | ComputeError::Off { .. } => not_ready(),
        ComputeError::Claimed { .. } | ComputeError::Ambiguous { .. } => {
            Fault::new(StatusCode::CONFLICT, error.to_string())
        }
        ComputeError::NoPicture { .. } | ComputeError::NoLog { .. } => Fault::new(
            StatusCode::NOT_IMPLEMENTED,
            "The requested functionality is not supported.",
        ),
        ComputeError::Source { .. }
        | ComputeError::NotOpened { .. }
        | ComputeError::Crowded { .. }
        | ComputeError::Unready(_)
        | ComputeError::Unreachable(_) => Fault::unavailable(error.to_string(), SOON),
    }
}
