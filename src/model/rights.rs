use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a viewer may do at a console, beside looking at it.
///
/// Written `control` (everything), `view` (nothing), or as a list of `input`, `clipboard-in` and
/// `clipboard-out` with commas between.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rights {
    /// Press keys, move the pointer, change the screen's size, turn the machine off.
    pub input: bool,
    /// Put something into the console's clipboard.
    pub clipboard_in: bool,
    /// Read what the console puts into its clipboard.
    pub clipboard_out: bool,
}

/// No right has this name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is no right, expected control, view, or a list of input, clipboard-in, clipboard-out"
)]
pub struct UnknownRight(String);

impl Rights {
    /// Everything.
    pub const CONTROL: Self = Self {
        input: true,
        clipboard_in: true,
        clipboard_out: true,
    };

    /// Nothing but to look.
    pub const VIEW: Self = Self {
        input: false,
        clipboard_in: false,
        clipboard_out: false,
    };

    /// Whether there is something that a viewer may not do.
    pub fn are_limited(self) -> bool {
        self != Self::CONTROL
    }

    fn with(self, name: &str) -> Result<Self, UnknownRight> {
        match name.trim() {
            "control" => Ok(Self::CONTROL),
            "view" => Ok(self),
            "input" => Ok(Self {
                input: true,
                ..self
            }),
            "clipboard-in" => Ok(Self {
                clipboard_in: true,
                ..self
            }),
            "clipboard-out" => Ok(Self {
                clipboard_out: true,
                ..self
            }),
            unknown => Err(UnknownRight(unknown.to_owned())),
        }
    }
}

impl Default for Rights {
    fn default() -> Self {
        Self::CONTROL
    }
}

impl FromStr for Rights {
    type Err = UnknownRight;

    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        text.split(',').try_fold(Self::VIEW, Self::with)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::CONTROL {
            return f.write_str("control");
        }
        f.write_str(if self.input { "input" } else { "view" })?;
        if self.clipboard_in {
            f.write_str(",clipboard-in")?;
        }
        if self.clipboard_out {
            f.write_str(",clipboard-out")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Rights {
    type Error = UnknownRight;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Rights> for String {
    fn from(rights: Rights) -> Self {
        rights.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rights_read_back_from_what_they_show() {
        for bits in 0..8_u8 {
            let rights = Rights {
                input: bits & 1 != 0,
                clipboard_in: bits & 2 != 0,
                clipboard_out: bits & 4 != 0,
            };
            assert_eq!(rights.to_string().parse(), Ok(rights));
            assert_eq!(rights.are_limited(), bits != 7);
        }
    }

    #[test]
    fn a_word_that_is_no_right_is_named() {
        let unknown = Err(UnknownRight("admin".to_owned()));
        assert_eq!("view,admin".parse::<Rights>(), unknown);
        assert!("".parse::<Rights>().is_err());
    }
}
