use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zeroize::Zeroizing;

/// The largest file with a secret; what is larger is a mistake.
const LONGEST: u64 = 1024;

/// As whom to log in. The secret stays in its file and is read at each login, so that a new one
/// counts without a restart.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Who.
    pub login: Login,
    /// The file with the password or the secret, in its first and only line.
    pub secret_file: PathBuf,
}

/// The two ways to log in.
#[derive(Clone, Debug)]
pub enum Login {
    /// A user with a password.
    Password {
        /// The user's name.
        username: String,
        /// The name of the user's domain.
        user_domain: String,
        /// The name of the project in which the user has its role.
        project: String,
        /// The name of that project's domain.
        project_domain: String,
    },
    /// An application credential, which knows its user and its project.
    ApplicationCredential {
        /// Its id.
        id: String,
    },
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// The file cannot be read.
    #[error("the secret in {} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        why: io::Error,
    },
    /// The file holds no secret.
    #[error("the file {} {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Credentials {
    /// Whether the secret can be read now. Blocks.
    pub fn check(&self) -> Result<(), BadSecret> {
        read(&self.secret_file).map(drop)
    }

    /// The body of `POST /v3/auth/tokens`. Blocks.
    pub(super) fn body(&self) -> Result<Zeroizing<Vec<u8>>, BadSecret> {
        let secret = read(&self.secret_file)?;
        let body = Zeroizing::new(self.login.document(&secret).to_string());
        Ok(Zeroizing::new(body.as_bytes().to_vec()))
    }
}

impl Login {
    fn document(&self, secret: &str) -> Value {
        match self {
            Self::Password {
                username,
                user_domain,
                project,
                project_domain,
            } => {
                let domain = json!({"name": user_domain});
                let user = json!({"name": username, "domain": domain, "password": secret});
                let project = json!({"name": project, "domain": {"name": project_domain}});
                let identity = json!({"methods": ["password"], "password": {"user": user}});
                json!({"auth": {"identity": identity, "scope": {"project": project}}})
            }
            Self::ApplicationCredential { id } => {
                let method = "application_credential";
                let credential = json!({"id": id, "secret": secret});
                let identity = json!({"methods": [method], method: credential});
                json!({"auth": {"identity": identity}})
            }
        }
    }
}

/// For errors: whose login was refused.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password {
                username,
                user_domain,
                project,
                project_domain,
            } => write!(
                f,
                "user `{username}` (domain `{user_domain}`) in project `{project}` (domain \
                 `{project_domain}`)"
            ),
            Self::ApplicationCredential { id } => write!(f, "application credential `{id}`"),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, BadSecret> {
    let unreadable = |why| BadSecret::Unreadable {
        path: path.to_owned(),
        why,
    };
    let bad = |why| BadSecret::Content {
        path: path.to_owned(),
        why,
    };
    // as large as it can get, so that no growth leaves a copy behind
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * 1024));
    let file = File::open(path).map_err(unreadable)?;
    let _read = file
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
        return Err(bad("is larger than 1024 bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("is not UTF-8"))?;
    let secret = text.strip_suffix('\n').unwrap_or(text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(bad("is empty"));
    }
    if secret.contains(char::is_control) {
        return Err(bad("holds more than one line of text"));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn body(login: Login, secret: &str) -> Result<Value, String> {
        let place = tempfile::tempdir().unwrap();
        let secret_file = place.path().join("secret");
        fs::write(&secret_file, secret).unwrap();
        let credentials = Credentials { login, secret_file };
        let body = credentials.body().map_err(|bad| bad.to_string())?;
        Ok(serde_json::from_slice(&body).unwrap())
    }

    fn user() -> Login {
        Login::Password {
            username: "vncgate".to_owned(),
            user_domain: "Default".to_owned(),
            project: "service".to_owned(),
            project_domain: "Services".to_owned(),
        }
    }

    #[test]
    fn a_password_logs_a_user_into_a_project() {
        let expected = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": "vncgate", "domain": {"name": "Default"}, "password": "p\"ss "}}},
            "scope": {"project": {"name": "service", "domain": {"name": "Services"}}},
        }});
        assert_eq!(body(user(), "p\"ss \n"), Ok(expected));
    }

    #[test]
    fn an_application_credential_needs_no_scope() {
        let login = Login::ApplicationCredential {
            id: "c1".to_owned(),
        };
        let expected = json!({"auth": {"identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": "c1", "secret": "s"},
        }}});
        assert_eq!(body(login, "s"), Ok(expected));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        for (content, why) in [
            ("", "is empty"),
            ("hush\nhush\n", "more than one line"),
            (&"hush".repeat(300), "larger than"),
        ] {
            let refusal = body(user(), content).unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
            assert!(!refusal.contains("hush"), "{refusal}");
        }
    }
}
