use serde::{Deserialize, Serialize};

/// Why a good token opens nothing just now: what its maker knows of the instance.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum NoConsole {
    /// It does not run.
    #[error("the instance does not run")]
    Off,
    /// It is about to be no more.
    #[error("the instance is being deleted")]
    Deleting,
    /// Its console may be elsewhere in a moment.
    #[error("the instance is on the move (task state `{0}`)")]
    Moving(String),
    /// Somebody else's console was at its address since.
    #[error("the console's address was given to another instance since")]
    Taken,
    /// Nothing here shows such consoles.
    #[error("`{0}` consoles are not known here")]
    Foreign(String),
}
