//! `[auth]` and `[keystone]`: whose tokens open consoles, and who asks about them.

use url::Url;

use super::draft::{Key, Place};
use super::options::{
    AUTH_HOST, AUTH_PORT, AUTH_PROTOCOL, AUTH_SECTION, AUTH_TYPE, AUTH_URL, CA_FILE, CREDENTIAL_ID,
    CREDENTIAL_SECRET, DATABASE, PASSWORD, PROJECT_DOMAIN_ID, PROJECT_DOMAIN_NAME, PROJECT_NAME,
    PUBLIC_AUTH_URL, REGION, SESSION_TIMEOUT, TOKEN_TTL, USER_DOMAIN_ID, USER_DOMAIN_NAME,
    USERNAME,
};
use super::proxy::list;
use super::secrets::Secret;
use super::settings::{Opt, Setting, SettingsError};
use super::{Plan, Role, Source};

const DATABASE_FILE: &str = "nova-cell1.url";
const PASSWORD_FILE: &str = "keystone.password";
const CREDENTIAL_FILE: &str = "keystone.secret";

impl Plan<'_> {
    pub(super) fn tokens(&mut self) -> Result<(), SettingsError> {
        match (self.role, self.source) {
            (Role::All, _) => {
                self.keystone()?;
                self.own_tokens()?;
            }
            (Role::Proxy, Source::NovaDb) => self.database_tokens(),
            (Role::Proxy, Source::NovaApi) => {
                self.keystone()?;
                self.api_tokens();
            }
        }
        self.session_timeout()
    }

    fn own_tokens(&mut self) -> Result<(), SettingsError> {
        let remark = "This gateway makes the tokens itself.";
        let source = Key::new(remark, "source", "memory");
        let _taken = self.draft.key(Place::Auth, source);
        if let Some(ttl) = self.settings.set(&TOKEN_TTL) {
            let seconds: u32 = ttl.number()?;
            let ttl = Key::new(
                format!("From {}.", ttl.origin),
                "url_ttl",
                format!("{seconds}s"),
            );
            let _taken = self.draft.key(Place::Auth, ttl);
        }
        Ok(())
    }

    fn database_tokens(&mut self) {
        let file = self.directory.join(DATABASE_FILE).display().to_string();
        let remark = if let Some(setting) = self.settings.set(&DATABASE) {
            self.database(&setting)
        } else {
            self.draft.warn(format!("{file} is still to be written"));
            "The file holds the URL of the cell's database, [database] connection of its \
             conductor's config, which is not among these files. List one for each cell."
                .to_owned()
        };
        let source = Key::new(
            "Nova's tokens, read from the database of the cell.",
            "source",
            "nova-db",
        );
        let databases = Key::new(remark, "databases", list([file]));
        if !self.draft.keys(Place::Auth, vec![source, databases]) {
            self.draft
                .warn("auth.source is not taken over: this config opens no console of Nova's");
        }
    }

    /// Remembers the URL; what is to be said of it.
    fn database(&mut self, setting: &Setting) -> String {
        self.draft
            .secret(Secret::new(DATABASE_FILE, &setting.value));
        let mut remark = format!(
            "From {}: the file holds that URL and nothing else. List one for each cell.",
            setting.origin
        );
        if database_name(&setting.value).is_some_and(|name| name.contains("cell0")) {
            let why = "it is the database of cell0, which has no consoles: take that of the cell \
                       (`nova-manage cell_v2 list_cells`)";
            remark.push_str("\nBut ");
            remark.push_str(why);
            remark.push('.');
            self.draft.warn(format!("{}: {why}", setting.origin));
        }
        remark
    }

    fn api_tokens(&mut self) {
        let console_type = self.console.console_type();
        let keys = vec![
            Key::new(
                "Nova's tokens, asked for at its API as the user of [keystone], which needs the \
                 role `admin` in its project.",
                "source",
                "nova-api",
            ),
            Key::new(
                "Nova's API does not tell what a token opens: one process serves one type.",
                "console_type",
                console_type,
            ),
        ];
        if !self.draft.keys(Place::Auth, keys) {
            self.draft
                .warn("auth.source is not taken over: this config opens no console of Nova's");
        }
    }

    fn session_timeout(&mut self) -> Result<(), SettingsError> {
        if !self.settings.is_on(&SESSION_TIMEOUT)? {
            return Ok(());
        }
        let (Some(timeout), Some(ttl)) = (
            self.settings.set(&SESSION_TIMEOUT),
            self.settings.get(&TOKEN_TTL),
        ) else {
            return Ok(());
        };
        let seconds: u32 = ttl.number()?;
        let remark = format!(
            "From {} and {}. Counted from the session's start, where Nova counts from the token's.",
            timeout.origin, ttl.origin
        );
        let key = Key::new(remark, "max_session", format!("{seconds}s"));
        let _taken = self.draft.key(Place::Auth, key);
        Ok(())
    }

    fn keystone(&mut self) -> Result<(), SettingsError> {
        let Some(url) = self.keystone_url() else {
            let remark = "Where Keystone is and who asks it: [keystone_authtoken] of nova-api's \
                          config, which is not among these files.";
            let key = Key::new(remark, "url", "http://controller:5000/v3");
            self.draft.suggest(Place::Keystone, key);
            if self.role == Role::Proxy {
                self.draft.warn("[keystone] is still to be filled in");
            }
            return Ok(());
        };
        let mut keys = vec![url];
        keys.extend(self.login()?);
        let _taken = self.draft.keys(Place::Keystone, keys);
        for (option, key) in [
            (&PUBLIC_AUTH_URL, "public_url"),
            (&REGION, "region"),
            (&CA_FILE, "ca_file"),
        ] {
            if let Some(setting) = self.login_setting(option) {
                self.take(&setting, key);
            }
        }
        Ok(())
    }

    fn take(&mut self, setting: &Setting, key: &'static str) {
        if let Some(value) = without_password(&setting.value) {
            let key = Key::new(format!("From {}.", setting.origin), key, value);
            let _taken = self.draft.key(Place::Keystone, key);
        }
    }

    fn keystone_url(&self) -> Option<Key> {
        if let Some(setting) = self.login_setting(&AUTH_URL) {
            let value = without_password(&setting.value)?;
            let current = value.trim_end_matches('/').strip_suffix("/v2.0");
            let remark = match current {
                Some(_) => format!("From {}; the API 2.0 of Keystone is gone.", setting.origin),
                None => format!("From {}.", setting.origin),
            };
            let url = current.map_or_else(|| value.to_owned(), |base| format!("{base}/v3"));
            return Some(Key::new(remark, "url", url));
        }
        let host = self.settings.set(&AUTH_HOST)?;
        let (port, protocol) = (
            self.settings.get(&AUTH_PORT)?,
            self.settings.get(&AUTH_PROTOCOL)?,
        );
        let remark = format!(
            "From {}, {} and {}.",
            protocol.origin, host.origin, port.origin
        );
        let url = format!("{}://{}:{}", protocol.value, host.value, port.value);
        Some(Key::new(remark, "url", url))
    }

    /// Who logs in, and how.
    fn login(&mut self) -> Result<Vec<Key>, SettingsError> {
        let kind = self.login_setting(&AUTH_TYPE);
        let kind_value = kind.as_ref().map_or("password", |kind| &*kind.value);
        match kind_value {
            "v3applicationcredential" => Ok(self.credential()),
            "password" | "v3password" | "v2password" => Ok(self.user()),
            _ => {
                let refused = kind.map(|kind| {
                    kind.refused("expected password or v3applicationcredential; vncgate logs in no other way")
                });
                refused.map_or_else(|| Ok(self.user()), Err)
            }
        }
    }

    fn credential(&mut self) -> Vec<Key> {
        let file = self.secret_file(&CREDENTIAL_SECRET, CREDENTIAL_FILE);
        let id = self.required(&CREDENTIAL_ID, "application_credential_id");
        vec![id, file.named("application_credential_secret_file")]
    }

    fn user(&mut self) -> Vec<Key> {
        let mut keys = vec![self.required(&USERNAME, "username")];
        keys.extend(self.domain((&USER_DOMAIN_NAME, &USER_DOMAIN_ID), "user_domain"));
        keys.push(
            self.secret_file(&PASSWORD, PASSWORD_FILE)
                .named("password_file"),
        );
        if let Some(project) = self.login_setting(&PROJECT_NAME) {
            let from = format!("From {}.", project.origin);
            keys.push(Key::new(from, "project", project.value));
        }
        keys.extend(self.domain((&PROJECT_DOMAIN_NAME, &PROJECT_DOMAIN_ID), "project_domain"));
        keys
    }

    /// A key that must be there. Where no file sets it, a word stands that a person has to change.
    fn required(&mut self, option: &Opt, key: &'static str) -> Key {
        if let Some(setting) = self.login_setting(option) {
            return Key::new(format!("From {}.", setting.origin), key, setting.value);
        }
        let which = format!("[{}] {}", option.group, option.name);
        self.draft.warn(format!(
            "{which} does not stand in these files; keystone.{key} is a guess"
        ));
        let remark = format!("{which} does not stand in these files: put here who asks Keystone.");
        Key::new(remark, key, "nova")
    }

    /// Where a secret is kept, and what belongs there.
    fn secret_file(&mut self, option: &Opt, file: &'static str) -> Key {
        let path = self.directory.join(file).display().to_string();
        let remark = if let Some(setting) = self.login_setting(option) {
            self.draft.secret(Secret::new(file, &setting.value));
            let from = setting.origin;
            format!("From {from}: the file holds that value and nothing else.")
        } else {
            self.draft.warn(format!("{path} is still to be written"));
            let Opt { group, name, .. } = option;
            format!("The file holds [{group}] {name}, which is not among these files.")
        };
        Key::new(remark, "", path)
    }

    /// A domain by its name. The id `default` is that of the domain that is called `Default`.
    fn domain(&mut self, (name, id): (&Opt, &Opt), key: &'static str) -> Option<Key> {
        if let Some(setting) = self.login_setting(name) {
            return Some(Key::new(
                format!("From {}.", setting.origin),
                key,
                setting.value,
            ));
        }
        let setting = self.login_setting(id)?;
        if setting.value == "default" {
            let remark = format!(
                "From {}: the name of the domain with this id.",
                setting.origin
            );
            return Some(Key::new(remark, key, "Default"));
        }
        let why = format!("{}: keystone.{key} wants the domain's name", setting.origin);
        let remark = format!("{why}: put it here.");
        self.draft.warn(why);
        Some(Key::new(remark, key, setting.value))
    }

    /// An option of the login, which may stand in a section of its own.
    fn login_setting(&self, option: &Opt) -> Option<Setting> {
        match self.settings.set(&AUTH_SECTION) {
            Some(section) => self.settings.set_in(&section.value, option),
            None => self.settings.set(option),
        }
    }
}

/// The last part of a database's URL.
fn database_name(url: &str) -> Option<&str> {
    let path = url.split('?').next()?;
    path.rsplit_once('/').map(|(_, name)| name)
}

/// A value, unless it is a URL with a password in it.
fn without_password(value: &str) -> Option<&str> {
    let url = Url::parse(value).ok();
    let told = url.is_some_and(|url| !url.username().is_empty() || url.password().is_some());
    (!told).then_some(value)
}
