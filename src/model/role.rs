use std::fmt;

use serde::{Deserialize, Serialize};

/// What a caller may do, each including those before it (Keystone's own implied roles).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See what there is.
    Reader,
    /// Open consoles.
    Member,
    /// Everything, of every project.
    Admin,
}

impl Role {
    /// Lower-case word, as Keystone has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }

    /// What a list of Keystone's role names amounts to; `None` if it holds no role of these.
    pub fn highest<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let known = |name: &str| match name.to_ascii_lowercase().as_str() {
            "admin" => Some(Self::Admin),
            "manager" | "member" => Some(Self::Member),
            "reader" => Some(Self::Reader),
            _ => None,
        };
        names.into_iter().filter_map(known).max()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_role_counts_and_foreign_ones_do_not() {
        assert_eq!(
            Role::highest(["reader", "Member", "creator"]),
            Some(Role::Member)
        );
        assert_eq!(Role::highest(["manager"]), Some(Role::Member));
        assert_eq!(Role::highest(["creator"]), None);
    }
}
