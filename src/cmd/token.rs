use std::io::Read as _;

use clap::{Subcommand, ValueEnum};
use http::Method;
use url::Url;

use super::{Exit, Failure, Format, Question, Remote, output};
use crate::api::{ConsoleView, TokenView, TokensView};
use crate::config::Period;
use crate::model::{ConsoleType, Rights, SecondViewer, Token, TokenId};

/// `vncgate token ...`
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print a URL that opens an instance's console
    Issue {
        /// The instance's name or UUID
        instance: String,
        /// Which console: novnc, spice-html5, serial, xvpvnc, spice-direct or webmks
        #[arg(
            long,
            value_name = "TYPE",
            env = "VNCGATE_TYPE",
            default_value = "novnc"
        )]
        r#type: ConsoleType,
        /// How long the URL opens it, such as 90s or 5m [default and most: as `auth.url_ttl` says]
        #[arg(long, value_name = "TIME", env = "VNCGATE_TTL")]
        ttl: Option<Period>,
        /// What its viewer may do: control (everything), view (nothing but look), or a list of
        /// input, clipboard-in and clipboard-out with commas between
        #[arg(
            long,
            value_name = "RIGHTS",
            env = "VNCGATE_RIGHTS",
            default_value = "control"
        )]
        rights: Rights,
        #[command(flatten)]
        terms: TermsWanted,
        /// What to print
        #[arg(
            short,
            long,
            value_name = "FORMAT",
            env = "VNCGATE_OUTPUT",
            default_value = "url"
        )]
        output: IssueFormat,
        /// Print a page that a browser opens, where the URL is for programs (serial)
        #[arg(long, env = "VNCGATE_PAGE", conflicts_with = "output")]
        page: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show what a live token stands for
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Kill a token: nothing opens with it any more, and the sessions it opened end
    Revoke {
        #[command(flatten)]
        which: Which,
    },
    /// List the live tokens
    List {
        #[command(flatten)]
        question: Question,
    },
}

/// On what terms the console opens.
#[derive(Debug, clap::Args)]
pub(super) struct TermsWanted {
    /// End sessions whose viewer does nothing for so long [default and most: as
    /// `auth.idle_timeout` says]
    #[arg(long, value_name = "TIME", env = "VNCGATE_IDLE_TIMEOUT")]
    idle_timeout: Option<Period>,
    /// End sessions after so long [default and most: as `auth.max_session` says]
    #[arg(long, value_name = "TIME", env = "VNCGATE_MAX_SESSION")]
    max_session: Option<Period>,
    /// Open for one browser alone
    #[arg(long, env = "VNCGATE_SINGLE_USE")]
    single_use: bool,
    /// When the console has a viewer already: allow, refuse or take-over [default: as
    /// `auth.second_viewer` says]
    #[arg(long, value_name = "WHAT", env = "VNCGATE_SECOND_VIEWER")]
    second_viewer: Option<SecondViewer>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum IssueFormat {
    /// The URL alone
    // What VNCGATE_OUTPUT says for lists should not make this command fail.
    #[value(alias = "table")]
    Url,
    /// The URL with its token, id, type, instance and last moment
    Json,
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The token's id (see `token list`), the token or its URL; `-` reads one of these from
    /// stdin, which keeps a token out of the process list
    #[arg(value_name = "ID|TOKEN|URL|-")]
    token: String,
    #[command(flatten)]
    question: Question,
}

impl TokenCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Issue {
                instance,
                r#type,
                ttl,
                rights,
                terms,
                output,
                page,
                remote,
            } => {
                let body = serde_json::json!({
                    "instance": instance, "type": r#type, "ttl": ttl, "rights": rights,
                    "idle_timeout": terms.idle_timeout, "max_session": terms.max_session,
                    "single_use": terms.single_use.then_some(true),
                    "second_viewer": terms.second_viewer,
                });
                let body = Some(body.to_string());
                let view: ConsoleView = remote.call(Method::POST, "/v1/consoles", body)?;
                match output {
                    IssueFormat::Url if page => {
                        output::line(view.page.as_ref().unwrap_or(&view.url))
                    }
                    IssueFormat::Url => output::line(&view.url),
                    IssueFormat::Json => output::json(&view),
                }
            }
            Self::Show { which } => which.call(Method::GET),
            Self::Revoke { which } => {
                which.call(Method::DELETE)?;
                output::say("revoked");
                Ok(())
            }
            Self::List { question } => {
                let Question { output, remote } = question;
                let view: TokensView = remote.call(Method::GET, "/v1/tokens", None)?;
                match output {
                    Format::Table if view.tokens.is_empty() => {
                        output::say("no live tokens");
                        Ok(())
                    }
                    Format::Table => show(&view.tokens),
                    Format::Json => output::json(&view),
                }
            }
        }
    }
}

impl Which {
    fn call(self, method: Method) -> Result<(), Failure> {
        let id = self.id()?;
        let view: TokenView =
            self.question
                .remote
                .call(method, &format!("/v1/tokens/{id}"), None)?;
        match self.question.output {
            Format::Table => show(&[view]),
            Format::Json => output::json(&view),
        }
    }

    /// The token's id. The token itself never leaves this process.
    fn id(&self) -> Result<TokenId, Failure> {
        if self.token != "-" {
            return parse_id(&self.token);
        }
        let mut text = String::new();
        let _length = std::io::stdin().take(64 * 1024).read_to_string(&mut text)?;
        parse_id(text.trim())
    }
}

fn parse_id(text: &str) -> Result<TokenId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let token = token_in_url(text).unwrap_or_else(|| text.to_owned());
    let token: Token = token.parse().map_err(|_| {
        Failure::new(
            Exit::Usage,
            "give a token's id, the token, its URL, or - to read one",
        )
    })?;
    Ok(token.hash().id())
}

/// The token of a console URL in either form: `?token=T` or `?path=%3Ftoken%3DT`.
fn token_in_url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let value = |url: &Url, name: &str| {
        // The last one that is not empty, as the proxy reads it.
        url.query_pairs()
            .filter(|(key, value)| key == name && !value.is_empty())
            .last()
            .map(|(_, value)| value.into_owned())
    };
    value(&url, "token").or_else(|| {
        let path = url.join(&value(&url, "path")?).ok()?;
        value(&path, "token")
    })
}

fn show(tokens: &[TokenView]) -> Result<(), Failure> {
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            [
                token.id.to_string(),
                token.instance.name.clone(),
                token.r#type.to_string(),
                token.rights.to_string(),
                token.caller.clone(),
                token.issued_at.clone(),
                token.expires_at.clone(),
            ]
        })
        .collect();
    output::table(
        [
            "ID", "INSTANCE", "TYPE", "RIGHTS", "CALLER", "ISSUED", "EXPIRES",
        ],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_for_people_in_lists_is_understood_here_too() {
        assert_eq!(IssueFormat::from_str("table", false), Ok(IssueFormat::Url));
    }

    #[test]
    fn an_id_a_token_and_both_forms_of_url_name_the_same_token() {
        let token: Token = "5b6c1ad6-5a1d-4b7e-a5c4-6ad3a5a2c001".parse().unwrap();
        let id = token.hash().id();
        let text = token.reveal();
        for form in [
            id.to_string(),
            text.to_owned(),
            format!("http://h/vnc.html?path=%3Ftoken%3D{text}"),
            format!("http://h/vnc.html?a=1&path=websockify%3Ftoken%3D{text}"),
            format!("ws://h/?token={text}"),
            format!("ws://h/?token=old&token={text}&token="),
        ] {
            assert_eq!(parse_id(&form).unwrap(), id, "{form}");
        }
    }
}
