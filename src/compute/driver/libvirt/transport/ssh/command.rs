//! The command line of ssh, and the one it runs on the far side. Pure.
//!
//! ssh joins its last arguments with spaces and gives them to the user's login shell there, which
//! may be any shell. It gets one plain command, `sh -c '...'`, in quotes that all shells agree on;
//! what is ours to fill in is quoted once more inside.

use std::ffi::OsString;
use std::path::Path;

use super::super::uri::{Helper, SshRoute, Uri};
use crate::compute::driver::libvirt::client::Rights;

/// The arguments of ssh for a daemon at the other end.
pub(super) fn arguments(uri: &Uri, route: &SshRoute, rights: Rights) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    // no terminal, no escapes, no questions, nothing forwarded
    add(&["-T", "-a", "-x", "-e", "none"]);
    add(&["-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes"]);
    if !route.verify {
        add(&["-o", "StrictHostKeyChecking=no"]);
    }
    if let Some(path) = &route.known_hosts {
        add(&["-o", &format!("UserKnownHostsFile={}", config_path(path))]);
    }
    if let Some(path) = &route.key_file {
        add(&["-o", &format!("IdentityFile={}", config_path(path))]);
        add(&["-o", "IdentitiesOnly=yes"]);
    }
    if let Some(port) = route.port {
        add(&["-p", &port.to_string()]);
    }
    if let Some(user) = uri.user() {
        add(&["-l", user]);
    }
    add(&[
        "--",
        &route.host.to_string(),
        &far_command(uri, route, rights),
    ]);
    arguments
}

/// A path as a line of ssh's configuration takes it: in quotes, its percent signs doubled.
fn config_path(path: &Path) -> String {
    let text = path.display().to_string();
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('%', "%%"))
}

fn far_command(uri: &Uri, route: &SshRoute, rights: Rights) -> String {
    let helper = || {
        let read_only = match rights {
            Rights::ReadWrite => "",
            Rights::ReadOnly => "-r ",
        };
        format!("exec virt-ssh-helper {read_only}{}", quote(uri.remote()))
    };
    let netcat = || netcat(&route.netcat, &uri.far_sockets(rights));
    let script = match route.helper {
        Helper::Native => helper(),
        Helper::Netcat => netcat(),
        Helper::Auto => format!(
            "if command -v virt-ssh-helper >/dev/null 2>&1; then {}; fi; {}",
            helper(),
            netcat()
        ),
    };
    format!("sh -c {}", quote(&script))
}

/// The first of `sockets` that exists, by netcat; the last if none does, for its error. The
/// netcats that stay after their input ends are those that have `-q` to leave.
fn netcat(program: &str, sockets: &[impl AsRef<Path>]) -> String {
    let path = |socket: &dyn AsRef<Path>| quote(&socket.as_ref().display().to_string());
    let sockets: Vec<_> = sockets.iter().map(|socket| path(socket)).collect();
    let program = quote(program);
    if sockets.is_empty() {
        return "echo virt-ssh-helper is missing, and netcat needs socket= for a session >&2; \
                exit 1"
            .to_owned();
    }
    format!(
        "for s in {}; do if test -S \"$s\"; then break; fi; done; \
         if {program} -q 2>&1 | grep \"requires an argument\" >/dev/null; \
         then exec {program} -q 0 -U \"$s\"; else exec {program} -U \"$s\"; fi",
        sockets.join(" ")
    )
}

/// One word of a shell, whatever it holds.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::super::super::uri::Route;
    use super::*;

    fn command(text: &str, rights: Rights) -> Vec<String> {
        let uri: Uri = text.parse().unwrap();
        let Route::Ssh(route) = uri.route() else {
            panic!("{text}")
        };
        let arguments = arguments(&uri, route, rights).into_iter();
        arguments.map(|it| it.into_string().unwrap()).collect()
    }

    /// What a POSIX shell makes of a line that prints its own words.
    fn words(line: &str) -> String {
        let script = format!("printf '%s\\n' {line}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn ssh_gets_words_of_its_own_and_one_command() {
        let uri = "qemu+ssh://ops@kvm-1:2222/system?proxy=native&keyfile=/k%25a%20b&known_hosts=/h";

        let command = command(uri, Rights::ReadOnly);

        assert_eq!(
            command,
            [
                "-T",
                "-a",
                "-x",
                "-e",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "ClearAllForwardings=yes",
                "-o",
                "UserKnownHostsFile=\"/h\"",
                "-o",
                "IdentityFile=\"/k%%a b\"",
                "-o",
                "IdentitiesOnly=yes",
                "-p",
                "2222",
                "-l",
                "ops",
                "--",
                "kvm-1",
                r"sh -c 'exec virt-ssh-helper -r '\''qemu:///system'\'''",
            ]
        );
    }

    #[test]
    fn host_keys_are_checked_unless_the_uri_says_otherwise() {
        let lax =
            |text| command(text, Rights::ReadWrite).contains(&"StrictHostKeyChecking=no".into());
        assert!(!lax("qemu+ssh://kvm-1/system"));
        assert!(lax("qemu+ssh://kvm-1/system?no_verify=1"));
    }

    #[test]
    fn nothing_in_a_uri_gets_out_of_its_quotes() {
        let evil = "qemu+ssh://kvm-1/system?socket=/a'%3b%20touch%20pwned%20%23";
        let far = command(evil, Rights::ReadWrite).pop().unwrap();

        let script = words(&far);

        let script = script.strip_prefix("sh\n-c\n").unwrap().trim_end();
        let list = script.strip_prefix("for s in ").unwrap();
        let (list, _) = list.split_once("; do if").unwrap();
        assert_eq!(words(list), "/a'; touch pwned #\n");
    }

    #[test]
    fn a_session_without_the_helper_says_what_is_missing() {
        let far = command("qemu+ssh://kvm-1/session", Rights::ReadWrite).pop();
        let far = far.unwrap();
        assert!(far.contains("netcat needs socket= for a session"), "{far}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_quoted_word_is_one_word(word in "[^\\x00\n]{0,40}") {
            prop_assert_eq!(words(&quote(&word)), format!("{word}\n"));
        }
    }
}
