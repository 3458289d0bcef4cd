use std::env;

/// What a path begins with that lies among a service's credentials.
const PREFIX: &str = "$CREDENTIALS_DIRECTORY/";

/// Where systemd puts them for vncgate.service, for whoever reads the config outside of it.
const USUAL: &str = "/run/credentials/vncgate.service";

/// Puts the directory of systemd's credentials in place of its name, at the beginning of strings.
pub(super) fn placed(text: &str) -> String {
    let told = env::var("CREDENTIALS_DIRECTORY").ok();
    placed_in(told.as_deref().filter(|place| plain(place)), text)
}

/// Whether a path is one and can stand in any string of TOML as it is.
fn plain(place: &str) -> bool {
    let special = |c: char| c.is_control() || matches!(c, '"' | '\'' | '\\');
    place.starts_with('/') && !place.contains(special)
}

fn placed_in(place: Option<&str>, text: &str) -> String {
    let place = place.unwrap_or(USUAL);
    ['"', '\'']
        .into_iter()
        .fold(text.to_owned(), |text, quote| {
            text.replace(&format!("{quote}{PREFIX}"), &format!("{quote}{place}/"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_a_string_is_replaced() {
        let text = "a = \"$CREDENTIALS_DIRECTORY/a\"\nb = '/x/$CREDENTIALS_DIRECTORY/b'";
        let placed = "a = \"/run/c/a\"\nb = '/x/$CREDENTIALS_DIRECTORY/b'";
        assert_eq!(placed_in(Some("/run/c"), text), placed);
        assert!(placed_in(None, text).contains("\"/run/credentials/vncgate.service/a\""));
        assert!(!plain("relative") && !plain("/a\"b"));
    }
}
