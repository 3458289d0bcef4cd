//! Callers that Keystone knows: what a token of its allows here.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use url::Url;

use super::identity::{Caller, Who};
use crate::http::Reject;
use crate::keystone::{Identity, Keystone, NotValid, Scope};
use crate::model::Role;

/// Keystone as the door to this API.
#[derive(Debug)]
pub struct Identities {
    keystone: Keystone,
    challenge: HeaderValue,
}

impl Identities {
    /// Asks `keystone`; tells callers without a token to get one at `url`.
    pub fn new(keystone: Keystone, url: &Url) -> Self {
        let url = url.as_str().trim_end_matches('/');
        let challenge = HeaderValue::try_from(format!("Keystone uri=\"{url}\""));
        Self {
            keystone,
            challenge: challenge.unwrap_or(HeaderValue::from_static("Keystone")),
        }
    }

    /// Whose `token` is, and what that allows. Errors: 401 for no such token, 403 for one that
    /// allows nothing here, 503 where Keystone cannot be asked. Cancel-safe.
    pub(super) async fn caller(&self, token: &str) -> Result<Caller, Reject> {
        match self.keystone.validate(token).await {
            Ok(identity) => caller(&identity),
            Err(NotValid::Unknown) => Err(self.unauthorized("this token is not known to Keystone")),
            Err(NotValid::Unavailable(error)) => {
                // The cause names what lies behind this gateway: for its log alone.
                let why = "Keystone cannot be asked whose this token is; try again";
                let reject = Reject::retry("keystone-unavailable", why, 5);
                let correlation = reject.correlation;
                tracing::warn!(%error, %correlation, "Keystone gives no answer");
                Err(reject)
            }
        }
    }

    /// The refusal that tells where to get a token.
    pub(super) fn unauthorized(&self, detail: &'static str) -> Reject {
        Reject::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(WWW_AUTHENTICATE, self.challenge.clone())
    }
}

/// Consoles are in projects, so only a project's token opens them (Nova's `scope_types`).
fn caller(identity: &Identity) -> Result<Caller, Reject> {
    let forbidden = |why: String| Reject::new(StatusCode::FORBIDDEN, "forbidden", why);
    let project = match &identity.scope {
        Scope::Project { project, .. } => project.id.clone(),
        Scope::Domain(_) => return Err(forbidden(out_of_scope("a domain"))),
        Scope::System => return Err(forbidden(out_of_scope("the system"))),
        Scope::Nowhere => return Err(forbidden(out_of_scope("nothing"))),
    };
    let roles = identity.roles.iter().map(String::as_str);
    let role = Role::highest(roles).ok_or_else(|| {
        let why = "you have none of the roles reader, member and admin in this project";
        forbidden(why.to_owned())
    })?;
    Ok(Caller {
        who: Who::User {
            name: identity.user.name.clone(),
            domain: identity.user_domain.name.clone(),
        },
        role,
        project: Some(project),
        address: None,
    })
}

fn out_of_scope(scope: &str) -> String {
    format!("this token is scoped to {scope}; get one that is scoped to a project")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystone::Named;
    use crate::model::UnixTime;

    fn named(name: &str) -> Named {
        Named {
            id: format!("{name}-id"),
            name: name.to_owned(),
        }
    }

    fn identity(scope: Scope, roles: &[&str]) -> Identity {
        Identity {
            user: named("alice"),
            user_domain: named("Default"),
            scope,
            roles: roles.iter().map(ToString::to_string).collect(),
            expires: UnixTime(u64::MAX),
        }
    }

    fn web() -> Scope {
        Scope::Project {
            project: named("web"),
            domain: named("Default"),
        }
    }

    #[test]
    fn a_member_sees_its_own_project() {
        let caller = caller(&identity(web(), &["member", "reader", "creator"])).unwrap();

        assert_eq!(caller.to_string(), "user:alice@Default");
        assert_eq!(caller.role, Role::Member);
        assert!(caller.sees(Some("web-id")));
        assert!(!caller.sees(Some("other-id")) && !caller.sees(None));
    }

    #[test]
    fn an_admin_sees_every_project() {
        let caller = caller(&identity(web(), &["admin", "member", "reader"])).unwrap();
        assert!(caller.sees(Some("other-id")) && caller.sees(None));
    }

    #[test]
    fn a_token_out_of_scope_or_without_a_role_allows_nothing() {
        for (scope, roles) in [
            (Scope::System, &["admin"][..]),
            (Scope::Domain(named("Default")), &["admin"]),
            (Scope::Nowhere, &[]),
            (web(), &["creator"]),
            (web(), &[]),
        ] {
            let reject = caller(&identity(scope, roles)).unwrap_err();
            assert_eq!(reject.status, StatusCode::FORBIDDEN);
        }
    }
}
