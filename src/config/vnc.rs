//! What of the ways to meet VNC servers can be seen to fail before any is met.

use std::path::PathBuf;

use super::{Config, ConfigError, refuse_if};
use crate::model::{Scheme, Security};

impl Config {
    /// Every file that certificates towards VNC servers are read from, once.
    pub fn certificate_files(&self) -> Vec<PathBuf> {
        let files = self.all_vnc().into_iter().flat_map(|(_, own)| {
            let Security {
                ca_file, cert_file, ..
            } = own.clone();
            ca_file.into_iter().chain(cert_file)
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        files.dedup();
        files
    }

    pub(super) fn check_vnc(&self) -> Result<(), ConfigError> {
        let wide = &self.proxy.vnc;
        self.all_vnc()
            .into_iter()
            .try_for_each(|(key, own)| refuse_if(objection(own, &own.or(wide)), key))
    }

    fn all_vnc(&self) -> Vec<(&'static str, &Security)> {
        let hosts = self.compute.host.iter();
        let instances = self.compute.instance.iter();
        let mut all = vec![("proxy.vnc", &self.proxy.vnc)];
        all.extend(hosts.map(|host| ("compute.host.vnc", &host.vnc)));
        all.extend(instances.map(|instance| ("compute.instance.vnc", &instance.vnc)));
        all
    }
}

/// `own` is what stands at a key, `whole` what is in force there.
fn objection(own: &Security, whole: &Security) -> Option<String> {
    let files = [
        &own.ca_file,
        &own.cert_file,
        &own.key_file,
        &own.password_file,
    ];
    let relative = files.into_iter().flatten().find(|file| !file.is_absolute());
    if let Some(file) = relative {
        return Some(format!("`{}` is not an absolute path", file.display()));
    }
    let schemes = whole.schemes();
    let alone = |scheme: Scheme| schemes.iter().all(|it| it == scheme);
    let why = if whole.cert_file.is_some() != whole.key_file.is_some() {
        "cert_file and key_file go together"
    } else if whole.user.is_some() && whole.password_file.is_none() {
        "user and password_file go together"
    } else if schemes.are_encrypted() && whole.ca_file.is_none() {
        "only vencrypt is allowed, which needs a ca_file"
    } else if alone(Scheme::X509Plain) && whole.user.is_none() {
        "only x509plain is allowed, which needs a user and a password_file"
    } else {
        return None;
    };
    Some(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_nobody_could_be_met_in_is_refused_by_its_key() {
        let proxy = "[proxy.vnc]\n";
        let host = "[[compute.host]]\nname = \"a\"\n[compute.host.vnc]\n";
        let instance = "[[compute.instance]]\nname = \"a\"\naddress = \"h:1\"\nvnc.";
        for (at, text, key, why) in [
            (proxy, "ca_file = \"x\"", "proxy.vnc", "absolute"),
            (proxy, "key_file = \"/x\"", "proxy.vnc", "go together"),
            (host, "user = \"x\"", "compute.host.vnc", "go together"),
            (
                host,
                "security = [\"vencrypt\"]",
                "compute.host.vnc",
                "needs a ca_file",
            ),
            (
                instance,
                "security = [\"x509plain\"]\nvnc.ca_file = \"/x\"",
                "compute.instance.vnc",
                "needs a user",
            ),
        ] {
            let refusal = Config::parse(&format!("{at}{text}")).unwrap_err();
            let refusal = refusal.to_string();
            assert!(
                refusal.starts_with(key) && refusal.contains(why),
                "{refusal}"
            );
        }
    }

    #[test]
    fn what_a_wider_setting_gives_need_not_be_repeated() {
        let text = "[proxy.vnc]\nca_file = \"/ca\"\n[[compute.host]]\nname = \"a\"\n\
                    vnc.security = [\"vencrypt\"]\nvnc.ca_file = \"/own\"\n";
        let config = Config::parse(text).unwrap();
        let files: Vec<PathBuf> = vec!["/ca".into(), "/own".into()];
        assert_eq!(config.certificate_files(), files);
    }

    #[test]
    fn an_unknown_scheme_is_refused_with_those_there_are() {
        let refusal = Config::parse("[proxy.vnc]\nsecurity = [\"tls\"]").unwrap_err();
        let refusal = refusal.to_string();
        assert!(refusal.contains("`tls` is no security scheme"), "{refusal}");
    }
}
