use std::sync::Arc;

use url::Url;

use super::Bases;
use crate::auth::{AuthError, NoConsole};
use crate::model::{
    AccessPath, Address, Binding, ConsoleType, Grant, Host, InstanceId, Rights, Target, Terms,
    UnixTime,
};

/// A token's row in `console_auth_tokens`, and what `instances` has on its instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) console_type: String,
    pub(super) host: String,
    pub(super) port: i64,
    pub(super) tls_port: Option<i64>,
    pub(super) internal_access_path: Option<String>,
    pub(super) instance: String,
    pub(super) expires: i64,
    pub(super) base: Option<String>,
    /// None where there is no such instance any more.
    pub(super) server: Option<Server>,
    /// Whether another instance was given the same address later.
    pub(super) taken: bool,
}

/// A row of `instances`.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) project: Option<String>,
    pub(super) user: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) vm_state: Option<String>,
    pub(super) task_state: Option<String>,
}

/// States in which a hypervisor has no console of an instance, so that its port may be another's.
const OFF: [&str; 5] = [
    "stopped",
    "suspended",
    "shelved",
    "shelved_offloaded",
    "soft-delete",
];

/// Beginnings of the tasks after which it may be elsewhere.
const MOVES: [&str; 4] = ["migrating", "resize_", "rebuild", "shelving"];

impl Row {
    /// The grant it stands for, if its console is to be had at `now`. Errors: `Unknown` where token
    /// or instance are no more, `NoConsole`, `Source` where the row makes no sense.
    pub(super) fn grant(self, now: UnixTime, bases: &Bases) -> Result<Grant, AuthError> {
        let expires = u64::try_from(self.expires).map(UnixTime);
        let expires = expires.ok().filter(|expires| *expires > now);
        let expires = expires.ok_or(AuthError::Unknown)?;
        let server = self.server.as_ref().ok_or(AuthError::Unknown)?;
        server.must_stay()?;
        if self.taken {
            return Err(NoConsole::Taken.into());
        }
        let console_type = self.console_type.parse::<ConsoleType>();
        let console_type =
            console_type.map_err(|_| NoConsole::Foreign(self.console_type.clone()))?;
        let id: InstanceId = self.instance.parse().map_err(|_| self.senseless())?;
        let base = self.base.as_ref().and_then(|base| Url::parse(base).ok());
        Ok(Grant {
            instance: id,
            instance_name: server.name().unwrap_or(&self.instance).into(),
            console_type,
            target: self.target()?,
            binding: Binding::Target,
            rights: Rights::CONTROL,
            base: base.unwrap_or_else(|| bases.of(console_type).clone()),
            project: server.project.as_deref().map(Arc::from),
            caller: server.caller().into(),
            terms: Terms::default(),
            issued: now,
            expires,
        })
    }

    fn target(&self) -> Result<Target, AuthError> {
        let number = |port: i64| u16::try_from(port).ok().filter(|port| *port != 0);
        let tls_port = self.tls_port.and_then(number);
        // Without a plain port the TLS port is the only door, and both say so.
        let port = number(self.port).or(tls_port).ok_or(NoConsole::Off)?;
        let host: Host = self.host.parse().map_err(|_| self.senseless())?;
        let path = self.internal_access_path.clone();
        let path = path.filter(|path| !path.is_empty());
        let path = path.map(AccessPath::try_from).transpose();
        Ok(Target {
            address: Address::Tcp(host, port),
            tls_port,
            internal_access_path: path.map_err(|_| self.senseless())?,
        })
    }

    fn senseless(&self) -> AuthError {
        let Self { instance, host, .. } = self;
        AuthError::Source(format!(
            "the row of a token of instance `{instance}` at `{host}` makes no sense"
        ))
    }
}

impl Server {
    fn must_stay(&self) -> Result<(), NoConsole> {
        let task = self.task_state.as_deref().unwrap_or_default();
        if task.ends_with("deleting") {
            return Err(NoConsole::Deleting);
        }
        if MOVES.iter().any(|word| task.starts_with(word)) {
            return Err(NoConsole::Moving(task.to_owned()));
        }
        let state = self.vm_state.as_deref().unwrap_or_default();
        let off = OFF.contains(&state);
        if off { Err(NoConsole::Off) } else { Ok(()) }
    }

    fn name(&self) -> Option<&str> {
        self.display_name.as_deref().or(self.hostname.as_deref())
    }

    fn caller(&self) -> String {
        let user = self.user.as_deref();
        user.map_or_else(|| "nova".to_owned(), |user| format!("nova:{user}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-1111-4111-8111-111111111111";

    fn row() -> Row {
        let server = Server {
            project: Some("p1".to_owned()),
            user: Some("u1".to_owned()),
            hostname: Some("web-1".to_owned()),
            display_name: Some("Web 1".to_owned()),
            vm_state: Some("active".to_owned()),
            task_state: None,
        };
        Row {
            console_type: "novnc".to_owned(),
            host: "10.0.0.7".to_owned(),
            port: 5900,
            instance: ID.to_owned(),
            expires: 700,
            base: Some("https://nova.example/vnc_auto.html".to_owned()),
            server: Some(server),
            ..Row::default()
        }
    }

    fn grant(row: Row) -> Result<Grant, AuthError> {
        let page = |console_type| {
            let url = format!("https://here.example/{console_type}");
            (console_type != ConsoleType::Webmks).then(|| url.parse().unwrap())
        };
        let bases = Bases::new(page, "https://here.example/".parse().unwrap());
        row.grant(UnixTime(100), &bases)
    }

    fn with(change: impl FnOnce(&mut Row)) -> Result<Grant, AuthError> {
        let mut row = row();
        change(&mut row);
        grant(row)
    }

    fn server(change: impl FnOnce(&mut Server)) -> Result<Grant, AuthError> {
        with(|row| row.server.iter_mut().next().map(change).unwrap())
    }

    #[test]
    fn a_row_is_a_grant_of_its_address() {
        let grant = grant(row()).unwrap();

        assert_eq!(grant.instance.to_string(), ID);
        assert_eq!(grant.target.to_string(), "10.0.0.7:5900");
        assert_eq!(grant.binding, Binding::Target);
        assert_eq!(&*grant.instance_name, "Web 1");
        assert_eq!(grant.project.as_deref(), Some("p1"));
        assert_eq!(&*grant.caller, "nova:u1");
        assert_eq!(grant.expires, UnixTime(700));
        assert_eq!(grant.base.as_str(), "https://nova.example/vnc_auto.html");
    }

    #[test]
    fn expiry_is_strict() {
        let expiring = |expires| with(|row| row.expires = expires);
        assert!(expiring(101).is_ok());
        assert_eq!(expiring(100), Err(AuthError::Unknown));
        assert_eq!(expiring(-1), Err(AuthError::Unknown));
    }

    #[test]
    fn without_a_base_the_gateways_own_counts() {
        let typed = |name: &str| {
            with(|row| {
                row.base = None;
                row.console_type = name.to_owned();
            })
        };
        let base = |name| typed(name).unwrap().base.to_string();
        assert_eq!(base("novnc"), "https://here.example/novnc");
        assert_eq!(base("webmks"), "https://here.example/");
    }

    #[test]
    fn an_instance_that_is_gone_or_going_has_no_console() {
        assert_eq!(with(|row| row.server = None), Err(AuthError::Unknown));
        for (task, why) in [
            ("deleting", NoConsole::Deleting),
            ("soft-deleting", NoConsole::Deleting),
            ("migrating", NoConsole::Moving("migrating".to_owned())),
            ("resize_prep", NoConsole::Moving("resize_prep".to_owned())),
        ] {
            let refused = server(|server| server.task_state = Some(task.to_owned()));
            assert_eq!(refused, Err(why.into()), "{task}");
        }
        for state in OFF {
            let refused = server(|server| server.vm_state = Some(state.to_owned()));
            assert_eq!(refused, Err(NoConsole::Off.into()), "{state}");
        }
        for task in ["rebooting", "image_snapshot", "powering-on"] {
            assert!(server(|server| server.task_state = Some(task.to_owned())).is_ok());
        }
    }

    #[test]
    fn an_address_that_is_another_instances_by_now_is_refused() {
        let refused = with(|row| row.taken = true);
        assert_eq!(refused, Err(NoConsole::Taken.into()));
    }

    #[test]
    fn no_port_is_an_instance_that_is_off() {
        for port in [-1, 0, 70_000] {
            let refused = with(|row| row.port = port);
            assert_eq!(refused, Err(NoConsole::Off.into()));
        }
        let tls = with(|row| (row.port, row.tls_port) = (-1, Some(5901))).unwrap();
        assert_eq!(tls.target.to_string(), "10.0.0.7:5901");
        assert_eq!(tls.target.tls_port, Some(5901));
    }

    #[test]
    fn an_access_path_is_kept_and_an_empty_one_is_none() {
        let path = |path: &str| with(|row| row.internal_access_path = Some(path.to_owned()));
        let kept = path("vmid").unwrap().target.internal_access_path.unwrap();
        assert_eq!(kept.as_str(), "vmid");
        assert_eq!(path("").unwrap().target.internal_access_path, None);
        assert!(matches!(path("a\r\nb"), Err(AuthError::Source(_))));
    }

    #[test]
    fn a_type_of_another_time_is_refused_by_its_name() {
        let refused = with(|row| row.console_type = "rdp-html5".to_owned());
        let why = NoConsole::Foreign("rdp-html5".to_owned());
        assert_eq!(refused, Err(why.into()));
    }

    #[test]
    fn a_row_that_makes_no_sense_is_no_unknown_token() {
        let uuid = with(|row| row.instance = "7".to_owned());
        let host = with(|row| row.host = "a b".to_owned());
        assert!(matches!(uuid, Err(AuthError::Source(_))), "{uuid:?}");
        assert!(matches!(host, Err(AuthError::Source(_))), "{host:?}");
    }
}
