//! A real Keystone: its own program and database, on an address of the loopback.
//!
//! One serves all tests, each with projects, users and a region of its own; a test that stops
//! Keystone or breaks it starts another.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Signal, getegid, geteuid};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::gateway::{bare, run_within};
use super::http::{Request, Response};
use super::libvirtd::loopback;
use super::openstack::python_tool;
use super::process::{Process, tied};
use super::seed::plant;
use super::wait::LONG_PATIENCE;

/// Cheap hashes, and the cache without which a token takes a second to check. Every path is
/// relative to the directory that it runs in.
const CONFIG: &str = "\
[DEFAULT]
log_file = keystone.log
max_password_length = 50
[database]
connection = sqlite:///keystone.db
sqlite_synchronous = false
[fernet_tokens]
key_repository = fernet
[fernet_receipts]
key_repository = fernet
[credential]
key_repository = credential
[identity]
password_hash_algorithm = bcrypt
password_hash_rounds = 4
[cache]
enabled = true
backend = oslo_cache.dict
";

/// What makes a new Keystone, one command a line.
const MAKE: &str = "\
db_sync
fernet_setup
credential_setup
bootstrap --bootstrap-password boot --bootstrap-region-id RegionOne \
--bootstrap-public-url $(public_endpoint)s/v3";

/// A running Keystone, and a token of its administrator once there is one.
#[derive(Debug)]
pub(crate) struct Keystone {
    address: SocketAddr,
    admin: Mutex<String>,
    variables: Vec<(&'static str, &'static str)>,
    process: Option<Process>,
    directory: Directory,
}

/// Where its database is.
#[derive(Debug)]
enum Directory {
    /// Removed with the value.
    Own(TempDir),
    /// Removed by the server itself, when this process has ended.
    Lasting(PathBuf),
}

/// A project.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A user with a role in one project.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) project: Project,
}

impl Keystone {
    /// The one that all tests share. It must stay as it is but for what a test adds.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Keystone> = OnceLock::new();
        SHARED.get_or_init(|| {
            let directory = TempDir::with_prefix("vncgate-keystone-").unwrap();
            Self::new(Directory::Lasting(directory.keep()), &[])
        })
    }

    /// One of a test's own.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of its own, each as `OS_GROUP__OPTION`.
    pub(crate) fn start_with(variables: &[(&'static str, &'static str)]) -> Self {
        let directory = TempDir::with_prefix("vncgate-keystone-").unwrap();
        Self::new(Directory::Own(directory), variables)
    }

    /// Its URL without the version.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new project.
    pub(crate) fn project(&self) -> Project {
        let name = unique("project");
        let body = json!({"project": {"name": name, "domain_id": "default"}});
        let made = self.admin("POST", "/v3/projects", Some(&body)).json();
        let id = text(&made["project"]["id"]);
        Project { id, name }
    }

    /// A new user with one of the roles `admin`, `member`, `reader` and `service`.
    pub(crate) fn user(&self, project: &Project, role: &str) -> User {
        let (name, password) = (unique(role), unique("password"));
        let body = json!({"user": {"name": name, "password": password, "domain_id": "default"}});
        let made = self.admin("POST", "/v3/users", Some(&body)).json();
        let user = User {
            id: text(&made["user"]["id"]),
            name,
            password,
            project: project.clone(),
        };
        self.admin("PUT", &self.grant(&user, role), None);
        user
    }

    /// Takes a role away again.
    pub(crate) fn withdraw(&self, user: &User, role: &str) {
        self.admin("DELETE", &self.grant(user, role), None);
    }

    /// Locks a user out.
    pub(crate) fn disable(&self, user: &User) {
        let path = format!("/v3/users/{}", user.id);
        self.admin("PATCH", &path, Some(&json!({"user": {"enabled": false}})));
    }

    /// A new region, in which the compute API is at that URL and identity is here.
    pub(crate) fn region(&self, compute: &str) -> String {
        let region = unique("region");
        self.add_region(&region, compute);
        region
    }

    /// The same under a name that was chosen before.
    pub(crate) fn add_region(&self, region: &str, compute: &str) {
        let body = json!({"region": {"id": region}});
        self.admin("POST", "/v3/regions", Some(&body));
        let identity = format!("{}/v3", self.url());
        for (kind, url) in [("compute", compute), ("identity", &identity)] {
            let body = json!({"endpoint": {
                "service_id": self.service(kind), "interface": "public",
                "region_id": region, "url": url,
            }});
            self.admin("POST", "/v3/endpoints", Some(&body));
        }
    }

    /// A token of that user for the user's project.
    #[track_caller]
    pub(crate) fn sign_in(&self, user: &User) -> String {
        let scope = json!({"project": {"id": user.project.id}});
        let who = json!({"id": user.id, "password": user.password});
        self.try_to_sign_in(&who, &scope).expect("a token")
    }

    /// A token of that user that is good for something else than a project: the system (`all`), a
    /// domain (an id), or nothing. The user is made an admin there first.
    #[track_caller]
    pub(crate) fn sign_in_elsewhere(&self, user: &User, scope: &Value) -> String {
        let admin = self.role("admin");
        let place = match scope {
            Value::Object(scope) if scope.contains_key("system") => Some("system"),
            Value::Object(_) => Some("domains/default"),
            _ => None,
        };
        if let Some(place) = place {
            let path = format!("/v3/{place}/users/{}/roles/{admin}", user.id);
            self.admin("PUT", &path, None);
        }
        let who = json!({"id": user.id, "password": user.password});
        self.try_to_sign_in(&who, scope).expect("a token")
    }

    /// Gives a user another password; all the user's tokens die with the old one.
    pub(crate) fn change_password(&self, user: &User) -> User {
        let password = unique("password");
        let path = format!("/v3/users/{}", user.id);
        let body = json!({"user": {"password": password}});
        self.admin("PATCH", &path, Some(&body));
        User {
            password,
            ..user.clone()
        }
    }

    /// The id and the secret of an application credential, with all that its user may do.
    pub(crate) fn application_credential(&self, user: &User) -> (String, String) {
        let path = format!("/v3/users/{}/application_credentials", user.id);
        let body = json!({"application_credential": {"name": unique("credential")}});
        let request = Request::new("POST", &path).json(&body);
        let request = request.header("X-Auth-Token", &self.sign_in(user));
        let made = request.send(self.address).json();
        let made = &made["application_credential"];
        (text(&made["id"]), text(&made["secret"]))
    }

    /// Makes a token worthless before its time.
    pub(crate) fn revoke(&self, token: &str) {
        let request = Request::new("DELETE", "/v3/auth/tokens");
        let request = request.header("X-Subject-Token", token);
        let response = self.send_as_admin(&request);
        assert_eq!(response.status, 204, "{response:?}");
    }

    /// What Keystone tells of a token to those who may ask.
    pub(crate) fn look_up(&self, token: &str) -> Response {
        let request = Request::new("GET", "/v3/auth/tokens");
        self.send_as_admin(&request.header("X-Subject-Token", token))
    }

    /// Stops it or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Kills it; its port refuses connections.
    pub(crate) fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        let (process, _) = serve(&self.directory, self.address, &self.variables);
        self.process = Some(process);
    }

    fn new(directory: Directory, variables: &[(&'static str, &'static str)]) -> Self {
        plant("keystone", &recipe(), directory.path(), make);
        let anywhere = format!("{}:0", loopback()).parse().unwrap();
        let (process, address) = serve(&directory, anywhere, variables);
        let keystone = Self {
            address,
            admin: Mutex::default(),
            variables: variables.to_vec(),
            process: Some(process),
            directory,
        };
        let body = json!({"service": {"type": "compute", "name": "nova"}});
        keystone.admin("POST", "/v3/services", Some(&body));
        keystone
    }

    fn try_to_sign_in(&self, user: &Value, scope: &Value) -> Result<String, Response> {
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let body = json!({"auth": {"identity": identity, "scope": scope}});
        let request = Request::new("POST", "/v3/auth/tokens").json(&body);
        let response = request.send(self.address);
        let token = response.header("X-Subject-Token").map(str::to_owned);
        token.ok_or(response)
    }

    fn grant(&self, user: &User, role: &str) -> String {
        let User { id, project, .. } = user;
        let role = self.role(role);
        format!("/v3/projects/{}/users/{id}/roles/{role}", project.id)
    }

    fn service(&self, kind: &str) -> String {
        let path = format!("/v3/services?type={kind}");
        let found = self.admin("GET", &path, None).json();
        text(&found["services"][0]["id"])
    }

    fn role(&self, name: &str) -> String {
        let path = format!("/v3/roles?name={name}");
        let found = self.admin("GET", &path, None).json();
        text(&found["roles"][0]["id"])
    }

    #[track_caller]
    fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let request = Request::new(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = self.send_as_admin(&request);
        assert!((200..300).contains(&response.status), "{response:?}");
        response
    }

    /// Sends it with a token of the administrator, and with a new one if that has expired.
    fn send_as_admin(&self, request: &Request) -> Response {
        let mut admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let send = |token: &str| {
            request
                .clone()
                .header("X-Auth-Token", token)
                .send(self.address)
        };
        let response = send(&admin);
        if response.status != 401 {
            return response;
        }
        let domain = json!({"id": "default"});
        let scope = json!({"project": {"name": "admin", "domain": domain}});
        let who = json!({"name": "admin", "password": "boot", "domain": domain});
        *admin = self.try_to_sign_in(&who, &scope).expect("a token");
        send(&admin)
    }
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Lasting(path) => path,
        }
    }
}

fn serve(
    directory: &Directory,
    address: SocketAddr,
    variables: &[(&str, &str)],
) -> (Process, SocketAddr) {
    let python = python_tool("python");
    let mut command = match directory {
        Directory::Own(_) => tied(&python),
        // A tied child dies with the thread that started it, which is one test's.
        Directory::Lasting(_) => Command::new(&python),
    };
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openstack/serve_keystone.py"))
        .args(["--host", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(variables.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::piped());
    if let Directory::Lasting(_) = directory {
        command.arg("--remove");
    }
    let process = Process::spawn("keystone", &mut command);
    let address = process.wait_longer_for_line(LONG_PATIENCE, "where it listens", |line| {
        line.text.strip_prefix("keystone at ")?.parse().ok()
    });
    (process, address)
}

/// Everything that decides what [`make`] makes.
fn recipe() -> String {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openstack/requirements.txt");
    format!("{CONFIG}{MAKE}{}", fs::read_to_string(lock).unwrap())
}

fn make(directory: &Path) {
    fs::write(directory.join("keystone.conf"), CONFIG).unwrap();
    for line in MAKE.lines() {
        let mut command = bare(&python_tool("keystone-manage"));
        command.args(["--config-file", "keystone.conf"]);
        command.args(line.split_whitespace()).current_dir(directory);
        if line.ends_with("_setup") {
            let (user, group) = (geteuid().as_raw(), getegid().as_raw());
            command.args(["--keystone-user", &user.to_string()]);
            command.args(["--keystone-group", &group.to_string()]);
        }
        run_within(LONG_PATIENCE, &mut command).ok();
    }
}

fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

#[track_caller]
fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}
