use http::Method;
use serde_json::Value;

use super::{Fault, Finding, Found, Visit};
use crate::cmd::Exit;
use crate::model::SecondViewer;

/// Has a token made that lets nobody do more than look, and moves no other viewer out.
pub(super) async fn issue(visit: &mut Visit) -> Finding {
    let Some(instance) = &visit.instance else {
        return Ok(visit.left());
    };
    if visit.config.auth.source.is_foreign() {
        visit.missing = "tokens are made elsewhere (auth.source)";
        return Ok(visit.left());
    }
    let body = serde_json::json!({
        "instance": instance.id, "rights": "view", "second_viewer": SecondViewer::Allow,
    });
    let issued = visit.ask(Method::POST, "/v1/consoles", Some(body.to_string()));
    let console = issued.await?;
    let console = visit.console.insert(console);
    let what = format!("{}, good until {}", console.id, console.expires_at);
    Ok(Found::Fine(what))
}

/// Gives the token back.
pub(super) async fn revoke(visit: &mut Visit) -> Finding {
    let Some(console) = visit.console.take() else {
        return Ok(Found::Nothing("there is none".to_owned()));
    };
    let path = format!("/v1/tokens/{}", console.id);
    let revoked: Result<Value, Fault> = visit.ask(Method::DELETE, &path, None).await;
    match revoked {
        Ok(_) => Ok(Found::Fine(console.id.to_string())),
        Err(fault) if fault.exit == Exit::NotFound => {
            Ok(Found::Fine(format!("{} had gone already", console.id)))
        }
        Err(fault) => Err(fault),
    }
}
