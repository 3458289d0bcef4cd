use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{ConfigFile, Exit, Failure, Remote};
use crate::config::{Config, DEFAULT_PATH};

impl ConfigFile {
    /// The file to read, if there is one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| there(DEFAULT_PATH.into()))
    }

    /// The config in force.
    pub(super) fn read(&self) -> Result<Config, Failure> {
        let path = self.path();
        Ok(path.map_or_else(|| Ok(Config::default()), |path| Config::read(&path))?)
    }
}

/// A path, unless it leads to nothing for sure. Of one that may not be looked at, reading tells
/// why; to run without it would be to run with the wrong rules.
fn there(path: PathBuf) -> Option<PathBuf> {
    let missing = matches!(path.try_exists(), Ok(false));
    (!missing).then_some(path)
}

impl Remote {
    /// Where the running vncgate is to be found.
    pub(super) fn socket(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.admin_socket {
            return Ok(path.clone());
        }
        let socket = admin_socket(&self.config.read()?);
        let stranger = socket.parent().filter(|directory| is_strange(directory));
        stranger.map_or(Ok(()), |directory| {
            let message = format!("{} belongs to another user", directory.display());
            Err(Failure::new(Exit::Denied, message))
        })?;
        Ok(socket)
    }
}

/// Whether somebody else made our directory in the one that all share, to answer in our stead.
fn is_strange(directory: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    directory.parent() == Some(&std::env::temp_dir())
        && directory
            .symlink_metadata()
            .is_ok_and(|found| found.uid() != me)
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
    fn a_config_that_may_not_be_looked_at_is_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let endless = directory.path().join("link");
        std::os::unix::fs::symlink(&endless, &endless).unwrap();

        assert_eq!(there(directory.path().join("none")), None);
        assert_eq!(there(endless.clone()), Some(endless));
    }

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
