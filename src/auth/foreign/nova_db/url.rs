use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::model::Host;

/// The largest file; what is larger holds no URL.
const LONGEST: u64 = 4096;

/// A database, and as whom it is asked. `Debug` hides the password.
pub(super) struct DatabaseUrl {
    pub(super) dialect: Dialect,
    pub(super) door: Door,
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
    pub(super) database: String,
    pub(super) tls: Tls,
}

/// What a database speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    /// `MySQL`, `MariaDB`.
    MySql,
    /// `PostgreSQL`.
    Postgres,
}

/// Where it listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Door {
    Tcp(Host, u16),
    Unix(PathBuf),
}

impl Door {
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Tcp(_, port) => *port,
            Self::Unix(_) => Dialect::Postgres.port(),
        }
    }

    /// The name that a certificate is for.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Tcp(host, _) => host.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// What is asked of TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Tls {
    pub(super) mode: TlsMode,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// How much of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TlsMode {
    /// None.
    Off,
    /// Where the server offers it, unverified.
    Prefer,
    /// Always, unverified.
    Require,
    /// From a CA that is trusted, for whatever host.
    Authority,
    /// From a CA that is trusted, for this host.
    Identity,
}

/// A file holds no URL that can be used. Shows nothing of what it holds.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct BadDatabase {
    path: PathBuf,
    why: String,
}

impl BadDatabase {
    /// What is wrong, without the file's name.
    pub(super) fn why(&self) -> &str {
        &self.why
    }
}

/// What is wrong with a URL.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
enum BadUrl {
    #[error("is no URL such as mysql+pymysql://USER:PASSWORD@HOST/nova")]
    Form,
    #[error("is neither a mysql:// nor a postgresql:// URL")]
    Dialect,
    #[error("the URL names no user")]
    User,
    #[error("the URL names no host that can be dialled")]
    Host,
    #[error("the URL's port is no number from 1 to 65535")]
    Port,
    #[error("the URL names no database")]
    Database,
    #[error("the URL's `{0}` is not understood; docs/openstack.md lists what is")]
    Option(String),
    #[error("the URL's `{0}` must be an absolute path")]
    Relative(String),
}

/// The URL in a file: its only line that is neither empty nor a comment. Blocks.
pub(super) fn read(path: &Path) -> Result<DatabaseUrl, BadDatabase> {
    let bad = |why: String| BadDatabase {
        path: path.to_owned(),
        why,
    };
    let cannot = |error: std::io::Error| bad(format!("cannot be read: {error}"));
    // as large as it can get, so that no growth leaves a copy behind
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 * 1024));
    let file = File::open(path).map_err(cannot)?;
    let _size = file
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size > LONGEST) {
        return Err(bad(format!("is larger than {LONGEST} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("is not UTF-8".to_owned()))?;
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(url), None) => DatabaseUrl::parse(url).map_err(|why| bad(why.to_string())),
        (None, _) => Err(bad("is empty; write the database's URL into it".to_owned())),
        (_, Some(_)) => Err(bad("holds more than one line".to_owned())),
    }
}

impl DatabaseUrl {
    /// Reads what `SQLAlchemy` reads, which is no URL to the letter: a password may hold all but `@`.
    fn parse(text: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::Form)?;
        let dialect = Dialect::of(scheme)?;
        let (login, rest) = split_login(rest).ok_or(BadUrl::User)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        if database.is_empty() {
            return Err(BadUrl::Database);
        }
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let options = Options::parse(query);
        let door = dialect.door(authority, &options)?;
        Ok(Self {
            dialect,
            user: decoded(user),
            password: Zeroizing::new(decoded(password)),
            database: decoded(database),
            tls: dialect.tls(&door, &options)?,
            door,
        })
    }
}

/// The login, and what comes behind its `@`.
fn split_login(rest: &str) -> Option<(&str, &str)> {
    let (login, rest) = rest.split_once('@')?;
    let user = login.split(':').next().unwrap_or_default();
    (!user.is_empty() && !user.contains('/')).then_some((login, rest))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Dialect {
    /// The driver behind the `+` is Python's affair.
    fn of(scheme: &str) -> Result<Self, BadUrl> {
        match scheme.split('+').next().unwrap_or_default() {
            "mysql" | "mariadb" => Ok(Self::MySql),
            "postgresql" | "postgres" => Ok(Self::Postgres),
            _ => Err(BadUrl::Dialect),
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::MySql => 3306,
            Self::Postgres => 5432,
        }
    }

    fn door(self, authority: &str, options: &Options) -> Result<Door, BadUrl> {
        let (host, port) = split_port(authority);
        let port = match port.or_else(|| options.get("port")) {
            None | Some("") => self.port(),
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(BadUrl::Port)?,
        };
        match (self, options.get("unix_socket"), options.get("host")) {
            (Self::MySql, Some(path), _) => return Ok(Door::Unix(absolute("unix_socket", path)?)),
            (Self::Postgres, _, Some(directory)) if directory.starts_with('/') => {
                let socket = format!("{directory}/.s.PGSQL.{port}");
                return Ok(Door::Unix(PathBuf::from(socket)));
            }
            _ => {}
        }
        let host = Some(host).filter(|host| !host.is_empty());
        let host = host.or_else(|| options.get("host")).ok_or(BadUrl::Host)?;
        Ok(Door::Tcp(host.parse().map_err(|_| BadUrl::Host)?, port))
    }

    fn tls(self, door: &Door, options: &Options) -> Result<Tls, BadUrl> {
        let [mode, ca, certificate, key] = match self {
            Self::MySql => ["ssl_mode", "ssl_ca", "ssl_cert", "ssl_key"],
            Self::Postgres => ["sslmode", "sslrootcert", "sslcert", "sslkey"],
        };
        let switches = if self == Self::MySql {
            &SWITCHES[..]
        } else {
            &[]
        };
        options.refuse_others("ssl", &[&[mode, ca, certificate, key], switches].concat())?;
        let path = |key| options.get(key).map(|path| absolute(key, path)).transpose();
        let tls = Tls {
            mode: TlsMode::Off,
            ca: path(ca)?,
            certificate: path(certificate)?,
            key: path(key)?,
        };
        let said = match options.get(mode) {
            Some(word) => Some(TlsMode::of(word).ok_or_else(|| BadUrl::Option(mode.to_owned()))?),
            None => options.switched()?,
        };
        let usual = match (self, door, &tls.ca) {
            (_, Door::Unix(_), _) => TlsMode::Off,
            (Self::MySql, _, Some(_)) => TlsMode::Identity,
            _ => TlsMode::Prefer,
        };
        Ok(Tls {
            mode: said.unwrap_or(usual),
            ..tls
        })
    }
}

impl TlsMode {
    /// `MySQL`'s words and `PostgreSQL`'s.
    fn of(word: &str) -> Option<Self> {
        Some(match &*word.to_ascii_lowercase().replace('_', "-") {
            "disable" | "disabled" => Self::Off,
            "allow" | "prefer" | "preferred" => Self::Prefer,
            "require" | "required" => Self::Require,
            "verify-ca" => Self::Authority,
            "verify-full" | "verify-identity" => Self::Identity,
            _ => return None,
        })
    }
}

/// The host, without its brackets if it has any, and the port.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority
        .strip_prefix('[')
        .and_then(|v6| v6.split_once(']'))
    {
        return (host, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

fn absolute(key: &str, path: &str) -> Result<PathBuf, BadUrl> {
    let path = PathBuf::from(path);
    let fits = path.is_absolute();
    fits.then_some(path)
        .ok_or_else(|| BadUrl::Relative(key.to_owned()))
}

/// The query. What has nothing to do with where and how to connect, such as `charset`, is Python's
/// affair.
struct Options(Vec<(String, String)>);

impl Options {
    fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let form = |text: &str| decoded(&text.replace('+', " "));
        Self(pairs.map(|(key, value)| (form(key), form(value))).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// A word about TLS that is not understood must not end in no TLS.
    fn refuse_others(&self, prefix: &str, known: &[&str]) -> Result<(), BadUrl> {
        let other = |(name, _): &&(String, String)| {
            name.starts_with(prefix) && !known.contains(&name.as_str())
        };
        match self.0.iter().find(other) {
            Some((name, _)) => Err(BadUrl::Option(name.clone())),
            None => Ok(()),
        }
    }

    /// What `PyMySQL`'s switches amount to: all is verified unless one says no.
    fn switched(&self) -> Result<Option<TlsMode>, BadUrl> {
        let [name, identity, certificate] = SWITCHES.map(|key| self.switch(key));
        Ok(match (certificate?, name?.or(identity?)) {
            (Some(false), _) => Some(TlsMode::Require),
            (_, Some(false)) => Some(TlsMode::Authority),
            (None, None) => None,
            _ => Some(TlsMode::Identity),
        })
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, BadUrl> {
        match self.get(key) {
            None => Ok(None),
            Some("true" | "True" | "1") => Ok(Some(true)),
            Some("false" | "False" | "0") => Ok(Some(false)),
            Some(_) => Err(BadUrl::Option(key.to_owned())),
        }
    }
}

/// `PyMySQL`'s, each `true` or `false`.
const SWITCHES: [&str; 3] = [
    "ssl_check_hostname",
    "ssl_verify_identity",
    "ssl_verify_cert",
];

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DatabaseUrl({:?}, {:?}, {}, ***)",
            self.dialect, self.door, self.user
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn url(text: &str) -> DatabaseUrl {
        DatabaseUrl::parse(text).unwrap()
    }

    fn refusal(text: &str) -> String {
        DatabaseUrl::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_nova_conf_holds_is_read_as_sqlalchemy_reads_it() {
        let plain = url("mysql+pymysql://nova:s3cret@db.example:3307/nova_cell1?charset=utf8");
        assert_eq!(plain.dialect, Dialect::MySql);
        assert_eq!(plain.door, Door::Tcp("db.example".parse().unwrap(), 3307));
        assert_eq!(plain.database, "nova_cell1");
        assert_eq!((&*plain.user, &**plain.password), ("nova", "s3cret"));

        let odd = url("postgresql+psycopg2://no%40va:a/b#c?d:%40e@[2001:db8::1]/nova");
        assert_eq!(odd.dialect, Dialect::Postgres);
        assert_eq!(odd.door, Door::Tcp("2001:db8::1".parse().unwrap(), 5432));
        assert_eq!((&*odd.user, &**odd.password), ("no@va", "a/b#c?d:@e"));

        let passwordless = url("mysql://nova@127.0.0.1/nova");
        assert_eq!(passwordless.password.as_str(), "");
        assert_eq!(passwordless.door.port(), 3306);
    }

    #[test]
    fn a_unix_socket_is_named_in_the_query() {
        let mysql =
            url("mysql+pymysql://nova:p@localhost/nova?unix_socket=/run/mysqld/mysqld.sock");
        assert_eq!(mysql.door, Door::Unix("/run/mysqld/mysqld.sock".into()));
        assert_eq!(mysql.tls.mode, TlsMode::Off);
        let postgres = url("postgresql://nova:p@/nova?host=/run/postgresql");
        assert_eq!(
            postgres.door,
            Door::Unix("/run/postgresql/.s.PGSQL.5432".into())
        );
        assert!(refusal("mysql://u@/n?unix_socket=run").contains("absolute path"));
    }

    #[test]
    fn tls_is_as_strict_as_the_url_says_and_no_less() {
        let mode = |query: &str| url(&format!("mysql://u:p@h/n{query}")).tls.mode;
        assert_eq!(mode(""), TlsMode::Prefer);
        assert_eq!(mode("?ssl_ca=/ca.pem"), TlsMode::Identity);
        assert_eq!(
            mode("?ssl_ca=/ca.pem&ssl_check_hostname=false"),
            TlsMode::Authority
        );
        assert_eq!(mode("?ssl_verify_cert=true"), TlsMode::Identity);
        assert_eq!(mode("?ssl_verify_cert=false"), TlsMode::Require);
        assert_eq!(mode("?ssl_mode=VERIFY_IDENTITY"), TlsMode::Identity);
        assert_eq!(mode("?ssl_mode=DISABLED"), TlsMode::Off);

        let mode = |query: &str| url(&format!("postgresql://u:p@h/n{query}")).tls.mode;
        assert_eq!(mode(""), TlsMode::Prefer);
        assert_eq!(mode("?sslmode=verify-full"), TlsMode::Identity);
        assert_eq!(mode("?sslmode=verify-ca"), TlsMode::Authority);
        assert_eq!(mode("?sslmode=require"), TlsMode::Require);
        assert_eq!(mode("?sslmode=disable"), TlsMode::Off);
    }

    #[test]
    fn a_word_about_tls_that_is_not_known_is_refused() {
        for (text, word) in [
            ("mysql://u:p@h/n?ssl_cipher=x", "`ssl_cipher`"),
            ("mysql://u:p@h/n?ssl_mode=MAYBE", "`ssl_mode`"),
            (
                "mysql://u:p@h/n?ssl_verify_cert=perhaps",
                "`ssl_verify_cert`",
            ),
            ("mysql://u:p@h/n?sslmode=verify-full", "`sslmode`"),
            ("postgresql://u:p@h/n?ssl_ca=/ca.pem", "`ssl_ca`"),
            ("postgresql://u:p@h/n?sslrootcert=ca.pem", "`sslrootcert`"),
        ] {
            assert!(refusal(text).contains(word), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_shown() {
        for (text, why) in [
            ("hunter2", "is no URL"),
            ("sqlite:///hunter2", "neither a mysql:// nor"),
            ("mysql://h/nova", "names no user"),
            ("mysql://u:hunter2@h", "names no database"),
            ("mysql://u:hunter2@/n", "names no host"),
            ("mysql://u:hunter2@h:x/n", "port"),
            ("mysql://u:hunter2@h_1,h 2/n", "names no host"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(why), "{text}: {refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
        assert!(!format!("{:?}", url("mysql://u:hunter2@h/n")).contains("hunter2"));
    }

    #[test]
    fn a_file_holds_one_url_beside_comments() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("cell1.url");
        let check = |text: &str| {
            fs::write(&file, text).unwrap();
            read(&file).map_err(|bad| bad.to_string())
        };

        let url = check("# cell 1\n\n mysql://u:p@h/n \n").unwrap();
        let wrong = [
            check("\n"),
            check("mysql://u:p@h/n\nmysql://u:p@h/n\n"),
            check(&"x".repeat(5000)),
        ];

        assert_eq!(url.user, "u");
        for (wrong, why) in wrong.into_iter().zip(["empty", "more than one", "4096"]) {
            let wrong = wrong.unwrap_err();
            assert!(
                wrong.contains(why) && wrong.contains("cell1.url"),
                "{wrong}"
            );
        }
        let missing = read(Path::new("/nowhere/cell1.url")).unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("/nowhere/cell1.url: cannot be read")
        );
    }
}
