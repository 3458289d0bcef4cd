use std::path::{Path, PathBuf};

use super::{ConfigFile, Failure, Remote};
use crate::config::{Config, DEFAULT_PATH};

impl ConfigFile {
    /// The file to read, if there is one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let default = || Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists());
        self.config.clone().or_else(default)
    }

    /// The config in force.
    pub(super) fn read(&self) -> Result<Config, Failure> {
        let path = self.path();
        Ok(path.map_or_else(|| Ok(Config::default()), |path| Config::read(&path))?)
    }
}

impl Remote {
    /// Where the running vncgate is to be found.
    pub(super) fn socket(&self) -> Result<PathBuf, Failure> {
        match &self.admin_socket {
            Some(path) => Ok(path.clone()),
            None => Ok(admin_socket(&self.config.read()?)),
        }
    }
}

/// The admin socket's path: the config's, else the usual one for this user.
pub(super) fn admin_socket(config: &Config) -> PathBuf {
    config.admin.socket.clone().unwrap_or_else(|| {
        let user = rustix::process::geteuid();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        usual_socket(user.is_root(), runtime.as_deref(), user.as_raw())
    })
}

fn usual_socket(root: bool, runtime: Option<&Path>, user: u32) -> PathBuf {
    let directory = match runtime {
        _ if root => PathBuf::from("/run/vncgate"),
        Some(runtime) => runtime.join("vncgate"),
        None => std::env::temp_dir().join(format!("vncgate-{user}")),
    };
    directory.join("admin.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_users_have_their_own_sockets() {
        let runtime = Some(Path::new("/run/user/7"));
        assert_eq!(
            usual_socket(true, runtime, 0),
            Path::new("/run/vncgate/admin.sock")
        );
        assert_eq!(
            usual_socket(false, runtime, 7),
            Path::new("/run/user/7/vncgate/admin.sock")
        );
        assert!(usual_socket(false, None, 7).ends_with("vncgate-7/admin.sock"));
    }
}
