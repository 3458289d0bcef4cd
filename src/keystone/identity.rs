use serde::Deserialize;

use crate::model::UnixTime;

/// Whom a token stands for, where, and what it may do there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The user.
    pub user: Named,
    /// The user's domain.
    pub user_domain: Named,
    /// Where the roles are good.
    pub scope: Scope,
    /// The names of the roles, implied ones included.
    pub roles: Vec<String>,
    /// The token is good strictly before this.
    pub expires: UnixTime,
}

/// A thing of Keystone's.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
pub struct Named {
    /// Its id, which never changes.
    pub id: String,
    /// Its name, within its domain.
    pub name: String,
}

/// Where a token's roles are good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// In a project, of a domain.
    Project {
        /// The project.
        project: Named,
        /// Its domain.
        domain: Named,
    },
    /// In a domain: for its projects and users, not for what is in the projects.
    Domain(Named),
    /// In the deployment itself, not for what is in the projects.
    System,
    /// Nowhere: it only tells who somebody is.
    Nowhere,
}

#[derive(Deserialize)]
struct Document {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    user: InDomain,
    project: Option<InDomain>,
    domain: Option<Named>,
    system: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    roles: Vec<Role>,
    expires_at: String,
}

#[derive(Deserialize)]
struct InDomain {
    #[serde(flatten)]
    it: Named,
    domain: Named,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

impl Identity {
    /// Reads the answer to `GET /v3/auth/tokens`. Errors: what is wrong, in words.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(body)
            .map_err(|error| format!("its answer is no token: {error}"))?;
        let token = document.token;
        let scope = match (token.project, token.domain, token.system) {
            (Some(project), None, None) => Scope::Project {
                project: project.it,
                domain: project.domain,
            },
            (None, Some(domain), None) => Scope::Domain(domain),
            (None, None, Some(_)) => Scope::System,
            (None, None, None) => Scope::Nowhere,
            _ => return Err("its answer is a token with two scopes".to_owned()),
        };
        Ok(Self {
            user: token.user.it,
            user_domain: token.user.domain,
            scope,
            roles: token.roles.into_iter().map(|role| role.name).collect(),
            expires: time(&token.expires_at)?,
        })
    }
}

/// A time as Keystone writes it: `2026-11-26T08:05:12.000000Z`.
pub(super) fn time(text: &str) -> Result<UnixTime, String> {
    let time = humantime::parse_rfc3339(text)
        .map_err(|error| format!("its answer has no time in `{text}`: {error}"))?;
    let since = time.duration_since(std::time::UNIX_EPOCH);
    Ok(UnixTime(since.map_or(0, |since| since.as_secs())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn token(scope: &Value) -> Value {
        let mut token = json!({
            "user": {"id": "u1", "name": "alice", "domain": {"id": "default", "name": "Default"}},
            "methods": ["password"],
            "issued_at": "2026-11-26T07:05:12.000000Z",
            "expires_at": "2026-11-26T08:05:12.000000Z",
        });
        let token_members = token.as_object_mut().unwrap();
        token_members.extend(scope.as_object().unwrap().clone());
        json!({ "token": token })
    }

    fn parse(document: &Value) -> Result<Identity, String> {
        Identity::parse(document.to_string().as_bytes())
    }

    #[test]
    fn a_token_says_who_where_and_what() {
        let domain = json!({"id": "default", "name": "Default"});
        let document = token(&json!({
            "project": {"id": "p1", "name": "web", "domain": domain},
            "roles": [{"id": "r1", "name": "member"}, {"id": "r2", "name": "reader"}],
        }));

        let identity = parse(&document).unwrap();

        let named = |id: &str, name: &str| Named {
            id: id.to_owned(),
            name: name.to_owned(),
        };
        let expected = Identity {
            user: named("u1", "alice"),
            user_domain: named("default", "Default"),
            scope: Scope::Project {
                project: named("p1", "web"),
                domain: named("default", "Default"),
            },
            roles: vec!["member".to_owned(), "reader".to_owned()],
            expires: UnixTime(1_795_680_312),
        };
        assert_eq!(identity, expected);
    }

    #[test]
    fn scopes_are_told_apart() {
        let domain = json!({"id": "d", "name": "D"});
        let scope = |members: Value| parse(&token(&members)).map(|identity| identity.scope);
        let named = Named {
            id: "d".to_owned(),
            name: "D".to_owned(),
        };

        assert_eq!(scope(json!({"domain": domain})), Ok(Scope::Domain(named)));
        assert_eq!(scope(json!({"system": {"all": true}})), Ok(Scope::System));
        assert_eq!(scope(json!({})), Ok(Scope::Nowhere));
        assert!(scope(json!({"domain": domain, "system": {"all": true}})).is_err());
    }

    #[test]
    fn an_answer_that_is_no_token_is_none() {
        assert!(Identity::parse(b"<html>").is_err());
        assert!(parse(&json!({"token": {}})).is_err());
        let mut document = token(&json!({}));
        document["token"]["expires_at"] = json!("tomorrow");
        assert!(parse(&document).unwrap_err().contains("`tomorrow`"));
    }
}
