//! From a request to a URL: the second half of journey A.

use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::identity::Caller;
use super::view::ConsoleView;
use crate::auth::NewGrant;
use crate::config::Period;
use crate::http::Reject;
use crate::model::{AccessUrl, ConsoleType, InstanceRef};

/// The body of `POST /v1/consoles`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleRequest {
    /// The instance's UUID or name.
    pub instance: String,
    /// Which console; `novnc` unless said.
    #[serde(default = "novnc")]
    pub r#type: ConsoleType,
    /// How long the URL opens it: at most, and unless said, `auth.url_ttl`.
    #[serde(default)]
    pub ttl: Option<Period>,
}

fn novnc() -> ConsoleType {
    ConsoleType::Novnc
}

/// Looks the instance up, has a token made, and puts it into the URL.
pub(super) async fn create_console(
    api: &Api,
    request: ConsoleRequest,
    caller: &Caller,
) -> Result<ConsoleView, Reject> {
    let console_type = request.r#type;
    let ttl = request.ttl.map_or(api.url_ttl, Period::get);
    if ttl > api.url_ttl || ttl.as_secs() == 0 {
        let longest = Period::from_secs(api.url_ttl.as_secs());
        let why = format!("ttl must be from 1s to {longest}, which auth.url_ttl sets");
        return Err(Reject::new(StatusCode::BAD_REQUEST, "bad-ttl", why));
    }
    let base = api.urls.base(console_type).ok_or_else(|| {
        let why = format!("no page for {console_type} consoles; set proxy.spice_url to one");
        Reject::new(StatusCode::BAD_REQUEST, "no-page", why)
    })?;
    let instance = InstanceRef::from(&*request.instance);
    let located = api.compute.locate(instance, console_type).await?;
    let new = NewGrant {
        instance: located.instance.id,
        instance_name: located.instance.name,
        console_type,
        target: located.target,
        base: base.clone(),
        caller: caller.to_string(),
        ttl,
    };
    let (token, grant) = api.auth.authorize(new).await?;
    api.metrics
        .tokens_issued
        .get_or_create(&console_type.into())
        .inc();
    let id = token.hash().id();
    tracing::info!(
        token = %id, instance = %grant.instance, name = grant.instance_name,
        r#type = %console_type, %caller, expires = %grant.expires, "console URL issued"
    );
    Ok(ConsoleView::new(
        &AccessUrl::new(base, console_type, &token),
        &token,
        &grant,
    ))
}
