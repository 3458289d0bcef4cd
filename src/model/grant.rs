use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::{ConsoleType, InstanceId, Rights, Target, Terms, Token, UnixTime};

/// What a token stands for. Its texts are shared with the sessions that it opens.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// The instance it opens.
    pub instance: InstanceId,
    /// That instance's name when the grant was made, for lists and log lines.
    pub instance_name: Arc<str>,
    /// Which console, and in which form of URL.
    pub console_type: ConsoleType,
    /// Where the console was when the grant was made.
    pub target: Target,
    /// Whether that may be dialled.
    pub binding: Binding,
    /// What its viewer may do.
    #[serde(default)]
    pub rights: Rights,
    /// The access URL without the token; its scheme and host anchor the origin check.
    pub base: Url,
    /// Whose the instance is: Keystone's project id, where the hypervisor told.
    pub project: Option<Arc<str>>,
    /// Who asked.
    pub caller: Arc<str>,
    /// On what terms it opens sessions.
    #[serde(default)]
    pub terms: Terms,
    /// When.
    pub issued: UnixTime,
    /// Valid while this is strictly later than now.
    pub expires: UnixTime,
}

/// What a grant is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// The instance: its target is looked up again and the stored one never dialled.
    Instance,
    /// The target: whoever made the token answers for it. It is dialled where no source of ours
    /// knows the instance.
    Target,
}

/// What a person opens: the base URL with the token in it, a secret.
///
/// For `novnc` the token goes where noVNC finds it: into the `path` parameter, which becomes the
/// WebSocket's URL: `BASE?path=%3Ftoken%3DT`. The base's own query stays, in order, blank values
/// dropped, as Nova does since 31.0; all other types get `BASE?token=T`. Encoding is that of HTML
/// forms, with `~` bare. `Debug` hides it.
#[derive(Clone)]
pub struct AccessUrl(Zeroizing<String>);

impl AccessUrl {
    /// Puts `token` into `base` in the form `console_type` wants.
    pub fn new(base: &Url, console_type: ConsoleType, token: &Token) -> Self {
        let mut pairs: Vec<(String, String)> = base
            .query_pairs()
            .filter(|(key, value)| !value.is_empty() && key != "token")
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        match console_type {
            ConsoleType::Novnc => put_into_path(&mut pairs, token),
            ConsoleType::Xvpvnc
            | ConsoleType::SpiceHtml5
            | ConsoleType::SpiceDirect
            | ConsoleType::Serial
            | ConsoleType::Webmks => {
                pairs.push(("token".to_owned(), token.reveal().to_owned()));
            }
        }
        let query = Zeroizing::new(encode(&pairs));
        let mut url = base.clone();
        url.set_query(Some(&query));
        Self(Zeroizing::new(url.into()))
    }

    /// The URL itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessUrl(***)")
    }
}

fn put_into_path(pairs: &mut Vec<(String, String)>, token: &Token) {
    let token = token.reveal();
    let Some((_, path)) = pairs.iter_mut().find(|(key, _)| key == "path") else {
        pairs.push(("path".to_owned(), format!("?token={token}")));
        return;
    };
    let joint = if path.contains('?') { '&' } else { '?' };
    *path = format!("{path}{joint}token={token}");
}

/// What `urllib.parse.quote_plus` leaves bare.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~');

fn encode(pairs: &[(String, String)]) -> String {
    let form = |text: &str| {
        utf8_percent_encode(text, FORM)
            .to_string()
            .replace("%20", "+")
    };
    let pairs = pairs
        .iter()
        .map(|(key, value)| format!("{}={}", form(key), form(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base: &str, console_type: ConsoleType) -> String {
        let token = "T".parse().unwrap();
        AccessUrl::new(&base.parse().unwrap(), console_type, &token)
            .reveal()
            .to_owned()
    }

    #[test]
    fn novnc_gets_its_token_inside_path_beside_what_the_base_had() {
        for (base, expected) in [
            (
                "http://h/vnc_auto.html",
                "http://h/vnc_auto.html?path=%3Ftoken%3DT",
            ),
            (
                "http://h/n/v.html?path=novnc",
                "http://h/n/v.html?path=novnc%3Ftoken%3DT",
            ),
            (
                "http://h/v.html?path=w%3Fa%3D1",
                "http://h/v.html?path=w%3Fa%3D1%26token%3DT",
            ),
            (
                "http://h/v.html?autoconnect=true",
                "http://h/v.html?autoconnect=true&path=%3Ftoken%3DT",
            ),
            (
                "http://h/v.html?a=1&path=websockify&b=&c=2",
                "http://h/v.html?a=1&path=websockify%3Ftoken%3DT&c=2",
            ),
            (
                "https://h:6080/v.html?path=a%2Fb#frag",
                "https://h:6080/v.html?path=a%2Fb%3Ftoken%3DT#frag",
            ),
            (
                "http://h/v.html?title=a b&x=%7E",
                "http://h/v.html?title=a+b&x=~&path=%3Ftoken%3DT",
            ),
        ] {
            assert_eq!(url(base, ConsoleType::Novnc), expected);
        }
    }

    #[test]
    fn other_types_get_a_plain_token_parameter() {
        let spice = url("http://h/spice_auto.html", ConsoleType::SpiceHtml5);
        assert_eq!(spice, "http://h/spice_auto.html?token=T");
        assert_eq!(
            url("wss://h/?a=1&token=old", ConsoleType::Serial),
            "wss://h/?a=1&token=T"
        );
    }
}
