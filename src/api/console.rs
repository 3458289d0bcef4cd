//! From a request to a URL: the second half of journey A.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use url::Url;

use super::Api;
use super::identity::Caller;
use super::view::ConsoleView;
use crate::audit::{Event, What};
use crate::auth::{AuthError, NewGrant};
use crate::compute::ComputeError;
use crate::config::Period;
use crate::http::Reject;
use crate::model::{
    AccessUrl, ConsoleKind, ConsoleType, Grant, InstanceRef, Rights, Role, SecondViewer, Terms,
    Token,
};

/// The body of `POST /v1/consoles`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleRequest {
    /// The instance's UUID or name.
    pub instance: String,
    /// Which console; `novnc` unless said.
    #[serde(default = "novnc")]
    pub r#type: ConsoleType,
    /// What its viewer may do; everything unless said.
    #[serde(default)]
    pub rights: Rights,
    /// How long the URL opens it: at most, and unless said, `auth.url_ttl`.
    #[serde(default)]
    pub ttl: Option<Period>,
    /// At most, and unless said, `auth.idle_timeout`.
    #[serde(default)]
    pub idle_timeout: Option<Period>,
    /// At most, and unless said, `auth.max_session`.
    #[serde(default)]
    pub max_session: Option<Period>,
    /// `auth.single_use` unless said; where that is set, it cannot be unset.
    #[serde(default)]
    pub single_use: Option<bool>,
    /// `auth.second_viewer` unless said.
    #[serde(default)]
    pub second_viewer: Option<SecondViewer>,
}

impl ConsoleRequest {
    /// A request that asks for nothing beyond a console.
    pub fn plain(instance: &str, console_type: ConsoleType) -> Self {
        Self {
            instance: instance.to_owned(),
            r#type: console_type,
            rights: Rights::CONTROL,
            ttl: None,
            idle_timeout: None,
            max_session: None,
            single_use: None,
            second_viewer: None,
        }
    }

    /// What is asked for, within what the config allows. Errors: 400.
    fn terms(&self, config: Terms) -> Result<Terms, Reject> {
        let (idle, longest) = (self.idle_timeout, self.max_session);
        Ok(Terms {
            idle_timeout: shorter("idle_timeout", idle, config.idle_timeout)?,
            max_session: shorter("max_session", longest, config.max_session)?,
            single_use: self.single_use.unwrap_or_default() || config.single_use,
            second_viewer: self.second_viewer.unwrap_or(config.second_viewer),
        })
    }
}

/// A wish for no more than is allowed; `0s`, and an allowance of none, is no end.
fn shorter(
    key: &str,
    wish: Option<Period>,
    most: Option<Duration>,
) -> Result<Option<Duration>, Reject> {
    let Some(wish) = wish else {
        return Ok(most);
    };
    let whole = wish.get().subsec_nanos() == 0;
    let fits = match (wish.unless_zero(), most) {
        (None, Some(_)) => false,
        (Some(wish), Some(most)) => wish <= most,
        (_, None) => true,
    };
    if fits && whole {
        return Ok(wish.unless_zero());
    }
    let most = most.map(|most| format!(" up to {}, which auth.{key} sets", Period::from(most)));
    let why = format!("{key} must be whole seconds{}", most.unwrap_or_default());
    Err(Reject::new(StatusCode::BAD_REQUEST, "bad-terms", why))
}

fn novnc() -> ConsoleType {
    ConsoleType::Novnc
}

/// A console that can be opened now.
pub(super) struct Issued {
    pub(super) url: AccessUrl,
    pub(super) token: Token,
    pub(super) grant: Grant,
}

/// Why no token was made, with every instance that the caller may not see taken for none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotIssued {
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the audit log cannot be written (audit.required); see the gateway's log")]
    Unwritten,
}

impl From<NotIssued> for Reject {
    fn from(error: NotIssued) -> Self {
        match error {
            NotIssued::Compute(error) => error.into(),
            NotIssued::Auth(error) => error.into(),
            NotIssued::Unwritten => Self::retry("audit", error.to_string(), 5),
        }
    }
}

/// Answers `POST /v1/consoles`.
pub(super) async fn create_console(
    api: &Api,
    request: ConsoleRequest,
    caller: &Caller,
) -> Result<ConsoleView, Reject> {
    caller.must_be(Role::Member)?;
    let console_type = request.r#type;
    let ttl = request.ttl.map_or(api.url_ttl, Period::get);
    if ttl > api.url_ttl || ttl.as_secs() == 0 {
        let longest = Period::from_secs(api.url_ttl.as_secs());
        let why = format!("ttl must be from 1s to {longest}, which auth.url_ttl sets");
        return Err(Reject::new(StatusCode::BAD_REQUEST, "bad-ttl", why));
    }
    let rights = enforceable(request.rights, console_type)?;
    let terms = request.terms(api.terms)?;
    let base = api.urls.base(console_type).ok_or_else(|| {
        let why = format!("no page for {console_type} consoles; set its URL in [proxy]");
        Reject::new(StatusCode::BAD_REQUEST, "no-page", why)
    })?;
    let mut instance = InstanceRef::from(&*request.instance);
    if caller.project.is_some() {
        instance = InstanceRef::Id(api.instance(instance, caller).await?.id);
    }
    let wanted = Wanted {
        instance,
        console_type,
        rights,
        base,
        terms,
        ttl,
    };
    let issued = issue(api, wanted, caller).await?;
    let page = api.urls.page(console_type);
    let page = page.map(|page| AccessUrl::new(page, console_type, &issued.token));
    let view = ConsoleView::new(&issued.url, &issued.token, &issued.grant);
    Ok(view.with_page(page.as_ref()))
}

/// A right that nobody takes away in the middle would only be a promise of the page's.
pub(super) fn enforceable(rights: Rights, console_type: ConsoleType) -> Result<Rights, Reject> {
    match console_type.kind() {
        ConsoleKind::Vnc | ConsoleKind::Serial => Ok(rights),
        ConsoleKind::Spice | ConsoleKind::Mks if !rights.are_limited() => Ok(rights),
        ConsoleKind::Spice | ConsoleKind::Mks => {
            let why = format!(
                "the rights `{rights}` cannot be enforced at {console_type} consoles, only at novnc \
                 and serial ones"
            );
            Err(Reject::new(StatusCode::BAD_REQUEST, "bad-rights", why))
        }
    }
}

/// A console that somebody who may see it asks for.
pub(super) struct Wanted<'a> {
    pub(super) instance: InstanceRef,
    pub(super) console_type: ConsoleType,
    pub(super) rights: Rights,
    pub(super) base: &'a Url,
    pub(super) terms: Terms,
    pub(super) ttl: Duration,
}

/// Looks the instance up, has a token made, and puts it into the URL.
pub(super) async fn issue(
    api: &Api,
    wanted: Wanted<'_>,
    caller: &Caller,
) -> Result<Issued, NotIssued> {
    if !api.audit.accepts() {
        return Err(NotIssued::Unwritten);
    }
    let console_type = wanted.console_type;
    let located = api.compute.locate(wanted.instance, console_type).await?;
    let new = NewGrant {
        instance: located.instance.id,
        project: located.instance.project_id().map(str::to_owned),
        instance_name: located.instance.name,
        console_type,
        target: located.target,
        rights: wanted.rights,
        base: wanted.base.clone(),
        caller: caller.to_string(),
        terms: wanted.terms,
        ttl: wanted.ttl,
    };
    let (token, grant) = api.auth.authorize(new).await?;
    api.metrics
        .tokens_issued
        .get_or_create(&console_type.into())
        .inc();
    let id = token.hash().id();
    tracing::info!(
        token = %id, instance = %grant.instance, name = grant.instance_name,
        r#type = %console_type, rights = %grant.rights, %caller, expires = %grant.expires, "console URL issued"
    );
    api.audit.note(|| Event {
        token: Some(id),
        ..Event::new(What::Issued)
            .of_grant(&grant)
            .by(caller, caller.address)
    });
    let url = AccessUrl::new(wanted.base, console_type, &token);
    Ok(Issued { url, token, grant })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds that a wish comes to, 0 for no end; nothing if it is refused.
    fn asked(wish: &str, most: Option<u64>) -> Option<u64> {
        let most = most.map(Duration::from_secs);
        let got = shorter("idle_timeout", Some(wish.parse().unwrap()), most);
        got.map(|time| time.map_or(0, |time| time.as_secs())).ok()
    }

    #[test]
    fn a_caller_may_ask_for_less_and_not_for_more() {
        assert_eq!(asked("30s", Some(60)), Some(30));
        assert_eq!(asked("60s", Some(60)), Some(60));
        assert_eq!(asked("61s", Some(60)), None);
        assert_eq!(asked("0s", Some(60)), None);
        assert_eq!(asked("0s", None), Some(0));
        assert_eq!(asked("1h", None), Some(3600));
        assert_eq!(asked("1500ms", None), None);
    }
}
