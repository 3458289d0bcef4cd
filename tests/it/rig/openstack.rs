//! OpenStack's own clients, as people run them: with a key, or as a user of a Keystone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::gateway::{Answer, bare, run_within};
use super::keystone::{Keystone, User};
use super::wait::LONG_PATIENCE;

/// Somebody who has the clients, and the environment that tells them where and who.
#[derive(Debug)]
pub(crate) struct Client {
    home: TempDir,
    variables: Vec<(&'static str, String)>,
    /// What the clients want to hear on their command line.
    arguments: Vec<String>,
}

impl Client {
    /// One who has a key of the compute API at that URL, and no Keystone.
    ///
    /// `server list` of the client insists on an identity service that it then does not ask.
    pub(crate) fn with_key(compute: &str, key: &str) -> Self {
        let client = Self::new(&[
            ("OS_TOKEN", key),
            ("OS_IDENTITY_API_VERSION", "3"),
            ("OS_IDENTITY_ENDPOINT_OVERRIDE", compute),
        ]);
        client.arguments(&["--os-auth-type", "admin_token", "--os-endpoint", compute])
    }

    /// One who needs none on that machine.
    pub(crate) fn without_credentials(compute: &str) -> Self {
        Self::new(&[]).arguments(&["--os-auth-type", "none", "--os-endpoint", compute])
    }

    /// One who sends the key as a password, by HTTP's own means.
    pub(crate) fn with_password(compute: &str, key: &str) -> Self {
        let client = Self::new(&[("OS_USERNAME", "anybody"), ("OS_PASSWORD", key)]);
        client.arguments(&["--os-auth-type", "http_basic", "--os-endpoint", compute])
    }

    /// A user of that Keystone, whose catalogue has the compute API under that region.
    pub(crate) fn with_user(keystone: &Keystone, user: &User, region: &str) -> Self {
        Self::new(&[
            ("OS_AUTH_URL", &format!("{}/v3", keystone.url())),
            ("OS_USERNAME", &user.name),
            ("OS_PASSWORD", &user.password),
            ("OS_PROJECT_ID", &user.project.id),
            ("OS_USER_DOMAIN_ID", "default"),
            ("OS_REGION_NAME", region),
            ("OS_IDENTITY_API_VERSION", "3"),
        ])
    }

    /// The same with a microversion of the compute API.
    pub(crate) fn at(&self, microversion: &str) -> Self {
        self.set("OS_COMPUTE_API_VERSION", microversion)
    }

    /// The same with a variable of its environment set.
    pub(crate) fn set(&self, name: &'static str, value: &str) -> Self {
        let others = self.variables.iter().filter(|(known, _)| *known != name);
        let mut variables: Vec<_> = others.cloned().collect();
        variables.push((name, value.to_owned()));
        Self {
            home: home(),
            variables,
            arguments: self.arguments.clone(),
        }
    }

    /// Runs `openstack`; its answer is JSON where the command has `-f`.
    pub(crate) fn openstack(&self, arguments: &[&str]) -> Answer {
        let mut command = self.command("openstack");
        patient(command.args(&self.arguments).args(arguments))
    }

    /// Runs `nova`, which insists on a Keystone and a project even where it asks neither.
    pub(crate) fn nova(&self, arguments: &[&str]) -> Answer {
        let mut command = self.command("nova");
        if !self.arguments.is_empty() {
            command.env("OS_AUTH_URL", "http://127.0.0.1:9/unused");
            command.env("OS_PROJECT_ID", "unused");
        }
        patient(command.args(&self.arguments).args(arguments))
    }

    /// Runs Python in which `cloud` is openstacksdk's connection and `show` prints its argument
    /// as JSON.
    pub(crate) fn sdk(&self, script: &str) -> Answer {
        let file = self.home.path().join("script.py");
        let whole = format!(
            "import json, sys\nimport openstack\n\n\
             def show(value):\n    print(json.dumps(value, default=lambda one: one.to_dict()))\n\n\
             cloud = openstack.connect(load_yaml_config=False)\n{script}\n"
        );
        fs::write(&file, whole).unwrap();
        let mut command = self.command("python");
        for pair in self.arguments.chunks(2) {
            command.env(variable(&pair[0]), &pair[1]);
        }
        patient(command.arg(&file))
    }

    fn new(variables: &[(&'static str, &str)]) -> Self {
        let variables = variables
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        Self {
            home: home(),
            variables: variables.collect(),
            arguments: Vec::new(),
        }
    }

    fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = bare(&python_tool(tool));
        command.env("HOME", self.home.path()).env("LANG", "C.UTF-8");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.home.path()).stdin(Stdio::null());
        command
    }
}

fn patient(command: &mut Command) -> Answer {
    run_within(LONG_PATIENCE, command)
}

fn home() -> TempDir {
    TempDir::with_prefix("vncgate-client-").unwrap()
}

/// Where a program of the tests' Python environment lies.
#[track_caller]
pub(crate) fn python_tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/artifacts/openstack/bin");
    assert!(
        path.join("openstack").is_file(),
        "tests/artifacts/openstack is missing; `./scripts/openstack` makes it"
    );
    path.join(name)
}

/// The environment variable of an option: `--os-auth-type` is `OS_AUTH_TYPE`.
fn variable(option: &str) -> String {
    let name = option.trim_start_matches('-');
    name.replace('-', "_").to_uppercase()
}
